//! The tables of the present: what a snapshot says, upserted, never going back.
//!
//! Owns: `namespaces`, `tenant_containers`, `users`, `roles`, `user_roles`, `deployment_status`, `tenant_quota` and the order
//! of their locks: namespaces, tenant containers, indexes, images, containers, users, roles, user roles, rollouts, quotas; each
//! by key. Must never: touch a chain; delete a row of an object.

mod deployment_status;
mod follow;
mod indexes;
mod namespaces;
mod replicas;
mod roles;
mod tenant_containers;
mod tenant_quota;
mod user_roles;
mod users;

use std::collections::{BTreeMap, HashSet};

pub(super) use follow::{Followed, follow};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{failure::Failure, time::Timestamptz};
use crate::ledger::{
    rollout::Rollout,
    snapshot::{Grant, Present, Quota, Service, Snapshot},
};

const DOING: &str = "writing the present state";

/// Writes the snapshots, at most one for each object, in any order.
pub(super) async fn upsert(connection: &mut PgConnection, snapshots: &[&Snapshot]) -> Result<(), Failure> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let sorted: BTreeMap<(Uuid, Uuid), &Snapshot> =
        snapshots.iter().map(|&snapshot| ((snapshot.target.cluster, snapshot.target.uid), snapshot)).collect();
    let (mut services, mut grants): (Vec<Of<'_, Service>>, Vec<Of<'_, Grant>>) = (vec![], vec![]);
    let (mut rollouts, mut quotas): (Vec<Of<'_, Rollout>>, Vec<Of<'_, Quota>>) = (vec![], vec![]);
    for snapshot in sorted.into_values() {
        match &snapshot.present {
            Present::Service(present) => services.push(Of { snapshot, present }),
            Present::Grant(present) => grants.push(Of { snapshot, present }),
            Present::Rollout(present) => rollouts.push(Of { snapshot, present }),
            Present::Quota(present) => quotas.push(Of { snapshot, present }),
        }
    }
    let of_services = services.iter().map(|one| (one.snapshot, &one.present.namespace));
    let of_grants = grants.iter().map(|one| (one.snapshot, &one.present.namespace));
    namespaces::upsert(connection, of_services.chain(of_grants)).await?;
    upsert_services(connection, services).await?;
    upsert_grants(connection, &grants).await?;
    deployment_status::upsert(connection, &rollouts).await?;
    tenant_quota::upsert(connection, &quotas).await
}

/// Brings the rows of these objects to what their chains say, where their kind's records say it all.
pub(super) async fn rebuild(connection: &mut PgConnection, clusters: &[Uuid], uids: &[Uuid]) -> Result<(), Failure> {
    deployment_status::rebuild(connection, clusters, uids).await?;
    tenant_quota::rebuild(connection, clusters, uids).await
}

/// A snapshot and what its kind adds.
struct Of<'a, P> {
    snapshot: &'a Snapshot,
    present: &'a P,
}

async fn upsert_services(connection: &mut PgConnection, sorted: Vec<Of<'_, Service>>) -> Result<(), Failure> {
    if sorted.is_empty() {
        return Ok(());
    }
    let written: HashSet<(Uuid, Uuid)> = tenant_containers::upsert(connection, &sorted).await?;
    // The parts follow their whole: where the row is newer already, so are its indexes and replicas. The row stays
    // locked until the end of the transaction, so nobody else writes its parts meanwhile.
    let is_written = |one: &Of<'_, Service>| written.contains(&(one.snapshot.target.cluster, one.snapshot.target.uid));
    let newest: Vec<Of<'_, Service>> = sorted.into_iter().filter(is_written).collect();
    if newest.is_empty() {
        return Ok(());
    }
    let owners = Owners::of(&newest);
    indexes::replace(connection, &newest, &owners).await?;
    replicas::upsert(connection, &newest, &owners).await
}

async fn upsert_grants(connection: &mut PgConnection, sorted: &[Of<'_, Grant>]) -> Result<(), Failure> {
    if sorted.is_empty() {
        return Ok(());
    }
    // Whom and what a row names is there before it.
    users::upsert(connection, sorted).await?;
    roles::insert(connection, sorted).await?;
    user_roles::upsert(connection, sorted).await
}

/// The keys of the tenant containers whose parts are written, one array each.
#[derive(Clone, Default)]
struct Owners {
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    observed: Vec<Timestamptz>,
}

impl Owners {
    fn of(services: &[Of<'_, Service>]) -> Self {
        let mut owners = Self::default();
        for Of { snapshot, present: _ } in services {
            owners.clusters.push(snapshot.target.cluster);
            owners.uids.push(snapshot.target.uid);
            owners.observed.push(snapshot.observed_at.into());
        }
        owners
    }
}
