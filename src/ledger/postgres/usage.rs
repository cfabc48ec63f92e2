//! `container_resource_usage`: samples, written.
//!
//! Must never: update or delete; fill a gap.

use sqlx::PgConnection;

use super::{failure::Failure, time::Timestamptz};
use crate::ledger::entry::Usage;

/// Adds the samples that are not there yet; returns how many those were.
pub(super) async fn insert(connection: &mut PgConnection, samples: &[&Usage]) -> Result<u64, Failure> {
    if samples.is_empty() {
        return Ok(0);
    }
    let (mut clusters, mut containers, mut resources) = (vec![], vec![], vec![]);
    let (mut times, mut owners, mut values) = (vec![], vec![], vec![]);
    for sample in samples {
        // Every field by name: a new one does not compile until somebody decides about it.
        let Usage { cluster, uid, container, resource, at, value } = sample;
        clusters.push(*cluster);
        containers.push(*container);
        resources.push(resource.as_str());
        times.push(Timestamptz(*at));
        owners.push(*uid);
        values.push(*value);
    }
    let added = sqlx::query(
        "INSERT INTO berth.container_resource_usage (cluster_id, container_id, resource, at, tenant_container_id, value)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::uuid[], $6::bigint[])
         ON CONFLICT DO NOTHING",
    )
    .bind(clusters)
    .bind(containers)
    .bind(resources)
    .bind(times)
    .bind(owners)
    .bind(values)
    .execute(connection)
    .await
    .map_err(|error| Failure::new("adding samples", error))?;
    Ok(added.rows_affected())
}
