//! `Deployment`: a release brought to a fleet of TenantContainers, wave by wave.
//!
//! How far a rollout is, the targets themselves say: each carries which revision of which rollout it was given. So a rollout
//! goes on rightly after a crash at any moment, and with its own status gone.
//!
//! Owns: which targets there are, which gets the release when, and one pass that makes it so.
//! Must never: depend on a rollout's status; write anything of a target but `spec.release`.

mod chained;
mod context;
pub mod names;
pub mod outcome;
mod pass;
pub mod plan;
pub mod record;
pub mod rollout;
pub mod select;
pub mod stage;
pub mod status;
pub mod target;
mod tell;
pub mod waves;

#[cfg(test)]
mod tests;

pub use context::{Context, Done, PassError, Rollouts};
pub use pass::pass;
