//! The children of a TenantContainer, each built by one pure function in a file of its own.
//!
//! Owns: what a child looks like. Must never: have a client or a clock, or look at what exists.

pub mod claim;
pub mod disruption_budget;
pub mod service;
pub mod service_account;
pub mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;

use super::{names, validate::Tenant};
use crate::{api::GROUP, ledger::Hash};

/// The kinds of children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChildKind {
    /// The identity of the pods; no token.
    ServiceAccount,
    /// What clients talk to, and the headless one.
    Service,
    /// Keeps a drain of nodes from taking all replicas at once.
    PodDisruptionBudget,
    /// The disk of the replica with this ordinal.
    PersistentVolumeClaim(i32),
    /// The replicas.
    StatefulSet,
}

impl ChildKind {
    /// The kind as in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::PersistentVolumeClaim(_) => "PersistentVolumeClaim",
            Self::StatefulSet => "StatefulSet",
        }
    }
}

/// How many replicas there should be now, and whether clients should reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Replicas.
    pub replicas: i32,
    /// Whether the Service selects them.
    pub serving: bool,
}

/// A child as it should be: its manifest, and the hash by which it is recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name.
    pub name: String,
    /// Its manifest as JSON. Most passes only compare its hash, and never make more of it.
    json: String,
    /// Hash of that, by which it is recognised.
    pub built_from: String,
}

/// Every child in the order of creation: what others refer to comes first.
pub fn children(tenant: &Tenant, shape: Shape) -> Vec<Child> {
    let mut all = vec![
        Child::new(ChildKind::ServiceAccount, &service_account::build(tenant)),
        Child::new(ChildKind::Service, &service::build(tenant, shape)),
        Child::new(ChildKind::Service, &service::build_headless(tenant)),
        Child::new(ChildKind::PodDisruptionBudget, &disruption_budget::build(tenant)),
    ];
    for ordinal in 0..shape.replicas {
        if let Some(claim) = claim::build(tenant, ordinal) {
            all.push(Child::new(ChildKind::PersistentVolumeClaim(ordinal), &claim));
        }
    }
    all.push(Child::new(ChildKind::StatefulSet, &stateful_set::build(tenant, shape)));
    all
}

impl Child {
    fn new<K: Serialize + kube::Resource<DynamicType = ()>>(kind: ChildKind, object: &K) -> Self {
        // These types serialise without fail; a manifest of null would be refused by the API server and said so.
        let json = serde_json::to_string(object).unwrap_or_default();
        let built_from = Hash::of(json.as_bytes()).to_string()[..16].to_owned();
        Self { kind, name: object.meta().name.clone().unwrap_or_default(), json, built_from }
    }

    /// Its manifest for server-side apply, annotated with `built_from`.
    pub fn manifest(&self) -> Value {
        let mut manifest: Value = serde_json::from_str(&self.json).unwrap_or_default();
        if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            let annotations = metadata.entry("annotations").or_insert_with(|| serde_json::json!({}));
            annotations[names::BUILT_FROM] = serde_json::json!(self.built_from);
        }
        manifest
    }
}

/// Metadata that every child has.
fn metadata(tenant: &Tenant, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(tenant.target.namespace.clone()),
        labels: Some(labels(tenant)),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{GROUP}/v1alpha1"),
            kind: tenant.target.kind.clone(),
            name: tenant.target.name.clone(),
            uid: tenant.target.uid.to_string(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

/// Labels that every child and every pod has.
fn labels(tenant: &Tenant) -> BTreeMap<String, String> {
    [
        (names::MANAGED_BY, names::BERTH.to_owned()),
        ("app.kubernetes.io/name", names::BERTH.to_owned()),
        ("app.kubernetes.io/instance", tenant.target.name.clone()),
        (names::TENANT_CONTAINER, tenant.target.name.clone()),
        (names::TENANT_ORG, tenant.spec.tenant_org.clone()),
        (names::OWNER_UID, tenant.target.uid.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// What selects the pods of this very object: its uid, so that a namesake's pods never match.
pub fn selector(tenant: &Tenant) -> BTreeMap<String, String> {
    [(names::OWNER_UID.to_owned(), tenant.target.uid.to_string())].into()
}
