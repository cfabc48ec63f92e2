//! What comes late arrives once, whoever brings it, and in whatever order.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use berth::{
    ledger::{
        Backend, Entry, LedgerError, Micros, OperationOutcome, Outcome, Resource, Usage,
        postgres::{Imported, migrate},
    },
    lifecycle::State,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    commands::berth,
    home,
    objects::{CLUSTER, Object, now, record_of, service},
    postgres::Database,
    source,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

fn added(added: u64) -> Imported {
    Imported { added, quarantined: 0 }
}

fn carried(entry: &Entry, object: &Object) -> Entry {
    Entry::Carried { record: record_of(entry), target: object.target() }
}

fn sample(object: &Object, resource: Resource, value: i64) -> Usage {
    Usage { cluster: CLUSTER, uid: object.uid, container: Uuid::from_u128(7), resource, at: now(), value }
}

#[tokio::test]
async fn a_whole_life_of_every_kind_of_entry_arrives_and_once() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    let (id, outcome) = (Uuid::new_v4(), OperationOutcome { succeeded: true, duration_ms: 5 });
    let mut entries = vec![object.operation(id, None)];
    for state in [State::Pending, State::Running, State::Paused, State::Stopped] {
        entries.push(object.step(state));
    }
    entries.push(object.operation(id, Some(outcome)));
    entries.push(Entry::Present(Box::new(object.snapshot())));
    entries.extend([Resource::Cpu, Resource::Gpu].map(|resource| Entry::Usage(sample(&object, resource, 5))));
    entries.push(carried(&object.step(State::Deleted), &object));
    assert_eq!(home.import(entries.clone()).await.unwrap(), added(9));
    assert_eq!(home.import(entries).await.unwrap(), added(0), "twice");
    // An ending becomes the head when it is known to have been shown.
    let before = home.head(CLUSTER, object.uid).await.unwrap().unwrap();
    assert_eq!((before.head.sequence, before.state), (4, Some(State::Stopped)));
    let verify = || berth(&["verify"], &database.url());
    let (code, said) = verify();
    assert!(code == Some(0) && said.contains("note: 1 chains go on beyond their head"), "{said}");
    assert!(home.put_head(CLUSTER, object.uid, Some(before.head), object.head, 1).await.unwrap());
    assert_eq!(home.head(CLUSTER, object.uid).await.unwrap().unwrap().head, object.head);
    assert_eq!(verify().1, "Every rule held: 1 chains, 5 records, 2 operations.\n");
    let present = "SELECT count(*) FROM berth.tenant_containers WHERE sequence = 5 AND deleted AND status = 'deleted'";
    assert_eq!(database.number(present).await, 1, "the present follows what came without a snapshot");
    assert_eq!(database.number("SELECT count(*) FROM berth.containers").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM berth.operation_logs").await, 2);
    assert_eq!(database.number("SELECT sum(value)::bigint FROM berth.container_resource_usage").await, 10);
    assert_eq!(database.number("SELECT acknowledged FROM berth.ledger_writers").await, 7);
    assert_eq!(home.counters().imported.load(Ordering::Relaxed), 9);
    assert_eq!(home.import(vec![]).await.unwrap(), added(0));
}

/// Everything but when it was written.
const ROWS: &str = "SELECT string_agg(t.row, E'\\n' ORDER BY t.row) FROM (
    SELECT (to_jsonb(h) - 'recorded_at')::text AS row FROM berth.container_status_history h
    UNION ALL SELECT (to_jsonb(h) - 'moved_at')::text FROM berth.ledger_heads h
    UNION ALL SELECT jsonb_build_array(id, status, deleted, sequence, epoch, encode(head, 'hex'))::text
              FROM berth.tenant_containers) t";

async fn rows_after(imports: &[&[Entry]]) -> String {
    let (database, home) = home().await;
    for import in imports {
        home.import(import.to_vec()).await.unwrap();
    }
    sqlx::query_scalar(ROWS).fetch_one(&mut database.connect().await).await.unwrap()
}

#[tokio::test]
async fn the_spools_of_two_writers_end_in_the_same_rows_in_any_order() {
    let (mut first, mut second) = (vec![], vec![]);
    for n in 0..20 {
        let mut object = Object::new(&format!("o-{n}"));
        for (hop, state) in
            [State::Pending, State::Running, State::Paused, State::Running, State::Stopped, State::Deleted]
                .into_iter()
                .enumerate()
        {
            // Leadership went to and fro.
            object.epoch = if (hop + n) % 4 < 2 { 1 } else { 2 };
            let entry = object.step(state);
            if object.epoch == 1 { &mut first } else { &mut second }.push(entry);
        }
    }
    let expected = rows_after(&[&first, &second, &first, &second]).await;
    assert!(expected.lines().count() == 20 * 8, "{expected}");
    let mixed: Vec<Entry> = second.iter().rev().chain(&first).cloned().collect();
    for imports in
        [&[second.as_slice(), &first] as &[&[Entry]], &[&first, &second], &[&mixed], &[&second, &first, &second]]
    {
        let rows = rows_after(imports).await;
        assert!(rows == expected, "{rows}\n\nexpected\n\n{expected}");
    }
}

#[tokio::test]
async fn a_record_beside_the_line_is_kept_and_the_head_stays() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    let behind = object.clone();
    home.submit(object.step(State::Running)).await.unwrap();
    let mut loser = behind.clone();
    let branch = [loser.step(State::Failed), loser.step(State::Stopped), loser.step(State::Pending)];
    assert_eq!(home.import(branch.to_vec()).await.unwrap(), added(3));
    assert_eq!(home.import(branch.to_vec()).await.unwrap(), added(0));
    assert_eq!(home.head(CLUSTER, object.uid).await.unwrap().unwrap().head, object.head);
    let shown = "SELECT count(*) FROM berth.tenant_containers WHERE status = 'running' AND sequence = 2";
    assert_eq!(database.number(shown).await, 1, "the snapshot of a loser does not count");
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 5);
    assert_eq!(home.submit(object.step(State::Paused)).await.unwrap(), DURABLE);
}

#[tokio::test]
async fn a_head_does_not_choose_between_two_that_claim_the_place_behind_it() {
    let (_database, home) = home().await;
    let mut object = Object::new("db");
    let first = object.step(State::Pending);
    let (a, b) = (object.record(State::Running, now()), object.record(State::Failed, now()));
    home.import(vec![object.entry(&a), object.entry(&b)]).await.unwrap();
    assert_eq!(home.head(CLUSTER, object.uid).await.unwrap(), None, "nothing to follow yet");
    home.import(vec![first]).await.unwrap();
    assert_eq!(home.head(CLUSTER, object.uid).await.unwrap().unwrap().head, object.head);
}

#[tokio::test]
async fn the_first_account_of_an_operation_stands_whichever_way_it_came() {
    let (database, home) = home().await;
    let (object, id) = (Object::new("db"), Uuid::new_v4());
    let (told, again) = (object.operation(id, None), object.operation(id, None));
    home.submit(told.clone()).await.unwrap();
    assert_eq!(home.import(vec![again.clone(), told.clone(), again]).await.unwrap(), added(0));
    assert_eq!(database.number("SELECT count(*) FROM berth.operation_logs").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_quarantine").await, 0);
}

#[tokio::test]
async fn what_postgresql_refuses_is_put_aside_and_the_rest_arrives() {
    let (database, home) = home().await;
    let mut entries: Vec<Entry> = vec![];
    for n in 0..300 {
        let mut object = Object::new(&format!("o-{n}"));
        let Entry::Chained { record, mut snapshot } = object.step(State::Pending) else { panic!() };
        if n == 77 {
            service(&mut snapshot).tenant_org = "x".repeat(300);
        }
        entries.push(Entry::Chained { record, snapshot });
        entries.push(object.step(State::Running));
    }
    let mut long = Object::new("long");
    long.name = "x".repeat(300);
    entries.insert(100, long.step(State::Pending));
    let ancient = Object::new("ancient");
    let record = ancient.record(State::Pending, Micros(0));
    entries.insert(200, ancient.entry(&record));
    entries.insert(300, Entry::Usage(sample(&ancient, Resource::Disk, -1)));
    let imported = home.import(entries).await.unwrap();
    // The snapshot that is too long is not needed: a later one of its object counts.
    assert_eq!(imported, Imported { added: 600, quarantined: 3 });
    assert_eq!(database.number("SELECT count(*) FROM berth.tenant_containers").await, 300);
    assert_eq!(database.number("SELECT count(DISTINCT what) FROM berth.ledger_quarantine").await, 2);
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_quarantine WHERE what = 'usage'").await, 1);
    assert!(home.is_up(), "a refused row is no outage");
}

#[tokio::test]
async fn a_present_that_postgresql_refuses_stops_neither_the_others_nor_its_own_chain() {
    let (database, home) = home().await;
    let mut objects: Vec<Object> = ["bad-0", "good-1", "good-2", "bad-3", "good-4"].map(Object::new).into();
    for object in &mut objects {
        home.submit(object.step(State::Pending)).await.unwrap();
    }
    let no_further = "ALTER TABLE berth.tenant_containers ADD CHECK (name LIKE 'good%' OR sequence < 2) NOT VALID";
    database.execute(no_further).await;
    let stopped: Vec<Entry> = objects
        .iter_mut()
        .map(|object| {
            let entry = object.step(State::Stopped);
            carried(&entry, object)
        })
        .collect();
    assert_eq!(home.import(stopped).await.unwrap(), Imported { added: 5, quarantined: 2 });
    let at =
        "SELECT sum(sequence * CASE WHEN name LIKE 'good%' THEN 100 ELSE 1 END)::bigint FROM berth.tenant_containers";
    assert_eq!(database.number(at).await, 602, "the good ones at 2, the bad ones at 1");
    for object in &objects {
        let head = home.head(CLUSTER, object.uid).await.unwrap().unwrap();
        assert_eq!(head.head, object.head, "its chain goes on");
    }

    let bad = &mut objects[0];
    let before = bad.head;
    let ending = bad.step(State::Deleted);
    assert_eq!(home.import(vec![carried(&ending, bad)]).await.unwrap(), added(1));
    assert!(home.put_head(CLUSTER, bad.uid, Some(before), bad.head, 1).await.unwrap(), "and ends");
    let head = home.head(CLUSTER, bad.uid).await.unwrap().unwrap();
    assert_eq!((head.head, head.state), (bad.head, Some(State::Deleted)));
    let kept = "SELECT count(*) FROM berth.ledger_quarantine WHERE what = 'present'";
    assert_eq!(database.number(kept).await, 3);
    assert_eq!(home.counters().quarantined.load(Ordering::Relaxed), 3);
    assert!(home.is_up(), "a refused row is no outage");
}

#[tokio::test]
async fn a_copy_with_details_is_preferred_to_one_without() {
    let (database, home) = home().await;
    let mut object = Object::new("db");
    let entry = object.step(State::Pending);
    let bare = berth::ledger::Record::read(record_of(&entry).bytes(), None).unwrap();
    let bare = Entry::Carried { record: bare, target: object.target() };
    assert_eq!(home.import(vec![bare, entry]).await.unwrap(), added(1));
    let kept = "SELECT count(*) FROM berth.container_status_history WHERE details IS NOT NULL";
    assert_eq!(database.number(kept).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_new_nor_late_records_wait_for_the_end_of_the_others() {
    let (_database, home) = home().await;
    let home = Arc::new(home);
    let late: Vec<Entry> = (0..200)
        .flat_map(|n| {
            let mut object = Object::new(&format!("late-{n}"));
            (0..100)
                .map(move |hop| object.step(if hop == 0 { State::Pending } else { State::Running }))
                .collect::<Vec<_>>()
        })
        .collect();
    let importing = tokio::spawn({
        let home = Arc::clone(&home);
        async move { home.import(late).await }
    });
    let (mut object, mut meanwhile) = (Object::new("new"), 0);
    let mut slowest = Duration::ZERO;
    while !importing.is_finished() {
        let started = Instant::now();
        let state = if object.head.sequence == 0 { State::Pending } else { State::Running };
        assert_eq!(home.submit(object.step(state)).await.unwrap(), DURABLE);
        slowest = slowest.max(started.elapsed());
        meanwhile += 1;
    }
    assert_eq!(importing.await.unwrap().unwrap(), added(20_000));
    println!("{meanwhile} new records while 20,000 late ones came; the slowest took {slowest:?}");
    assert!(meanwhile >= 10, "{meanwhile}");
}

#[tokio::test]
async fn an_import_is_told_that_the_database_is_away() {
    let (_database, home) = home().await;
    home.missed();
    let mut object = Object::new("db");
    let entry = object.step(State::Pending);
    assert!(matches!(home.import(vec![entry.clone()]).await, Err(LedgerError::TimedOut { .. })));
    crate::up(&home).await;
    assert_eq!(home.import(vec![entry]).await.unwrap(), added(1));
}

/// Measures; run with `--ignored --nocapture`, and BERTH_TEST_FSYNC=on for a database that keeps its word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, proves nothing"]
async fn measure_an_import_against_bare_batches_of_the_same_rows() {
    const CHAINS: usize = 2_000;
    const HOPS: usize = 100;
    // A spool has them as they came: all chains mixed.
    let mut objects: Vec<Object> = (0..CHAINS).map(|n| Object::new(&format!("o-{n}"))).collect();
    let mut entries = Vec::with_capacity(CHAINS * HOPS);
    for hop in 0..HOPS {
        let state = if hop == 0 { State::Pending } else { State::Running };
        entries.extend(objects.iter_mut().map(|object| object.step(state)));
    }
    let bare = bare_batches(&entries).await;
    let with = imported(&entries).await;
    let rate = |took: Duration| (CHAINS * HOPS) as f64 / took.as_secs_f64();
    println!("{} records of {CHAINS} chains: bare UNNEST batches {:.0} a second", CHAINS * HOPS, rate(bare));
    println!("imported with a snapshot each: {:.0} a second, ratio {:.2}", rate(with), rate(with) / rate(bare));
    let carried: Vec<Entry> = entries
        .into_iter()
        .map(|entry| match entry {
            Entry::Chained { record, snapshot } => Entry::Carried { record, target: snapshot.target },
            other => other,
        })
        .collect();
    let without = imported(&carried).await;
    println!("imported without snapshots: {:.0} a second, ratio {:.2}", rate(without), rate(without) / rate(bare));
}

/// As a replay brings them, 10,000 at a time.
async fn imported(entries: &[Entry]) -> Duration {
    let (database, home) = home().await;
    let mut took = Duration::ZERO;
    for part in entries.chunks(10_000) {
        let part = part.to_vec();
        let started = Instant::now();
        home.import(part).await.unwrap();
        took += started.elapsed();
    }
    let kept = database.number("SELECT count(*) FROM berth.container_status_history").await;
    assert_eq!(usize::try_from(kept).unwrap(), entries.len());
    took
}

/// The same rows into the history alone, 1,000 in a transaction, with nothing but the columns.
async fn bare_batches(entries: &[Entry]) -> Duration {
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    database.execute("SELECT berth.make_partitions(now()::date, now()::date)").await;
    let mut connection = database.connect().await;
    let mut took = Duration::ZERO;
    for batch in entries.chunks(1000) {
        took += bare_batch(&mut connection, batch).await;
    }
    took
}

/// One of them.
pub async fn bare_batch(connection: &mut PgConnection, batch: &[Entry]) -> Duration {
    let records: Vec<_> = batch.iter().map(|entry| (record_of(entry), entry)).collect();
    let started = Instant::now();
    let (mut clusters, mut uids, mut sequences, mut epochs, mut times) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut from, mut to, mut reasons, mut actors) = (vec![], vec![], vec![], vec![]);
    let (mut generations, mut prevs, mut digests, mut hashes) = (vec![], vec![], vec![], vec![]);
    let (mut details, mut names) = (vec![], vec![]);
    for (record, entry) in &records {
        let envelope = record.envelope();
        clusters.push(envelope.cluster);
        uids.push(envelope.uid);
        sequences.push(envelope.seq.cast_signed());
        epochs.push(envelope.epoch.cast_signed());
        times.push(envelope.at.0);
        from.push(envelope.from.map(State::as_str));
        to.push(envelope.to.map(State::as_str));
        reasons.push(envelope.reason.as_str());
        actors.push(String::from(envelope.actor.clone()));
        generations.push(envelope.generation);
        prevs.push(envelope.prev.as_bytes().as_slice());
        digests.push(envelope.details.as_bytes().as_slice());
        hashes.push(record.hash());
        details.push(record.details());
        let Entry::Chained { snapshot, .. } = entry else { panic!() };
        names.push(snapshot.target.name.as_str());
    }
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.as_bytes().as_slice()).collect();
    sqlx::query(
        "INSERT INTO berth.container_status_history (v, kind, cluster_id, uid, sequence, epoch, at, from_state,
             to_state, reason, actor, generation, prev, details_hash, hash, details, object_kind, namespace, name)
         SELECT 1, 'transition', c, u, s, e, timestamptz 'epoch' + t * interval '1 microsecond', f, o, r, a, g, p, d,
                h, j, 'TenantContainer', 'team-a', n
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[],
                     $8::text[], $9::text[], $10::bigint[], $11::bytea[], $12::bytea[], $13::bytea[],
                     $14::text[]::jsonb[], $15::text[]) AS x (c, u, s, e, t, f, o, r, a, g, p, d, h, j, n)
         ON CONFLICT DO NOTHING",
    )
    .bind(clusters)
    .bind(uids)
    .bind(sequences)
    .bind(epochs)
    .bind(times)
    .bind(from)
    .bind(to)
    .bind(reasons)
    .bind(actors)
    .bind(generations)
    .bind(prevs)
    .bind(digests)
    .bind(hashes)
    .bind(details)
    .bind(names)
    .execute(connection)
    .await
    .unwrap();
    started.elapsed()
}

#[tokio::test]
async fn a_head_that_follows_the_status_goes_on_over_what_was_stored_behind_it() {
    let (_database, home) = home().await;
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    let mut loser = object.clone();
    home.submit(loser.step(State::Failed)).await.unwrap();
    let shown = object.step(State::Running);
    let next = object.step(State::Paused);
    home.import(vec![next.clone(), shown.clone()]).await.unwrap();
    assert_eq!(home.head(CLUSTER, object.uid).await.unwrap().unwrap().head, loser.head, "beside its line");
    assert!(home.head_follows(CLUSTER, object.uid, Some(loser.head), record_of(&shown).head()).await.unwrap());
    // One ahead of what is shown, so that it is adopted; not behind.
    assert_eq!(home.head(CLUSTER, object.uid).await.unwrap().unwrap().head, record_of(&next).head());
}
