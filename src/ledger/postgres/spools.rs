//! `ledger_spools`: which replica has how much on its spool (rule 7).

use std::time::Duration;

use sea_orm::{DatabaseConnection, EntityTrait, QueryOrder, QuerySelect, sea_query::Expr};
use sqlx::{PgConnection, PgPool};

use super::{
    bounds::{within, within_orm},
    entity::ledger_spools,
};
use crate::ledger::error::LedgerError;

const DOING: &str = "telling of this replica's spool";
/// A replica that works tells of its spool every ten seconds.
const SILENT: Duration = Duration::from_secs(60);
/// Within this time it tells of it once more.
const TELLS: Duration = Duration::from_secs(15);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// What stands between a replica's name and the moment, in the name of a volume that it left behind.
const LEFT_BEHIND: &str = "/until-";

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
    /// Whether it was read to its end for that, so that what it told last is all that there was.
    pub read: bool,
}

impl StoredSpool {
    /// Whether its replica works.
    pub fn is_told_of(&self) -> bool {
        !self.gone && self.silent_for < SILENT
    }

    /// Whether it may hold what nobody else has, and nobody brings it: its replica tells nothing of it any more, so that
    /// what it last said of itself is not all that there may be (rule 7).
    pub fn is_out_of_reach(&self) -> bool {
        !self.gone && self.silent_for >= SILENT
    }

    /// The replica's name as a writer, also of a volume that it left behind.
    pub fn replica(&self) -> &str {
        self.writer.split_once(LEFT_BEHIND).map_or(&self.writer, |(replica, _)| replica)
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
        .expr(Expr::cust("coalesce(seen_at >= gone_at, false)"))
        .order_by_asc(ledger_spools::Column::Writer)
        .into_tuple::<(String, i64, i64, i64, bool, bool)>();
    let rows = within_orm("reading the spools", select.all(db)).await?;
    let spool = |(writer, last, acknowledged, silent, gone, read): (String, i64, i64, i64, bool, bool)| StoredSpool {
        writer,
        last: last.cast_unsigned(),
        acknowledged: acknowledged.cast_unsigned(),
        silent_for: Duration::from_millis(u64::try_from(silent).unwrap_or(0)),
        gone,
        read,
    };
    Ok(rows.into_iter().map(spool).collect())
}

/// What somebody who reads a spool for its replica says of it: everything up to this number is here, and whether nothing
/// more is expected of that replica's volumes, those that it left behind before included.
///
/// A replica that works has its volume open: then the one that was read is one that it left behind.
pub(super) async fn settle(pool: &PgPool, writer: &str, up_to: u64, gone: bool) -> Result<(), LedgerError> {
    let works = works(pool, writer).await?;
    let settled = async {
        let mut transaction = pool.begin().await?;
        if works {
            read_left_behind(&mut transaction, writer, up_to).await?;
        } else {
            read_own(&mut transaction, writer, up_to, gone).await?;
        }
        if gone {
            sqlx::query(
                "UPDATE berth.ledger_spools SET gone_at = now()
                 WHERE starts_with(writer, $1 || $2) AND gone_at IS NULL",
            )
            .bind(writer)
            .bind(LEFT_BEHIND)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    };
    within(DOING, settled).await.map_err(|failure| failure.into_error(DOING))
}

/// Whether the replica tells of its spool: where it did a moment ago, it is waited for whether it does again.
async fn works(pool: &PgPool, writer: &str) -> Result<bool, LedgerError> {
    let seen = || async {
        let seen = sqlx::query_scalar(
            "SELECT seen_at::text FROM berth.ledger_spools
             WHERE writer = $1 AND gone_at IS NULL AND seen_at > now() - make_interval(secs => $2)",
        );
        let seen = seen.bind(writer).bind(SILENT.as_secs_f64()).fetch_optional(pool);
        within(DOING, seen).await.map_err(|failure| failure.into_error(DOING))
    };
    let first: Option<String> = seen().await?;
    let mut waited = Duration::ZERO;
    while first.is_some() && waited < TELLS {
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
        let now = seen().await?;
        if now != first {
            return Ok(now.is_some());
        }
    }
    Ok(false)
}

async fn read_own(connection: &mut PgConnection, writer: &str, up_to: u64, gone: bool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO berth.ledger_spools (writer, last_entry, acknowledged, gone_at)
         VALUES ($1, $2, $2, CASE WHEN $3 THEN now() END)
         ON CONFLICT (writer) DO UPDATE
         SET last_entry = greatest(berth.ledger_spools.last_entry, excluded.last_entry),
             acknowledged = greatest(berth.ledger_spools.acknowledged, excluded.acknowledged),
             seen_at = CASE WHEN $3 THEN now() ELSE berth.ledger_spools.seen_at END,
             gone_at = coalesce(excluded.gone_at, berth.ledger_spools.gone_at)",
    )
    .bind(writer)
    .bind(up_to.cast_signed())
    .bind(gone)
    .execute(connection)
    .await?;
    Ok(())
}

/// Nobody writes on it any more, so it is gone now, and read. A volume says of itself only whose it is: where several may be
/// the one, none is called read.
async fn read_left_behind(connection: &mut PgConnection, writer: &str, up_to: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH candidate AS (
             SELECT writer, count(*) OVER () AS of FROM berth.ledger_spools
             WHERE starts_with(writer, $1 || $3) AND gone_at IS NULL AND last_entry <= $2)
         UPDATE berth.ledger_spools spool
         SET last_entry = $2, acknowledged = $2, seen_at = now(), gone_at = now()
         FROM candidate WHERE spool.writer = candidate.writer AND candidate.of = 1",
    )
    .bind(writer)
    .bind(up_to.cast_signed())
    .bind(LEFT_BEHIND)
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps the row of a spool that this writer has no more.
pub(super) async fn leave_behind(pool: &PgPool, writer: &str) -> Result<(), LedgerError> {
    within(DOING, async {
        sqlx::query(
            "UPDATE berth.ledger_spools SET writer = writer || $2 || to_char(now(), 'YYYYMMDD\"T\"HH24MISSUS')
             WHERE writer = $1",
        )
        .bind(writer)
        .bind(LEFT_BEHIND)
        .execute(pool)
        .await?;
        Ok(())
    })
    .await
    .map_err(|failure| failure.into_error(DOING))
}
