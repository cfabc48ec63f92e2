//! `user_roles`: one row for each grant, guarded by (sequence, epoch, observed_at).

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    super::{failure::Failure, time::Timestamptz},
    DOING, Of, roles, users,
};
use crate::ledger::{
    entry::Target,
    snapshot::{Access, Grant, Snapshot},
};

/// Writes what is not older than the row.
pub(super) async fn upsert(connection: &mut PgConnection, grants: &[Of<'_, Grant>]) -> Result<(), Failure> {
    let columns = Columns::of(grants);
    sqlx::query(
        "INSERT INTO berth.user_roles AS r (cluster_id, id, user_id, role, namespace_id, namespace, name, granted_by,
             access, expires_at, created_at, deleted, generation, sequence, epoch, head, observed_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[],
             $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::boolean[], $13::bigint[],
             $14::bigint[], $15::bigint[], $16::bytea[], $17::timestamptz[])
         ORDER BY 1, 2
         ON CONFLICT (cluster_id, id) DO UPDATE
         SET user_id = excluded.user_id, role = excluded.role, namespace_id = excluded.namespace_id,
             namespace = excluded.namespace, name = excluded.name, granted_by = excluded.granted_by,
             access = excluded.access, expires_at = excluded.expires_at, created_at = excluded.created_at,
             sync_time = now(), deleted = excluded.deleted, generation = excluded.generation,
             sequence = excluded.sequence, epoch = excluded.epoch, head = excluded.head,
             observed_at = excluded.observed_at
         WHERE (excluded.sequence, excluded.epoch, excluded.observed_at) >= (r.sequence, r.epoch, r.observed_at)",
    )
    .bind(columns.clusters)
    .bind(columns.uids)
    .bind(columns.users)
    .bind(columns.roles)
    .bind(columns.namespace_uids)
    .bind(columns.namespaces)
    .bind(columns.names)
    .bind(columns.granted_by)
    .bind(columns.access)
    .bind(columns.expires)
    .bind(columns.created)
    .bind(columns.deleted)
    .bind(columns.generations)
    .bind(columns.sequences)
    .bind(columns.epochs)
    .bind(columns.heads)
    .bind(columns.observed)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// One array for each column, in the order of the statement.
#[derive(Default)]
struct Columns<'a> {
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    users: Vec<Uuid>,
    roles: Vec<String>,
    namespace_uids: Vec<Uuid>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
    granted_by: Vec<String>,
    access: Vec<&'static str>,
    expires: Vec<Timestamptz>,
    created: Vec<Timestamptz>,
    deleted: Vec<bool>,
    generations: Vec<i64>,
    sequences: Vec<i64>,
    epochs: Vec<i64>,
    heads: Vec<&'a [u8]>,
    observed: Vec<Timestamptz>,
}

impl<'a> Columns<'a> {
    fn of(grants: &[Of<'a, Grant>]) -> Self {
        let mut columns = Self::default();
        for Of { snapshot, present } in grants {
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
            let Grant { namespace: namespace_row, subject, gives, expires_at, granted_by, access } = present;
            columns.clusters.push(*cluster);
            columns.uids.push(*uid);
            columns.users.push(users::of(*cluster, subject));
            columns.roles.push(roles::name(gives));
            columns.namespace_uids.push(namespace_row.uid);
            columns.namespaces.push(namespace);
            columns.names.push(name);
            columns.granted_by.push(granted_by.clone().into());
            columns.access.push(access.as_str());
            columns.expires.push((*expires_at).into());
            columns.created.push((*created_at).into());
            columns.deleted.push(*access == Access::Removed);
            columns.generations.push(*generation);
            columns.sequences.push(head.sequence.cast_signed());
            columns.epochs.push(epoch.cast_signed());
            columns.heads.push(head.hash.as_bytes());
            columns.observed.push((*observed_at).into());
        }
        columns
    }
}
