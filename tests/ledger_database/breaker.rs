//! A database that is away costs nobody any time, says why, and is taken back once it is well.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use berth::{
    ledger::{
        Backend, LedgerError, Outcome,
        postgres::{Home, Source, Standing, migrate},
    },
    lifecycle::State,
};
use sqlx::Connection;
use uuid::Uuid;

use crate::{
    behind_a_proxy, down, fake, home,
    objects::{CLUSTER, Object},
    postgres::Database,
    proxy::Weather,
    source, up,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

/// Below every time-out of ours (2 s is the shortest), far above what an answer from memory takes on a busy machine: 0.3 s for
/// a hundred of them was seen.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_replica_starts_without_its_database_and_finds_it_later() {
    let (database, proxy, source) = behind_a_proxy().await;
    proxy.set(Weather::Cut);
    let started = Instant::now();
    let home = Home::start(&source, "writer-0").unwrap();
    let mut object = Object::new("db");
    let entry = object.step(State::Pending);
    assert!(matches!(home.submit(entry.clone()).await, Err(LedgerError::Unavailable { .. })));
    assert!(home.head(CLUSTER, object.uid).await.is_err());
    assert!(home.import(vec![entry.clone()]).await.is_err());
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    down(&home, "DatabaseUnavailable").await;
    proxy.set(Weather::Fair);
    up(&home).await;
    assert_eq!(home.submit(entry).await.unwrap(), DURABLE);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 1);
    assert!(home.counters().probes_failed.load(Ordering::Relaxed) > 0);
    assert_eq!(home.counters().opened.load(Ordering::Relaxed), 0, "it was never closed before");
}

#[tokio::test]
async fn what_no_waiting_helps_is_told_at_the_start() {
    for url in ["nonsense", "postgres://u@db.example/b?sslmode=disable"] {
        let error = Home::start(&Source::Url(url.to_owned()), "writer-0").unwrap_err();
        assert_eq!(error.reason(), "LedgerMisconfigured");
    }
}

#[tokio::test]
async fn a_database_that_goes_away_and_comes_back_is_used_again() {
    let (database, proxy, source) = behind_a_proxy().await;
    let home = Home::open(&source, "writer-0").await.unwrap();
    let mut object = Object::new("db");
    assert_eq!(home.submit(object.step(State::Pending)).await.unwrap(), DURABLE);
    for state in [State::Running, State::Paused] {
        proxy.set(Weather::Cut);
        let entry = object.step(state);
        assert!(matches!(home.submit(entry.clone()).await, Err(LedgerError::Unavailable { .. })));
        let started = Instant::now();
        for _ in 0..100 {
            assert!(home.submit(entry.clone()).await.is_err());
        }
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        proxy.set(Weather::Fair);
        up(&home).await;
        assert_eq!(home.submit(entry).await.unwrap(), DURABLE);
    }
    assert_eq!(home.counters().opened.load(Ordering::Relaxed), 2);
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 3);
}

#[tokio::test]
async fn a_budget_that_passed_answers_everybody_and_sends_nothing_more() {
    let (database, proxy, source) = behind_a_proxy().await;
    let home = Arc::new(Home::open(&source, "writer-0").await.unwrap());
    proxy.set(Weather::Silent);
    let waiters: Vec<_> = (0..100)
        .map(|n| {
            let home = Arc::clone(&home);
            tokio::spawn(async move { home.submit(Object::new(&format!("o-{n}")).step(State::Pending)).await })
        })
        .collect();
    // The door's budget.
    let first = tokio::time::timeout(Duration::from_millis(300), home.submit(Object::new("x").step(State::Pending)));
    assert!(first.await.is_err(), "nothing answers");
    let started = Instant::now();
    home.missed();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap_err().reason(), "DatabaseTimedOut");
    }
    assert!(home.submit(Object::new("y").step(State::Pending)).await.is_err());
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    // Within its grace the batch may still arrive: the database is asked anew once that is over.
    until(|| home.counters().probes_failed.load(Ordering::Relaxed) > 0).await;
    proxy.set(Weather::Fair);
    up(&home).await;
    assert_eq!(home.waiting(), 0, "the queue is empty before anything new comes");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(home.submit(Object::new("z").step(State::Pending)).await.unwrap(), DURABLE);
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 1, "only the last one");
}

#[tokio::test]
async fn a_database_that_was_too_slow_and_wakes_for_a_moment_is_not_taken_back() {
    let (_database, proxy, source) = behind_a_proxy().await;
    let home = Home::open(&source, "writer-0").await.unwrap();
    proxy.set(Weather::Silent);
    home.missed();
    down(&home, "DatabaseTimedOut").await;
    proxy.set(Weather::OneProbe);
    let mut standing = home.standing();
    tokio::select! {
        _ = standing.wait_for(|standing| matches!(standing, Standing::Up)) => panic!("whoever asks now waits in vain"),
        () = until(|| home.counters().probes_failed.load(Ordering::Relaxed) > 0) => {}
    }
    assert!(!home.is_up());
    proxy.set(Weather::Fair);
    up(&home).await;
    assert_eq!(home.submit(Object::new("db").step(State::Pending)).await.unwrap(), DURABLE);
}

#[tokio::test]
async fn however_many_questions_wait_a_batch_does_not() {
    let (database, home) = home().await;
    let home = Arc::new(home);
    let mut object = Object::new("db");
    assert_eq!(home.submit(object.step(State::Pending)).await.unwrap(), DURABLE);
    let mut gate = database.connect().await;
    let mut gate = gate.begin().await.unwrap();
    sqlx::query("LOCK TABLE berth.ledger_heads").execute(&mut *gate).await.unwrap();
    let questions: Vec<_> = (0..16)
        .map(|_| {
            let (home, uid, head) = (Arc::clone(&home), object.uid, object.head);
            tokio::spawn(async move { home.ending(CLUSTER, uid, head).await })
        })
        .collect();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while database.number(waiting).await < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What tells of an operation needs no head.
    assert_eq!(home.submit(object.operation(Uuid::from_u128(1), None)).await.unwrap(), DURABLE);
    assert!(questions.iter().all(|question| !question.is_finished()), "it waited until a question was over");
    gate.rollback().await.unwrap();
    for question in questions {
        // Whoever waited longer than a lock may take has an error, and may have it.
        let _ = question.await.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_while_it_begins_leaves_no_transaction() {
    let (database, proxy, source) = behind_a_proxy().await;
    let home = Home::open(&source, "writer-0").await.unwrap();
    let mut object = Object::new("db");
    assert_eq!(home.submit(object.step(State::Pending)).await.unwrap(), DURABLE);
    for given_up in ["a change", "a question"] {
        proxy.set(Weather::HoldBegin);
        let held = async || until(|| proxy.is(Weather::Held)).await;
        if given_up == "a change" {
            tokio::select! {
                done = home.head_follows(CLUSTER, object.uid, Some(object.head), object.head) => panic!("{done:?}"),
                () = held() => {}
            }
        } else {
            tokio::select! {
                done = home.ending(CLUSTER, object.uid, object.head) => panic!("{done:?}"),
                () = held() => {}
            }
        }
        proxy.set(Weather::Fair);
        for epoch in 1..=8 {
            assert!(home.close_head(CLUSTER, object.uid, object.head, epoch).await.unwrap(), "{given_up}");
            let seen = database.number("SELECT closed_epoch FROM berth.ledger_heads").await;
            assert_eq!(seen, i64::try_from(epoch).unwrap(), "{given_up}: what is answered is committed");
        }
        database.execute("UPDATE berth.ledger_heads SET closed_epoch = NULL").await;
    }
}

/// Returns once it is so.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_told_apart_and_not_taken_back_before_it_does() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    database.admin(format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name())).await;
    database.cut("writer-0").await;
    let entry = object.step(State::Running);
    while home.submit(entry.clone()).await.is_ok() {}
    let error = down(&home, "DatabaseReadOnly").await;
    assert!(error.explain().contains("point the URL at the primary"), "{}", error.explain());
    let refused = Home::open(&source(&database), "writer-1").await.unwrap_err();
    assert_eq!(refused.reason(), "DatabaseReadOnly");
    database.admin(format!("ALTER DATABASE {} RESET default_transaction_read_only", database.name())).await;
    up(&home).await;
    assert_eq!(home.submit(entry).await.unwrap(), DURABLE);
}

#[tokio::test]
async fn a_connection_that_turns_read_only_opens_the_breaker_by_itself() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    // As a pooler shows a fail-over: the same connection, another server.
    database
        .execute(
            "CREATE FUNCTION berth.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'cannot execute UPDATE in a read-only transaction' USING ERRCODE = '25006'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON berth.ledger_writers EXECUTE FUNCTION berth.refuse()",
        )
        .await;
    let error = home.submit(object.step(State::Running)).await.unwrap_err();
    assert_eq!(error.reason(), "DatabaseReadOnly");
    assert_eq!(home.counters().opened.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_told_apart() {
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let (role, url) = database.role(None).await;
    let home = Home::open(&Source::Url(url.clone()), "writer-0").await.unwrap();
    database.admin(format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await;
    database.cut("writer-0").await;
    let entry = Object::new("db").step(State::Pending);
    assert!(home.submit(entry.clone()).await.is_err());
    down(&home, "DatabaseTooManyConnections").await;
    let error = Home::open(&Source::Url(url), "writer-1").await.unwrap_err();
    assert!(error.explain().contains("CONNECTION LIMIT"), "{}", error.explain());
    database.admin(format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    up(&home).await;
    assert_eq!(home.submit(entry).await.unwrap(), DURABLE);
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    let url = fake::refusing("53100", "could not extend file: No space left on device").await;
    let error = Home::open(&Source::Url(url.clone()), "writer-0").await.unwrap_err();
    assert_eq!(error.reason(), "DatabaseDiskFull");
    assert!(error.explain().contains("No space left"), "{}", error.explain());
    let home = Home::start(&Source::Url(url), "writer-0").unwrap();
    down(&home, "DatabaseDiskFull").await;
}

#[tokio::test]
async fn a_schema_that_is_too_old_is_waited_for() {
    let database = Database::create().await;
    let home = Home::start(&source(&database), "writer-0").unwrap();
    down(&home, "SchemaTooOld").await;
    migrate(&source(&database)).await.unwrap();
    up(&home).await;
    assert_eq!(home.submit(Object::new("db").step(State::Pending)).await.unwrap(), DURABLE);
}

#[tokio::test]
async fn a_replica_that_goes_down_does_not_wait_for_a_database_that_is_away() {
    let (_database, proxy, source) = behind_a_proxy().await;
    let home = Home::open(&source, "writer-0").await.unwrap();
    proxy.set(Weather::Silent);
    home.missed();
    assert!(matches!(&*home.standing().borrow(), Standing::Down(LedgerError::TimedOut { .. })));
    let started = Instant::now();
    home.close().await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(home.submit(Object::new("db").step(State::Pending)).await.is_err());
}
