//! The database goes away, at any moment and in any way, and comes back: nothing stops, nothing is lost, nothing is twice.
//!
//! The real pass, the real spool and the real replay, over an API server and a database in memory that fail on command.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    objects::{CLUSTER, Ended, OBJECT, SERVICE, TOMBSTONES, UID, World, condition, no_status, waiting},
    server::Cut,
};
use crate::{
    api::TenantContainer,
    chain::{self, SLOTS},
    ledger::{
        Head, Record,
        simulated::{Database, Weather},
    },
};

/// Everything that a user can ask for, one after the other; `before` is told of each request that comes.
fn live(world: &mut World, mut before: impl FnMut(&mut World, usize)) {
    before(world, 0);
    world.run();
    before(world, 1);
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.run();
    before(world, 2);
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    before(world, 3);
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.run();
    before(world, 4);
    world.delete();
    world.run();
    world.run();
}

/// What a record tells, without its number, the moment and the leader.
fn gist(record: &Record) -> String {
    let envelope = record.envelope();
    let state = envelope.to.map_or("", |state| state.as_str());
    format!("{state} {} {:?}", envelope.reason, envelope.operation)
}

/// What was shown, in order. What lost the race to be shown is kept beside it, and named by a record of its own.
pub(super) fn told(database: &Database) -> Vec<String> {
    let (line, records) = (database.line(), database.records());
    let on_line = |record: &&Record| line.contains(&record.hash().to_string());
    records.iter().filter(on_line).filter(|record| record.envelope().reason != "Superseded").map(gist).collect()
}

/// A life in which nothing fails: what every other one has to come to.
fn undisturbed() -> (Vec<String>, u64) {
    let database = Database::default();
    let mut world = World::beside(&database);
    live(&mut world, |_, _| {});
    assert_eq!(world.server.get(OBJECT), None, "a whole life");
    (told(&database), database.audit_entries())
}

/// After everything is over: the database has it all, once, and nothing is carried any more.
fn settled(world: &mut World, database: &Database, what: &str) {
    database.set(Weather::Fair);
    world.settle_ledger();
    assert_eq!(world.server.list(TOMBSTONES), Vec::<Value>::new(), "{what}: tombstones are left");
    assert_eq!(world.object()["status"]["ledger"]["pending"].as_array().map_or(0, Vec::len), 0, "{what}: pending");
    world.verify_database(database, what);
}

#[rstest]
#[case::from_the_beginning(0)]
#[case::from_the_release_on(1)]
#[case::from_the_stop_on(2)]
#[case::from_the_start_on(3)]
#[case::from_the_deletion_on(4)]
fn what_happens_while_the_database_is_away_is_in_it_afterwards(#[case] from: usize) {
    let (states, audit) = undisturbed();
    let database = Database::default();
    let mut world = World::beside(&database);
    live(&mut world, |_, request| {
        if request == from {
            database.set(Weather::Away);
        }
    });
    assert_eq!(world.server.get(OBJECT), None, "nothing waited for the database, the finalizer neither");
    assert_eq!(world.server.list(TOMBSTONES).len(), 1);
    assert!(told(&database).len() < states.len());
    settled(&mut world, &database, "away");
    assert_eq!((told(&database), database.audit_entries()), (states, audit), "replay has left something out");
    assert!(database.closed(CLUSTER, UID.parse().unwrap()).is_some(), "its end is known to be one");
}

/// The object as the pass read it that let it go.
fn until_it_is_let_go(world: &mut World) -> TenantContainer {
    loop {
        let before: TenantContainer = world.server.read(OBJECT).unwrap();
        world.pass();
        if !world.server.read::<TenantContainer>(OBJECT).is_some_and(|object| chain::is_held(&object)) {
            return before;
        }
        world.settle();
        world.later(6);
    }
}

#[test]
fn an_end_whose_answer_was_lost_is_known_from_the_next_one() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    world.delete();
    let last = until_it_is_let_go(&mut world);
    // Another process, which remembers no answer, and to which the watch has told nothing of it.
    world.start_operator_again();
    world.pass_as_of(&serde_json::to_value(&last).unwrap());
    assert_eq!(world.pass_over(&last).unwrap().writes, 1, "it asks once");
    assert_eq!(world.pass_over(&last).unwrap().writes, 0, "and was told that there is nothing");
}

/// Whoever looks after tombstones hears of one that is there, whatever became of the pass that wrote it.
#[rstest]
#[case::refused(Cut::Answer(500))]
#[case::without_an_answer(Cut::Lost)]
fn a_tombstone_is_heard_of_though_the_pass_that_wrote_it_failed(#[case] how: Cut) {
    let mut in_a_failed_pass = 0;
    for left in 0.. {
        let database = Database::default();
        let mut world = World::beside(&database);
        world.run();
        database.set(Weather::Away);
        world.delete();
        world.server.cut_after(left, how);
        world.pass();
        while world.server.list(TOMBSTONES).is_empty() {
            world.settle();
            world.later(6);
            world.pass();
        }
        assert_ne!(world.tombstones_told(), 0, "{how:?} {left}: nobody is told of it");
        in_a_failed_pass += usize::from(world.server.get(OBJECT).is_some());
        if !world.server.was_cut() {
            break;
        }
    }
    assert_ne!(in_a_failed_pass, 0, "the object is still there after it");
}

/// The watch tells of an end some time after it: a pass that begins in between is about nothing any more.
#[rstest]
#[case::into_the_database(Weather::Fair, None)]
#[case::into_a_tombstone(Weather::Away, None)]
#[case::and_somebody_else_holds_it_still(Weather::Fair, Some("example.com/mine"))]
fn what_was_let_go_is_not_let_go_again(#[case] weather: Weather, #[case] other: Option<&str>) {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    database.set(weather);
    world.delete();
    world.server.change(OBJECT, |object| {
        object["metadata"]["finalizers"].as_array_mut().unwrap().extend(other.map(Value::from));
    });
    let last = until_it_is_let_go(&mut world);
    let (writes, stones) = (world.server.writes(), world.server.list(TOMBSTONES));
    assert_eq!(stones.len(), usize::from(weather == Weather::Away));
    let done = world.pass_over(&last).unwrap();
    assert_eq!((done.writes, done.records), (0, 0));
    assert_eq!((world.server.writes(), world.server.list(TOMBSTONES)), (writes, stones), "done again");
}

#[test]
fn a_silent_database_costs_one_budget_and_then_nothing() {
    let (states, audit) = undisturbed();
    let database = Database::default();
    let mut world = World::beside(&database);
    live(&mut world, |_, request| {
        if request == 1 {
            database.set(Weather::Silent);
        }
    });
    assert_eq!(world.server.get(OBJECT), None);
    settled(&mut world, &database, "silent");
    assert_eq!((told(&database), database.audit_entries()), (states, audit));
}

#[test]
fn what_a_status_carries_goes_once_the_database_has_it() {
    let database = Database::default();
    let mut world = World::beside(&database);
    database.set(Weather::Away);
    world.run();
    let object = world.object();
    assert_eq!(object["status"]["phase"], "Running", "shown as ever");
    assert_eq!(object["status"]["ledger"]["pending"].as_array().unwrap().len(), 2);
    assert_eq!(condition(&object, "LedgerSynced").0, "False");
    assert_eq!(condition(&object, "Ready").0, "True", "the service does not suffer");
    assert_eq!(database.records().len(), 0);
    database.set(Weather::Fair);
    world.settle_ledger();
    let object = world.object();
    assert_eq!(object["status"]["ledger"]["pending"], json!([]));
    assert_eq!(condition(&object, "LedgerSynced"), ("True".into(), "Database".into()));
    assert_eq!(database.records().len(), 2);
    assert!(database.records().iter().all(|record| record.details().is_some()), "replayed with their details");
    world.verify_database(&database, "back");
    // Nothing is left to be done.
    let writes = world.server.writes().len();
    world.pass();
    assert_eq!(world.server.writes().len(), writes);
}

#[rstest]
#[case::the_operator_ends_before_it(Cut::Before)]
#[case::the_operator_ends_after_it(Cut::After)]
#[case::the_answer_is_lost(Cut::Lost)]
fn a_life_without_the_database_that_is_interrupted_at_any_write_is_told_the_same(#[case] how: Cut) {
    let (states, audit) = undisturbed();
    let writes = {
        let database = Database::default();
        let mut world = World::beside(&database);
        live(&mut world, |_, request| database.set(if request == 1 { Weather::Away } else { Weather::Fair }));
        world.server.writes().len()
    };
    assert!(writes > 20, "{writes} writes are no life");
    for write in 0..writes {
        let database = Database::default();
        let mut world = World::beside(&database);
        database.set(Weather::Away);
        world.server.cut_after(write, how);
        live(&mut world, |_, _| {});
        let what = format!("cut at write {write}");
        assert_eq!(world.server.get(OBJECT), None, "{what}: it never came to its end");
        settled(&mut world, &database, &what);
        assert_eq!(told(&database), states, "{what}");
        assert_eq!(database.audit_entries(), audit, "{what}");
    }
}

#[test]
fn an_answer_of_the_database_that_is_lost_at_any_write_doubles_nothing() {
    let (states, audit) = undisturbed();
    for request in 0..5 {
        for answers in 1..4 {
            let database = Database::default();
            let mut world = World::beside(&database);
            live(&mut world, |_, at| {
                if at == request {
                    database.lose_answers(answers);
                }
            });
            let what = format!("{answers} answers lost at request {request}");
            assert_eq!(world.server.get(OBJECT), None, "{what}");
            settled(&mut world, &database, &what);
            assert_eq!(told(&database), states, "{what}");
            assert_eq!(database.audit_entries(), audit, "{what}");
            assert_eq!(database.records().len(), database.line().len(), "{what}: a record is there twice");
        }
    }
}

#[test]
fn what_only_the_status_carries_stays_there_until_the_database_has_it() {
    let database = Database::default();
    let mut world = World::without_spool(&database);
    database.set(Weather::Away);
    world.run();
    assert_eq!(world.object()["status"]["ledger"]["pending"].as_array().unwrap().len(), 2);
    database.set(Weather::Fair);
    world.settle_ledger();
    let reasons: Vec<_> = database.records().iter().map(|record| record.envelope().reason.clone()).collect();
    assert_eq!(reasons, ["Accepted", "AllReplicasReady"], "gone from the status, and in no home");
    assert_eq!(world.object()["status"]["ledger"]["pending"], json!([]));
    world.verify_database(&database, "carried by the status alone");
}

#[test]
fn without_database_and_spool_the_status_carries_everything() {
    let database = Database::default();
    let mut world = World::without_spool(&database);
    database.set(Weather::Away);
    world.run();
    assert_eq!(world.object()["status"]["phase"], "Running");
    assert_eq!(world.object()["status"]["ledger"]["pending"].as_array().unwrap().len(), 2);
    world.delete();
    world.run();
    world.run();
    assert_eq!(world.server.get(OBJECT), None, "deleting waits for neither");
    assert_eq!(world.server.list(TOMBSTONES).len(), 1, "released, and nothing else carries its last records");
    database.set(Weather::Fair);
    world.repair_spool();
    world.settle_ledger();
    assert_eq!(world.server.list(TOMBSTONES), Vec::<Value>::new());
    let reasons: Vec<_> = database.records().iter().map(|record| record.envelope().reason.clone()).collect();
    let whole = ["Accepted", "AllReplicasReady", "Draining", "ScaledToZero", "Deleted"];
    assert_eq!(reasons, whole, "the tombstone is gone, and the database lacks what it carried");
    world.verify_database(&database, "without a spool");
}

#[test]
fn a_full_status_shows_nothing_more_and_its_service_goes_on() {
    let (database, mut world) = (Database::default(), World::beside(&Database::default()));
    drop(database);
    let database = world.database().clone();
    database.set(Weather::Away);
    world.run();
    world.release_times(SLOTS);
    let object = world.object();
    assert_eq!(object["status"]["ledger"]["pending"].as_array().unwrap().len(), SLOTS);
    assert_eq!(condition(&object, "Stalled"), ("True".into(), "LedgerFull".into()));
    let image = &world.stateful_set().unwrap()["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, format!("engine:{}", SLOTS + 1), "its children are looked after as ever");
    settled(&mut world, &database, "full");
    world.run();
    assert_eq!(condition(&world.object(), "Ready").0, "True");
    assert_eq!(condition(&world.object(), "Stalled").0, "False");
    world.verify_database(&database, "full");
}

/// One that runs, without its database, whose status has room for one record more.
fn with_one_slot_left() -> World {
    let database = Database::default();
    let mut world = World::beside(&database);
    database.set(Weather::Away);
    world.run();
    // Its first states are two.
    world.release_times(SLOTS - 3);
    world
}

#[test]
fn a_retry_that_is_due_makes_no_storm_while_the_ledger_takes_nothing_more() {
    let mut world = with_one_slot_left();
    for ordinal in [0, 1] {
        world.reports.insert(ordinal, waiting("CrashLoopBackOff", "back-off"));
    }
    world.run();
    assert_eq!(world.object()["status"]["phase"], "Failed");
    // What nobody saw is to be told before anything else, and cannot be.
    for replicas in [3, 2] {
        world.edit(|spec| spec["replicas"] = json!(replicas));
    }
    world.later(3_600);
    world.pass();
    assert_eq!(world.failure().reason(), "LedgerFull");
    assert_eq!(world.failure().look_again(), None, "it waits for the ledger alone");
}

#[test]
fn a_drain_ends_on_time_though_the_ledger_takes_nothing_more() {
    let mut world = with_one_slot_left();
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.pass();
    assert_eq!(world.object()["status"]["phase"], "Paused");
    // What nobody saw is to be told now, and cannot be.
    for _ in 0..2 {
        world.edit(|spec| spec["drainSeconds"] = json!(spec["drainSeconds"].as_i64().unwrap_or(5) + 1));
    }
    world.pass();
    let error = world.failure();
    assert_eq!(error.reason(), "LedgerFull");
    let look_again = error.look_again().unwrap();
    assert!(look_again < Duration::from_secs(9), "nobody comes back when the drain ends, but in {look_again:?}");
    world.later(8);
    world.pass();
    assert_eq!(world.stateful_set().unwrap()["spec"]["replicas"], 0);
    world.pass();
    assert_eq!(world.failure().look_again(), None, "from here on it waits for the ledger alone");
}

#[rstest]
#[case::with_an_operator_that_begins_anew(true)]
#[case::with_one_that_works_on(false)]
fn an_api_server_restored_to_an_older_state_keeps_both_branches(#[case] begins_anew: bool) {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    let before = world.object();
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    assert_eq!(world.object()["status"]["phase"], "Stopped");
    // The restore brings back what was there when the service ran.
    world.server.put(OBJECT, before.clone());
    if begins_anew {
        world.start_operator_again();
    }
    world.run();
    let reasons: Vec<_> = database.records().iter().map(|record| record.envelope().reason.clone()).collect();
    // What it shows is that it runs; whatever is true of its pods follows as ever.
    assert!(reasons.contains(&"ApiRewound".to_owned()), "{reasons:?}");
    assert_eq!(reasons.iter().filter(|reason| *reason == "ApiRewound").count(), 1);
    assert_eq!(reasons[..4], ["Accepted", "AllReplicasReady", "Draining", "ScaledToZero"], "{reasons:?}");
    world.verify_database(&database, "restored");
}

/// The database has that it runs, the operator ended before that was shown, and another record says so on the status.
fn with_a_loser_at_the_head(database: &Database) -> World {
    let mut world = World::beside(database);
    world.pass();
    world.settle();
    world.server.cut_after(0, Cut::Before);
    world.pass();
    database.set(Weather::Away);
    world.run();
    assert_eq!(condition(&world.object(), "Ready").0, "True");
    world
}

/// What a record says has left the chain.
fn superseded(record: &Record) -> Option<Head> {
    let details: Value = serde_json::from_str(record.details()?).unwrap();
    serde_json::from_value(details.get("superseded")?.clone()).ok()
}

/// What happens while the chain is put right, at each of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Call,
    Answer,
}

/// The fifth call moves the head. Who does not get on from there forgets what was left (docs/ledger.md, "not yet").
#[rstest]
#[case::a_call(Lost::Call, 5)]
#[case::the_answer_to_a_write(Lost::Answer, 8)]
fn what_leaves_the_chain_is_named_whatever_gets_lost_meanwhile(
    #[case] lost: Lost,
    #[case] calls: u32,
    #[values(false, true)] begins_anew: bool,
) {
    for after in 0..calls {
        let database = Database::default();
        let mut world = with_a_loser_at_the_head(&database);
        let loser = database.head_of_the_only_chain();
        database.set(Weather::Fair);
        match lost {
            Lost::Call => database.lose_call(after),
            Lost::Answer => database.lose_answer(after),
        }
        world.wait_for_replay();
        world.pass();
        if begins_anew {
            world.start_operator_again();
        }
        world.settle_ledger();
        world.run();
        let named: Vec<_> = database.records().iter().filter_map(superseded).collect();
        assert!(named.contains(&loser), "{lost:?} {after}: {loser:?} is not among {named:?}");
        assert_eq!(world.object()["status"]["ledger"]["pending"], json!([]), "{lost:?} {after}");
        world.verify_database(&database, &format!("{lost:?} {after}"));
        world.verify_shown(&database);
    }
}

#[test]
fn over_a_gap_nothing_is_called_superseded() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    let shown = database.head_of_the_only_chain();
    assert!(shown.sequence > 3);
    database.repair_by_halves(2);
    world.start_operator_again();
    world.run();
    assert_eq!(database.head_of_the_only_chain(), shown, "the ledger ends where the status does");
    let named: Vec<_> = database.records().iter().filter_map(superseded).collect();
    assert_eq!(named, [], "record 2 was shown, and what is shown may follow it");
}

#[test]
fn a_chain_that_is_put_right_is_no_news_of_the_service() {
    let database = Database::default();
    let mut world = with_a_loser_at_the_head(&database);
    let running = world.object();
    let shown = world.server.shown().len();
    database.set(Weather::Fair);
    world.settle_ledger();
    world.run();
    let reasons: Vec<_> = database.records().iter().map(|record| record.envelope().reason.clone()).collect();
    assert!(reasons.contains(&"Superseded".to_owned()), "{reasons:?}");
    for object in &world.server.shown()[shown..] {
        for name in ["Ready", "Reconciling", "Stalled", "Available"] {
            assert_eq!(condition(object, name), condition(&running, name), "the service has run all the time");
        }
    }
    world.verify_database(&database, "put right");
}

#[test]
fn a_chain_that_was_never_compared_with_the_ledger_is_looked_at_again_soon() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    world.settle_ledger();
    assert_eq!(world.for_its_chain(), None, "this process has seen them agree");
    world.start_operator_again();
    assert_eq!(world.for_its_chain(), Some(Duration::from_secs(60)), "this one has not");
    world.pass();
    assert_eq!(world.for_its_chain(), None);
}

#[test]
fn an_api_server_that_has_lost_the_whole_status_goes_on_from_the_ledger() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    world.server.change(OBJECT, |object| object["status"] = no_status());
    world.run();
    assert_eq!(world.object()["status"]["phase"], "Running");
    let reasons: Vec<_> = database.records().iter().map(|record| record.envelope().reason.clone()).collect();
    assert_eq!(reasons.iter().filter(|reason| *reason == "ApiRewound").count(), 1, "{reasons:?}");
    world.verify_database(&database, "status lost");
}

#[test]
fn a_database_that_has_lost_its_last_minutes_gets_them_back() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.pass();
    database.back_up();
    world.run();
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.run();
    let known = told(&database);
    database.restore();
    assert!(told(&database).len() < known.len());
    // Nobody notices before the next batch; then everything comes back, and what is new as well.
    world.edit(|spec| spec["image"] = json!("engine:3"));
    world.run();
    settled(&mut world, &database, "rewound");
    world.run();
    settled(&mut world, &database, "rewound");
    let again = told(&database);
    assert_eq!(again[..known.len()], known);
    assert!(again.len() > known.len());
}

/// The pass with a stale view writes behind what it takes for shown, and the restored database takes it.
#[test]
fn what_was_shown_stays_the_line_though_a_stale_view_wrote_after_a_restore() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.pass();
    database.back_up();
    let objects = world.watches() - 1;
    world.stall(objects);
    world.settle();
    world.pass();
    assert_eq!(world.object()["status"]["phase"], "Running");
    database.restore();
    // It is known that the database was rewound, and what it lost is not in it again yet.
    world.another_object_changes();
    // The same record is another one a second later.
    world.later(1);
    world.pass();
    assert!(world.in_short().contains("Overtaken"), "{}", world.in_short());
    world.stall_nothing();
    settled(&mut world, &database, "written from a stale view");
    world.run();
    let shown = world.object()["status"]["ledger"]["head"].as_str().unwrap().to_owned();
    assert_eq!(database.line().last(), Some(&shown));
    settled(&mut world, &database, "brought together");
}

#[test]
fn an_object_that_is_gone_keeps_its_ending_through_a_restore_of_the_database() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    database.back_up();
    world.delete();
    world.run();
    world.run();
    assert_eq!(world.server.get(OBJECT), None);
    let known = told(&database);
    database.restore();
    world.another_object_changes();
    settled(&mut world, &database, "rewound after an end");
    assert_eq!(told(&database), known);
    assert!(database.closed(CLUSTER, UID.parse().unwrap()).is_some());
}

#[test]
fn the_outage_costs_a_pass_no_more_writes() {
    let count = |weather: Weather| {
        let database = Database::default();
        let mut world = World::beside(&database);
        database.set(weather);
        world.run();
        world.server.writes().len()
    };
    assert_eq!(count(Weather::Away), count(Weather::Fair));
}

#[test]
fn two_leaders_over_an_outage_show_one_line() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    let mut other = world.another_leader();
    database.set(Weather::Away);
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    // Both work on the same object, one pass each in turn, each with a spool of its own.
    for _ in 0..12 {
        world.pass();
        world.swap(&mut other);
        world.settle();
        world.later(3);
    }
    database.set(Weather::Fair);
    for _ in 0..6 {
        world.settle_ledger();
        world.swap(&mut other);
    }
    assert_eq!(world.object()["status"]["phase"], "Stopped");
    assert_eq!(world.object()["status"]["ledger"]["pending"], json!([]));
    world.verify_database(&database, "two leaders");
    world.verify_shown(&database);
}

#[test]
fn passes_end_as_they_should() {
    let database = Database::default();
    let mut world = World::beside(&database);
    database.set(Weather::Away);
    world.pass();
    assert!(matches!(world.ended, Some(Ended::Done(_))), "{:?}", world.ended);
    assert!(world.done().look_again > Duration::ZERO);
}

#[test]
fn an_ending_is_the_last_record_however_long_its_children_take() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    database.set(Weather::Away);
    world.delete();
    // One of its children does not go.
    world.server.refuse(SERVICE, "it is still going");
    for _ in 0..6 {
        world.pass();
        world.settle();
        world.later(6);
    }
    assert_eq!(world.object()["status"]["phase"], "Deleted");
    database.set(Weather::Fair);
    for _ in 0..3 {
        world.wait_for_replay();
        world.pass();
    }
    world.server.refuse_nothing();
    world.run();
    assert_eq!(world.server.get(OBJECT), None);
    settled(&mut world, &database, "a slow deletion");
    let reasons: Vec<_> = database.records().iter().map(|record| record.envelope().reason.clone()).collect();
    assert_eq!(reasons.last().map(String::as_str), Some("Deleted"), "{reasons:?}");
    assert!(!reasons.contains(&"Superseded".to_owned()), "{reasons:?}");
}

#[test]
fn a_database_that_was_only_behind_has_lost_nothing_and_names_nothing() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.run();
    database.set(Weather::Away);
    world.edit(|spec| spec["image"] = json!("engine:2"));
    world.run();
    settled(&mut world, &database, "behind");
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    let reasons: Vec<_> = database.records().iter().map(|record| record.envelope().reason.clone()).collect();
    assert_eq!(reasons, ["Accepted", "AllReplicasReady", "Released", "Draining", "ScaledToZero"]);
}
