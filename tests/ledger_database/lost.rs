//! What is lost for good and stands in no chain is named in the audit: once, by its spool and its numbers (rule 6).

use std::{fs, path::Path, sync::atomic::Ordering, time::Duration};

use berth::ledger::{
    Config, Entry, Health, Ledger,
    postgres::{Home, migrate},
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

/// Segments so short that several exist, which go once the database has them.
const SHORT: Limits =
    Limits { segment_bytes: 8 << 10, tail_age: Duration::ZERO, tail_bytes: 1 << 30, most_bytes: 4 << 30 };

/// Lets everything go that may; how many entries went.
async fn trim(dir: &Path) -> u64 {
    let spool = Spool::open_with(dir, WRITER, SHORT).unwrap();
    spool.acknowledge(spool.progress().last);
    let trimmed = async {
        while spool.progress().first == 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), trimmed).await.expect("the tail is never trimmed");
    spool.close().await.unwrap();
    let spool = Spool::open(dir, WRITER).unwrap();
    let gone = spool.progress().first - 1;
    spool.close().await.unwrap();
    gone
}

fn volume(dir: &Path) -> Uuid {
    fs::read_to_string(dir.join("_volume")).unwrap().trim().parse().unwrap()
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
            "INSERT INTO berth.ledger_spools (writer, volume, last_entry, acknowledged, seen_at, read_at, gone_at)
             SELECT '00000000-0000-0000-0000-00000000000c/' || pod, volume, 9, acknowledged, now() - interval '1 hour',
                    read_at, now()
             FROM (VALUES ('lacks', gen_random_uuid(), 4, NULL), ('silent', gen_random_uuid(), 9, NULL),
                          ('of-old', NULL, 9, NULL), ('read', gen_random_uuid(), 9, now())
             ) AS spool (pod, volume, acknowledged, read_at)",
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
    let dir = spool_of(100, SHORT).await;
    let lost = trim(dir.path()).await;
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

/// The other replica's, and that of the volume that it left behind.
const ROWS: &str = "SELECT count(*) FROM berth.ledger_spools WHERE starts_with(writer, 'writer-0')";

#[tokio::test]
async fn a_volume_that_is_found_again_while_its_replica_works_is_read_and_nothing_of_it_lost() {
    let (database, home) = home().await;
    let found = spool_of(7, Limits::default()).await;
    home.note_spool(volume(found.path()), 5, 0).await.unwrap();
    home.close().await;
    // The replica comes back with an empty volume.
    let ledger = open(&database, WRITER).await;
    until("the earlier one is left behind", &database, ROWS, 2).await;
    // A copy of what it works on is read, which is no other volume.
    let copy = tempfile::Builder::new().prefix("berth-lost-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    Spool::open(copy.path(), WRITER).unwrap().close().await.unwrap();
    let own = "SELECT volume FROM berth.ledger_spools WHERE writer = 'writer-0'";
    let own: Uuid = sqlx::query_scalar(own).fetch_one(&mut database.connect().await).await.unwrap();
    fs::write(copy.path().join("_volume"), own.to_string()).unwrap();
    replay_once(&source(&database), copy.path(), false, |_| {}).await.unwrap();
    let left = "SELECT count(*) FROM berth.ledger_spools WHERE writer LIKE 'writer-0/until-%' AND gone_at IS NULL";
    assert_eq!(database.number(left).await, 1, "nobody has read that one");

    let replayed = replay_once(&source(&database), found.path(), false, |_| {}).await.unwrap();
    assert_eq!(replayed.added, 7);
    let read = "SELECT count(*) FROM berth.ledger_spools WHERE writer LIKE 'writer-0/until-%' AND acknowledged = 7
                AND gone_at IS NOT NULL AND read_at > seen_at";
    assert_eq!(database.number(read).await, 1, "it is gone, and was read");
    assert_eq!(
        database.number("SELECT last_entry FROM berth.ledger_spools WHERE writer = 'writer-0'").await,
        0,
        "what its replica writes on now is another one"
    );
    let looked = "SELECT count(*) FROM berth.ledger_spools WHERE writer = 'writer-0'
                  AND seen_at > (SELECT max(gone_at) FROM berth.ledger_spools)";
    until("it has looked at them since", &database, looked, 1).await;
    assert_eq!((database.number(ROWS).await, database.number(NAMED).await), (2, 0), "nothing is left behind or lost");
    let Health::Database { beside, .. } = ledger.health() else { unreachable!("it has a database") };
    assert_eq!(beside.out_of_reach.load(Ordering::Relaxed), 0);
    ledger.close().await;
}

/// A replica that was taken away and comes back with an empty volume, and is taken away again.
#[tokio::test]
async fn two_volumes_of_one_replica_are_lost_by_their_own_names_and_each_is_told_once() {
    let (database, ledger) = ledger().await;
    let other = Home::open(&source(&database), "writer-1").await.unwrap();
    let gone = "UPDATE berth.ledger_spools SET seen_at = now() - interval '2 minutes', gone_at = now() WHERE writer = 'writer-1'";
    other.note_spool(Uuid::from_u128(1), 9, 9).await.unwrap();
    database.execute(gone).await;
    until("the first is named", &database, NAMED, 1).await;
    assert!(other.note_spool(Uuid::from_u128(2), 9, 9).await.unwrap());
    database.execute(gone).await;
    until("the second is named", &database, NAMED, 2).await;
    ledger.close().await;
    // Nor by whoever begins anew, and keeps no copy of what stands already.
    let config = config(source(&database), WRITER);
    let ledger = Ledger::open(&config).await.unwrap();
    let looked = "SELECT count(*) FROM berth.ledger_spools WHERE writer = 'writer-0'
                  AND seen_at > (SELECT max(gone_at) FROM berth.ledger_spools) AND volume IS NOT NULL";
    until("it has looked at them since", &database, looked, 1).await;
    ledger.close().await;
    assert_eq!(database.number(NAMED).await, 2);
    let spool = Spool::open(&config.spool, WRITER).unwrap();
    assert_eq!(spool.progress().last, 0, "a copy of what stood already");
    spool.close().await.unwrap();
}

/// What was told last may be ten seconds old, and segments may have gone since.
#[tokio::test]
async fn a_start_behind_trimmed_segments_is_no_restore() {
    let dir = spool_of(100, SHORT).await;
    let lost = trim(dir.path()).await;
    assert!(lost > 20, "{lost}");
    let (database, home) = home().await;
    home.note_spool(volume(dir.path()), 100, lost - 10).await.unwrap();
    home.close().await;
    let seen = "SELECT count(*) FROM berth.ledger_spools WHERE acknowledged = 100";
    let config = Config { spool: dir.path().to_owned(), ..config(source(&database), WRITER) };
    let ledger = Ledger::open(&config).await.unwrap();
    until("the tail is there, and told of", &database, seen, 1).await;
    assert_eq!(database.number(NAMED).await, 0);
    // A restore under the running replica.
    database.execute("UPDATE berth.ledger_spools SET acknowledged = 3").await;
    until("it is named", &database, NAMED, 1).await;
    let numbers =
        "SELECT (details #>> '{entries,first}')::bigint FROM berth.operation_logs WHERE action = 'EntriesLost'";
    assert_eq!(database.number(numbers).await, 4);
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
