//! `containers` and `container_images`: the replicas as they were seen last; those that are gone, as terminated.
//!
//! No guard of their own: they are written only where their tenant container's row was, whose guard knows more (a new
//! leader's clock may be behind the old one's).

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    super::{failure::Failure, time::Timestamptz},
    DOING, Of, Owners,
};
use crate::ledger::{
    record::Micros,
    snapshot::{Replica, Service},
};

pub(super) async fn upsert(
    connection: &mut PgConnection,
    services: &[Of<'_, Service>],
    owners: &Owners,
) -> Result<(), Failure> {
    // By the pod's uid: a statement may touch a row once.
    let rows: BTreeMap<(Uuid, Uuid), (&Of<'_, Service>, &Replica)> = services
        .iter()
        .flat_map(|of| {
            let cluster = of.snapshot.target.cluster;
            of.present.replicas_seen.iter().map(move |replica| ((cluster, replica.uid), (of, replica)))
        })
        .collect();
    let columns = Columns::of(rows.values().copied());
    if !rows.is_empty() {
        write_images(connection, rows.values().copied()).await?;
        write(connection, &columns).await?;
    }
    end_the_gone(connection, &columns, owners).await
}

async fn write_images<'a>(
    connection: &mut PgConnection,
    rows: impl Iterator<Item = (&'a Of<'a, Service>, &'a Replica)>,
) -> Result<(), Failure> {
    let mut latest: BTreeMap<(Uuid, &str, &str), Micros> = BTreeMap::new();
    for (Of { snapshot, present: _ }, replica) in rows {
        let seen = latest.entry((snapshot.target.cluster, &replica.image, digest(replica))).or_insert(Micros(i64::MIN));
        *seen = snapshot.observed_at.max(*seen);
    }
    let (mut clusters, mut images, mut digests, mut seen) = (vec![], vec![], vec![], vec![]);
    for ((cluster, image, digest), at) in latest {
        clusters.push(cluster);
        images.push(image);
        digests.push(digest);
        seen.push(Timestamptz(at));
    }
    sqlx::query(
        "INSERT INTO berth.container_images AS i (cluster_id, image, digest, first_seen, last_seen)
         SELECT cluster_id, image, digest, seen, seen
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[]) AS r (cluster_id, image, digest, seen)
         ORDER BY 1, 2, 3
         ON CONFLICT (cluster_id, image, digest) DO UPDATE SET last_seen = excluded.last_seen
         WHERE i.last_seen + interval '1 hour' < excluded.last_seen",
    )
    .bind(clusters)
    .bind(images)
    .bind(digests)
    .bind(seen)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

async fn write(connection: &mut PgConnection, columns: &Columns<'_>) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO berth.containers (cluster_id, id, tenant_container_id, namespace_id, namespace, name, node,
             image, image_digest, cpu, memory, gpu_count, status, reason, ready, restarts, started_at, finished_at,
             observed_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[],
             $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::integer[], $13::text[], $14::text[],
             $15::boolean[], $16::integer[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[])
         ORDER BY 1, 2
         ON CONFLICT (cluster_id, id) DO UPDATE
         SET node = excluded.node, image = excluded.image, image_digest = excluded.image_digest, cpu = excluded.cpu,
             memory = excluded.memory, gpu_count = excluded.gpu_count, status = excluded.status,
             reason = excluded.reason, ready = excluded.ready, restarts = excluded.restarts,
             started_at = excluded.started_at, finished_at = excluded.finished_at,
             observed_at = excluded.observed_at, sync_time = now()",
    )
    .bind(&columns.clusters)
    .bind(&columns.uids)
    .bind(&columns.owners)
    .bind(&columns.namespace_uids)
    .bind(&columns.namespaces)
    .bind(&columns.names)
    .bind(&columns.nodes)
    .bind(&columns.images)
    .bind(&columns.digests)
    .bind(&columns.cpus)
    .bind(&columns.memories)
    .bind(&columns.gpus)
    .bind(&columns.states)
    .bind(&columns.reasons)
    .bind(&columns.ready)
    .bind(&columns.restarts)
    .bind(&columns.started)
    .bind(&columns.finished)
    .bind(&columns.observed)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// Replicas of these owners that are no longer seen are over. Their rows stay, with the moment of the last sight.
///
/// ANY and NOT IN are looked up in a hash table, whatever the plan: as joins they would be planned for arrays of a few,
/// and took 165 ms for 1,000 owners. The join is with what is gone, which is little.
async fn end_the_gone(connection: &mut PgConnection, seen: &Columns<'_>, owners: &Owners) -> Result<(), Failure> {
    let clusters: BTreeSet<Uuid> = owners.clusters.iter().copied().collect();
    sqlx::query(
        "WITH gone AS MATERIALIZED (
             SELECT c.cluster_id, c.id, c.tenant_container_id FROM berth.containers c
             WHERE c.cluster_id = ANY($1) AND c.tenant_container_id = ANY($3) AND c.status <> 'terminated'
               AND (c.cluster_id, c.id) NOT IN (SELECT * FROM unnest($5::uuid[], $6::uuid[])))
         UPDATE berth.containers c
         SET status = 'terminated', ready = false, finished_at = coalesce(c.finished_at, o.observed_at),
             sync_time = now()
         FROM gone g
         JOIN unnest($2::uuid[], $3::uuid[], $4::timestamptz[]) AS o (cluster_id, id, observed_at)
             ON o.cluster_id = g.cluster_id AND o.id = g.tenant_container_id
         WHERE c.cluster_id = g.cluster_id AND c.id = g.id",
    )
    .bind(clusters.into_iter().collect::<Vec<_>>())
    .bind(&owners.clusters)
    .bind(&owners.uids)
    .bind(&owners.observed)
    .bind(&seen.clusters)
    .bind(&seen.uids)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// Empty until the image is pulled, so that it can be part of a key.
fn digest(replica: &Replica) -> &str {
    replica.image_digest.as_deref().unwrap_or_default()
}

/// One array for each column, in the order of the statement.
#[derive(Default)]
struct Columns<'a> {
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    owners: Vec<Uuid>,
    namespace_uids: Vec<Uuid>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
    nodes: Vec<Option<&'a str>>,
    images: Vec<&'a str>,
    digests: Vec<&'a str>,
    cpus: Vec<i64>,
    memories: Vec<i64>,
    gpus: Vec<i32>,
    states: Vec<&'a str>,
    reasons: Vec<Option<&'a str>>,
    ready: Vec<bool>,
    restarts: Vec<i32>,
    started: Vec<Option<Timestamptz>>,
    finished: Vec<Option<Timestamptz>>,
    observed: Vec<Timestamptz>,
}

impl<'a> Columns<'a> {
    fn of(rows: impl Iterator<Item = (&'a Of<'a, Service>, &'a Replica)>) -> Self {
        let mut columns = Self::default();
        for (Of { snapshot, present }, replica) in rows {
            // Every field by name: a new one does not compile until somebody decides about it.
            let Replica {
                uid,
                name,
                node,
                image,
                image_digest: _,
                state,
                reason,
                ready,
                restarts,
                started_at,
                finished_at,
            } = replica;
            columns.clusters.push(snapshot.target.cluster);
            columns.uids.push(*uid);
            columns.owners.push(snapshot.target.uid);
            columns.namespace_uids.push(present.namespace.uid);
            columns.namespaces.push(&snapshot.target.namespace);
            columns.names.push(name);
            columns.nodes.push(node.as_deref());
            columns.images.push(image);
            columns.digests.push(digest(replica));
            columns.cpus.push(present.cpu_millis);
            columns.memories.push(present.memory_bytes);
            columns.gpus.push(present.gpu_count);
            columns.states.push(state);
            columns.reasons.push(reason.as_deref());
            columns.ready.push(*ready);
            columns.restarts.push(*restarts);
            columns.started.push(started_at.map(Timestamptz));
            columns.finished.push(finished_at.map(Timestamptz));
            columns.observed.push(snapshot.observed_at.into());
        }
        columns
    }
}
