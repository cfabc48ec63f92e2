//! Who did what: each operation once, and found again.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use berth::ledger::{
    Backend, Draft, Entry, Head, Ledger, LedgerError, Micros, OperationOutcome, Outcome, Seal, postgres::Reader,
};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    counters, ledger,
    objects::{Object, now, record_of},
    open,
    postgres::Database,
    source,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

#[tokio::test]
async fn an_operation_has_a_start_and_a_finish_and_each_is_there_once() {
    let (database, ledger) = ledger().await;
    let object = Object::new("db");
    let id = Uuid::new_v4();
    let outcome = OperationOutcome { succeeded: false, duration_ms: 1234 };
    let (start, finish) = (object.operation(id, None), object.operation(id, Some(outcome)));
    for entry in [&start, &finish, &start, &finish] {
        assert_eq!(ledger.submit(entry.clone()).await.unwrap(), DURABLE);
    }
    let rows = Reader::connect(&source(&database)).await.unwrap().operations(object.uid).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0].record, rows[0].outcome), (&record_of(&start), None));
    assert_eq!(
        (&rows[1].record, rows[1].outcome, &rows[1].target),
        (&record_of(&finish), Some(outcome), &object.target())
    );
    assert!(rows.iter().all(|row| row.hash == row.record.hash()));
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 2);
    let found =
        "SELECT count(*) FROM berth.operation_logs WHERE search @@ websearch_to_tsquery('simple', 'full moon alice')";
    assert_eq!(database.number(found).await, 2);
}

/// The same phase of the same operation, as a leader tells it whose predecessor did not get to show it.
fn retold(entry: &Entry, reason: &str, at: Micros) -> Entry {
    let Entry::Operation { record, target, outcome } = entry.clone() else { panic!() };
    let envelope = record.envelope().clone();
    let draft = Draft {
        kind: envelope.kind,
        uid: envelope.uid,
        from: envelope.from,
        to: envelope.to,
        reason: reason.to_owned(),
        actor: envelope.actor,
        generation: envelope.generation,
        operation: envelope.operation,
        details: serde_json::json!({"why": "nobody saw it"}),
    };
    let seal = Seal { cluster: envelope.cluster, epoch: envelope.epoch + 1, at };
    Entry::Operation { record: draft.seal(seal, Head::GENESIS), target, outcome }
}

fn adopt(entry: &Entry) -> Outcome {
    Outcome::Adopt(Box::new(record_of(entry)))
}

async fn rows(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM berth.operation_logs").await
}

#[tokio::test]
async fn an_operation_that_is_told_again_is_there_as_it_was_told_first() {
    let (database, ledger) = ledger().await;
    let (object, id) = (Object::new("db"), Uuid::new_v4());
    let outcome = OperationOutcome { succeeded: true, duration_ms: 7 };
    for told in [object.operation(id, None), object.operation(id, Some(outcome))] {
        let at = record_of(&told).envelope().at;
        assert_eq!(ledger.submit(told.clone()).await.unwrap(), DURABLE);
        let another_month = Micros(at.0 - 40 * 24 * 3_600_000_000);
        for again in [retold(&told, "Restart", now()), retold(&told, "Changed", at), retold(&told, "X", another_month)]
        {
            let answer = ledger.submit(again).await.unwrap();
            assert_eq!(answer, adopt(&told), "another account stands, and nobody is told");
            let Outcome::Adopt(adopted) = answer else { panic!() };
            assert_eq!(adopted.details(), record_of(&told).details());
        }
        assert_eq!(ledger.submit(told).await.unwrap(), DURABLE);
    }
    assert_eq!(rows(&database).await, 2);
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_quarantine").await, 0);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 2, "only what was added");
}

#[tokio::test]
async fn of_two_accounts_in_one_batch_the_first_stands() {
    let (database, ledger) = ledger().await;
    let first = Object::new("db").operation(Uuid::new_v4(), None);
    let second = retold(&first, "Changed", now());
    let submits = [&first, &second, &first, &second].map(|entry| ledger.submit(entry.clone()));
    let answers: Vec<_> = futures::future::join_all(submits).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [DURABLE, adopt(&first), DURABLE, adopt(&first)]);
    assert_eq!(rows(&database).await, 1);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 1);
    assert_eq!(counters(&ledger).transactions.load(Ordering::Relaxed), 1, "it was one batch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_leaders_that_tell_of_the_same_operations_agree_on_them() {
    let (database, old) = ledger().await;
    let new = open(&database, "writer-1").await;
    let object = Object::new("db");
    let told: Vec<Entry> = (0..400).map(|_| object.operation(Uuid::new_v4(), None)).collect();
    let again: Vec<Entry> = told.iter().rev().map(|entry| retold(entry, "Changed", now())).collect();
    let tell = |ledger: Ledger, entries: Vec<Entry>| {
        tokio::spawn(async move {
            let submits = entries.iter().map(|entry| {
                let ledger = ledger.clone();
                let entry = entry.clone();
                tokio::spawn(async move { (record_of(&entry), ledger.submit(entry).await.unwrap()) })
            });
            let mut stands = BTreeMap::new();
            for done in futures::future::join_all(submits.collect::<Vec<_>>()).await {
                let (record, answer) = done.unwrap();
                let stand = match answer {
                    Outcome::Durable(_) => record.clone(),
                    Outcome::Adopt(other) => *other,
                    other => panic!("no answer about an operation: {other:?}"),
                };
                stands.insert(record.envelope().operation, stand.hash());
            }
            stands
        })
    };
    let (mine, theirs) = tokio::join!(tell(old, told), tell(new, again));
    assert!(mine.unwrap() == theirs.unwrap(), "both show the same accounts");
    assert_eq!(rows(&database).await, 400);
    assert_eq!(database.number("SELECT sum(acknowledged)::bigint FROM berth.ledger_writers").await, 400);
}

#[tokio::test]
async fn an_account_that_was_altered_is_not_shown() {
    let (database, ledger) = ledger().await;
    let told = Object::new("db").operation(Uuid::new_v4(), None);
    ledger.submit(told.clone()).await.unwrap();
    database.execute("UPDATE berth.operation_logs SET actor = 'user:mallory'").await;
    let error = ledger.submit(retold(&told, "Changed", now())).await.unwrap_err();
    assert!(matches!(error, LedgerError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn verification_names_two_accounts_of_one_phase() {
    let (database, ledger) = ledger().await;
    let object = Object::new("db");
    let id = Uuid::new_v4();
    let others: Vec<Entry> = (0..1_100).map(|_| object.operation(Uuid::new_v4(), None)).collect();
    let told = [object.operation(id, None), object.operation(Uuid::new_v4(), None)];
    let submits = told.iter().chain(&others).map(|entry| ledger.submit(entry.clone()));
    assert!(futures::future::join_all(submits).await.into_iter().all(|answer| answer.is_ok()));
    let reader = berth::ledger::Reader::Database(Reader::connect(&source(&database)).await.unwrap());
    assert!(reader.verify().await.unwrap().is_clean());

    // What no writer can do any more: the second account gets the first one's operation, and the hash that follows.
    let forged = retold(&told[0], "Changed", record_of(&told[1]).envelope().at);
    let record = record_of(&forged);
    sqlx::query(
        "UPDATE berth.operation_logs SET operation_id = $1, hash = $2, action = 'Changed', epoch = 2, details = $3,
             details_hash = $4 WHERE operation_id = $5",
    )
    .bind(id)
    .bind(record.hash().as_bytes().as_slice())
    .bind(serde_json::json!({"why": "nobody saw it"}))
    .bind(record.envelope().details.as_bytes().as_slice())
    .bind(record_of(&told[1]).envelope().operation)
    .execute(&mut database.connect().await)
    .await
    .unwrap();
    let verified = reader.verify().await.unwrap();
    assert_eq!((verified.report.violations.len(), verified.damages), (1, vec![]), "{:?}", verified.report.violations);
    let said = verified.report.violations[0].to_string();
    let hashes = format!("{} and by record {}", record_of(&told[0]).hash(), record.hash());
    assert!(said.contains(&format!("start of operation {id} is told twice")) && said.contains(&hashes), "{said}");
}

#[tokio::test]
async fn what_contradicts_itself_does_not_come_in() {
    let (_database, ledger) = ledger().await;
    let mut object = Object::new("db");
    let Entry::Chained { record, .. } = object.step(berth::lifecycle::State::Pending) else { panic!() };
    let wrong = Entry::Operation { record, target: object.target(), outcome: None };
    let error = ledger.submit(wrong).await.unwrap_err();
    assert!(matches!(error, LedgerError::Malformed { .. }), "{error}");
    let stranger = Object::new("other");
    let error =
        ledger.submit(stranger.entry(&object.record(berth::lifecycle::State::Running, crate::objects::now()))).await;
    assert!(matches!(error, Err(LedgerError::Malformed { .. })), "{error:?}");
}

#[tokio::test]
async fn the_whole_audit_is_read_page_by_page() {
    let (database, ledger) = ledger().await;
    let object = Object::new("db");
    let entries: Vec<Entry> = (0..1_300).map(|_| object.operation(Uuid::new_v4(), None)).collect();
    let answers = futures::future::join_all(entries.iter().map(|entry| ledger.submit(entry.clone()))).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
    let reader = Reader::connect(&source(&database)).await.unwrap();
    let mut read: Vec<_> = reader.audit().map_ok(|stored| stored.record.hash()).try_collect().await.unwrap();
    let mut written: Vec<_> = entries.iter().map(|entry| record_of(entry).hash()).collect();
    read.sort();
    written.sort();
    assert_eq!(read, written);
}
