//! The way to the database breaks: every entry is there once in the end, and nobody waits without end.

use std::time::{Duration, Instant};

use berth::{
    ledger::{
        Backend, Entry, LedgerError, Outcome,
        postgres::{Home, Source},
    },
    lifecycle::State,
};

use crate::{
    behind_a_proxy as way,
    objects::{CLUSTER, Object},
    postgres::Database,
    proxy::{Proxy, Weather},
    up,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

async fn behind_a_proxy() -> (Database, Proxy, Home) {
    let (database, proxy, source) = way().await;
    let home = Home::open(&source, "writer-0").await.unwrap();
    (database, proxy, home)
}

/// As a replay does: the same bytes, whenever the database is up, until there is an answer.
async fn until_answered(home: &Home, entry: &Entry) -> (Outcome, usize) {
    for failed in 0..20 {
        up(home).await;
        match home.submit(entry.clone()).await {
            Ok(outcome) => return (outcome, failed),
            Err(error) => assert!(
                matches!(error, LedgerError::Unavailable { .. } | LedgerError::TimedOut { .. }),
                "{}",
                error.explain()
            ),
        }
    }
    panic!("never answered");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let (database, proxy, home) = behind_a_proxy().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    for state in [State::Running, State::Paused, State::Running] {
        proxy.set(Weather::LoseCommit);
        let entry = object.step(state);
        assert_eq!(until_answered(&home, &entry).await, (DURABLE, 1), "one answer is lost, the next one comes");
    }
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 4);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 4);
}

#[tokio::test]
async fn what_the_server_refuses_at_its_commit_is_never_called_durable() {
    let (database, _proxy, home) = behind_a_proxy().await;
    database
        .execute(
            "CREATE FUNCTION berth.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$;
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON berth.ledger_heads DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION berth.refuse()",
        )
        .await;
    let entry = Object::new("db").step(State::Pending);
    let answer = home.submit(entry.clone()).await;
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 0);
    assert!(matches!(answer, Err(LedgerError::DiskFull { .. })), "called durable, and it is not there: {answer:?}");
    database.execute("DROP TRIGGER refuse ON berth.ledger_heads").await;
    assert_eq!(until_answered(&home, &entry).await, (DURABLE, 0));
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 1);
}

#[tokio::test]
async fn a_lost_answer_followed_by_another_objects_entry_is_no_rewind() {
    let (database, proxy, home) = behind_a_proxy().await;
    let (mut lost, mut other) = (Object::new("lost"), Object::new("other"));
    proxy.set(Weather::LoseCommit);
    assert!(home.submit(lost.step(State::Pending)).await.is_err());
    up(&home).await;
    assert_eq!(home.submit(other.step(State::Pending)).await.unwrap(), DURABLE);
    assert_eq!(home.submit(lost.step(State::Running)).await.unwrap(), DURABLE);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 3);
}

#[tokio::test]
async fn a_connection_that_went_silent_is_given_up_and_replaced() {
    let (database, proxy, home) = behind_a_proxy().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    proxy.set(Weather::Silent);
    let entry = object.step(State::Running);
    let started = Instant::now();
    // As many calls as the pool has connections: none of those may be lost for good.
    let reads = futures::future::join_all((0..4).map(|_| home.head(CLUSTER, object.uid)));
    let (answer, reads) = tokio::join!(home.submit(entry.clone()), reads);
    assert!(matches!(answer, Err(LedgerError::TimedOut { .. } | LedgerError::Unavailable { .. })), "{answer:?}");
    assert!(reads.iter().all(Result::is_err), "{reads:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    proxy.set(Weather::Fair);
    assert_eq!(until_answered(&home, &entry).await.0, DURABLE);
    let reads = futures::future::join_all((0..4).map(|_| home.head(CLUSTER, object.uid))).await;
    assert!(reads.iter().all(|head| head.as_ref().is_ok_and(|known| known.is_some_and(|k| k.head == object.head))));
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 2);
}

#[tokio::test]
async fn a_commit_after_which_there_is_silence_counts_once() {
    let (database, proxy, home) = behind_a_proxy().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    // With 5 rounds this also shows that no such connection is lost to the pool of 4; one takes 10 s.
    let rounds = std::env::var("BERTH_TEST_ROUNDS").map_or(1, |text| text.parse().unwrap());
    for _ in 0..rounds {
        proxy.set(Weather::SilentCommit);
        let entry = object.step(State::Running);
        let answer = home.submit(entry.clone()).await;
        assert!(matches!(answer, Err(LedgerError::TimedOut { .. })), "{answer:?}");
        assert_eq!(until_answered(&home, &entry).await, (DURABLE, 0));
    }
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, rounds + 1);
}

#[tokio::test]
async fn by_default_a_server_without_tls_is_refused_even_on_this_machine() {
    let (database, proxy, _home) = behind_a_proxy().await;
    let url = format!("postgres://berth_test@{}/{}", proxy.authority(), database.name());
    let error = Home::open(&Source::Url(url), "writer-1").await.unwrap_err();
    assert!(error.explain().contains("TLS"), "{}", error.explain());
}
