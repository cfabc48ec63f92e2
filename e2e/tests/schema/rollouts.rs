//! Who may roll out what to whom, and whose spec.release is: the policies of Deployments, with Berth's own hand played by its
//! account.

use berth_e2e::kubectl::{Error, Kubectl};
use serde_json::{Value, json};

use crate::{
    ground::{BERTH, clear, ground, release as release_hold},
    manifests::Manifest,
};

const NAMESPACE: &str = "schema-rollouts";
/// The image of the manifest.
const ENGINE: &str = "registry.example/engine:1.2";

#[track_caller]
fn refused(answer: Result<String, Error>, sentence: &str) {
    let error = answer.map(|_| "accepted").unwrap_err();
    assert!(error.message().contains(sentence), "instead of \"{sentence}\": {error}");
}

fn patch(who: &Kubectl, what: &[&str], patch: &Value) -> Result<String, Error> {
    who.run(&[&["patch"], what, &["--type=merge", "--patch", &patch.to_string()]].concat())
}

/// What Berth writes when it rolls out.
fn release(image: &str, overrode: &str) -> String {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "TenantContainer", "metadata": {"name": "minimal"},
        "spec": {"release": {
            "image": image, "overrode": overrode, "env": [{"name": "LEVEL", "value": "debug"}],
            "rollout": {
                "namespace": NAMESPACE, "name": "rollout", "uid": "u", "revision": "abc", "wave": 1, "step": "Released",
            },
        }},
    })
    .to_string()
}

fn roll_out(who: &Kubectl, image: &str) -> Result<String, Error> {
    write_release(who, &release(image, ENGINE))
}

fn write_release(who: &Kubectl, release: &str) -> Result<String, Error> {
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=berth-rollout", "--filename", "-"];
    who.feed(&apply, release)
}

#[test]
fn a_release_stays_whatever_tool_applies_the_manifest_that_lacks_it_and_whoever_changes_it_is_told_whose_it_is() {
    let Some(admin) = ground("whose spec.release is") else { return };
    let admin = admin.in_namespace(NAMESPACE);
    clear(&admin);
    let [alice, mallory, berth] = ["alice", "mallory", BERTH].map(|name| admin.as_user(name));
    let manifest = Manifest::read("valid/minimal.yaml").text;
    alice.feed(&["apply", "--filename", "-"], &manifest).unwrap();
    roll_out(&berth, "registry.example/engine:1.3").unwrap();
    let now = || {
        let object = admin.json(&["get", "tc", "minimal"]).unwrap();
        let annotations = &object["metadata"]["annotations"];
        (
            object["spec"]["release"]["image"].clone(),
            object["metadata"]["generation"].clone(),
            annotations["berth.dev/actor"].clone(),
            annotations["berth.dev/actor-generation"].clone(),
        )
    };
    let released = (
        json!("registry.example/engine:1.3"),
        json!(2),
        json!("system:berth:rollout:schema-rollouts/rollout"),
        json!("2"),
    );
    assert_eq!(now(), released);
    // As GitOps tools do, again and again: by a patch, by server-side apply, by the whole object.
    for how in [
        &["apply"][..],
        &["apply", "--server-side", "--force-conflicts", "--field-manager=gitops"],
        &["replace"],
        &["apply", "--server-side", "--force-conflicts", "--field-manager=gitops"],
        &["apply"],
        &["replace"],
    ] {
        alice.feed(&[how, &["--filename", "-"]].concat(), &manifest).unwrap();
        assert_eq!(now(), released, "after {how:?}");
    }
    patch(&alice, &["tc", "minimal"], &json!({"spec": {"release": null}})).unwrap();
    assert_eq!(now(), released, "after its removal");
    // The next release is a whole, whoever wrote the object meanwhile.
    let mut without: Value = serde_json::from_str(&release("registry.example/engine:1.4", ENGINE)).unwrap();
    without["spec"]["release"].as_object_mut().unwrap().remove("env");
    write_release(&berth, &without.to_string()).unwrap();
    assert_eq!(admin.json(&["get", "tc", "minimal"]).unwrap()["spec"]["release"], without["spec"]["release"]);
    let other = json!({"spec": {"release": {"image": "registry.example/engine:6.6.6"}}});
    refused(patch(&alice, &["tc", "minimal"], &other), "spec.release is written by rollouts alone");
    // Berth writes the release, and nothing beside it.
    let more = json!({"spec": {"replicas": 5, "release": {"image": "registry.example/engine:1.4"}}});
    refused(patch(&berth, &["tc", "minimal"], &more), "Berth itself must not change the spec of a TenantContainer");
    // Who has every right, this one too, may: backups are restored so.
    patch(&mallory, &["tc", "minimal"], &other).unwrap();
    // What the user asks for counts again, and carries the user's name.
    patch(&alice, &["tc", "minimal"], &json!({"spec": {"image": "registry.example/engine:1.5"}})).unwrap();
    assert_eq!(now().2, json!("alice"));
    clear(&admin);
}

#[test]
fn a_wave_is_approved_by_who_may_and_their_name_cannot_be_forged() {
    let Some(admin) = ground("approvals") else { return };
    let admin = admin.in_namespace("schema-approvals");
    let [alice, dana, hanna] = ["alice", "dana", "hanna"].map(|name| admin.as_user(name));
    alice.feed(&["apply", "--filename", "-"], &Manifest::read("valid/rollout-minimal.yaml").text).unwrap();
    let what = ["bdeploy", "rollout"];
    let approvals = |all: Value| json!({"spec": {"approvals": all}});
    let first = json!({"wave": "all", "revision": "abc"});
    refused(patch(&alice, &what, &approvals(json!([first]))), "alice may not approve waves of Deployment rollout");
    refused(patch(&hanna, &what, &approvals(json!([first]))), "hanna may not approve waves of Deployment rollout");
    let forged = json!([{"wave": "all", "revision": "abc", "by": "somebody-else"}]);
    patch(&dana, &what, &approvals(forged)).unwrap();
    let now = || {
        let object = admin.json(&["get", "bdeploy", "rollout"]).unwrap();
        (object["spec"]["approvals"].clone(), object["metadata"]["annotations"]["berth.dev/actor"].clone())
    };
    let approved = json!([{"wave": "all", "revision": "abc", "by": "dana"}]);
    assert_eq!(now(), (approved.clone(), json!("dana")));
    // Others go on without it, leave it as it is, and cannot put another name there.
    patch(&hanna, &what, &json!({"spec": {"paused": true}})).unwrap();
    patch(&alice, &what, &approvals(json!([{"wave": "all", "revision": "abc", "by": "alice"}]))).unwrap();
    assert_eq!(now().0, approved);
    let more = json!([first, {"wave": "all", "revision": "def"}]);
    refused(patch(&alice, &what, &approvals(more)), "alice may not approve waves of Deployment rollout");
    alice.feed(&["apply", "--filename", "-"], &Manifest::read("valid/rollout-minimal.yaml").text).unwrap();
    assert_eq!(now().0, approved, "a manifest without approvals takes none away");
    patch(&alice, &what, &approvals(Value::Null)).unwrap();
    assert_eq!(now().0, Value::Null, "it can be taken back");
    // Who may not change services changes the course of a rollout, not what is rolled out.
    let other = json!({"spec": {"release": {"image": "registry.example/engine:6.6.6"}}});
    refused(patch(&hanna, &what, &other), "hanna may not update TenantContainers");
    refused(patch(&hanna, &what, &json!({"spec": {"rollBack": true}})), "hanna may not update TenantContainers");
    delete(&admin, "rollout");
}

#[test]
fn an_approval_that_is_asked_for_binds_the_author_too() {
    let Some(admin) = ground("approvals and waves") else { return };
    let admin = admin.in_namespace("schema-approvals");
    let [alice, dana] = ["alice", "dana"].map(|name| admin.as_user(name));
    alice_makes(&admin, "gated");
    let what = ["bdeploy", "gated"];
    let waves = |all: Value| json!({"spec": {"strategy": {"waves": all}}});
    let canary = json!({"name": "canary", "count": 1});
    let rest = json!({"name": "rest", "approval": "Manual"});
    patch(&alice, &what, &waves(json!([canary, rest]))).unwrap();
    for around in [
        json!([canary, {"name": "rest"}]),
        json!([canary, {"name": "rest", "approval": "Automatic"}]),
        json!([{"name": "canary", "percent": 99}, rest]),
        Value::Null,
    ] {
        refused(
            patch(&alice, &what, &waves(around)),
            "alice may not change the waves and selectors of Deployment gated",
        );
    }
    // One service after the other in the canary's place.
    let one = json!({"spec": {"selector": {"matchLabels": {"n": "1"}}}});
    refused(patch(&alice, &what, &one), "alice may not change the waves and selectors of Deployment gated");
    // Everything else is hers as before, another release too: it needs an approval of its own.
    patch(&alice, &what, &json!({"spec": {"release": {"image": "registry.example/engine:1.4"}}})).unwrap();
    patch(&alice, &what, &waves(json!([canary, rest]))).unwrap();
    patch(&dana, &what, &waves(json!([canary, {"name": "rest"}]))).unwrap();
    patch(&alice, &what, &waves(json!([{"name": "all"}]))).unwrap();
    delete(&admin, "gated");
}

#[test]
fn only_berth_says_how_far_a_rollout_is() {
    let Some(admin) = ground("the status of rollouts") else { return };
    let admin = admin.in_namespace("schema-approvals");
    alice_makes(&admin, "shown");
    let write = |who: &Kubectl| {
        let phase = r#"{"status": {"phase": "Complete"}}"#;
        who.run(&["patch", "bdeploy", "shown", "--subresource=status", "--type=merge", "--patch", phase])
    };
    let born = admin.json(&["get", "bdeploy", "shown"]).unwrap();
    assert_eq!(born["status"]["observedGeneration"], json!(-1), "kstatus does not take it for current");
    assert_eq!(born["status"]["ledger"]["head"], json!(""), "for the first compare-and-set to test");
    assert_eq!(born["metadata"]["finalizers"], json!(["berth.dev/ledger"]));
    for other in [admin.as_user("alice"), admin.as_user("mallory")] {
        // Removed from one that lives, it comes back; from one that is being deleted, it does not go.
        release_hold(&other, "bdeploy", "shown").unwrap();
        let held = admin.json(&["get", "bdeploy", "shown"]).unwrap();
        assert_eq!(held["metadata"]["finalizers"], json!(["berth.dev/ledger"]));
    }
    refused(write(&admin.as_user("mallory")), "status is written by Berth alone");
    write(&admin.as_user(BERTH)).unwrap();
    let paused = json!({"spec": {"paused": true}});
    refused(
        patch(&admin.as_user(BERTH), &["bdeploy", "shown"], &paused),
        "Berth itself must not change the spec of a Deployment",
    );
    admin.run(&["delete", "bdeploy", "shown", "--wait=false"]).unwrap();
    refused(release_hold(&admin.as_user("alice"), "bdeploy", "shown"), "removed by Berth alone");
    release_hold(&admin.as_user(BERTH), "bdeploy", "shown").unwrap();
    let gone = admin.run(&["get", "bdeploy", "shown"]).unwrap_err();
    assert!(gone.message().contains("not found"), "{gone}");
}

/// Deletes a rollout, and lets it go as Berth does once its end is recorded.
fn delete(admin: &Kubectl, name: &str) {
    admin.run(&["delete", "bdeploy", name, "--wait=false"]).unwrap();
    release_hold(&admin.as_user(BERTH), "bdeploy", name).unwrap();
}

fn alice_makes(admin: &Kubectl, name: &str) {
    let text =
        Manifest::read("valid/rollout-minimal.yaml").text.replace("{name: rollout}", &format!("{{name: {name}}}"));
    admin.as_user("alice").feed(&["apply", "--filename", "-"], &text).unwrap();
}
