//! The present of an object whose chain went to another branch.
//!
//! Must never: move a head.

use sqlx::PgConnection;

use super::{
    super::{failure::Failure, heads::Key},
    DOING,
};

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
pub(in crate::ledger::postgres) async fn change_branch(
    connection: &mut PgConnection,
    (cluster, uid): Key,
) -> Result<(), Failure> {
    for statement in PRESENT {
        let ran = sqlx::query(statement).bind(cluster).bind(uid).execute(&mut *connection).await;
        ran.map_err(|error| Failure::new(DOING, error))?;
    }
    super::rebuild(connection, &[cluster], &[uid]).await
}
