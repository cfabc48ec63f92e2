//! `tenant_containers`: one row for each object, guarded by (sequence, epoch, observed_at).

use std::collections::HashSet;

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    super::{failure::Failure, time::Timestamptz},
    DOING, Of,
};
use crate::{
    ledger::{
        entry::Target,
        snapshot::{Service, Snapshot},
    },
    lifecycle::State,
};

/// Writes what is not older than the row, and tells which were written.
pub(super) async fn upsert(
    connection: &mut PgConnection,
    services: &[Of<'_, Service>],
) -> Result<HashSet<(Uuid, Uuid)>, Failure> {
    let columns = Columns::of(services);
    let written: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "INSERT INTO berth.tenant_containers AS t (cluster_id, id, tenant_org_id, user_id, service_name, namespace_id,
             namespace, name, replicas, cpu, memory, disk, gpu_count, dimension, vector_count, status, created_at,
             deleted, spec, generation, sequence, epoch, head, observed_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::text[],
             $8::text[], $9::integer[], $10::bigint[], $11::bigint[], $12::bigint[], $13::integer[], $14::integer[],
             $15::bigint[], $16::text[], $17::timestamptz[], $18::boolean[], $19::jsonb[], $20::bigint[],
             $21::bigint[], $22::bigint[], $23::bytea[], $24::timestamptz[])
         ORDER BY 1, 2
         ON CONFLICT (cluster_id, id) DO UPDATE
         SET tenant_org_id = excluded.tenant_org_id, user_id = excluded.user_id, service_name = excluded.service_name,
             namespace_id = excluded.namespace_id, namespace = excluded.namespace, name = excluded.name,
             replicas = excluded.replicas, cpu = excluded.cpu, memory = excluded.memory, disk = excluded.disk,
             gpu_count = excluded.gpu_count, dimension = excluded.dimension, vector_count = excluded.vector_count,
             status = excluded.status, created_at = excluded.created_at, sync_time = now(),
             deleted = excluded.deleted, spec = excluded.spec, generation = excluded.generation,
             sequence = excluded.sequence, epoch = excluded.epoch, head = excluded.head,
             observed_at = excluded.observed_at
         WHERE (excluded.sequence, excluded.epoch, excluded.observed_at) >= (t.sequence, t.epoch, t.observed_at)
         RETURNING cluster_id, id",
    )
    .bind(columns.clusters)
    .bind(columns.uids)
    .bind(columns.orgs)
    .bind(columns.users)
    .bind(columns.services)
    .bind(columns.namespace_uids)
    .bind(columns.namespaces)
    .bind(columns.names)
    .bind(columns.replicas)
    .bind(columns.cpus)
    .bind(columns.memories)
    .bind(columns.disks)
    .bind(columns.gpus)
    .bind(columns.dimensions)
    .bind(columns.vector_counts)
    .bind(columns.states)
    .bind(columns.created)
    .bind(columns.deleted)
    .bind(columns.specs)
    .bind(columns.generations)
    .bind(columns.sequences)
    .bind(columns.epochs)
    .bind(columns.heads)
    .bind(columns.observed)
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(written.into_iter().collect())
}

/// One array for each column, in the order of the statement.
#[derive(Default)]
struct Columns<'a> {
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    orgs: Vec<&'a str>,
    users: Vec<&'a str>,
    services: Vec<&'a str>,
    namespace_uids: Vec<Uuid>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
    replicas: Vec<i32>,
    cpus: Vec<i64>,
    memories: Vec<i64>,
    disks: Vec<i64>,
    gpus: Vec<i32>,
    dimensions: Vec<Option<i32>>,
    vector_counts: Vec<Option<i64>>,
    states: Vec<Option<&'static str>>,
    created: Vec<Timestamptz>,
    deleted: Vec<bool>,
    specs: Vec<Json<&'a serde_json::Value>>,
    generations: Vec<i64>,
    sequences: Vec<i64>,
    epochs: Vec<i64>,
    heads: Vec<&'a [u8]>,
    observed: Vec<Timestamptz>,
}

impl<'a> Columns<'a> {
    fn of(services: &[Of<'a, Service>]) -> Self {
        let mut columns = Self::default();
        for Of { snapshot, present } in services {
            // Every field by name: a new one does not compile until somebody decides about it.
            let Snapshot {
                target: Target { cluster, uid, kind: _, namespace, name },
                created_at,
                observed_at,
                generation,
                epoch,
                head,
                // What comes next.
                present: _,
            } = snapshot;
            let Service {
                namespace: namespace_row,
                tenant_org,
                user,
                service_name,
                replicas,
                cpu_millis,
                memory_bytes,
                disk_bytes,
                gpu_count,
                dimension,
                vector_count,
                state,
                spec,
                // Tables of their own.
                indexes: _,
                replicas_seen: _,
            } = present;
            columns.clusters.push(*cluster);
            columns.uids.push(*uid);
            columns.orgs.push(tenant_org);
            columns.users.push(user);
            columns.services.push(service_name);
            columns.namespace_uids.push(namespace_row.uid);
            columns.namespaces.push(namespace);
            columns.names.push(name);
            columns.replicas.push(*replicas);
            columns.cpus.push(*cpu_millis);
            columns.memories.push(*memory_bytes);
            columns.disks.push(*disk_bytes);
            columns.gpus.push(*gpu_count);
            columns.dimensions.push(*dimension);
            columns.vector_counts.push(*vector_count);
            columns.states.push(state.map(State::as_str));
            columns.created.push((*created_at).into());
            columns.deleted.push(*state == Some(State::Deleted));
            columns.specs.push(Json(spec));
            columns.generations.push(*generation);
            columns.sequences.push(head.sequence.cast_signed());
            columns.epochs.push(epoch.cast_signed());
            columns.heads.push(head.hash.as_bytes());
            columns.observed.push((*observed_at).into());
        }
        columns
    }
}
