//! Against a real PostgreSQL, thrown away afterwards.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor, PgConnection};

use super::{
    Ending, Fault, Moment, Proxy, Random, Unit, Upstream, Weather,
    wire::{FromClient, Kind},
};

/// A server that goes when this process does, however it goes: its shell waits for the end of its input.
struct Server {
    folder: PathBuf,
    _shell: Child,
}

const SHELL: &str = r#"
dir=$(mktemp -d /tmp/berth-faults-XXXXXX) && chmod 755 "$dir"
trap '' INT HUP
trap '"$POSTGRES/stop" "$dir" --remove >&2; rm -rf "$dir"' EXIT
"$POSTGRES/start" "$dir" >&2 && echo "$dir" && cat >/dev/null
"#;

fn start() -> Server {
    let postgres = Path::new(env!("CARGO_MANIFEST_DIR")).join("postgres");
    let mut shell = Command::new("setsid")
        .args(["sh", "-c", SHELL])
        .env("POSTGRES", postgres)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "PostgreSQL did not start; what it said is above");
    Server { folder: PathBuf::from(line.trim()).join("socket"), _shell: shell }
}

static SERVER: LazyLock<Server> = LazyLock::new(start);

const ADMINISTRATOR: &str = "berth_admin";

/// A database of its own for each test, with a table, and a proxy before it.
async fn ground() -> (Proxy, String, PgConnection) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("faults_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let direct = |database: &str| {
        let host = SERVER.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{ADMINISTRATOR}@{host}/{database}?sslmode=disable")
    };
    let mut admin = PgConnection::connect(&direct("postgres")).await.unwrap();
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let mut direct = PgConnection::connect(&direct(&name)).await.unwrap();
    direct.execute("CREATE TABLE t (n integer PRIMARY KEY)").await.unwrap();
    let proxy = Proxy::start(Upstream::in_folder(&SERVER.folder)).unwrap();
    let url = proxy.url(ADMINISTRATOR, &name);
    (proxy, url, direct)
}

async fn insert(url: &str, n: i32) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let mut transaction = connection.begin().await?;
    sqlx::query("INSERT INTO t VALUES ($1)").bind(n).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn count(direct: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(direct).await.unwrap()
}

fn fault(unit: Unit, nth: u64, moment: Moment) -> Fault {
    Fault { unit, nth, moment, ending: Ending::Cut }
}

#[tokio::test]
async fn in_fair_weather_everything_passes_and_is_counted() {
    let (proxy, url, mut direct) = ground().await;
    insert(&url, 1).await.unwrap();
    assert_eq!(count(&mut direct).await, 1);
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.commits, counts.faults), (1, 1, 0));
    assert!(counts.statements >= 3 && counts.messages > counts.statements, "{counts:?}");
    let long = "x".repeat(3_000_000);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let back: String = sqlx::query_scalar("SELECT $1").bind(&long).fetch_one(&mut connection).await.unwrap();
    assert_eq!(back, long);
}

#[tokio::test]
async fn what_was_committed_stays_when_the_answer_is_lost_and_what_was_not_does_not() {
    let (proxy, url, mut direct) = ground().await;
    for (n, moment, rows) in [(1, Moment::Before, 0), (2, Moment::During, 0), (3, Moment::After, 1)] {
        proxy.inject(fault(Unit::Commit, 1, moment));
        insert(&url, n).await.unwrap_err();
        assert_eq!((proxy.waiting(), count(&mut direct).await), (0, rows), "{moment:?}");
    }
    insert(&url, 4).await.unwrap();
    assert_eq!(proxy.counts().faults, 3);
}

#[tokio::test]
async fn a_commit_in_the_extended_protocol_is_one_too() {
    let (proxy, url, mut direct) = ground().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute("BEGIN").await.unwrap();
    connection.execute("INSERT INTO t VALUES (1)").await.unwrap();
    proxy.inject(Fault::lose_commit());
    sqlx::query("commit").persistent(true).execute(&mut connection).await.unwrap_err();
    assert_eq!((proxy.waiting(), count(&mut direct).await), (0, 1));
}

#[tokio::test]
async fn a_cut_at_every_message_until_none_is_left_leaves_all_or_nothing() {
    let (proxy, url, mut direct) = ground().await;
    for moment in [Moment::Before, Moment::During, Moment::After] {
        for nth in 1.. {
            assert!(nth < 100, "it never gets through");
            proxy.inject(fault(Unit::Message, nth, moment));
            let before = count(&mut direct).await;
            let done = insert(&url, i32::try_from(before).unwrap()).await;
            let added = count(&mut direct).await - before;
            assert!(added == 1 || (added == 0 && done.is_err()), "{moment:?} {nth}: {done:?}");
            if proxy.waiting() > 0 {
                proxy.fair();
                assert!(nth > 5 && done.is_ok(), "{moment:?} {nth}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn silence_is_no_error_until_the_client_gives_up() {
    let (proxy, url, mut direct) = ground().await;
    proxy.inject(Fault { ending: Ending::Silent, ..Fault::lose_commit() });
    let waiting = tokio::time::timeout(Duration::from_millis(300), insert(&url, 1)).await;
    assert!(waiting.is_err(), "nobody was told");
    assert_eq!(count(&mut direct).await, 1);
}

#[tokio::test]
async fn every_weather_and_fair_again() {
    let (proxy, url, mut direct) = ground().await;
    let mut open = PgConnection::connect(&url).await.unwrap();
    proxy.set(Weather::Refuse);
    // Until the open connection is cut, and then until the port is closed.
    let end = Instant::now() + Duration::from_secs(5);
    while open.execute("SELECT 1").await.is_ok() {
        assert!(Instant::now() < end, "an open connection goes on");
    }
    loop {
        match PgConnection::connect(&url).await {
            Err(sqlx::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
            other => assert!(Instant::now() < end, "{:?}", other.err()),
        }
    }
    proxy.set(Weather::Reject { code: "53300".to_owned(), message: "sorry, too many clients already".to_owned() });
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match PgConnection::connect(&url).await.map(drop) {
            Err(sqlx::Error::Database(error)) => {
                assert_eq!(error.code().as_deref(), Some("53300"));
                break;
            }
            other => assert!(Instant::now() < end, "{other:?}"),
        }
    }
    proxy.set(Weather::Fair);
    insert(&url, 1).await.unwrap();

    let mut open = PgConnection::connect(&url).await.unwrap();
    proxy.set(Weather::BlackHole);
    let soon = Duration::from_millis(200);
    tokio::time::timeout(soon, open.execute("SELECT 1")).await.unwrap_err();
    tokio::time::timeout(soon, PgConnection::connect(&url)).await.unwrap_err();
    proxy.set(Weather::Fair);
    insert(&url, 2).await.unwrap();

    let mut open = PgConnection::connect(&url).await.unwrap();
    proxy.set(Weather::Stall);
    let late = tokio::spawn(async move { open.execute("SELECT 1").await.map(drop) });
    tokio::time::sleep(soon).await;
    assert!(!late.is_finished());
    proxy.set(Weather::Fair);
    late.await.unwrap().unwrap();

    proxy.set(Weather::Slow(Duration::from_millis(30)));
    let begun = Instant::now();
    insert(&url, 3).await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(150), "{:?}", begun.elapsed());
    assert_eq!(count(&mut direct).await, 3);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let (proxy, url, _direct) = ground().await;
    let mut logs = Vec::new();
    for seed in [7, 7, 8] {
        let before = proxy.log().len();
        proxy.randomly(Random { seed, per_mille: 150, silence: false });
        for n in 0..12 {
            // Some fail; that is what they are for.
            let _ = insert(&url, n + 100).await;
        }
        proxy.fair();
        logs.push(proxy.log().split_off(before));
    }
    assert!(logs[0].len() > 2, "{:?}", logs[0]);
    // A session that is cut elsewhere has other messages behind it, but whatever number is hit is hit alike.
    assert_eq!(logs[0][..3], logs[1][..3]);
    assert_ne!(logs[0], logs[2]);
}

#[tokio::test]
async fn behind_a_pooler_another_server_answers_the_same_connection() {
    let (proxy, url, mut direct) = ground().await;
    let other = start();
    let host = other.folder.display().to_string().replace('/', "%2F");
    let there = |database: &str| format!("postgres://{ADMINISTRATOR}@{host}/{database}?sslmode=disable");
    let mut admin = PgConnection::connect(&there("postgres")).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut direct).await.unwrap();
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let mut second = PgConnection::connect(&there(&name)).await.unwrap();
    second.execute("CREATE TABLE t (n integer PRIMARY KEY)").await.unwrap();

    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    proxy.swap(Upstream::in_folder(&other.folder));
    // In a transaction nothing changes.
    connection.execute("INSERT INTO t VALUES (2)").await.unwrap();
    connection.execute("COMMIT").await.unwrap();
    connection.execute("INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!((count(&mut direct).await, count(&mut second).await), (2, 1));
    assert_eq!(proxy.counts().connections, 1);

    proxy.fail_over(Upstream::in_folder(&SERVER.folder));
    connection.execute("SELECT 1").await.unwrap_err();
    insert(&url, 4).await.unwrap();
    assert_eq!(count(&mut direct).await, 3);
}

#[tokio::test]
async fn the_weather_can_be_changed_by_words() {
    let (proxy, url, mut direct) = ground().await;
    let folder = tempfile::tempdir().unwrap();
    let (socket, proxy) = (folder.path().join("weather"), std::sync::Arc::new(proxy));
    let server = crate::faults::control::serve(&socket, std::sync::Arc::<Proxy>::clone(&proxy)).unwrap();
    let tell = |line: &'static str| {
        let socket = socket.clone();
        async move {
            tokio::task::spawn_blocking(move || super::super::control::tell(&socket, line)).await.unwrap().unwrap()
        }
    };
    assert_eq!(tell("break after commit 1 cut").await, "ok");
    insert(&url, 1).await.unwrap_err();
    assert_eq!(count(&mut direct).await, 1);
    assert!(tell("counts").await.contains("\"faults\":1"));
    assert!(tell("log").await.contains("After"));
    assert_eq!(tell("reject 28P01 wrong password").await, "ok");
    assert!(insert(&url, 2).await.unwrap_err().to_string().contains("wrong password"));
    assert_eq!(tell("fair").await, "ok");
    assert!(tell("snow").await.starts_with("error"));
    assert!(tell("break before tea 1 cut").await.starts_with("error"));
    drop(server);
    assert!(!socket.exists());
}

#[test]
fn messages_are_found_however_the_bytes_come() {
    let bytes = [
        &b"\0\0\0\x08\x04\xd2\x16\x2f"[..], // asks for TLS
        b"\0\0\0\x10\0\x03\0\0user\0x\0\0",
        b"Q\0\0\0\x0bCOMMIT\0",
        b"P\0\0\0\x0fs1\0 End;\0\0\0",
        b"B\0\0\0\x0ep1\0s1\0\0\0\0\0",
        b"E\0\0\0\x0bp1\0\0\0\0\0",
        b"Q\0\0\0\x0eCOMMITTED\0",
        b"X\0\0\0\x04",
    ]
    .concat();
    let mut reader = FromClient::default();
    let mut found = Vec::new();
    let mut passed = Vec::new();
    for byte in &bytes {
        reader.buffer.extend_from_slice(&[*byte]);
        while let Some(message) = reader.next() {
            passed.extend_from_slice(&message.bytes);
            found.push((message.is_commit(), message.kind));
        }
    }
    assert_eq!(passed, bytes);
    let statement = |text: &str| Kind::Statement(text.to_owned());
    assert_eq!(
        found,
        [
            (false, Kind::Encryption),
            (false, Kind::Startup),
            (true, statement("COMMIT")),
            (false, Kind::Other),
            (false, Kind::Other),
            (true, statement(" End;")),
            (false, statement("COMMITTED")),
            (false, Kind::Terminate),
        ]
    );
}
