//! What makes an object unfit, and who asked.

use serde_json::json;

use super::objects::{CLUSTER, manifest, namespace, object, validated};
use crate::{
    ledger::Actor,
    tenant::validate::{Surroundings, validate},
};

#[test]
fn an_object_in_somebody_elses_namespace_is_refused_and_says_whose() {
    let other = namespace("umbrella");
    let around = Surroundings { cluster: CLUSTER, namespace: &other, rival: None };
    let refusal = validate(&object(&manifest()), around).unwrap_err();
    assert_eq!(refusal.reason(), "TenantOrgMismatch");
    assert!(
        refusal.to_string().contains("namespace acme belongs to umbrella, but spec.tenantOrg is acme"),
        "{refusal}"
    );
}

#[test]
fn the_second_of_two_services_is_refused_and_the_first_never() {
    let namespace = namespace("acme");
    let rival = ("other".to_owned(), "elder".to_owned());
    let around = Surroundings { cluster: CLUSTER, namespace: &namespace, rival: Some(&rival) };
    let refusal = validate(&object(&manifest()), around).unwrap_err();
    assert!(refusal.to_string().starts_with("other/elder already is the service search of user alice in acme"));
    let mut accepted = manifest();
    accepted["status"] = json!({"observedGeneration": 1, "phase": "Running"});
    assert!(validate(&object(&accepted), around).is_ok(), "what was accepted stays so");
}

#[test]
fn a_status_that_berth_cannot_have_written_is_refused() {
    for (field, status) in [
        ("phase", json!({"phase": "Sleeping"})),
        ("ledger.head", json!({"ledger": {"sequence": 3, "head": "rubbish"}})),
        ("since", json!({"since": "yesterday"})),
    ] {
        let mut damaged = manifest();
        damaged["status"] = status;
        let refusal = validated(&damaged).unwrap_err();
        assert!(refusal.to_string().contains(field), "{refusal}");
    }
}

#[test]
fn a_stamp_counts_only_for_the_generation_it_was_made_for() {
    let mut stamped = manifest();
    assert_eq!(validated(&stamped).unwrap().request.actor, Actor::User("alice@acme".into()));
    stamped["metadata"]["generation"] = json!(2);
    stamped["metadata"]["managedFields"] = json!([
        {"manager": "kubectl-create", "operation": "Update", "time": "2026-11-24T00:00:00Z"},
        {"manager": "horizontal-pod-autoscaler", "operation": "Update", "subresource": "scale", "time": "2026-11-24T00:01:00Z"},
        {"manager": "berth-status", "operation": "Update", "subresource": "status", "time": "2026-11-24T00:02:00Z"},
    ]);
    let guess = validated(&stamped).unwrap().request;
    assert_eq!(guess.actor, Actor::Guess("horizontal-pod-autoscaler".into()));
    stamped["metadata"]["managedFields"] = json!([]);
    assert_eq!(validated(&stamped).unwrap().request.actor, Actor::Unknown);
}

#[test]
fn whoever_restarts_is_named_though_a_restart_makes_no_generation() {
    let mut restarted = manifest();
    restarted["metadata"]["annotations"]["berth.dev/restarted-at"] = json!("2026-11-24T00:00:00Z");
    restarted["metadata"]["annotations"]["berth.dev/restarted-by"] = json!("bob@acme");
    restarted["status"] = json!({"operation": {"id": "x", "generation": 1}});
    assert_eq!(validated(&restarted).unwrap().request.actor, Actor::User("bob@acme".into()));
    restarted["status"] = json!({});
    assert_eq!(validated(&restarted).unwrap().request.actor, Actor::User("alice@acme".into()), "created with it");
}

#[test]
fn the_same_request_has_the_same_id_and_another_has_another() {
    let first = validated(&manifest()).unwrap().request.id;
    assert_eq!(validated(&manifest()).unwrap().request.id, first);
    let mut changed = manifest();
    changed["metadata"]["generation"] = json!(2);
    assert_ne!(validated(&changed).unwrap().request.id, first);
    changed = manifest();
    changed["metadata"]["annotations"]["berth.dev/restarted-at"] = json!("now");
    assert_ne!(validated(&changed).unwrap().request.id, first);
    changed = manifest();
    changed["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:00:00Z");
    assert_ne!(validated(&changed).unwrap().request.id, first);
}
