//! The names and labels of a grant's RoleBindings.
//!
//! Owns: every name, once. Must never: truncate one; a grant's own name is short enough.

use crate::tenant::names as shared;

pub use shared::{BERTH, MANAGED_BY, OWNER_UID, STATUS_MANAGER};

/// Field manager of RoleBindings, by server-side apply.
pub const FIELD_MANAGER: &str = shared::FIELD_MANAGER;
/// Label: the grant's name.
pub const ACCESS_GRANT: &str = "berth.dev/access-grant";
/// What the name of every RoleBinding of Berth's begins with; the policy `berth-bindings` says the same.
pub const PREFIX: &str = "berth-grant-";

/// The RoleBinding that binds `cluster_role`. With a part of the uid, so that a grant that is made again does not meet what
/// the garbage collector has not taken yet; whose one is, its owner says, never its name.
pub fn binding(grant: &str, uid: &str, cluster_role: &str) -> String {
    let short: String = uid.chars().take(8).collect();
    let what = cluster_role.strip_prefix(PREFIX).unwrap_or(cluster_role);
    format!("{PREFIX}{grant}-{short}-{what}")
}
