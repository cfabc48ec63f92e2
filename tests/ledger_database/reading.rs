//! What is read back is what was written, byte for byte.

use std::time::Duration;

use berth::{
    ledger::{self, Actor, Draft, Entry, Hash, Head, Kind, MAX_DETAILS, Micros, Record, Seal, postgres::Reader},
    lifecycle::State,
};
use futures::{StreamExt, TryStreamExt};
use proptest::{
    collection,
    prelude::{Just, Strategy, any, prop_oneof},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ledger,
    objects::{CLUSTER, Object, now},
    source,
};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn state() -> impl Strategy<Value = Option<State>> {
    proptest::option::of(proptest::sample::select(State::ALL.to_vec()))
}

fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![
        any::<String>().prop_map(Actor::User),
        any::<String>().prop_map(Actor::Guess),
        any::<String>().prop_map(Actor::Berth),
        Just(Actor::Unknown),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(vec![
        Kind::Transition,
        Kind::Unobserved,
        Kind::Lost,
        Kind::Import,
        Kind::Checkpoint,
        Kind::Resolution,
        Kind::Rollout,
        Kind::Quota,
        Kind::Grant,
    ])
}

fn draft() -> impl Strategy<Value = (Draft, i64, u64)> {
    let numbers = (-(1_i64 << 53) + 1..1_i64 << 53, 0_i64..86_400_000_000, 0_u64..1 << 53);
    let words = (any::<String>(), actor(), proptest::option::of(any::<u128>().prop_map(Uuid::from_u128)));
    (kind(), state(), state(), words, numbers, json_value()).prop_map(
        |(kind, from, to, (reason, actor, operation), (generation, back, epoch), details)| {
            let draft = Draft { kind, uid: Uuid::nil(), from, to, reason, actor, generation, operation, details };
            (draft, back, epoch)
        },
    )
}

#[tokio::test]
async fn what_is_read_back_is_byte_for_byte_what_was_written() {
    let (database, ledger) = ledger().await;
    let mut runner = TestRunner::deterministic();
    let mut written: Vec<Record> = vec![];
    for _ in 0..400 {
        let (mut draft, back, epoch) = draft().new_tree(&mut runner).unwrap().current();
        let object = Object::new("random");
        draft.uid = object.uid;
        let record = draft.seal(Seal { cluster: CLUSTER, epoch, at: Micros(now().0 - back) }, Head::GENESIS);
        written.push(record);
    }
    let answers = futures::future::join_all(written.iter().map(|record| {
        let mut object = Object::new("random");
        object.uid = record.envelope().uid;
        ledger.submit(object.entry(record))
    }))
    .await;
    for (answer, record) in answers.into_iter().zip(&written) {
        assert!(answer.is_ok(), "{answer:?}: {} {:?}", record.bytes(), record.details());
    }
    let reader = Reader::connect(&source(&database)).await.unwrap();
    let mut read: Vec<Record> = vec![];
    let mut chains = reader.chains();
    while let Some(stored) = chains.try_next().await.unwrap() {
        // The strictest reader agrees, digest of the details included.
        let record = Record::read(&stored.bytes, stored.details).unwrap();
        assert_eq!(stored.hash, record.hash());
        read.push(record);
    }
    written.sort_by_key(|record| record.envelope().uid);
    assert_eq!(read.len(), written.len());
    for (read, written) in read.iter().zip(&written) {
        assert_eq!(read.bytes(), written.bytes());
        assert_eq!(read.details(), written.details());
    }
}

#[tokio::test]
async fn details_of_any_size_keep_their_digest() {
    let (database, ledger) = ledger().await;
    for size in [0, MAX_DETAILS - 20, MAX_DETAILS + 1] {
        let object = Object::new("big");
        let mut draft_object = object.clone();
        let record = {
            let draft = Draft {
                kind: Kind::Transition,
                uid: object.uid,
                from: None,
                to: Some(State::Pending),
                reason: "Big".to_owned(),
                actor: Actor::Unknown,
                generation: 0,
                operation: None,
                details: json!({"text": "x".repeat(size)}),
            };
            draft.seal(Seal { cluster: CLUSTER, epoch: 1, at: now() }, Head::GENESIS)
        };
        ledger.submit(draft_object.entry(&record)).await.unwrap();
        draft_object.follow(&record);
    }
    let reader = Reader::connect(&source(&database)).await.unwrap();
    for stored in reader.timeline(Some(CLUSTER), "team-a", "big").await.unwrap() {
        assert!(Record::read(stored.record.bytes(), stored.record.details().map(str::to_owned)).is_ok());
    }
}

#[tokio::test]
async fn a_timeline_is_in_order_and_holds_every_object_of_that_name() {
    let (database, ledger) = ledger().await;
    let mut expected = vec![];
    for _ in 0..2 {
        let mut object = Object::new("db");
        for state in [State::Pending, State::Stopped, State::Deleted] {
            ledger.submit(object.step(state)).await.unwrap();
            expected.push((object.uid, object.head));
        }
    }
    ledger.submit(Object::new("other").step(State::Pending)).await.unwrap();
    let reader = Reader::connect(&source(&database)).await.unwrap();
    let timeline = reader.timeline(None, "team-a", "db").await.unwrap();
    assert!(timeline.iter().all(|moment| !moment.superseded && moment.target.kind == "TenantContainer"));
    let found: Vec<_> = timeline.iter().map(|s| (s.record.envelope().uid, s.record.head())).collect();
    assert_eq!(found, expected);
    assert!(reader.timeline(Some(Uuid::nil()), "team-a", "db").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_record_that_lost_is_named_in_the_timeline() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("db");
    ledger.submit(object.step(State::Pending)).await.unwrap();
    let mut shown = object.clone();
    ledger.submit(object.step(State::Running)).await.unwrap();
    // The head follows what was shown, which was not that record: as a resolution does.
    let mut connection = database.connect().await;
    sqlx::query("UPDATE berth.ledger_heads SET sequence = 1, hash = $1, prev = decode(repeat('00', 32), 'hex')")
        .bind(shown.head.hash.as_bytes())
        .execute(&mut connection)
        .await
        .unwrap();
    ledger.submit(shown.step(State::Failed)).await.unwrap();
    let reader = Reader::connect(&source(&database)).await.unwrap();
    let timeline = reader.timeline(None, "team-a", "db").await.unwrap();
    let mut told: Vec<_> = timeline.iter().map(|m| (m.record.envelope().to.unwrap(), m.superseded)).collect();
    told.sort();
    assert_eq!(told, [(State::Pending, false), (State::Running, true), (State::Failed, false)]);
}

#[tokio::test]
async fn chains_and_heads_are_read_page_by_page_and_agree() {
    let (database, ledger) = ledger().await;
    let lives = (0..700).map(|n| {
        let ledger = ledger.clone();
        async move {
            let mut object = Object::new(&format!("o-{n}"));
            for state in [State::Pending, State::Running, State::Paused] {
                ledger.submit(object.step(state)).await.unwrap();
            }
            (object.uid, object.head)
        }
    });
    let mut ends: Vec<_> = futures::future::join_all(lives).await;
    ends.sort_by_key(|(uid, _)| *uid);
    let reader = Reader::connect(&source(&database)).await.unwrap();
    let heads: Vec<_> = reader.heads().map_ok(|stored| (stored.chain.uid, stored.head)).try_collect().await.unwrap();
    assert_eq!(heads, ends);
    let records: Vec<_> =
        reader.chains().map_ok(|stored| (stored.chain.uid, stored.sequence)).try_collect().await.unwrap();
    let expected: Vec<_> = ends.iter().flat_map(|(uid, _)| [(*uid, 1), (*uid, 2), (*uid, 3)]).collect();
    assert_eq!(records, expected);
    let writers = reader.writers().await.unwrap();
    assert_eq!((writers.len(), writers[0].acknowledged), (1, 2100));
}

#[tokio::test]
async fn an_altered_row_is_seen_and_hides_no_other() {
    let (database, ledger) = ledger().await;
    for name in ["a", "b", "c"] {
        ledger.submit(Object::new(name).step(State::Pending)).await.unwrap();
    }
    database.execute("UPDATE berth.container_status_history SET actor = 'user:nobody' WHERE name = 'b'").await;
    database.execute("UPDATE berth.container_status_history SET v = 300 WHERE name = 'c'").await;
    let reader = Reader::connect(&source(&database)).await.unwrap();
    let rows: Vec<_> = reader.chains().collect().await;
    assert_eq!(rows.len(), 3);
    assert_eq!(rows.iter().filter(|row| row.is_err()).count(), 1);
    let altered: Vec<_> = rows.iter().flatten().filter(|s| Hash::of(s.bytes.as_bytes()) != s.hash).collect();
    assert_eq!(altered.len(), 1);
    assert!(altered[0].bytes.contains("user:nobody"));
}

#[tokio::test]
async fn the_head_is_readable_while_entries_stand_alone() {
    let (_database, ledger) = ledger().await;
    let object = Object::new("db");
    ledger.submit(Entry::Present(Box::new(object.snapshot()))).await.unwrap();
    assert_eq!(ledger.head(CLUSTER, object.uid).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_reads_each_record_about_once_however_many_there_are() {
    const RECORDS: i64 = 20_000;
    let (database, home) = crate::home().await;
    let mut objects: Vec<Object> = (0..20).map(|n| Object::new(&format!("o-{n}"))).collect();
    let mut entries = vec![];
    for hop in 0..RECORDS / 20 {
        let state = if hop == 0 { State::Pending } else { State::Running };
        entries.extend(objects.iter_mut().map(|object| object.step(state)));
    }
    home.import(entries).await.unwrap();
    // With these statistics PostgreSQL knows that all rows are of one cluster.
    database.execute("ANALYZE berth.container_status_history").await;
    let read = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes
                WHERE indexrelname LIKE 'container_status_history%pkey'";
    let before = database.number(read).await;
    let reader = ledger::Reader::Database(Reader::connect(&source(&database)).await.unwrap());
    let report = reader.verify().await.unwrap();
    assert!(report.is_clean());
    drop(reader);
    // Its connections tell what they read when they end.
    let told = async {
        loop {
            let now = database.number(read).await - before;
            if now >= RECORDS {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told).await.expect("nothing was read by the key");
    assert!(told < 2 * RECORDS, "{told} rows were read for {RECORDS} records");
}
