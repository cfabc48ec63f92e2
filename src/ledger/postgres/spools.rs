//! `ledger_spools`: which replica has how much on its spool (rule 7).

use sea_orm::{DatabaseConnection, EntityTrait, QueryOrder};
use sqlx::PgPool;

use super::{
    bounds::{within, within_orm},
    entity::ledger_spools,
    time::micros,
};
use crate::ledger::{error::LedgerError, record::Micros};

const DOING: &str = "telling of this replica's spool";

/// A spool, as its replica told of it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSpool {
    /// The replica's name as a writer.
    pub writer: String,
    /// The number of its last entry.
    pub last: u64,
    /// Up to which number the database has its entries.
    pub acknowledged: u64,
    /// When it was told.
    pub seen_at: Micros,
    /// Whether somebody declared its volume gone since.
    pub gone: bool,
}

/// A spool that is told of is not gone.
pub(super) async fn note(pool: &PgPool, writer: &str, last: u64, acknowledged: u64) -> Result<(), LedgerError> {
    within(DOING, async {
        sqlx::query(
            "INSERT INTO berth.ledger_spools (writer, last_entry, acknowledged) VALUES ($1, $2, $3)
             ON CONFLICT (writer) DO UPDATE
             SET last_entry = excluded.last_entry, acknowledged = excluded.acknowledged, seen_at = now(),
                 gone_at = NULL",
        )
        .bind(writer)
        .bind(last.cast_signed())
        .bind(acknowledged.cast_signed())
        .execute(pool)
        .await?;
        Ok(())
    })
    .await
    .map_err(|failure| failure.into_error(DOING))
}

/// All of them, by writer.
pub(super) async fn all(db: &DatabaseConnection) -> Result<Vec<StoredSpool>, LedgerError> {
    let select = ledger_spools::Entity::find().order_by_asc(ledger_spools::Column::Writer);
    let rows = within_orm("reading the spools", select.all(db)).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let ledger_spools::Model { writer, last_entry, acknowledged, registered_at: _, seen_at, gone_at } = row;
            StoredSpool {
                writer,
                last: last_entry.cast_unsigned(),
                acknowledged: acknowledged.cast_unsigned(),
                seen_at: micros(seen_at),
                gone: gone_at.is_some(),
            }
        })
        .collect())
}

/// What somebody who reads a spool for its replica says of it: everything up to this number is here, and whether its
/// volume is gone.
pub(super) async fn settle(pool: &PgPool, writer: &str, up_to: u64, gone: bool) -> Result<(), LedgerError> {
    within(DOING, async {
        sqlx::query(
            "INSERT INTO berth.ledger_spools (writer, last_entry, acknowledged, gone_at)
             VALUES ($1, $2, $2, CASE WHEN $3 THEN now() END)
             ON CONFLICT (writer) DO UPDATE
             SET last_entry = greatest(berth.ledger_spools.last_entry, excluded.last_entry),
                 acknowledged = greatest(berth.ledger_spools.acknowledged, excluded.acknowledged),
                 gone_at = coalesce(excluded.gone_at, berth.ledger_spools.gone_at)",
        )
        .bind(writer)
        .bind(up_to.cast_signed())
        .bind(gone)
        .execute(pool)
        .await?;
        Ok(())
    })
    .await
    .map_err(|failure| failure.into_error(DOING))
}

/// Keeps the row of a spool that this writer has no more.
pub(super) async fn leave_behind(pool: &PgPool, writer: &str) -> Result<(), LedgerError> {
    within(DOING, async {
        sqlx::query(
            "UPDATE berth.ledger_spools SET writer = writer || '/until-' || to_char(now(), 'YYYYMMDD\"T\"HH24MISSUS')
             WHERE writer = $1",
        )
        .bind(writer)
        .execute(pool)
        .await?;
        Ok(())
    })
    .await
    .map_err(|failure| failure.into_error(DOING))
}
