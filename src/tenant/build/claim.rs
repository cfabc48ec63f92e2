//! The PersistentVolumeClaim of each replica. Berth makes and grows it itself under the name that the StatefulSet
//! controller would give it, because claim templates are immutable.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::{super::validate::Tenant, metadata};
use crate::tenant::{disks, names};

/// Builds the claim of the replica with this ordinal; none where the service has no disk.
pub fn build(tenant: &Tenant, ordinal: i32) -> Option<PersistentVolumeClaim> {
    let disk = tenant.spec.resources.disk.as_ref()?;
    let owned = metadata(tenant, names::claim(&tenant.target.name, ordinal));
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            annotations: Some(BTreeMap::from([
                (names::USER.to_owned(), tenant.spec.user.clone()),
                (names::SERVICE_NAME.to_owned(), tenant.spec.service_name.clone()),
            ])),
            owner_references: owned.owner_references.filter(|_| !disks::are_kept(tenant)),
            ..owned
        },
        spec: Some(spec(tenant, disk.as_str())),
        status: None,
    })
}

/// The spec of a claim of this size.
pub fn spec(tenant: &Tenant, size: &str) -> PersistentVolumeClaimSpec {
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: tenant.spec.storage_class_name.clone(),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size.to_owned()))])),
            ..VolumeResourceRequirements::default()
        }),
        ..PersistentVolumeClaimSpec::default()
    }
}
