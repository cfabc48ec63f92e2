//! A release over services that really run: in waves, held, approved, failed, taken back. Fleets of hundreds, and an operator
//! that is killed in the middle, are `make fleet`.

use std::collections::BTreeMap;

use berth_e2e::{
    kubectl::{Error, Kubectl},
    objects::{IMAGE, Tenant, condition, is_current, message, reason},
    scenario::{PATIENCE, Scenario, is_ready, uid},
};
use serde_json::{Value, json};

use crate::scenario;

const NOWHERE: &str = "localhost/nowhere/nothing:2";

/// Services with these names, which run; the first is the canary.
fn fleet(s: &Scenario, names: &[&str]) -> BTreeMap<String, Value> {
    let manifest = |name: &&str| {
        let mut manifest = Tenant::named(name).of(&s.namespace);
        manifest["metadata"]["labels"] = json!({"canary": (*name == names[0]).to_string()});
        manifest
    };
    let all: BTreeMap<String, Value> = names.iter().map(|name| ((*name).to_owned(), manifest(name))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all.values().collect::<Vec<_>>()});
    s.user.feed(&["apply", "--filename", "-"], &list.to_string()).unwrap();
    for name in names {
        s.until_ready(name, "Running").unwrap();
    }
    all
}

fn roll_out(who: &Kubectl, name: &str, spec: &Value) -> Result<String, Error> {
    let rollout =
        json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec});
    who.feed(&["apply", "--filename", "-"], &rollout.to_string())
}

fn order(who: &Kubectl, spec: &Value) {
    let patch = json!({ "spec": spec }).to_string();
    who.run(&["patch", "bdeploy", "fleet", "--type=merge", "--patch", &patch]).unwrap();
}

/// Until the rollout is in this phase, as asked for by its newest spec.
#[track_caller]
fn until(s: &Scenario, phase: &str) -> Value {
    let reached = |object: &Value| is_current(object) && object["status"]["phase"] == phase;
    let found = s.admin.watch(&["get", "bdeploy", "--field-selector=metadata.name=fleet"], PATIENCE * 2, |object| {
        reached(object).then(|| object.clone())
    });
    found.unwrap_or_else(|error| panic!("no {phase}: {error}"))
}

/// What a service's replica has in its environment.
fn release_of(place: &Kubectl, name: &str) -> String {
    let pod = place.json(&["get", "pod", &format!("{name}-0")]).unwrap();
    let mut all = pod["spec"]["containers"][0]["env"].as_array().into_iter().flatten();
    let value = all.find(|one| one["name"] == "RELEASE").and_then(|one| one["value"].as_str());
    value.unwrap_or("none").to_owned()
}

fn running(s: &Scenario, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| release_of(&s.admin, name)).collect()
}

#[test]
fn a_release_goes_out_in_waves_is_held_approved_and_taken_back() {
    let Some(s) = scenario("waves") else { return };
    let names = ["a", "b", "c", "d"];
    let manifests = fleet(&s, &names);
    let release = json!({"image": IMAGE, "env": [{"name": "RELEASE", "value": "2"}], "resources": {"memory": "80Mi"}});
    let waves = json!([
        {"name": "canary", "selector": {"matchLabels": {"canary": "true"}}, "gate": {"seconds": 1}, "soakSeconds": 1},
        {"name": "one", "count": 1, "gate": {"condition": "Available", "seconds": 1}},
        {"name": "rest", "approval": "Manual", "maxUnavailable": "50%"},
    ]);
    // Services of the same organisation in another namespace too.
    let more = s.neighbour("more").unwrap();
    let everywhere = json!({"matchLabels": {"berth.dev/tenant-org": s.namespace}});
    let spec =
        json!({"selector": {}, "namespaceSelector": everywhere, "release": release, "strategy": {"waves": waves}});
    roll_out(&s.user, "fleet", &spec).unwrap();
    let waiting = until(&s, "AwaitingApproval");
    assert_eq!(running(&s, &names), ["2", "2", "none", "none"]);
    let shown = s.user.run(&["get", "bdeploy", "fleet"]).unwrap();
    assert!(shown.contains("2/4") && shown.contains("3 of 3") && shown.contains("AwaitingApproval"), "{shown}");
    // A tool that applies what it has, again and again, takes nothing back and starts nothing.
    let generation = s.get("tc", "a").unwrap()["metadata"]["generation"].clone();
    for how in
        [&["apply"][..], &["apply", "--server-side", "--force-conflicts", "--field-manager=gitops"], &["replace"]]
    {
        s.user.feed(&[how, &["--filename", "-"]].concat(), &manifests["a"].to_string()).unwrap();
        assert_eq!(s.get("tc", "a").unwrap()["metadata"]["generation"], generation, "{how:?}");
    }

    // Meanwhile one goes, one comes, and one is paused.
    s.delete("c").unwrap();
    s.change("d", &json!({"desiredState": "Paused"})).unwrap();
    s.until_ready("d", "Paused").unwrap();
    let elsewhere = format!("{}-more", s.namespace);
    let late = Tenant::named("e").of(&s.namespace).to_string();
    more.feed(&["create", "--filename", "-"], &late).unwrap();
    let place = s.admin.in_namespace(&elsewhere);
    s.until_in(&place, "e", "ready", |object| is_ready(object, "Running")).unwrap();
    // Its status is lost, as from a backup that has none.
    let glass = s.admin.as_user("root").in_group("system:masters").in_group("berth:break-glass");
    let lost = ["patch", "bdeploy", "fleet", "--subresource=status", "--type=json"];
    glass.run(&[&lost[..], &["--patch", r#"[{"op": "remove", "path": "/status"}]"#]].concat()).unwrap();
    order(&s.user, &json!({"paused": true}));
    until(&s, "Paused");
    let approval = json!({"wave": "rest", "revision": waiting["status"]["revision"]});
    let approve = json!({"spec": {"approvals": [approval]}}).to_string();
    let approve = ["patch", "bdeploy", "fleet", "--type=merge", "--patch", &approve];
    let refused = s.user.run(&approve).unwrap_err();
    assert!(refused.message().contains("may not approve waves of Deployment fleet"), "{refused}");
    s.admin.run(&approve).unwrap();
    until(&s, "Paused");
    let has = [release_of(&s.admin, "d"), release_of(&place, "e")];
    assert_eq!(has, ["none", "none"], "approved, and held all the same");
    order(&s.user, &json!({"paused": false}));
    let done = until(&s, "Complete");
    assert_eq!(done["status"]["progress"], "4/4");
    assert_eq!(running(&s, &["a", "b", "d"]), ["2"; 3]);
    assert_eq!(release_of(&place, "e"), "2");
    assert_eq!(s.get("tc", "d").unwrap()["status"]["phase"], "Paused", "a release resumes nobody");
    assert_ne!(done["status"]["waves"][2]["approvedBy"], Value::Null);
    let told = s.admin.json(&[
        "get",
        "events.events.k8s.io",
        "--field-selector=regarding.kind=Deployment,regarding.name=fleet",
    ]);
    let told = told.unwrap().to_string();
    for wave in ["wave canary begins", "wave one is through", "wave rest begins", "approved by"] {
        assert!(told.contains(wave), "no Event \"{wave}\"");
    }
    s.admin.run(&["wait", "bdeploy/fleet", "--for=condition=Ready", "--timeout=10s"]).unwrap();

    order(&s.user, &json!({"rollBack": true}));
    until(&s, "RolledBack");
    assert_eq!(running(&s, &["a", "b", "d"]), ["none"; 3]);
    assert_eq!(release_of(&place, "e"), "none");
    let hops = s.hops(uid(&s.get("tc", "a").unwrap())).unwrap();
    assert_eq!(hops[2..], ["running>running Released", "running>running Released"], "out and back, each once");
    s.admin.run(&["delete", "bdeploy", "fleet"]).unwrap();
    s.admin.run(&["delete", "namespace", &elsewhere, "--timeout=90s"]).unwrap();
}

#[test]
fn a_failed_gate_names_who_failed_and_goes_back_by_itself_if_it_is_to() {
    let Some(s) = scenario("gate") else { return };
    let names = ["a", "b", "c"];
    fleet(&s, &names);
    let waves = json!([{"name": "canary", "selector": {"matchLabels": {"canary": "true"}}}, {"name": "rest"}]);
    roll_out(&s.user, "fleet", &json!({"selector": {}, "release": {"image": NOWHERE}, "strategy": {"waves": waves}}))
        .unwrap();
    let failed = until(&s, "Failed");
    assert_eq!(reason(&failed, "Stalled"), "GateFailed");
    let who = format!("{}/a (ImagePull)", s.namespace);
    assert!(message(&failed, "Stalled").contains(&who), "{}", message(&failed, "Stalled"));
    assert_eq!(failed["status"]["failures"][0]["name"], "a");
    for name in ["b", "c"] {
        let object = s.get("tc", name).unwrap();
        assert_eq!((condition(&object, "Ready"), &object["spec"]["release"]), ("True", &Value::Null), "{name}");
    }

    roll_out(&s.user, "second", &json!({"selector": {"matchLabels": {"canary": "true"}}, "release": {"image": IMAGE}}))
        .unwrap();
    let second = s
        .eventually("the second is refused", |admin| {
            let object = admin.json(&["get", "bdeploy", "second"])?;
            Ok((is_current(&object) && condition(&object, "Conflict") == "True").then_some(object))
        })
        .unwrap();
    assert_eq!(second["status"]["phase"], "Refused");
    let first = format!("{}/a is selected by Deployment {}/fleet too", s.namespace, s.namespace);
    assert!(message(&second, "Stalled").contains(&first), "{}", message(&second, "Stalled"));
    s.user.run(&["delete", "bdeploy", "second"]).unwrap();

    order(&s.user, &json!({"strategy": {"onFailure": "RollBack"}}));
    until(&s, "RolledBack");
    let back = s.until_ready("a", "Running").unwrap();
    assert_eq!(back["status"]["release"]["step"], "RolledBack");
    // Another release is another rollout.
    order(&s.user, &json!({"release": {"image": IMAGE, "env": [{"name": "RELEASE", "value": "3"}]}}));
    until(&s, "Complete");
    assert_eq!(running(&s, &names), ["3"; 3]);
    // What says nothing has so long and no longer.
    let silent = json!({"image": IMAGE, "env": [{"name": "READY_AFTER", "value": "3600"}]});
    order(&s.user, &json!({"release": silent, "progressDeadlineSeconds": 5, "strategy": {"onFailure": "Pause"}}));
    let late = until(&s, "Failed");
    let [failure] = &late["status"]["failures"].as_array().unwrap()[..] else { panic!("{late}") };
    assert_eq!((&failure["name"], &failure["reason"]), (&json!("a"), &json!("ProgressDeadlineExceeded")));
    order(&s.user, &json!({"rollBack": true}));
    until(&s, "RolledBack");
    assert_eq!(running(&s, &names), ["3"; 3]);
    // Whoever edits an image has the last word, visibly.
    s.change("a", &json!({"image": "localhost/berth-e2e/testservice:another"})).unwrap();
    let diverged = s
        .eventually("an edited image is told", |admin| {
            let object = admin.json(&["get", "bdeploy", "fleet"])?;
            Ok((condition(&object, "Diverged") == "True").then_some(object))
        })
        .unwrap();
    assert!(message(&diverged, "Diverged").contains(&format!("{}/a", s.namespace)));
}
