//! Heads that follow what was shown (rules 3 and 5): moved to a stored record, closed, put back.
//!
//! Owns: that each is one transaction, and a compare-and-set. Must never: decide whether it is right; move a head to a
//! record that is not stored.

use sqlx::{Acquire, PgConnection, PgPool, Postgres, Transaction};

use super::{
    bounds::bounded,
    failure::Failure,
    heads::{self, Key, Link},
    present,
    quarantine::{self, Refused},
};
use crate::ledger::{error::LedgerError, record::Head};

const DOING: &str = "moving a head";

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Put {
    /// Whether the head moved.
    pub(super) moved: bool,
    /// Whether PostgreSQL refused the present that belongs to it: that is in the quarantine, and the head moved all the same.
    pub(super) refused: bool,
}

/// Moves the head from exactly `from` to the stored record `to`; closed under an epoch, or open.
pub(super) async fn put(
    pool: &PgPool,
    writer: &str,
    chain: Key,
    from: Option<Head>,
    to: Head,
    closed_epoch: Option<u64>,
) -> Result<Put, LedgerError> {
    bounded(DOING, async {
        let mut transaction = pool.begin().await.map_err(failed)?;
        let moved = match from {
            Some(from) => replace(&mut transaction, chain, from, to, closed_epoch).await.map_err(failed)?,
            None => begin(&mut transaction, chain, to, closed_epoch).await.map_err(failed)?,
        };
        let mut end = to;
        if moved && closed_epoch.is_none() {
            // As in an import: what was stored before the head came here and follows it is one ahead, not behind.
            let passed = heads::catch_up(&mut transaction, &[Link::at(chain, to)]).await?;
            end = passed.last().map_or(to, |last| last.row.head);
        }
        let mut refused = None;
        if moved {
            let mut following = transaction.begin().await.map_err(failed)?;
            match follow(&mut following, chain).await {
                Ok(()) => following.commit().await.map_err(failed)?,
                Err(Failure::Row(refusal)) => {
                    following.rollback().await.map_err(failed)?;
                    refused = Some(refusal);
                }
                Err(failure) => return Err(failure),
            }
        }
        if let Some(refusal) = &refused {
            quarantine::keep(&mut *transaction, writer, Refused::Followed(chain, end), refusal).await?;
        }
        Transaction::<Postgres>::commit(transaction).await.map_err(failed)?;
        Ok(Put { moved, refused: refused.is_some() })
    })
    .await
    .map_err(|failure| failure.into_error(DOING))
}

async fn replace(
    connection: &mut PgConnection,
    (cluster, uid): Key,
    from: Head,
    to: Head,
    closed_epoch: Option<u64>,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "UPDATE berth.ledger_heads h
         SET sequence = r.sequence, epoch = r.epoch, hash = r.hash, prev = r.prev, state = r.to_state, at = r.at,
             moved_at = now(), closed_epoch = $7
         FROM berth.container_status_history r
         WHERE h.cluster_id = $1 AND h.uid = $2 AND h.sequence = $3 AND h.hash = $4
           AND r.cluster_id = $1 AND r.uid = $2 AND r.sequence = $5 AND r.hash = $6",
    )
    .bind(cluster)
    .bind(uid)
    .bind(from.sequence.cast_signed())
    .bind(from.hash.as_bytes())
    .bind(to.sequence.cast_signed())
    .bind(to.hash.as_bytes())
    .bind(closed_epoch.map(u64::cast_signed))
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

async fn begin(
    connection: &mut PgConnection,
    (cluster, uid): Key,
    to: Head,
    closed_epoch: Option<u64>,
) -> Result<bool, sqlx::Error> {
    let begun = sqlx::query(
        "INSERT INTO berth.ledger_heads (cluster_id, uid, sequence, epoch, hash, prev, state, at, closed_epoch)
         SELECT r.cluster_id, r.uid, r.sequence, r.epoch, r.hash, r.prev, r.to_state, r.at, $5
         FROM berth.container_status_history r
         WHERE r.cluster_id = $1 AND r.uid = $2 AND r.sequence = $3 AND r.hash = $4
         ON CONFLICT (cluster_id, uid) DO NOTHING",
    )
    .bind(cluster)
    .bind(uid)
    .bind(to.sequence.cast_signed())
    .bind(to.hash.as_bytes())
    .bind(closed_epoch.map(u64::cast_signed))
    .execute(connection)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// An object has its rows in one of the tables, by its kind. Those of a rollout or a quota are written anew by its
/// chain: they are older than all of it then.
const PRESENT: [&str; 4] = [
    "UPDATE berth.tenant_containers t
     SET status = coalesce(h.state, t.status), sequence = h.sequence, epoch = h.epoch, head = h.hash,
         deleted = (coalesce(h.state, t.status) IS NOT DISTINCT FROM 'deleted'), sync_time = now()
     FROM berth.ledger_heads h
     WHERE t.cluster_id = $1 AND t.id = $2 AND h.cluster_id = $1 AND h.uid = $2 AND t.head <> h.hash",
    "UPDATE berth.user_roles r
     SET access = CASE WHEN h.state IS NOT DISTINCT FROM 'deleted' THEN 'removed'
                       WHEN r.access = 'removed' THEN 'given' ELSE r.access END,
         deleted = (h.state IS NOT DISTINCT FROM 'deleted'), sequence = h.sequence, epoch = h.epoch, head = h.hash,
         sync_time = now()
     FROM berth.ledger_heads h
     WHERE r.cluster_id = $1 AND r.id = $2 AND h.cluster_id = $1 AND h.uid = $2 AND r.head <> h.hash",
    "UPDATE berth.deployment_status d SET sequence = 0, epoch = 0
     FROM berth.ledger_heads h
     WHERE d.cluster_id = $1 AND d.id = $2 AND h.cluster_id = $1 AND h.uid = $2 AND d.sequence >= h.sequence
       AND d.head <> h.hash",
    "UPDATE berth.tenant_quota t SET sequence = 0, epoch = 0
     FROM berth.ledger_heads h
     WHERE t.cluster_id = $1 AND t.id = $2 AND h.cluster_id = $1 AND h.uid = $2 AND t.sequence >= h.sequence
       AND t.head <> h.hash",
];

/// The present belongs to the head, also to one that went to another branch: what was written for a record that was
/// never shown must not stand in the way of the next one that is.
async fn follow(connection: &mut PgConnection, (cluster, uid): Key) -> Result<(), Failure> {
    for statement in PRESENT {
        sqlx::query(statement).bind(cluster).bind(uid).execute(&mut *connection).await.map_err(failed)?;
    }
    present::rebuild(connection, &[cluster], &[uid]).await
}

/// Closes the head where it stands.
pub(super) async fn close(pool: &PgPool, (cluster, uid): Key, terminal: Head, epoch: u64) -> Result<bool, LedgerError> {
    bounded(DOING, async {
        let closed = sqlx::query(
            "UPDATE berth.ledger_heads SET closed_epoch = $5
             WHERE cluster_id = $1 AND uid = $2 AND sequence = $3 AND hash = $4",
        )
        .bind(cluster)
        .bind(uid)
        .bind(terminal.sequence.cast_signed())
        .bind(terminal.hash.as_bytes())
        .bind(epoch.cast_signed())
        .execute(pool)
        .await
        .map_err(failed)?;
        Ok(closed.rows_affected() == 1)
    })
    .await
    .map_err(|failure| failure.into_error(DOING))
}

fn failed(error: sqlx::Error) -> Failure {
    Failure::new(DOING, error)
}
