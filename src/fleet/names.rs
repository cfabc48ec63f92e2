//! The field manager of what a rollout writes.
//!
//! Owns: that name. Must never: lend it to anything else.

/// Field manager of `spec.release`, by server-side apply: a tool that applies a manifest without it leaves it alone.
pub const RELEASE_MANAGER: &str = "berth-rollout";
