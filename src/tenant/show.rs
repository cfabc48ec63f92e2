//! The only writes to a TenantContainer itself: its status, by compare-and-set on the head of its chain, and the removal
//! of its finalizer.
//!
//! Owns: those two requests. Must never: write a spec, or a status made on another head than the one that is there.

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::names;
use crate::{
    api::{FINALIZER, TenantContainer, tenant_container::TenantContainerStatus},
    ledger::{Target, protocol::ShowTests},
};

/// The API server did not take a write to the object itself.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// Somebody was faster, or what we read was old: the next pass reads again.
    #[error("{0} has changed since it was read; it is read again")]
    Overtaken(String),
    /// The object is gone.
    #[error("{0} is gone")]
    Gone(String),
    /// Anything else.
    #[error("the status of {subject} could not be written")]
    Api {
        /// Namespace and name.
        subject: String,
        /// What the API server or the connection said.
        source: Box<kube::Error>,
    },
}

/// Replaces the status of `object` as it was read, if what `tests` names has not changed since.
pub(super) async fn status(
    client: &Client,
    target: &Target,
    object: &TenantContainer,
    tests: ShowTests,
    status: &TenantContainerStatus,
) -> Result<TenantContainer, ShowError> {
    let head = object.status.as_ref().map_or("", |status| status.ledger.head.as_str());
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": target.uid}),
        json!({"op": "test", "path": "/status/ledger/head", "value": head}),
    ];
    if tests == ShowTests::HeadAndDeletion {
        let deletion = &object.metadata.deletion_timestamp;
        operations.push(json!({"op": "test", "path": "/metadata/deletionTimestamp", "value": deletion}));
    }
    let carried = object.status.as_ref().map_or(&[][..], |status| &status.ledger.pending);
    if carried.iter().any(|record| !status.ledger.pending.contains(record)) {
        // What goes from there is in the database; what somebody else has added is not.
        operations.push(json!({"op": "test", "path": "/status/ledger/pending", "value": carried}));
    }
    operations.push(json!({"op": "replace", "path": "/status", "value": status}));
    let api: Api<TenantContainer> = Api::namespaced(client.clone(), &target.namespace);
    api.patch_status(&target.name, &how(), &json_patch(operations.into(), target)?)
        .await
        .map_err(|source| error(target.to_string(), source))
}

/// Puts the finalizer on, if the object is still as it was read.
pub(super) async fn hold(client: &Client, object: &TenantContainer) -> Result<TenantContainer, ShowError> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut finalizers = object.metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    let merge = json!({"metadata": {"resourceVersion": object.metadata.resource_version, "finalizers": finalizers}});
    let api: Api<TenantContainer> = Api::namespaced(client.clone(), &namespace);
    api.patch(&name, &how(), &Patch::Merge(&merge)).await.map_err(|source| error(format!("{namespace}/{name}"), source))
}

/// Takes the finalizer off, if it is still where it was read.
pub(super) async fn release(client: &Client, target: &Target, object: &TenantContainer) -> Result<(), ShowError> {
    let finalizers = object.metadata.finalizers.as_deref().unwrap_or_default();
    let Some(place) = finalizers.iter().position(|finalizer| finalizer == FINALIZER) else { return Ok(()) };
    let path = format!("/metadata/finalizers/{place}");
    let head = object.status.as_ref().map_or("", |status| status.ledger.head.as_str());
    let operations = json!([
        {"op": "test", "path": "/metadata/uid", "value": target.uid},
        {"op": "test", "path": "/status/ledger/head", "value": head},
        {"op": "test", "path": path, "value": FINALIZER},
        {"op": "remove", "path": path},
    ]);
    let api: Api<TenantContainer> = Api::namespaced(client.clone(), &target.namespace);
    match api.patch(&target.name, &how(), &json_patch(operations, target)?).await {
        Ok(_) => Ok(()),
        Err(source) => match error(target.to_string(), source) {
            ShowError::Gone(_) => Ok(()),
            other => Err(other),
        },
    }
}

fn how() -> PatchParams {
    PatchParams { field_manager: Some(names::STATUS_MANAGER.to_owned()), ..PatchParams::default() }
}

fn json_patch(operations: serde_json::Value, target: &Target) -> Result<Patch<()>, ShowError> {
    serde_json::from_value(operations).map(Patch::Json).map_err(|source| ShowError::Api {
        subject: target.to_string(),
        source: Box::new(kube::Error::SerdeError(source)),
    })
}

fn error(subject: String, source: kube::Error) -> ShowError {
    match &source {
        // 422 is how a failed `test` is answered; what the schema refuses comes as 422 as well, and names a field.
        kube::Error::Api(status)
            if status.code == 409 || (status.code == 422 && !status.message.contains("is invalid")) =>
        {
            ShowError::Overtaken(subject)
        }
        kube::Error::Api(status) if status.code == 404 => ShowError::Gone(subject),
        _ => ShowError::Api { subject, source: Box::new(source) },
    }
}
