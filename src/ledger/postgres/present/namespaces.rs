//! `namespaces`: each as it was seen last.

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    super::{failure::Failure, time::Timestamptz},
    DOING,
};
use crate::ledger::{
    record::Micros,
    snapshot::{Namespace, Snapshot},
};

pub(super) async fn upsert<'a>(
    connection: &mut PgConnection,
    seen_by: impl Iterator<Item = (&'a Snapshot, &'a Namespace)>,
) -> Result<(), Failure> {
    // Many objects share a namespace, and a statement may touch a row once.
    let mut latest: BTreeMap<(Uuid, Uuid), (Micros, &Namespace)> = BTreeMap::new();
    for (snapshot, namespace) in seen_by {
        let seen = latest.entry((snapshot.target.cluster, namespace.uid)).or_insert((snapshot.observed_at, namespace));
        if seen.0 < snapshot.observed_at {
            *seen = (snapshot.observed_at, namespace);
        }
    }
    let mut clusters: Vec<Uuid> = Vec::with_capacity(latest.len());
    let (mut uids, mut names, mut labels, mut observed) = (vec![], vec![], vec![], vec![]);
    for ((cluster, _), (observed_at, namespace)) in latest {
        let Namespace { uid, name, labels: map } = namespace;
        clusters.push(cluster);
        uids.push(*uid);
        names.push(name.as_str());
        labels.push(Json(map));
        observed.push(Timestamptz(observed_at));
    }
    sqlx::query(
        "INSERT INTO berth.namespaces AS n (cluster_id, id, name, labels, observed_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::timestamptz[])
         ORDER BY 1, 2
         ON CONFLICT (cluster_id, id) DO UPDATE
         SET name = excluded.name, labels = excluded.labels, observed_at = excluded.observed_at, sync_time = now()
         WHERE n.observed_at < excluded.observed_at",
    )
    .bind(clusters)
    .bind(uids)
    .bind(names)
    .bind(labels)
    .bind(observed)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}
