//! The field managers of what a rollout writes.
//!
//! Owns: those names. Must never: lend them to anything else.

pub use crate::tenant::names::STATUS_MANAGER;

/// Field manager of `spec.release`, by server-side apply: a tool that applies a manifest without it leaves it alone.
pub const RELEASE_MANAGER: &str = "berth-rollout";
