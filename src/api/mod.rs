//! The custom resources of group `berth.dev`: types, schema, defaults, CEL validation.
//!
//! Owns: the shape of what users write and read; `crds/` is generated from it.
//! Must never: talk to an API server, or decide anything about a running service.

pub mod access_grant;
pub mod deployment;
mod ledger_status;
pub mod quantity;
pub mod release;
pub mod tenant_container;
pub mod tenant_quota;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::json;

pub use access_grant::AccessGrant;
pub use deployment::Deployment;
pub use ledger_status::LedgerStatus;
pub use quantity::{Quantity, QuantityError};
pub use tenant_container::TenantContainer;
pub use tenant_quota::TenantQuota;

/// The API group of every kind.
pub const GROUP: &str = "berth.dev";
/// The version of every kind.
pub const VERSION: &str = "v1alpha1";

/// Label on a namespace: the one tenant organisation that its objects may name.
pub const TENANT_ORG_LABEL: &str = "berth.dev/tenant-org";
/// Finalizer on every object whose end has to be recorded before it goes.
pub const FINALIZER: &str = "berth.dev/ledger";
/// Annotation, stamped by the API server: who changed the spec last.
pub const ACTOR_ANNOTATION: &str = "berth.dev/actor";
/// What the stamp begins with where a rollout changed the spec; its namespace and name follow. Users' names do not begin with
/// `system:`.
pub const ROLLOUT_ACTOR_PREFIX: &str = "system:berth:rollout:";
/// Annotation, stamped with the actor: the generation that the stamp belongs to.
pub const ACTOR_GENERATION_ANNOTATION: &str = "berth.dev/actor-generation";
/// Annotation, stamped by the API server: who asked for the restart, that is, changed [`RESTARTED_AT_ANNOTATION`] last.
/// A stamp of its own, since a restart leaves the generation as it is.
pub const RESTARTED_BY_ANNOTATION: &str = "berth.dev/restarted-by";
/// Annotation: change it (to a time, say) and every replica is restarted, one after another.
pub const RESTARTED_AT_ANNOTATION: &str = "berth.dev/restarted-at";

/// Annotation: change it (to a time, say) and the replicas that are broken are made anew.
pub const RETRY_ANNOTATION: &str = "berth.dev/retry";
/// Annotation, stamped by the API server: who changed [`RETRY_ANNOTATION`] last.
pub const RETRIED_BY_ANNOTATION: &str = "berth.dev/retried-by";
/// Annotation: with the value [`RECONCILE_DISABLED`], Berth leaves the object alone until it is deleted.
pub const RECONCILE_ANNOTATION: &str = "berth.dev/reconcile";
/// See [`RECONCILE_ANNOTATION`].
pub const RECONCILE_DISABLED: &str = "disabled";

/// Every CustomResourceDefinition, in the order of installation.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [AccessGrant::crd(), Deployment::crd(), TenantContainer::crd(), TenantQuota::crd()].map(with_status_default).into()
}

/// Gives `status` its default in the schema: `observedGeneration: -1`, so that kstatus does not take an object
/// that nobody has looked at for current, and, where there is a chain, a head for the first compare-and-set to test.
fn with_status_default(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(status) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|root: &mut JSONSchemaProps| root.properties.as_mut())
            .and_then(|properties| properties.get_mut("status"))
        {
            let mut default = json!({"observedGeneration": -1});
            if status.properties.as_ref().is_some_and(|properties| properties.contains_key("ledger")) {
                default["ledger"] = json!({"sequence": 0, "head": "", "pending": []});
            }
            status.default = Some(JSON(default));
            status.nullable = None;
        }
    }
    definition
}

/// The text of a definition as it stands in `crds/`.
pub fn render(definition: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    Ok(format!("# Generated from src/api by `make generate`; do not edit.\n{}", serde_yaml::to_string(definition)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make generate` writes the file; this fails where it was forgotten.
    #[test]
    fn the_generated_definitions_are_in_sync() {
        for definition in definitions() {
            let name = definition.metadata.name.clone().unwrap();
            let path = format!("{}/crds/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == render(&definition).unwrap(), "{path} is out of date: run `make generate`");
        }
    }

    #[test]
    fn every_field_is_described() {
        fn walk(path: &str, schema: &JSONSchemaProps, missing: &mut Vec<String>) {
            if schema.description.as_deref().unwrap_or_default().len() < 10 {
                missing.push(path.to_owned());
            }
            for (name, child) in schema.properties.iter().flatten() {
                walk(&format!("{path}.{name}"), child, missing);
            }
            if let Some(
                k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray::Schema(
                    items,
                ),
            ) = &schema.items
            {
                for (name, child) in items.properties.iter().flatten() {
                    walk(&format!("{path}[].{name}"), child, missing);
                }
            }
        }
        for definition in definitions() {
            let root = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            let mut missing = vec![];
            for name in ["spec", "status"] {
                walk(name, &root.properties.clone().unwrap()[name], &mut missing);
            }
            assert!(missing.is_empty(), "`kubectl explain` has nothing to say about: {missing:#?}");
        }
    }
}
