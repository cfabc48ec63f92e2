//! `AccessGrant`: from what is granted to the RoleBindings that carry it, and their end on time.
//!
//! Owns: which rights there are to grant, which RoleBindings should exist at a moment, one pass that makes it so, and what the
//! ledger is told of it.
//! Must never: write a Role or a ClusterRole (the chart ships those, and only they are bound); touch a RoleBinding that is
//! not the grant's own.

mod chained;
mod context;
pub mod names;
mod pass;
pub mod permissions;
pub mod plan;
pub mod record;
pub mod status;
mod tell;

#[cfg(test)]
mod tests;

pub use context::{Bindings, Context, Done, Grants, NamespaceSeen, PassError};
pub use pass::{pass, sweep};
