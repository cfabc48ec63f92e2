//! The operator ends, or an answer is lost, at every write of a whole life in turn: the life goes on where it was, and the
//! ledger has each state and each request once.

use rstest::rstest;
use serde_json::json;

use super::{
    objects::{Ended, OBJECT, Resizing, World, condition, no_status, waiting},
    server::Cut,
};
use crate::{
    ledger::{
        Record,
        simulated::{Database, Weather},
    },
    lifecycle::State,
};

/// Releases, restart, stop, start and end, one after the other.
fn live(world: &mut World) {
    world.run();
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.run();
    world.restart_service("2026-11-24T02:00:00Z");
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.run();
    world.delete();
    world.run();
    world.run();
}

/// What else a user can ask for: disks that grow and stay, a pause that gives up its CPU, more replicas, another try.
fn live_with_disks(world: &mut World) {
    world.resizing = Resizing::Does;
    world.edit(|spec| {
        spec["resources"]["disk"] = json!("1Gi");
        spec["deletionPolicy"] = json!("Retain");
    });
    world.reports.insert(0, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    world.reports.clear();
    world.server.change(OBJECT, |object| {
        object["metadata"]["annotations"]["berth.dev/retry"] = json!("1");
        object["metadata"]["annotations"]["berth.dev/retried-by"] = json!("bob@acme");
    });
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.run();
    world.edit(|spec| spec["resources"]["disk"] = json!("2Gi"));
    world.run();
    world.edit(|spec| spec["replicas"] = json!(3));
    world.run();
    world.delete();
    world.run();
    world.run();
}

/// What a record tells, without the moment and the leader.
fn gist(record: &Record) -> String {
    let envelope = record.envelope();
    let state = envelope.to.map_or("", |state| state.as_str());
    let actor = String::from(envelope.actor.clone());
    format!("{} {state} {} {actor} {:?}", envelope.seq, envelope.reason, envelope.operation)
}

#[rstest]
#[case::the_operator_ends_before_it(Cut::Before)]
#[case::the_operator_ends_after_it(Cut::After)]
#[case::the_answer_is_lost(Cut::Lost)]
fn a_life_that_is_interrupted_at_any_write_is_told_the_same(#[case] how: Cut) {
    let entries = is_told_the_same(how, live);
    assert_eq!(entries, 12, "six requests, each with its start and its finish");
}

#[rstest]
#[case::the_operator_ends_before_it(Cut::Before)]
#[case::the_operator_ends_after_it(Cut::After)]
#[case::the_answer_is_lost(Cut::Lost)]
fn a_life_with_disks_that_is_interrupted_at_any_write_is_told_the_same(#[case] how: Cut) {
    is_told_the_same(how, live_with_disks);
    let mut world = World::new();
    live_with_disks(&mut world);
    for state in [State::Paused, State::Failed] {
        assert!(world.states().contains(&state), "{:?}", world.states());
    }
    let writes = world.server.writes();
    for what in
        ["/resize", "PATCH /api/v1/namespaces/acme/persistentvolumeclaims", "DELETE /api/v1/namespaces/acme/pods"]
    {
        assert!(writes.iter().any(|write| write.contains(what)), "no {what} in {writes:#?}");
    }
}

/// Answers how many entries of the audit it has.
fn is_told_the_same(how: Cut, live: impl Fn(&mut World)) -> u64 {
    let mut undisturbed = World::new();
    live(&mut undisturbed);
    let told: Vec<_> = undisturbed.records().iter().map(gist).collect();
    let (entries, writes) = (undisturbed.audit_entries(), undisturbed.server.writes().len());
    assert_eq!(undisturbed.object(), json!(null), "a whole life");
    assert!(writes > 20, "{writes} writes are no life");
    for write in 0..writes {
        let mut world = World::new();
        world.server.cut_after(write, how);
        live(&mut world);
        assert!(world.server.was_cut(), "the life took fewer than {write} writes");
        assert_eq!(world.server.get(OBJECT), None, "cut at write {write}: it never came to its end");
        let again: Vec<_> = world.records().iter().map(gist).collect();
        assert_eq!(again, told, "told otherwise than undisturbed, cut at write {write}");
        assert_eq!(world.audit_entries(), entries, "cut at write {write}");
        world.verify();
    }
    entries
}

#[test]
fn what_the_ledger_had_already_is_shown_in_no_other_words() {
    let mut world = World::new();
    world.pass();
    world.settle();
    // Running is recorded, and the operator ends before it is shown.
    world.server.cut_after(0, Cut::Before);
    world.pass();
    assert!(matches!(world.ended, Some(Ended::Cut)));
    assert_eq!((world.states().len(), world.object()["status"]["phase"].clone()), (2, json!("Pending")));
    // Meanwhile all its replicas break.
    for ordinal in 0..2 {
        world.reports.insert(ordinal, waiting("CrashLoopBackOff", "back-off"));
    }
    world.settle();
    world.pass();
    let epochs: Vec<_> = world.records().iter().map(|record| record.envelope().epoch).collect();
    assert_eq!(epochs, [1, 1, 2], "the second is the one that the first leader made");
    let shown = world.server.shown();
    let running = shown.iter().find(|object| object["status"]["phase"] == "Running").unwrap();
    assert_eq!(condition(running, "Ready"), ("False".into(), "LedgerAhead".into()));
    assert!(running["status"]["operation"]["result"].is_null(), "what was seen by now is no success");
    assert_eq!(world.object()["status"]["phase"], "Failed");
    assert_eq!(world.object()["status"]["operation"]["result"], "Succeeded", "as the first leader told the audit");
    world.verify();
}

#[test]
fn an_api_server_restored_to_before_anything_was_shown_goes_on_from_what_it_shows() {
    let mut world = World::new();
    world.run();
    world.server.change(OBJECT, |object| object["status"] = no_status());
    let before = world.records().len();
    world.run();
    assert_eq!(world.reasons()[before..], ["ApiRewound", "Accepted", "AllReplicasReady"]);
    assert_eq!(world.object()["status"]["phase"], "Running");
    assert_eq!(world.condition("LedgerSynced"), ("True".into(), "Spool".into()));
    world.verify();
}

#[test]
fn a_record_that_was_shown_stands_whatever_the_epoch_of_the_next_one() {
    let mut world = World::new();
    let before = world.object();
    world.pass();
    // The next leader's watch does not show yet what the first one has shown.
    world.start_operator_again();
    world.later(1);
    world.pass_as_of(&before);
    assert!(matches!(world.ended, Some(Ended::Failed(_))), "{:?}", world.ended);
    world.run();
    assert_eq!(world.reasons(), ["Accepted", "AllReplicasReady"], "the later epoch took the place of what was shown");
    world.verify();
}

#[test]
fn a_rollouts_release_is_called_one_wherever_the_pass_that_began_it_ended() {
    for write in 0..6 {
        let database = Database::default();
        let mut world = World::without_spool(&database);
        world.run();
        // With no home that answers, nobody has told what it was called.
        database.set(Weather::Away);
        world.edit(|spec| {
            spec["release"] = json!({"image": "engine:2", "overrode": "engine:1", "rollout": {"namespace": "acme",
                "name": "fleet", "uid": "f", "revision": "r", "wave": 1, "step": "Released"}});
        });
        world.server.change(OBJECT, |object| {
            object["metadata"]["annotations"]["berth.dev/actor"] = json!("system:berth:rollout:acme/fleet");
        });
        world.server.cut_after(write, Cut::After);
        world.pass();
        world.server.never_cut();
        world.start_operator_again();
        world.run();
        database.set(Weather::Fair);
        world.run();
        assert_eq!(world.object()["status"]["operation"]["action"], "Release", "ended at write {write}");
    }
}
