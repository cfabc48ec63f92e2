//! One entry that PostgreSQL refuses stops nobody.

use std::sync::atomic::Ordering;

use berth::{
    ledger::{Actor, Backend, Draft, Entry, Head, Kind, LedgerError, Micros, Outcome, Seal},
    lifecycle::State,
};

use crate::{
    commands::berth,
    counters, ledger,
    objects::{CLUSTER, Object, now, service},
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

#[tokio::test]
async fn one_bad_row_stops_nobody() {
    let (database, ledger) = ledger().await;
    let entries: Vec<Entry> = (0..200)
        .map(|n| {
            let object = Object::new(&format!("o-{n}"));
            let mut snapshot = object.snapshot();
            if n == 77 {
                service(&mut snapshot).tenant_org = "x".repeat(300);
            }
            Entry::Present(Box::new(snapshot))
        })
        .collect();
    let answers = futures::future::join_all(entries.into_iter().map(|entry| ledger.submit(entry))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match (n, answer) {
            (77, Err(LedgerError::Quarantined { message, .. })) => assert!(message.contains("too long"), "{message}"),
            (77, other) => panic!("not quarantined: {other:?}"),
            (_, answer) => assert!(matches!(answer, Ok(DURABLE)), "lost beside a bad one: {n}, {answer:?}"),
        }
    }
    assert_eq!(database.number("SELECT count(*) FROM berth.tenant_containers").await, 199);
    let kept = "SELECT count(*) FROM berth.ledger_quarantine WHERE what = 'present' AND sqlstate = '22001'
                AND entry::json->>'tenant_org' LIKE 'xxx%'";
    assert_eq!(database.number(kept).await, 1);
    assert!(counters(&ledger).halved.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn a_bad_snapshot_does_not_cost_a_chain_its_next_link() {
    let (database, ledger) = ledger().await;
    let object = Object::new("db");
    let record = object.record(State::Pending, now());
    let Entry::Chained { record, mut snapshot } = object.entry(&record) else { panic!() };
    // NUL is what no text of PostgreSQL can hold; the quarantine keeps it visible.
    service(&mut snapshot).user = "mal\0lory".to_owned();
    assert_eq!(ledger.submit(Entry::Chained { record: record.clone(), snapshot }).await.unwrap(), DURABLE);
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 1);
    let kept = "SELECT count(*) FROM berth.ledger_quarantine
                WHERE what = 'present' AND entry::json->>'user' = 'mal\\u0000lory'";
    assert_eq!(database.number(kept).await, 1);
    let mut good = object.clone();
    good.follow(&record);
    assert_eq!(ledger.submit(good.step(State::Running)).await.unwrap(), DURABLE);
}

#[tokio::test]
async fn a_record_of_an_impossible_time_is_put_away_and_its_neighbours_are_kept() {
    let (database, ledger) = ledger().await;
    let (bad, worse, mut good) = (Object::new("bad"), Object::new("worse"), Object::new("good"));
    let from_1990 = bad.entry(&bad.record(State::Pending, Micros(631_152_000_000_000)));
    let never = worse.entry(&worse.record(State::Pending, Micros(i64::MAX)));
    let (first, second, third) =
        tokio::join!(ledger.submit(from_1990), ledger.submit(never), ledger.submit(good.step(State::Pending)));
    assert!(
        matches!(&first, Err(LedgerError::Quarantined { message, .. }) if message.contains("1990-01-01")),
        "{first:?}"
    );
    assert!(matches!(second, Err(LedgerError::Quarantined { .. })), "{second:?}");
    assert_eq!(third.unwrap(), DURABLE);
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_quarantine WHERE what = 'record'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_names_what_was_refused_until_somebody_has_looked_at_it() {
    let (database, ledger) = ledger().await;
    let (bad, mut good) = (Object::new("bad"), Object::new("good"));
    assert!(ledger.submit(bad.entry(&bad.record(State::Pending, Micros(0)))).await.is_err());
    let mut snapshot = good.snapshot();
    service(&mut snapshot).tenant_org = "x".repeat(300);
    assert!(ledger.submit(Entry::Present(Box::new(snapshot))).await.is_err());
    ledger.submit(good.step(State::Pending)).await.unwrap();
    let verify = || berth(&["verify", "-o", "json"], &database.url());
    let (code, said) = verify();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let named = said["violations"].as_array().unwrap();
    assert!(named.iter().all(|one| one["violation"] == "quarantined" && one["rule"] == 3), "{said:#}");
    let places: Vec<_> = named.iter().map(|one| (one["uid"].clone(), one["sequence"].clone())).collect();
    let expected = [(bad.uid.to_string(), 1), (good.uid.to_string(), 0)];
    assert_eq!(places, expected.map(|(uid, sequence)| (uid.into(), sequence.into())), "{said:#}");
    assert!(named[0]["message"].as_str().unwrap().starts_with("PostgreSQL refused its record"), "{said:#}");
    assert_eq!((code, &said["clean"], &said["violationCount"]), (Some(1), &false.into(), &2.into()));
    // Looked at, and put right or given up.
    database.execute("UPDATE berth.ledger_quarantine SET resolved_at = now()").await;
    let (code, said) = verify();
    assert!(code == Some(0) && said.contains("\"clean\": true"), "{said}");
}

#[tokio::test]
async fn what_is_sent_again_is_counted_and_not_kept_twice() {
    let (database, ledger) = ledger().await;
    let bad = Object::new("bad");
    let entry = bad.entry(&bad.record(State::Pending, Micros(0)));
    for _ in 0..3 {
        assert!(ledger.submit(entry.clone()).await.is_err());
    }
    assert_eq!(database.number("SELECT times::bigint FROM berth.ledger_quarantine").await, 3);
}

#[tokio::test]
async fn a_name_made_of_hidden_characters_is_kept_like_any_other() {
    let (database, ledger) = ledger().await;
    let object = Object::new("hidden");
    let draft = Draft {
        kind: Kind::Transition,
        uid: object.uid,
        from: None,
        to: Some(State::Pending),
        reason: "\u{202e}".repeat(64),
        actor: Actor::User("\u{7}".repeat(256)),
        generation: 1,
        operation: None,
        details: serde_json::json!({}),
    };
    let record = draft.seal(Seal { cluster: CLUSTER, epoch: 1, at: now() }, Head::GENESIS);
    assert_eq!(ledger.submit(object.entry(&record)).await.unwrap(), DURABLE);
    assert_eq!(database.number("SELECT max(length(actor))::bigint FROM berth.container_status_history").await, 256);
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_quarantine").await, 0);
}
