//! Conditions and what kstatus makes of them.

use super::objects::{START, World};
use crate::ledger::Micros;
use crate::tenant::{status, validate::Refusal};

#[test]
fn exactly_one_of_ready_reconciling_and_stalled_is_true() {
    let mut world = World::new();
    for _ in 0..3 {
        world.pass();
        let truths =
            ["Ready", "Reconciling", "Stalled"].into_iter().filter(|name| world.condition(name).0 == "True").count();
        assert_eq!(truths, 1, "{:?}", world.object()["status"]["conditions"]);
        world.settle();
    }
}

#[test]
fn a_condition_keeps_the_time_since_which_it_holds() {
    let mut world = World::new();
    world.run();
    let since = world.object()["status"]["conditions"][0]["lastTransitionTime"].clone();
    world.later(3_600);
    world.edit(|spec| spec["drainSeconds"] = 60.into());
    world.pass();
    assert_eq!(world.object()["status"]["conditions"][0]["lastTransitionTime"], since);
    assert_eq!(world.object()["status"]["conditions"][0]["observedGeneration"], 2);
}

#[test]
fn a_refusal_changes_conditions_and_nothing_else_that_was_shown() {
    let mut world = World::new();
    world.run();
    let before = world.tenant().shown.status;
    let refusal = Refusal::MetadataDamaged("uid");
    let after = status::refused(&before, &refusal, 9, Micros(START));
    assert_eq!((after.phase, after.ledger, after.since), (before.phase, before.ledger, before.since));
    assert_eq!(after.observed_generation, 9);
    assert_eq!(after.conditions.iter().find(|c| c.type_ == "Stalled").unwrap().reason, "MetadataDamaged");
    assert_eq!(after.conditions.iter().find(|c| c.type_ == "Available").unwrap().status, "True", "it serves on");
}
