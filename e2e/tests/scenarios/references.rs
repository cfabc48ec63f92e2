//! What a service reads and writes: disks, Secrets and ConfigMaps.

use berth_e2e::{
    objects::{Tenant, condition, message},
    scenario::uid,
};
use serde_json::json;

use crate::scenario;

#[test]
fn a_disk_grows_when_asked_and_refuses_to_shrink() {
    let Some(s) = scenario("disk") else { return };
    s.run(&Tenant::named("disk").with("resources/disk", "16Mi")).unwrap();
    let claim = s.get("pvc", "data-disk-0").unwrap();
    s.change("disk", &json!({"resources": {"disk": "32Mi"}})).unwrap();
    s.until_ready("disk", "Running").unwrap();
    let grown = s.get("pvc", "data-disk-0").unwrap();
    assert_eq!(uid(&grown), uid(&claim));
    assert_eq!(grown["status"]["capacity"]["storage"], "32Mi", "Ready only once the capacity is there");
    let refused = s.change("disk", &json!({"resources": {"disk": "16Mi"}})).unwrap_err();
    assert!(refused.message().contains("a disk can grow but not shrink"), "{refused}");
    assert_eq!(condition(&s.get("tc", "disk").unwrap(), "Ready"), "True");
}

#[test]
fn environment_from_secret_and_config_map_reaches_the_process() {
    let Some(s) = scenario("env") else { return };
    s.put(&[
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"port": "9090"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"ready": "1.5"}}),
    ])
    .unwrap();
    // The test service listens where PORT says: it is ready there only if the value arrived.
    let tenant = Tenant::named("env")
        .with("ports", json!([{"name": "http", "port": 80, "targetPort": 9090}]))
        .env(json!({"name": "PORT", "secretKeyRef": {"name": "keys", "key": "port"}}))
        .env(json!({"name": "READY_AFTER", "configMapKeyRef": {"name": "settings", "key": "ready"}}))
        .env(json!({"name": "LITERAL", "value": "x"}));
    s.run(&tenant).unwrap();
    let answer = s.ask("env-0", "http://127.0.0.1:9090/").unwrap();
    assert!(answer.starts_with("200 OK"), "{answer}");
}

#[test]
fn a_missing_secret_or_config_map_of_the_environment_is_named_and_found_once_made() {
    let Some(s) = scenario("missing-env") else { return };
    s.apply(&Tenant::named("a").env(json!({"name": "K", "secretKeyRef": {"name": "not-yet", "key": "k"}}))).unwrap();
    s.apply(&Tenant::named("b").env(json!({"name": "K", "configMapKeyRef": {"name": "nor-this", "key": "k"}})))
        .unwrap();
    for (name, missing) in [("a", "not-yet"), ("b", "nor-this")] {
        let object = s.until_stalled(name, "ReferenceNotFound").unwrap();
        assert_eq!(object["status"]["phase"], "Failed");
        assert!(message(&object, "Stalled").contains(missing), "{}", message(&object, "Stalled"));
        let events = s.events(name).unwrap();
        assert!(events.iter().any(|e| e.starts_with("ReferenceNotFound") && e.contains(missing)), "{events:?}");
    }
    s.put(&[
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "not-yet"}, "stringData": {"k": "v"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nor-this"}, "data": {"k": "v"}}),
    ])
    .unwrap();
    s.until_ready("a", "Running").unwrap();
    s.until_ready("b", "Running").unwrap();
}

#[test]
fn a_missing_secret_or_config_map_of_a_volume_is_named_and_found_once_made() {
    let Some(s) = scenario("missing-volume") else { return };
    let volume = |kind: &str, name: &str| json!([{"name": "files", "mountPath": "/etc/files", kind: {"name": name}}]);
    s.apply(&Tenant::named("a").with("volumes", volume("secret", "not-yet"))).unwrap();
    s.apply(&Tenant::named("b").with("volumes", volume("configMap", "nor-this"))).unwrap();
    for (name, missing) in [("a", "not-yet"), ("b", "nor-this")] {
        let object = s.until_stalled(name, "ReferenceNotFound").unwrap();
        assert_eq!(object["status"]["phase"], "Failed");
        assert!(message(&object, "Stalled").contains(missing), "{}", message(&object, "Stalled"));
    }
    s.put(&[
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "not-yet"}, "stringData": {"k": "v"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nor-this"}, "data": {"k": "v"}}),
    ])
    .unwrap();
    // The kubelet tries again later and later, up to two minutes.
    s.until_ready("a", "Running").unwrap();
    s.until_ready("b", "Running").unwrap();
}
