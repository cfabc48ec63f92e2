//! What the ledger is told of a rollout, whatever comes between.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    passes::Fleet,
    world::{NEW, NEWER, World},
};
use crate::{
    api::Deployment,
    chain::{
        SLOTS,
        simulated::{Cut, generations},
    },
    fleet::pass,
    ledger::{
        Kind, Part, Record, Scope,
        simulated::{Database, Weather},
    },
};

/// Five targets in two waves, of which the first waits for somebody, and one target does not work with the release.
async fn fleet(database: Database) -> Fleet {
    let strategy = json!({"waves": [
        {"name": "canary", "count": 1, "approval": "Manual"},
        {"name": "rest", "maxUnavailable": 2, "maxFailures": 1},
    ]});
    let mut world = World::new(5, strategy);
    world.services[3].breaks_with = Some(NEW);
    Fleet::new(world, database).await
}

/// What its life comes to, undisturbed: by whom and why.
const LIFE: [&str; 6] = [
    "Began user:root@acme.example",
    "WaveStarted user:erin@acme.example",
    "WaveStarted berth:rollout",
    "Complete berth:rollout",
    "RollingBack user:dana@acme.example",
    "RolledBack berth:rollout",
];
const END: &str = "Removed unknown:";
const STEPS: usize = 4;

/// The steps of a life, as others than Berth take them.
fn step(fleet: &mut Fleet, number: usize) {
    match number {
        0 => {}
        1 => fleet.approve("erin@acme.example", "canary"),
        2 => fleet.change("dana@acme.example", |spec| spec["rollBack"] = json!(true)),
        3 => fleet.delete(),
        _ => unreachable!("a life has four steps"),
    }
}

/// The outcomes of targets that records tell of, by name, in order: each as `name outcome`.
fn outcomes(records: &[Record]) -> Vec<String> {
    let mut all: Vec<String> =
        records.iter().flat_map(parts).filter(|part| part.scope == Scope::Target).map(word).collect();
    all.sort();
    all
}

fn word(part: Part) -> String {
    format!("{} {}", part.name.unwrap_or_default(), part.outcome)
}

fn parts(record: &Record) -> Vec<Part> {
    let details: Value = serde_json::from_str(record.details().unwrap()).unwrap();
    serde_json::from_value(details["parts"].clone()).unwrap()
}

const OUTCOMES: [&str; 10] = [
    "s000 RolledBack",
    "s000 Updated",
    "s001 RolledBack",
    "s001 Updated",
    "s002 RolledBack",
    "s002 Updated",
    "s003 Failed",
    "s003 RolledBack",
    "s004 RolledBack",
    "s004 Updated",
];

#[tokio::test]
async fn a_rollout_is_told_by_whom_and_why_with_what_came_of_each_target() {
    let mut fleet = fleet(Database::default()).await;
    for number in 0..STEPS {
        step(&mut fleet, number);
        fleet.settle().await;
        if number < STEPS - 1 {
            assert_eq!(fleet.synced(), "True Database", "step {number}");
        }
    }
    let told = fleet.replica.told();
    assert_eq!(told[..6], LIFE);
    assert_eq!(told[6..], [END]);
    assert_eq!(fleet.object(), None, "it is let go");
    let records = fleet.replica.line();
    assert_eq!(outcomes(&records), OUTCOMES);
    assert!(records.iter().all(|record| record.envelope().kind == Kind::Rollout));
    let complete = parts(&records[3]);
    let failed = complete.iter().find(|part| part.outcome == "Failed").unwrap();
    assert_eq!((failed.reason.as_deref(), failed.wave.as_deref()), (Some("CrashLoop"), Some("rest")));
    assert!(complete.iter().filter(|part| part.scope == Scope::Target).all(|part| part.began <= part.ended));
    let canary = parts(&records[2]).into_iter().find(|part| part.key == "canary").unwrap();
    assert_eq!((canary.outcome.as_str(), canary.approved_by.as_deref()), ("Done", Some("erin@acme.example")));
    assert!(canary.began < canary.ended);
    let details = |record: &Record| serde_json::from_str::<Value>(record.details().unwrap()).unwrap();
    // A deletion is a generation, and nobody's stamp is of it.
    assert_eq!(details(&records[6])["askedBy"], "user:dana@acme.example");
    let details = details(&records[0]);
    assert_eq!(details["message"], format!("a release of {NEW}: 5 targets in 2 waves"));
    assert!(fleet.replica.database.verify().is_clean());
}

/// The watch tells of an end some time after it: a pass that begins in between is about nothing any more.
#[rstest]
#[case::into_the_database(Weather::Fair)]
#[case::into_a_tombstone(Weather::Away)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_was_let_go_is_not_let_go_again(#[case] weather: Weather) {
    let mut fleet = fleet(Database::default()).await;
    fleet.settle().await;
    fleet.replica.database.set(weather);
    fleet.delete();
    let mut last = fleet.object().unwrap();
    while fleet.object().is_some() {
        last = fleet.object().unwrap();
        fleet.pass().await.unwrap();
    }
    let writes = fleet.server.writes();
    let last: Deployment = serde_json::from_value(last).unwrap();
    let done = pass(&fleet.context, &last).await.unwrap();
    assert_eq!((done.writes, done.records, fleet.server.writes()), (0, 0, writes), "done again");
}

/// A target that a write of ours has ended, of whose end the watch has not told yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_let_go_is_none_before_the_watch_tells_of_it() {
    let mut fleet = fleet(Database::default()).await;
    fleet.settle().await;
    let targets = |fleet: &Fleet| fleet.object().unwrap()["status"]["targets"].clone();
    assert_eq!(targets(&fleet), 5);
    let mut service = fleet.context.tenants.everything()[0].as_ref().clone();
    service.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    service.metadata.finalizers = None;
    fleet.context.tenants.released(service);
    let rollout: Deployment = serde_json::from_value(fleet.object().unwrap()).unwrap();
    pass(&fleet.context, &rollout).await.unwrap();
    assert_eq!(fleet.context.tenants.len(), 5, "the watch has it");
    assert_eq!(targets(&fleet), 4);
}

#[rstest]
#[case::with_the_database(false)]
#[case::without(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_is_interrupted_at_any_write_is_told_the_same(#[case] is_away: bool) {
    let at_first = || {
        let database = Database::default();
        if is_away {
            database.set(Weather::Away);
        }
        database
    };
    let mut whole = fleet(at_first()).await;
    for number in 0..STEPS {
        step(&mut whole, number);
        whole.settle().await;
    }
    let writes = whole.server.writes();
    assert!(writes >= 20, "a life takes {writes} writes");
    for how in Cut::ALL {
        for left in 0..writes {
            let database = at_first();
            let mut fleet = fleet(database.clone()).await;
            fleet.server.cut_after(left, how);
            let mut is_cut = false;
            for number in 0..STEPS {
                step(&mut fleet, number);
                is_cut |= fleet.settle_through_a_cut().await;
            }
            database.set(Weather::Fair);
            fleet.replica.replayed().await;
            for _ in 0..10 {
                if fleet.bury().await == 0 {
                    break;
                }
            }
            // The last writes of a life depend on when a status is worth one.
            assert!(is_cut || left + 3 >= writes, "{how:?} {left}: nothing was cut");
            assert_eq!((fleet.object(), fleet.server.tombstones()), (None, 0), "{how:?} {left}");
            let told = fleet.replica.told();
            assert_eq!(told, LIFE.into_iter().chain([END]).collect::<Vec<_>>(), "{how:?} {left}");
            assert_eq!(outcomes(&fleet.replica.line()), OUTCOMES, "{how:?} {left}");
            let given: Vec<_> = fleet.world.services.iter().flat_map(|service| service.given.values()).collect();
            assert!(given.iter().all(|times| **times == 1), "{how:?} {left}: {given:?}");
            let report = database.verify();
            assert!(report.is_clean(), "{how:?} {left}: {report:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_targets_get_the_release_and_the_status_carries_the_records() {
    let mut fleet = fleet(Database::default()).await;
    fleet.settle().await;
    for weather in [Weather::Away, Weather::Silent] {
        fleet.replica.database.set(weather);
        let (number, done) = if weather == Weather::Away { (1, "Complete") } else { (2, "RolledBack") };
        let before = fleet.replica.told().len();
        step(&mut fleet, number);
        fleet.settle().await;
        assert_eq!(fleet.phase(), done);
        assert!(fleet.synced().starts_with("False "), "{}", fleet.synced());
        assert_eq!(fleet.pending(), LIFE.len() - before - if number == 1 { 2 } else { 0 }, "carried");
        assert_eq!(fleet.replica.told().len(), before);
        fleet.replica.database.set(Weather::Fair);
        fleet.replica.replayed().await;
        fleet.settle().await;
        assert_eq!((fleet.synced().as_str(), fleet.pending()), ("True Database", 0));
    }
    assert_eq!(fleet.replica.told(), LIFE);
    assert!(fleet.replica.database.verify().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_status_is_full_the_rollout_goes_on_and_what_it_came_to_is_told_afterwards() {
    let mut fleet = fleet(Database::default()).await;
    fleet.settle().await;
    fleet.replica.database.set(Weather::Away);
    for number in 0..SLOTS {
        fleet.change("dana@acme.example", |spec| spec["paused"] = json!(number % 2 == 0));
        fleet.settle().await;
    }
    assert_eq!(fleet.pending(), SLOTS);
    fleet.approve("erin@acme.example", "canary");
    for _ in 0..40 {
        assert_eq!(fleet.pass().await.unwrap_err().reason(), "LedgerFull");
        fleet.later(1);
    }
    assert_eq!(fleet.world.with(NEW).len(), 5, "every target got it all the same");
    assert_eq!((fleet.phase().as_str(), fleet.reason().as_str()), ("AwaitingApproval", "LedgerFull"));
    fleet.replica.database.set(Weather::Fair);
    fleet.replica.replayed().await;
    fleet.settle().await;
    assert_eq!(fleet.phase(), "Complete");
    let told = fleet.replica.told();
    assert_eq!((told.len(), told.last().unwrap().as_str()), (SLOTS + 2, "Complete user:erin@acme.example"));
    assert_eq!(outcomes(&fleet.replica.line()).len(), 5);
    assert!(fleet.replica.database.verify().is_clean());
}

#[tokio::test]
async fn what_came_of_many_targets_takes_as_many_records_as_it_fills_and_no_more() {
    let strategy = json!({"waves": [{"name": "all", "maxUnavailable": 500, "maxFailures": 500}]});
    let mut world = World::new(500, strategy);
    for service in &mut world.services {
        service.breaks_with = Some(NEW);
    }
    let mut fleet = Fleet::new(world, Database::default()).await;
    fleet.settle().await;
    let records = fleet.replica.line();
    let told = fleet.replica.told();
    assert_eq!(
        (told[0].as_str(), told.last().unwrap().as_str()),
        ("Began user:root@acme.example", "Complete berth:rollout")
    );
    assert!(told[1..told.len() - 1].iter().all(|one| one == "TargetsTold berth:rollout"), "{told:?}");
    assert!((6..=16).contains(&told.len()), "{} records", told.len());
    let all = outcomes(&records);
    assert_eq!(all.len(), 500, "each once");
    assert!(records.iter().all(|record| !record.details().unwrap().contains("omitted")));
    assert!(fleet.replica.database.verify().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_between_records_of_many_targets_is_told_or_counted() {
    let broken = || {
        let strategy = json!({"waves": [{"name": "all", "maxUnavailable": 200, "maxFailures": 200}]});
        let mut world = World::new(200, strategy);
        for service in &mut world.services {
            service.breaks_with = Some(NEW);
        }
        world
    };
    let mut whole = Fleet::new(broken(), Database::default()).await;
    whole.settle().await;
    let (writes, records) = (whole.server.writes(), whole.replica.told().len());
    assert!(records > 3, "{:?}", whole.replica.told());
    for left in writes - records..writes {
        let mut fleet = Fleet::new(broken(), Database::default()).await;
        fleet.server.cut_after(left, Cut::Before);
        assert!(fleet.settle_through_a_cut_once().await);
        fleet.change("dana@acme.example", |spec| spec["progressDeadlineSeconds"] = json!(90));
        // One record of what came of targets is shown, if there is one to come.
        fleet.server.cut_after(1, Cut::Before);
        let _ = fleet.pass_through_a_cut().await;
        fleet.change("erin@acme.example", |spec| spec["progressDeadlineSeconds"] = json!(100));
        fleet.settle_through_a_cut().await;
        assert_eq!(Vec::from_iter(generations(&fleet.replica.line())), [1, 2, 3], "{:?}", fleet.replica.told());
    }
}

#[tokio::test]
async fn another_release_is_another_rollout_and_what_was_changed_is_told_by_whom() {
    let mut fleet = fleet(Database::default()).await;
    fleet.settle().await;
    fleet.change("dana@acme.example", |spec| spec["progressDeadlineSeconds"] = json!(90));
    fleet.settle().await;
    fleet.change("dana@acme.example", |spec| spec["paused"] = json!(true));
    fleet.settle().await;
    fleet.change("erin@acme.example", |spec| spec["paused"] = json!(false));
    fleet.settle().await;
    fleet.change("gina@acme.example", |spec| spec["release"]["image"] = json!(NEWER));
    fleet.settle().await;
    assert_eq!(
        fleet.replica.told(),
        [
            LIFE[0],
            "Changed user:dana@acme.example",
            "Paused user:dana@acme.example",
            "AwaitingApproval user:erin@acme.example",
            "Began user:gina@acme.example",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_nobody_saw_are_counted_whatever_the_pass_before_came_to() {
    for left in 0..4 {
        let mut fleet = fleet(Database::default()).await;
        fleet.settle().await;
        fleet.change("dana@acme.example", |spec| spec["paused"] = json!(true));
        fleet.server.cut_after(left, Cut::Before);
        // Nobody passes here again before there is more to be seen.
        let _ = fleet.pass_through_a_cut().await;
        for paused in [false, true, false] {
            fleet.change("dana@acme.example", |spec| spec["paused"] = json!(paused));
        }
        fleet.settle_through_a_cut().await;
        assert_eq!(Vec::from_iter(generations(&fleet.replica.line())), [1, 2, 3, 4, 5], "cut after {left} writes");
    }
}

#[tokio::test]
async fn who_does_not_lead_tells_nothing_and_a_rollout_without_the_finalizer_gets_it_first() {
    let mut fleet = fleet(Database::default()).await;
    fleet.replica.leads(false);
    assert_eq!(fleet.pass().await.unwrap_err().reason(), "NotLeader");
    assert_eq!(fleet.replica.database.count(), 0);
    fleet.replica.leads(true);
    fleet.release_the_hold();
    fleet.server.requests();
    fleet.pass().await.unwrap();
    let requests = fleet.server.requests();
    assert_eq!(requests[0], "PATCH r");
    assert_eq!(fleet.object().unwrap()["metadata"]["finalizers"], json!(["berth.dev/ledger"]));
}

#[tokio::test]
async fn a_status_that_is_wiped_in_the_middle_forgets_nothing_that_was_told() {
    let mut fleet = fleet(Database::default()).await;
    fleet.settle().await;
    step(&mut fleet, 1);
    for _ in 0..4 {
        fleet.pass().await.unwrap();
        fleet.later(1);
    }
    fleet.wipe();
    fleet.settle().await;
    assert_eq!((fleet.phase().as_str(), fleet.synced().as_str()), ("Complete", "True Database"));
    let told = fleet.replica.told();
    let rewound = told.iter().position(|one| one == "ApiRewound berth:ledger").expect("it is said");
    assert_eq!(told[0], LIFE[0]);
    // What was told before is told once more from there on: how far it is now.
    assert!(told[rewound + 1].starts_with("Began "), "{told:?}");
    assert_eq!(told.last().unwrap(), "Complete berth:rollout");
    assert!(fleet.world.services.iter().flat_map(|service| service.given.values()).all(|times| *times == 1));
    assert!(fleet.replica.database.verify().is_clean());
}
