//! `ledger_spools`: which replica has how much on its spool (rule 7).

use std::time::Duration;

use sea_orm::{DatabaseConnection, EntityTrait, QueryOrder, QuerySelect, sea_query::Expr};
use sqlx::PgPool;

use super::{
    bounds::{within, within_orm},
    entity::ledger_spools,
};
use crate::ledger::error::LedgerError;

const DOING: &str = "telling of this replica's spool";
/// A replica that works tells of its spool every ten seconds.
const SILENT: Duration = Duration::from_secs(60);

/// A spool, as its replica told of it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSpool {
    /// The replica's name as a writer.
    pub writer: String,
    /// The number of its last entry.
    pub last: u64,
    /// Up to which number the database has its entries.
    pub acknowledged: u64,
    /// How long ago that was, by the database's clock.
    pub silent_for: Duration,
    /// Whether somebody declared its volume gone since.
    pub gone: bool,
}

impl StoredSpool {
    /// Whether its replica works.
    pub fn is_told_of(&self) -> bool {
        !self.gone && self.silent_for < SILENT
    }

    /// Whether it may hold what nobody else has, and nobody brings it: its replica tells nothing of it any more, so that
    /// what it last said of itself is not all that there may be (rule 7).
    pub fn is_out_of_reach(&self) -> bool {
        !self.gone && !self.is_told_of()
    }
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
    let select = ledger_spools::Entity::find()
        .select_only()
        .columns([ledger_spools::Column::Writer, ledger_spools::Column::LastEntry, ledger_spools::Column::Acknowledged])
        .expr(Expr::cust("(extract(epoch FROM now() - seen_at) * 1000)::bigint"))
        .expr(Expr::cust("gone_at IS NOT NULL"))
        .order_by_asc(ledger_spools::Column::Writer)
        .into_tuple::<(String, i64, i64, i64, bool)>();
    let rows = within_orm("reading the spools", select.all(db)).await?;
    let spool = |(writer, last, acknowledged, silent, gone): (String, i64, i64, i64, bool)| StoredSpool {
        writer,
        last: last.cast_unsigned(),
        acknowledged: acknowledged.cast_unsigned(),
        silent_for: Duration::from_millis(u64::try_from(silent).unwrap_or(0)),
        gone,
    };
    Ok(rows.into_iter().map(spool).collect())
}

/// What somebody who reads a spool for its replica says of it: everything up to this number is here, and whether nothing
/// more is expected of that replica's volumes, those that it left behind before included.
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
        if gone {
            sqlx::query(
                "UPDATE berth.ledger_spools SET gone_at = now()
                 WHERE starts_with(writer, $1 || '/until-') AND gone_at IS NULL",
            )
            .bind(writer)
            .execute(pool)
            .await?;
        }
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
