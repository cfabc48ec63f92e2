//! Whole lives: which states a service goes through, and when.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::objects::{CLAIMS, Ended, OBJECT, PODS, Resizing, SERVICE, UID, World, waiting};
use crate::lifecycle::{State, Transition};

const RUNNING: [State; 2] = [State::Pending, State::Running];

#[test]
fn a_service_is_pending_until_all_its_replicas_are_ready() {
    let mut world = World::new();
    world.pass();
    assert_eq!(world.states(), [State::Pending]);
    assert_eq!(world.condition("Ready"), ("False".into(), "Starting".into()));
    world.pass();
    assert_eq!(world.states(), [State::Pending], "no controller has looked at the StatefulSet yet");
    world.settle();
    world.pass();
    assert_eq!(world.states(), RUNNING);
    assert_eq!(world.condition("Ready"), ("True".into(), "AllReplicasReady".into()));
    assert_eq!(world.condition("Available").0, "True");
}

#[test]
fn what_a_service_counts_while_it_begins_to_start_is_written_once_it_has_calmed_down() {
    let mut world = World::new();
    world.reports.insert(0, waiting("ContainerCreating", ""));
    world.reports.insert(1, waiting("ContainerCreating", ""));
    world.pass();
    world.settle();
    world.pass();
    assert_eq!(world.done().writes, 0, "written for a count that changes again at once");
    assert!(world.done().look_again <= Duration::from_millis(2_100), "it is looked at again: {:?}", world.done());
    assert_eq!(world.object()["status"]["replicas"], 0);
    world.later(3);
    world.pass();
    assert_eq!((world.done().writes, world.object()["status"]["replicas"].as_i64()), (1, Some(2)));
    assert_eq!(world.states(), [State::Pending]);
}

#[test]
fn stopping_drains_first_and_keeps_replicas_until_then() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.pass();
    assert_eq!(world.states()[2..], [State::Paused]);
    assert_eq!(world.stateful_set().unwrap()["spec"]["replicas"], 2, "still draining");
    assert!(world.done().look_again < Duration::from_secs(6), "it looks again when the drain ends");
    world.later(6);
    world.pass();
    assert_eq!(world.stateful_set().unwrap()["spec"]["replicas"], 0);
    assert_eq!(world.states()[2..], [State::Paused], "replicas are not gone yet");
    world.settle();
    world.pass();
    assert_eq!(world.states()[2..], [State::Paused, State::Stopped]);
    assert_eq!(world.condition("Ready"), ("True".into(), "Stopped".into()), "stopped is what was asked for");
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.run();
    assert_eq!(world.states()[4..], RUNNING);
}

#[test]
fn whoever_changes_their_mind_while_it_drains_gets_the_service_back() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.pass();
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.run();
    assert_eq!(world.states()[2..], [State::Paused, State::Running]);
}

#[test]
fn deleting_walks_every_hop() {
    let mut world = World::new();
    world.run();
    world.delete();
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Running, State::Paused, State::Stopped, State::Deleted]);
    assert_eq!(world.server.get(OBJECT), None, "the object is gone");
    assert_eq!((world.stateful_set(), world.server.list(CLAIMS)), (None, vec![]), "and its children");
}

#[test]
fn what_is_deleted_before_anybody_saw_it_has_a_history_all_the_same() {
    let mut world = World::new();
    world.delete();
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Stopped, State::Deleted]);
}

#[test]
fn zero_replicas_is_running_not_stopped() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["replicas"] = json!(0));
    world.run();
    assert_eq!(world.states()[2..], [State::Running]);
    assert_eq!(world.reasons()[2], "Scaled");
    assert_eq!(world.condition("Ready"), ("True".into(), "NoReplicasWanted".into()));
}

#[test]
fn a_change_of_release_is_a_record_and_says_what_changed() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.run();
    world.restart_service("now");
    world.run();
    world.edit(|spec| spec["env"] = json!([{"name": "A", "value": "b"}]));
    world.run();
    assert_eq!(world.reasons()[2..], ["Released", "Restarted", "Updated"]);
    assert_eq!(world.states()[2..], [State::Running; 3]);
}

#[test]
fn what_changes_nothing_for_pods_is_no_release() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["drainSeconds"] = json!(60));
    world.run();
    assert_eq!(world.states(), RUNNING);
}

#[test]
fn a_service_that_cannot_start_fails_with_the_reason_and_recovers_when_it_can() {
    for (report, reason) in [
        (waiting("ImagePullBackOff", "no such image"), "ImagePull"),
        (waiting("CreateContainerConfigError", "secret \"token\" not found"), "ReferenceNotFound"),
        (waiting("CreateContainerConfigError", "couldn't find key k in Secret acme/token"), "ReferenceNotFound"),
        (waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), "CannotStart"),
        (waiting("CrashLoopBackOff", "back-off"), "CrashLoop"),
        (
            json!({"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}),
            "OutOfMemory",
        ),
        (
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes",
                "lastTransitionTime": "2026-11-23T00:00:00Z"}),
            "Unschedulable",
        ),
    ] {
        let mut world = World::new();
        world.reports.insert(0, report);
        world.reports.insert(1, waiting("ContainerCreating", ""));
        world.run();
        assert_eq!(world.states(), [State::Pending, State::Failed], "{reason}");
        assert_eq!(world.condition("Stalled"), ("True".into(), reason.into()));
        assert_eq!(world.condition("Ready").0, "False");
        world.reports.clear();
        world.run();
        assert_eq!(world.states()[2..], RUNNING, "{reason}");
        assert_eq!(world.condition("Stalled").0, "False");
    }
}

#[test]
fn a_kubelet_that_has_not_read_a_reference_yet_has_found_nothing_missing() {
    let mut world = World::new();
    let report =
        waiting("CreateContainerConfigError", "failed to sync configmap cache: timed out waiting for the condition");
    world.reports.insert(0, report);
    world.run();
    assert_eq!(world.states(), [State::Pending]);
    assert_eq!(world.condition("Stalled").0, "False");
    world.reports.clear();
    world.run();
    assert_eq!(world.states(), RUNNING);
}

#[test]
fn a_crash_loop_does_not_flap_between_attempts() {
    let mut world = World::new();
    world.reports.insert(0, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    let again = json!({"restartCount": 4, "state": {"running": {"startedAt": "2026-11-24T00:00:00Z"}},
        "lastState": {"terminated": {"reason": "Error", "exitCode": 3}}});
    world.reports.insert(0, again);
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Failed]);
}

#[test]
fn the_scheduler_gets_ten_seconds_before_that_is_a_failure() {
    let mut world = World::new();
    world.pass();
    let report = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes",
        "lastTransitionTime": "2026-11-24T00:00:00Z"});
    world.reports.insert(0, report);
    world.settle();
    world.pass();
    assert_eq!(world.states(), [State::Pending]);
    assert!(world.done().look_again < Duration::from_secs(11));
    world.later(11);
    world.pass();
    assert_eq!(world.states(), [State::Pending, State::Failed]);
}

#[test]
fn one_broken_replica_of_two_is_not_the_end_of_the_service() {
    let mut world = World::new();
    world.run();
    world.reports.insert(1, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    assert_eq!(world.states(), RUNNING);
    assert_eq!(world.condition("Ready"), ("False".into(), "CrashLoop".into()));
    assert_eq!(world.condition("Available").0, "True");
    world.reports.insert(0, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    assert_eq!(world.states()[2..], [State::Failed], "now nobody answers");
}

#[test]
fn a_failed_service_that_is_repaired_is_tried_again() {
    let mut world = World::new();
    world.reports.insert(0, waiting("ImagePullBackOff", "no such image"));
    world.run();
    world.reports.clear();
    world.edit(|spec| spec["image"] = json!("engine:right"));
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Failed, State::Pending, State::Running]);
    assert_eq!(world.reasons()[2], "Retried");
}

#[test]
fn a_stopped_service_with_a_broken_image_stops_all_the_same() {
    let mut world = World::new();
    world.reports.insert(0, waiting("ImagePullBackOff", "no such image"));
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    assert_eq!(world.states()[2..], [State::Stopped]);
}

#[test]
fn nothing_is_written_when_nothing_happens() {
    let mut world = World::new();
    world.run();
    let (object, writes) = (world.object(), world.server.writes());
    for _ in 0..5 {
        world.later(600);
        world.pass();
        assert_eq!((world.done().writes, world.done().records), (0, 0));
    }
    assert_eq!((world.object(), world.server.writes()), (object, writes));
}

#[derive(Clone, Debug)]
enum Happening {
    Run,
    Pause,
    Stop,
    Delete,
    Replicas(i32),
    Image(u8),
    Break(i32),
    Heal,
    Retry(u8),
    LeaveAlone(bool),
    Room(bool),
    Operator,
    Controllers,
    Time(i64),
}

fn annotate(world: &World, name: &str, value: &str) {
    if world.server.get(OBJECT).is_some() {
        world.server.change(OBJECT, |object| object["metadata"]["annotations"][name] = json!(value));
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Run),
        3 => Just(Happening::Pause),
        3 => Just(Happening::Stop),
        1 => Just(Happening::Delete),
        2 => (0..4).prop_map(Happening::Replicas),
        2 => (0u8..3).prop_map(Happening::Image),
        2 => (0..3).prop_map(Happening::Break),
        2 => Just(Happening::Heal),
        1 => (0u8..3).prop_map(Happening::Retry),
        1 => any::<bool>().prop_map(Happening::LeaveAlone),
        2 => any::<bool>().prop_map(Happening::Room),
        1 => Just(Happening::Operator),
        6 => Just(Happening::Controllers),
        4 => prop_oneof![(0i64..8), (300i64..700)].prop_map(Happening::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: no transition outside the table, one line of records, no pass without end,
    /// and once it is quiet the service is where its user wanted it.
    #[test]
    fn no_order_of_events_yields_a_transition_outside_the_table(happenings in prop::collection::vec(happening(), 1..40)) {
        let mut world = World::new();
        world.resizing = Resizing::Does;
        let mut deleted = false;
        for happening in happenings {
            match happening {
                Happening::Run if !deleted => world.edit(|spec| spec["desiredState"] = json!("Running")),
                Happening::Pause if !deleted => world.edit(|spec| spec["desiredState"] = json!("Paused")),
                Happening::Stop if !deleted => world.edit(|spec| spec["desiredState"] = json!("Stopped")),
                Happening::Delete if !deleted => { world.delete(); deleted = true; }
                Happening::Replicas(count) if !deleted => world.edit(|spec| spec["replicas"] = json!(count)),
                Happening::Image(tag) if !deleted => world.edit(|spec| spec["image"] = json!(format!("engine:{tag}"))),
                Happening::Break(ordinal) => drop(world.reports.insert(ordinal, waiting("CrashLoopBackOff", "back-off"))),
                Happening::Heal => world.reports.clear(),
                Happening::Retry(value) if !deleted => annotate(&world, "berth.dev/retry", &value.to_string()),
                Happening::LeaveAlone(is_so) if !deleted => {
                    annotate(&world, "berth.dev/reconcile", if is_so { "disabled" } else { "" });
                }
                Happening::Room(is_there) => {
                    world.resizing = if is_there { Resizing::Does } else { Resizing::HasNoRoom };
                }
                Happening::Operator => world.start_operator_again(),
                Happening::Controllers => world.settle(),
                Happening::Time(seconds) => world.later(seconds),
                _ => {}
            }
            world.pass();
        }
        world.reports.clear();
        world.resizing = Resizing::Does;
        if !deleted {
            annotate(&world, "berth.dev/reconcile", "");
        }
        world.run();
        let (object, states) = (world.object(), world.states());
        let mut state = None;
        for next in &states {
            prop_assert!(Transition::new(state, *next).is_ok(), "{state:?} to {next:?} in {states:?}");
            state = Some(*next);
        }
        let wanted = match object["spec"]["desiredState"].as_str() {
            _ if deleted => State::Deleted,
            Some("Stopped") => State::Stopped,
            Some("Paused") => State::Paused,
            _ => State::Running,
        };
        prop_assert_eq!(state, Some(wanted), "{:?}", &states);
        if !deleted {
            let serving = world.server.get(SERVICE).unwrap()["spec"]["selector"]["berth.dev/owner-uid"] == UID;
            prop_assert_eq!(serving, state == Some(State::Running));
            for pod in world.server.list(PODS) {
                let cpu = if state == Some(State::Paused) { "50m" } else { "500m" };
                prop_assert_eq!(&pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], cpu);
            }
            prop_assert_eq!(object["status"]["ledger"]["sequence"].as_u64(), u64::try_from(world.records().len()).ok());
        }
        world.verify();
    }
}

#[test]
fn a_pass_that_begins_before_the_watch_has_told_of_the_last_one_writes_nothing() {
    let mut world = World::new();
    world.pass();
    let writes = world.server.writes().len();
    world.pass_unheard();
    assert_eq!(world.server.writes()[writes..], [] as [&str; 0], "written again: an older state was believed");
    assert!(matches!(world.ended, Some(Ended::Done(_))), "{:?}", world.ended);
}
