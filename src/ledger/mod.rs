//! The ledger: what happened to every object, who caused it, kept for good (docs/ledger.md).
//!
//! Owns: records and chains, the protocol between status, database and spool, both homes, verification.
//! Must never: know a Kubernetes client; decide what should happen to a service.

mod beside;
mod canonical;
mod compare;
mod door;
mod entry;
mod error;
mod hash;
mod lost;
pub mod postgres;
pub mod protocol;
mod reader;
mod record;
mod remote;
mod replay;
mod rollout;
#[cfg(test)]
pub(crate) mod samples;
mod shared;
#[cfg(test)]
pub(crate) mod simulated;
mod snapshot;
pub mod spool;
#[cfg(test)]
mod vectors;
pub mod verify;
mod view;

pub use canonical::visible;
pub use compare::{Compared, head, link};
pub use door::{Config, Health, Ledger};
pub use entry::{Backend, Entry, KnownHead, OperationOutcome, Outcome, Resource, Target, Usage};
pub use error::{Cause, LedgerError};
pub use hash::{Hash, NotAHash};
pub use reader::{Reader, Reading, Rows, Shown, Verified};
pub use record::{
    Actor, Draft, Envelope, Head, Kind, MAX_ACTOR, MAX_DETAILS, MAX_REASON, Micros, Record, RecordError, Seal, VERSION,
};
pub use replay::{Pace, Replayed, once as replay_once};
pub use rollout::{Counts, Part, Rollout, Scope};
pub use shared::Counters;
pub use snapshot::{Access, Gives, Grant, Index, Namespace, Present, Quota, Replica, Service, Snapshot, Subject};
pub use spool::ShownMark;
pub use view::{ChainId, Found, Moment, Stored, StoredHead};
