//! `users`: whoever was given access, or gave it.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    super::{failure::Failure, time::Timestamptz},
    DOING, Of,
};
use crate::ledger::{
    record::Actor,
    snapshot::{Grant, Subject},
};

const USER: &str = "User";
const SERVICE_ACCOUNT: &str = "ServiceAccount";
/// What the API server's name of a service account begins with; namespace and name follow, with a colon between.
const PREFIX: &str = "system:serviceaccount:";

/// What people call somebody, and when a grant said so; nothing where only the name is known.
type Named<'a> = Option<(Timestamptz, Option<&'a str>, Option<&'a str>)>;

/// Writes everybody whom the grants name. What people call them is what was said last.
pub(super) async fn upsert(connection: &mut PgConnection, grants: &[Of<'_, Grant>]) -> Result<(), Failure> {
    // Many grants are for one, and a statement may touch a row once.
    let mut rows: BTreeMap<(Uuid, Uuid), (&str, String, Named<'_>)> = BTreeMap::new();
    for Of { snapshot, present } in grants {
        let cluster = snapshot.target.cluster;
        let Subject { kind, namespace: _, name: _, display_name, email } = &present.subject;
        let username = username(&present.subject);
        let named: Named<'_> = (display_name.is_some() || email.is_some()).then_some((
            snapshot.observed_at.into(),
            display_name.as_deref(),
            email.as_deref(),
        ));
        let row = rows.entry((cluster, id(cluster, kind, &username))).or_insert((kind, username, None));
        if named.map(|(at, ..)| at.0) > row.2.map(|(at, ..)| at.0) {
            row.2 = named;
        }
        if let Actor::User(name) = &present.granted_by {
            let kind = if name.starts_with(PREFIX) { SERVICE_ACCOUNT } else { USER };
            rows.entry((cluster, id(cluster, kind, name))).or_insert((kind, name.clone(), None));
        }
    }
    let (mut clusters, mut ids, mut kinds, mut names) = (vec![], vec![], vec![], vec![]);
    let (mut full_names, mut emails, mut named_at) = (vec![], vec![], vec![]);
    for ((cluster, id), (kind, name, named)) in rows {
        clusters.push(cluster);
        ids.push(id);
        kinds.push(kind);
        names.push(name);
        named_at.push(named.map(|(at, _, _)| at));
        full_names.push(named.and_then(|(_, full_name, _)| full_name));
        emails.push(named.and_then(|(_, _, email)| email));
    }
    sqlx::query(
        "INSERT INTO berth.users AS u (cluster_id, id, kind, username, full_name, email, named_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
         ORDER BY 1, 2
         ON CONFLICT (cluster_id, id) DO UPDATE
         SET full_name = excluded.full_name, email = excluded.email, named_at = excluded.named_at, sync_time = now()
         WHERE u.named_at IS NULL AND excluded.named_at IS NOT NULL OR u.named_at < excluded.named_at",
    )
    .bind(clusters)
    .bind(ids)
    .bind(kinds)
    .bind(names)
    .bind(full_names)
    .bind(emails)
    .bind(named_at)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// The name by which the API server knows them.
fn username(subject: &Subject) -> String {
    match &subject.namespace {
        Some(namespace) if subject.kind == SERVICE_ACCOUNT => format!("{PREFIX}{namespace}:{}", subject.name),
        _ => subject.name.clone(),
    }
}

/// The user of a grant.
pub(super) fn of(cluster: Uuid, subject: &Subject) -> Uuid {
    id(cluster, &subject.kind, &username(subject))
}

/// Version 5 (RFC 9562): the same in every batch, whichever comes first.
fn id(cluster: Uuid, kind: &str, username: &str) -> Uuid {
    Uuid::new_v5(&cluster, format!("{kind}/{username}").as_bytes())
}
