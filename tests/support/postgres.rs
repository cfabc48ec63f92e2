//! A real PostgreSQL for tests: one server for each test binary, one fresh database for each test.
//!
//! The server listens on a Unix socket only, runs as `postgres` where the tests run as root, and lives under a small
//! shell that ends with its standard input: when the test process goes, however it goes, so do server and folder.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{Connection, Executor, PgConnection};

/// Starts the server, says where it is, waits for the end of its input, takes all away.
const SUPERVISOR: &str = r#"
set -e
trap '' INT HUP
dir=$(mktemp -d /tmp/berth-pg-XXXXXX)
trap 'rm -rf "$dir"' EXIT
"$BIN/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
printf 'local all +needs_password scram-sha-256\nlocal all all trust\n' >"$dir/data/pg_hba.conf"
"$BIN/pg_ctl" -D "$dir/data" -s -w -t 60 -l "$dir/log" -o "-k $dir -c listen_addresses='' -c fsync=$FSYNC $MORE -c max_connections=300 -c timezone=Asia/Tokyo" start >&2 || { cat "$dir/log" >&2; exit 1; }
echo "$dir"
cat >/dev/null
"$BIN/pg_ctl" -D "$dir/data" -s -m immediate stop >/dev/null 2>&1 || true
"#;

struct Server {
    socket: PathBuf,
    // Its open standard input keeps the server running.
    _supervisor: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let bin = newest_bin();
    // With BERTH_TEST_FSYNC=on, throughput is that of a database that keeps its word.
    let fsync = std::env::var("BERTH_TEST_FSYNC").unwrap_or_else(|_| "off".to_owned());
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = Command::new("setsid");
    if root {
        command.args(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    let mut supervisor = command
        .args(["sh", "-c", SUPERVISOR])
        .env("BIN", bin)
        .env("FSYNC", fsync)
        // For a closer look: BERTH_TEST_POSTGRES="-c log_min_duration_statement=5".
        .env("MORE", std::env::var("BERTH_TEST_POSTGRES").unwrap_or_default())
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("setsid (util-linux) is needed to run PostgreSQL for tests");
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "PostgreSQL did not start; what it said is above");
    Server { socket: PathBuf::from(line.trim()), _supervisor: supervisor }
});

/// The newest PostgreSQL of a Debian-like machine, else what `pg_config` names.
fn newest_bin() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path());
    let newest = installed
        .filter_map(|path| path.file_name()?.to_str()?.parse::<u32>().ok().map(|version| (version, path.join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .max();
    newest.map_or_else(
        || {
            let asked = Command::new("pg_config").arg("--bindir").output().expect("PostgreSQL's server is needed");
            PathBuf::from(String::from_utf8(asked.stdout).unwrap().trim())
        },
        |(_, bin)| bin,
    )
}

/// A fresh, empty database with a login role that may create in it, and no more.
pub struct Database {
    name: String,
}

impl Database {
    /// Makes it.
    pub async fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&url("postgres", "postgres")).await.unwrap();
        // Tests run side by side; the role is made by whichever comes first.
        let role = "DO $$ BEGIN PERFORM pg_advisory_xact_lock(1);
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'berth_test') THEN CREATE ROLE berth_test LOGIN; END IF;
            END $$";
        admin.execute(role).await.unwrap();
        for statement in [format!("CREATE DATABASE {name}"), format!("GRANT CREATE ON DATABASE {name} TO berth_test")] {
            admin.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        }
        Self { name }
    }

    /// A role of its own for this database, that may do what the other may; the URL for it. With a password, it needs it.
    pub async fn role(&self, password: Option<&str>) -> (String, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let role = format!("{}_role_{}", self.name, COUNT.fetch_add(1, Ordering::Relaxed));
        let group = "DO $$ BEGIN PERFORM pg_advisory_xact_lock(1);
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'needs_password') THEN CREATE ROLE needs_password; END IF;
            END $$";
        PgConnection::connect(&url("postgres", "postgres")).await.unwrap().execute(group).await.unwrap();
        self.admin(format!("CREATE ROLE {role} LOGIN IN ROLE berth_test")).await;
        let mut who = role.clone();
        if let Some(password) = password {
            self.admin(format!("GRANT needs_password TO {role}; ALTER ROLE {role} PASSWORD '{password}'")).await;
            who = format!("{role}:{password}");
        }
        (role, url(&who, &self.name))
    }

    /// Runs statements as the server's owner, outside of this database.
    pub async fn admin(&self, sql: String) {
        let mut admin = PgConnection::connect(&url("postgres", "postgres")).await.unwrap();
        for statement in sql.split("; ") {
            admin.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap();
        }
    }

    /// Ends all connections to it but those of the tests themselves.
    pub async fn cut(&self, application: &str) {
        self.admin(format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = '{}' AND application_name = '{application}'",
            self.name
        ))
        .await;
    }

    /// The URL for the role without special rights.
    pub fn url(&self) -> String {
        url("berth_test", &self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection of that role, for looking behind the ledger's back.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    /// The first column of the first row.
    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.unwrap()
    }

    /// Runs statements as the role.
    pub async fn execute(&self, sql: &'static str) {
        self.connect().await.execute(sql).await.unwrap();
    }
}

/// The folder of the server's socket.
pub fn socket() -> &'static Path {
    &SERVER.socket
}

fn url(role: &str, database: &str) -> String {
    let host = socket().display().to_string().replace('/', "%2F");
    format!("postgres://{role}@{host}/{database}?sslmode=disable")
}
