//! `ledger_quarantine`: what PostgreSQL refused, kept as text, so that the rest goes on and somebody looks at it.
//!
//! Must never: be refused itself. So everything in it is text without control characters.

use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::{
    bounds::within,
    failure::{Failure, Refusal},
    heads::Key,
};
use crate::ledger::{
    canonical,
    entry::{Entry, Usage},
    hash::Hash,
    record::{Head, Record},
    snapshot::Snapshot,
    visible,
};

/// What is put away.
#[derive(Clone, Copy)]
pub(super) enum Refused<'a> {
    /// A record of a chain.
    Record(&'a Record),
    /// A record that stands alone.
    Operation(&'a Record),
    /// The present state of an object.
    Present(&'a Snapshot),
    /// The present of an object as its records tell it: where its chain ends.
    Followed(Key, Head),
    /// A sample.
    Usage(&'a Usage),
}

impl<'a> From<&'a Entry> for Refused<'a> {
    fn from(entry: &'a Entry) -> Self {
        match entry {
            Entry::Chained { record, snapshot: _ } | Entry::Carried { record, target: _ } => Self::Record(record),
            Entry::Operation { record, target: _, outcome: _ } => Self::Operation(record),
            Entry::Present(snapshot) => Self::Present(snapshot),
            Entry::Usage(usage) => Self::Usage(usage),
        }
    }
}

/// Keeps it, or counts once more what is kept already.
pub(super) async fn keep(
    executor: impl PgExecutor<'_>,
    writer: &str,
    refused: Refused<'_>,
    why: &Refusal,
) -> Result<(), Failure> {
    let (what, cluster, uid, text, details) = match refused {
        Refused::Record(record) => {
            ("record", record.envelope().cluster, record.envelope().uid, record.bytes().to_owned(), record.details())
        }
        Refused::Operation(record) => {
            ("operation", record.envelope().cluster, record.envelope().uid, record.bytes().to_owned(), record.details())
        }
        Refused::Present(snapshot) => ("present", snapshot.target.cluster, snapshot.target.uid, text(snapshot), None),
        Refused::Followed((cluster, uid), head) => ("present", cluster, uid, text(&head), None),
        Refused::Usage(usage) => ("usage", usage.cluster, usage.uid, text(usage), None),
    };
    let hash = Hash::of(text.as_bytes());
    tracing::error!(%cluster, %uid, what, sqlstate = why.sqlstate, error = why.message, "an entry is quarantined");
    insert(executor, Row { writer, what, cluster, uid, hash, why, text: &text, details }).await
}

fn text(what: &impl Serialize) -> String {
    canonical::encode(&serde_json::to_value(what).unwrap_or_default())
}

struct Row<'a> {
    writer: &'a str,
    what: &'static str,
    cluster: Uuid,
    uid: Uuid,
    hash: Hash,
    why: &'a Refusal,
    text: &'a str,
    details: Option<&'a str>,
}

async fn insert(executor: impl PgExecutor<'_>, row: Row<'_>) -> Result<(), Failure> {
    let Row { writer, what, cluster, uid, hash, why, text, details } = row;
    within("quarantining an entry", async {
        sqlx::query(
            "INSERT INTO berth.ledger_quarantine AS q
                 (writer, cluster_id, uid, what, hash, sqlstate, error, entry, details)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (cluster_id, uid, what, hash) DO UPDATE
             SET times = q.times + 1, sqlstate = excluded.sqlstate, error = excluded.error",
        )
        .bind(writer)
        .bind(cluster)
        .bind(uid)
        .bind(what)
        .bind(hash.as_bytes())
        .bind((!why.sqlstate.is_empty()).then_some(why.sqlstate.as_str()))
        .bind(visible(&why.message, 4096))
        .bind(text)
        .bind(details)
        .execute(executor)
        .await?;
        Ok(())
    })
    .await
}
