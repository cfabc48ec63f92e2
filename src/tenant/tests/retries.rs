//! Another try after a failure: by Berth itself, later and later, and when somebody asks.

use serde_json::json;

use super::objects::{OBJECT, PODS, World, waiting};
use crate::lifecycle::State;

const FAILED: [State; 2] = [State::Pending, State::Failed];
const AGAIN: [State; 2] = FAILED;

fn broken() -> World {
    let mut world = World::new();
    world.reports.insert(0, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    assert_eq!(world.states(), FAILED);
    world
}

fn deleted(world: &World) -> Vec<String> {
    world.server.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect()
}

fn ask(world: &World, value: &str) {
    world.server.change(OBJECT, |object| {
        object["metadata"]["annotations"]["berth.dev/retry"] = json!(value);
        object["metadata"]["annotations"]["berth.dev/retried-by"] = json!("bob@acme");
    });
}

/// The pod that is there now.
fn is_there(world: &World, ordinal: i32) -> bool {
    world.server.get(&format!("{PODS}/search-{ordinal}")).is_some()
}

#[test]
fn a_failed_service_is_tried_again_with_fresh_pods_later_and_later_until_berth_gives_up() {
    let mut world = broken();
    let mut times = vec![];
    let mut minutes = 0;
    while minutes < 300 {
        world.later(60);
        minutes += 1;
        let before = deleted(&world).len();
        world.pass();
        if deleted(&world).len() > before {
            times.push(minutes);
            minutes = 0;
            assert!(!is_there(&world, 0) && is_there(&world, 1), "only what is broken");
            assert_eq!(world.states().last(), Some(&State::Pending));
            world.settle();
            world.pass();
            assert_eq!(world.states().last(), Some(&State::Failed));
        }
    }
    assert_eq!(times, [5, 10, 20, 40, 80]);
    assert_eq!(world.states(), [FAILED, AGAIN, AGAIN, AGAIN, AGAIN, AGAIN].concat());
    assert_eq!(world.condition("Stalled"), ("True".into(), "CrashLoop".into()));
    let told = world.object()["status"]["conditions"].to_string();
    assert!(told.contains("given up after 5 tries"), "{told}");
    let writes = world.server.writes().len();
    world.later(86_400);
    world.pass();
    assert_eq!(world.server.writes().len(), writes, "quiet");
    world.verify();
}

#[test]
fn how_often_it_was_tried_is_known_to_the_next_operator() {
    let mut world = broken();
    world.later(301);
    world.pass();
    world.settle();
    world.pass();
    world.start_operator_again();
    world.later(301);
    world.pass();
    assert_eq!(deleted(&world).len(), 1, "the second comes after ten minutes");
    world.later(301);
    world.pass();
    assert_eq!(deleted(&world).len(), 2);
    assert_eq!(world.object()["status"]["retries"]["count"], 2);
}

#[test]
fn a_try_that_helps_is_forgotten_once_the_service_has_run_for_a_while() {
    let mut world = broken();
    world.later(301);
    world.pass();
    world.reports.clear();
    world.run();
    assert_eq!(world.states()[2..], [State::Pending, State::Running]);
    assert_eq!(world.reasons()[2], "Retried");
    assert_eq!(world.object()["status"]["retries"]["count"], 1, "it may fail again in a moment");
    world.later(601);
    world.pass();
    assert!(world.object()["status"]["retries"].is_null());
    world.later(601);
    world.pass();
    assert_eq!(world.done().writes, 0);
}

#[test]
fn whoever_asks_for_another_try_gets_one_at_once_and_is_named() {
    let mut world = broken();
    ask(&world, "now");
    world.pass();
    assert_eq!(deleted(&world), [format!("DELETE {PODS}/search-0")]);
    let record = world.records()[2].envelope().clone();
    assert_eq!((record.reason.as_str(), String::from(record.actor).as_str()), ("Retried", "user:bob@acme"));
    let operation = world.object()["status"]["operation"].clone();
    assert_eq!((operation["action"].as_str(), operation["result"].as_str()), (Some("Retry"), None));
    world.reports.clear();
    world.run();
    assert_eq!(world.states()[2..], [State::Pending, State::Running]);
    assert_eq!(world.object()["status"]["operation"]["result"], "Succeeded");
    let writes = world.server.writes().len();
    for _ in 0..3 {
        world.later(20);
        world.pass();
    }
    assert_eq!((deleted(&world).len(), world.server.writes().len()), (1, writes), "once");
}

#[test]
fn a_single_broken_replica_is_made_anew_when_somebody_asks() {
    let mut world = World::new();
    world.run();
    world.reports.insert(1, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    world.later(3_600);
    world.pass();
    assert_eq!(deleted(&world).len(), 0, "the service has not failed");
    ask(&world, "now");
    world.pass();
    assert_eq!(deleted(&world), [format!("DELETE {PODS}/search-1")]);
    assert_eq!(world.states()[1..], [State::Running], "it serves all the while");
}

#[test]
fn what_no_fresh_pod_can_help_gets_none() {
    let mut world = World::new();
    world.reports.insert(
        0,
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes", "lastTransitionTime": "2026-11-23T00:00:00Z"}),
    );
    world.run();
    assert_eq!(world.states(), FAILED);
    world.later(86_400);
    world.run();
    assert_eq!(deleted(&world).len(), 0);
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    ask(&world, "now");
    world.run();
    assert_eq!((deleted(&world).len(), world.states().last()), (0, Some(&State::Stopped)));
}

#[test]
fn a_changed_spec_has_all_its_tries_before_it() {
    let mut world = broken();
    world.later(301);
    world.pass();
    world.settle();
    world.pass();
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.run();
    assert_eq!(world.states().last(), Some(&State::Failed));
    world.later(301);
    world.pass();
    assert_eq!((deleted(&world).len(), world.object()["status"]["retries"]["count"].as_i64()), (2, Some(1)));
}
