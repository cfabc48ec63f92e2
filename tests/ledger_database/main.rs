//! The ledger against a real PostgreSQL: what the user keeps, whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "tests and their helpers")]

#[path = "../support/fake.rs"]
mod fake;
#[path = "../support/objects.rs"]
mod objects;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;

mod audit;
mod breaker;
mod chains;
mod commands;
mod facts;
mod grants;
mod import;
mod lost;
mod opening;
mod outages;
mod partitions;
mod present;
mod quarantine;
mod quotas;
mod reading;
mod replay;
mod rewinds;
mod rollouts;
mod rotation;
mod throughput;

use std::time::Duration;

use berth::ledger::{
    Config, Health, Ledger, LedgerError,
    postgres::{Counters, Home, Source, Standing, migrate},
};

/// A fresh database with the schema, and a ledger open in it.
async fn ledger() -> (postgres::Database, Ledger) {
    let database = postgres::Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let ledger = open(&database, "writer-0").await;
    (database, ledger)
}

/// A fresh database with the schema, and its home.
async fn home() -> (postgres::Database, Home) {
    let database = postgres::Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let home = Home::open(&source(&database), "writer-0").await.unwrap();
    (database, home)
}

/// A fresh database with the schema, and a way to it that breaks on command.
async fn behind_a_proxy() -> (postgres::Database, proxy::Proxy, Source) {
    let database = postgres::Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let proxy = proxy::Proxy::before(postgres::socket().to_owned()).await;
    let url = format!("postgres://berth_test@{}/{}?sslmode=disable", proxy.authority(), database.name());
    (database, proxy, Source::Url(url))
}

/// Waits until the database is up again.
async fn up(home: &Home) {
    let mut standing = home.standing();
    let up = standing.wait_for(|standing| matches!(standing, Standing::Up));
    tokio::time::timeout(Duration::from_secs(60), up).await.expect("it never came back").unwrap();
}

/// Waits until it is down for this reason.
async fn down(home: &Home, reason: &str) -> LedgerError {
    let mut standing = home.standing();
    let down = standing.wait_for(|standing| matches!(standing, Standing::Down(error) if error.reason() == reason));
    let Standing::Down(error) =
        tokio::time::timeout(Duration::from_secs(60), down).await.expect("it never failed so").unwrap().clone()
    else {
        unreachable!()
    };
    error
}

/// One more replica on the same database.
async fn open(database: &postgres::Database, writer: &str) -> Ledger {
    Ledger::open(&config(source(database), writer)).await.unwrap()
}

/// What the writer did.
fn counters(ledger: &Ledger) -> &Counters {
    let Health::Database { writer: Some((counters, _)), .. } = ledger.health() else {
        panic!("it is not in a database")
    };
    counters
}

fn source(database: &postgres::Database) -> Source {
    Source::Url(database.url())
}

fn config(source: Source, writer: &str) -> Config {
    // A spool of its own, which goes with the process; and all the time that a busy machine may take.
    let spool = tempfile::Builder::new().prefix("berth-spool-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    Config { budget: Duration::from_secs(20), ..Config::new(Some(source), spool, writer.to_owned()) }
}
