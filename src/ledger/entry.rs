//! What comes in at the ledger's door, and what goes out.
//!
//! Owns: the words that the rest of Berth speaks with the ledger. Must never: name a table or a file.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    hash::Hash,
    protocol::Certain,
    record::{Head, Micros, Record},
    snapshot::Snapshot,
};
use crate::lifecycle::State;

/// One thing to keep. Entries of one object must be submitted one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A chained record, with the current state that it leads to.
    Chained {
        /// The sealed record; resent as it is, however often.
        record: Record,
        /// What the tables of the present hold once it counts.
        snapshot: Box<Snapshot>,
    },
    /// The start or the finish of an operation: stands alone. Each is there once; of several accounts the first stands.
    Operation {
        /// The sealed record.
        record: Record,
        /// What it was done to.
        target: Target,
        /// The operation's outcome; none at its start.
        outcome: Option<OperationOutcome>,
    },
    /// The present without a transition: a changed spec, replica or index. Later ones replace earlier ones.
    Present(Box<Snapshot>),
    /// A chained record that a status or a tombstone carried while the database was away. It comes without a snapshot.
    Carried {
        /// The sealed record, perhaps without its details.
        record: Record,
        /// What it is about.
        target: Target,
    },
    /// A sample of what a replica uses: stands alone, and is the first to be thinned where room gets short (rule 6).
    Usage(Usage),
}

impl Entry {
    /// Whether it is a record of a chain.
    pub(in crate::ledger) const fn is_chained(&self) -> bool {
        matches!(self, Self::Chained { .. } | Self::Carried { .. })
    }
}

/// One sample (table `container_resource_usage`). Cluster, container, resource and time are its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Cluster.
    pub cluster: Uuid,
    /// The TenantContainer, by uid.
    pub uid: Uuid,
    /// The replica, by its pod's uid.
    pub container: Uuid,
    /// What was measured.
    pub resource: Resource,
    /// When.
    pub at: Micros,
    /// How much, in the unit of the resource.
    pub value: i64,
}

/// What a replica uses, each with the unit of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Thousandths of a core.
    Cpu,
    /// Bytes.
    Memory,
    /// Bytes since the replica's start.
    NetworkReceived,
    /// Bytes since the replica's start.
    NetworkSent,
    /// Bytes.
    Disk,
    /// Thousandths of a GPU.
    Gpu,
}

impl Resource {
    /// The word in the database and on the spool.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::NetworkReceived => "network_received",
            Self::NetworkSent => "network_sent",
            Self::Disk => "disk",
            Self::Gpu => "gpu",
        }
    }
}

/// The object that an entry is about, by the names that people use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Cluster of the object: uid of its namespace `kube-system`.
    pub cluster: Uuid,
    /// `metadata.uid`.
    pub uid: Uuid,
    /// Kind, as in the manifest: `TenantContainer`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationOutcome {
    /// Whether what was asked for came to be.
    pub succeeded: bool,
    /// From the request to the outcome, in milliseconds.
    pub duration_ms: i64,
}

/// Where something is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Backend {
    /// In PostgreSQL.
    Database,
    /// Fsynced on this replica's spool.
    Spool,
}

/// The ledger's answer to an [`Entry`].
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is durable and may be shown.
    Durable(Backend),
    /// The database did not take it in time. It may be shown only if the status carries it (rule 2), and reaches the
    /// database afterwards.
    Away(Certain),
    /// Another record has this one's place; it comes with its details, and is to be shown instead. Of a chain: the ledger
    /// is already one record ahead of `prev` (rule 3). Of an operation: this phase was told before, by the same leader or
    /// another, at another moment or in other words.
    Adopt(Box<Record>),
    /// The chain in the ledger ends elsewhere: read the object again; if what was shown stays as it was, rule 3 and rule 5 apply.
    Elsewhere {
        /// Its end.
        head: Head,
        /// Whether what was shown is an ancestor of it (the API server's state is older than the ledger).
        shown_is_ancestor: bool,
    },
}

/// What the ledger knows about the end of one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownHead {
    /// The end.
    pub head: Head,
    /// The epoch that wrote it.
    pub epoch: u64,
    /// The state it left.
    pub state: Option<State>,
    /// Hash of the record before it.
    pub prev: Hash,
}
