//! Reads a spool: live, copied, or broken; without a lock and without writing a byte.
//!
//! Owns: the questions that the reading commands ask. Must never: stop at damage (it is handed out beside the
//! answer); keep snapshots of what was not asked for.
//!
//! On a live spool, entries may show that are written and not yet synced, for the length of one sync.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use uuid::Uuid;

use super::{
    index::Place,
    names,
    scan::{self, ACKNOWLEDGED, Damage},
    state,
    written::{Brief, Kept, Written},
};
use crate::{
    ledger::{
        entry::Entry,
        error::LedgerError,
        hash::Hash,
        record::{Head, Kind, Micros, Record},
        snapshot::{Service, Snapshot},
        verify,
        view::{ChainId, Found, Moment, Stored, StoredHead},
    },
    lifecycle::State,
};

/// An answer, and what of the journal could not be read while it was looked for.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// Everything that is not as it was written.
    pub damages: Vec<Damage>,
}

/// The writer that a spool belongs to, as its newest segment that can be read names it.
pub fn writer(dir: &Path) -> Result<String, LedgerError> {
    for first in scan::segments(dir)?.into_iter().rev() {
        if let Some(header) = scan::Segment::read(dir, first)?.header {
            return Ok(header.writer);
        }
    }
    let why = format!("{} has no segment whose header can be read, so nobody knows whose spool it is", dir.display());
    Err(LedgerError::Configuration { why })
}

/// Every chained record of the objects that had this name, life after life, each by its sequence.
pub fn timeline(dir: &Path, namespace: &str, name: &str) -> Result<Answer<Vec<Moment>>, LedgerError> {
    let mut moments: Vec<Moment> = vec![];
    let mut known: HashMap<Hash, usize> = HashMap::new();
    let scanned = scan::scan(dir, &mut |_, payload| {
        let brief = brief(payload)?;
        let asked = brief.target().is_some_and(|target| target.namespace == namespace && target.name == name);
        if !asked || !brief.is_chained() {
            return Ok(());
        }
        let (record, target) = match entry(payload)? {
            Some(Entry::Chained { record, snapshot }) => (record, snapshot.target),
            Some(Entry::Carried { record, target }) => (record, target),
            Some(Entry::Operation { .. } | Entry::Present(_) | Entry::Usage(_)) | None => return Ok(()),
        };
        // Beside a database, a record may be there again: from the outage, and from the tail.
        if let Some(at) = known.get(&record.hash()) {
            let moment: &mut Moment = &mut moments[*at];
            if moment.record.details().is_none() {
                moment.record = record;
            }
        } else {
            known.insert(record.hash(), moments.len());
            moments.push(Moment { target, record, superseded: false });
        }
        Ok(())
    })?;
    // A life begins with its first record; the journal has them in that order.
    let mut order: HashMap<Uuid, usize> = HashMap::new();
    for moment in &moments {
        let next = order.len();
        order.entry(moment.target.uid).or_insert(next);
    }
    moments.sort_by_key(|moment| (order.get(&moment.target.uid).copied(), moment.record.envelope().seq));
    name_superseded(&mut moments);
    Ok(Answer { value: moments, damages: scanned.damages })
}

/// Of several records with one sequence, those that no later record stands on have lost.
fn name_superseded(moments: &mut [Moment]) {
    let mut line = None;
    for moment in moments.iter_mut().rev() {
        let envelope = moment.record.envelope();
        let (chain, hash) = ((envelope.cluster, envelope.uid), moment.record.hash());
        match line {
            Some((known, sequence, wanted)) if known == chain && sequence == envelope.seq && wanted != hash => {
                moment.superseded = true;
            }
            Some((known, sequence, _)) if known == chain && sequence < envelope.seq => moment.superseded = true,
            _ => line = Some((chain, envelope.seq.saturating_sub(1), envelope.prev)),
        }
    }
}

/// The services that this user has or had under this name: the living first, then the youngest.
pub fn find(dir: &Path, user: &str, service_name: &str) -> Result<Answer<Vec<Found>>, LedgerError> {
    #[derive(Default)]
    struct Candidate {
        snapshot: Option<Snapshot<Service>>,
        end: Option<(Head, u64, Option<State>, Micros)>,
    }
    let mut candidates: BTreeMap<(Uuid, Uuid), Candidate> = BTreeMap::new();
    let scanned = scan::scan(dir, &mut |_, payload| {
        if !brief(payload)?.is_about(user, service_name) {
            return Ok(());
        }
        let (record, snapshot) = match entry(payload)? {
            Some(Entry::Chained { record, snapshot }) => (Some(record), snapshot),
            Some(Entry::Present(snapshot)) => (None, snapshot),
            Some(Entry::Operation { .. } | Entry::Carried { .. } | Entry::Usage(_)) | None => return Ok(()),
        };
        let Some(snapshot) = snapshot.into_service() else { return Ok(()) };
        let candidate = candidates.entry((snapshot.target.cluster, snapshot.target.uid)).or_default();
        if let Some(record) = record
            && candidate.end.is_none_or(|(head, ..)| head.sequence < record.envelope().seq)
        {
            let envelope = record.envelope();
            let before = candidate.end.map(|(_, _, state, since)| (state, since));
            let (state, since) = match (envelope.to, before) {
                (Some(to), _) => (Some(to), envelope.at),
                (None, Some(before)) => before,
                (None, None) => (snapshot.present.state, envelope.at),
            };
            candidate.end = Some((record.head(), envelope.epoch, state, since));
        }
        if candidate.snapshot.as_ref().is_none_or(|known| known.age() <= snapshot.age()) {
            candidate.snapshot = Some(snapshot);
        }
        Ok(())
    })?;
    let mut found: Vec<_> = candidates
        .into_values()
        .filter_map(|candidate| {
            let mut snapshot = candidate.snapshot?;
            let mut since = snapshot.observed_at;
            if let Some((head, _, state, at)) = candidate.end {
                (snapshot.head, snapshot.present.state, since) = (head, state.or(snapshot.present.state), at);
            }
            Some(Found { snapshot, since })
        })
        .collect();
    found.sort_by_key(|found| {
        let snapshot = &found.snapshot;
        (snapshot.present.state == Some(State::Deleted), std::cmp::Reverse(snapshot.created_at), snapshot.target.uid)
    });
    Ok(Answer { value: found, damages: scanned.damages })
}

/// Which of two records of a chain the journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holds {
    /// The record itself.
    pub(super) record: bool,
    /// The one before it. Also true where the journal is damaged: a gap is no proof that it was never there, and
    /// an `api-rewound` record too many costs nothing.
    pub(super) shown: bool,
}

/// Looks a record and its predecessor up.
pub(super) fn holds(dir: &Path, (cluster, uid): (Uuid, Uuid), record: Hash, shown: Hash) -> Result<Holds, LedgerError> {
    let mut holds = Holds::default();
    let scanned = scan::scan(dir, &mut |_, payload| {
        let brief = brief(payload)?;
        let chain = brief.target().map(|target| (target.cluster, target.uid));
        if brief.is_chained() && chain == Some((cluster, uid)) {
            holds.record |= brief.hash == Some(record);
            holds.shown |= brief.hash == Some(shown);
        }
        Ok(())
    })?;
    holds.shown |= scanned.damages.iter().any(|damage| !damage.is_tail());
    Ok(holds)
}

/// All chained records, chain by chain in the order of (cluster, uid), each by its sequence.
///
/// Finds their places first (32 bytes for each record in memory, 16 for each of an operation), then reads them one at a
/// time.
pub fn chains(dir: &Path) -> Result<Answer<Chains>, LedgerError> {
    let mut places: BTreeMap<ChainId, Vec<(u64, Place)>> = BTreeMap::new();
    let mut standalone = 0;
    let (mut told, mut told_again) = (HashSet::new(), HashSet::new());
    let scanned = scan::scan(dir, &mut |place, payload| {
        let brief = brief(payload)?;
        match key(&brief)? {
            Some((chain, sequence)) if brief.is_chained() => {
                places.entry(chain).or_default().push((sequence, place));
            }
            Some(_) => {
                // Operation records stand alone: what can be proven of one is proven here.
                if let Some(Entry::Operation { record, .. }) = entry(payload)? {
                    standalone += 1;
                    if !told.insert(mark(&record)) {
                        told_again.insert(mark(&record));
                    }
                }
            }
            None => {}
        }
        Ok(())
    })?;
    // The order of the journal decides between equal sequences: the sort is stable.
    let heads = places
        .iter_mut()
        .filter_map(|(&chain, places)| {
            let last = places.last().copied();
            places.sort_by_key(|&(sequence, _)| sequence);
            Some((chain, last?.1))
        })
        .collect();
    let value = Chains {
        dir: dir.to_owned(),
        heads,
        standalone,
        told_again,
        rest: places.into_iter(),
        chain: None,
        files: HashMap::new(),
    };
    Ok(Answer { value, damages: scanned.damages })
}

/// Whether the spool stands, or stood, beside a database. Then it is not the whole ledger: chains begin anywhere, have
/// gaps where other leaders wrote, and a record may be there more than once.
pub fn is_beside(dir: &Path) -> bool {
    dir.join(ACKNOWLEDGED).exists()
}

/// What a journal beside a database holds; each record was read and checked against its own digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Chained records, each counted once.
    pub records: u64,
    /// Their chains.
    pub chains: u64,
    /// Chained records without their details.
    pub details_missing: u64,
    /// Records that stand alone, each counted once.
    pub standalone: u64,
}

/// Checks every record of the journal for itself. 16 bytes for each in memory.
pub fn tail(dir: &Path) -> Result<Answer<Tail>, LedgerError> {
    let mut tail = Tail::default();
    let (mut known, mut chains) = (HashSet::new(), HashSet::new());
    let scanned = scan::scan(dir, &mut |_, payload| {
        let record = match entry(payload)? {
            Some(Entry::Chained { record, .. } | Entry::Operation { record, .. } | Entry::Carried { record, .. }) => {
                record
            }
            Some(Entry::Present(_) | Entry::Usage(_)) | None => return Ok(()),
        };
        let mut short = [0; 16];
        short.copy_from_slice(&record.hash().as_bytes()[..16]);
        if known.insert(short) {
            let envelope = record.envelope();
            if envelope.kind.is_chained() {
                tail.records += 1;
                tail.details_missing += u64::from(record.details().is_none());
                chains.insert((envelope.cluster, envelope.uid));
            } else {
                tail.standalone += 1;
            }
        }
        Ok(())
    })?;
    tail.chains = chains.len() as u64;
    Ok(Answer { value: tail, damages: scanned.damages })
}

/// The end of every chain, as the journal has it: of the records that are furthest, the one appended last.
pub fn heads(dir: &Path) -> Result<Answer<Vec<StoredHead>>, LedgerError> {
    let mut heads = BTreeMap::new();
    let scanned = scan::scan(dir, &mut |_, payload| {
        let brief = brief(payload)?;
        if let (Some((chain, sequence)), Some(hash)) = (key(&brief)?, brief.hash)
            && brief.is_chained()
        {
            let head = heads.entry(chain).or_insert(Head { sequence, hash });
            if head.sequence <= sequence {
                *head = Head { sequence, hash };
            }
        }
        Ok(())
    })?;
    let value = heads.into_iter().map(|(chain, head)| StoredHead { chain, head }).collect();
    Ok(Answer { value, damages: scanned.damages })
}

/// What the readable state files say.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// Their chains, and the ends that they name; a file may be behind its chain, never beside it.
    pub heads: Vec<StoredHead>,
    /// The files that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// What the readable state files say about their chains.
pub fn claims(dir: &Path) -> Result<Claims, LedgerError> {
    let mut claims = Claims::default();
    for folder in entries(dir)? {
        let name = folder.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(names::is_folder) || !folder.is_dir() {
            continue;
        }
        for file in entries(&folder)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with("tenant_") || !name.ends_with(".json") {
                continue;
            }
            match state::claim(&file) {
                Ok((target, head)) => {
                    claims.heads.push(StoredHead { chain: ChainId { cluster: target.cluster, uid: target.uid }, head });
                }
                Err(why) => claims.unreadable.push((file, why)),
            }
        }
    }
    Ok(claims)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let failed = |error| LedgerError::spool(dir, error);
    let mut paths = vec![];
    for file in fs::read_dir(dir).map_err(failed)? {
        paths.push(file.map_err(failed)?.path());
    }
    paths.sort_unstable();
    Ok(paths)
}

/// See [`chains`].
pub struct Chains {
    dir: PathBuf,
    heads: Vec<(ChainId, Place)>,
    standalone: u64,
    told_again: HashSet<u128>,
    rest: std::collections::btree_map::IntoIter<ChainId, Vec<(u64, Place)>>,
    chain: Option<(ChainId, std::vec::IntoIter<(u64, Place)>)>,
    files: HashMap<u64, File>,
}

impl Chains {
    /// How many records stand alone; each was read and checked against its own digests.
    pub const fn standalone(&self) -> u64 {
        self.standalone
    }

    /// The records of operations of which a phase was told more than once, by cluster, operation and phase, and where
    /// they stand. Another scan, where there are any.
    pub fn told_again(&self) -> Result<Vec<(Record, String)>, LedgerError> {
        let mut records = vec![];
        if !self.told_again.is_empty() {
            scan::scan(&self.dir, &mut |place, payload| {
                if let Some(Entry::Operation { record, .. }) = entry(payload)?
                    && self.told_again.contains(&mark(&record))
                {
                    let path = scan::segment_path(&self.dir, place.segment);
                    records.push((record, place_of(&path, place)));
                }
                Ok(())
            })?;
        }
        // In the order of the journal, where they tell the same phase: the sort is stable.
        records.sort_by_key(|(record, _)| {
            let (cluster, operation, kind) = verify::phase(record);
            (cluster, operation, kind.as_str())
        });
        Ok(records)
    }

    /// Reads the ends of the chains, as [`heads`] does, without another scan.
    pub fn heads(&mut self) -> Result<Vec<StoredHead>, LedgerError> {
        let ends = std::mem::take(&mut self.heads);
        ends.into_iter()
            .map(|(chain, place)| {
                let stored = self.stored(chain, 0, place)?;
                let sequence = envelope_key(&stored.bytes).map_or(0, |key| key.seq);
                Ok(StoredHead { chain, head: Head { sequence, hash: stored.hash } })
            })
            .collect()
    }

    fn stored(&mut self, chain: ChainId, sequence: u64, place: Place) -> Result<Stored, LedgerError> {
        let path = scan::segment_path(&self.dir, place.segment);
        let payload = match self.files.get(&place.segment) {
            Some(file) => scan::payload_in(file, &path, place)?,
            None => {
                if self.files.len() == 64 {
                    self.files.clear();
                }
                let file = File::open(&path).map_err(|error| LedgerError::spool(&path, error))?;
                scan::payload_in(self.files.entry(place.segment).or_insert(file), &path, place)?
            }
        };
        let place = place_of(&path, place);
        let damaged = |why: String| LedgerError::Damaged { place: place.clone(), why };
        let brief = brief(&payload).map_err(damaged)?;
        let (Some(bytes), Some(hash)) = (brief.record, brief.hash) else {
            return Err(damaged("a chained record was there and is no more".to_owned()));
        };
        Ok(Stored { chain, sequence, bytes, hash, details: brief.details, place })
    }
}

impl Iterator for Chains {
    type Item = Result<Stored, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((chain, places)) = &mut self.chain {
                let chain = *chain;
                if let Some((sequence, place)) = places.next() {
                    return Some(self.stored(chain, sequence, place));
                }
            }
            let (chain, places) = self.rest.next()?;
            self.chain = Some((chain, places.into_iter()));
        }
    }
}

fn place_of(path: &Path, place: Place) -> String {
    format!("{} at offset {}", path.display(), place.position)
}

/// A phase of an operation in 16 bytes: equal for equal ones, and next to never for others.
fn mark(record: &Record) -> u128 {
    let (cluster, operation, kind) = verify::phase(record);
    cluster.as_u128() ^ operation.unwrap_or_default().as_u128() ^ u128::from(kind == Kind::OperationFinish)
}

/// What orders a record, read without trusting the rest of it.
#[derive(Deserialize)]
struct EnvelopeKey {
    cluster: Uuid,
    uid: Uuid,
    seq: u64,
}

fn envelope_key(bytes: &str) -> Result<EnvelopeKey, String> {
    serde_json::from_str(bytes).map_err(|error| format!("its record cannot be read: {error}"))
}

fn key(brief: &Brief) -> Result<Option<(ChainId, u64)>, String> {
    let Some(record) = &brief.record else { return Ok(None) };
    let EnvelopeKey { cluster, uid, seq } = envelope_key(record)?;
    Ok(Some((ChainId { cluster, uid }, seq)))
}

fn brief(payload: &[u8]) -> Result<Brief, String> {
    Brief::decode(payload).map_err(|error| error.to_string())
}

/// None for a mark.
fn entry(payload: &[u8]) -> Result<Option<Entry>, String> {
    match Written::decode(payload).map_err(|error| error.to_string())? {
        Kept::Entry(entry) => Ok(Some(entry)),
        Kept::Mark(_) => Ok(None),
    }
}
