//! Group commit: many reconciles, few transactions.

use std::{sync::atomic::Ordering, time::Instant};

use berth::{
    ledger::{Backend, Outcome},
    lifecycle::State,
    operator::metrics::Metrics,
};

use crate::{counters, ledger, objects::Object};

const OBJECTS: u32 = 500;
const HOPS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_transitions_over_five_hundred_objects_share_their_commits() {
    let (database, ledger) = ledger().await;
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..OBJECTS {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            let mut object = Object::new(&format!("o-{n}"));
            for hop in 0..HOPS {
                let state = if hop == 0 { State::Pending } else { State::Running };
                let answer = ledger.submit(object.step(state)).await.unwrap();
                assert_eq!(answer, Outcome::Durable(Backend::Database));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let took = started.elapsed();
    let records = u64::from(OBJECTS * HOPS);
    let counters = counters(&ledger);
    let transactions = counters.transactions.load(Ordering::Relaxed);
    println!(
        "{records} records with their snapshots in {took:?}: {:.0} a second, in {transactions} transactions of at most {}",
        f64::from(OBJECTS * HOPS) / took.as_secs_f64(),
        counters.largest.load(Ordering::Relaxed)
    );
    assert_eq!(counters.committed.load(Ordering::Relaxed), records);
    assert!(transactions * 20 < records, "{transactions} transactions for {records} records");
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, i64::from(OBJECTS * HOPS));
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, i64::from(OBJECTS * HOPS));
}

#[tokio::test]
async fn a_database_shows_its_numbers_and_no_others() {
    let (_database, ledger) = ledger().await;
    let metrics = Metrics::default();
    metrics.watch(ledger.clone());
    ledger.submit(Object::new("db").step(State::Pending)).await.unwrap();
    let text = metrics.text().unwrap();
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    for (name, expected) in [
        ("berth_ledger_transactions_total", "1"),
        ("berth_ledger_entries_committed_total", "1"),
        ("berth_ledger_transactions_halved_total", "0"),
        ("berth_ledger_quarantined_total", "0"),
        ("berth_ledger_queue_entries", "0"),
        ("berth_ledger_database_up", "1"),
        ("berth_ledger_breaker_opened_total", "0"),
        ("berth_ledger_rewinds_total", "0"),
        ("berth_ledger_entries_spooled_total", "0"),
        ("berth_spool_poisoned", "0"),
    ] {
        assert_eq!(value(name).as_deref(), Some(expected), "{name}\n{text}");
    }
}

/// Measures; run with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, proves nothing"]
async fn measure_a_batch_of_a_thousand_operations() {
    const BATCHES: u32 = 30;
    let (database, ledger) = ledger().await;
    // Two years of months, as an installation of that age has them.
    database.execute("SELECT berth.make_partitions((now() - interval '24 months')::date, now()::date)").await;
    let object = Object::new("db");
    let mut took = vec![];
    for _ in 0..BATCHES {
        let entries: Vec<_> = (0..1000).map(|_| object.operation(uuid::Uuid::new_v4(), None)).collect();
        let started = Instant::now();
        for answer in futures::future::join_all(entries.into_iter().map(|entry| ledger.submit(entry))).await {
            assert_eq!(answer.unwrap(), Outcome::Durable(Backend::Database));
        }
        took.push(started.elapsed());
    }
    took.sort();
    let transactions = counters(&ledger).transactions.load(Ordering::Relaxed);
    println!(
        "{BATCHES} times 1,000 operations in {transactions} transactions: median {:?}, fastest {:?}, slowest {:?}",
        took[took.len() / 2],
        took[0],
        took[took.len() - 1]
    );
}
