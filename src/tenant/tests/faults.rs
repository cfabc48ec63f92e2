//! What else the fault matrix asks of a pass: answers that are refusals, watches that tell nothing, what nobody saw, leaders
//! that stand still, clocks that jump (docs/ledger.md, "The fault matrix", rows 2, 3, 4, 10 and 12 at the simulated level).
//!
//! Each life is that of [`life`], with a fault in it, and has to be told as the one without: the same states for the same
//! reasons, the same audit, the same objects in the end, and no child deleted before its service was.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    objects::{Leader, OBJECT, TOMBSTONES, World, condition},
    outages::told,
    server::{Cut, Server},
};
use crate::{
    chain::{SLOTS, simulated::generations},
    ledger::{
        Kind,
        simulated::{Database, Weather},
    },
};

/// Requests of a life: made, released, stopped, started, deleted.
const REQUESTS: usize = 5;

/// A life; `during` happens right after each request has come, before anybody has looked at it.
fn life(world: &mut World, mut during: impl FnMut(&mut World, usize)) {
    for request in 0..REQUESTS {
        match request {
            0 => {}
            1 => world.edit(|spec| spec["image"] = json!("engine:2")),
            2 => world.edit(|spec| spec["desiredState"] = json!("Stopped")),
            3 => world.edit(|spec| spec["desiredState"] = json!("Running")),
            _ => {
                let deleted = deletions(world);
                assert_eq!(deleted, [""; 0], "deleted while its service was there");
                world.delete();
            }
        }
        during(world, request);
        world.run();
    }
    world.run();
}

fn deletions(world: &World) -> Vec<String> {
    world.server.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect()
}

/// What a life comes to.
#[derive(Debug, PartialEq)]
struct Outcome {
    told: Vec<String>,
    audit: u64,
    left: Vec<String>,
}

fn outcome(world: &mut World, database: &Database) -> Outcome {
    database.set(Weather::Fair);
    world.settle_ledger();
    assert_eq!(world.server.list(TOMBSTONES), Vec::<Value>::new(), "tombstones are left");
    assert_eq!(world.server.get(OBJECT), None, "it never came to its end");
    world.verify_database(database, "at the end");
    let left = world.server.list("").iter().map(|object| object["metadata"]["name"].to_string()).collect();
    Outcome { told: told(database), audit: database.audit_entries(), left }
}

fn lived(during: impl FnMut(&mut World, usize)) -> (Outcome, World) {
    let database = Database::default();
    let mut world = World::beside(&database);
    life(&mut world, during);
    (outcome(&mut world, &database), world)
}

fn undisturbed() -> (Outcome, usize) {
    let (outcome, world) = lived(|_, _| {});
    assert_eq!(outcome.told.len(), 10, "{outcome:?}");
    (outcome, world.server.writes().len())
}

#[rstest]
fn a_refusal_at_any_write_changes_nothing_of_what_is_told(
    #[values(Cut::Answer(409), Cut::Answer(429), Cut::Answer(500), Cut::Answer(504), Cut::Reset)] how: Cut,
    #[values(1, 10)] times: u32,
) {
    let (whole, writes) = undisturbed();
    assert!(writes > 20, "{writes} writes are no life");
    for write in 0..writes {
        let (outcome, world) = lived(|world, request| {
            if request == 0 {
                world.server.cut_from(write, how, times);
            }
            // As often as it takes.
            if times > 1 {
                world.run();
                world.run();
            }
        });
        assert!(world.server.was_cut(), "the life took fewer than {write} writes");
        assert_eq!(outcome, whole, "{how:?} {times} times from write {write} on");
    }
}

#[rstest]
fn a_watch_that_tells_nothing_makes_nothing_happen_twice(#[values(false, true)] restarted: bool) {
    let (whole, _) = undisturbed();
    for watch in 0..World::new().watches() {
        for stalled in 0..REQUESTS {
            let (outcome, _) = lived(|world, request| {
                if request == stalled {
                    world.stall(watch);
                    world.run();
                    if restarted {
                        // The next operator's first list is as old.
                        world.start_operator_again();
                        world.run();
                    }
                    world.stall_nothing();
                }
            });
            assert_eq!(outcome, whole, "watch {watch} during request {stalled}");
        }
    }
}

#[test]
fn a_restart_over_lists_older_than_the_last_request_deletes_nothing_by_mistake() {
    let (whole, _) = undisturbed();
    for watch in 0..World::new().watches() {
        let mut old: Option<Server> = None;
        let (outcome, _) = lived(|world, _| {
            // The first list of the next operator is from before this request came.
            if let Some(old) = old.take() {
                world.stall_as(watch, old);
                world.start_operator_again();
                world.pass();
                world.settle();
                world.pass();
                world.stall_nothing();
            }
            world.run();
            old = Some(world.server.copy());
        });
        assert_eq!(outcome, whole, "watch {watch}");
    }
}

#[test]
fn changes_that_nobody_saw_are_counted_in_a_record() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    // Nobody looks: scaled up and down again, and another thing that stays.
    world.edit(|spec| spec["replicas"] = json!(5));
    world.edit(|spec| spec["replicas"] = json!(2));
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.start_operator_again();
    world.run();
    let records = database.records();
    let reasons: Vec<_> = records.iter().map(|record| record.envelope().reason.as_str()).collect();
    assert_eq!(reasons, ["Accepted", "AllReplicasReady", "ChangesUnseen", "Released"]);
    let unseen = &records[2];
    assert_eq!(unseen.envelope().kind, Kind::Unobserved);
    let details: Value = serde_json::from_str(unseen.details().unwrap()).unwrap();
    assert_eq!(details["message"], "2 changes were not seen: generations 2 to 3");
    assert_eq!(details["unseen"], 2);
    world.verify_database(&database, "unseen");
    let written = world.server.writes().len();
    world.run();
    assert_eq!(world.server.writes().len(), written, "told once");
}

#[test]
fn each_change_is_told_of_once_wherever_a_leader_ends() {
    for how in [Cut::Before, Cut::After, Cut::Lost] {
        for left in 0..6 {
            let database = Database::default();
            let mut world = World::beside(&database);
            world.run();
            world.edit(|spec| spec["desiredState"] = json!("Paused"));
            world.server.cut_after(left, how);
            world.pass();
            world.server.never_cut();
            // Nobody looks until it has changed twice more.
            world.edit(|spec| spec["desiredState"] = json!("Running"));
            world.edit(|spec| spec["desiredState"] = json!("Paused"));
            world.start_operator_again();
            world.run();
            assert_eq!(Vec::from_iter(generations(&database.records())), [1, 2, 3, 4], "{how:?}, {left} writes");
            assert_eq!(world.object()["status"]["observedGeneration"], 4);
            world.verify_database(&database, "a leader ended");
        }
    }
}

#[test]
fn what_comes_behind_changes_that_nobody_saw_is_told_of_wherever_a_leader_ends() {
    for how in [Cut::Before, Cut::After] {
        for left in 0..6 {
            let database = Database::default();
            let mut world = World::beside(&database);
            world.run();
            for state in ["Paused", "Running", "Paused"] {
                world.edit(|spec| spec["desiredState"] = json!(state));
            }
            world.start_operator_again();
            world.server.cut_after(left, how);
            world.pass();
            world.server.never_cut();
            world.edit(|spec| spec["desiredState"] = json!("Running"));
            world.start_operator_again();
            world.run();
            assert_eq!(Vec::from_iter(generations(&database.records())), [1, 2, 3, 4, 5], "{how:?}, {left} writes");
            world.verify_database(&database, "a leader ended");
        }
    }
}

#[test]
fn what_nobody_saw_is_told_although_the_database_and_the_spool_are_away() {
    let database = Database::default();
    let mut world = World::without_spool(&database);
    world.run();
    database.set(Weather::Away);
    world.edit(|spec| spec["replicas"] = json!(3));
    world.edit(|spec| spec["replicas"] = json!(2));
    world.run();
    database.set(Weather::Fair);
    world.repair_spool();
    world.settle_ledger();
    let records = database.records();
    let told = records.iter().filter(|record| record.envelope().kind == Kind::Unobserved).count();
    assert_eq!(told, 1, "{records:?}");
    world.verify_database(&database, "unseen, with nothing to write to");
}

#[test]
fn made_and_deleted_while_nobody_looked_is_a_whole_history() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.delete();
    world.run();
    world.run();
    assert_eq!(world.server.get(OBJECT), None);
    let reasons: Vec<_> = database.records().iter().map(|record| record.envelope().reason.clone()).collect();
    assert_eq!(reasons, ["Accepted", "ScaledToZero", "Deleted"]);
    world.verify_database(&database, "made and deleted");
}

#[test]
fn with_every_home_gone_the_status_full_and_unwritable_children_are_looked_after() {
    let database = Database::default();
    let mut world = World::without_spool(&database);
    database.set(Weather::Away);
    world.run();
    world.release_times(SLOTS + 2);
    assert_eq!(condition(&world.object(), "Stalled"), ("True".into(), "LedgerFull".into()));
    let shown = world.object()["status"].clone();
    world.server.refuse("tenantcontainers/search", "the status cannot be written");
    world.edit(|spec| spec["image"] = json!("engine:last"));
    world.run();
    let image =
        |world: &World| world.stateful_set().unwrap()["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image(&world), "engine:last");
    assert_eq!(world.object()["status"], shown, "shown, and in no home");
    world.server.refuse_nothing();
    database.set(Weather::Fair);
    world.repair_spool();
    world.run();
    world.settle_ledger();
    world.run();
    assert_eq!(condition(&world.object(), "Ready").0, "True");
    assert_eq!(world.object()["status"]["ledger"]["pending"], json!([]));
    world.verify_database(&database, "everything was gone");
    world.verify_shown(&database);
}

/// The first leader stands still before its `write`th write of a request; the second does all of it; the first goes on.
fn frozen_at(request: usize, write: usize, weather: Weather) -> (Outcome, bool) {
    let database = Database::default();
    let mut world = World::beside(&database);
    let mut came = false;
    let mut first: Option<Leader> = None;
    life(&mut world, |world, at| {
        if at != request {
            return;
        }
        database.set(weather);
        let mut frozen = world.another_leader();
        world.swap(&mut frozen);
        // `frozen` is the one that has worked so far, and its caches are as they were.
        came = world.freeze(&mut frozen, write, |world| {
            world.run();
            world.settle();
        });
        first = Some(frozen);
    });
    database.set(Weather::Fair);
    if let Some(first) = &mut first {
        world.settle_ledger();
        world.swap(first);
    }
    (outcome(&mut world, &database), came)
}

#[rstest]
fn a_leader_that_stood_still_past_its_term_changes_nothing_of_what_is_shown(
    #[values(Weather::Fair, Weather::Away)] weather: Weather,
) {
    let (whole, _) = undisturbed();
    let mut frozen = 0;
    for request in 0..REQUESTS {
        for write in 0..12 {
            let (outcome, came) = frozen_at(request, write, weather);
            frozen += usize::from(came);
            let words = |outcome: &Outcome| -> Vec<String> {
                // A second leader that cannot ask what the first one told calls a release an update of what stands there.
                outcome.told.iter().map(|told| told.replace("Updated", "Released")).collect()
            };
            assert_eq!(words(&outcome), words(&whole), "frozen before write {write} of request {request}, {weather:?}");
            assert_eq!(outcome.left, whole.left, "frozen before write {write} of request {request}, {weather:?}");
            if !came {
                break;
            }
        }
    }
    assert!(frozen > 10, "only {frozen} leaders were frozen");
}

#[rstest]
fn a_clock_that_jumps_by_an_hour_keeps_nobody_waiting(#[values(3_600, -3_600)] seconds: i64) {
    let (whole, _) = undisturbed();
    for request in 0..REQUESTS {
        for passes in 0..3 {
            let (outcome, _) = lived(|world, at| {
                if at == request {
                    for _ in 0..passes {
                        world.pass();
                    }
                    world.later(seconds);
                }
            });
            assert_eq!(outcome, whole, "{seconds} s, {passes} passes into request {request}");
        }
    }
}

#[test]
fn a_lease_that_was_deleted_changes_nothing_of_what_is_told() {
    let (whole, _) = undisturbed();
    for request in 0..REQUESTS {
        let (outcome, _) = lived(|world, at| {
            if at == request {
                world.pass();
                world.lose_lease();
            }
        });
        assert_eq!(outcome, whole, "at request {request}");
    }
}
