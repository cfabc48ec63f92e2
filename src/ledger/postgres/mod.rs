//! The ledger's home in PostgreSQL (docs/data-model.md).
//!
//! Owns: every statement that Berth sends to its database. Must never: know Kubernetes, the spool, or what a record is
//! good for.

mod batch;
mod bounds;
mod chain;
mod columns;
mod connect;
pub mod entity;
mod failure;
mod heads;
mod history;
mod home;
mod operations;
mod partitions;
mod present;
mod quarantine;
mod read;
mod schema;
mod stored;
mod time;
mod writer;
mod writers;

pub use connect::{Source, connect};
pub use home::Home;
pub use read::{Reader, Rows};
pub use schema::{migrate, pending};
pub use stored::{StoredOperation, StoredWriter};
pub use writer::Counters;
