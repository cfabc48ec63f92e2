//! The ServiceAccount of the pods: an identity with no rights and no token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{super::validate::Tenant, metadata};
use crate::tenant::names;

/// Builds it.
pub fn build(tenant: &Tenant) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(tenant, names::main(&tenant.target.name)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
