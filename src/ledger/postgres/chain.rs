//! One chain, looked up in the history: for a record that was not the next one (rules 3 and 5).
//!
//! The history is insert-only, so this runs after the batch's transaction, without locks.
//! Must never: write.

use std::collections::HashMap;

use sea_orm::DatabaseConnection;

use super::{bounds::within, heads::HeadRow, read};
use crate::ledger::{
    entry::{Backend, Outcome},
    error::LedgerError,
    hash::Hash,
    record::{Head, Record},
};

const DOING: &str = "looking up a chain";

/// The chain is one record ahead of what is shown: that one is to be shown instead.
pub(super) async fn adopt(db: &DatabaseConnection, record: &Record, row: HeadRow) -> Result<Outcome, LedgerError> {
    let envelope = record.envelope();
    match read::record_at(db, envelope.cluster, envelope.uid, row.head, row.at).await? {
        Some(stored) if stored.record.hash() == row.head.hash => Ok(Outcome::Adopt(Box::new(stored.record))),
        found => Err(LedgerError::Damaged {
            place: format!("berth.container_status_history at {} sequence {}", envelope.uid, row.head.sequence),
            why: format!(
                "the head names record {}, {}",
                row.head.hash,
                if found.is_some() { "which does not hash to that" } else { "which is not there" }
            ),
        }),
    }
}

/// The chain is beyond the record's place: with it (then it is durable), or without.
pub(super) async fn look_back(db: &DatabaseConnection, record: &Record, row: HeadRow) -> Result<Outcome, LedgerError> {
    let envelope = record.envelope();
    if read::record_at(db, envelope.cluster, envelope.uid, record.head(), envelope.at).await?.is_some() {
        return Ok(Outcome::Durable(Backend::Database));
    }
    let shown = Head { sequence: envelope.seq.saturating_sub(1), hash: envelope.prev };
    let shown_is_ancestor = is_ancestor(db, record, shown, row.head).await?;
    Ok(Outcome::Elsewhere { head: row.head, shown_is_ancestor })
}

/// Whether following `prev` from `head` leads to `shown`.
async fn is_ancestor(db: &DatabaseConnection, record: &Record, shown: Head, head: Head) -> Result<bool, LedgerError> {
    let rows: Vec<([u8; 32], [u8; 32])> = within(DOING, async {
        sqlx::query_as(
            "SELECT hash, prev FROM berth.container_status_history
             WHERE cluster_id = $1 AND uid = $2 AND sequence > $3 AND sequence <= $4",
        )
        .bind(record.envelope().cluster)
        .bind(record.envelope().uid)
        .bind(shown.sequence.cast_signed())
        .bind(head.sequence.cast_signed())
        .fetch_all(db.get_postgres_connection_pool())
        .await
    })
    .await
    .map_err(|failure| failure.into_error(DOING))?;
    let mut prevs: HashMap<Hash, Hash> =
        rows.into_iter().map(|(hash, prev)| (Hash::from_bytes(hash), Hash::from_bytes(prev))).collect();
    let mut at = head.hash;
    // Each step removes its row, so this ends also on rows that somebody forged into a circle.
    while let Some(prev) = prevs.remove(&at) {
        at = prev;
    }
    Ok(at == shown.hash)
}
