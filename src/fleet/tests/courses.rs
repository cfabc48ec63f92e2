//! What becomes of a rollout, course by course.

use serde_json::json;

use super::world::{NEW, NEWER, OLD, World};
use crate::fleet::{select::Conflict, stage::Stage};

fn all(count: usize) -> Vec<usize> {
    (0..count).collect()
}

#[test]
fn waves_come_one_after_the_other_each_past_its_gate_and_soaked() {
    let mut world = World::new(
        10,
        json!({"waves": [
            {"name": "canary", "selector": {"matchLabels": {"n": "7"}}, "soakSeconds": 30, "gate": {"seconds": 5}},
            {"name": "few", "count": 2, "maxUnavailable": 2},
            {"name": "half", "percent": 41, "maxUnavailable": "50%"},
            {"name": "rest", "maxUnavailable": 10},
        ]}),
    );
    world.pass(99);
    assert_eq!(world.with(NEW), [7]);
    assert_eq!((world.phase(), world.status.wave.as_deref()), ("Progressing", Some("1 of 4")));
    world.later(4);
    world.pass(99);
    assert_eq!(world.phase(), "Progressing", "ready, and not for five seconds yet");
    world.later(5);
    world.pass(99);
    assert_eq!((world.phase(), world.status.progress.as_deref()), ("Soaking", Some("1/10")));
    world.later(28);
    world.pass(99);
    assert_eq!(world.with(NEW), [7], "still soaking");
    world.later(1);
    world.pass(99);
    assert_eq!(world.with(NEW), [0, 1, 7]);
    world.later(3);
    world.pass(99);
    assert_eq!(world.with(NEW), [0, 1, 2, 3, 7], "half of the five that are 41 % of ten, rounded up");
    world.settle();
    assert_eq!(world.with(NEW), all(10));
    assert_eq!(world.phase(), "Complete");
    assert_eq!(world.status.progress.as_deref(), Some("10/10"));
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.condition("Progressing").0, "True");
    assert_eq!(world.status.waves.iter().map(|wave| wave.targets).collect::<Vec<_>>(), [1, 2, 5, 2]);
    assert!(world.services.iter().all(|service| service.given.len() == 1));
}

#[test]
fn a_failed_gate_holds_the_rest_keeps_what_works_and_names_who_failed() {
    let mut world = World::new(12, json!({"waves": [{"name": "all", "maxUnavailable": 3, "maxFailures": 1}]}));
    for bad in [1, 4] {
        world.services[bad].breaks_with = Some(NEW);
    }
    world.settle();
    assert_eq!(world.phase(), "Failed");
    let (stalled, reason, message) = world.condition("Stalled");
    assert_eq!((stalled.as_str(), reason.as_str()), ("True", "GateFailed"));
    assert!(message.contains("acme/s001 (CrashLoop), acme/s004 (CrashLoop)"), "{message}");
    assert_eq!(world.condition("Progressing").0, "False");
    let named: Vec<_> = world.status.failures.iter().map(|failure| failure.name.as_str()).collect();
    assert_eq!(named, ["s001", "s004"]);
    let kept = world.with(NEW);
    assert!((4..=8).contains(&kept.len()), "{kept:?}");
    assert!(world.most_out <= 3, "{}", world.most_out);
    // One is repaired: the other is one that the wave allows.
    world.services[1].breaks_with = None;
    world.settle();
    assert_eq!(world.with(NEW), all(12));
    assert_eq!(world.phase(), "Complete");
    assert_eq!(world.status.progress.as_deref(), Some("11/12"));
}

#[test]
fn one_that_says_nothing_fails_at_its_deadline() {
    let mut world = World::new(2, json!({}));
    world.services[0].breaks_with = Some(NEW);
    world.services[0].silently = true;
    world.pass(9);
    world.later(100);
    world.pass(9);
    assert_eq!(world.phase(), "Progressing");
    world.later(1);
    world.pass(9);
    assert_eq!(world.phase(), "Failed");
    assert_eq!(world.status.failures[0].reason, "ProgressDeadlineExceeded");
    assert_eq!(world.with(NEW), [0]);
}

#[test]
fn a_wave_waits_for_its_approval_and_another_release_for_another() {
    let strategy = json!({"waves": [{"name": "canary", "count": 1}, {"name": "rest", "approval": "Manual"}]});
    let mut world = World::new(3, strategy);
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("AwaitingApproval", vec![0]));
    assert_eq!(world.condition("Reconciling").0, "True");
    let revision = world.status.revision.clone().unwrap();
    world.order(|spec| spec["approvals"] = json!([{"wave": "rest", "revision": "another", "by": "dana"}]));
    world.settle();
    assert_eq!(world.with(NEW), [0]);
    world.order(|spec| spec["approvals"] = json!([{"wave": "rest", "revision": revision, "by": "dana"}]));
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Complete", all(3)));
    assert_eq!(world.status.waves[1].approved_by.as_deref(), Some("dana"));
    world.order(|spec| spec["release"]["image"] = json!(NEWER));
    world.settle();
    assert_eq!((world.phase(), world.with(NEWER)), ("AwaitingApproval", vec![0]));
}

#[test]
fn a_paused_rollout_begins_nothing_and_goes_on_where_it_was() {
    let mut world = World::new(6, json!({"waves": [{"name": "all", "maxUnavailable": 2}]}));
    world.pass(9);
    world.order(|spec| spec["paused"] = json!(true));
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Paused", vec![0, 1]));
    assert_eq!(world.condition("Progressing").0, "Unknown");
    assert_eq!(world.status.progress.as_deref(), Some("2/6"));
    world.order(|spec| spec["paused"] = json!(false));
    world.settle();
    assert_eq!(world.with(NEW), all(6));
    assert!(world.services.iter().all(|service| service.given.values().sum::<usize>() == 1));
}

#[test]
fn whoever_edits_an_image_has_the_last_word() {
    let mut world = World::new(3, json!({}));
    world.settle();
    world.edit(1, |spec| spec["image"] = json!("engine:1.1"));
    world.settle();
    assert_eq!(world.with("engine:1.1"), [1]);
    let (diverged, _, message) = world.condition("Diverged");
    assert_eq!(diverged, "True");
    assert!(message.contains("acme/s001"), "{message}");
    assert_eq!((world.phase(), world.status.progress.as_deref()), ("Complete", Some("2/3")));
    // Another release takes it along again, and a rollback puts back what its user had asked for.
    world.order(|spec| spec["release"]["image"] = json!(NEWER));
    world.settle();
    assert_eq!((world.with(NEWER), world.condition("Diverged").0), (all(3), "False".to_owned()));
    world.order(|spec| spec["rollBack"] = json!(true));
    world.settle();
    assert_eq!((world.with(NEW), world.with("engine:1.1")), (vec![0, 2], vec![1]));
}

#[test]
fn targets_that_come_go_or_are_left_alone_meanwhile_hold_up_nobody() {
    let mut world =
        World::new(6, json!({"waves": [{"name": "first", "count": 2}, {"name": "rest", "maxUnavailable": 2}]}));
    world.pass(9);
    world.services[1].object["metadata"]["annotations"] = json!({"berth.dev/reconcile": "disabled"});
    world.later(5);
    world.pass(9);
    assert_eq!(world.with(NEW), [0, 2, 3], "the first wave is over: one has it, one is left alone");
    // One of the first wave goes: nobody moves up into a wave that has passed.
    world.services[0].object["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    world.add();
    world.settle();
    assert_eq!(world.phase(), "Complete");
    assert_eq!(world.with(NEW), [0, 2, 3, 4, 5, 6]);
    assert_eq!(world.status.waves.iter().map(|wave| wave.released).collect::<Vec<_>>(), [0, 5]);
    assert!(world.condition("Ready").2.contains("1 are left alone"), "{}", world.condition("Ready").2);
    world.services[1].object["metadata"]["annotations"] = json!({});
    world.settle();
    assert_eq!(world.with(NEW), all(7), "it is not forgotten");
}

#[test]
fn what_is_paused_or_stopped_gets_it_too_and_counts_as_served() {
    let mut world =
        World::new(3, json!({"waves": [{"name": "all", "gate": {"condition": "Available", "seconds": 3}}]}));
    world.edit(0, |spec| spec["desiredState"] = json!("Paused"));
    world.edit(1, |spec| spec["replicas"] = json!(0));
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Complete", all(3)));
}

#[test]
fn a_rollback_gives_each_its_own_previous_release_broken_ones_first() {
    let mut world = World::new(8, json!({"waves": [{"name": "all", "maxUnavailable": 2, "maxFailures": 1}]}));
    world.edit(3, |spec| spec["image"] = json!("engine:own"));
    world.settle();
    assert_eq!(world.phase(), "Complete");
    for bad in [0, 1] {
        world.services[bad].breaks_with = Some(NEWER);
    }
    world.order(|spec| spec["release"] = json!({"image": NEWER, "resources": {"memory": "2Gi"}}));
    world.settle();
    assert_eq!((world.phase(), world.with(NEWER)), ("Failed", vec![0, 1]));
    world.order(|spec| spec["rollBack"] = json!(true));
    world.pass(9);
    assert_eq!(world.with(NEWER), [0; 0], "what does not work is taken back at once");
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("RolledBack", all(8)));
    assert_eq!(world.condition("Ready").0, "True", "as somebody asked");
    assert_eq!(world.services[0].read().spec.effective().resources.memory.as_str(), "1Gi");
    // The release before that one: each to its own.
    world.order(|spec| *spec = json!({"selector": {}, "release": {"image": NEW}, "rollBack": false}));
    world.settle();
    assert!(world.most_out <= 2, "{}", world.most_out);
}

#[test]
fn a_release_that_fails_goes_back_by_itself_where_the_rollout_says_so() {
    let strategy =
        json!({"onFailure": "RollBack", "waves": [{"name": "few", "count": 4, "maxUnavailable": 2}, {"name": "rest"}]});
    let mut world = World::new(9, strategy);
    world.services[2].breaks_with = Some(NEW);
    world.settle();
    assert_eq!((world.phase(), world.with(OLD)), ("RolledBack", all(9)));
    assert_eq!(world.condition("Stalled").0, "True", "nobody asked for it");
    assert_eq!(
        world.status.rolled_back,
        4.min(i32::try_from(world.services.iter().filter(|s| !s.given.is_empty()).count()).unwrap())
    );
    // Once more, when it is repaired.
    world.services[2].breaks_with = None;
    world.order(|spec| spec["attempt"] = json!(1));
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Complete", all(9)));
}

#[test]
fn more_out_of_service_than_may_be_holds_the_rest_and_says_so_but_keeps_no_repair_away() {
    let mut world = World::new(5, json!({"waves": [{"name": "all", "maxUnavailable": 2, "maxFailures": 5}]}));
    for down in [0, 1, 2] {
        world.services[down].breaks_with = Some(OLD);
        world.services[down].live(world.now);
    }
    world.pass(9);
    assert_eq!(world.with(NEW), [0, 1], "what is down gets it first, and no more than may be out");
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Complete", all(5)));

    let mut world = World::new(5, json!({"waves": [{"name": "all", "maxUnavailable": 2, "maxFailures": 5}]}));
    for bad in [0, 1] {
        world.services[bad].breaks_with = Some(NEW);
    }
    world.settle();
    assert_eq!(world.with(NEW), [0, 1]);
    let (stalled, reason, message) = world.condition("Stalled");
    assert_eq!((stalled.as_str(), reason.as_str()), ("True", "TooManyUnavailable"));
    assert!(message.contains("acme/s000, acme/s001"), "{message}");
}

#[test]
fn a_fleet_that_comes_out_of_a_backup_is_waited_for() {
    let mut world = World::new(6, json!({"waves": [{"name": "all", "maxUnavailable": 2}]}));
    world.pass(9);
    world.later(4);
    world.pass(9);
    assert_eq!(world.with(NEW), [0, 1, 2, 3]);
    world.status = Default::default();
    for service in &mut world.services {
        service.object["status"] = json!({"observedGeneration": -1});
    }
    assert_eq!(world.plan().effects, [], "nobody knows who serves");
    world.later(200);
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Complete", all(6)));
    assert!(world.services.iter().all(|service| service.given.values().sum::<usize>() == 1));
}

#[test]
fn what_fails_long_after_its_release_is_not_the_releases_doing() {
    let mut world = World::new(3, json!({"onFailure": "RollBack"}));
    world.settle();
    world.services[1].breaks_with = Some(NEW);
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Complete", all(3)));
}

#[test]
fn a_moment_of_readiness_after_the_deadline_passes_no_gate() {
    for condition in ["Ready", "Available"] {
        let wave = json!({"name": "one", "count": 1, "gate": {"condition": condition, "seconds": 30}});
        let mut world = World::new(3, json!({"waves": [wave, {"name": "rest", "maxUnavailable": 2}]}));
        world.services[0].breaks_with = Some(NEW);
        world.services[0].silently = true;
        world.settle();
        assert_eq!(world.phase(), "Failed");
        for _ in 0..3 {
            world.services[0].breaks_with = None;
            world.later(20);
            world.pass(9);
            world.services[0].breaks_with = Some(NEW);
            world.settle();
            assert_eq!((world.phase(), world.with(NEW)), ("Failed", vec![0]), "{condition}");
        }
        world.services[0].breaks_with = None;
        world.settle();
        assert_eq!((world.phase(), world.with(NEW)), ("Complete", all(3)), "{condition}");
        // From here on it is not the release's doing any more.
        world.services[0].breaks_with = Some(NEW);
        world.settle();
        assert_eq!(world.phase(), "Complete", "{condition}");
    }
}

#[test]
fn a_refused_rollout_does_nothing_and_names_the_first() {
    let mut world = World::new(2, json!({}));
    world.conflict = Some(Conflict { target: "acme/s001".to_owned(), first: "ops/older".to_owned() });
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Refused", vec![]));
    let (conflict, _, message) = world.condition("Conflict");
    assert!(conflict == "True" && message.contains("ops/older") && message.contains("acme/s001"), "{message}");
    assert_eq!(world.condition("Stalled").0, "True");
}

#[test]
fn what_the_api_server_does_not_take_is_said_and_holds_up_no_other_target() {
    let mut world = World::new(3, json!({"waves": [{"name": "all", "maxUnavailable": 3}]}));
    world.refused.insert("uid-1".to_owned(), "no images from there".to_owned());
    world.settle();
    assert_eq!((world.phase(), world.with(NEW)), ("Failed", vec![0, 2]));
    let (_, reason, message) = world.condition("Ready");
    assert!(reason == "TargetRefused" && message.contains("acme/s001") && message.contains("no images"), "{message}");
    assert!(matches!(world.plan().stages[1], Stage::Refused(_)));
}

#[test]
fn another_release_in_the_middle_of_one_takes_over_from_where_each_target_is() {
    let mut world =
        World::new(6, json!({"waves": [{"name": "first", "count": 3, "maxUnavailable": 2}, {"name": "rest"}]}));
    world.services[0].breaks_with = Some(NEW);
    world.settle();
    assert_eq!(world.phase(), "Failed");
    world.order(|spec| spec["release"]["image"] = json!(NEWER));
    world.settle();
    assert_eq!((world.phase(), world.with(NEWER)), ("Complete", all(6)));
    assert!(world.most_out <= 2, "{}", world.most_out);
}
