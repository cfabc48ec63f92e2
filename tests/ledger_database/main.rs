//! The ledger against a real PostgreSQL: what the user keeps, whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "tests and their helpers")]

#[path = "../support/objects.rs"]
mod objects;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;

mod audit;
mod chains;
mod commands;
mod opening;
mod outages;
mod partitions;
mod present;
mod quarantine;
mod reading;
mod throughput;

use berth::ledger::{
    Config, Health, Ledger,
    postgres::{Counters, Source, migrate},
};

/// A fresh database with the schema, and a ledger open in it.
async fn ledger() -> (postgres::Database, Ledger) {
    let database = postgres::Database::create().await;
    migrate(&source(&database)).await.unwrap();
    let ledger = open(&database, "writer-0").await;
    (database, ledger)
}

/// One more replica on the same database.
async fn open(database: &postgres::Database, writer: &str) -> Ledger {
    Ledger::open(&config(source(database), writer)).await.unwrap()
}

/// What the writer did.
fn counters(ledger: &Ledger) -> &Counters {
    let Health::Database { counters, .. } = ledger.health() else { panic!("it is not in a database") };
    counters
}

fn source(database: &postgres::Database) -> Source {
    Source::Url(database.url())
}

fn config(source: Source, writer: &str) -> Config {
    Config { database: Some(source), spool: "/nowhere".into(), writer: writer.to_owned() }
}
