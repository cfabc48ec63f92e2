//! What becomes of disks when their service is deleted, and who gets them afterwards.

use serde_json::{Value, json};

use super::objects::{CLAIMS, OBJECT, World, manifest, no_status};
use crate::lifecycle::State;

const SECOND: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c9";

fn with_disk(policy: &str) -> World {
    let mut world = World::new();
    world.edit(|spec| {
        spec["resources"]["disk"] = json!("1Gi");
        spec["deletionPolicy"] = json!(policy);
    });
    world.run();
    world
}

fn claim(world: &World, ordinal: i32) -> Value {
    world.server.get(&format!("{CLAIMS}/data-search-{ordinal}")).unwrap()
}

fn owners(world: &World) -> Vec<usize> {
    let count = |claim: Value| claim["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
    world.server.list(CLAIMS).into_iter().map(count).collect()
}

/// The service is gone, and its disks are there.
fn retained() -> World {
    let mut world = with_disk("Retain");
    world.delete();
    world.run();
    assert_eq!(world.server.get(OBJECT), None);
    assert_eq!(world.server.list(CLAIMS).len(), 2);
    world
}

/// Somebody makes another service of the same name.
fn again(world: &mut World, change: impl FnOnce(&mut Value)) {
    let mut object = manifest();
    object["metadata"]["uid"] = json!(SECOND);
    object["spec"]["resources"]["disk"] = json!("1Gi");
    change(&mut object["spec"]);
    object["status"] = no_status();
    world.server.put(OBJECT, object);
}

fn give(world: &World, uid: &str) {
    for ordinal in 0..2 {
        world.server.change(&format!("{CLAIMS}/data-search-{ordinal}"), |claim| {
            claim["metadata"]["annotations"]["berth.dev/adopt"] = json!(uid);
        });
    }
}

#[test]
fn disks_go_with_their_service_unless_they_are_to_be_kept() {
    let mut world = with_disk("Delete");
    assert_eq!(owners(&world), [1, 1]);
    world.delete();
    world.run();
    assert_eq!(world.server.list(CLAIMS), Vec::<Value>::new());
}

#[test]
fn kept_disks_have_no_owner_and_say_whose_they_are() {
    let world = retained();
    assert_eq!(owners(&world), [0, 0], "no garbage collector takes them");
    let metadata = claim(&world, 1)["metadata"].clone();
    assert_eq!(metadata["labels"]["berth.dev/tenant-org"], "acme");
    assert_eq!(metadata["annotations"]["berth.dev/user"], "alice");
    assert_eq!(metadata["annotations"]["berth.dev/service-name"], "search");
}

#[test]
fn whoever_changes_their_mind_about_disks_is_heard_also_of_those_that_are_not_mounted() {
    let mut world = with_disk("Delete");
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    world.edit(|spec| spec["deletionPolicy"] = json!("Retain"));
    world.run();
    assert_eq!(owners(&world), [0, 0]);
    let writes = world.server.writes().len();
    world.later(600);
    world.pass();
    assert_eq!(world.server.writes().len(), writes, "quiet");
    world.edit(|spec| spec["deletionPolicy"] = json!("Delete"));
    world.run();
    world.delete();
    world.run();
    assert_eq!(world.server.list(CLAIMS), Vec::<Value>::new());
}

#[test]
fn a_disk_that_was_scaled_away_is_kept_as_well() {
    let mut world = with_disk("Delete");
    world.edit(|spec| spec["replicas"] = json!(1));
    world.run();
    world.edit(|spec| spec["deletionPolicy"] = json!("Retain"));
    world.run();
    world.delete();
    world.run();
    assert_eq!(owners(&world), [0, 0]);
}

#[test]
fn a_kept_disk_comes_back_when_an_administrator_gives_it_to_this_very_object() {
    let mut world = retained();
    let disk = claim(&world, 0)["metadata"]["uid"].clone();
    again(&mut world, |_| {});
    world.run();
    assert_eq!(world.condition("Stalled"), ("True".into(), "DiskRetained".into()), "never by itself");
    assert_eq!(world.stateful_set(), None, "nothing mounts it");
    give(&world, "6ba7b810-9dad-41d1-80b4-00c04fd430c8");
    world.run();
    assert_eq!(world.condition("Stalled").1, "DiskRetained", "it was given to another object");
    give(&world, SECOND);
    world.later(20);
    world.run();
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(claim(&world, 0)["metadata"]["uid"], disk);
    assert_eq!(claim(&world, 0)["metadata"]["labels"]["berth.dev/owner-uid"], SECOND);
    assert_eq!(owners(&world), [1, 1], "and goes with it, as this one asks");
}

#[test]
fn a_kept_disk_is_mounted_by_nobody_else_whatever_an_administrator_says() {
    for change in [("user", "bob"), ("serviceName", "other")] {
        let mut world = retained();
        again(&mut world, |spec| spec[change.0] = json!(change.1));
        give(&world, SECOND);
        world.run();
        assert_eq!(world.condition("Stalled"), ("True".into(), "DiskRetained".into()), "{change:?}");
        assert_eq!(world.stateful_set(), None);
    }
    let mut world = retained();
    for ordinal in 0..2 {
        world.server.change(&format!("{CLAIMS}/data-search-{ordinal}"), |claim| {
            claim["metadata"]["labels"]["berth.dev/tenant-org"] = json!("umbrella");
        });
    }
    again(&mut world, |_| {});
    give(&world, SECOND);
    world.run();
    assert_eq!(world.condition("Stalled").1, "DiskRetained");
    assert_ne!(world.states().last(), Some(&State::Running));
}
