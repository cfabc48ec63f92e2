//! Rows back into the ledger's words. Columns make bytes anew: equal fields, equal bytes, equal hash.
//!
//! Must never: believe a row. A row whose words the ledger does not know is an error that names it; a row that was
//! altered within them gives a record whose hash differs from the one in its column.

use sea_orm::prelude::{DateTimeUtc, Json};
use uuid::Uuid;

use super::{
    entity::{
        container_status_history, containers, index_metadata, ledger_heads, ledger_quarantine, ledger_writers,
        namespaces, operation_logs, tenant_containers,
    },
    time::micros,
};
use crate::{
    ledger::{
        canonical,
        entry::{KnownHead, OperationOutcome, Target},
        error::LedgerError,
        hash::Hash,
        record::{Actor, Envelope, Head, Kind, Micros, Record},
        snapshot::{Index, Namespace, Replica, Service, Snapshot},
        view::{ChainId, Stored},
    },
    lifecycle::State,
};

/// A row of the history.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HistoryRow {
    /// Made from the columns.
    pub(super) record: Record,
    /// The hash in its column.
    pub(super) hash: Hash,
    /// Its object.
    pub(super) target: Target,
}

impl HistoryRow {
    /// As verification takes it: unchecked.
    pub(super) fn unchecked(self) -> Stored {
        let Self { record, hash, target } = self;
        let (chain, sequence) = (ChainId { cluster: target.cluster, uid: target.uid }, record.envelope().seq);
        Stored {
            chain,
            sequence,
            bytes: record.bytes().to_owned(),
            hash,
            details: record.details().map(str::to_owned),
            place: place_of(target.uid, sequence),
        }
    }
}

fn place_of(uid: Uuid, sequence: impl std::fmt::Display) -> String {
    format!("berth.container_status_history at {uid} sequence {sequence}")
}

/// A record of the audit as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredOperation {
    /// Made from the columns.
    pub record: Record,
    /// The hash in its column; anything but `record.hash()` means that somebody altered the row.
    pub hash: Hash,
    /// What it was done to.
    pub target: Target,
    /// How it ended; none for a start.
    pub outcome: Option<OperationOutcome>,
}

/// A row of `ledger_heads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadsRow {
    pub(super) chain: ChainId,
    pub(super) known: KnownHead,
    pub(super) at: Micros,
    pub(super) closed_epoch: Option<u64>,
}

/// What PostgreSQL refused, as `ledger_quarantine` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRefusal {
    /// The object that it is about.
    pub chain: ChainId,
    /// Its place in the chain; 0 for what has none, or cannot be read.
    pub sequence: u64,
    /// A record, an operation, a present state or a sample.
    pub what: String,
    /// PostgreSQL's words.
    pub error: String,
}

/// A writer as `ledger_writers` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWriter {
    /// Its name.
    pub writer: String,
    /// Records that it was told are durable.
    pub acknowledged: u64,
    /// Running digest over their hashes.
    pub digest: Hash,
    /// When it wrote last.
    pub moved_at: Micros,
}

impl TryFrom<container_status_history::Model> for HistoryRow {
    type Error = LedgerError;

    fn try_from(row: container_status_history::Model) -> Result<Self, LedgerError> {
        // Every column by name: a new one does not compile until somebody decides about it.
        let container_status_history::Model {
            v,
            kind,
            cluster_id,
            uid,
            sequence,
            epoch,
            at,
            from_state,
            to_state,
            reason,
            actor,
            generation,
            operation_id,
            prev,
            details_hash,
            hash,
            details,
            object_kind,
            namespace,
            name,
            recorded_at: _,
        } = row;
        let place = || place_of(uid, sequence);
        let envelope = Envelope {
            v: number(&place, "v", i64::from(v))?,
            kind: word(&place, "kind", &kind)?,
            cluster: cluster_id,
            uid,
            seq: number(&place, "sequence", sequence)?,
            epoch: number(&place, "epoch", epoch)?,
            at: micros(at),
            from: state(&place, from_state)?,
            to: state(&place, to_state)?,
            reason,
            actor: Actor::from(actor),
            generation,
            operation: operation_id,
            prev: digest(&place, "prev", &prev)?,
            details: digest(&place, "details_hash", &details_hash)?,
        };
        let record = Record::from_envelope(envelope, details.as_ref().map(canonical::encode));
        let target = Target { cluster: cluster_id, uid, kind: object_kind, namespace, name };
        Ok(Self { record, hash: digest(&place, "hash", &hash)?, target })
    }
}

impl TryFrom<operation_logs::Model> for StoredOperation {
    type Error = LedgerError;

    fn try_from(row: operation_logs::Model) -> Result<Self, LedgerError> {
        let operation_logs::Model {
            v,
            phase,
            cluster_id,
            target_uid,
            epoch,
            at,
            from_state,
            to_state,
            action,
            actor,
            generation,
            operation_id,
            details_hash,
            hash,
            details,
            target_kind,
            target_namespace,
            target_name,
            succeeded,
            duration_ms,
            recorded_at: _,
        } = row;
        let place = || format!("berth.operation_logs at operation {operation_id} {phase}");
        let envelope = Envelope {
            v: number(&place, "v", i64::from(v))?,
            kind: if phase == "finish" { Kind::OperationFinish } else { Kind::OperationStart },
            cluster: cluster_id,
            uid: target_uid,
            seq: 0,
            epoch: number(&place, "epoch", epoch)?,
            at: micros(at),
            from: state(&place, from_state)?,
            to: state(&place, to_state)?,
            reason: action,
            actor: Actor::from(actor),
            generation,
            operation: Some(operation_id),
            prev: Hash::GENESIS,
            details: digest(&place, "details_hash", &details_hash)?,
        };
        let record = Record::from_envelope(envelope, details.as_ref().map(canonical::encode));
        let target = Target {
            cluster: cluster_id,
            uid: target_uid,
            kind: target_kind,
            namespace: target_namespace,
            name: target_name,
        };
        let outcome =
            succeeded.zip(duration_ms).map(|(succeeded, duration_ms)| OperationOutcome { succeeded, duration_ms });
        Ok(Self { record, hash: digest(&place, "hash", &hash)?, target, outcome })
    }
}

impl TryFrom<ledger_heads::Model> for HeadsRow {
    type Error = LedgerError;

    fn try_from(row: ledger_heads::Model) -> Result<Self, LedgerError> {
        let ledger_heads::Model {
            cluster_id: cluster,
            uid,
            sequence,
            epoch,
            hash,
            prev,
            state: to,
            at,
            moved_at: _,
            closed_epoch,
        } = row;
        let place = || format!("berth.ledger_heads at {uid}");
        let head = Head { sequence: number(&place, "sequence", sequence)?, hash: digest(&place, "hash", &hash)? };
        let known = KnownHead {
            head,
            epoch: number(&place, "epoch", epoch)?,
            state: state(&place, to)?,
            prev: digest(&place, "prev", &prev)?,
        };
        let closed_epoch = closed_epoch.map(|epoch| number(&place, "closed_epoch", epoch)).transpose()?;
        Ok(Self { chain: ChainId { cluster, uid }, known, at: micros(at), closed_epoch })
    }
}

impl From<ledger_quarantine::Model> for StoredRefusal {
    fn from(row: ledger_quarantine::Model) -> Self {
        let ledger_quarantine::Model {
            id: _,
            quarantined_at: _,
            writer: _,
            cluster_id: cluster,
            uid,
            what,
            hash: _,
            sqlstate: _,
            error,
            entry,
            details: _,
            times: _,
            resolved_at: _,
        } = row;
        // What was refused may be what no record can be: then it has no place.
        let sequence = Record::read(&entry, None).map_or(0, |record| record.envelope().seq);
        Self { chain: ChainId { cluster, uid }, sequence, what, error }
    }
}

impl TryFrom<ledger_writers::Model> for StoredWriter {
    type Error = LedgerError;

    fn try_from(row: ledger_writers::Model) -> Result<Self, LedgerError> {
        let ledger_writers::Model { writer, acknowledged, digest: bytes, registered_at: _, moved_at } = row;
        let place = || format!("berth.ledger_writers at {writer}");
        let (acknowledged, digest) = (number(&place, "acknowledged", acknowledged)?, digest(&place, "digest", &bytes)?);
        Ok(Self { acknowledged, digest, moved_at: micros(moved_at), writer })
    }
}

/// A row of `tenant_containers` with its parts, as the snapshot that it came from.
pub(super) fn snapshot(
    row: tenant_containers::Model,
    namespace_row: namespaces::Model,
    indexes: Vec<index_metadata::Model>,
    replicas_seen: Vec<containers::Model>,
) -> Result<Snapshot<Service>, LedgerError> {
    // Every column by name: a new one does not compile until somebody decides about it.
    let tenant_containers::Model {
        cluster_id,
        id,
        tenant_org_id,
        user_id,
        service_name,
        namespace_id: _,
        namespace,
        name,
        replicas,
        cpu,
        memory,
        disk,
        gpu_count,
        dimension,
        vector_count,
        status,
        created_at,
        sync_time: _,
        deleted: _,
        spec,
        generation,
        sequence,
        epoch,
        head,
        observed_at,
    } = row;
    let place = || format!("berth.tenant_containers at {id}");
    let service = Service {
        namespace: Namespace {
            uid: namespace_row.id,
            name: namespace_row.name,
            labels: serde_json::from_value(namespace_row.labels)
                .map_err(|error| damaged(&place, "namespace labels", &error.to_string()))?,
        },
        tenant_org: tenant_org_id,
        user: user_id,
        service_name,
        replicas,
        cpu_millis: cpu,
        memory_bytes: memory,
        disk_bytes: disk,
        gpu_count,
        dimension,
        vector_count,
        state: state(&place, status)?,
        spec,
        indexes: indexes.into_iter().map(index).collect(),
        replicas_seen: replicas_seen.into_iter().map(replica).collect(),
    };
    Ok(Snapshot {
        target: Target { cluster: cluster_id, uid: id, kind: "TenantContainer".to_owned(), namespace, name },
        created_at: micros(created_at),
        observed_at: micros(observed_at),
        generation,
        epoch: number(&place, "epoch", epoch)?,
        head: Head { sequence: number(&place, "sequence", sequence)?, hash: digest(&place, "head", &head)? },
        present: service,
    })
}

fn index(row: index_metadata::Model) -> Index {
    let index_metadata::Model {
        cluster_id: _,
        tenant_container_id: _,
        name,
        dimension,
        metric,
        declared_count,
        observed_count: _,
        sync_time: _,
    } = row;
    Index { name, dimension, metric, declared_count }
}

fn replica(row: containers::Model) -> Replica {
    let containers::Model {
        cluster_id: _,
        id,
        tenant_container_id: _,
        namespace_id: _,
        namespace: _,
        name,
        node,
        image,
        image_digest,
        cpu: _,
        memory: _,
        gpu_count: _,
        status,
        reason,
        ready,
        restarts,
        started_at,
        finished_at,
        observed_at: _,
        sync_time: _,
    } = row;
    Replica {
        uid: id,
        name,
        node,
        image,
        image_digest: (!image_digest.is_empty()).then_some(image_digest),
        state: status,
        reason,
        ready,
        restarts,
        started_at: started_at.map(micros),
        finished_at: finished_at.map(micros),
    }
}

/// A moment for SeaORM; none outside of its calendar.
pub(super) fn moment(at: Micros) -> Option<DateTimeUtc> {
    DateTimeUtc::from_timestamp_micros(at.0)
}

fn damaged(place: &dyn Fn() -> String, column: &str, why: &str) -> LedgerError {
    LedgerError::Damaged { place: place(), why: format!("{column}: {why}") }
}

fn number<T: TryFrom<i64>>(place: &dyn Fn() -> String, column: &str, value: i64) -> Result<T, LedgerError> {
    T::try_from(value).map_err(|_| damaged(place, column, &format!("{value} is out of range")))
}

fn digest(place: &dyn Fn() -> String, column: &str, bytes: &[u8]) -> Result<Hash, LedgerError> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| damaged(place, column, "not 32 bytes"))?;
    Ok(Hash::from_bytes(bytes))
}

fn state(place: &dyn Fn() -> String, text: Option<String>) -> Result<Option<State>, LedgerError> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<State>() {
        Ok(state) => Ok(Some(state)),
        Err(error) => Err(damaged(place, "state", &error.to_string())),
    }
}

fn word(place: &dyn Fn() -> String, column: &str, text: &str) -> Result<Kind, LedgerError> {
    serde_json::from_value(Json::from(text)).map_err(|_| damaged(place, column, &format!("unknown word \"{text}\"")))
}
