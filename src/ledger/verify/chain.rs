//! Checks one whole chain: which records are on the line that ends at the head, and whether the line holds.
//!
//! Must never: know where the records come from.

use std::collections::HashMap;

use super::report::{Fault, Report, Superseded, Violation};
use crate::{
    ledger::{
        hash::Hash,
        record::{Envelope, Head, Kind, Micros, Record},
        view::{ChainId, Stored},
    },
    lifecycle::{State, Transition},
};

/// One chain while it comes in.
pub(super) struct Chain {
    pub(super) id: ChainId,
    links: Vec<Link>,
    last_sequence: u64,
}

/// What is kept of a record until its chain is complete.
struct Link {
    head: Head,
    /// None where the record cannot be believed; then only its place and the hash kept for it are known.
    told: Option<Told>,
    place: String,
    on_line: bool,
}

impl Link {
    fn is_ending(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.to == Some(State::Deleted))
    }
}

struct Told {
    kind: Kind,
    prev: Hash,
    from: Option<State>,
    to: Option<State>,
    epoch: u64,
    at: Micros,
}

/// What else is said about a chain's end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) head: Option<Head>,
    pub(super) shown: Option<Head>,
    pub(super) claim: Option<Head>,
    /// Whether records may follow the head: it is as far as an import may move it.
    pub(super) is_open: bool,
}

/// Where a chain went while it was read.
#[derive(Clone, Copy)]
pub(super) struct Grown {
    /// Its end.
    pub(super) head: Head,
    /// The sequence up to which its head has to come.
    pub(super) sure: u64,
    /// Whether records follow that one, onto which an import moves no head: an ending, or several that claim one place.
    pub(super) goes_on: bool,
}

/// The state at a place of the line, as far as it is known.
#[derive(Clone, Copy)]
enum Known {
    Not,
    Is(Option<State>),
}

impl Chain {
    pub(super) fn new(id: ChainId) -> Self {
        Self { id, links: vec![], last_sequence: 0 }
    }

    /// Takes the next record, and checks what can be checked of it alone.
    pub(super) fn take(&mut self, stored: Stored, report: &mut Report) {
        if stored.details.is_none() {
            report.details_missing += 1;
        }
        if stored.sequence < self.last_sequence {
            let Stored { chain, sequence, ref place, .. } = stored;
            report.violated(Violation { chain, sequence, fault: Fault::OutOfOrder, place: place.clone() });
        }
        self.last_sequence = stored.sequence;
        self.add(stored, report);
    }

    /// Takes what a status or a tombstone carries of it and the home lacks; answers whether there was any.
    pub(super) fn carry(&mut self, records: Vec<Stored>, report: &mut Report) -> bool {
        let before = self.links.len();
        for stored in records {
            if !self.links.iter().any(|link| link.head.hash == stored.hash) {
                report.carried += 1;
                self.add(stored, report);
            }
        }
        self.links.sort_by_key(|link| link.head.sequence);
        self.links.len() > before
    }

    fn add(&mut self, stored: Stored, report: &mut Report) {
        let Stored { chain, sequence, bytes, hash, details, place } = stored;
        report.records += 1;
        let mut violated = |fault| report.violated(Violation { chain, sequence, fault, place: place.clone() });
        let told = match Record::read(&bytes, details) {
            Err(error) => {
                violated(Fault::Altered(error.to_string()));
                None
            }
            Ok(record) if record.hash() != hash => {
                violated(Fault::HashDiffers { kept: hash, found: record.hash() });
                None
            }
            Ok(record) => {
                let envelope = record.envelope();
                if (envelope.cluster, envelope.uid, envelope.seq) != (chain.cluster, chain.uid, sequence) {
                    violated(Fault::Misplaced);
                }
                if !envelope.kind.is_chained() {
                    violated(Fault::StandsAlone);
                }
                Some(Told::from(envelope))
            }
        };
        let head = Head { sequence, hash };
        self.links.push(Link { head, told, place, on_line: false });
    }

    /// Where `head` went while the records were read, if it did or could: along the records that follow it, as far as an import
    /// moves heads (docs/ledger.md, the model's answer 11). Where several claim one place, it is the one that leads to what
    /// is shown. A chain that began meanwhile began at its first record.
    pub(super) fn grown(&self, first: Option<Head>, shown: Option<Head>) -> Option<Grown> {
        let Some(mut head) = first.or_else(|| self.beginning()) else {
            let last = self.links.last()?.head;
            return Some(Grown { head: last, sure: last.sequence, goes_on: false });
        };
        let (mut sure, mut is_sure) = (head.sequence, !self.find(head).is_some_and(Link::is_ending));
        let goes_on = loop {
            let next = self.following(head);
            let taken = match *next {
                [] => break head.sequence > sure,
                [one] => one,
                _ => {
                    is_sure = false;
                    let is_shown = |link: &&&Link| shown.is_some_and(|shown| self.leads(link.head, shown));
                    let Some(one) = next.iter().find(is_shown) else { break true };
                    one
                }
            };
            is_sure = is_sure && !taken.is_ending();
            head = taken.head;
            if is_sure {
                sure = head.sequence;
            }
        };
        (goes_on || Some(head) != first).then_some(Grown { head, sure, goes_on })
    }

    /// Before the first record, where that is here.
    fn beginning(&self) -> Option<Head> {
        (!self.following(Head::GENESIS).is_empty()).then_some(Head::GENESIS)
    }

    /// Whether one record is another, or before it.
    fn leads(&self, one: Head, mut other: Head) -> bool {
        while other.sequence > one.sequence {
            let Some(told) = self.find(other).and_then(|link| link.told.as_ref()) else { return false };
            other = Head { sequence: other.sequence - 1, hash: told.prev };
        }
        one == other
    }

    fn find(&self, head: Head) -> Option<&Link> {
        self.at_sequence(head.sequence).find(|link| link.head == head)
    }

    /// The records made on this one.
    fn following(&self, head: Head) -> Vec<&Link> {
        let is_next = |link: &&Link| link.told.as_ref().is_some_and(|told| told.prev == head.hash);
        self.at_sequence(head.sequence + 1).filter(is_next).collect()
    }

    fn at_sequence(&self, sequence: u64) -> impl Iterator<Item = &Link> {
        let from = self.links.partition_point(|link| link.head.sequence < sequence);
        self.links[from..].iter().take_while(move |link| link.head.sequence == sequence)
    }

    /// Checks the whole.
    pub(super) fn finish(mut self, ends: Ends, report: &mut Report) {
        report.chains += 1;
        let mut by_hash: HashMap<Hash, usize> = HashMap::with_capacity(self.links.len());
        for (at, link) in self.links.iter().enumerate() {
            if by_hash.insert(link.head.hash, at).is_some() {
                report.violated(self.at(at, Fault::Duplicate));
            }
        }
        let line = self.line(&by_hash, ends.head, report);
        self.check_line(&line, report);
        self.check_branches(&by_hash, ends, report);
        self.check_ends(&by_hash, ends, report);
    }

    fn at(&self, at: usize, fault: Fault) -> Violation {
        let link = &self.links[at];
        Violation { chain: self.id, sequence: link.head.sequence, fault, place: link.place.clone() }
    }

    fn end(&self, head: Head, fault: Fault) -> Violation {
        Violation { chain: self.id, sequence: head.sequence, fault, place: String::new() }
    }

    /// The records from the first to the head, found by walking back from it.
    fn line(&mut self, by_hash: &HashMap<Hash, usize>, head: Option<Head>, report: &mut Report) -> Vec<usize> {
        let mut next = match head {
            None => {
                if let Some(last) = self.links.len().checked_sub(1) {
                    report.violated(self.at(last, Fault::NoHead));
                }
                self.links.len().checked_sub(1)
            }
            Some(head) => match by_hash.get(&head.hash) {
                Some(&at) if self.links[at].head == head => Some(at),
                _ => {
                    report.violated(self.end(head, Fault::HeadUnknown(head)));
                    self.links.len().checked_sub(1)
                }
            },
        };
        let mut line = vec![];
        while let Some(at) = next {
            if self.links[at].on_line {
                // Only records that cannot be believed lead into a circle; they are named already.
                break;
            }
            self.links[at].on_line = true;
            line.push(at);
            next = self.before(at, by_hash, report);
        }
        line.reverse();
        line
    }

    /// The record before the one `at`.
    fn before(&self, at: usize, by_hash: &HashMap<Hash, usize>, report: &mut Report) -> Option<usize> {
        let link = &self.links[at];
        let sequence = link.head.sequence;
        // Where the way back is lost, it goes on at the nearest record below.
        let below = || self.links[..at].iter().rposition(|link| link.head.sequence < sequence);
        let Some(told) = &link.told else { return below() };
        if (told.prev == Hash::GENESIS) != (sequence == 1) {
            report.violated(self.at(at, Fault::BadBeginning));
            return below();
        }
        if told.prev == Hash::GENESIS {
            return None;
        }
        let names_gap = matches!(told.kind, Kind::Lost | Kind::Import | Kind::Checkpoint);
        match by_hash.get(&told.prev) {
            Some(&before) => {
                let found = self.links[before].head.sequence;
                if found + 1 != sequence {
                    if names_gap && found < sequence {
                        report.named_gaps += 1;
                    } else {
                        report.violated(self.at(at, Fault::SequenceJumps(found)));
                    }
                }
                Some(before)
            }
            None if names_gap => {
                report.named_gaps += 1;
                below()
            }
            None => {
                report.violated(self.at(at, Fault::PredecessorMissing(told.prev)));
                below()
            }
        }
    }

    /// States and times along the line.
    fn check_line(&self, line: &[usize], report: &mut Report) {
        let mut state = Known::Is(None);
        let mut last: Option<&Told> = None;
        let mut sequence = 0;
        for &at in line {
            let link = &self.links[at];
            if link.head.sequence != sequence + 1 {
                state = Known::Not;
            }
            sequence = link.head.sequence;
            let Some(told) = &link.told else {
                (state, last) = (Known::Not, None);
                continue;
            };
            if let Some(last) = last {
                report.epochs_back += u64::from(told.epoch < last.epoch);
                report.clocks_back += u64::from(told.at < last.at);
            }
            if let Some(fault) = told.fault_after(state) {
                report.violated(self.at(at, fault));
            }
            state = told.leaves(state);
            last = Some(told);
        }
    }

    /// Records beside the line: each grew on a known record and lost; nothing follows the head.
    fn check_branches(&self, by_hash: &HashMap<Hash, usize>, ends: Ends, report: &mut Report) {
        for (at, link) in self.links.iter().enumerate() {
            let Some(told) = &link.told else { continue };
            if link.on_line || by_hash.get(&link.head.hash) != Some(&at) {
                continue;
            }
            if ends.head.is_some_and(|head| told.prev == head.hash) && !ends.is_open {
                report.violated(self.at(at, Fault::HeadBehind));
            } else if told.prev != Hash::GENESIS && !by_hash.contains_key(&told.prev) {
                report.violated(self.at(at, Fault::PredecessorMissing(told.prev)));
            } else {
                report.supersede(Superseded { chain: self.id, head: link.head });
            }
        }
    }

    fn check_ends(&self, by_hash: &HashMap<Hash, usize>, ends: Ends, report: &mut Report) {
        let find = |head: Head| by_hash.get(&head.hash).copied().filter(|&at| self.links[at].head == head);
        if let Some(shown) = ends.shown.filter(|shown| *shown != Head::GENESIS) {
            match find(shown) {
                None => report.violated(self.end(shown, Fault::ShownUnknown(shown))),
                Some(at) if !self.links[at].on_line => report.violated(self.at(at, Fault::ShownSuperseded)),
                Some(_) => {}
            }
        }
        if let (Some(shown), Some(head)) = (ends.shown, ends.head)
            && head.sequence > shown.sequence + 1
        {
            report.violated(self.end(shown, Fault::ShownBehind(head.sequence - shown.sequence)));
        }
        if let Some(claim) = ends.claim.filter(|claim| *claim != Head::GENESIS && find(*claim).is_none()) {
            report.violated(self.end(claim, Fault::ClaimUnknown(claim)));
        }
    }
}

impl From<&Envelope> for Told {
    fn from(envelope: &Envelope) -> Self {
        let Envelope {
            v: _,
            kind,
            cluster: _,
            uid: _,
            seq: _,
            epoch,
            at,
            from,
            to,
            reason: _,
            actor: _,
            generation: _,
            operation: _,
            prev,
            details: _,
        } = *envelope;
        Self { kind, prev, from, to, epoch, at }
    }
}

impl Told {
    /// What is wrong with it after a record that left `state`.
    ///
    /// A transition is one of the table. What Berth did not see happen (`unobserved`) starts where the chain
    /// is and may end anywhere. Records that stand for something elsewhere (`lost`, `import`, `checkpoint`,
    /// `resolution`) say themselves where the chain is. The others only note the state, and how a life without states ends.
    /// Behind an ending nothing comes but what says where the chain goes on: after a rewind of the API server.
    fn fault_after(&self, state: Known) -> Option<Fault> {
        let differs = match state {
            Known::Is(expected) if expected != self.from => Some(Fault::FromDiffers { expected, found: self.from }),
            Known::Is(_) | Known::Not => None,
        };
        let is_over = matches!(state, Known::Is(Some(State::Deleted)));
        match self.kind {
            Kind::Lost | Kind::Import | Kind::Checkpoint | Kind::Resolution => None,
            // Named when it was taken.
            Kind::OperationStart | Kind::OperationFinish => None,
            kind if is_over => Some(Fault::FollowsTheEnd(kind)),
            Kind::Transition => match self.to {
                None => Some(Fault::NoState),
                Some(to) => differs.or_else(|| self.no_such_transition(to)),
            },
            Kind::Unobserved => differs,
            Kind::Rollout | Kind::Quota | Kind::Grant => match (self.from, self.to) {
                (None, None) => None,
                // Kinds without a lifecycle have no state but their end.
                (None, Some(State::Deleted)) => differs,
                (_, None) => differs,
                (from, Some(to)) => {
                    differs.or_else(|| if from == Some(to) { None } else { self.no_such_transition(to) })
                }
            },
        }
    }

    fn no_such_transition(&self, to: State) -> Option<Fault> {
        Transition::new(self.from, to).err().map(|error| Fault::NoSuchTransition { from: error.from, to: error.to })
    }

    fn leaves(&self, state: Known) -> Known {
        match (self.to, self.kind) {
            // It says where the chain goes on, also where that is the very beginning.
            (to, Kind::Resolution) => Known::Is(to),
            (Some(to), _) => Known::Is(Some(to)),
            (None, Kind::Lost | Kind::Import | Kind::Checkpoint) => Known::Not,
            (None, _) => state,
        }
    }
}
