//! What verification found: violations by name, and what is worth knowing but no violation.
//!
//! Must never: grow without bound; beyond [`KEPT`] only the counts go on.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use crate::{
    ledger::{
        hash::Hash,
        record::{Head, Kind},
        view::ChainId,
    },
    lifecycle::State,
};

/// How many violations and notes are kept with their words.
pub const KEPT: usize = 1000;

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Chained records seen.
    pub records: u64,
    /// Chains seen.
    pub chains: u64,
    /// Records of which only the envelope is kept.
    pub details_missing: u64,
    /// Places where a `lost`, `import` or `checkpoint` record says that what was before it is not here.
    pub named_gaps: u64,
    /// Records that only a status or a tombstone has; they are on their way.
    pub carried: u64,
    /// Chains that go on beyond their head, in a ledger that is written meanwhile, where an import moves no head: in an ending,
    /// or in several records that claim one place. The object's status, its tombstone or a mark in a spool's tail decides.
    pub open_ends: u64,
    /// Places where the epoch goes back; it names a leader and decides nothing.
    pub epochs_back: u64,
    /// Places where the clock went back between two records; leaders' clocks differ.
    pub clocks_back: u64,
    /// Records that lost the race to be shown, in all.
    pub superseded_count: u64,
    /// The first of them.
    pub superseded: Vec<Superseded>,
    /// Violations, in all.
    pub violation_count: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
}

/// A record that is durable and was never part of the line that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// The chain.
    pub chain: ChainId,
    /// The record.
    pub head: Head,
}

/// Something that the ledger's rules exclude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The chain.
    pub chain: ChainId,
    /// The sequence at which it shows.
    pub sequence: u64,
    /// What it is.
    pub fault: Fault,
    /// Where it stands, as far as there is a place.
    pub place: String,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The stored text is no record, not canonical, or its details do not match their digest.
    Altered(String),
    /// The text does not hash to the hash that is kept beside it.
    HashDiffers {
        /// What is kept.
        kept: Hash,
        /// What the text hashes to.
        found: Hash,
    },
    /// The record belongs to another chain or place than the one it was found under.
    Misplaced,
    /// A record of a kind that stands alone, within a chain.
    StandsAlone,
    /// It comes after one that it should come before.
    OutOfOrder,
    /// The same record a second time.
    Duplicate,
    /// Its predecessor is not there.
    PredecessorMissing(Hash),
    /// Its predecessor has another sequence than the one before its own.
    SequenceJumps(u64),
    /// Only a chain's first record has no predecessor, and only it has sequence 1.
    BadBeginning,
    /// `from` is not the state that the record before it left.
    FromDiffers {
        /// The state that the chain is in.
        expected: Option<State>,
        /// What the record says.
        found: Option<State>,
    },
    /// There is no such transition.
    NoSuchTransition {
        /// From.
        from: Option<State>,
        /// To.
        to: State,
    },
    /// A transition that says not where to.
    NoState,
    /// It follows the end of the life, as only a record may that says itself where the chain goes on.
    FollowsTheEnd(Kind),
    /// The chain has records and no head.
    NoHead,
    /// The head names a record that is not there.
    HeadUnknown(Head),
    /// Records follow the head.
    HeadBehind,
    /// The status shows a record that is not there.
    ShownUnknown(Head),
    /// The status shows a record that is not on the line of the head.
    ShownSuperseded,
    /// The chain is more than one record ahead of what the status shows.
    ShownBehind(u64),
    /// A readable state file names a record that is not there.
    ClaimUnknown(Head),
    /// A phase of an operation has two accounts.
    ToldTwice {
        /// The operation.
        operation: Option<Uuid>,
        /// Its start or its finish.
        phase: Kind,
        /// The record that was met first.
        first: Hash,
        /// The other.
        again: Hash,
    },
    /// PostgreSQL refused it, and nobody has looked at it since.
    Quarantined {
        /// What it is: a record, an operation, a present state or a sample.
        what: String,
        /// PostgreSQL's words.
        error: String,
    },
}

impl Fault {
    /// The rule of docs/ledger.md that it breaks.
    pub const fn rule(&self) -> u8 {
        match self {
            Self::Misplaced
            | Self::StandsAlone
            | Self::PredecessorMissing(_)
            | Self::SequenceJumps(_)
            | Self::BadBeginning
            | Self::FromDiffers { .. }
            | Self::NoSuchTransition { .. }
            | Self::NoState
            | Self::FollowsTheEnd(_)
            | Self::ShownSuperseded
            | Self::ShownBehind(_) => 1,
            Self::ShownUnknown(_) | Self::ClaimUnknown(_) => 2,
            Self::Altered(_)
            | Self::HashDiffers { .. }
            | Self::OutOfOrder
            | Self::Duplicate
            | Self::NoHead
            | Self::HeadUnknown(_)
            | Self::ToldTwice { .. }
            | Self::Quarantined { .. } => 3,
            Self::HeadBehind => 5,
        }
    }

    /// One word for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Altered(_) => "altered",
            Self::HashDiffers { .. } => "hash-differs",
            Self::Misplaced => "misplaced",
            Self::StandsAlone => "stands-alone",
            Self::OutOfOrder => "out-of-order",
            Self::Duplicate => "duplicate",
            Self::PredecessorMissing(_) => "predecessor-missing",
            Self::SequenceJumps(_) => "sequence-jumps",
            Self::BadBeginning => "bad-beginning",
            Self::FromDiffers { .. } => "from-differs",
            Self::NoSuchTransition { .. } => "no-such-transition",
            Self::NoState => "no-state",
            Self::FollowsTheEnd(_) => "follows-the-end",
            Self::NoHead => "no-head",
            Self::HeadUnknown(_) => "head-unknown",
            Self::HeadBehind => "head-behind",
            Self::ShownUnknown(_) => "shown-unknown",
            Self::ShownSuperseded => "shown-superseded",
            Self::ShownBehind(_) => "shown-behind",
            Self::ClaimUnknown(_) => "claim-unknown",
            Self::ToldTwice { .. } => "told-twice",
            Self::Quarantined { .. } => "quarantined",
        }
    }
}

fn state(state: Option<State>) -> &'static str {
    state.map_or("nothing", State::as_str)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered(why) => write!(f, "{why}"),
            Self::HashDiffers { kept, found } => write!(f, "the record hashes to {found}, but {kept} is kept with it"),
            Self::Misplaced => f.write_str("the record belongs to another place than the one it was found under"),
            Self::StandsAlone => f.write_str("a record of a kind that stands alone is in the chain"),
            Self::OutOfOrder => f.write_str("the record comes after one that it should come before"),
            Self::Duplicate => f.write_str("the same record is there a second time"),
            Self::PredecessorMissing(prev) => write!(f, "the record before it, {prev}, is missing"),
            Self::SequenceJumps(before) => write!(f, "the record before it has sequence {before}"),
            Self::BadBeginning => f.write_str("only the first record of a chain, 1, has no record before it"),
            Self::FromDiffers { expected, found } => {
                write!(f, "it goes from {}, but the record before it left {}", state(*found), state(*expected))
            }
            Self::NoSuchTransition { from, to } => write!(f, "there is no transition from {} to {to}", state(*from)),
            Self::NoState => f.write_str("a transition that does not say where to"),
            Self::FollowsTheEnd(kind) => write!(f, "a record of kind {} behind the end of the life", kind.as_str()),
            Self::NoHead => f.write_str("the chain has records, but no head"),
            Self::HeadUnknown(head) => {
                write!(f, "the head names record {} with sequence {}, which is not there", head.hash, head.sequence)
            }
            Self::HeadBehind => f.write_str("the record follows the head, which should have moved to it"),
            Self::ShownUnknown(head) => {
                write!(f, "the status shows record {} with sequence {}, which is not there", head.hash, head.sequence)
            }
            Self::ShownSuperseded => f.write_str("the status shows this record, but it is not on the head's line"),
            Self::ShownBehind(by) => write!(f, "the chain is {by} records ahead of the status, and one is allowed"),
            Self::ClaimUnknown(head) => write!(
                f,
                "a readable state file names record {} with sequence {}, which is not there",
                head.hash, head.sequence
            ),
            Self::ToldTwice { operation, phase, first, again } => write!(
                f,
                "the {} of operation {} is told twice, by record {first} and by record {again}",
                phase.as_str(),
                operation.unwrap_or_default()
            ),
            Self::Quarantined { what, error } => {
                write!(f, "PostgreSQL refused its {what}, and nobody has looked at that yet: {error}")
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, sequence, fault, place } = self;
        write!(f, "rule {}: {chain}, sequence {sequence}: {fault}", fault.rule())?;
        if place.is_empty() { Ok(()) } else { write!(f, " ({place})") }
    }
}

impl Report {
    /// Whether every rule held.
    pub const fn is_clean(&self) -> bool {
        self.violation_count == 0
    }

    pub(in crate::ledger) fn violated(&mut self, violation: Violation) {
        self.violation_count += 1;
        if self.violations.len() < KEPT {
            self.violations.push(violation);
        }
    }

    pub(super) fn supersede(&mut self, superseded: Superseded) {
        self.superseded_count += 1;
        if self.superseded.len() < KEPT {
            self.superseded.push(superseded);
        }
    }

    /// For programs: the shape that `berth verify -o json` prints (docs/ledger.md).
    pub fn to_json(&self) -> serde_json::Value {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Line<'a> {
            cluster: Uuid,
            uid: Uuid,
            sequence: u64,
            rule: u8,
            violation: &'static str,
            message: String,
            place: &'a str,
        }
        let violations: Vec<_> = self
            .violations
            .iter()
            .map(|v| Line {
                cluster: v.chain.cluster,
                uid: v.chain.uid,
                sequence: v.sequence,
                rule: v.fault.rule(),
                violation: v.fault.word(),
                message: v.fault.to_string(),
                place: &v.place,
            })
            .collect();
        let superseded: Vec<_> = self
            .superseded
            .iter()
            .map(|s| {
                serde_json::json!({"cluster": s.chain.cluster, "uid": s.chain.uid,
                    "sequence": s.head.sequence, "hash": s.head.hash})
            })
            .collect();
        serde_json::json!({
            "clean": self.is_clean(),
            "records": self.records,
            "chains": self.chains,
            "detailsMissing": self.details_missing,
            "namedGaps": self.named_gaps,
            "carried": self.carried,
            "openEnds": self.open_ends,
            "epochsBack": self.epochs_back,
            "clocksBack": self.clocks_back,
            "supersededCount": self.superseded_count,
            "superseded": superseded,
            "violationCount": self.violation_count,
            "violations": violations,
        })
    }
}
