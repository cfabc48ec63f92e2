//! What the ledger is told of a grant, whatever comes between.

use rstest::rstest;
use serde_json::json;

use super::{
    NOON,
    world::{BINDING, GRANT, World},
};
use crate::{
    access,
    api::AccessGrant,
    chain::simulated::{Cut, Ended, generations},
    ledger::{
        Kind,
        simulated::{Database, Weather},
    },
};

const LATER: &str = "2030-01-01T13:00:00Z";

/// What a life comes to, undisturbed: by whom and why.
const LIFE: [&str; 5] = [
    "Granted user:root@acme.example",
    "Changed user:dana@acme.example",
    "Expired berth:expiry",
    "Granted user:erin@acme.example",
    "Removed unknown:",
];

/// The steps of a life, as others than Berth take them.
fn step(world: &World, number: usize) {
    match number {
        0 => {}
        1 => world.change("dana@acme.example", "role", json!("read-only")),
        2 => world.now_is(NOON),
        3 => world.change("erin@acme.example", "expiresAt", json!(LATER)),
        4 => world.delete(),
        _ => unreachable!("a life has five steps"),
    }
}

/// Whether the access is as it should be after a step.
fn is_right(world: &World, number: usize) -> bool {
    let roles: Vec<_> = world.server.bindings().iter().map(|one| one["roleRef"]["name"].clone()).collect();
    match number {
        0 => roles == ["berth-grant-operator"],
        1 | 3 => roles == ["berth-grant-read-only"],
        _ => roles.is_empty(),
    }
}

#[tokio::test]
async fn a_life_is_told_by_whom_and_why() {
    let mut world = World::new().await;
    for number in 0..LIFE.len() {
        step(&world, number);
        world.settle().await;
        assert!(is_right(&world, number), "step {number}");
        if number < 4 {
            assert_eq!(world.synced(), "True Database");
        }
    }
    assert_eq!(world.told(), LIFE);
    assert_eq!(world.server.get(GRANT), None);
    assert!(world.database.verify().is_clean());
    let records = world.database.records();
    let details: serde_json::Value = serde_json::from_str(records[0].details().unwrap()).unwrap();
    assert_eq!(details["subject"]["name"], "alice@acme.example");
    assert_eq!(details["subject"]["email"], "alice@acme.example");
    assert_eq!((&details["gives"]["role"], &details["expiresAt"]), (&json!("operator"), &json!(NOON)));
    assert_eq!(details["message"], "role operator for User alice@acme.example until 2030-01-01T12:00:00Z");
    assert!(records.iter().all(|record| record.envelope().kind == Kind::Grant));
    // A deletion is a generation, and nobody's stamp is of it.
    let last: serde_json::Value = serde_json::from_str(records[4].details().unwrap()).unwrap();
    assert_eq!(last["grantedBy"], "user:erin@acme.example");
}

#[rstest]
#[case::with_the_database(false)]
#[case::without(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_is_interrupted_at_any_write_is_told_the_same(#[case] is_away: bool) {
    let at_first = || {
        let database = Database::default();
        if is_away {
            database.set(Weather::Away);
        }
        database
    };
    let mut whole = World::beside(at_first()).await;
    for number in 0..LIFE.len() {
        step(&whole, number);
        whole.settle().await;
    }
    let writes = whole.server.writes();
    assert!(writes >= 12, "a life takes {writes} writes");
    for how in Cut::ALL {
        for left in 0..writes {
            let database = at_first();
            let mut world = World::beside(database.clone()).await;
            world.server.cut_after(left, how);
            let mut is_cut = false;
            for number in 0..LIFE.len() {
                step(&world, number);
                loop {
                    let server = world.server.clone();
                    match server.through_a_cut(world.pass()).await {
                        Ended::Done(done) if done.writes == 0 => break,
                        Ended::Done(_) => {}
                        Ended::AnswerLost => is_cut = true,
                        Ended::Silent => {
                            is_cut = true;
                            // What the first one's spool has alone, its own process brings: it lives again.
                            world.restarts().await;
                        }
                    }
                }
                is_cut |= world.server.has_lost();
                assert!(is_right(&world, number), "{how:?} {left}: step {number}");
            }
            database.set(Weather::Fair);
            world.replayed().await;
            for _ in 0..10 {
                if world.bury().await == 0 {
                    break;
                }
            }
            assert!(is_cut, "{how:?} {left}: nothing was cut");
            assert_eq!(world.server.get(GRANT), None, "{how:?} {left}");
            assert_eq!(world.server.tombstones(), 0, "{how:?} {left}");
            assert_eq!(world.told(), LIFE, "{how:?} {left}");
            let report = database.verify();
            assert!(report.is_clean(), "{how:?} {left}: {report:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_ends_on_time_whatever_the_ledger_says_and_its_record_follows() {
    for weather in [Weather::Away, Weather::Silent] {
        let mut world = World::new().await;
        world.settle().await;
        world.database.set(weather);
        world.now_is(NOON);
        world.settle().await;
        assert_eq!(world.server.get(BINDING), None);
        assert_eq!(world.shown(), "Expired True Expired");
        assert!(world.synced().starts_with("False "), "{}", world.synced());
        let pending = world.server.get(GRANT).unwrap()["status"]["ledger"]["pending"].clone();
        assert_eq!(pending.as_array().unwrap().len(), 1, "the status carries what the database lacks");
        assert_eq!(world.told(), LIFE[..1]);
        world.database.set(Weather::Fair);
        world.replayed().await;
        world.settle().await;
        assert_eq!(world.told(), ["Granted user:root@acme.example", "Expired berth:expiry"]);
        assert_eq!(world.synced(), "True Database");
        assert_eq!(world.server.get(GRANT).unwrap()["status"]["ledger"]["pending"], json!([]));
        assert!(world.database.verify().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_deleted_without_the_database_leaves_a_tombstone_and_no_access() {
    let mut world = World::new().await;
    world.settle().await;
    world.database.set(Weather::Away);
    world.change("dana@acme.example", "role", json!("read-only"));
    world.settle().await;
    world.delete();
    world.settle().await;
    assert_eq!((world.server.get(GRANT), world.server.bindings()), (None, vec![]));
    assert_eq!(world.server.tombstones(), 1);
    world.database.set(Weather::Fair);
    world.replayed().await;
    assert_eq!(world.bury().await, 0);
    assert_eq!(world.server.tombstones(), 0);
    assert_eq!(world.told(), [LIFE[0], LIFE[1], LIFE[4]]);
    assert!(world.database.verify().is_clean());
}

/// The watch tells of an end some time after it: a pass that begins in between is about nothing any more.
#[rstest]
#[case::into_the_database(Weather::Fair)]
#[case::into_a_tombstone(Weather::Away)]
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_was_let_go_is_not_let_go_again(#[case] weather: Weather) {
    let mut world = World::new().await;
    world.settle().await;
    world.database.set(weather);
    world.delete();
    let mut last = None;
    while let Some(object) = world.server.get(GRANT) {
        last = Some(object);
        world.pass().await.unwrap();
    }
    let writes = world.server.writes();
    let last: AccessGrant = serde_json::from_value(last.unwrap()).unwrap();
    let done = access::pass(&world.context, &last).await.unwrap();
    assert_eq!((done.writes, done.records, world.server.writes()), (0, 0, writes), "done again");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_status_is_full_access_still_ends_and_nothing_more_is_shown() {
    let mut world = World::new().await;
    world.settle().await;
    world.database.set(Weather::Away);
    for number in 0..crate::chain::SLOTS {
        let role = if number % 2 == 0 { "read-only" } else { "operator" };
        world.change("dana@acme.example", "role", json!(role));
        world.settle().await;
    }
    world.now_is(NOON);
    let error = world.pass().await.unwrap_err();
    assert_eq!(error.reason(), "LedgerFull");
    assert_eq!(world.server.bindings(), Vec::<serde_json::Value>::new(), "it ended all the same");
    assert_eq!(world.shown(), "Active False LedgerFull", "what is not durable is not shown");
    world.database.set(Weather::Fair);
    world.replayed().await;
    world.settle().await;
    assert_eq!(world.shown(), "Expired True Expired");
    assert_eq!(world.told().len(), crate::chain::SLOTS + 2);
    assert!(world.database.verify().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_leaders_leave_one_line() {
    let mut world = World::new().await;
    world.settle().await;
    // One made a record and could not show it; the other shows that one before its own.
    world.change("dana@acme.example", "role", json!("read-only"));
    world.server.cut_after(2, Cut::Before);
    let server = world.server.clone();
    assert!(matches!(server.through_a_cut(world.pass()).await, Ended::Silent));
    assert_eq!(world.told().len(), 2, "the record is durable, and not shown");
    world.takes_over().await;
    world.change("erin@acme.example", "expiresAt", json!(LATER));
    world.settle().await;
    assert_eq!(
        world.told(),
        [LIFE[0], LIFE[1], "Changed user:erin@acme.example"],
        "what the first has told stands, by whom it was"
    );
    assert!(world.database.verify().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_told_of_once_wherever_a_leader_ends() {
    for left in 0..5 {
        let mut world = World::new().await;
        world.settle().await;
        world.change("dana@acme.example", "role", json!("read-only"));
        world.server.cut_after(left, Cut::Before);
        let server = world.server.clone();
        server.through_a_cut(world.pass()).await;
        server.answers();
        world.takes_over().await;
        // Nobody looks until it has changed twice more.
        world.change("erin@acme.example", "expiresAt", json!(LATER));
        world.change("erin@acme.example", "role", json!("operator"));
        world.settle().await;
        assert_eq!(Vec::from_iter(generations(&world.database.records())), [1, 2, 3, 4], "cut after {left} writes");
        assert!(world.database.verify().is_clean());
    }
}

#[tokio::test]
async fn who_does_not_lead_tells_nothing() {
    let mut world = World::new().await;
    world.leads(false);
    assert_eq!(world.pass().await.unwrap_err().reason(), "NotLeader");
    assert_eq!(world.database.count(), 0);
    world.leads(true);
    world.settle().await;
    assert_eq!(world.told(), LIFE[..1]);
}

#[tokio::test]
async fn changes_that_nobody_saw_are_counted() {
    let mut world = World::new().await;
    world.settle().await;
    for role in ["read-only", "operator", "admin"] {
        world.change("dana@acme.example", "role", json!(role));
    }
    world.settle().await;
    assert_eq!(world.told(), [LIFE[0], "ChangesUnseen unknown:", LIFE[1]]);
    assert!(world.database.verify().is_clean());
}

#[tokio::test]
async fn a_grant_without_the_finalizer_gets_it_before_anything_is_given() {
    let mut world = World::new().await;
    let mut object = world.server.get(GRANT).unwrap();
    object["metadata"]["finalizers"] = json!([]);
    world.server.put(GRANT, object);
    world.pass().await.unwrap();
    let requests = world.server.requests();
    let writes: Vec<_> = requests.iter().filter(|request| request.starts_with("PATCH")).collect();
    assert_eq!(writes.first().unwrap().as_str(), "PATCH alice");
    assert_eq!(world.server.get(GRANT).unwrap()["metadata"]["finalizers"], json!(["berth.dev/ledger"]));
}
