//! `index_metadata`: exactly the indexes that the spec declares.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{super::failure::Failure, DOING, Of, Owners};
use crate::ledger::snapshot::{Index, Service};

/// Removes what vanished from the spec, writes the rest; what was counted by asking the engine is kept.
pub(super) async fn replace(
    connection: &mut PgConnection,
    services: &[Of<'_, Service>],
    owners: &Owners,
) -> Result<(), Failure> {
    // By key: the last of two with one name, since a statement may touch a row once.
    let rows: BTreeMap<(Uuid, Uuid, &str), &Index> = services
        .iter()
        .flat_map(|Of { snapshot, present }| {
            let target = &snapshot.target;
            present.indexes.iter().map(|index| ((target.cluster, target.uid, index.name.as_str()), index))
        })
        .collect();
    let (mut clusters, mut uids, mut names) = (vec![], vec![], vec![]);
    let (mut dimensions, mut metrics, mut declared) = (vec![], vec![], vec![]);
    for ((cluster, uid, _), index) in rows {
        let Index { name, dimension, metric, declared_count } = index;
        clusters.push(cluster);
        uids.push(uid);
        names.push(name.as_str());
        dimensions.push(*dimension);
        metrics.push(metric.as_str());
        declared.push(*declared_count);
    }
    sqlx::query(
        "DELETE FROM berth.index_metadata i
         USING unnest($1::uuid[], $2::uuid[]) AS o (cluster_id, id)
         WHERE i.cluster_id = o.cluster_id AND i.tenant_container_id = o.id
           AND (i.cluster_id, i.tenant_container_id, i.name)
               NOT IN (SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::text[]))",
    )
    .bind(&owners.clusters)
    .bind(&owners.uids)
    .bind(&clusters)
    .bind(&uids)
    .bind(&names)
    .execute(&mut *connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    if names.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO berth.index_metadata AS i (cluster_id, tenant_container_id, name, dimension, metric, declared_count)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::bigint[])
         ORDER BY 1, 2, 3
         ON CONFLICT (cluster_id, tenant_container_id, name) DO UPDATE
         SET dimension = excluded.dimension, metric = excluded.metric, declared_count = excluded.declared_count,
             sync_time = now()
         WHERE (i.dimension, i.metric, i.declared_count)
             IS DISTINCT FROM (excluded.dimension, excluded.metric, excluded.declared_count)",
    )
    .bind(clusters)
    .bind(uids)
    .bind(names)
    .bind(dimensions)
    .bind(metrics)
    .bind(declared)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}
