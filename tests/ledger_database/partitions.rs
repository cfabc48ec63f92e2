//! Months are there before they are needed, and made when a record needs another.

use berth::{
    ledger::{Backend, Ledger, Micros, Outcome, protocol::Certain},
    lifecycle::State,
};

use crate::{
    ledger,
    objects::{Object, now},
    open,
};

const MONTHS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'berth.container_status_history'::regclass";

#[tokio::test]
async fn this_month_and_three_ahead_are_made_at_the_start() {
    let (database, _ledger) = ledger().await;
    assert_eq!(database.number(MONTHS).await, 4);
    let _second = open(&database, "writer-1").await;
    assert_eq!(database.number(MONTHS).await, 4);
    let indexes =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'berth.container_status_history_by_name'::regclass";
    assert_eq!(database.number(indexes).await, 4, "a month lacks an index");
}

#[tokio::test]
async fn a_record_from_another_month_makes_its_month() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("db");
    // A year ago, and still one chain.
    let record = object.record(State::Pending, Micros(now().0 - 365 * 86_400_000_000));
    assert_eq!(ledger.submit(object.entry(&record)).await.unwrap(), Outcome::Durable(Backend::Database));
    object.follow(&record);
    assert_eq!(ledger.submit(object.step(State::Running)).await.unwrap(), Outcome::Durable(Backend::Database));
    assert_eq!(database.number(MONTHS).await, 5);
}

#[tokio::test]
async fn a_month_that_somebody_took_away_is_made_again() {
    let (database, ledger) = ledger().await;
    database
        .execute(
            "DO $$ DECLARE part text; BEGIN
                FOR part IN SELECT inhrelid::regclass::text FROM pg_inherits
                            WHERE inhparent IN ('berth.container_status_history'::regclass, 'berth.operation_logs'::regclass)
                LOOP EXECUTE 'DROP TABLE ' || part; END LOOP; END $$",
        )
        .await;
    let answer = ledger.submit(Object::new("db").step(State::Pending)).await;
    assert_eq!(answer.unwrap(), Outcome::Durable(Backend::Database));
}

#[tokio::test]
async fn a_month_that_cannot_be_made_stops_only_its_own_records() {
    let (database, ledger) = ledger().await;
    // Somebody detached last year's month and kept the table.
    let mut old = Object::new("old");
    let record = old.record(State::Pending, Micros(now().0 - 365 * 86_400_000_000));
    ledger.submit(old.entry(&record)).await.unwrap();
    old.follow(&record);
    database
        .execute(
            "DO $$ DECLARE part text; BEGIN
                SELECT min(inhrelid::regclass::text) INTO part FROM pg_inherits
                WHERE inhparent = 'berth.container_status_history'::regclass;
                EXECUTE 'ALTER TABLE berth.container_status_history DETACH PARTITION ' || part; END $$",
        )
        .await;
    let second = open(&database, "writer-1").await;
    let (late, mut new) = (Object::new("late"), Object::new("new"));
    let record = late.record(State::Pending, Micros(now().0 - 365 * 86_400_000_000));
    let (refused, kept) = tokio::join!(second.submit(late.entry(&record)), second.submit(new.step(State::Pending)));
    assert_eq!(refused.unwrap(), Outcome::Away(Certain::Spool), "it waits on the spool and in the status");
    assert_eq!(kept.unwrap(), Outcome::Durable(Backend::Database));
    // Replay does not stick at it either: it is put aside, where somebody looks at it.
    let aside = async {
        while database.number("SELECT count(*) FROM berth.ledger_quarantine").await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), aside).await.unwrap();
    assert_eq!(new_again(&second, &mut new).await, Outcome::Durable(Backend::Database));
}

async fn new_again(ledger: &Ledger, object: &mut Object) -> Outcome {
    ledger.submit(object.step(State::Running)).await.unwrap()
}
