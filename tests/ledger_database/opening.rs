//! What a ledger refuses to open, and how it says so.

use std::time::Duration;

use berth::{
    ledger::{
        Ledger, LedgerError, Outcome,
        postgres::{Home, Reader, Source, migrate, pending},
        protocol::Certain,
    },
    lifecycle::State,
};

use crate::{config, objects::Object, postgres::Database, source};

#[tokio::test]
async fn a_schema_that_is_too_old_is_refused_with_the_command_that_helps() {
    let database = Database::create().await;
    let source = source(&database);
    assert_eq!(pending(&source).await.unwrap().len(), 24);
    let error = Home::open(&source, "writer-0").await.unwrap_err();
    assert_eq!(error.to_string(), "the ledger's schema is at 0, this release needs 24: run `berth migrate`");
    assert!(matches!(Reader::connect(&source).await, Err(LedgerError::SchemaTooOld { .. })));
    assert_eq!(migrate(&source).await.unwrap().len(), 24);
    database.execute("DELETE FROM berth.seaql_migrations WHERE version LIKE '0024%'").await;
    let error = Home::open(&source, "writer-0").await.unwrap_err();
    assert!(matches!(error, LedgerError::SchemaTooOld { found: 23, needed: 24 }), "{error}");
    // An operator works on, and writes nothing there until it is new enough.
    let ledger = Ledger::open(&config(source.clone(), "writer-0")).await.unwrap();
    assert_eq!(ledger.trouble().unwrap().reason(), "SchemaTooOld");
    let outcome = ledger.submit(Object::new("early").step(State::Pending)).await.unwrap();
    assert_eq!(outcome, Outcome::Away(Certain::Spool));
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_heads").await, 0);
    database.execute("INSERT INTO berth.seaql_migrations VALUES ('0024_ledger_spools_volume', 0)").await;
    let mut news = ledger.news();
    tokio::time::timeout(Duration::from_secs(60), news.wait_for(|_| ledger.is_current())).await.unwrap().unwrap();
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_heads").await, 1);
}

#[tokio::test]
async fn a_newer_schema_is_fine() {
    let database = Database::create().await;
    let source = source(&database);
    migrate(&source).await.unwrap();
    database.execute("INSERT INTO berth.seaql_migrations VALUES ('0099_the_future', 0)").await;
    assert!(migrate(&source).await.unwrap().is_empty());
    Ledger::open(&config(source, "writer-0")).await.unwrap();
}

#[tokio::test]
async fn migrating_at_once_from_two_places_applies_everything_once() {
    let database = Database::create().await;
    let source = source(&database);
    let (a, b) = tokio::join!(migrate(&source), migrate(&source));
    let mut applied = [a.unwrap(), b.unwrap()].concat();
    applied.sort();
    assert_eq!(applied.len(), 24);
    assert!(pending(&source).await.unwrap().is_empty());
    assert!(migrate(&source).await.unwrap().is_empty());
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_tables WHERE tablename = 'seaql_migrations' AND schemaname = 'berth'")
            .await,
        1
    );
    assert_eq!(database.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);
}

#[tokio::test]
async fn without_tls_no_other_host_is_reached() {
    let url = "postgres://berth:hunter2@db.example:5432/berth?sslmode=disable";
    let config = config(Source::Url(url.to_owned()), "writer-0");
    assert!(!format!("{config:?}").contains("hunter2"));
    let error = Ledger::open(&config).await.unwrap_err();
    assert!(matches!(error, LedgerError::Configuration { .. }), "{error}");
    let text = error.explain();
    assert!(text.contains("db.example") && text.contains("sslmode=verify-full"), "{text}");
    assert!(!text.contains("hunter2"));
}

#[tokio::test]
async fn no_password_is_in_what_an_open_ledger_or_a_failed_one_prints() {
    let database = Database::create().await;
    let url = database.url().replace("berth_test@", "berth_test:hunter2@");
    let source = Source::Url(url);
    migrate(&source).await.unwrap();
    let ledger = Ledger::open(&config(source.clone(), "writer-0")).await.unwrap();
    let reader = Reader::connect(&source).await.unwrap();
    for text in [format!("{source:?}"), format!("{ledger:?}"), format!("{reader:?}"), format!("{ledger:#?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    for url in
        ["postgres://berth:hunter2@127.0.0.1:1/berth?sslmode=disable", "postgres://berth:hunter2@[bad/berth", "hunter2"]
    {
        let error = Home::open(&Source::Url(url.to_owned()), "writer-0").await.unwrap_err();
        assert!(!format!("{error:?} {}", error.explain()).contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_unavailable_with_the_cause() {
    let source = Source::Url("postgres://berth@127.0.0.1:1/berth?sslmode=disable".to_owned());
    let error = Home::open(&source, "writer-0").await.unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable { .. }), "{error:?}");
    assert!(error.explain().contains("refused"), "{}", error.explain());
}

#[tokio::test]
async fn the_url_may_come_from_a_mounted_file() {
    let database = Database::create().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, format!("{}\n", database.url())).unwrap();
    assert_eq!(migrate(&Source::File(path.clone())).await.unwrap().len(), 24);
    let missing = Ledger::open(&config(Source::File(folder.path().join("other")), "writer-0")).await.unwrap_err();
    assert!(matches!(missing, LedgerError::Configuration { .. }), "{missing}");
}
