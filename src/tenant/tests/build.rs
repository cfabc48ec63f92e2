//! Children, as the API server would get them.

use serde_json::{Value, json};

use super::objects::{manifest, validated};
use crate::tenant::build::{Child, ChildKind, Shape, children};

fn built(change: impl FnOnce(&mut Value), shape: Shape) -> Vec<Child> {
    let mut manifest = manifest();
    change(&mut manifest["spec"]);
    children(&validated(&manifest).unwrap(), shape)
}

const SERVING: Shape = Shape { replicas: 2, serving: true };

fn one(all: &[Child], kind: ChildKind) -> Value {
    all.iter().find(|child| child.kind == kind).unwrap().manifest()
}

#[test]
fn a_small_service() {
    let all = built(|_| {}, SERVING);
    let manifests: Vec<_> = all.iter().map(Child::manifest).collect();
    insta::assert_yaml_snapshot!("small", manifests);
}

#[test]
fn a_service_with_everything() {
    let all = built(
        |spec| {
            *spec = json!({
                "tenantOrg": "acme", "user": "alice", "serviceName": "search", "image": "engine:1",
                "imagePullPolicy": "Always", "replicas": 1, "dataPath": "/var/lib/engine", "storageClassName": "fast",
                "resources": {"cpu": 2, "memory": "4Gi", "disk": "10Gi", "gpu": 1, "gpuResource": "nvidia.com/gpu"},
                "ports": [{"name": "http", "port": 80}, {"name": "gossip", "port": 7946, "protocol": "UDP"}],
                "command": ["/engine"], "args": ["--fast"],
                "env": [{"name": "MODE", "value": "x"},
                    {"name": "TOKEN", "secretKeyRef": {"name": "token", "key": "t"}},
                    {"name": "LEVEL", "configMapKeyRef": {"name": "levels", "key": "l"}}],
                "volumes": [{"name": "certs", "mountPath": "/certs", "secret": {"name": "certs"}},
                    {"name": "conf", "mountPath": "/conf", "configMap": {"name": "conf"}},
                    {"name": "scratch", "mountPath": "/scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
                "probes": {"port": "http", "readinessPath": "/ready", "livenessPath": "/live", "startupSeconds": 60},
                "placement": {"nodeSelector": {"zone": "a"}, "priorityClassName": "high",
                    "tolerations": [{"key": "gpu", "operator": "Exists"}], "imagePullSecrets": [{"name": "pull"}]},
            });
        },
        Shape { replicas: 1, serving: true },
    );
    insta::assert_yaml_snapshot!("claim", one(&all, ChildKind::PersistentVolumeClaim(0)));
    insta::assert_yaml_snapshot!("full", one(&all, ChildKind::StatefulSet));
}

#[test]
fn a_paused_service_selects_nobody_and_nothing_else_changes() {
    let serving = built(|_| {}, SERVING);
    let paused = built(|_| {}, Shape { serving: false, ..SERVING });
    let differing: Vec<_> = serving.iter().zip(&paused).filter(|(a, b)| a.built_from != b.built_from).collect();
    assert_eq!(differing.len(), 1);
    assert_eq!(differing[0].0.name, "search");
    assert_eq!(differing[0].1.manifest()["spec"]["selector"], json!({"berth.dev/nobody": "paused"}));
}

#[test]
fn a_grown_disk_changes_the_claims_and_not_the_claim_template() {
    let small = built(|spec| spec["resources"]["disk"] = json!("10Gi"), SERVING);
    let large = built(|spec| spec["resources"]["disk"] = json!("20Gi"), SERVING);
    assert_eq!(one(&small, ChildKind::StatefulSet)["spec"], one(&large, ChildKind::StatefulSet)["spec"]);
    assert_eq!(one(&large, ChildKind::PersistentVolumeClaim(1))["spec"]["resources"]["requests"]["storage"], "20Gi");
}

#[test]
fn every_child_belongs_to_its_object_by_uid() {
    for child in built(|spec| spec["resources"]["disk"] = json!("1Gi"), SERVING) {
        let owner = &child.manifest()["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], super::objects::UID, "{:?}", child.kind);
        assert_eq!(owner["controller"], true);
        assert_eq!(child.manifest()["metadata"]["annotations"]["berth.dev/built-from"], child.built_from);
    }
}
