//! The schema's version, as this release needs it.

use berth_migrations::SCHEMA_VERSION;
use sea_orm::DatabaseConnection;

use super::{
    bounds::within_orm,
    connect::{Source, connect},
    failure::from_orm,
};
use crate::ledger::error::LedgerError;

/// Refuses a schema that lacks what this release writes; a newer one is fine, for migrations only expand.
pub(super) async fn check(db: &DatabaseConnection) -> Result<(), LedgerError> {
    let found = within_orm("reading the schema's version", berth_migrations::version(db)).await?;
    if found < SCHEMA_VERSION { Err(LedgerError::SchemaTooOld { found, needed: SCHEMA_VERSION }) } else { Ok(()) }
}

/// `berth migrate`: brings the schema up to date, and names what was applied.
pub async fn migrate(source: &Source) -> Result<Vec<String>, LedgerError> {
    let db = connect(source, "berth migrate").await?;
    // No time-out of ours around it: the server's own bound each statement, and a half applied schema does not exist.
    berth_migrations::migrate(&db).await.map_err(|error| from_orm("migrating the schema", error))
}

/// What `berth migrate` would apply.
pub async fn pending(source: &Source) -> Result<Vec<String>, LedgerError> {
    let db = connect(source, "berth migrate").await?;
    within_orm("reading the schema's version", berth_migrations::pending(&db)).await
}
