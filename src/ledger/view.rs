//! What reading the ledger gives, whichever home it is read from.
//!
//! Owns: the words between the homes and whoever shows or checks their content. Must never: name a table or a
//! file format.

use uuid::Uuid;

use super::{
    entry::Target,
    hash::Hash,
    record::{Head, Micros, Record},
    snapshot::{Service, Snapshot},
};

/// One chain: an object of a cluster. Ordered as homes give chains out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId {
    /// Uid of the cluster's namespace `kube-system`.
    pub cluster: Uuid,
    /// `metadata.uid`.
    pub uid: Uuid,
}

impl std::fmt::Display for ChainId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of cluster {}", self.uid, self.cluster)
    }
}

/// One record in a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// The object, by its names at that time.
    pub target: Target,
    /// The record.
    pub record: Record,
    /// Whether it lost the race to be shown (rule 1).
    pub superseded: bool,
}

/// A user's service as the ledger has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The latest present; its `state` and `head` are the chain's end.
    pub snapshot: Snapshot<Service>,
    /// When the state last changed.
    pub since: Micros,
}

/// A record as a home keeps it, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The chain under which it was found.
    pub chain: ChainId,
    /// The sequence under which it was found.
    pub sequence: u64,
    /// The canonical text (a home that keeps columns makes it anew from them).
    pub bytes: String,
    /// The hash that the home keeps beside it.
    pub hash: Hash,
    /// The canonical details, where they are still there.
    pub details: Option<String>,
    /// Where it stands, for people.
    pub place: String,
}

/// The end of a chain as a home keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredHead {
    /// The chain.
    pub chain: ChainId,
    /// Its end.
    pub head: Head,
}
