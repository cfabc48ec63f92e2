//! A paused service: out of its Service, its replicas there, their CPU given up and taken back.

use serde_json::{Value, json};

use super::objects::{PODS, Resizing, SERVICE, UID, World, waiting};
use crate::lifecycle::State;

const RUNNING: [State; 2] = [State::Pending, State::Running];

/// What the Service selects: by uid, or nobody.
fn is_in_service(world: &World) -> bool {
    world.server.get(SERVICE).unwrap()["spec"]["selector"]["berth.dev/owner-uid"] == UID
}

#[test]
fn pausing_takes_a_service_out_of_use_with_the_first_write_and_keeps_its_replicas() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    let writes = world.server.writes().len();
    world.pass();
    assert_eq!(world.server.writes()[writes], format!("PATCH {SERVICE}"), "clients wait for nothing else");
    assert!(!is_in_service(&world));
    assert_eq!((world.states()[2..].to_vec(), world.reasons()[2].as_str()), (vec![State::Paused], "Paused"));
    assert_eq!(world.stateful_set().unwrap()["spec"]["replicas"], 2, "replicas stay");
    assert_eq!(world.condition("Ready"), ("True".into(), "Paused".into()), "paused is what was asked for");
    assert_eq!(world.condition("Available"), ("False".into(), "OutOfService".into()));
    let operation = world.object()["status"]["operation"].clone();
    assert_eq!((operation["action"].as_str(), operation["result"].as_str()), (Some("Pause"), Some("Succeeded")));
    world.later(3_600);
    world.run();
    assert_eq!(world.states()[2..], [State::Paused], "it stays so");
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.pass();
    assert!(is_in_service(&world));
    assert_eq!((world.states()[3..].to_vec(), world.reasons()[3].as_str()), (vec![State::Running], "Resumed"));
    assert_eq!(world.object()["status"]["operation"]["action"], "Resume");
    assert_eq!(world.condition("Available").0, "True");
}

#[test]
fn what_does_not_run_yet_starts_before_it_is_paused_and_nobody_reaches_it_meanwhile() {
    let paused = [State::Pending, State::Running, State::Paused];
    let mut world = World::new();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.pass();
    assert!(!is_in_service(&world));
    assert_eq!(world.condition("Available").0, "False");
    world.run();
    assert!(!is_in_service(&world));
    assert_eq!(world.states(), paused);
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    assert_eq!(world.states()[3..], [State::Stopped]);
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    assert_eq!(world.states()[4..], paused);
}

#[test]
fn a_paused_service_that_breaks_fails_and_is_paused_again_once_it_is_well() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    world.reports.insert(0, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    assert_eq!(world.states()[2..], [State::Paused], "one of two still stands");
    assert_eq!(world.condition("Stalled"), ("True".into(), "CrashLoop".into()));
    world.reports.insert(1, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    assert_eq!(world.states()[3..], [State::Failed]);
    world.reports.clear();
    world.run();
    assert_eq!(world.states()[4..], [State::Pending, State::Running, State::Paused]);
    assert!(!is_in_service(&world));
}

#[test]
fn a_service_that_cannot_be_taken_out_of_use_is_not_called_paused() {
    let mut world = World::new();
    world.run();
    world.server.refuse("/services/search", "services are frozen");
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    assert_eq!(world.states(), RUNNING, "clients still reach it");
    assert_eq!(world.condition("Stalled"), ("True".into(), "ChildRefused".into()));
    world.server.refuse_nothing();
    world.run();
    assert_eq!(world.states()[2..], [State::Paused]);
}

#[test]
fn requests_around_a_pause_are_called_what_they_ask_for() {
    let mut world = World::new();
    world.run();
    let mut called = vec![];
    for (state, replicas) in
        [("Paused", 2), ("Paused", 3), ("Stopped", 3), ("Paused", 3), ("Running", 3), ("Stopped", 3), ("Running", 3)]
    {
        world.edit(|spec| {
            spec["desiredState"] = json!(state);
            spec["replicas"] = json!(replicas);
        });
        world.pass();
        called.push(world.object()["status"]["operation"]["action"].as_str().unwrap().to_owned());
        world.run();
    }
    assert_eq!(called, ["Pause", "Scale", "Stop", "Pause", "Resume", "Stop", "Start"]);
}

/// A paused service whose node can change CPU in place.
fn paused() -> World {
    let mut world = World::new();
    world.resizing = Resizing::Does;
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    assert_eq!(cpu(&world), ["50m", "50m"]);
    world
}

/// The CPU that each pod is to have.
fn cpu(world: &World) -> Vec<String> {
    let limit = |pod: Value| pod["spec"]["containers"][0]["resources"]["limits"]["cpu"].as_str().unwrap().to_owned();
    world.server.list(PODS).into_iter().map(limit).collect()
}

fn resizes(world: &World) -> usize {
    world.server.writes().iter().filter(|write| write.ends_with("/resize")).count()
}

fn message(world: &World, name: &str) -> String {
    let conditions = world.object()["status"]["conditions"].clone();
    let found = conditions.as_array().unwrap().iter().find(|condition| condition["type"] == name).cloned();
    found.unwrap_or_default()["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_paused_replica_gives_up_its_cpu_after_the_drain_and_its_template_stays() {
    let mut world = World::new();
    world.resizing = Resizing::Does;
    world.run();
    let template = world.stateful_set().unwrap()["spec"]["template"].clone();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.pass();
    assert_eq!(
        (resizes(&world), cpu(&world)),
        (0, vec!["500m".to_owned(), "500m".to_owned()]),
        "requests finish first"
    );
    assert!(world.done().look_again.as_secs() < 6, "it looks again when they have");
    world.later(6);
    world.pass();
    assert_eq!((resizes(&world), cpu(&world)), (2, vec!["50m".to_owned(), "50m".to_owned()]));
    assert_eq!(world.stateful_set().unwrap()["spec"]["template"], template, "that would be a rollout");
    world.run();
    assert_eq!(
        message(&world, "Ready"),
        "out of its Service, as asked; 2 of 2 replicas ready; each with 50m of its CPU of 500m until it resumes"
    );
    let writes = world.server.writes().len();
    for _ in 0..5 {
        world.later(600);
        world.pass();
    }
    assert_eq!(world.server.writes().len(), writes, "quiet");
}

#[test]
fn a_service_is_back_once_its_replicas_have_their_cpu_and_not_before() {
    let mut world = paused();
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.pass();
    assert_eq!(cpu(&world), ["500m", "500m"]);
    assert!(!is_in_service(&world), "with a tenth of its CPU it would answer late");
    assert_eq!(world.condition("Ready"), ("False".into(), "Resuming".into()));
    assert_eq!(message(&world, "ResumePending"), "", "this is how long it takes, no more");
    world.settle();
    world.pass();
    assert!(is_in_service(&world));
    assert_eq!(world.states()[3..], [State::Running]);
    assert_eq!(world.condition("Ready"), ("True".into(), "AllReplicasReady".into()));
    world.run();
    assert_eq!(resizes(&world), 4);
}

#[test]
fn a_node_without_room_keeps_a_service_from_coming_back_and_says_so() {
    let mut world = paused();
    world.resizing = Resizing::HasNoRoom;
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.run();
    assert!(!is_in_service(&world));
    assert_eq!(world.states()[2..], [State::Paused]);
    assert_eq!(world.condition("ResumePending"), ("True".into(), "CpuNotGiven".into()));
    assert!(message(&world, "ResumePending").contains("(Deferred): Node didn't have enough resource"));
    assert_eq!((world.condition("Ready").1.as_str(), world.condition("Available").0.as_str()), ("Resuming", "False"));
    let writes = world.server.writes().len();
    world.run();
    assert_eq!(world.server.writes().len(), writes, "asked once");
    world.resizing = Resizing::Does;
    world.run();
    assert_eq!(world.states()[3..], [State::Running]);
    assert!(is_in_service(&world));
    assert_eq!(message(&world, "ResumePending"), "", "it is gone");
}

#[test]
fn whoever_resumes_before_the_drain_is_over_waits_for_nobody() {
    let mut world = World::new();
    world.resizing = Resizing::Does;
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.pass();
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.pass();
    assert!(is_in_service(&world));
    assert_eq!((world.states()[3..].to_vec(), resizes(&world)), (vec![State::Running], 0));
}

#[test]
fn a_replica_that_is_made_anew_while_paused_gives_up_its_cpu_again() {
    let mut world = paused();
    world.server.remove(&format!("{PODS}/search-1"));
    world.settle();
    assert_eq!(cpu(&world), ["50m", "500m"]);
    world.run();
    assert_eq!(cpu(&world), ["50m", "50m"]);
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.run();
    assert_eq!(
        (cpu(&world), world.states()[2..].to_vec()),
        (vec!["50m".to_owned(), "50m".to_owned()], vec![State::Paused])
    );
}

#[test]
fn where_cpu_cannot_be_changed_it_is_left_and_that_is_said() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    assert_eq!((resizes(&world), world.condition("Ready").0.as_str()), (0, "True"));
    assert!(message(&world, "Ready").contains("replica 0 keeps its CPU of 500m: its node does not tell"));

    let mut world = World::new();
    world.resizing = Resizing::Does;
    world.run();
    world.server.refuse("/resize", "resizing is forbidden here");
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    assert_eq!(
        (cpu(&world), world.condition("Ready").1.as_str()),
        (vec!["500m".to_owned(), "500m".to_owned()], "Paused")
    );
    assert!(message(&world, "Ready").ends_with("replica 0 keeps its CPU of 500m: resizing is forbidden here"));
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.pass();
    assert!(is_in_service(&world), "nothing was given up, nothing has to come back");
}

#[test]
fn what_has_little_cpu_and_what_somebody_else_has_set_is_left_alone() {
    let mut world = World::new();
    world.resizing = Resizing::Does;
    world.edit(|spec| spec["resources"]["cpu"] = json!("40m"));
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    assert_eq!(
        (resizes(&world), message(&world, "Ready")),
        (0, "out of its Service, as asked; 2 of 2 replicas ready".into())
    );

    let mut world = World::new();
    world.resizing = Resizing::Does;
    world.run();
    world.server.change(&format!("{PODS}/search-0"), |pod| {
        pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("300m");
    });
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    assert_eq!(cpu(&world), ["300m", "50m"], "an autoscaler's");
}

#[test]
fn a_paused_service_that_failed_gets_its_cpu_back_to_start_with() {
    let mut world = paused();
    world.reports.insert(0, waiting("CrashLoopBackOff", "back-off"));
    world.reports.insert(1, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    assert_eq!(
        (world.states()[3..].to_vec(), cpu(&world)),
        (vec![State::Failed], vec!["500m".to_owned(), "500m".to_owned()])
    );
    world.reports.clear();
    world.run();
    assert_eq!(
        (world.states()[6..].to_vec(), cpu(&world)),
        (vec![State::Paused], vec!["50m".to_owned(), "50m".to_owned()])
    );
}
