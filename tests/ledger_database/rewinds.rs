//! A database that was restored or failed over to an older state is found out, and the replica goes on (rule 5).

use std::{sync::atomic::Ordering, time::Duration};

use berth::{
    ledger::{
        Backend, Entry, Outcome,
        postgres::{Home, Imported},
    },
    lifecycle::State,
};
use sqlx::Connection;

use crate::{
    behind_a_proxy, home,
    objects::{CLUSTER, Object, record_of},
    postgres::Database,
    proxy::Weather,
    up,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

#[tokio::test]
async fn a_database_that_forgot_under_the_same_connection_is_found_out_and_gets_its_tail_again() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    let tail: Vec<Entry> = [State::Pending, State::Running, State::Paused].map(|state| object.step(state)).into();
    home.submit(tail[0].clone()).await.unwrap();
    database.execute("CREATE TABLE berth.kept AS SELECT * FROM berth.ledger_writers").await;
    database.execute("CREATE TABLE berth.kept_heads AS SELECT * FROM berth.ledger_heads").await;
    home.submit(tail[1].clone()).await.unwrap();
    home.submit(tail[2].clone()).await.unwrap();
    database
        .execute(
            "DELETE FROM berth.ledger_writers; INSERT INTO berth.ledger_writers SELECT * FROM berth.kept;
             DELETE FROM berth.ledger_heads; INSERT INTO berth.ledger_heads SELECT * FROM berth.kept_heads;
             DELETE FROM berth.container_status_history WHERE sequence > 1",
        )
        .await;
    let mut rewinds = home.rewinds();
    assert_eq!(*rewinds.borrow_and_update(), 0);
    // Another object's record is what finds it; it is written all the same.
    assert_eq!(home.submit(Object::new("other").step(State::Pending)).await.unwrap(), DURABLE);
    rewinds.changed().await.unwrap();
    assert_eq!((*rewinds.borrow(), home.counters().rewinds.load(Ordering::Relaxed)), (1, 1));
    assert!(home.is_up());
    let record = object.record(State::Stopped, crate::objects::now());
    let answer = home.submit(object.entry(&record)).await.unwrap();
    let first = record_of(&tail[0]).head();
    assert_eq!(answer, Outcome::Elsewhere { head: first, shown_is_ancestor: false });
    assert_eq!(home.import(tail).await.unwrap(), Imported { added: 2, quarantined: 0 });
    assert_eq!(home.submit(object.entry(&record)).await.unwrap(), DURABLE);
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 5);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 5);
}

#[tokio::test]
async fn a_writer_that_the_database_no_longer_knows_registers_again() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    database.execute("DELETE FROM berth.ledger_writers").await;
    assert_eq!(home.submit(object.step(State::Running)).await.unwrap(), DURABLE);
    assert_eq!(*home.rewinds().borrow(), 1);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 1);
}

#[tokio::test]
async fn a_database_restored_from_a_copy_is_found_out_when_it_comes_back() {
    let (database, proxy, source) = behind_a_proxy().await;
    let home = Home::open(&source, "writer-0").await.unwrap();
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    let name = database.name();
    // The copy: nobody may be in the database meanwhile.
    proxy.set(Weather::Cut);
    database.cut("writer-0").await;
    database.admin(format!("CREATE DATABASE {name}_copy TEMPLATE {name}")).await;
    proxy.set(Weather::Fair);
    let late = object.step(State::Running);
    let mut answer = home.submit(late.clone()).await;
    while answer.is_err() {
        up(&home).await;
        answer = home.submit(late.clone()).await;
    }
    assert_eq!(*home.rewinds().borrow(), 0, "an outage is no rewind");
    // The restore.
    proxy.set(Weather::Cut);
    database.admin(format!("DROP DATABASE {name} WITH (FORCE); ALTER DATABASE {name}_copy RENAME TO {name}")).await;
    assert!(home.submit(Object::new("x").step(State::Pending)).await.is_err());
    proxy.set(Weather::Fair);
    up(&home).await;
    assert_eq!(*home.rewinds().borrow(), 1);
    assert_eq!(home.head(CLUSTER, object.uid).await.unwrap().unwrap().head.sequence, 1);
    assert_eq!(home.import(vec![late]).await.unwrap().added, 1);
    assert_eq!(home.head(CLUSTER, object.uid).await.unwrap().unwrap().head, object.head);
}

#[tokio::test]
async fn an_import_whose_first_part_is_lost_moves_no_head_and_comes_again() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    database.execute("CREATE TABLE berth.kept AS SELECT * FROM berth.ledger_writers").await;
    let late: Vec<Entry> = [State::Running, State::Paused].map(|state| object.step(state)).into();
    // Heads are moved in a later transaction than the one that stores: it has to wait here.
    let mut gate = database.connect().await;
    let mut gate = gate.begin().await.unwrap();
    sqlx::query("LOCK TABLE berth.ledger_heads").execute(&mut *gate).await.unwrap();
    let rewind = async {
        until_stored(&database, 3).await;
        // No record is lost from here on but those of the import: only the mark shows it.
        database
            .execute(
                "DELETE FROM berth.ledger_writers; INSERT INTO berth.ledger_writers SELECT * FROM berth.kept;
                 DELETE FROM berth.container_status_history WHERE sequence > 1",
            )
            .await;
        gate.commit().await.unwrap();
    };
    let (imported, ()) = tokio::join!(home.import(late.clone()), rewind);
    assert_eq!(imported.unwrap_err().reason(), "LedgerRewound");
    let head = "SELECT sequence FROM berth.ledger_heads";
    assert_eq!(database.number(head).await, 1, "a head that names a record which nobody has");
    up(&home).await;
    assert_eq!(*home.rewinds().borrow(), 1);
    assert_eq!(home.import(late).await.unwrap(), Imported { added: 2, quarantined: 0 });
    assert_eq!(database.number(head).await, 3);
}

#[tokio::test]
async fn an_import_over_what_is_there_already_relies_on_its_mark_as_well() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    let late: Vec<Entry> = [State::Pending, State::Running].map(|state| object.step(state)).into();
    home.import(late.clone()).await.unwrap();
    let mark = "SELECT ('x' || substr(encode(digest, 'hex'), 1, 16))::bit(64)::bigint FROM berth.ledger_writers";
    let before = database.number(mark).await;
    assert_eq!(home.import(late).await.unwrap(), Imported::default());
    assert_ne!(database.number(mark).await, before, "an import that added nothing has left no trace");
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 2);
}

async fn until_stored(database: &Database, records: i64) {
    let all = async {
        while database.number("SELECT count(*) FROM berth.container_status_history").await < records {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("the import does not store");
}
