//! Disks that outlive their service: which are freed from it, and which an administrator has given to another one.
//!
//! A claim that is kept (`spec.deletionPolicy: Retain`) has no owner from the beginning, so that no garbage collector takes it, not
//! even in a deletion with `--cascade=foreground`. It says whose it is by label and annotation.
//!
//! Owns: those decisions. Must never: do I/O.

use super::{names, validate::Tenant, view::View};
use crate::api::tenant_container::DeletionPolicy;

/// Whether the disks of `tenant` are kept when it is deleted.
pub fn are_kept(tenant: &Tenant) -> bool {
    tenant.spec.deletion_policy == DeletionPolicy::Retain
}

/// Whether a claim of `tenant` still has an owner that it should not have.
pub fn is_bound<P>(claim: &View<P>, tenant: &Tenant) -> bool {
    are_kept(tenant) && claim.owner_uid() == Some(&tenant.target.uid.to_string())
}

/// Whose a claim is that `tenant` finds under its own disk's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Somebody else's.
    Foreign,
    /// Retained from an earlier service of the very same organisation, user and name; nobody has given it back yet.
    Earlier,
    /// That, and an administrator has given it to this very object.
    Given,
    /// Retained from a service of another organisation, user or name, which this says. It is never mounted.
    Others(String),
}

/// Whose `claim` is.
pub fn whose<P>(claim: &View<P>, tenant: &Tenant) -> Whose {
    let metadata = &claim.metadata;
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    let parts = (claim.label(names::TENANT_ORG), annotation(names::USER), annotation(names::SERVICE_NAME));
    let is_free = metadata.owner_references.as_ref().is_none_or(Vec::is_empty);
    let (Some(org), Some(user), Some(service), true, Some(_)) =
        (parts.0, parts.1, parts.2, is_free, claim.label(names::OWNER_UID))
    else {
        return Whose::Foreign;
    };
    let spec = &tenant.spec;
    if (org, user, service) != (&spec.tenant_org, &spec.user, &spec.service_name) {
        Whose::Others(format!("service {service} of user {user} in {org}"))
    } else if annotation(names::ADOPT) == Some(&tenant.target.uid.to_string()) {
        Whose::Given
    } else {
        Whose::Earlier
    }
}
