//! What is lost for good and stands in no chain is named in the audit: once, by its spool and its numbers (rule 6).

use std::{fs, path::Path, sync::atomic::Ordering, time::Duration};

use berth::ledger::{
    Config, Entry, Health, Ledger,
    postgres::migrate,
    replay_once,
    spool::{Limits, Spool},
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{commands::berth, config, home, ledger, objects::Object, open, postgres::Database, source};

const NAMED: &str =
    "SELECT count(*) FROM berth.operation_logs WHERE action = 'EntriesLost' AND phase = 'finish' AND NOT succeeded";
/// Names no cluster, as those of these tests.
const WRITER: &str = "writer-0";

async fn until(what: &str, database: &Database, sql: &'static str, expected: i64) {
    let holds = async {
        while database.number(sql).await != expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(60), holds).await;
    assert!(held.is_ok(), "{what}: {} where {expected} were expected", database.number(sql).await);
}

/// Operations, so that no chain could tell that one is missing.
fn operations(count: u128) -> Vec<Entry> {
    let object = Object::new("db");
    (1..=count).map(|id| object.operation(Uuid::from_u128(id), None)).collect()
}

/// A spool with so many operations, which no database has.
async fn spool_of(count: u128, limits: Limits) -> TempDir {
    let dir = tempfile::Builder::new().prefix("berth-lost-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let spool = Spool::open_with(dir.path(), WRITER, limits).unwrap();
    for entry in operations(count) {
        spool.keep(entry).await.unwrap();
    }
    spool.close().await.unwrap();
    dir
}

/// Flips a bit in the middle of the payload of the `n`-th frame of the first segment, counted from 0.
fn damage(dir: &Path, n: usize) {
    let file = dir.join("_journal").join(format!("{:020}.seg", 1));
    let mut bytes = fs::read(&file).unwrap();
    let frames: Vec<_> = (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(b"\xffBR\xfe")).collect();
    bytes[frames[n] + 60] ^= 4;
    fs::write(&file, bytes).unwrap();
}

#[tokio::test]
async fn a_volume_that_was_declared_gone_unread_is_named_once_by_all_who_notice() {
    let (database, first) = ledger().await;
    let second = open(&database, "writer-1").await;
    database
        .execute(
            "INSERT INTO berth.ledger_spools (writer, last_entry, acknowledged, seen_at, gone_at)
             SELECT '00000000-0000-0000-0000-00000000000c/' || pod, 9, acknowledged, seen_at, now() FROM (VALUES
                 ('lacks', 4, now() - interval '1 hour'), ('silent', 9, now() - interval '1 hour'), ('read', 9, now())
             ) AS spool (pod, acknowledged, seen_at)",
        )
        .await;
    until(
        "both have told of their spools since",
        &database,
        "SELECT count(*) FROM berth.ledger_spools WHERE starts_with(writer, 'writer-')
            AND seen_at > (SELECT max(gone_at) FROM berth.ledger_spools) + interval '1 second'",
        2,
    )
    .await;
    assert_eq!(database.number(NAMED).await, 2);
    let lacks = "SELECT count(*) FROM berth.operation_logs
                 WHERE cluster_id = '00000000-0000-0000-0000-00000000000c' AND target_kind = 'Spool' AND actor = 'berth:ledger'
                   AND target_name = '00000000-0000-0000-0000-00000000000c/lacks' AND details ->> 'how' = 'VolumeGone'
                   AND details -> 'entries' = '{\"first\": 5, \"last\": 9}'";
    assert_eq!(database.number(lacks).await, 1);
    let (code, said) = berth(&["verify"], &database.url());
    assert_eq!(code, Some(0), "{said}");
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_of_a_spool_is_named_by_its_numbers_once() {
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let dir = spool_of(12, Limits::default()).await;
    damage(dir.path(), 4);
    let config = Config { spool: dir.path().to_owned(), ..config(source(&database), WRITER) };
    let ledger = Ledger::open(&config).await.unwrap();
    until("what is whole is there", &database, "SELECT count(*) FROM berth.operation_logs WHERE phase = 'start'", 11)
        .await;
    until("the rest is named", &database, NAMED, 1).await;
    let fifth = "SELECT count(*) FROM berth.operation_logs WHERE details ->> 'how' = 'JournalDamaged'
                 AND target_name = 'writer-0' AND details -> 'entries' = '{\"first\": 5, \"last\": 5}'";
    assert_eq!(database.number(fifth).await, 1);
    ledger.close().await;
    // What the database has told it already is told, also when all of it is brought again.
    fs::remove_file(dir.path().join("_acknowledged")).unwrap();
    let replayed = replay_once(&source(&database), dir.path(), false, |_| {}).await.unwrap();
    assert_eq!((replayed.added, replayed.damages.len()), (0, 1), "{replayed:?}");
    assert_eq!(database.number(NAMED).await, 1);
}

/// A database that lost everything stands for one that was restored to what is older than the tail.
#[tokio::test]
async fn what_a_restored_database_lacks_and_the_tail_has_no_more_is_named() {
    let short = Limits { segment_bytes: 8 << 10, tail_age: Duration::ZERO, ..Limits::default() };
    let dir = spool_of(100, short).await;
    let spool = Spool::open_with(dir.path(), WRITER, short).unwrap();
    spool.acknowledge(100);
    let trimmed = async {
        while spool.progress().first == 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), trimmed).await.expect("the tail is never trimmed");
    spool.close().await.unwrap();
    let spool = Spool::open(dir.path(), WRITER).unwrap();
    let lost = spool.progress().first - 1;
    spool.close().await.unwrap();
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let config = Config { spool: dir.path().to_owned(), ..config(source(&database), WRITER) };
    let ledger = Ledger::open(&config).await.unwrap();
    until("it is named", &database, NAMED, 1).await;
    let numbers = "SELECT (details #>> '{entries,last}')::bigint - (details #>> '{entries,first}')::bigint + 1
                   FROM berth.operation_logs WHERE details ->> 'how' = 'DatabaseRestored'";
    assert_eq!(database.number(numbers).await, i64::try_from(lost).unwrap());
    let told = "SELECT count(*) FROM berth.operation_logs WHERE phase = 'start'";
    let rest = 100 - i64::try_from(lost).unwrap();
    let all = async {
        while database.number(told).await < rest {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("the tail is not there");
    ledger.close().await;
}

#[tokio::test]
async fn a_volume_that_is_found_again_while_its_replica_works_is_read_and_nothing_of_it_lost() {
    let (database, told) = home().await;
    told.note_spool(5, 0).await.unwrap();
    told.close().await;
    let found = spool_of(7, Limits::default()).await;
    // The replica comes back with an empty volume.
    let ledger = open(&database, WRITER).await;
    until(
        "the earlier one is left behind",
        &database,
        "SELECT count(*) FROM berth.ledger_spools WHERE writer LIKE 'writer-0/until-%' AND gone_at IS NULL",
        1,
    )
    .await;
    until(
        "and it tells of its own",
        &database,
        "SELECT count(*) FROM berth.ledger_spools WHERE writer = 'writer-0'",
        1,
    )
    .await;
    let replayed = replay_once(&source(&database), found.path(), false, |_| {}).await.unwrap();
    assert_eq!(replayed.added, 7);
    assert_eq!(
        database
            .number(
                "SELECT count(*) FROM berth.ledger_spools WHERE writer LIKE 'writer-0/until-%'
                                AND acknowledged = 7 AND seen_at = gone_at"
            )
            .await,
        1,
        "it is gone, and was read"
    );
    assert_eq!(
        database.number("SELECT last_entry FROM berth.ledger_spools WHERE writer = 'writer-0'").await,
        0,
        "what its replica writes on now is another one"
    );
    until(
        "it has looked at them since",
        &database,
        "SELECT count(*) FROM berth.ledger_spools WHERE writer = 'writer-0'
            AND seen_at > (SELECT max(gone_at) FROM berth.ledger_spools)",
        1,
    )
    .await;
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_spools").await, 2, "no other one is left behind");
    assert_eq!(database.number(NAMED).await, 0);
    let Health::Database { beside, .. } = ledger.health() else { unreachable!("it has a database") };
    assert_eq!(beside.out_of_reach.load(Ordering::Relaxed), 0);
    ledger.close().await;
}

#[tokio::test]
async fn a_ledger_in_files_names_what_is_damaged_in_it_once() {
    let dir = spool_of(3, Limits::default()).await;
    fs::remove_file(dir.path().join("_acknowledged")).unwrap();
    damage(dir.path(), 1);
    for _ in 0..3 {
        let ledger = Ledger::open(&Config::new(None, dir.path().to_owned(), WRITER.to_owned())).await.unwrap();
        let Health::Spool(health) = ledger.health() else { unreachable!("it has no database") };
        assert_eq!(health.damages.len(), 1);
        ledger.close().await;
    }
    let spool = Spool::open(dir.path(), WRITER).unwrap();
    let stretch = spool.after(0, 100).await.unwrap();
    let lost =
        |entry: &Entry| matches!(entry, Entry::Operation { record, .. } if record.envelope().reason == "EntriesLost");
    assert_eq!(stretch.entries.len(), 3, "two of three, and what tells of the other");
    assert_eq!(stretch.entries.iter().filter(|entry| lost(entry)).count(), 1);
    spool.close().await.unwrap();
}
