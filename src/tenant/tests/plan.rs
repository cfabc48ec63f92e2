//! What there should be, by state and goal.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::objects::{CLAIMS, World};
use crate::{
    ledger::Micros,
    tenant::{
        course::Course,
        health::{Failure, Severity, Trouble},
        plan::{self, Standing},
    },
};

fn now(world: &World) -> Micros {
    Micros(world.now.load(Ordering::Relaxed))
}

#[test]
fn in_a_terminating_namespace_nothing_is_created_and_nobody_waits_for_a_drain() {
    let mut world = World::new();
    world.run();
    world.delete();
    let mut tenant = world.tenant();
    tenant.namespace_terminating = true;
    assert_eq!(plan::plan(&tenant, &world.observed(), now(&world)), Course::Leave);
}

#[test]
fn in_a_terminating_namespace_nothing_recovers() {
    let mut world = World::new();
    world.run();
    let mut tenant = world.tenant();
    tenant.shown.state = Some(crate::lifecycle::State::Failed);
    tenant.shown.status.revision = Some(tenant.revision.clone());
    tenant.namespace_terminating = true;
    let now = now(&world);
    let verdict = plan::conclude(&tenant, &plan::plan(&tenant, &world.observed(), now), &world.observed(), None, now);
    assert_eq!(verdict.hop, None, "nobody looks at its replicas any more: that is no recovery");
}

#[test]
fn what_stands_in_the_way_of_a_child_is_why_the_service_fails() {
    let mut world = World::new();
    let mut tenant = world.tenant();
    tenant.shown.state = Some(crate::lifecycle::State::Pending);
    let course = plan::plan(&tenant, &world.observed(), now(&world));
    let failure = Failure { reason: "ForeignObject", message: "StatefulSet search is of nobody".into() };
    let trouble = Trouble { failure: failure.clone(), severity: Severity::Replicas };
    let verdict = plan::conclude(&tenant, &course, &world.observed(), Some(&trouble), now(&world));
    assert!(verdict.look_again.is_some(), "no watch of ours tells when somebody else's object goes");
    assert_eq!(verdict.hop.unwrap().reason, "ForeignObject");
    assert_eq!(verdict.standing, Standing::Stuck(failure));
}

#[test]
fn a_disk_that_still_grows_is_not_as_desired_but_serves() {
    let mut world = World::new();
    world.run();
    world.edit(|spec| spec["resources"]["disk"] = json!("1Gi"));
    world.run();
    world.edit(|spec| spec["resources"]["disk"] = json!("2Gi"));
    world.pass();
    world
        .server
        .change(&format!("{CLAIMS}/data-search-0"), |claim| claim["status"]["capacity"]["storage"] = json!("1Gi"));
    world.settle();
    world.pass();
    assert_eq!(world.condition("Ready"), ("False".into(), "DiskGrowing".into()));
    assert_eq!(world.condition("Available").0, "True");
}
