//! `tenant_quota`: one row for each quota, guarded by (sequence, epoch, observed_at).
//!
//! Owns: those rows. Must never: know what a limit means.

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    super::{failure::Failure, time::Timestamptz},
    DOING, Of,
};
use crate::ledger::{
    entry::Target,
    snapshot::{Quota, Snapshot},
};

/// Writes what is not older than the row.
pub(super) async fn upsert(connection: &mut PgConnection, quotas: &[Of<'_, Quota>]) -> Result<(), Failure> {
    if quotas.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(quotas);
    sqlx::query(UPSERT)
        .bind(columns.clusters)
        .bind(columns.uids)
        .bind(columns.names)
        .bind(columns.orgs)
        .bind(columns.limits)
        .bind(columns.used)
        .bind(columns.waiting)
        .bind(columns.set_by)
        .bind(columns.removed)
        .bind(columns.sequences)
        .bind(columns.epochs)
        .bind(columns.heads)
        .bind(columns.observed)
        .execute(connection)
        .await
        .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// Brings the rows of these objects, of whatever kind they are, to what the records say at which their chains end: a quota's
/// record says it all. What a snapshot of the same place or a later one has said stays.
pub(super) async fn rebuild(connection: &mut PgConnection, clusters: &[Uuid], uids: &[Uuid]) -> Result<(), Failure> {
    let rebuilt = sqlx::query(REBUILD).bind(clusters).bind(uids).execute(connection).await;
    rebuilt.map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// From `q`, with limits and what is used in JSON, into the table, but for the guard.
macro_rules! from_q {
    () => {
        "INSERT INTO berth.tenant_quota AS t (cluster_id, id, name, tenant_org_id, waiting, set_by, deleted, sequence, epoch,
             head, observed_at, containers_limit, containers_used, replicas_limit, replicas_used, cpu_limit, cpu_used, memory_limit, memory_used, disk_limit, disk_used, gpu_limit, gpu_used, vectors_limit, vectors_used)
         SELECT q.cluster_id, q.id, q.name, q.tenant_org, q.waiting, q.set_by, q.deleted, q.sequence, q.epoch, q.head,
             q.observed_at,
         (q.limits->>'containers')::bigint, coalesce((q.used->>'containers')::bigint, 0),
         (q.limits->>'replicas')::bigint, coalesce((q.used->>'replicas')::bigint, 0),
         (q.limits->>'cpu')::bigint, coalesce((q.used->>'cpu')::bigint, 0),
         (q.limits->>'memory')::bigint, coalesce((q.used->>'memory')::bigint, 0),
         (q.limits->>'disk')::bigint, coalesce((q.used->>'disk')::bigint, 0),
         (q.limits->>'gpu')::bigint, coalesce((q.used->>'gpu')::bigint, 0),
         (q.limits->>'vectors')::bigint, coalesce((q.used->>'vectors')::bigint, 0)
         FROM q ORDER BY 1, 2
         ON CONFLICT (cluster_id, id) DO UPDATE
         SET name = excluded.name, tenant_org_id = excluded.tenant_org_id, waiting = excluded.waiting,
             set_by = excluded.set_by, deleted = excluded.deleted, sequence = excluded.sequence, epoch = excluded.epoch,
             head = excluded.head, observed_at = excluded.observed_at, sync_time = now(),
             containers_limit = excluded.containers_limit, containers_used = excluded.containers_used,
             replicas_limit = excluded.replicas_limit, replicas_used = excluded.replicas_used,
             cpu_limit = excluded.cpu_limit, cpu_used = excluded.cpu_used,
             memory_limit = excluded.memory_limit, memory_used = excluded.memory_used,
             disk_limit = excluded.disk_limit, disk_used = excluded.disk_used,
             gpu_limit = excluded.gpu_limit, gpu_used = excluded.gpu_used,
             vectors_limit = excluded.vectors_limit, vectors_used = excluded.vectors_used
         "
    };
}

const UPSERT: &str = concat!(
    "WITH q AS (
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[], $7::bigint[],
             $8::text[], $9::boolean[], $10::bigint[], $11::bigint[], $12::bytea[], $13::timestamptz[])
             AS s (cluster_id, id, name, tenant_org, limits, used, waiting, set_by, deleted, sequence, epoch, head,
                 observed_at)) ",
    from_q!(),
    "WHERE (excluded.sequence, excluded.epoch, excluded.observed_at) >= (t.sequence, t.epoch, t.observed_at)"
);

/// The last record of its kind on the way from the head back; beside it there may only be what tells of the chain itself.
const REBUILD: &str = concat!(
    "WITH RECURSIVE line AS (
         SELECT r.* FROM unnest($1::uuid[], $2::uuid[]) AS e (cluster_id, uid)
         JOIN berth.ledger_heads h USING (cluster_id, uid)
         JOIN berth.container_status_history r
             ON r.cluster_id = h.cluster_id AND r.uid = h.uid AND r.sequence = h.sequence AND r.hash = h.hash
         WHERE r.object_kind = 'TenantQuota'
         UNION ALL
         SELECT r.* FROM line l
         JOIN berth.container_status_history r
             ON r.cluster_id = l.cluster_id AND r.uid = l.uid AND r.sequence = l.sequence - 1 AND r.hash = l.prev
         WHERE l.kind <> 'quota' OR NOT coalesce(l.details ? 'tenantOrg', false)),
     q AS (
         SELECT r.cluster_id, r.uid AS id, r.name, r.details->>'tenantOrg' AS tenant_org, r.details->'limits' AS limits,
             r.details->'used' AS used, (r.details->>'waiting')::bigint AS waiting, r.details->>'setBy' AS set_by,
             h.state IS NOT DISTINCT FROM 'deleted' AS deleted, h.sequence, h.epoch, h.hash AS head, h.at AS observed_at
         FROM line r JOIN berth.ledger_heads h USING (cluster_id, uid)
         WHERE r.kind = 'quota' AND r.details ? 'tenantOrg') ",
    from_q!(),
    "WHERE excluded.sequence > t.sequence"
);

/// One array for each column, in the order of the statement.
#[derive(Default)]
struct Columns<'a> {
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    names: Vec<&'a str>,
    orgs: Vec<&'a str>,
    limits: Vec<Json<&'a BTreeMap<String, i64>>>,
    used: Vec<Json<&'a BTreeMap<String, i64>>>,
    waiting: Vec<i64>,
    set_by: Vec<String>,
    removed: Vec<bool>,
    sequences: Vec<i64>,
    epochs: Vec<i64>,
    heads: Vec<&'a [u8]>,
    observed: Vec<Timestamptz>,
}

impl<'a> Columns<'a> {
    fn of(quotas: &[Of<'a, Quota>]) -> Self {
        let mut columns = Self::default();
        for Of { snapshot, present } in quotas {
            // Every field by name: a new one does not compile until somebody decides about it.
            let Snapshot {
                // It is of the cluster, and in no namespace.
                target: Target { cluster, uid, kind: _, namespace: _, name },
                created_at: _,
                observed_at,
                generation: _,
                epoch,
                head,
                // What comes next.
                present: _,
            } = snapshot;
            let Quota { tenant_org, limits, used, waiting, set_by, removed } = present;
            columns.clusters.push(*cluster);
            columns.uids.push(*uid);
            columns.names.push(name);
            columns.orgs.push(tenant_org);
            columns.limits.push(Json(limits));
            columns.used.push(Json(used));
            columns.waiting.push(*waiting);
            columns.set_by.push(set_by.clone().into());
            columns.removed.push(*removed);
            columns.sequences.push(head.sequence.cast_signed());
            columns.epochs.push(epoch.cast_signed());
            columns.heads.push(head.hash.as_bytes());
            columns.observed.push((*observed_at).into());
        }
        columns
    }
}
