//! The tables of the present follow the chain, and never go back.

use berth::{
    ledger::{Entry, Index, postgres::Reader},
    lifecycle::State,
};

use crate::{
    ledger,
    objects::{Object, index, service},
    source,
};

#[tokio::test]
async fn the_row_and_its_parts_say_what_the_snapshot_said() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("search");
    ledger.submit(object.step(State::Pending)).await.unwrap();
    let snapshot = object.snapshot();
    ledger.submit(Entry::Present(Box::new(snapshot.clone()))).await.unwrap();
    let found = Reader::connect(&source(&database)).await.unwrap().find("alice", "search").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(Some(&found[0].snapshot), snapshot.clone().into_service().as_ref());
    assert!(found[0].since < snapshot.observed_at, "since the record, not since the last look");
    assert_eq!(
        database.number("SELECT count(*) FROM berth.namespaces WHERE labels->>'berth.dev/tenant-org' = 'acme'").await,
        1
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM berth.index_metadata WHERE name = 'main' AND observed_count IS NULL")
            .await,
        1
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM berth.containers WHERE status = 'running' AND image_digest = 'sha256:abc'")
            .await,
        1
    );
    assert_eq!(database.number("SELECT count(*) FROM berth.container_images").await, 1);
}

#[tokio::test]
async fn the_present_never_goes_back() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("db");
    ledger.submit(object.step(State::Pending)).await.unwrap();
    let mut old = object.snapshot();
    ledger.submit(object.step(State::Running)).await.unwrap();
    // Taken before the transition, arriving after it; by the clock of a leader that is ahead.
    old.observed_at.0 += 60_000_000;
    service(&mut old).replicas = 9;
    service(&mut old).indexes.clear();
    service(&mut old).replicas_seen.clear();
    ledger.submit(Entry::Present(Box::new(old))).await.unwrap();
    let unchanged =
        "SELECT count(*) FROM berth.tenant_containers t JOIN berth.index_metadata i ON i.tenant_container_id = t.id
                     JOIN berth.containers c ON c.tenant_container_id = t.id AND c.status = 'running'
                     WHERE t.status = 'running' AND t.replicas = 1";
    assert_eq!(database.number(unchanged).await, 1);
    // The same head: the later sight counts, an earlier one of the same leader does not.
    let (mut earlier, mut later) = (object.snapshot(), object.snapshot());
    service(&mut earlier).replicas = 2;
    service(&mut later).replicas = 3;
    ledger.submit(Entry::Present(Box::new(later))).await.unwrap();
    ledger.submit(Entry::Present(Box::new(earlier))).await.unwrap();
    assert_eq!(database.number("SELECT replicas::bigint FROM berth.tenant_containers").await, 3);
}

#[tokio::test]
async fn indexes_that_vanish_leave_and_replicas_that_vanish_are_over() {
    let (database, ledger) = ledger().await;
    let mut object = Object::new("db");
    ledger.submit(object.step(State::Pending)).await.unwrap();
    let mut snapshot = object.snapshot();
    service(&mut snapshot).indexes = vec![index("second"), Index { dimension: 3, ..index("third") }];
    service(&mut snapshot).replicas_seen = vec![object.replica(1)];
    ledger.submit(Entry::Present(Box::new(snapshot))).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM berth.index_metadata WHERE name IN ('second', 'third')").await, 2);
    assert_eq!(database.number("SELECT count(*) FROM berth.index_metadata").await, 2);
    let over = "SELECT count(*) FROM berth.containers WHERE name = 'db-0' AND status = 'terminated' AND NOT ready
                AND finished_at IS NOT NULL";
    assert_eq!(database.number(over).await, 1);
    assert_eq!(
        database.number("SELECT count(*) FROM berth.containers WHERE name = 'db-1' AND status = 'running'").await,
        1
    );
}

#[tokio::test]
async fn deleting_keeps_the_row_and_says_so() {
    let (database, ledger) = ledger().await;
    let reader = Reader::connect(&source(&database)).await.unwrap();
    let mut object = Object::new("db");
    for state in [State::Pending, State::Stopped, State::Deleted] {
        ledger.submit(object.step(state)).await.unwrap();
    }
    let found = reader.find("alice", "db").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].snapshot.present.state, found[0].snapshot.head), (Some(State::Deleted), object.head));
    let row = "SELECT count(*) FROM berth.tenant_containers
               WHERE deleted AND status = 'deleted' AND sync_time BETWEEN now() - interval '1 minute' AND now()";
    assert_eq!(database.number(row).await, 1);
    // Made again under the same name: the live one comes first.
    let mut again = Object::new("db");
    ledger.submit(again.step(State::Pending)).await.unwrap();
    let found = reader.find("alice", "db").await.unwrap();
    assert_eq!(found.iter().map(|f| f.snapshot.target.uid).collect::<Vec<_>>(), [again.uid, object.uid]);
    assert!(reader.find("alice", "nothing").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_second_live_object_of_a_service_is_seen_and_stops_nobody() {
    let (database, ledger) = ledger().await;
    for mut object in [Object::new("db"), Object::new("db")] {
        ledger.submit(object.step(State::Pending)).await.unwrap();
    }
    assert_eq!(database.number("SELECT count(*) FROM berth.duplicate_services WHERE cardinality(ids) = 2").await, 1);
}
