//! Objects for the tests of this room, as the API server would send them.

use serde_json::{Value, json};

use super::{
    validate::{self, Surroundings, Tenant},
    view::PodView,
};

/// A validated TenantContainer in state `pending`; `spec` goes over the defaults.
pub(super) fn tenant(spec: Value) -> Tenant {
    let mut object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "TenantContainer",
        "metadata": {
            "name": "engine", "namespace": "acme", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
            "uid": "11111111-1111-4111-8111-111111111111",
        },
        "spec": {
            "tenantOrg": "acme", "user": "alice", "serviceName": "engine", "image": "engine:1",
            "resources": {"cpu": "1", "memory": "1Gi"}, "ports": [{"name": "http", "port": 80}],
        },
        "status": {"phase": "Pending"},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    let namespace = json!({"metadata": {
        "name": "acme", "uid": "22222222-2222-4222-8222-222222222222", "labels": {"berth.dev/tenant-org": "acme"},
    }});
    let namespace = serde_json::from_value(namespace).unwrap();
    let around = Surroundings { cluster: uuid::Uuid::nil(), namespace: &namespace, rival: None };
    validate::validate(&serde_json::from_value(object).unwrap(), around).unwrap()
}

/// A pod with this status.
pub(super) fn pod(status: Value) -> PodView {
    let metadata = json!({"name": "engine-0", "namespace": "acme", "uid": "33333333-3333-4333-8333-333333333333"});
    let spec = json!({"nodeName": "node-1", "containers": [{"image": "engine:1"}]});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}
