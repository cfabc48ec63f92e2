//! The chart's admission policies over the life of an object: whose name it carries, who may let it go, and what Berth's
//! own account may do.

use berth_e2e::kubectl::{Error, Kubectl};
use serde_json::json;

use crate::{
    ground::{BERTH, clear, ground, release},
    manifests::Manifest,
};

const FORGED: &str =
    r#"{"berth.dev/actor": "eve", "berth.dev/actor-generation": "99", "berth.dev/restarted-by": "eve"}"#;

#[test]
fn a_change_of_spec_carries_the_name_of_who_made_it() {
    let Some(admin) = ground("the stamps") else { return };
    let admin = admin.in_namespace("schema-stamps");
    clear(&admin);
    let [alice, bob] = ["alice", "bob"].map(|name| admin.as_user(name));
    let minimal = Manifest::read("valid/minimal.yaml").text;
    let forged = minimal.replace("{name: minimal}", &format!("{{name: minimal, annotations: {FORGED}}}"));
    let with_cpu = |cpu: &str| minimal.replace("500m", cpu);
    let server_side = ["apply", "--server-side", "--force-conflicts", "--filename", "-"];

    alice.feed(&["create", "--filename", "-"], &forged).unwrap();
    assert_eq!(stamps(&admin), "generation 1 by alice for 1");
    bob.feed(&["apply", "--filename", "-"], &with_cpu("501m")).unwrap();
    assert_eq!(stamps(&admin), "generation 2 by bob for 2");
    alice.feed(&server_side, &with_cpu("502m")).unwrap();
    assert_eq!(stamps(&admin), "generation 3 by alice for 3");
    bob.feed(&server_side, &with_cpu("503m")).unwrap();
    assert_eq!(stamps(&admin), "generation 4 by bob for 4");
    patch(&alice, "json", r#"[{"op": "replace", "path": "/spec/replicas", "value": 2}]"#).unwrap();
    assert_eq!(stamps(&admin), "generation 5 by alice for 5");
    patch(&bob, "merge", &format!(r#"{{"spec": {{"replicas": 3}}, "metadata": {{"annotations": {FORGED}}}}}"#))
        .unwrap();
    assert_eq!(stamps(&admin), "generation 6 by bob for 6");

    // The whole object put in place of the old one: no stamps, no finalizer, and a generation of its own invention.
    let mut object = admin.json(&["get", "tc", "minimal"]).unwrap();
    object["spec"]["replicas"] = json!(4);
    object["metadata"]["generation"] = json!(77);
    object["metadata"]["annotations"] = json!({});
    object["metadata"]["finalizers"] = json!([]);
    alice.feed(&["replace", "--filename", "-"], &object.to_string()).unwrap();
    assert_eq!(stamps(&admin), "generation 7 by alice for 7");
    clear(&admin);
}

#[test]
fn what_leaves_the_spec_alone_leaves_the_stamps_alone() {
    let Some(admin) = ground("the stamps of unchanged specs") else { return };
    let admin = created(&admin, "schema-unchanged");
    let bob = admin.as_user("bob");
    let same = "generation 1 by alice for 1";

    bob.run(&["label", "tc", "minimal", "a=b"]).unwrap();
    assert_eq!(stamps(&admin), same);
    for annotations in [FORGED, "null", r#"{"berth.dev/actor": null}"#, r#"{"berth.dev/actor-generation": "2"}"#] {
        patch(&bob, "merge", &format!(r#"{{"metadata": {{"annotations": {annotations}}}}}"#)).unwrap();
        assert_eq!(stamps(&admin), same, "after {annotations}");
    }
    for finalizers in ["null", r#"["example.com/other"]"#] {
        patch(&bob, "merge", &format!(r#"{{"metadata": {{"finalizers": {finalizers}}}}}"#)).unwrap();
        assert_eq!(stamps(&admin), same, "after {finalizers}");
    }
    patch(&bob, "merge", r#"{"metadata": {"finalizers": null}}"#).unwrap();
    let text = Manifest::read("valid/minimal.yaml").text;
    bob.feed(&["apply", "--server-side", "--force-conflicts", "--filename", "-"], &text).unwrap();
    assert_eq!(stamps(&admin), same);
    write_status(&admin.as_user(BERTH)).unwrap();
    assert_eq!(stamps(&admin), same);
    clear(&admin);
}

#[test]
fn a_restart_carries_the_name_of_who_asked_for_it() {
    let Some(admin) = ground("the stamps of restarts") else { return };
    let admin = created(&admin, "schema-restart");
    let [alice, bob] = ["alice", "bob"].map(|name| admin.as_user(name));
    let annotate = |who: &Kubectl, annotation: &str| who.run(&["annotate", "tc", "minimal", "--overwrite", annotation]);

    annotate(&bob, "berth.dev/restarted-at=2030-01-02T03:04:05Z").unwrap();
    assert_eq!(stamps(&admin), "generation 1 by alice for 1, restarted by bob");
    annotate(&alice, "berth.dev/restarted-by=eve").unwrap();
    assert_eq!(stamps(&admin), "generation 1 by alice for 1, restarted by bob");
    patch(&bob, "merge", r#"{"spec": {"replicas": 2}}"#).unwrap();
    assert_eq!(stamps(&admin), "generation 2 by bob for 2, restarted by bob");
    annotate(&alice, "berth.dev/restarted-at=2030-01-02T03:04:06Z").unwrap();
    assert_eq!(stamps(&admin), "generation 2 by bob for 2, restarted by alice");
    // A retry has a stamp of its own, as a restart has.
    annotate(&bob, "berth.dev/retry=1").unwrap();
    annotate(&alice, "berth.dev/retried-by=eve").unwrap();
    let object = admin.json(&["get", "tc", "minimal"]).unwrap();
    assert_eq!(object["metadata"]["annotations"]["berth.dev/retried-by"], "bob");
    assert_eq!(stamps(&admin), "generation 2 by bob for 2, restarted by alice");
    clear(&admin);
}

#[test]
fn a_change_past_the_policy_is_seen_by_its_generation() {
    let Some(admin) = ground("the stamps of /scale and deletion") else { return };
    let admin = created(&admin, "schema-scale");
    let [alice, bob] = ["alice", "bob"].map(|name| admin.as_user(name));

    bob.run(&["scale", "tc", "minimal", "--replicas=7"]).unwrap();
    assert_eq!(stamps(&admin), "generation 2 by alice for 1");
    bob.run(&["label", "tc", "minimal", "a=b"]).unwrap();
    assert_eq!(stamps(&admin), "generation 2 by alice for 1");
    patch(&alice, "merge", r#"{"spec": {"replicas": 2}}"#).unwrap();
    assert_eq!(stamps(&admin), "generation 3 by alice for 3");
    // A deletion counts as a change of generation, too.
    bob.run(&["delete", "tc", "minimal", "--wait=false"]).unwrap();
    assert_eq!(stamps(&admin), "generation 4 by alice for 3");
    clear(&admin);
}

#[test]
fn an_object_goes_when_berth_lets_it_go() {
    let Some(admin) = ground("the finalizer") else { return };
    let glass = admin.as_user("root").in_group("system:masters").in_group("berth:break-glass");
    for who in [admin.as_user(BERTH), glass] {
        let admin = created(&admin, "schema-finalizer");
        let who = who.in_namespace("schema-finalizer");
        // In the foreground: the garbage collector then changes the finalizers as well, and must be able to.
        admin.as_user("alice").run(&["delete", "tc", "minimal", "--wait=false", "--cascade=foreground"]).unwrap();
        for other in [admin.as_user("bob"), admin.as_user("mallory"), admin.clone()] {
            let error = release(&other, "tc", "minimal").unwrap_err();
            assert!(error.message().contains("the finalizer berth.dev/ledger is removed by Berth alone"), "{error}");
        }
        // Other changes remain possible, also when the namespace belongs to nobody any more.
        admin.run(&["label", "namespace", "schema-finalizer", "berth.dev/tenant-org-"]).unwrap();
        admin.as_user("bob").run(&["label", "tc", "minimal", "a=b"]).unwrap();
        patch(&admin.as_user("bob"), "merge", r#"{"spec": {"drainSeconds": 0}}"#).unwrap();
        release(&who, "tc", "minimal").unwrap();
        let gone = admin.run(&["get", "tc", "minimal"]).unwrap_err();
        assert!(gone.message().contains("not found"), "{gone}");
        admin.run(&["label", "namespace", "schema-finalizer", "berth.dev/tenant-org=acme"]).unwrap();
    }
}

#[test]
fn status_is_written_by_berth_or_by_who_breaks_the_glass() {
    let Some(admin) = ground("the status") else { return };
    let admin = created(&admin, "schema-status");
    for other in ["bob", "mallory"] {
        write_status(&admin.as_user(other)).unwrap_err();
    }
    let error = write_status(&admin).unwrap_err();
    assert!(error.message().contains("is written by Berth alone"), "{error}");
    write_status(&admin.as_user("root").in_group("system:masters").in_group("berth:break-glass")).unwrap();
    write_status(&admin.as_user(BERTH)).unwrap();
    // A status in the manifest is nobody's word: the new object begins with the default.
    let born = Manifest::read("valid/minimal.yaml").text.replace("{name: minimal}", "{name: born}");
    let born = admin.feed_json(&["create", "--filename", "-"], &format!("{born}status: {{phase: Running}}\n")).unwrap();
    assert_eq!(born["status"]["observedGeneration"], json!(-1));
    assert_eq!(born["status"]["phase"], json!(null));
    clear(&admin);
}

#[test]
fn stopping_a_service_needs_no_right_to_its_secrets() {
    let Some(admin) = ground("references") else { return };
    let admin = admin.in_namespace("schema-references");
    clear(&admin);
    let text = Manifest::read("valid/sixteen-references.yaml").text.replace("sixteen-references", "minimal");
    admin.as_user("alice").feed(&["create", "--filename", "-"], &text).unwrap();
    let change = |user: &str, spec: &str| patch(&admin.as_user(user), "merge", &format!(r#"{{"spec": {spec}}}"#));
    let refused = |spec: &str, sentence: &str| {
        let error = change("bob", spec).unwrap_err();
        assert!(error.message().contains(sentence), "{error}");
    };
    change("bob", r#"{"desiredState": "Stopped", "drainSeconds": 60}"#).unwrap();
    change("bob", r#"{"desiredState": "Running", "replicas": 2}"#).unwrap();
    refused(r#"{"image": "registry.example/thief:1.0", "replicas": 1}"#, "bob may not read Secret keys-0");
    refused(r#"{"env": null, "volumes": null}"#, "bob may not read Secret registry-a");
    change("alice", r#"{"image": "registry.example/engine:1.3"}"#).unwrap();
    change("bob", r#"{"env": null, "volumes": null, "placement": null}"#).unwrap();
    admin.as_user("bob").run(&["delete", "tc", "minimal", "--wait=false"]).unwrap();
    clear(&admin);
}

#[test]
fn who_deletes_or_restores_a_service_gets_nothing_by_it_that_they_may_not_have() {
    let Some(admin) = ground("references of what goes, and of what is restored") else { return };
    let admin = admin.in_namespace("schema-leaving");
    clear(&admin);
    let text = Manifest::read("valid/sixteen-references.yaml").text.replace("sixteen-references", "minimal");
    admin.as_user("alice").feed(&["create", "--filename", "-"], &text).unwrap();
    let release = json!({"spec": {"release": {
        "image": "registry.example/thief:1.0", "overrode": "registry.example/engine:1.2",
        "rollout": {"namespace": "a", "name": "b", "uid": "c", "revision": "d", "wave": 1, "step": "Released"},
    }}});
    let refused = |user: &str, change: &str, sentence: &str| {
        let error = patch(&admin.as_user(user), "merge", change).unwrap_err();
        assert!(error.message().contains(sentence), "{error}");
    };
    // Who restores backups may write releases, and reads no Secrets by it.
    refused("rita", &release.to_string(), "rita may not read Secret keys-0");
    // Whoever may not make StatefulSets leaves none behind.
    let orphaned = admin.as_user("bob").run(&["delete", "tc", "minimal", "--wait=false", "--cascade=orphan"]);
    let error = orphaned.unwrap_err();
    assert!(error.message().contains("bob may not create StatefulSets in namespace schema-leaving"), "{error}");
    refused(
        "bob",
        r#"{"metadata": {"finalizers": ["berth.dev/ledger", "orphan"]}}"#,
        "and so may not leave one behind",
    );
    admin.as_user("bob").run(&["delete", "tc", "minimal", "--wait=false"]).unwrap();
    refused("bob", r#"{"spec": {"image": "registry.example/thief:1.0"}}"#, "bob may not read Secret keys-0");
    clear(&admin);
}

#[test]
fn berth_may_do_what_it_needs_and_no_more() {
    let Some(admin) = ground("Berth's rights") else { return };
    let berth = admin.as_user(BERTH).in_namespace("schema-valid");
    let may = |verb: &str, resource: &str| {
        if verb == "bind" {
            // Here the second part is a name.
            return berth.run(&["auth", "can-i", verb, resource]).is_ok();
        }
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        berth.run(&["auth", "can-i", verb, resource, "--subresource", subresource]).is_ok()
    };
    for (verb, resource) in [
        ("patch", "tenantcontainers.berth.dev"),
        ("patch", "tenantcontainers.berth.dev/status"),
        ("update", "tenantcontainers.berth.dev/finalizers"),
        ("create", "statefulsets.apps"),
        ("delete", "persistentvolumeclaims"),
        ("list", "namespaces"),
        ("patch", "pods/resize"),
        ("delete", "pods"),
        ("create", "events.events.k8s.io"),
        ("patch", "accessgrants.berth.dev"),
        ("patch", "deployments.berth.dev"),
        ("patch", "deployments.berth.dev/status"),
        ("patch", "tenantquotas.berth.dev"),
        ("patch", "accessgrants.berth.dev/status"),
        ("patch", "tenantquotas.berth.dev/status"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("bind", "clusterroles.rbac.authorization.k8s.io/berth-grant-admin"),
        ("bind", "clusterroles.rbac.authorization.k8s.io/berth-grant-config-maps-read"),
    ] {
        assert!(may(verb, resource), "Berth may not {verb} {resource}");
    }
    for (verb, resource) in [
        ("create", "tenantcontainers.berth.dev"),
        ("delete", "tenantcontainers.berth.dev"),
        ("get", "secrets"),
        ("list", "secrets"),
        ("get", "configmaps"),
        ("create", "pods"),
        ("patch", "pods"),
        ("create", "pods/exec"),
        ("patch", "namespaces"),
        ("create", "serviceaccounts/token"),
        ("create", "tenantquotas.berth.dev"),
        ("delete", "tenantquotas.berth.dev"),
        ("create", "accessgrants.berth.dev"),
        ("create", "deployments.berth.dev"),
        ("delete", "deployments.berth.dev"),
        ("bind", "clusterroles.rbac.authorization.k8s.io"),
        ("bind", "clusterroles.rbac.authorization.k8s.io/cluster-admin"),
        ("bind", "roles.rbac.authorization.k8s.io"),
        ("create", "roles.rbac.authorization.k8s.io"),
        ("patch", "clusterroles.rbac.authorization.k8s.io"),
        ("escalate", "clusterroles.rbac.authorization.k8s.io"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("impersonate", "users"),
        ("get", "nodes/proxy"),
        ("get", "leases.coordination.k8s.io"), // only in its own namespace
        ("*", "*"),
    ] {
        assert!(!may(verb, resource), "Berth may {verb} {resource}");
    }
}

/// A namespace with the object `minimal` in it, made by alice.
fn created(admin: &Kubectl, namespace: &str) -> Kubectl {
    let admin = admin.in_namespace(namespace);
    clear(&admin);
    admin.as_user("alice").feed(&["create", "--filename", "-"], &Manifest::read("valid/minimal.yaml").text).unwrap();
    admin
}

fn patch(who: &Kubectl, kind: &str, patch: &str) -> Result<String, Error> {
    who.run(&["patch", "tc", "minimal", "--type", kind, "--patch", patch])
}

fn write_status(who: &Kubectl) -> Result<String, Error> {
    let phase = r#"{"status": {"phase": "Running"}}"#;
    who.run(&["patch", "tc", "minimal", "--subresource=status", "--type=merge", "--patch", phase])
}

/// What the API server has written on the object `minimal`, which the finalizer has to hold.
#[track_caller]
fn stamps(admin: &Kubectl) -> String {
    let metadata = admin.json(&["get", "tc", "minimal"]).unwrap()["metadata"].take();
    let held = metadata["finalizers"].as_array().is_some_and(|all| all.contains(&json!("berth.dev/ledger")));
    assert!(held, "the finalizer is gone: {metadata:#}");
    let stamp = |name: &str| metadata["annotations"][name].as_str();
    let actor = stamp("berth.dev/actor").unwrap_or("nobody");
    let generation = stamp("berth.dev/actor-generation").unwrap_or("none");
    let restarted = stamp("berth.dev/restarted-by").map(|name| format!(", restarted by {name}")).unwrap_or_default();
    format!("generation {} by {actor} for {generation}{restarted}", metadata["generation"])
}
