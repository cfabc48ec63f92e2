//! The lifecycle of a tenant's service: its states and every transition that exists (design: Lifecycle; seed B, 2.2).
//!
//! Owns: one table. Must never: know Kubernetes, the ledger, a clock.

mod drawing;
mod path;
mod transition;

pub use drawing::mermaid;
pub use path::{Goal, next_hop};
pub use transition::{NoSuchTransition, State, TRANSITIONS, Transition};
