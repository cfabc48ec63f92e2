//! State and place in the chain, where the head moved to a record that came without a snapshot.
//!
//! What else a snapshot tells (spec, replicas) stays as it was seen last; but of rollouts and quotas, whose records say it
//! all.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{super::failure::Failure, DOING};
use crate::{ledger::record::Head, lifecycle::State};

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger::postgres) struct Followed {
    pub(in crate::ledger::postgres) cluster: Uuid,
    pub(in crate::ledger::postgres) uid: Uuid,
    pub(in crate::ledger::postgres) head: Head,
    pub(in crate::ledger::postgres) epoch: u64,
    pub(in crate::ledger::postgres) state: Option<State>,
}

/// Brings rows that are behind to where their chains end. In the order of their keys, as all that lock these rows.
pub(in crate::ledger::postgres) async fn follow(
    connection: &mut PgConnection,
    ends: &[Followed],
) -> Result<(), Failure> {
    if ends.is_empty() {
        return Ok(());
    }
    let (mut clusters, mut uids, mut sequences) = (vec![], vec![], vec![]);
    let (mut hashes, mut epochs, mut states) = (vec![], vec![], vec![]);
    for Followed { cluster, uid, head, epoch, state } in ends {
        clusters.push(*cluster);
        uids.push(*uid);
        sequences.push(head.sequence.cast_signed());
        hashes.push(head.hash.as_bytes().as_slice());
        epochs.push(epoch.cast_signed());
        states.push(state.map(State::as_str));
    }
    for statement in [SERVICES, GRANTS] {
        sqlx::query(statement)
            .bind(&clusters)
            .bind(&uids)
            .bind(&sequences)
            .bind(&hashes)
            .bind(&epochs)
            .bind(&states)
            .execute(&mut *connection)
            .await
            .map_err(|error| Failure::new(DOING, error))?;
    }
    super::rebuild(connection, &clusters, &uids).await
}

const SERVICES: &str = "
    WITH behind AS (
        SELECT t.cluster_id, t.id, r.sequence, r.hash, r.epoch, coalesce(r.state, t.status) AS state
        FROM berth.tenant_containers t
        JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bytea[], $5::bigint[], $6::text[])
            AS r (cluster_id, id, sequence, hash, epoch, state) USING (cluster_id, id)
        WHERE t.sequence < r.sequence
        ORDER BY 1, 2
        FOR NO KEY UPDATE OF t)
    UPDATE berth.tenant_containers t
    SET status = b.state, deleted = (b.state IS NOT DISTINCT FROM 'deleted'), sequence = b.sequence,
        epoch = b.epoch, head = b.hash, sync_time = now()
    FROM behind b
    WHERE t.cluster_id = b.cluster_id AND t.id = b.id";

// A grant has no state but its end. One whose end was undone may be there again: until its next snapshot says so, expires_at
// alone says how long.
const GRANTS: &str = "
    WITH behind AS (
        SELECT r.cluster_id, r.id, e.sequence, e.hash, e.epoch, e.state IS NOT DISTINCT FROM 'deleted' AS ends
        FROM berth.user_roles r
        JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bytea[], $5::bigint[], $6::text[])
            AS e (cluster_id, id, sequence, hash, epoch, state) USING (cluster_id, id)
        WHERE r.sequence < e.sequence
        ORDER BY 1, 2
        FOR NO KEY UPDATE OF r)
    UPDATE berth.user_roles r
    SET access = CASE WHEN b.ends THEN 'removed' WHEN r.access = 'removed' THEN 'given' ELSE r.access END,
        deleted = b.ends, sequence = b.sequence, epoch = b.epoch, head = b.hash, sync_time = now()
    FROM behind b
    WHERE r.cluster_id = b.cluster_id AND r.id = b.id";
