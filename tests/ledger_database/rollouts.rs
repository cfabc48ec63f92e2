//! `deployment_status`: what rollouts leave there, in whatever order and by whatever way it comes.

use berth::{
    ledger::{
        Actor, Backend, Counts, Draft, Entry, Head, Kind, Micros, Outcome, Part, Present, Record, Rollout, Scope, Seal,
        Snapshot, Target,
    },
    lifecycle::State,
};
use rstest::rstest;
use serde_json::json;
use uuid::Uuid;

use crate::{
    ledger,
    objects::{CLUSTER, now},
    open,
    postgres::Database,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);
const CANARY: u128 = 0xa;
const OTHER: u128 = 0xb;

/// A rollout and the end of its chain, as its pass knows them.
#[derive(Clone)]
struct Rolled {
    uid: Uuid,
    revision: &'static str,
    head: Head,
}

fn blank(scope: Scope, key: &str, outcome: &str) -> Part {
    Part {
        scope,
        key: key.to_owned(),
        wave: None,
        namespace: None,
        name: None,
        outcome: outcome.to_owned(),
        reason: None,
        message: None,
        began: Some(Micros(1_790_000_000_000_001)),
        ended: None,
        counts: None,
        approved_by: None,
    }
}

fn whole(outcome: &str) -> Part {
    let counts = Counts { targets: 2, released: 1, done: 1, failed: 0 };
    let ended = matches!(outcome, "Complete" | "Deleted").then_some(Micros(1_790_000_000_000_009));
    Part { reason: Some(outcome.to_owned()), counts: Some(counts), ended, ..blank(Scope::Rollout, "", outcome) }
}

fn wave(outcome: &str) -> Part {
    Part { approved_by: Some("erin".to_owned()), ..blank(Scope::Wave, "canary", outcome) }
}

fn target(uid: u128, outcome: &str) -> Part {
    let ended = (!matches!(outcome, "Waiting" | "Updating")).then_some(Micros(1_790_000_000_000_002));
    Part {
        wave: Some("canary".to_owned()),
        namespace: Some("team-a".to_owned()),
        name: Some(format!("service-{uid}")),
        ended,
        ..blank(Scope::Target, &Uuid::from_u128(uid).to_string(), outcome)
    }
}

impl Rolled {
    fn new() -> Self {
        Self { uid: Uuid::new_v4(), revision: "one", head: Head::GENESIS }
    }

    fn target(&self) -> Target {
        Target {
            cluster: CLUSTER,
            uid: self.uid,
            kind: "Deployment".to_owned(),
            namespace: "team-a".to_owned(),
            name: "engine".to_owned(),
        }
    }

    fn record(&self, reason: &str, parts: &[Part]) -> Record {
        let draft = Draft {
            kind: Kind::Rollout,
            uid: self.uid,
            from: None,
            to: (reason == "Removed").then_some(State::Deleted),
            reason: reason.to_owned(),
            actor: Actor::User("dana".to_owned()),
            generation: 1,
            operation: None,
            details: json!({
                "message": reason, "revision": self.revision, "image": "engine:2", "askedBy": "user:dana", "parts": parts,
            }),
        };
        draft.seal(Seal { cluster: CLUSTER, epoch: 1, at: now() }, self.head)
    }

    fn snapshot(&self, head: Head, parts: Vec<Part>) -> Snapshot {
        Snapshot {
            target: self.target(),
            created_at: Micros(1_760_000_000_000_001),
            observed_at: now(),
            generation: 1,
            epoch: 1,
            head,
            present: Present::Rollout(Rollout {
                revision: self.revision.to_owned(),
                image: "engine:2".to_owned(),
                asked_by: Actor::User("dana".to_owned()),
                removed: parts.iter().any(|part| part.outcome == "Deleted"),
                whole: true,
                parts,
            }),
        }
    }

    /// A record that tells `told`, and everything as it is then.
    fn step(&mut self, reason: &str, told: &[Part], all: Vec<Part>) -> Entry {
        let record = self.record(reason, told);
        self.head = record.head();
        Entry::Chained { snapshot: Box::new(self.snapshot(record.head(), all)), record }
    }

    /// A life of two revisions, of which the second's object is deleted.
    fn life(&mut self) -> Vec<Entry> {
        let both = |one: &str, other: &str| vec![target(CANARY, one), target(OTHER, other)];
        let with = |mut parts: Vec<Part>, rollout: &str, of_wave: &str| {
            parts.extend([whole(rollout), wave(of_wave)]);
            parts
        };
        let began = self.step(
            "Began",
            &[whole("Progressing"), wave("Progressing")],
            with(both("Updating", "Waiting"), "Progressing", "Progressing"),
        );
        let mut told = both("Updated", "Failed");
        told.extend([whole("Complete"), wave("Done")]);
        let complete = self.step("Complete", &told, with(both("Updated", "Failed"), "Complete", "Done"));
        self.revision = "two";
        let again = self.step(
            "Began",
            &[whole("Progressing"), wave("Progressing")],
            with(both("Updating", "Waiting"), "Progressing", "Progressing"),
        );
        let removed = self.step(
            "Removed",
            &[whole("Deleted"), target(CANARY, "Updated")],
            // The other one is gone by then.
            vec![whole("Deleted"), wave("Progressing"), target(CANARY, "Updated")],
        );
        vec![began, complete, again, removed]
    }
}

/// All rows, but for their places in the chain.
async fn rows(database: &Database) -> Vec<String> {
    let all = "SELECT concat_ws(' ', revision, scope, coalesce(target_name, part), outcome, deleted)
               FROM berth.deployment_status";
    let mut all: Vec<String> = sqlx::query_scalar(all).fetch_all(&mut database.connect().await).await.unwrap();
    all.sort();
    all
}

const LIFE: [&str; 8] = [
    "one rollout  Complete t",
    "one target service-10 Updated f",
    "one target service-11 Failed f",
    "one wave canary Done f",
    "two rollout  Deleted t",
    "two target service-10 Updated f",
    "two target service-11 Vanished f",
    "two wave canary Progressing f",
];

#[tokio::test]
async fn each_rollout_wave_and_target_has_its_row_with_outcome_and_times() {
    let (database, ledger) = ledger().await;
    let mut rollout = Rolled::new();
    for entry in rollout.life() {
        assert_eq!(ledger.submit(entry).await.unwrap(), DURABLE);
    }
    assert_eq!(rows(&database).await, LIFE);
    let times = "SELECT count(*) FROM berth.deployment_status
                 WHERE scope = 'target' AND revision = 'one' AND wave = 'canary' AND target_namespace = 'team-a'
                   AND began_at = timestamptz 'epoch' + 1790000000000001 * interval '1 microsecond' AND ended_at > began_at";
    assert_eq!(database.number(times).await, 2);
    let approved = "SELECT count(*) FROM berth.deployment_status WHERE scope = 'wave' AND approved_by = 'erin'";
    assert_eq!(database.number(approved).await, 2);
    let asked = "SELECT count(*) FROM berth.deployment_status
                 WHERE scope = 'rollout' AND asked_by = 'user:dana' AND targets = 2 AND done = 1 AND image = 'engine:2'";
    assert_eq!(database.number(asked).await, 2);
    assert_eq!(database.number("SELECT count(*) FROM berth.rollout_history").await, 4);
}

#[tokio::test]
async fn an_older_sight_of_a_rollout_never_replaces_a_newer_one_and_the_same_one_changes_nothing() {
    let (database, ledger) = ledger().await;
    let mut rollout = Rolled::new();
    let life = rollout.life();
    for entry in life.clone() {
        ledger.submit(entry).await.unwrap();
    }
    for entry in life {
        let Entry::Chained { mut snapshot, .. } = entry else { unreachable!() };
        // By the clock of a leader that is ahead; the last of all is as it was.
        if snapshot.head.sequence < 4 {
            snapshot.observed_at.0 += 60_000_000;
        }
        ledger.submit(Entry::Present(snapshot)).await.unwrap();
    }
    assert_eq!(rows(&database).await, LIFE);
}

#[tokio::test]
async fn a_release_that_another_takes_the_place_of_goes_on_no_more() {
    let (database, ledger) = ledger().await;
    let mut rollout = Rolled::new();
    let open = |parts: Vec<Part>| [vec![whole("Progressing")], parts].concat();
    let first = rollout.step("Began", &[whole("Progressing")], open(vec![target(CANARY, "Updating")]));
    rollout.revision = "two";
    let second = rollout.step("Began", &[whole("Progressing")], open(vec![target(CANARY, "Waiting")]));
    for entry in [first, second] {
        ledger.submit(entry).await.unwrap();
    }
    let closed = "SELECT count(*) FROM berth.deployment_status
                  WHERE scope = 'rollout' AND revision = 'one' AND outcome = 'Superseded' AND ended_at IS NOT NULL";
    assert_eq!(database.number(closed).await, 1);
    let open = "SELECT count(*) FROM berth.deployment_status
                WHERE scope = 'rollout' AND revision = 'two' AND outcome = 'Progressing' AND ended_at IS NULL";
    assert_eq!(database.number(open).await, 1);
}

/// What brings a record when it has no snapshot with it: nobody but the chain knows what it said.
#[rstest]
#[case::in_their_order(&[0, 1, 2])]
#[case::the_first_last(&[1, 2, 0])]
#[case::twice(&[0, 0, 1, 2, 1])]
#[tokio::test]
async fn what_comes_without_snapshots_is_told_by_the_chain(#[case] order: &[usize]) {
    let (database, ledger) = ledger().await;
    let mut rollout = Rolled::new();
    let records: Vec<Record> = rollout
        .life()
        .into_iter()
        .map(|entry| match entry {
            Entry::Chained { record, .. } => record,
            _ => unreachable!(),
        })
        .collect();
    for number in order {
        assert!(ledger.bring(&rollout.target(), &records[*number..=*number]).await.unwrap());
    }
    // An ending is let in by whoever notes that it was shown.
    ledger.bring(&rollout.target(), &records[3..]).await.unwrap();
    ledger.put_head(&rollout.target(), Some(records[2].head()), records[3].head(), 1).await.unwrap();
    // Which target was there and is gone, only snapshots tell; and who was never told of is not there.
    let told: Vec<&str> = LIFE.into_iter().filter(|row| !row.contains("Vanished")).collect();
    assert_eq!(rows(&database).await, told);
}

#[tokio::test]
async fn a_record_that_was_never_shown_leaves_no_row_behind() {
    let (database, ledger) = ledger().await;
    let mut rollout = Rolled::new();
    let began = rollout.step(
        "Began",
        &[whole("Progressing"), target(CANARY, "Updating")],
        vec![whole("Progressing"), target(CANARY, "Updating")],
    );
    ledger.submit(began).await.unwrap();
    let (shown, behind) = (rollout.clone(), rollout.head);
    // Another leader's, which was not shown, and says something else.
    ledger
        .submit(rollout.step(
            "Complete",
            &[whole("Complete"), target(CANARY, "Failed")],
            vec![whole("Complete"), target(CANARY, "Failed")],
        ))
        .await
        .unwrap();
    let lost = rollout.head;
    let record = shown.record("Paused", &[whole("Paused"), target(CANARY, "Updated")]);
    ledger.bring(&shown.target(), std::slice::from_ref(&record)).await.unwrap();
    assert_eq!(ledger.follow(&shown.target(), Some(lost), record.head()).await.unwrap(), Some(true));
    assert_eq!(record.envelope().prev, behind.hash);
    assert_eq!(rows(&database).await, ["one rollout  Paused f", "one target service-10 Updated f"]);
    // And what is shown next is taken.
    let second = open(&database, "writer-1").await;
    let mut shown = Rolled { head: record.head(), ..shown };
    let done = shown.step("Complete", &[whole("Complete")], vec![whole("Complete"), target(CANARY, "Updated")]);
    assert_eq!(second.submit(done).await.unwrap(), DURABLE);
    assert_eq!(rows(&database).await, ["one rollout  Complete f", "one target service-10 Updated f"]);
}
