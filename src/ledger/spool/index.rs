//! What the journal holds, in memory: the end of each chain, who owns each state file, and the marks.
//!
//! Owns: the decision what may be appended (rules 1 and 3), and what an entry changes in the picture. It forgets
//! with the segments that are trimmed.
//! Must never: do I/O. A few hundred bytes for each object; no snapshot is kept, only where it stands.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    names,
    written::{Kept, ShownMark},
};
use crate::{
    broken::{self, Variant},
    ledger::{
        entry::{Entry, KnownHead},
        record::{Actor, Envelope, Head, Kind, Micros, Record},
        snapshot::{Present, Snapshot},
    },
    lifecycle::State,
};

/// A chain: cluster and object uid.
pub(super) type ChainId = (Uuid, Uuid);

fn chain_of(record: &Record) -> ChainId {
    (record.envelope().cluster, record.envelope().uid)
}

/// How many transitions a state file shows.
const RECENT: usize = 8;
/// How many operation records of an object are remembered, to tell one that is told again. A pass tells the finish of
/// the request before, the start and the finish of the present one.
const OPERATIONS: usize = 8;

/// What identifies an operation's record within its object: operation and phase.
type Phase = (Option<Uuid>, Kind);

fn phase(record: &Record) -> Phase {
    (record.envelope().operation, record.envelope().kind)
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The first number of its segment, which is the segment's name.
    pub(super) segment: u64,
    /// Where its bytes begin there.
    pub(super) position: u64,
    /// Its own number.
    pub(super) number: u64,
}

/// One change of state as a state file shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Recent {
    pub(super) sequence: u64,
    pub(super) at: Micros,
    pub(super) from: Option<State>,
    pub(super) to: Option<State>,
    pub(super) reason: String,
    pub(super) actor: Actor,
}

/// On what terms something is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Terms {
    /// This journal is the home: only what follows its chain.
    Home,
    /// This journal stands beside the database: whatever comes, since others write into the same chains. Only a
    /// second account of an operation's phase is not taken.
    Beside,
    /// The database had it already, when so many of its rewinds were known.
    Tail {
        /// See [`super::Spool::age`].
        age: u64,
    },
}

/// What may become of an entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Append it.
    Append,
    /// It stands already.
    Stands,
    /// A record stands where the entry's would: in its chain, or for its operation's phase. This one, if it is in the
    /// journal.
    Taken(Place),
    /// There is no room for it.
    Refused,
    /// The chain ends elsewhere.
    Elsewhere {
        /// Its end.
        head: Head,
        /// What the entry was made on.
        shown: Head,
        /// The entry's own place.
        record: Head,
    },
}

/// The end of a chain and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct End {
    pub(super) known: KnownHead,
    pub(super) place: Place,
}

impl End {
    fn of(envelope: &Envelope, head: Head, before: Option<&Self>, place: Place) -> Self {
        let state = envelope.to.or(before.and_then(|end| end.known.state));
        Self { known: KnownHead { head, epoch: envelope.epoch, state, prev: envelope.prev }, place }
    }
}

#[derive(Debug, Default)]
struct Object {
    end: Option<End>,
    /// The latest snapshot, and its place among snapshots of the object.
    present: Option<(Place, Age)>,
    /// The same of those that came with no ending.
    alive: Option<(Place, Age)>,
    recent: VecDeque<Recent>,
    /// The last operation records, oldest first.
    told: VecDeque<(Phase, Place)>,
}

/// Which of two snapshots of one object is the later.
type Age = (u64, u64, Micros);

/// Who owns a state file. Compared: the living before the deleted, then the younger, then by uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    lives: bool,
    created_at: Micros,
    chain: ChainId,
}

/// A state file's path below the spool: folder and name.
pub(super) type StateFile = Arc<(String, String)>;

/// What a state file is made from.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    /// The latest snapshot.
    pub(super) place: Place,
    /// The chain's end.
    pub(super) end: Option<End>,
    /// The last transitions, oldest first.
    pub(super) recent: Vec<Recent>,
}

/// See the module's comment.
#[derive(Debug, Default)]
pub(super) struct Index {
    objects: HashMap<ChainId, Object>,
    files: HashMap<StateFile, Owner>,
    epochs: HashMap<Uuid, u64>,
    marks: HashMap<ChainId, (ShownMark, Place)>,
    /// The first number that is still in the journal.
    first: u64,
}

impl Index {
    /// Where the latest snapshot of an object stands, by number, and at which sequence of its chain it was made. An ending's
    /// does not count: an import moves no head onto one (rule 11), and then writes the snapshot before it.
    pub(super) fn newest(&self, chain: ChainId) -> Option<(u64, u64)> {
        let (place, (sequence, _, _)) = self.objects.get(&chain)?.alive?;
        Some((place.number, sequence))
    }

    /// The end of a chain.
    pub(super) fn end(&self, chain: ChainId) -> Option<&End> {
        self.objects.get(&chain)?.end.as_ref()
    }

    /// The largest epoch seen in a cluster.
    pub(super) fn largest_epoch(&self, cluster: Uuid) -> Option<u64> {
        self.epochs.get(&cluster).copied()
    }

    /// How many objects there are.
    pub(super) fn objects(&self) -> usize {
        self.objects.len()
    }

    /// Every state file.
    pub(super) fn files(&self) -> impl Iterator<Item = &StateFile> {
        self.files.keys()
    }

    /// The last mark of an object.
    pub(super) fn mark(&self, chain: ChainId) -> Option<&ShownMark> {
        self.marks.get(&chain).map(|(mark, _)| mark)
    }

    /// The last mark of every object that has one.
    pub(super) fn marks(&self) -> impl Iterator<Item = &ShownMark> {
        self.marks.values().map(|(mark, _)| mark)
    }

    /// What a state file is made from.
    pub(super) fn sheet(&self, file: &StateFile) -> Option<Sheet> {
        let object = self.objects.get(&self.files.get(file)?.chain)?;
        let (place, _) = object.present?;
        Some(Sheet { place, end: object.end, recent: object.recent.iter().cloned().collect() })
    }

    /// Forgets what stood before the number `first`. Of an object whose latest snapshot goes, everything: its state
    /// file stays as it is.
    pub(super) fn forget_before(&mut self, first: u64) {
        self.first = first;
        let gone = |place: Place| place.segment < first;
        self.marks.retain(|_, (_, place)| !gone(*place));
        let mut forgotten = HashSet::new();
        self.objects.retain(|&chain, object| {
            object.told.retain(|(_, place)| !gone(*place));
            let stays = match object.present {
                Some((place, _)) => !gone(place),
                None => !object.told.is_empty() || object.end.is_some_and(|end| !gone(end.place)),
            };
            if !stays {
                forgotten.insert(chain);
            }
            stays
        });
        self.files.retain(|_, owner| !forgotten.contains(&owner.chain));
    }

    /// Takes what is durable at `place`; answers with the state file that it changes.
    pub(super) fn apply(&mut self, kept: &Kept, place: Place) -> Option<StateFile> {
        let entry = match kept {
            Kept::Entry(entry) => entry,
            Kept::Mark(mark) => {
                let chain = (mark.target.cluster, mark.target.uid);
                self.saw_epoch(chain.0, mark.epoch);
                self.marks.insert(chain, (mark.clone(), place));
                return None;
            }
        };
        match entry {
            Entry::Chained { record, snapshot } => {
                self.apply_record(record, place);
                self.apply_snapshot(snapshot, record.envelope().to == Some(State::Deleted), place)
            }
            Entry::Operation { record, .. } => {
                self.apply_operation(record, place);
                None
            }
            Entry::Present(snapshot) => self.apply_snapshot(snapshot, false, place),
            Entry::Carried { record, .. } => {
                self.apply_record(record, place);
                None
            }
            Entry::Usage(_) => None,
        }
    }

    /// As a home, the journal is appended to by compare-and-set, so its order is the chain's. Beside a database
    /// records come late and again, and do not move the end back.
    fn apply_record(&mut self, record: &Record, place: Place) {
        let envelope = record.envelope();
        self.saw_epoch(envelope.cluster, envelope.epoch);
        let object = self.objects.entry(chain_of(record)).or_default();
        let known = object.end.map(|end| end.known.head);
        if known.is_some_and(|known| known.sequence > envelope.seq || known == record.head()) {
            return;
        }
        object.end = Some(End::of(envelope, record.head(), object.end.as_ref(), place));
        if envelope.to.is_some() {
            if object.recent.len() == RECENT {
                object.recent.pop_front();
            }
            object.recent.push_back(Recent {
                sequence: envelope.seq,
                at: envelope.at,
                from: envelope.from,
                to: envelope.to,
                reason: envelope.reason.clone(),
                actor: envelope.actor.clone(),
            });
        }
    }

    fn apply_operation(&mut self, record: &Record, place: Place) {
        let envelope = record.envelope();
        self.saw_epoch(envelope.cluster, envelope.epoch);
        let told = &mut self.objects.entry(chain_of(record)).or_default().told;
        // Told again only beside a database, by the account that stands there.
        told.retain(|(known, _)| *known != phase(record));
        if told.len() == OPERATIONS {
            told.pop_front();
        }
        told.push_back((phase(record), place));
    }

    /// Where the record of this phase of an operation stands; none where it is not among the last.
    fn told(&self, chain: ChainId, phase: Phase) -> Option<Place> {
        let told = &self.objects.get(&chain)?.told;
        told.iter().find(|(known, _)| *known == phase).map(|&(_, place)| place)
    }

    fn apply_snapshot(&mut self, snapshot: &Snapshot, ends: bool, place: Place) -> Option<StateFile> {
        let chain = (snapshot.target.cluster, snapshot.target.uid);
        self.saw_epoch(chain.0, snapshot.epoch);
        let object = self.objects.entry(chain).or_default();
        if object.present.is_some_and(|(_, known)| known > snapshot.age()) {
            return None;
        }
        object.present = Some((place, snapshot.age()));
        if !ends && snapshot.state() != Some(State::Deleted) {
            object.alive = object.present;
        }
        let service = match &snapshot.present {
            Present::Service(service) => service,
            // Only services have state files.
            Present::Grant(_) | Present::Rollout(_) | Present::Quota(_) => return None,
        };
        let state = object.end.as_ref().and_then(|end| end.known.state).or(service.state);
        let lives = !ends && state != Some(State::Deleted);
        let owner = Owner { lives, created_at: snapshot.created_at, chain };
        let file =
            Arc::new((names::folder(&service.namespace.name), names::file(&service.user, &service.service_name)));
        match self.files.get_mut(&file) {
            Some(present) if present.chain != chain && *present > owner => return None,
            Some(present) => *present = owner,
            None => {
                self.files.insert(Arc::clone(&file), owner);
            }
        }
        Some(file)
    }

    fn saw_epoch(&mut self, cluster: Uuid, epoch: u64) {
        let largest = self.epochs.entry(cluster).or_default();
        *largest = epoch.max(*largest);
    }
}

/// Decides about the entries of one batch: what stands in the journal plus what the batch has appended so far.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    index: &'a Index,
    ends: HashMap<ChainId, End>,
    told: HashMap<(ChainId, Phase), Place>,
}

impl<'a> Batch<'a> {
    pub(super) fn on(index: &'a Index) -> Self {
        Self { index, ends: HashMap::new(), told: HashMap::new() }
    }

    /// What may become of `kept`.
    pub(super) fn decide(&self, kept: &Kept, terms: Terms) -> Decision {
        let Kept::Entry(entry) = kept else { return Decision::Append };
        match entry {
            Entry::Chained { record, .. } | Entry::Carried { record, .. } if terms == Terms::Home => {
                self.decide_chained(record)
            }
            Entry::Chained { .. } | Entry::Carried { .. } => Decision::Append,
            Entry::Operation { .. } if matches!(terms, Terms::Tail { .. }) => Decision::Append,
            Entry::Operation { record, .. } => {
                let (chain, phase) = (chain_of(record), phase(record));
                let told = self.told.get(&(chain, phase)).copied().or_else(|| self.index.told(chain, phase));
                told.map_or(Decision::Append, Decision::Taken)
            }
            // Whether it is the latest is decided when it is applied; it may be of use all the same.
            Entry::Present(_) | Entry::Usage(_) => Decision::Append,
        }
    }

    fn decide_chained(&self, record: &Record) -> Decision {
        let envelope = record.envelope();
        let shown = Head { sequence: envelope.seq.saturating_sub(1), hash: envelope.prev };
        let Some(end) = self.end(chain_of(record)) else {
            return if shown == Head::GENESIS {
                Decision::Append
            } else {
                Decision::Elsewhere { head: Head::GENESIS, shown, record: record.head() }
            };
        };
        let head = end.known.head;
        if head == record.head() {
            Decision::Stands
        } else if record.follows(head) || (broken::is(Variant::EpochDecides) && envelope.epoch > end.known.epoch) {
            Decision::Append
        } else if head.sequence == envelope.seq
            && end.known.prev == envelope.prev
            && end.place.segment >= self.index.first
        {
            Decision::Taken(end.place)
        } else {
            Decision::Elsewhere { head, shown, record: record.head() }
        }
    }

    fn end(&self, chain: ChainId) -> Option<&End> {
        self.ends.get(&chain).or_else(|| self.index.end(chain))
    }

    /// Notes that `kept` was appended at `place`.
    pub(super) fn appended(&mut self, kept: &Kept, place: Place) {
        let Kept::Entry(entry) = kept else { return };
        match entry {
            Entry::Chained { record, .. } | Entry::Carried { record, .. } => {
                let chain = chain_of(record);
                let end = End::of(record.envelope(), record.head(), self.end(chain), place);
                self.ends.insert(chain, end);
            }
            Entry::Operation { record, .. } => {
                self.told.insert((chain_of(record), phase(record)), place);
            }
            Entry::Present(_) | Entry::Usage(_) => {}
        }
    }
}
