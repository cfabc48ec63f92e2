//! `deployment_status`: a row for each rollout of each revision, each of its waves and each of its targets.
//!
//! A record says of parts what the row does: so what a snapshot did not bring follows from the chain itself.
//!
//! Owns: those rows, each guarded by (sequence, epoch, observed_at). Must never: know what an outcome means.

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    super::{failure::Failure, time::Timestamptz},
    DOING, Of,
};
use crate::ledger::{
    entry::Target,
    rollout::{Part, Rollout},
    snapshot::Snapshot,
};

/// Writes what is not older than the rows.
pub(super) async fn upsert(connection: &mut PgConnection, rollouts: &[Of<'_, Rollout>]) -> Result<(), Failure> {
    if rollouts.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(rollouts);
    sqlx::query(UPSERT)
        .bind(&columns.clusters)
        .bind(&columns.uids)
        .bind(&columns.namespaces)
        .bind(&columns.names)
        .bind(&columns.revisions)
        .bind(&columns.images)
        .bind(&columns.asked_by)
        .bind(&columns.removed)
        .bind(&columns.sequences)
        .bind(&columns.epochs)
        .bind(&columns.heads)
        .bind(&columns.observed)
        .bind(&columns.parts)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    sqlx::query(VANISH)
        .bind(&columns.clusters)
        .bind(&columns.uids)
        .bind(&columns.revisions)
        .bind(&columns.whole)
        .bind(&columns.sequences)
        .bind(&columns.epochs)
        .bind(&columns.heads)
        .bind(&columns.observed)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    close(connection, &columns.clusters, &columns.uids).await
}

/// Brings the rows of these objects, of whatever kind they are, to what their chains say; what a snapshot of the same place or
/// a later one has said stays.
pub(super) async fn rebuild(connection: &mut PgConnection, clusters: &[Uuid], uids: &[Uuid]) -> Result<(), Failure> {
    sqlx::query(REBUILD).bind(clusters).bind(uids).execute(&mut *connection).await.map_err(failed)?;
    close(connection, clusters, uids).await
}

/// What other rows of the same object follow from the latest: a rollout that another revision has taken the place of goes on no
/// more, and of an object that is gone none does.
async fn close(connection: &mut PgConnection, clusters: &[Uuid], uids: &[Uuid]) -> Result<(), Failure> {
    sqlx::query(CLOSE).bind(clusters).bind(uids).execute(&mut *connection).await.map_err(failed)?;
    Ok(())
}

fn failed(error: sqlx::Error) -> Failure {
    Failure::new(DOING, error)
}

/// What stands behind the columns of a part, `p`, as records and snapshots have it.
macro_rules! part {
    () => {
        "p.scope, coalesce(p.key, ''), p.wave, CASE WHEN p.scope = 'target' THEN p.key::uuid END,
         p.namespace, p.name, p.outcome, p.reason, p.message,
         (p.counts->>'targets')::integer, (p.counts->>'released')::integer, (p.counts->>'done')::integer,
         (p.counts->>'failed')::integer, p.approved_by,
         timestamptz 'epoch' + p.began * interval '1 microsecond',
         timestamptz 'epoch' + p.ended * interval '1 microsecond'"
    };
}

/// The columns of a part in JSON.
macro_rules! in_json {
    () => {
        "p (scope text, key text, wave text, namespace text, name text, outcome text, reason text, message text,
            began bigint, ended bigint, counts jsonb, approved_by text)"
    };
}

/// Where a row goes, and what it takes along.
macro_rules! into {
    () => {
        "INSERT INTO berth.deployment_status AS d (cluster_id, id, namespace, name, revision, image, asked_by, deleted,
             sequence, epoch, head, observed_at, scope, part, wave, target_id, target_namespace, target_name, outcome,
             reason, message, targets, released, done, failed, approved_by, began_at, ended_at)"
    };
}

/// The rest of the statement, but for its guard.
macro_rules! replacing {
    () => {
        "ON CONFLICT (cluster_id, id, revision, scope, part) DO UPDATE
         SET namespace = excluded.namespace, name = excluded.name, image = excluded.image, asked_by = excluded.asked_by,
             deleted = excluded.deleted, sequence = excluded.sequence, epoch = excluded.epoch, head = excluded.head,
             observed_at = excluded.observed_at, wave = excluded.wave, target_namespace = excluded.target_namespace,
             target_name = excluded.target_name, outcome = excluded.outcome, reason = excluded.reason,
             message = excluded.message, targets = excluded.targets, released = excluded.released, done = excluded.done,
             failed = excluded.failed, approved_by = excluded.approved_by, began_at = excluded.began_at,
             ended_at = excluded.ended_at, sync_time = now()"
    };
}

const UPSERT: &str = concat!(
    into!(),
    " SELECT s.cluster_id, s.id, s.namespace, s.name, s.revision, s.image, s.asked_by, s.deleted AND p.scope = 'rollout', s.sequence, s.epoch,
          s.head, s.observed_at, ",
    part!(),
    " FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[],
          $9::bigint[], $10::bigint[], $11::bytea[], $12::timestamptz[], $13::jsonb[])
          AS s (cluster_id, id, namespace, name, revision, image, asked_by, deleted, sequence, epoch, head, observed_at, parts)
      CROSS JOIN LATERAL jsonb_to_recordset(s.parts) AS ",
    in_json!(),
    " ORDER BY 1, 2, s.revision, p.scope, p.key ",
    replacing!(),
    " WHERE (excluded.sequence, excluded.epoch, excluded.observed_at) >= (d.sequence, d.epoch, d.observed_at)"
);

/// A target that is not there any more, and had come to no end: its row was not written with the others.
const VANISH: &str = "
    UPDATE berth.deployment_status d
    SET outcome = 'Vanished', ended_at = s.observed_at, sequence = s.sequence, epoch = s.epoch, head = s.head,
        observed_at = s.observed_at, sync_time = now()
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[], $5::bigint[], $6::bigint[], $7::bytea[],
        $8::timestamptz[])
        AS s (cluster_id, id, revision, whole, sequence, epoch, head, observed_at)
    WHERE d.cluster_id = s.cluster_id AND d.id = s.id AND d.revision = s.revision AND d.scope = 'target'
      AND d.ended_at IS NULL AND s.whole
      AND (d.sequence, d.epoch, d.observed_at) < (s.sequence, s.epoch, s.observed_at)";

/// Along each chain from its head back, and of each part what was said of it last. Nothing else is on the way, so what was
/// never shown is in no row.
const REBUILD: &str = concat!(
    "WITH RECURSIVE line AS (
         SELECT r.* FROM unnest($1::uuid[], $2::uuid[]) AS e (cluster_id, uid)
         JOIN berth.ledger_heads h USING (cluster_id, uid)
         JOIN berth.container_status_history r
             ON r.cluster_id = h.cluster_id AND r.uid = h.uid AND r.sequence = h.sequence AND r.hash = h.hash
         WHERE r.object_kind = 'Deployment'
         UNION ALL
         SELECT r.* FROM line l
         JOIN berth.container_status_history r
             ON r.cluster_id = l.cluster_id AND r.uid = l.uid AND r.sequence = l.sequence - 1 AND r.hash = l.prev),
     told AS (
         SELECT DISTINCT ON (r.cluster_id, r.uid, r.details->>'revision', p.scope, coalesce(p.key, ''))
             r.cluster_id, r.uid, r.namespace AS of_namespace, r.name AS of_name, r.details->>'revision' AS revision,
             r.details->>'image' AS image, r.details->>'askedBy' AS asked_by,
             r.to_state IS NOT DISTINCT FROM 'deleted' AS deleted, r.sequence, r.epoch, r.hash, r.at, p.*
         FROM line r
         CROSS JOIN LATERAL jsonb_to_recordset(r.details->'parts') AS ",
    in_json!(),
    "    WHERE r.kind = 'rollout' AND r.details ? 'revision' AND jsonb_typeof(r.details->'parts') = 'array'
         ORDER BY r.cluster_id, r.uid, r.details->>'revision', p.scope, coalesce(p.key, ''), r.sequence DESC) ",
    into!(),
    " SELECT p.cluster_id, p.uid, p.of_namespace, p.of_name, p.revision, p.image, p.asked_by, p.deleted AND p.scope = 'rollout', p.sequence, p.epoch,
          p.hash, p.at, ",
    part!(),
    " FROM told p ORDER BY p.cluster_id, p.uid, p.revision, p.scope, p.key ",
    replacing!(),
    " WHERE excluded.sequence > d.sequence"
);

const CLOSE: &str = "
    WITH latest AS (
        SELECT DISTINCT ON (d.cluster_id, d.id) d.cluster_id, d.id, d.revision, d.sequence, d.began_at,
            coalesce(h.state = 'deleted', d.deleted) AS deleted
        FROM unnest($1::uuid[], $2::uuid[]) AS e (cluster_id, id)
        JOIN berth.deployment_status d USING (cluster_id, id)
        LEFT JOIN berth.ledger_heads h ON h.cluster_id = d.cluster_id AND h.uid = d.id
        WHERE d.scope = 'rollout'
        ORDER BY d.cluster_id, d.id, d.sequence DESC)
    UPDATE berth.deployment_status d
    SET deleted = l.deleted,
        outcome = CASE WHEN d.revision <> l.revision AND d.ended_at IS NULL THEN 'Superseded' ELSE d.outcome END,
        ended_at = CASE WHEN d.revision <> l.revision THEN coalesce(d.ended_at, l.began_at) ELSE d.ended_at END,
        sync_time = now()
    FROM latest l
    WHERE d.cluster_id = l.cluster_id AND d.id = l.id AND d.scope = 'rollout'
      AND (d.deleted <> l.deleted OR d.revision <> l.revision AND d.ended_at IS NULL)";

/// One array for each column, in the order of the statement.
#[derive(Default)]
struct Columns<'a> {
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
    revisions: Vec<&'a str>,
    images: Vec<&'a str>,
    asked_by: Vec<String>,
    removed: Vec<bool>,
    whole: Vec<bool>,
    sequences: Vec<i64>,
    epochs: Vec<i64>,
    heads: Vec<&'a [u8]>,
    observed: Vec<Timestamptz>,
    parts: Vec<Json<&'a [Part]>>,
}

impl<'a> Columns<'a> {
    fn of(rollouts: &[Of<'a, Rollout>]) -> Self {
        let mut columns = Self::default();
        for Of { snapshot, present } in rollouts {
            // Every field by name: a new one does not compile until somebody decides about it.
            let Snapshot {
                target: Target { cluster, uid, kind: _, namespace, name },
                // In the object, and of no use beside when it began.
                created_at: _,
                observed_at,
                generation: _,
                epoch,
                head,
                // What comes next.
                present: _,
            } = snapshot;
            let Rollout { revision, image, asked_by, removed, whole, parts } = present;
            columns.clusters.push(*cluster);
            columns.uids.push(*uid);
            columns.namespaces.push(namespace);
            columns.names.push(name);
            columns.revisions.push(revision);
            columns.images.push(image);
            columns.asked_by.push(asked_by.clone().into());
            columns.removed.push(*removed);
            columns.whole.push(*whole);
            columns.sequences.push(head.sequence.cast_signed());
            columns.epochs.push(epoch.cast_signed());
            columns.heads.push(head.hash.as_bytes());
            columns.observed.push((*observed_at).into());
            columns.parts.push(Json(parts));
        }
        columns
    }
}
