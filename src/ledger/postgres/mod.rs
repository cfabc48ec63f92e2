//! The ledger's home in PostgreSQL (docs/data-model.md).
//!
//! Owns: every statement that Berth sends to its database. Must never: know Kubernetes, the spool, or what a record is
//! good for.

mod batch;
mod bounds;
mod breaker;
mod chain;
mod columns;
mod connect;
pub mod entity;
mod facts;
mod failure;
mod heads;
mod history;
mod home;
mod import;
mod operations;
mod partitions;
mod present;
mod probe;
mod quarantine;
mod read;
mod repair;
mod schema;
mod spools;
mod stored;
mod time;
mod usage;
mod way;
mod writer;
mod writers;

pub use breaker::Standing;
pub use connect::{Source, connect};
#[cfg(test)]
pub(super) use facts::descent;
pub use facts::{Ending, Facts, FactsHead};
pub use home::Home;
pub use import::Imported;
pub use read::{Reader, Rows};
pub use schema::{migrate, pending};
pub use spools::StoredSpool;
pub use stored::{StoredOperation, StoredRefusal, StoredWriter};
pub use writer::Counters;
