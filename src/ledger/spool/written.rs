//! The payload of a frame: one [`Entry`] or [`ShownMark`] as JSON.
//!
//! Owns: that form (docs/ledger.md, "The payload"). Must never: change the bytes of a record or of its details;
//! both travel as strings, so that what was hashed is what is read.
//!
//! Written and read by serde_json: integers keep all their 64 bits, unlike in the canonical text, since a
//! snapshot is not hashed and holds what people wrote (`memory: 16Ei`).

use serde::{Deserialize, Serialize};

use crate::ledger::{
    entry::{Entry, OperationOutcome, Target, Usage},
    hash::Hash,
    record::{Head, Micros, Record, RecordError},
    snapshot::Snapshot,
};

/// What the journal keeps, as it stands there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub(super) enum Written {
    /// See [`Entry::Chained`].
    Chained {
        /// The canonical text.
        record: String,
        /// Its hash, so that an altered record shows even where nothing follows it.
        hash: Hash,
        /// The canonical details.
        details: Option<String>,
        /// The present that it leads to.
        snapshot: Box<Snapshot>,
    },
    /// See [`Entry::Operation`].
    Operation {
        /// The canonical text.
        record: String,
        /// Its hash.
        hash: Hash,
        /// The canonical details.
        details: Option<String>,
        /// What it was done to.
        target: Target,
        /// Its outcome.
        outcome: Option<OperationOutcome>,
    },
    /// See [`Entry::Present`].
    Present {
        /// The present.
        snapshot: Box<Snapshot>,
    },
    /// See [`Entry::Carried`].
    Carried {
        /// The canonical text.
        record: String,
        /// Its hash.
        hash: Hash,
        /// The canonical details.
        details: Option<String>,
        /// What it is about.
        target: Target,
    },
    /// See [`Entry::Usage`].
    Usage {
        /// The sample.
        usage: Usage,
    },
    /// See [`ShownMark`].
    Mark(ShownMark),
}

/// That a terminal record was shown (rule 5): with it, the head of an object that is gone can be put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownMark {
    /// The object.
    pub target: Target,
    /// The record that was shown.
    pub terminal: Head,
    /// The leader that showed it, or wrote the tombstone that it is from.
    pub epoch: u64,
    /// When it was noted.
    pub at: Micros,
}

/// What the journal keeps.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "marks are few, and a box around every entry is not free")]
pub(super) enum Kept {
    /// An entry of the ledger.
    Entry(Entry),
    /// The spool's own memory of what was shown; the database does not get it.
    Mark(ShownMark),
}

/// Why a whole frame's payload is no entry.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAnEntry {
    #[error("not the JSON of an entry: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the record's hash is {found}, but the journal says {expected}")]
    Hash { expected: Hash, found: Hash },
}

impl Written {
    /// The bytes for `entry`, after seeing that they read back as it: what cannot be read is never acknowledged.
    pub(super) fn encode(kept: Kept) -> Result<Vec<u8>, NotAnEntry> {
        let bytes = Self::encode_unread(kept)?;
        Self::decode(&bytes)?;
        Ok(bytes)
    }

    /// The same, where whoever takes the bytes reads them back.
    pub(super) fn encode_unread(kept: Kept) -> Result<Vec<u8>, NotAnEntry> {
        Ok(serde_json::to_vec(&Self::from(kept))?)
    }

    /// Reads it back.
    pub(super) fn decode(bytes: &[u8]) -> Result<Kept, NotAnEntry> {
        Ok(Kept::Entry(match serde_json::from_slice(bytes)? {
            Self::Chained { record, hash, details, snapshot } => {
                Entry::Chained { record: whole(&record, hash, details)?, snapshot }
            }
            Self::Operation { record, hash, details, target, outcome } => {
                Entry::Operation { record: whole(&record, hash, details)?, target, outcome }
            }
            Self::Present { snapshot } => Entry::Present(snapshot),
            Self::Carried { record, hash, details, target } => {
                Entry::Carried { record: whole(&record, hash, details)?, target }
            }
            Self::Usage { usage } => Entry::Usage(usage),
            Self::Mark(mark) => return Ok(Kept::Mark(mark)),
        }))
    }
}

impl From<Kept> for Written {
    fn from(kept: Kept) -> Self {
        let parts =
            |record: &Record| (record.bytes().to_owned(), record.hash(), record.details().map(ToOwned::to_owned));
        let entry = match kept {
            Kept::Entry(entry) => entry,
            Kept::Mark(mark) => return Self::Mark(mark),
        };
        match entry {
            Entry::Chained { record, snapshot } => {
                let (record, hash, details) = parts(&record);
                Self::Chained { record, hash, details, snapshot }
            }
            Entry::Operation { record, target, outcome } => {
                let (record, hash, details) = parts(&record);
                Self::Operation { record, hash, details, target, outcome }
            }
            Entry::Present(snapshot) => Self::Present { snapshot },
            Entry::Carried { record, target } => {
                let (record, hash, details) = parts(&record);
                Self::Carried { record, hash, details, target }
            }
            Entry::Usage(usage) => Self::Usage { usage },
        }
    }
}

fn whole(bytes: &str, expected: Hash, details: Option<String>) -> Result<Record, NotAnEntry> {
    let record = Record::read(bytes, details)?;
    if record.hash() != expected {
        return Err(NotAnEntry::Hash { expected, found: record.hash() });
    }
    Ok(record)
}

/// The part of an entry that says what it is about, read without the rest: a scan over a million entries
/// needs no snapshots.
#[derive(Debug, Deserialize)]
pub(super) struct Brief {
    entry: String,
    /// The canonical text, as it stands.
    pub(super) record: Option<String>,
    /// The hash, as it stands.
    pub(super) hash: Option<Hash>,
    /// The canonical details, as they stand.
    pub(super) details: Option<String>,
    target: Option<Target>,
    snapshot: Option<BriefSnapshot>,
}

#[derive(Debug, Deserialize)]
struct BriefSnapshot {
    target: Target,
    user: Option<String>,
    service_name: Option<String>,
}

impl Brief {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NotAnEntry> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Whether it is a chained record.
    pub(super) fn is_chained(&self) -> bool {
        matches!(self.entry.as_str(), "chained" | "carried")
    }

    /// Whether it is a sample of usage.
    pub(super) fn is_usage(&self) -> bool {
        self.entry == "usage"
    }

    /// What it is about.
    pub(super) fn target(&self) -> Option<&Target> {
        self.target.as_ref().or(self.snapshot.as_ref().map(|snapshot| &snapshot.target))
    }

    /// Whether it tells about this user's service.
    pub(super) fn is_about(&self, user: &str, service_name: &str) -> bool {
        self.snapshot
            .as_ref()
            .is_some_and(|s| s.user.as_deref() == Some(user) && s.service_name.as_deref() == Some(service_name))
    }
}
