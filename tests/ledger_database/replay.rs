//! A spool of a million records comes into the database: how fast, beside the rate at which the same rows can be written at
//! all; in how much memory; and how long it takes to verify it afterwards.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use berth::{
    ledger::{
        Config, Entry, Health, Ledger,
        postgres::{Source, migrate},
    },
    lifecycle::State,
};

use sqlx::PgConnection;

use crate::{config, import::bare_batch, objects::Object, postgres::Database, source};

/// Who writes them at once.
const WRITERS: usize = 250;
/// Rows in a bare batch: the most of one transaction of a replay.
const BATCH: usize = 4_000;

fn next(object: &mut Object) -> Entry {
    object.step(if object.head.sequence == 0 { State::Pending } else { State::Running })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_the_database_was_away_is_in_the_tables_of_the_present_too() {
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let away = config(Source::Url("postgres://berth_test@127.0.0.1:1/away?sslmode=disable".to_owned()), "writer-0");
    let ledger = Ledger::open(&away).await.unwrap();
    let (mut gone, mut kept) = (Object::new("gone"), Object::new("kept"));
    for to in [State::Pending, State::Running, State::Paused, State::Stopped, State::Deleted] {
        ledger.submit(gone.step(to)).await.unwrap();
        ledger.submit(next(&mut kept)).await.unwrap();
    }
    ledger.close().await;
    let there = Config { database: Some(source(&database)), ..away };
    let ledger = Ledger::open(&there).await.unwrap();
    let all = async {
        while database.number("SELECT count(*) FROM berth.container_status_history").await < 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // An ending's head is moved by whoever knows that it was shown; until then the row stands before it.
        let rows = "SELECT count(*) FROM berth.tenant_containers WHERE (name, status, sequence) IN
                    (VALUES ('gone', 'stopped', 4), ('kept', 'running', 5))";
        while database.number(rows).await < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("a row of the present is missing");
    ledger.close().await;
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Measures; `BERTH_RECORDS` says how many (a million) of how many objects (`BERTH_OBJECTS`, a thousand), whose records are
/// mixed on the spool. BERTH_TEST_FSYNC=on gives a database that keeps its word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, proves little: run it in release, with --ignored --nocapture"]
async fn measure_a_replay_against_bare_batches_of_the_same_rows() {
    let objects = setting("BERTH_OBJECTS", 1_000) / WRITERS * WRITERS;
    let hops = setting("BERTH_RECORDS", 1_000_000) / objects;
    let records = hops * objects;
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    // Away at first: the spool takes everything.
    let away = config(Source::Url("postgres://berth_test@127.0.0.1:1/away?sslmode=disable".to_owned()), "writer-0");
    let ledger = Ledger::open(&away).await.unwrap();
    let (began, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    for writer in 0..WRITERS {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            let mut objects: Vec<Object> =
                (0..objects / WRITERS).map(|n| Object::new(&format!("o-{writer}-{n}"))).collect();
            for _ in 0..hops {
                for object in &mut objects {
                    ledger.submit(next(object)).await.unwrap();
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    println!("{records} records of {objects} objects onto the spool in {:.1} s", began.elapsed().as_secs_f64());
    ledger.close().await;

    let mut bare = Bare::begin(objects).await;
    let before = bare.write(records / 2).await;
    forget_peak();
    let ledger = Ledger::open(&Config { database: Some(source(&database)), ..away.clone() }).await.unwrap();
    let replayed = || match ledger.health() {
        Health::Database { beside, spool, .. } => (beside.replayed.load(Ordering::Relaxed), spool.is_some()),
        Health::Spool(_) => (0, false),
    };
    let pace = || match ledger.health() {
        Health::Database { beside, .. } => beside.pace(),
        Health::Spool(_) => None,
    };
    let pace = &pace;
    let paced = AtomicBool::new(false);
    let (replayed, paced) = (&replayed, &paced);
    let until = |least: u64| async move {
        while replayed().0 < least {
            paced.fetch_or(pace().is_some_and(|pace| pace.per_second > 0), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (Instant::now(), replayed().0)
    };
    let (began, first) = until(1).await;
    let (ended, last) = until(records as u64).await;
    let took = ended - began;
    assert!(paced.load(Ordering::Relaxed), "how far it was, and how long it would take, was shown to nobody");
    let (rate, peak) = ((last - first) as f64 / took.as_secs_f64(), peak_of("self"));
    ledger.close().await;
    let after = bare.write(records / 2).await;
    let bare = f64::midpoint(before, after);
    println!(
        "bare UNNEST batches {before:.0} rows/s before and {after:.0} after; replay {rate:.0} records/s: {:.2} of it",
        rate / bare
    );
    println!("replayed in {:.1} s, the process held {peak} MiB at most", took.as_secs_f64());
    let kept = database.number("SELECT count(*) FROM berth.container_status_history").await;
    assert_eq!(usize::try_from(kept).unwrap(), records);
    let present = "SELECT count(*) FROM berth.tenant_containers t JOIN berth.ledger_heads h
                   ON (h.cluster_id, h.uid, h.hash) = (t.cluster_id, t.id, t.head)";
    assert_eq!(
        database.number(present).await,
        i64::try_from(objects).unwrap(),
        "the tables of the present stand where the chains end"
    );
    verify("database", &["--database-url", &database.url()]);
    verify("spool", &["--spool", &away.spool.display().to_string()]);
    fs::remove_dir_all(&away.spool).unwrap();
}

/// A connection that does nothing but write the same rows into the history of a database of its own.
struct Bare {
    _database: Database,
    connection: PgConnection,
    objects: Vec<Object>,
}

impl Bare {
    async fn begin(objects: usize) -> Self {
        let database = Database::create().await;
        migrate(&source(&database)).await.unwrap();
        database.execute("SELECT berth.make_partitions(now()::date, now()::date)").await;
        let connection = database.connect().await;
        let objects = (0..objects).map(|n| Object::new(&format!("o-{n}"))).collect();
        Self { _database: database, connection, objects }
    }

    /// Writes so many rows; how many a second.
    async fn write(&mut self, rows: usize) -> f64 {
        let (mut took, mut written) = (Duration::ZERO, 0);
        while written < rows {
            let hops = BATCH.div_ceil(self.objects.len());
            let entries: Vec<Entry> =
                (0..hops).flat_map(|_| self.objects.iter_mut().map(next).collect::<Vec<_>>()).collect();
            took += bare_batch(&mut self.connection, &entries).await;
            written += entries.len();
        }
        written as f64 / took.as_secs_f64()
    }
}

/// What `berth verify` takes, of time and memory; it has to find nothing.
fn verify(what: &str, home: &[&str]) {
    let began = Instant::now();
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_berth")).arg("verify").args(home).stdout(Stdio::piped()).spawn().unwrap();
    let (process, mut peak) = (child.id().to_string(), 0);
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_of(&process));
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let said = said.lines().last().unwrap_or_default();
    println!("berth verify over the {what}: {:.1} s, {peak} MiB at most: {said}", began.elapsed().as_secs_f64());
}

/// From here on the peak is counted anew.
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// The most memory that a process has held, in MiB; 0 where it has ended.
fn peak_of(process: &str) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(process).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
