//! What others do to children, and what stands in their way.

use serde_json::{Value, json};

use super::objects::{CLAIMS, Ended, OBJECT, SERVICE, STATEFUL_SET, UID, World, no_status, waiting};
use crate::lifecycle::State;

const BUDGET: &str = "/apis/policy/v1/namespaces/acme/poddisruptionbudgets/search";

fn foreign(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "acme", "uid": "someone"}, "spec": {"theirs": true}})
}

#[test]
fn a_foreign_service_is_left_alone_and_named_and_keeps_no_replica_from_running() {
    let mut world = World::new();
    world.server.put(SERVICE, foreign("search"));
    let theirs = world.server.get(SERVICE);
    world.run();
    assert_eq!(world.server.get(SERVICE), theirs);
    assert_eq!(world.states(), [State::Pending, State::Failed]);
    assert_eq!(world.condition("Stalled"), ("True".into(), "ForeignObject".into()));
    assert_eq!(world.stateful_set().unwrap()["status"]["readyReplicas"], 2, "everything else is there");
    world.server.remove(SERVICE);
    world.later(20);
    world.run();
    assert_eq!(world.states()[2..], [State::Pending, State::Running]);
    assert_eq!(world.reasons()[2], "Recovered");
}

#[test]
fn a_service_that_cannot_have_its_budget_is_released_stopped_and_deleted_all_the_same() {
    let mut world = World::new();
    world.run();
    world.server.remove(BUDGET);
    world.server.put(BUDGET, foreign("search"));
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.run();
    assert_eq!(world.reasons()[2..], ["Released"]);
    assert_eq!(world.condition("Ready"), ("False".into(), "ForeignObject".into()));
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    assert_eq!(world.states().last(), Some(&State::Stopped));
    world.delete();
    world.run();
    assert_eq!(world.server.get(OBJECT), None);
    assert_eq!(world.server.get(BUDGET).unwrap()["spec"]["theirs"], true);
}

#[test]
fn a_disk_that_is_not_theirs_keeps_replicas_from_starting() {
    let mut world = World::new();
    let claim = format!("{CLAIMS}/data-search-0");
    world.server.put(&claim, foreign("data-search-0"));
    world.edit(|spec| spec["resources"]["disk"] = json!("1Gi"));
    world.run();
    assert_eq!(world.stateful_set(), None, "its pods would mount somebody else's disk");
    assert_eq!(world.condition("Stalled"), ("True".into(), "ForeignObject".into()));
    world.delete();
    world.run();
    assert_eq!(world.server.get(OBJECT), None, "what never had a replica is deleted at once");
    assert!(world.server.get(&claim).is_some());
}

#[test]
fn a_disk_that_cannot_grow_is_told_and_stops_nothing() {
    let mut world = World::new();
    world.edit(|spec| spec["resources"]["disk"] = json!("1Gi"));
    world.run();
    world.server.refuse("persistentvolumeclaims", "the class does not allow it");
    world.edit(|spec| {
        spec["resources"]["disk"] = json!("2Gi");
        spec["image"] = json!("engine:2");
    });
    world.run();
    assert_eq!(world.stateful_set().unwrap()["spec"]["template"]["spec"]["containers"][0]["image"], "engine:2");
    assert_eq!(world.condition("Stalled"), ("True".into(), "ChildRefused".into()));
    assert_eq!(world.states()[1..], [State::Running, State::Running]);
    world.server.refuse_nothing();
    world.later(20);
    world.run();
    assert_eq!(world.condition("Stalled").0, "False");
}

#[test]
fn a_release_that_is_refused_is_no_release_until_it_is_taken() {
    let mut world = World::new();
    world.run();
    world.server.refuse("statefulsets", "no such image is allowed here");
    world.edit(|spec| spec["image"] = json!("forbidden:1"));
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Running]);
    assert_eq!(world.condition("Stalled"), ("True".into(), "ChildRefused".into()));
    world.server.refuse_nothing();
    world.later(20);
    world.run();
    assert_eq!(world.reasons()[2..], ["Released"]);
}

#[test]
fn what_failed_has_not_recovered_because_nobody_has_looked_yet() {
    let mut world = World::new();
    world.reports.insert(0, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    assert_eq!(world.states().last(), Some(&State::Failed));
    // A newer Berth builds it otherwise; or somebody deletes it.
    world.server.change(STATEFUL_SET, |set| set["metadata"]["annotations"]["berth.dev/built-from"] = json!("older"));
    world.pass();
    assert_eq!(world.states().last(), Some(&State::Failed), "its controller has not looked at it");
    world.server.remove(STATEFUL_SET);
    world.pass();
    assert!(world.stateful_set().is_some(), "made anew");
    world.settle();
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Failed]);
}

#[test]
fn children_that_the_garbage_collector_takes_are_not_made_anew() {
    let mut world = World::new();
    world.run();
    world.delete();
    world.server.change(OBJECT, |object| {
        object["metadata"]["finalizers"].as_array_mut().unwrap().push(json!("foregroundDeletion"));
    });
    world.pass();
    assert_eq!(world.states().last(), Some(&State::Paused));
    world.server.remove(STATEFUL_SET);
    world.server.remove(SERVICE);
    world.settle();
    world.run();
    assert_eq!((world.stateful_set(), world.server.get(SERVICE)), (None, None));
    assert_eq!(world.states()[2..], [State::Paused, State::Stopped, State::Deleted]);
    assert_eq!(world.object()["metadata"]["finalizers"], json!(["foregroundDeletion"]), "ours is gone");
}

#[test]
fn children_that_are_to_be_left_are_left_as_they_are() {
    let mut world = World::new();
    world.run();
    let before = (world.stateful_set(), world.server.get(SERVICE));
    world.delete();
    world.server.change(OBJECT, |object| {
        object["metadata"]["finalizers"].as_array_mut().unwrap().push(json!("orphan"));
    });
    world.run();
    assert_eq!((world.stateful_set(), world.server.get(SERVICE)), before);
    assert_eq!(world.states()[2..], [State::Paused, State::Stopped, State::Deleted]);
    assert_eq!(world.reasons()[2..], ["Orphaned", "Orphaned", "Deleted"]);
    assert_eq!(world.object()["metadata"]["finalizers"], json!(["orphan"]), "ours is gone");
}

#[test]
fn a_field_that_somebody_took_away_is_put_back() {
    let mut world = World::new();
    world.run();
    let probe = "/spec/template/spec/containers/0/readinessProbe";
    assert!(!world.stateful_set().unwrap().pointer(probe).unwrap().is_null());
    // As `kubectl patch --type=json` does: the field goes, and nobody's name stands anywhere.
    world.server.change(STATEFUL_SET, |set| {
        set["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("readinessProbe");
        let spec = set["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"].as_object_mut().unwrap();
        spec.insert("f:template".to_owned(), json!({}));
    });
    let before = world.server.writes().len();
    world.run();
    assert!(world.stateful_set().unwrap().pointer(probe).is_some());
    let writes = world.server.writes()[before..].iter().filter(|write| write.ends_with(STATEFUL_SET)).count();
    assert_eq!(writes, 1, "once is enough");
}

#[test]
fn a_claim_that_its_controller_made_anew_is_taken_over_and_removed_at_the_end() {
    let mut world = World::new();
    world.edit(|spec| spec["resources"]["disk"] = json!("1Gi"));
    world.run();
    let path = format!("{CLAIMS}/data-search-0");
    world.server.remove(&path);
    let template = world.stateful_set().unwrap()["spec"]["volumeClaimTemplates"][0].clone();
    world.server.put(
        &path,
        json!({"metadata": {"name": "data-search-0", "namespace": "acme", "labels": template["metadata"]["labels"]},
            "spec": template["spec"]}),
    );
    world.run();
    assert_eq!(world.server.get(&path).unwrap()["metadata"]["ownerReferences"][0]["uid"], UID);
    assert_eq!(world.condition("Stalled").0, "False");
    world.delete();
    world.run();
    assert_eq!(world.server.list(CLAIMS), Vec::<Value>::new());
}

#[test]
fn a_pass_that_is_not_the_leaders_fails_and_tells_nobody() {
    let mut world = World::new();
    world.stop_leading();
    world.pass();
    assert!(matches!(world.ended, Some(Ended::Failed(_))));
    assert_eq!((world.audit_entries(), world.records().len()), (0, 0));
    assert_eq!(world.object()["status"], no_status());
}
