//! Changes of a running service reach its replicas one after another.

use berth_e2e::{
    objects::{Tenant, condition},
    scenario::{Scenario, is_ready, uid},
};
use serde_json::{Value, json};

use crate::scenario;

/// Follows the object until it is ready again, and gives the smallest number of ready replicas on the way.
fn roll(s: &Scenario, name: &str) -> i64 {
    let generation = s.get("tc", name).unwrap()["metadata"]["generation"].clone();
    let mut least = i64::MAX;
    let seen = |object: &Value| {
        least = least.min(object["status"]["readyReplicas"].as_i64().unwrap_or(0));
        // Ready is seen with the generation that was asked for, and after the record of the change.
        (object["metadata"]["generation"] == generation && is_ready(object, "Running")).then_some(())
    };
    s.admin
        .watch(
            &["get", "tc", &format!("--field-selector=metadata.name={name}")],
            berth_e2e::scenario::PATIENCE * 2,
            seen,
        )
        .unwrap();
    least
}

#[test]
fn a_release_and_a_restart_replace_replicas_one_by_one() {
    let Some(s) = scenario("rollout") else { return };
    let object = s.run(&Tenant::named("fleet").with("replicas", 3)).unwrap();
    let before = s.admin.run(&["get", "pods", "--output=name"]).unwrap();
    assert_eq!(before.lines().count(), 3);

    s.change("fleet", &json!({"env": [{"name": "RELEASE", "value": "2"}]})).unwrap();
    let least = roll(&s, "fleet");
    assert!(least >= 2, "{least} replicas were ready at worst");
    let pods = s.admin.json(&["get", "pods"]).unwrap();
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["spec"]["containers"][0]["env"][0]["value"], "2");
    }

    let uids = |s: &Scenario| s.admin.run(&["get", "pods", "--output=jsonpath={.items[*].metadata.uid}"]).unwrap();
    let old = uids(&s);
    s.user.run(&["annotate", "tc", "fleet", "berth.dev/restarted-at=2026-01-01T00:00:00Z"]).unwrap();
    s.until("fleet", "on its way", |object| condition(object, "Ready") == "False").unwrap();
    let least = roll(&s, "fleet");
    assert!(least >= 2, "{least} replicas were ready at worst");
    let new = uids(&s);
    assert!(old.split(' ').all(|uid| !new.contains(uid)), "{old} / {new}");
    let hops = s.hops(uid(&object)).unwrap();
    assert_eq!(hops[2..], ["running>running Updated", "running>running Restarted"]);
    let replicas = s.rows(
        "SELECT count(*), count(*) FILTER (WHERE status = 'running') FROM berth.containers WHERE tenant_container_id = :'uid'",
        &[("uid", uid(&object))],
    )
    .unwrap();
    assert_eq!(replicas, [["9", "3"].map(str::to_owned).to_vec()], "each replica that ever ran has its row");
}

#[test]
fn a_release_that_does_not_start_leaves_the_others_serving() {
    let Some(s) = scenario("bad-release") else { return };
    let object = s.run(&Tenant::named("fleet").with("replicas", 2)).unwrap();
    s.change("fleet", &json!({"image": "localhost/nowhere/nothing:2"})).unwrap();
    let stalled = s.until_stalled("fleet", "ImagePull").unwrap();
    assert_eq!(stalled["status"]["phase"], "Running", "it serves");
    assert_eq!(condition(&stalled, "Available"), "True");
    s.change("fleet", &json!({"image": berth_e2e::objects::IMAGE})).unwrap();
    s.until_ready("fleet", "Running").unwrap();
    let hops = s.hops(uid(&object)).unwrap();
    assert_eq!(hops[2..], ["running>running Released", "running>running Released"]);
}
