//! `operation_logs`: the start and the finish of operations, written.
//!
//! Owns: that each phase of an operation is told once, by whichever account came first. Must never: update or delete.

use std::collections::{BTreeSet, HashMap};

use sea_orm::DatabaseConnection;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{columns::Columns, failure::Failure, read, time::Timestamptz};
use crate::ledger::{
    entry::{OperationOutcome, Outcome, Target},
    error::LedgerError,
    hash::Hash,
    record::{Kind, Micros, Record},
};

const DOING: &str = "adding to the audit";

/// One entry of the audit.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) record: &'a Record,
    pub(super) target: &'a Target,
    pub(super) outcome: Option<OperationOutcome>,
}

/// What identifies a record of the audit: cluster, operation and phase.
pub(super) type Key = (Uuid, Option<Uuid>, &'static str);

/// The key of a record.
pub(super) fn key(record: &Record) -> Key {
    let envelope = record.envelope();
    (envelope.cluster, envelope.operation, if envelope.kind == Kind::OperationFinish { "finish" } else { "start" })
}

/// The account of a phase that stands; with its key, where its row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) key: Key,
    pub(super) at: Micros,
    pub(super) hash: Hash,
}

/// What the audit holds now.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The accounts that stand, one for each key that was asked for.
    pub(super) standing: HashMap<Key, Account>,
    /// Those of them that were added.
    pub(super) added: Vec<Hash>,
}

/// Adds the first account of each phase that nobody has told yet. `operations` are sorted by [`key`].
pub(super) async fn insert(connection: &mut PgConnection, operations: &[Operation<'_>]) -> Result<Taken, Failure> {
    if operations.is_empty() {
        return Ok(Taken::default());
    }
    debug_assert!(operations.is_sorted_by_key(|operation| key(operation.record)), "operations are sorted");
    let mut first = operations.to_vec();
    first.dedup_by_key(|operation| key(operation.record));
    lock(connection, &first).await?;
    let known = add(connection, &first).await?;
    let mut taken = Taken::default();
    for Operation { record, .. } in first {
        let (at, hash) = known.get(&record.hash()).copied().unwrap_or_else(|| {
            taken.added.push(record.hash());
            (record.envelope().at, record.hash())
        });
        taken.standing.insert(key(record), Account { key: key(record), at, hash });
    }
    Ok(taken)
}

/// Makes writers that tell of the same operation wait for each other, until the end of the transaction: no index over
/// all months could refuse the second account. In order, so that nobody waits in a circle.
///
/// A lock for the last byte of an operation's id, not for the whole of it: so a batch takes at most 256 of the
/// server's, which keeps 6,400 for everybody by default. Two leaders meet in one only at a hand-over.
async fn lock(connection: &mut PgConnection, operations: &[Operation<'_>]) -> Result<(), Failure> {
    let locks: BTreeSet<(i32, i32)> = operations
        .iter()
        .map(|operation| {
            let (cluster, id, _) = key(operation.record);
            let [.., byte] = id.unwrap_or_default().into_bytes();
            let [.., a, b, c, d] = cluster.into_bytes();
            (i32::from_be_bytes([a, b, c, d]), i32::from(byte))
        })
        .collect();
    let (clusters, bytes): (Vec<i32>, Vec<i32>) = locks.into_iter().unzip();
    sqlx::query("SELECT pg_advisory_xact_lock(cluster, byte) FROM unnest($1::int[], $2::int[]) AS l (cluster, byte)")
        .bind(clusters)
        .bind(bytes)
        .execute(connection)
        .await
        .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// Adds what nobody has told; answers with time and hash of what stands instead of the others, by their hash.
///
/// A statement of its own behind [`lock`]: at READ COMMITTED it sees what the one before in the lock has committed. The
/// lateral probes the primary key of each month, oldest first, for one record at a time; as a join it would be planned
/// for the sizes of an hour ago, and read whole months.
async fn add(
    connection: &mut PgConnection,
    operations: &[Operation<'_>],
) -> Result<HashMap<Hash, (Micros, Hash)>, Failure> {
    let outcomes = operations.iter().map(|operation| operation.outcome);
    let rows = Columns::of(operations.iter().map(|operation| (operation.record, operation.target)))
        .bind(
            "WITH told (v, cluster_id, target_uid, epoch, at, from_state, to_state, action, actor, generation,
                 operation_id, details_hash, hash, details, target_kind, target_namespace, target_name, phase,
                 succeeded, duration_ms)
             AS (SELECT * FROM unnest($1::smallint[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[],
                 $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::uuid[], $12::bytea[],
                 $13::bytea[], $14::text[]::jsonb[], $15::text[], $16::text[], $17::text[], $18::text[],
                 $19::boolean[], $20::bigint[])),
             known AS (
                 SELECT told.hash AS told, stands.at, stands.hash FROM told CROSS JOIN LATERAL (
                     SELECT o.at, o.hash FROM berth.operation_logs o
                     WHERE (o.cluster_id, o.operation_id, o.phase) = (told.cluster_id, told.operation_id, told.phase)
                     ORDER BY o.at LIMIT 1) stands),
             added AS (
                 INSERT INTO berth.operation_logs (v, cluster_id, target_uid, epoch, at, from_state, to_state, action,
                     actor, generation, operation_id, details_hash, hash, details, target_kind, target_namespace,
                     target_name, phase, succeeded, duration_ms)
                 SELECT * FROM told WHERE told.hash NOT IN (SELECT known.told FROM known))
             SELECT told, at, hash FROM known",
        )
        .bind(operations.iter().map(|operation| key(operation.record).2).collect::<Vec<_>>())
        .bind(outcomes.clone().map(|outcome| Some(outcome?.succeeded)).collect::<Vec<_>>())
        .bind(outcomes.map(|outcome| Some(outcome?.duration_ms)).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
        .map_err(|error| Failure::new(DOING, error))?;
    rows.into_iter()
        .map(|row| {
            let Timestamptz(at) = row.try_get("at")?;
            Ok((Hash::from_bytes(row.try_get("told")?), (at, Hash::from_bytes(row.try_get("hash")?))))
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|error| Failure::new(DOING, error))
}

/// Another account of this phase stands: that one is to be shown. The audit is insert-only, so it is looked up after
/// the batch's transaction.
pub(super) async fn adopt(db: &DatabaseConnection, account: Account) -> Result<Outcome, LedgerError> {
    let Account { key: (cluster, operation, phase), at, hash } = account;
    let operation = operation.unwrap_or_default();
    match read::operation_at(db, (cluster, operation, phase), at).await? {
        Some(stored) if stored.record.hash() == hash => Ok(Outcome::Adopt(Box::new(stored.record))),
        found => Err(LedgerError::Damaged {
            place: format!("berth.operation_logs at operation {operation} {phase}"),
            why: format!(
                "record {hash} stood there, {}",
                if found.is_some() { "and the row does not hash to that" } else { "and does no more" }
            ),
        }),
    }
}
