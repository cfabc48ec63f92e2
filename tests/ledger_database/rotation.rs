//! Credentials and certificates change under a running replica.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use berth::{
    ledger::{
        Backend, Outcome,
        postgres::{Home, Source, migrate},
    },
    lifecycle::State,
};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{down, objects::Object, postgres::Database, source, up};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

#[tokio::test]
async fn a_wrong_password_is_told_apart_and_a_corrected_file_is_read_without_a_restart() {
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let (_, url) = database.role(Some("old-word")).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, url.replace("old-word", "wrong-word")).unwrap();
    let home = Home::start(&Source::File(path.clone()), "writer-0").unwrap();
    let error = down(&home, "DatabaseCredentialsRefused").await;
    assert!(!format!("{error:?} {home:?} {}", error.explain()).contains("wrong-word"));
    std::fs::write(&path, url).unwrap();
    up(&home).await;
    assert_eq!(home.submit(Object::new("db").step(State::Pending)).await.unwrap(), DURABLE);
}

#[tokio::test]
async fn a_rotated_password_is_taken_over_while_work_goes_on() {
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let (role, url) = database.role(Some("old-word")).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, &url).unwrap();
    let home = Home::open(&Source::File(path.clone()), "writer-0").await.unwrap();
    let mut object = Object::new("db");
    home.submit(object.step(State::Pending)).await.unwrap();
    database.admin(format!("ALTER ROLE {role} PASSWORD 'new-word'")).await;
    // The database knows first; the connections that are open go on until the file follows.
    assert_eq!(home.submit(object.step(State::Running)).await.unwrap(), DURABLE);
    std::fs::write(&path, url.replace("old-word", "new-word")).unwrap();
    database.cut("writer-0").await;
    let entry = object.step(State::Paused);
    let mut answer = home.submit(entry.clone()).await;
    while answer.is_err() {
        up(&home).await;
        answer = home.submit(entry.clone()).await;
    }
    assert_eq!(answer.unwrap(), DURABLE);
    assert_eq!(database.number("SELECT count(*) FROM berth.container_status_history").await, 3);
}

#[tokio::test]
async fn a_new_configuration_replaces_the_pool_without_a_failure() {
    let database = Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let (_, old) = database.role(None).await;
    let (new_role, new) = database.role(None).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, &old).unwrap();
    let home = Home::open(&Source::File(path.clone()), "writer-0").await.unwrap();
    std::fs::write(&path, &new).unwrap();
    let mut object = Object::new("db");
    let (mut state, mut seen) = (State::Pending, 0);
    // Nobody is refused while the pool is replaced.
    for _ in 0..10_000 {
        assert_eq!(home.submit(object.step(state)).await.unwrap(), DURABLE);
        state = State::Running;
        seen = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pg_stat_activity WHERE usename = $1")
            .bind(&new_role)
            .fetch_one(&mut database.connect().await)
            .await
            .unwrap();
        if seen > 0 {
            break;
        }
    }
    assert!(seen > 0, "the new role never came");
    assert_eq!(home.submit(object.step(State::Paused)).await.unwrap(), DURABLE);
}

/// A server of its own that is reached by TLS alone, as one in production is. It goes with the test.
struct TlsServer {
    folder: tempfile::TempDir,
    administrator: String,
    port: u16,
}

impl TlsServer {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("berth-tls-").tempdir_in("/tmp").unwrap();
        // The server's user has to get in.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = ["--database", "berth", "--listen", "127.0.0.1", "--port", &port.to_string()];
        let started = script("start").arg(folder.path()).args(options).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let administrator = String::from_utf8(started.stdout).unwrap().trim().to_owned();
        Self { folder, administrator, port }
    }

    fn authority(&self) -> PathBuf {
        self.folder.path().join("tls/ca.crt")
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let stopped = script("stop").arg(self.folder.path()).output();
        assert!(stopped.is_ok_and(|stopped| stopped.status.success()), "the server of this test still runs");
    }
}

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/postgres").join(name))
}

#[tokio::test]
async fn an_authority_that_did_not_sign_is_told_apart_and_a_rotated_one_is_read_without_a_restart() {
    let server = TlsServer::start();
    let mut admin = PgConnection::connect(&server.administrator).await.unwrap();
    admin.execute("CREATE ROLE berth_tls LOGIN PASSWORD 'word'").await.unwrap();
    admin.execute("GRANT CREATE ON DATABASE berth TO berth_tls").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (path, authority) = (folder.path().join("url"), folder.path().join("ca.crt"));
    let (port, root) = (server.port, authority.display());
    std::fs::write(
        &path,
        format!("postgres://berth_tls:word@127.0.0.1:{port}/berth?sslmode=verify-full&sslrootcert={root}"),
    )
    .unwrap();
    std::fs::copy(server.authority(), &authority).unwrap();
    migrate(&Source::File(path.clone())).await.unwrap();

    let other = TlsServer::start();
    std::fs::copy(other.authority(), &authority).unwrap();
    let home = Home::start(&Source::File(path), "writer-0").unwrap();
    let error = down(&home, "DatabaseTlsFailed").await;
    assert!(!error.explain().contains("word@"), "{}", error.explain());
    std::fs::copy(server.authority(), &authority).unwrap();
    up(&home).await;
    let mut object = Object::new("db");
    assert_eq!(home.submit(object.step(State::Pending)).await.unwrap(), DURABLE);
    home.close().await;
}
