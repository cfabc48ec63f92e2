//! The only writes to an object itself: its status, by compare-and-set, on the head of the chain where it has one; and its
//! finalizer.
//!
//! Owns: those requests. Must never: write a spec, or a status made on another head than the one that is there.

use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::Chained;
use crate::{
    api::FINALIZER,
    ledger::{Target, protocol::ShowTests},
};

/// Field manager of statuses and finalizers.
pub const MANAGER: &str = "berth-status";

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

impl ShowError {
    /// One CamelCase word: metric label and Event reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Overtaken(_) => "Overtaken",
            Self::Gone(_) => "Gone",
            Self::Api { .. } => "StatusNotWritten",
        }
    }
}

/// Replaces the status of `object` as it was read, if what `tests` names has not changed since.
pub async fn show<K: Chained>(
    client: &Client,
    target: &Target,
    object: &K,
    tests: ShowTests,
    status: &K::Status,
) -> Result<K, ShowError> {
    let before = object.status().map(K::ledger);
    let head = before.map_or("", |before| before.head.as_str());
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": target.uid}),
        json!({"op": "test", "path": "/status/ledger/head", "value": head}),
    ];
    if tests == ShowTests::HeadAndDeletion {
        let deletion = &object.meta().deletion_timestamp;
        operations.push(json!({"op": "test", "path": "/metadata/deletionTimestamp", "value": deletion}));
    }
    let carried = before.map_or(&[][..], |before| &before.pending);
    if carried.iter().any(|record| !K::ledger(status).pending.contains(record)) {
        // What goes from there is in the database; what somebody else has added is not.
        operations.push(json!({"op": "test", "path": "/status/ledger/pending", "value": carried}));
    }
    if K::OWNED.is_empty() {
        operations.push(json!({"op": "replace", "path": "/status", "value": status}));
    } else {
        let whole = serde_json::to_value(status).map_err(|source| unusable(target, source))?;
        let owned = K::OWNED.iter();
        operations
            .extend(owned.map(|name| json!({"op": "add", "path": format!("/status/{name}"), "value": whole[name]})));
    }
    K::api(client.clone(), &target.namespace)
        .patch_status(&target.name, &how(), &json_patch(operations.into(), &target.to_string())?)
        .await
        .map_err(|source| error(target.to_string(), source))
}

/// Replaces the status of an object that has no chain, if nothing of the object has changed since it was read.
pub async fn show_as_read<K>(api: &Api<K>, object: &K, status: &impl Serialize) -> Result<K, ShowError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let metadata = object.meta();
    let name = metadata.name.clone().unwrap_or_default();
    let place = metadata.namespace.as_ref().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
    let subject = format!("{} {place}", K::kind(&()));
    let operations = json!([
        {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version},
        {"op": "add", "path": "/status", "value": status},
    ]);
    let patch = json_patch(operations, &subject)?;
    api.patch_status(&name, &how(), &patch).await.map_err(|source| error(subject, source))
}

/// Whether the finalizer is on.
pub fn is_held<K: Resource>(object: &K) -> bool {
    object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer on, if the object is still as it was read.
pub async fn hold<K: Chained>(client: &Client, object: &K) -> Result<K, ShowError> {
    let metadata = object.meta();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    let merge = json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": finalizers}});
    let api = K::api(client.clone(), &namespace);
    api.patch(&name, &how(), &Patch::Merge(&merge)).await.map_err(|source| error(format!("{namespace}/{name}"), source))
}

/// Takes the finalizer off, if it is still where it was read. Answers with what the object is from then on, which is its end
/// where nobody else holds it; none where there was nothing to take off, or no telling what there is.
pub async fn release<K: Chained>(client: &Client, target: &Target, object: &K) -> Result<Option<K>, ShowError> {
    let finalizers = object.meta().finalizers.as_deref().unwrap_or_default();
    let Some(place) = finalizers.iter().position(|finalizer| finalizer == FINALIZER) else { return Ok(None) };
    let path = format!("/metadata/finalizers/{place}");
    let head = object.status().map_or("", |status| K::ledger(status).head.as_str());
    let operations = json!([
        {"op": "test", "path": "/metadata/uid", "value": target.uid},
        {"op": "test", "path": "/status/ledger/head", "value": head},
        {"op": "test", "path": path, "value": FINALIZER},
        {"op": "remove", "path": path},
    ]);
    match K::api(client.clone(), &target.namespace)
        .patch(&target.name, &how(), &json_patch(operations, &target.to_string())?)
        .await
    {
        Ok(released) => Ok(Some(released)),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            // Where the whole kind is not served just now that is the answer, too, and no end: it names no object.
            let is_named = status.details.is_some_and(|details| details.name == target.name);
            Ok(is_named.then(|| {
                let mut last = object.clone();
                last.meta_mut().finalizers = None;
                last
            }))
        }
        Err(source) => Err(error(target.to_string(), source)),
    }
}

fn how() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn json_patch(operations: serde_json::Value, subject: &str) -> Result<Patch<()>, ShowError> {
    serde_json::from_value(operations).map(Patch::Json).map_err(|source| unusable(subject, source))
}

fn unusable(subject: impl ToString, source: serde_json::Error) -> ShowError {
    ShowError::Api { subject: subject.to_string(), source: Box::new(kube::Error::SerdeError(source)) }
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

#[cfg(test)]
mod tests {
    use axum::http::{Request, Response};
    use kube::client::Body;
    use rstest::rstest;
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;
    use crate::api::TenantQuota;

    /// To every request the same 404.
    fn nothing_there(details: Value) -> Client {
        let answer = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "not found",
            "reason": "NotFound", "details": details, "code": 404});
        let service = tower::service_fn(move |_: Request<Body>| {
            let body = Body::from(answer.to_string().into_bytes());
            async { Response::builder().status(404).header("content-type", "application/json").body(body) }
        });
        Client::new(service, "default")
    }

    #[rstest]
    #[case::the_object_is_gone(json!({"name": "acme", "group": "berth.dev", "kind": "tenantquotas"}), true)]
    #[case::the_kind_is_not_served(json!({}), false)]
    #[tokio::test]
    async fn only_a_404_that_names_the_object_is_its_end(#[case] details: Value, #[case] is_end: bool) {
        let quota = json!({
            "metadata": {"name": "acme", "uid": Uuid::from_u128(1), "finalizers": [FINALIZER], "deletionTimestamp": "2030-01-01T13:00:00Z"},
            "spec": {"tenantOrg": "acme", "limits": {}},
        });
        let quota: TenantQuota = serde_json::from_value(quota).unwrap();
        let target = Target {
            cluster: Uuid::from_u128(7),
            uid: Uuid::from_u128(1),
            kind: "TenantQuota".to_owned(),
            namespace: String::new(),
            name: "acme".to_owned(),
        };
        let last = release(&nothing_there(details), &target, &quota).await.unwrap();
        assert_eq!(last.map(|last| last.metadata.finalizers), is_end.then_some(None));
    }
}
