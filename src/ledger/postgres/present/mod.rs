//! The tables of the present: what a snapshot says, upserted, never going back.
//!
//! Owns: `namespaces`, `tenant_containers` and the order of their locks: namespaces, tenant containers, indexes,
//! images, containers; each by key. Must never: touch a chain; delete a tenant container.

mod follow;
mod indexes;
mod namespaces;
mod replicas;
mod tenant_containers;

use std::collections::{BTreeMap, HashSet};

pub(super) use follow::{Followed, follow};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{failure::Failure, time::Timestamptz};
use crate::ledger::entry::Snapshot;

const DOING: &str = "writing the present state";

/// Writes the snapshots, at most one for each object, in any order.
pub(super) async fn upsert(connection: &mut PgConnection, snapshots: &[&Snapshot]) -> Result<(), Failure> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let sorted: BTreeMap<(Uuid, Uuid), &Snapshot> =
        snapshots.iter().map(|&snapshot| ((snapshot.target.cluster, snapshot.target.uid), snapshot)).collect();
    let sorted: Vec<&Snapshot> = sorted.into_values().collect();
    namespaces::upsert(connection, &sorted).await?;
    let written: HashSet<(Uuid, Uuid)> = tenant_containers::upsert(connection, &sorted).await?;
    // The parts follow their whole: where the row is newer already, so are its indexes and replicas. The row stays
    // locked until the end of the transaction, so nobody else writes its parts meanwhile.
    let newest: Vec<&Snapshot> =
        sorted.into_iter().filter(|s| written.contains(&(s.target.cluster, s.target.uid))).collect();
    if newest.is_empty() {
        return Ok(());
    }
    let owners = Owners::of(&newest);
    indexes::replace(connection, &newest, &owners).await?;
    replicas::upsert(connection, &newest, &owners).await
}

/// The keys of the tenant containers whose parts are written, one array each.
#[derive(Clone, Default)]
struct Owners {
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    observed: Vec<Timestamptz>,
}

impl Owners {
    fn of(snapshots: &[&Snapshot]) -> Self {
        let mut owners = Self::default();
        for snapshot in snapshots {
            owners.clusters.push(snapshot.target.cluster);
            owners.uids.push(snapshot.target.uid);
            owners.observed.push(snapshot.observed_at.into());
        }
        owners
    }
}
