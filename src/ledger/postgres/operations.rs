//! `operation_logs`: the start and the finish of operations, written.
//!
//! Owns: their columns, and that each is there once. Must never: update or delete.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{failure::Failure, time::Timestamptz};
use crate::{
    ledger::{
        entry::{OperationOutcome, Target},
        hash::Hash,
        record::{Envelope, Kind, Micros, Record},
    },
    lifecycle::State,
};

const DOING: &str = "adding to the audit";

/// One entry of the audit.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) record: &'a Record,
    pub(super) target: &'a Target,
    pub(super) outcome: Option<OperationOutcome>,
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Added by this statement.
    New,
    /// It was there: a retry after a lost answer.
    Known,
    /// Another record has its operation id, phase and time.
    Clash(Hash),
}

/// Adds what is not there yet, and tells about each by its hash.
pub(super) async fn insert(
    connection: &mut PgConnection,
    operations: &[Operation<'_>],
) -> Result<HashMap<Hash, Taken>, Failure> {
    if operations.is_empty() {
        return Ok(HashMap::new());
    }
    let columns = Columns::of(operations);
    let added: Vec<(Vec<u8>,)> = sqlx::query_as(
        "INSERT INTO berth.operation_logs (v, phase, cluster_id, target_uid, epoch, at, from_state, to_state, action,
             actor, generation, operation_id, details_hash, hash, details, target_kind, target_namespace, target_name,
             succeeded, duration_ms)
         SELECT v, phase, cluster_id, target_uid, epoch, at, from_state, to_state, action, actor, generation,
                operation_id, details_hash, hash, details::jsonb, target_kind, target_namespace, target_name,
                succeeded, duration_ms
         FROM unnest($1::smallint[], $2::text[], $3::uuid[], $4::uuid[], $5::bigint[], $6::timestamptz[], $7::text[],
                     $8::text[], $9::text[], $10::text[], $11::bigint[], $12::uuid[], $13::bytea[], $14::bytea[],
                     $15::text[], $16::text[], $17::text[], $18::text[], $19::boolean[], $20::bigint[])
             AS r (v, phase, cluster_id, target_uid, epoch, at, from_state, to_state, action, actor, generation,
                   operation_id, details_hash, hash, details, target_kind, target_namespace, target_name, succeeded,
                   duration_ms)
         ORDER BY cluster_id, operation_id, phase, at
         ON CONFLICT DO NOTHING
         RETURNING hash",
    )
    .bind(columns.versions)
    .bind(columns.phases)
    .bind(columns.clusters)
    .bind(columns.uids)
    .bind(columns.epochs)
    .bind(columns.times)
    .bind(columns.from)
    .bind(columns.to)
    .bind(columns.actions)
    .bind(columns.actors)
    .bind(columns.generations)
    .bind(columns.operations)
    .bind(columns.details_hashes)
    .bind(columns.hashes)
    .bind(columns.details)
    .bind(columns.kinds)
    .bind(columns.namespaces)
    .bind(columns.names)
    .bind(columns.succeeded)
    .bind(columns.durations)
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    let added: HashSet<Vec<u8>> = added.into_iter().map(|(hash,)| hash).collect();
    let mut taken = HashMap::new();
    for operation in operations {
        let record = operation.record;
        let what = if added.contains(record.hash_ref()) {
            Taken::New
        } else {
            match there(connection, record).await? {
                Some(hash) if hash != record.hash() => Taken::Clash(hash),
                _ => Taken::Known,
            }
        };
        taken.insert(record.hash(), what);
    }
    Ok(taken)
}

/// The hash under the record's key.
async fn there(connection: &mut PgConnection, record: &Record) -> Result<Option<Hash>, Failure> {
    let envelope = record.envelope();
    let hash: Option<[u8; 32]> = sqlx::query_scalar(
        "SELECT hash FROM berth.operation_logs WHERE cluster_id = $1 AND operation_id = $2 AND phase = $3 AND at = $4",
    )
    .bind(envelope.cluster)
    .bind(envelope.operation)
    .bind(phase(envelope.kind))
    .bind(Timestamptz(envelope.at))
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(hash.map(Hash::from_bytes))
}

/// The order in which operations are locked.
pub(super) fn key(record: &Record) -> (Uuid, Option<Uuid>, &'static str, Micros) {
    let envelope = record.envelope();
    (envelope.cluster, envelope.operation, phase(envelope.kind), envelope.at)
}

const fn phase(kind: Kind) -> &'static str {
    if matches!(kind, Kind::OperationFinish) { "finish" } else { "start" }
}

/// One array for each column, in the order of the statement.
#[derive(Default)]
struct Columns<'a> {
    versions: Vec<i16>,
    phases: Vec<&'static str>,
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    epochs: Vec<i64>,
    times: Vec<Timestamptz>,
    from: Vec<Option<&'static str>>,
    to: Vec<Option<&'static str>>,
    actions: Vec<&'a str>,
    actors: Vec<String>,
    generations: Vec<i64>,
    operations: Vec<Option<Uuid>>,
    details_hashes: Vec<&'a [u8]>,
    hashes: Vec<&'a [u8]>,
    details: Vec<Option<&'a str>>,
    kinds: Vec<&'a str>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
    succeeded: Vec<Option<bool>>,
    durations: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[Operation<'a>]) -> Self {
        let mut columns = Self::default();
        for Operation { record, target, outcome } in rows {
            // Every field by name: a new one does not compile until it has a column.
            let Envelope {
                v,
                kind,
                cluster,
                uid,
                // Always 0 and zeros for what stands alone (checked at the door).
                seq: _,
                prev: _,
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
            columns.versions.push(i16::from(*v));
            columns.phases.push(phase(*kind));
            columns.clusters.push(*cluster);
            columns.uids.push(*uid);
            columns.epochs.push(epoch.cast_signed());
            columns.times.push((*at).into());
            columns.from.push(from.map(State::as_str));
            columns.to.push(to.map(State::as_str));
            columns.actions.push(reason);
            columns.actors.push(String::from(actor.clone()));
            columns.generations.push(*generation);
            columns.operations.push(*operation);
            columns.details_hashes.push(details.as_bytes());
            columns.hashes.push(record.hash_ref());
            columns.details.push(record.details());
            columns.kinds.push(&target.kind);
            columns.namespaces.push(&target.namespace);
            columns.names.push(&target.name);
            columns.succeeded.push(outcome.map(|outcome| outcome.succeeded));
            columns.durations.push(outcome.map(|outcome| outcome.duration_ms));
        }
        columns
    }
}
