//! The names and labels of everything that belongs to a TenantContainer.
//!
//! Owns: every name, once. Must never: truncate one; the resource's own name is short enough for all of them.

/// Field manager of children, by server-side apply.
pub const FIELD_MANAGER: &str = "berth";
/// Field manager of the status and of the finalizer.
pub const STATUS_MANAGER: &str = crate::chain::MANAGER;

/// Label: who made the object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const BERTH: &str = "berth";
/// Label: the TenantContainer's name.
pub const TENANT_CONTAINER: &str = "berth.dev/tenant-container";
/// Label: the TenantContainer's uid.
pub const OWNER_UID: &str = "berth.dev/owner-uid";
/// Label: the tenant organisation.
pub const TENANT_ORG: &str = crate::api::TENANT_ORG_LABEL;
/// Annotation: hash of what Berth built the object from.
pub const BUILT_FROM: &str = "berth.dev/built-from";
/// Annotation of a claim: the user whose disk it is.
pub const USER: &str = "berth.dev/user";
/// Annotation of a claim: the service whose disk it is.
pub const SERVICE_NAME: &str = "berth.dev/service-name";
/// Annotation that an administrator puts on a retained claim: the uid of the object that may have it.
pub const ADOPT: &str = "berth.dev/adopt";
/// Label that the StatefulSet controller gives a pod: the revision it was made from.
pub const REVISION: &str = "controller-revision-hash";

/// Whether a label or annotation is one that Berth reads.
pub fn is_ours(key: &str) -> bool {
    key.starts_with("berth.dev/") || key == REVISION
}

/// The Service that clients use, the StatefulSet, the ServiceAccount and the PodDisruptionBudget bear the resource's own name.
pub fn main(name: &str) -> String {
    name.to_owned()
}

/// The headless Service that gives each replica its address.
pub fn headless(name: &str) -> String {
    format!("{name}-replicas")
}

/// A replica.
pub fn pod(name: &str, ordinal: i32) -> String {
    format!("{name}-{ordinal}")
}

/// The volume of a replica's own disk, and the name of the claim template.
pub const DATA_VOLUME: &str = "data";

/// The claim of a replica's own disk, as the StatefulSet controller would name it.
pub fn claim(name: &str, ordinal: i32) -> String {
    format!("{DATA_VOLUME}-{name}-{ordinal}")
}

/// The container in each pod.
pub const CONTAINER: &str = "service";

/// The longest name of a TenantContainer that the schema accepts.
pub const MAX_NAME: usize = 40;

// A StatefulSet's pods carry a label of its name, a dash and a ten-digit hash; a label's value has at most 63 characters (RFC 1123).
const _: () = assert!(MAX_NAME + 11 <= 63);
const _: () = assert!(MAX_NAME + "-replicas".len() <= 63);
