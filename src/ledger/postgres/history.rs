//! `container_status_history`: the records of the chains, written.
//!
//! Owns: how an envelope becomes columns. Must never: update or delete; write a record whose head did not move.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{failure::Failure, time::Timestamptz};
use crate::{
    ledger::{
        entry::Target,
        record::{Envelope, Record},
    },
    lifecycle::State,
};

const DOING: &str = "adding to the history";

/// Adds the records, each with the names of its object.
pub(super) async fn insert(connection: &mut PgConnection, rows: &[(&Record, &Target)]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(rows);
    // A conflict on the key means the same hash, so the same record: one that a head moved back from.
    sqlx::query(
        "INSERT INTO berth.container_status_history (v, kind, cluster_id, uid, sequence, epoch, at, from_state, to_state,
             reason, actor, generation, operation_id, prev, details_hash, hash, details, object_kind, namespace, name)
         SELECT v, kind, cluster_id, uid, sequence, epoch, at, from_state, to_state, reason, actor, generation,
                operation_id, prev, details_hash, hash, details::jsonb, object_kind, namespace, name
         FROM unnest($1::smallint[], $2::text[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::timestamptz[],
                     $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::uuid[], $14::bytea[],
                     $15::bytea[], $16::bytea[], $17::text[], $18::text[], $19::text[], $20::text[])
             AS r (v, kind, cluster_id, uid, sequence, epoch, at, from_state, to_state, reason, actor, generation,
                   operation_id, prev, details_hash, hash, details, object_kind, namespace, name)
         ON CONFLICT DO NOTHING",
    )
    .bind(columns.versions)
    .bind(columns.kinds)
    .bind(columns.clusters)
    .bind(columns.uids)
    .bind(columns.sequences)
    .bind(columns.epochs)
    .bind(columns.times)
    .bind(columns.from)
    .bind(columns.to)
    .bind(columns.reasons)
    .bind(columns.actors)
    .bind(columns.generations)
    .bind(columns.operations)
    .bind(columns.prevs)
    .bind(columns.details_hashes)
    .bind(columns.hashes)
    .bind(columns.details)
    .bind(columns.object_kinds)
    .bind(columns.namespaces)
    .bind(columns.names)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// One array for each column, in the order of the statement.
#[derive(Default)]
struct Columns<'a> {
    versions: Vec<i16>,
    kinds: Vec<&'static str>,
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    sequences: Vec<i64>,
    epochs: Vec<i64>,
    times: Vec<Timestamptz>,
    from: Vec<Option<&'static str>>,
    to: Vec<Option<&'static str>>,
    reasons: Vec<&'a str>,
    actors: Vec<String>,
    generations: Vec<i64>,
    operations: Vec<Option<Uuid>>,
    prevs: Vec<&'a [u8]>,
    details_hashes: Vec<&'a [u8]>,
    hashes: Vec<&'a [u8]>,
    details: Vec<Option<&'a str>>,
    object_kinds: Vec<&'a str>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[(&'a Record, &'a Target)]) -> Self {
        let mut columns = Self::default();
        for (record, target) in rows {
            // Every field by name: a new one does not compile until it has a column.
            let Envelope {
                v,
                kind,
                cluster,
                uid,
                seq,
                epoch,
                at,
                from,
                to,
                reason,
                actor,
                generation,
                operation,
                prev,
                details,
            } = record.envelope();
            columns.versions.push(i16::from(*v));
            columns.kinds.push(kind.as_str());
            columns.clusters.push(*cluster);
            columns.uids.push(*uid);
            columns.sequences.push(seq.cast_signed());
            columns.epochs.push(epoch.cast_signed());
            columns.times.push((*at).into());
            columns.from.push(from.map(State::as_str));
            columns.to.push(to.map(State::as_str));
            columns.reasons.push(reason);
            columns.actors.push(String::from(actor.clone()));
            columns.generations.push(*generation);
            columns.operations.push(*operation);
            columns.prevs.push(prev.as_bytes());
            columns.details_hashes.push(details.as_bytes());
            columns.hashes.push(record.hash_ref());
            columns.details.push(record.details());
            columns.object_kinds.push(&target.kind);
            columns.namespaces.push(&target.namespace);
            columns.names.push(&target.name);
        }
        columns
    }
}
