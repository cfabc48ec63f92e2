//! One line for each object, whoever writes.

use berth::{
    ledger::{Backend, Entry, Head, LedgerError, Outcome},
    lifecycle::State,
};
use uuid::Uuid;

use crate::{
    home, ledger,
    objects::{CLUSTER, Object, now, record_of},
    open, up,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

#[tokio::test]
async fn a_life_is_kept_hop_by_hop() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("db");
    assert_eq!(ledger.head(CLUSTER, object.uid).await.unwrap(), None);
    assert_eq!(ledger.largest_epoch(CLUSTER).await.unwrap(), 0);
    object.epoch = 1_700_000_000;
    for state in [State::Pending, State::Running, State::Paused, State::Stopped, State::Deleted] {
        let entry = object.step(state);
        assert_eq!(ledger.submit(entry.clone()).await.unwrap(), DURABLE);
        let known = ledger.head(CLUSTER, object.uid).await.unwrap().unwrap();
        assert_eq!((known.head, known.state, known.epoch), (object.head, Some(state), object.epoch));
        assert_eq!(known.prev, record_of(&entry).envelope().prev);
    }
    assert_eq!(ledger.largest_epoch(CLUSTER).await.unwrap(), object.epoch);
    assert_eq!(ledger.largest_epoch(Uuid::nil()).await.unwrap(), 0);
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 5);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers WHERE writer = 'writer-0'").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_leaders_on_one_chain_leave_one_line() {
    let (database, first) = ledger().await;
    let second = open(&database, "writer-1").await;
    let object = Object::new("db");
    // Each leader does what a reconciler does: submit behind what it knows, adopt or look again when told so.
    let leader = |ledger: berth::ledger::Ledger, epoch: u64, mut object: Object| async move {
        object.epoch = epoch;
        let mut won = 0;
        while object.head.sequence < 60 {
            let state = if object.state == Some(State::Running) { State::Paused } else { State::Running };
            let record = object.record(state, now());
            match ledger.submit(object.entry(&record)).await.unwrap() {
                Outcome::Durable(_) => {
                    object.follow(&record);
                    won += 1;
                }
                Outcome::Adopt(other) => object.follow(&other),
                Outcome::Away(certain) => panic!("the database is there: {certain:?}"),
                Outcome::Elsewhere { head, shown_is_ancestor } => {
                    assert!(shown_is_ancestor);
                    object.head = head;
                }
            }
        }
        won
    };
    let (a, b) =
        tokio::join!(tokio::spawn(leader(first, 1, object.clone())), tokio::spawn(leader(second, 2, object.clone())));
    let (a, b) = (a.unwrap(), b.unwrap());
    let rows = database.number("SELECT count(*) FROM berth.container_status_history").await;
    let places = database.number("SELECT count(DISTINCT sequence) FROM berth.container_status_history").await;
    assert_eq!(rows, places, "two records stand in one place");
    assert_eq!(rows, a + b, "every win is kept, and nothing else");
    let links = "SELECT count(*) FROM berth.container_status_history a JOIN berth.container_status_history b
                 ON b.uid = a.uid AND b.sequence = a.sequence + 1 AND b.prev = a.hash";
    assert_eq!(database.number(links).await, rows - 1, "a link is broken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_leaders_over_many_objects_never_lock_each_other_out() {
    let (database, first) = ledger().await;
    let second = open(&database, "writer-1").await;
    let objects: Vec<Object> = (0..100).map(|n| Object::new(&format!("o-{n}"))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (epoch, ledger) in [(1, &first), (2, &second)] {
        for mut object in objects.clone() {
            let ledger = ledger.clone();
            object.epoch = epoch;
            tasks.spawn(async move {
                for _ in 0..10 {
                    let record = object.record(State::Running, now());
                    match ledger.submit(object.entry(&record)).await.unwrap() {
                        Outcome::Durable(_) => object.follow(&record),
                        Outcome::Adopt(other) => object.follow(&other),
                        Outcome::Elsewhere { head, .. } => object.head = head,
                        Outcome::Away(certain) => panic!("the database is there: {certain:?}"),
                    }
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let broken = "SELECT count(*) FROM (SELECT cluster_id, uid, sequence FROM berth.container_status_history
                  GROUP BY 1, 2, 3 HAVING count(*) > 1) twice";
    assert_eq!(database.number(broken).await, 0);
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_heads").await, 100);
}

#[tokio::test]
async fn a_record_sent_again_after_a_lost_answer_is_there_once() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("db");
    let first = object.step(State::Pending);
    assert_eq!(ledger.submit(first.clone()).await.unwrap(), DURABLE);
    assert_eq!(ledger.submit(first.clone()).await.unwrap(), DURABLE, "right away");
    ledger.submit(object.step(State::Running)).await.unwrap();
    assert_eq!(ledger.submit(first).await.unwrap(), DURABLE, "when the chain has gone on");
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 2);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 2);
}

#[tokio::test]
async fn a_chain_one_ahead_is_adopted_with_its_details() {
    let (_database, ledger) = ledger().await;
    let mut object = Object::new("db");
    ledger.submit(object.step(State::Pending)).await.unwrap();
    let (theirs, ours) = (object.record(State::Running, now()), object.record(State::Failed, now()));
    ledger.submit(object.entry(&theirs)).await.unwrap();
    let Outcome::Adopt(adopted) = ledger.submit(object.entry(&ours)).await.unwrap() else {
        panic!("not told to adopt");
    };
    assert_eq!(*adopted, theirs);
    assert_eq!(adopted.details(), theirs.details());
}

#[tokio::test]
async fn a_chain_elsewhere_is_said_to_be_so() {
    let (_database, ledger) = ledger().await;
    let mut object = Object::new("db");
    ledger.submit(object.step(State::Pending)).await.unwrap();
    let behind = object.clone();
    ledger.submit(object.step(State::Running)).await.unwrap();
    ledger.submit(object.step(State::Paused)).await.unwrap();
    let late = behind.record(State::Failed, now());
    let outcome = ledger.submit(behind.entry(&late)).await.unwrap();
    assert_eq!(outcome, Outcome::Elsewhere { head: object.head, shown_is_ancestor: true });

    // A branch that the ledger never saw.
    let mut stray = behind.clone();
    stray.follow(&behind.record(State::Stopped, now()));
    let outcome = ledger.submit(stray.entry(&stray.record(State::Pending, now()))).await.unwrap();
    assert_eq!(outcome, Outcome::Elsewhere { head: object.head, shown_is_ancestor: false });

    // An object of which the ledger knows nothing, although it has a history.
    let mut unknown = Object::new("other");
    let _ = unknown.step(State::Pending);
    let outcome = ledger.submit(unknown.step(State::Running)).await.unwrap();
    assert_eq!(outcome, Outcome::Elsewhere { head: Head::GENESIS, shown_is_ancestor: false });
}

#[tokio::test]
async fn entries_of_one_object_at_once_stay_in_order() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("db");
    let entries: Vec<Entry> =
        [State::Pending, State::Running, State::Paused].into_iter().map(|state| object.step(state)).collect();
    let answers = futures::future::join_all(entries.into_iter().map(|entry| ledger.submit(entry))).await;
    for answer in answers {
        assert_eq!(answer.unwrap(), DURABLE, "written in another order");
    }
    assert_eq!(database.number("SELECT sequence FROM berth.ledger_heads").await, 3);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_recognised_by_the_next_batch() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    // The server ends the connection of the writer: what it was doing fails, what comes next goes on.
    let mut answers = vec![];
    for state in [State::Running, State::Paused, State::Running, State::Paused] {
        let entry = object.step(state);
        let (answer, ()) = tokio::join!(home.submit(entry.clone()), database.cut("writer-0"));
        let mut answer = answer;
        for _ in 0..20 {
            match &answer {
                Err(LedgerError::Unavailable { .. }) => {
                    up(&home).await;
                    answer = home.submit(entry.clone()).await;
                }
                _ => break,
            }
        }
        answers.push(answer);
    }
    for answer in answers {
        assert_eq!(answer.unwrap(), DURABLE);
    }
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 5);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 5);
}

#[tokio::test]
async fn closing_writes_what_waits_and_takes_nothing_more() {
    let (database, ledger) = ledger().await;
    let submitted: Vec<_> = (0..50)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.submit(Object::new(&format!("o-{n}")).step(State::Pending)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    ledger.clone().close().await;
    let mut durable = 0;
    for answer in submitted {
        match answer.await.unwrap() {
            Ok(outcome) => {
                assert_eq!(outcome, DURABLE);
                durable += 1;
            }
            Err(error) => assert!(matches!(error, LedgerError::Closed), "{error}"),
        }
    }
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, durable);
    let late = ledger.submit(Object::new("late").step(State::Pending)).await.unwrap_err();
    assert!(matches!(late, LedgerError::Closed), "{late}");
}
