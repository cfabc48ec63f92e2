//! Who did what: each operation once, and found again.

use berth::ledger::{Backend, Entry, LedgerError, OperationOutcome, Outcome, postgres::Reader};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    ledger,
    objects::{Object, record_of},
    source,
};

#[tokio::test]
async fn an_operation_has_a_start_and_a_finish_and_each_is_there_once() {
    let (database, ledger) = ledger().await;
    let object = Object::new("db");
    let id = Uuid::new_v4();
    let outcome = OperationOutcome { succeeded: false, duration_ms: 1234 };
    let (start, finish) = (object.operation(id, None), object.operation(id, Some(outcome)));
    for entry in [&start, &finish, &start, &finish] {
        assert_eq!(ledger.submit(entry.clone()).await.unwrap(), Outcome::Durable(Backend::Database));
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

#[tokio::test]
async fn another_record_under_the_same_operation_is_not_swallowed() {
    let (database, ledger) = ledger().await;
    let (mine, id) = (Object::new("db"), Uuid::new_v4());
    let entry = mine.operation(id, None);
    ledger.submit(entry.clone()).await.unwrap();
    // The same key, another content: as a writer would that encoded it anew.
    let at = record_of(&entry).envelope().at.0;
    let mut forged = database.connect().await;
    sqlx::query("UPDATE berth.operation_logs SET hash = decode(repeat('ab', 32), 'hex') WHERE at = to_timestamp(0) + $1 * interval '1 microsecond'")
        .bind(at as f64)
        .execute(&mut forged)
        .await
        .unwrap();
    let error = ledger.submit(entry).await.unwrap_err();
    assert!(matches!(error, LedgerError::Quarantined { .. }), "{error}");
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_quarantine WHERE what = 'operation'").await, 1);
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
