//! `ledger_spools`: which replica has how much on its spool (rule 7).

use std::time::Duration;

use sea_orm::{DatabaseConnection, EntityTrait, QueryOrder, QuerySelect, sea_query::Expr};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    bounds::{within, within_orm},
    entity::ledger_spools,
};
use crate::ledger::error::LedgerError;

const DOING: &str = "telling of this replica's spool";
/// A replica that works tells of its spool every ten seconds.
const SILENT: Duration = Duration::from_secs(60);
/// What stands between a replica's name and the moment, in the name of a volume that it left behind.
const LEFT_BEHIND: &str = "/until-";

/// A spool, as its replica told of it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSpool {
    /// The replica's name as a writer; of a volume that it left behind, with the moment behind it.
    pub writer: String,
    /// The volume's id, where a release has told of it that knows of ids.
    pub volume: Option<Uuid>,
    /// The number of its last entry.
    pub last: u64,
    /// Up to which number the database has its entries.
    pub acknowledged: u64,
    /// How long ago that was, by the database's clock.
    pub silent_for: Duration,
    /// Whether somebody declared its volume gone since.
    pub gone: bool,
    /// Whether it was read to its end since its replica has told of it last.
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

    /// Whether it may be this replica's row of this volume.
    pub fn is_of(&self, writer: &str, volume: Uuid) -> bool {
        self.replica() == writer && self.volume.is_none_or(|known| known == volume)
    }

    /// Whether nobody expects anything of it, or tells of it, any more.
    pub fn is_gone_for_good(&self) -> bool {
        self.gone && self.silent_for >= SILENT
    }

    /// The replica's name as a writer, also of a volume that it left behind.
    pub fn replica(&self) -> &str {
        self.writer.split_once(LEFT_BEHIND).map_or(&self.writer, |(replica, _)| replica)
    }
}

/// Tells of a spool. One that is told of is not gone, nor left behind; and where another volume was told of under this name, or
/// one that was longer, that one is left behind. Whether it was.
pub(super) async fn note(
    pool: &PgPool,
    writer: &str,
    volume: Uuid,
    last: u64,
    acknowledged: u64,
) -> Result<bool, LedgerError> {
    let noted = async {
        let mut transaction = pool.begin().await?;
        let left_behind = sqlx::query(
            "UPDATE berth.ledger_spools SET writer = writer || $4 || to_char(now(), 'YYYYMMDD\"T\"HH24MISSUS')
             WHERE writer = $1 AND (coalesce(volume, $2) <> $2 OR last_entry > $3)",
        )
        .bind(writer)
        .bind(volume)
        .bind(last.cast_signed())
        .bind(LEFT_BEHIND)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        sqlx::query(
            "UPDATE berth.ledger_spools SET writer = $1
             WHERE NOT EXISTS (SELECT FROM berth.ledger_spools WHERE writer = $1)
               AND writer = (SELECT max(writer) FROM berth.ledger_spools
                             WHERE volume = $2 AND starts_with(writer, $1 || $4) AND last_entry <= $3)",
        )
        .bind(writer)
        .bind(volume)
        .bind(last.cast_signed())
        .bind(LEFT_BEHIND)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO berth.ledger_spools (writer, volume, last_entry, acknowledged) VALUES ($1, $2, $3, $4)
             ON CONFLICT (writer) DO UPDATE
             SET volume = excluded.volume, last_entry = excluded.last_entry, acknowledged = excluded.acknowledged,
                 seen_at = now(), gone_at = NULL",
        )
        .bind(writer)
        .bind(volume)
        .bind(last.cast_signed())
        .bind(acknowledged.cast_signed())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(left_behind > 0)
    };
    within(DOING, Box::pin(noted)).await.map_err(|failure| failure.into_error(DOING))
}

/// All of them, by writer.
pub(super) async fn all(db: &DatabaseConnection) -> Result<Vec<StoredSpool>, LedgerError> {
    let select = ledger_spools::Entity::find()
        .select_only()
        .columns([
            ledger_spools::Column::Writer,
            ledger_spools::Column::Volume,
            ledger_spools::Column::LastEntry,
            ledger_spools::Column::Acknowledged,
        ])
        .expr(Expr::cust("(extract(epoch FROM now() - seen_at) * 1000)::bigint"))
        .expr(Expr::cust("gone_at IS NOT NULL"))
        .expr(Expr::cust("coalesce(read_at >= seen_at, false)"))
        .order_by_asc(ledger_spools::Column::Writer)
        .into_tuple::<(String, Option<Uuid>, i64, i64, i64, bool, bool)>();
    let rows = within_orm("reading the spools", select.all(db)).await?;
    let spool = |(writer, volume, last, acknowledged, silent, gone, read): (
        String,
        Option<Uuid>,
        i64,
        i64,
        i64,
        bool,
        bool,
    )| StoredSpool {
        writer,
        volume,
        last: last.cast_unsigned(),
        acknowledged: acknowledged.cast_unsigned(),
        silent_for: Duration::from_millis(u64::try_from(silent).unwrap_or(0)),
        gone,
        read,
    };
    Ok(rows.into_iter().map(spool).collect())
}

/// What somebody who reads a spool for its replica says of it: everything up to this number is here. Nobody writes any more on a
/// volume that was left behind, so that it is gone then.
///
/// `gone`: nothing more is expected of that replica's volumes, those that it left behind before included; but for one that
/// it tells of.
pub(super) async fn settle(
    pool: &PgPool,
    writer: &str,
    volume: Uuid,
    up_to: u64,
    gone: bool,
) -> Result<(), LedgerError> {
    let settled = async {
        let mut transaction = pool.begin().await?;
        // An older release knows of no ids: of its rows that may be this one, the one that tells of most.
        sqlx::query(
            "UPDATE berth.ledger_spools SET volume = $2
             WHERE NOT EXISTS (SELECT FROM berth.ledger_spools WHERE volume = $2)
               AND writer = (SELECT writer FROM berth.ledger_spools
                             WHERE volume IS NULL AND last_entry <= $3
                               AND (starts_with(writer, $1 || $5)
                                    OR writer = $1 AND ($4 OR seen_at < now() - make_interval(secs => $6)))
                             ORDER BY last_entry DESC LIMIT 1)",
        )
        .bind(writer)
        .bind(volume)
        .bind(up_to.cast_signed())
        .bind(gone)
        .bind(LEFT_BEHIND)
        .bind(SILENT.as_secs_f64())
        .execute(&mut *transaction)
        .await?;
        let known = sqlx::query(
            "UPDATE berth.ledger_spools
             SET last_entry = greatest(last_entry, $3), acknowledged = greatest(acknowledged, $3), read_at = now(),
                 gone_at = CASE WHEN $4 OR writer <> $1 THEN coalesce(gone_at, now()) ELSE gone_at END
             WHERE volume = $2 AND (writer = $1 OR starts_with(writer, $1 || $5))",
        )
        .bind(writer)
        .bind(volume)
        .bind(up_to.cast_signed())
        .bind(gone)
        .bind(LEFT_BEHIND)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if known == 0 {
            sqlx::query(
                "INSERT INTO berth.ledger_spools (writer, volume, last_entry, acknowledged, read_at, gone_at)
                 VALUES ($1, $2, $3, $3, now(), CASE WHEN $4 THEN now() END) ON CONFLICT (writer) DO NOTHING",
            )
            .bind(writer)
            .bind(volume)
            .bind(up_to.cast_signed())
            .bind(gone)
            .execute(&mut *transaction)
            .await?;
        }
        if gone {
            sqlx::query(
                "UPDATE berth.ledger_spools SET gone_at = now() WHERE gone_at IS NULL
                 AND (starts_with(writer, $1 || $2) OR writer = $1 AND seen_at < now() - make_interval(secs => $3))",
            )
            .bind(writer)
            .bind(LEFT_BEHIND)
            .bind(SILENT.as_secs_f64())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    };
    within(DOING, Box::pin(settled)).await.map_err(|failure| failure.into_error(DOING))
}
