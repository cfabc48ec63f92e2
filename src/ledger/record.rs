//! The record: one entry of the ledger, its fixed envelope, and how it is sealed into a chain.
//!
//! Owns: the fields, their bounds, the canonical bytes and their hash (docs/ledger.md, "The record").
//! Must never: do I/O, read a clock or make up an identifier; all of them come in as arguments.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    canonical::{self, visible},
    hash::Hash,
};
use crate::lifecycle::State;

/// The version of the envelope that this code writes.
pub const VERSION: u8 = 1;

/// The longest actor, in characters; Kubernetes user names may be longer and are cut.
pub const MAX_ACTOR: usize = 256;
/// The longest reason code, in characters.
pub const MAX_REASON: usize = 64;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A state followed another.
    Transition,
    /// Something changed while nobody of ours was looking (rule 7).
    Unobserved,
    /// The only home of something is gone; this stands where it was (rule 6).
    Lost,
    /// A chain that began in another place goes on here.
    Import,
    /// The end of a chain's part that is moved away with its partition.
    Checkpoint,
    /// Which of several branches was shown (rule 1), `api-rewound` among them (rule 5).
    Resolution,
    /// A step of a rollout.
    Rollout,
    /// A reservation or release of quota.
    Quota,
    /// Access given or taken.
    Grant,
    /// Somebody asked for something. Stands alone, not in a chain.
    OperationStart,
    /// What came of it. Stands alone, not in a chain.
    OperationFinish,
}

impl Kind {
    /// Whether records of this kind are linked by `prev`, one chain for each object uid.
    pub const fn is_chained(self) -> bool {
        !matches!(self, Self::OperationStart | Self::OperationFinish)
    }

    /// Whether it tells of the chain itself, and not of what its object does.
    pub const fn is_of_the_chain(self) -> bool {
        matches!(self, Self::Resolution | Self::Lost | Self::Import | Self::Checkpoint)
    }

    /// The name in the envelope and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::Unobserved => "unobserved",
            Self::Lost => "lost",
            Self::Import => "import",
            Self::Checkpoint => "checkpoint",
            Self::Resolution => "resolution",
            Self::Rollout => "rollout",
            Self::Quota => "quota",
            Self::Grant => "grant",
            Self::OperationStart => "operation-start",
            Self::OperationFinish => "operation-finish",
        }
    }
}

/// A moment as the ledger keeps it: microseconds since 1970-01-01T00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// Who caused a record, and how we know: written `scheme:name` in the envelope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum Actor {
    /// The API server stamped the change with this user name.
    User(String),
    /// No stamp belongs to this change; the name of the last field manager is a guess.
    Guess(String),
    /// Berth itself, by this cause (`observed`, `drain`, …).
    Berth(String),
    /// Nobody can tell.
    Unknown,
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        match actor {
            Actor::User(name) => format!("user:{name}"),
            Actor::Guess(name) => format!("guess:{name}"),
            Actor::Berth(cause) => format!("berth:{cause}"),
            Actor::Unknown => "unknown:".to_owned(),
        }
    }
}

impl From<String> for Actor {
    fn from(text: String) -> Self {
        match text.split_once(':') {
            Some(("user", name)) => Self::User(name.to_owned()),
            Some(("guess", name)) => Self::Guess(name.to_owned()),
            Some(("berth", cause)) => Self::Berth(cause.to_owned()),
            _ => Self::Unknown,
        }
    }
}

/// The end of a chain: where the next record attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    /// The sequence of the last record; 0 where there is none yet.
    pub sequence: u64,
    /// Its hash; [`Hash::GENESIS`] where there is none yet.
    pub hash: Hash,
}

impl Default for Head {
    fn default() -> Self {
        Self::GENESIS
    }
}

impl Head {
    /// The end of a chain without records.
    pub const GENESIS: Self = Self { sequence: 0, hash: Hash::GENESIS };
}

/// The envelope. Field order here is the order of the columns; the canonical text sorts by key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Version of the envelope.
    pub v: u8,
    /// What the record tells.
    pub kind: Kind,
    /// The cluster: uid of its namespace `kube-system`.
    pub cluster: Uuid,
    /// The object: its `metadata.uid`.
    pub uid: Uuid,
    /// Place in the object's chain, from 1; 0 for records that stand alone.
    pub seq: u64,
    /// Which leader wrote it.
    pub epoch: u64,
    /// When it was made (UTC).
    pub at: Micros,
    /// The state before, or none for the first.
    pub from: Option<State>,
    /// The state after.
    pub to: Option<State>,
    /// A CamelCase word, the same as in conditions and Events.
    pub reason: String,
    /// Who caused it.
    pub actor: Actor,
    /// `metadata.generation` that it answers to.
    pub generation: i64,
    /// Links records that belong to one request.
    pub operation: Option<Uuid>,
    /// Hash of the record before it in the chain; zeros for the first and for records that stand alone.
    pub prev: Hash,
    /// Digest of the canonical details.
    pub details: Hash,
}

/// What a caller says; the rest of the envelope comes from the chain, the leader and the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What the record tells.
    pub kind: Kind,
    /// The object.
    pub uid: Uuid,
    /// The state before.
    pub from: Option<State>,
    /// The state after.
    pub to: Option<State>,
    /// Reason code, CamelCase.
    pub reason: String,
    /// Who caused it.
    pub actor: Actor,
    /// The generation it answers to.
    pub generation: i64,
    /// The request it belongs to.
    pub operation: Option<Uuid>,
    /// Message, diff and payload: any JSON object; bounded by [`MAX_DETAILS`].
    pub details: Value,
}

/// Where and when a draft is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The cluster.
    pub cluster: Uuid,
    /// The leader's epoch.
    pub epoch: u64,
    /// The moment.
    pub at: Micros,
}

/// The most bytes of canonical details; larger ones are replaced by a note of their size and digest.
pub const MAX_DETAILS: usize = 16 * 1024;

/// A sealed record: made once, and resent byte for byte ever after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    envelope: Envelope,
    bytes: String,
    hash: Hash,
    details: Option<String>,
}

/// Bytes that are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON of an envelope.
    #[error("not a ledger record: {0}")]
    Malformed(#[from] serde_json::Error),
    /// JSON of an envelope, but not its canonical text, so no one can have hashed it.
    #[error(
        "the record of {uid} with sequence {sequence} is not in canonical form; it was altered or written by something else"
    )]
    NotCanonical {
        /// The object.
        uid: Uuid,
        /// The sequence.
        sequence: u64,
    },
    /// A version that this release does not know.
    #[error("the record has envelope version {0}; this release reads up to {VERSION}: use a newer one")]
    UnknownVersion(u8),
    /// Details that do not match the digest in the envelope.
    #[error(
        "the details of {uid} with sequence {sequence} do not match their digest: expected {expected}, found {found}"
    )]
    DetailsDiffer {
        /// The object.
        uid: Uuid,
        /// The sequence.
        sequence: u64,
        /// What the envelope says.
        expected: Hash,
        /// What the details hash to.
        found: Hash,
    },
}

/// `text`, cleaned, and no longer than `most` characters afterwards either: a hidden character becomes six visible ones, and
/// a store's columns have room for `most`.
fn within(text: &str, most: usize) -> String {
    visible(&visible(text, most), most)
}

impl Draft {
    /// Seals the draft behind `previous`. Chained kinds get the next sequence; the others stand alone.
    pub fn seal(self, seal: Seal, previous: Head) -> Record {
        let (seq, prev) =
            if self.kind.is_chained() { (previous.sequence + 1, previous.hash) } else { (0, Hash::GENESIS) };
        let mut details = canonical::encode(&self.details);
        if details.len() > MAX_DETAILS {
            let omitted = serde_json::json!({"omitted": {
                "bytes": details.len(), "sha256": Hash::of(details.as_bytes()).to_string()}});
            details = canonical::encode(&omitted);
        }
        let envelope = Envelope {
            v: VERSION,
            kind: self.kind,
            cluster: seal.cluster,
            uid: self.uid,
            seq,
            epoch: seal.epoch,
            at: seal.at,
            from: self.from,
            to: self.to,
            reason: within(&self.reason, MAX_REASON),
            actor: Actor::from(within(&String::from(self.actor), MAX_ACTOR)),
            generation: self.generation,
            operation: self.operation,
            prev,
            details: Hash::of(details.as_bytes()),
        };
        Record::from_envelope(envelope, Some(details))
    }
}

impl Record {
    /// A record from its parts as a store keeps them. The bytes are made anew: equal fields, equal bytes.
    pub(in crate::ledger) fn from_envelope(envelope: Envelope, details: Option<String>) -> Self {
        let bytes = envelope.canonical();
        let hash = Hash::of(bytes.as_bytes());
        Self { envelope, bytes, hash, details }
    }

    /// Reads a record from its canonical bytes, and its details where the store still has them.
    pub fn read(bytes: &str, details: Option<String>) -> Result<Self, RecordError> {
        let envelope: Envelope = serde_json::from_str(bytes)?;
        if envelope.v > VERSION {
            return Err(RecordError::UnknownVersion(envelope.v));
        }
        let record = Self::from_envelope(envelope, details);
        if record.bytes != bytes {
            return Err(RecordError::NotCanonical { uid: record.envelope.uid, sequence: record.envelope.seq });
        }
        if let Some(details) = &record.details {
            let found = Hash::of(details.as_bytes());
            if found != record.envelope.details {
                return Err(RecordError::DetailsDiffer {
                    uid: record.envelope.uid,
                    sequence: record.envelope.seq,
                    expected: record.envelope.details,
                    found,
                });
            }
        }
        Ok(record)
    }

    /// The envelope.
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The canonical text, the very bytes that are hashed, stored and resent.
    pub fn bytes(&self) -> &str {
        &self.bytes
    }

    /// The hash of [`Self::bytes`]: the record's identity.
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// The bytes of [`Self::hash`], for a store to borrow.
    pub(in crate::ledger) const fn hash_ref(&self) -> &[u8] {
        self.hash.as_bytes()
    }

    /// The canonical details; `None` where only the envelope survived.
    pub fn details(&self) -> Option<&str> {
        self.details.as_deref()
    }

    /// The chain's end once this record stands in it.
    pub const fn head(&self) -> Head {
        Head { sequence: self.envelope.seq, hash: self.hash }
    }

    /// Whether this record attaches right behind `head`.
    pub fn follows(&self, head: Head) -> bool {
        self.envelope.seq == head.sequence + 1 && self.envelope.prev == head.hash
    }
}

impl Envelope {
    fn canonical(&self) -> String {
        // The derive is total (strings, integers, options of them), so there is no error to report.
        let value = serde_json::to_value(self).unwrap_or(Value::Null);
        canonical::encode(&value)
    }
}
