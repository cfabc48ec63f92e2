//! `container_status_history`: the records of the chains, written.
//!
//! Must never: update or delete; decide which records are kept.

use sqlx::{FromRow, PgConnection};

use super::{columns::Columns, failure::Failure};
use crate::ledger::{entry::Target, hash::Hash, record::Record};

const DOING: &str = "adding to the history";

/// Adds the records that are not there yet, each with the names of its object; returns their hashes.
pub(super) async fn insert(connection: &mut PgConnection, rows: &[(&Record, &Target)]) -> Result<Vec<Hash>, Failure> {
    if rows.is_empty() {
        return Ok(vec![]);
    }
    let envelopes = rows.iter().map(|(record, _)| record.envelope());
    // A conflict on the key means the same hash, so the same record.
    let added: Vec<([u8; 32],)> = Columns::of(rows.iter().copied())
        .bind(
            "INSERT INTO berth.container_status_history (v, cluster_id, uid, epoch, at, from_state, to_state, reason,
                 actor, generation, operation_id, details_hash, hash, details, object_kind, namespace, name, kind,
                 sequence, prev)
             SELECT * FROM unnest($1::smallint[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[],
                 $7::text[], $8::text[], $9::text[], $10::bigint[], $11::uuid[], $12::bytea[], $13::bytea[],
                 $14::text[]::jsonb[], $15::text[], $16::text[], $17::text[], $18::text[], $19::bigint[], $20::bytea[])
             ON CONFLICT DO NOTHING
             RETURNING hash",
        )
        .bind(envelopes.clone().map(|envelope| envelope.kind.as_str()).collect::<Vec<_>>())
        .bind(envelopes.clone().map(|envelope| envelope.seq.cast_signed()).collect::<Vec<_>>())
        .bind(envelopes.map(|envelope| envelope.prev.as_bytes().as_slice()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
        .and_then(|rows| rows.iter().map(FromRow::from_row).collect())
        .map_err(|error| Failure::new(DOING, error))?;
    Ok(added.into_iter().map(|(hash,)| Hash::from_bytes(hash)).collect())
}
