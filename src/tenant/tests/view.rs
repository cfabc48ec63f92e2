//! Projections keep what the planner reads, and see an edit by somebody else.

use serde_json::{Value, json};

use crate::tenant::view::{ContainerSeen, PodView, ServiceView, StatefulSetView};

fn service(managers: Value) -> ServiceView {
    serde_json::from_value(json!({
        "metadata": {
            "name": "search", "namespace": "acme", "uid": "u", "resourceVersion": "12",
            "labels": {"berth.dev/owner-uid": "x", "team": "search"},
            "annotations": {"berth.dev/built-from": "abc", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "TenantContainer", "name": "search", "uid": "x", "controller": true}],
            "managedFields": managers,
        },
        "spec": {"clusterIP": "10.0.0.1"},
    }))
    .unwrap()
}

#[test]
fn only_what_is_read_is_kept() {
    let view = service(json!([]));
    assert_eq!(view.owner_uid(), Some("x"));
    assert_eq!(view.built_from(), Some("abc"));
    assert_eq!(view.metadata.labels.unwrap().len(), 1, "somebody else's labels are not kept");
    assert!(view.metadata.managed_fields.is_none());
}

#[test]
fn an_edit_is_seen_and_another_edit_is_another() {
    let ours = json!({"manager": "berth", "operation": "Apply", "fieldsV1": {"f:spec": {"f:selector": {}}}});
    let binder = json!({"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:spec": {"f:volumeName": {}}}});
    let status =
        json!({"manager": "kube-controller-manager", "subresource": "status", "fieldsV1": {"f:spec": {"f:x": {}}}});
    let edit =
        |field: &str| json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {field: {}}}});
    let untouched = service(json!([ours, binder, status])).fields;
    assert_eq!(untouched, service(json!([ours])).fields, "what the binder and the status's writer set is no edit");
    assert!(!untouched.others);
    let first = service(json!([ours, binder, edit("f:ports")])).fields;
    let second = service(json!([ours, binder, edit("f:selector")])).fields;
    assert!(first.others && second.others);
    assert_ne!(first.print, second.print);
    let less = json!({"manager": "berth", "operation": "Apply", "fieldsV1": {"f:spec": {}}});
    assert_ne!(service(json!([less])).fields.print, untouched.print, "somebody took a field away, and owns nothing");
}

#[test]
fn a_pod_says_how_its_container_is() {
    let pod: PodView = serde_json::from_value(json!({
        "metadata": {"name": "search-0"},
        "spec": {"nodeName": "n", "containers": [{"image": "engine:1", "env": [{"name": "A", "value": "b"}]}]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"imageID": "sha256:1", "restartCount": 2, "state": {"running": {"startedAt": "2026-11-24T00:00:00Z"}},
                "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}],
        },
    }))
    .unwrap();
    assert!(pod.seen.ready);
    assert_eq!(pod.seen.image_id.as_deref(), Some("sha256:1"));
    assert_eq!(pod.seen.last_end, Some(("OOMKilled".to_owned(), 137)));
    assert!(matches!(pod.seen.container, ContainerSeen::Running { .. }));
}

#[test]
fn what_a_server_leaves_out_is_nothing_special() {
    let set: StatefulSetView =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {}, "status": {}})).unwrap();
    assert_eq!((set.seen.replicas, set.seen.ready), (1, 0));
}
