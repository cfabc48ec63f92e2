//! What the history and the audit have in common: the envelope, the details, and the names of the object.
//!
//! Owns: how these become columns, one array each, for UNNEST. Must never: name a table.

use sqlx::{Postgres, postgres::PgArguments, query::Query};
use uuid::Uuid;

use super::time::Timestamptz;
use crate::{
    ledger::{
        entry::Target,
        record::{Envelope, Record},
    },
    lifecycle::State,
};

/// Arrays in the order of [`Self::bind`].
#[derive(Default)]
pub(super) struct Columns<'a> {
    versions: Vec<i16>,
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    epochs: Vec<i64>,
    times: Vec<Timestamptz>,
    from: Vec<Option<&'static str>>,
    to: Vec<Option<&'static str>>,
    reasons: Vec<&'a str>,
    actors: Vec<String>,
    generations: Vec<i64>,
    operations: Vec<Option<Uuid>>,
    details_hashes: Vec<&'a [u8]>,
    hashes: Vec<&'a [u8]>,
    details: Vec<Option<&'a str>>,
    object_kinds: Vec<&'a str>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    /// Those of the records, each with its object.
    pub(super) fn of(rows: impl IntoIterator<Item = (&'a Record, &'a Target)>) -> Self {
        let mut columns = Self::default();
        for (record, target) in rows {
            // Every field by name: a new one does not compile until it has a column.
            let Envelope {
                v,
                // Each table has a column of its own for the kind, and the history two more for the place in the chain.
                kind: _,
                seq: _,
                prev: _,
                cluster,
                uid,
                epoch,
                at,
                from,
                to,
                reason,
                actor,
                generation,
                operation,
                details,
            } = record.envelope();
            // Cluster and uid are the envelope's own (checked at the door).
            let Target { cluster: _, uid: _, kind: object_kind, namespace, name } = target;
            columns.versions.push(i16::from(*v));
            columns.clusters.push(*cluster);
            columns.uids.push(*uid);
            columns.epochs.push(epoch.cast_signed());
            columns.times.push((*at).into());
            columns.from.push(from.map(State::as_str));
            columns.to.push(to.map(State::as_str));
            columns.reasons.push(reason);
            columns.actors.push(String::from(actor.clone()));
            columns.generations.push(*generation);
            columns.operations.push(*operation);
            columns.details_hashes.push(details.as_bytes());
            columns.hashes.push(record.hash_ref());
            columns.details.push(record.details());
            columns.object_kinds.push(object_kind);
            columns.namespaces.push(namespace);
            columns.names.push(name);
        }
        columns
    }

    /// A statement with these as `$1` to `$17`.
    pub(super) fn bind(self, sql: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql)
            .bind(self.versions)
            .bind(self.clusters)
            .bind(self.uids)
            .bind(self.epochs)
            .bind(self.times)
            .bind(self.from)
            .bind(self.to)
            .bind(self.reasons)
            .bind(self.actors)
            .bind(self.generations)
            .bind(self.operations)
            .bind(self.details_hashes)
            .bind(self.hashes)
            .bind(self.details)
            .bind(self.object_kinds)
            .bind(self.namespaces)
            .bind(self.names)
    }
}
