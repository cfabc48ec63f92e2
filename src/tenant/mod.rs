//! `TenantContainer`: one pass, in reading order: observe → validate → plan → apply → conclude → record → show.
//!
//! Owns: the order of a pass, and the promise that nothing is shown that is not durable (docs/ledger.md, rule 2).
//! Must never: decide (that is [`plan`]'s) or know how the ledger keeps things.

mod admission;
pub mod apply;
mod audit;
pub mod build;
pub mod cache;
mod chained;
mod context;
pub mod course;
pub mod cpu;
pub mod disks;
pub mod health;
pub mod held;
pub mod mounts;
pub mod names;
pub mod observe;
mod pass;
pub mod plan;
pub mod record;
mod remake;
pub mod requests;
mod resize;
pub mod retry;
pub mod rivals;
pub mod status;
pub mod validate;
pub mod view;

#[cfg(test)]
mod tests;

pub use context::{Context, Done, PassError, Quotas, Tenants};
pub use pass::pass;
