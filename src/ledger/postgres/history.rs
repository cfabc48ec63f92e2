//! `container_status_history`: the records of the chains, written.
//!
//! Must never: update or delete; write a record whose head did not move.

use sqlx::PgConnection;

use super::{columns::Columns, failure::Failure};
use crate::ledger::{entry::Target, record::Record};

/// Adds the records, each with the names of its object.
pub(super) async fn insert(connection: &mut PgConnection, rows: &[(&Record, &Target)]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let envelopes = rows.iter().map(|(record, _)| record.envelope());
    // A conflict on the key means the same hash, so the same record: one that a head moved back from.
    Columns::of(rows.iter().copied())
        .bind(
            "INSERT INTO berth.container_status_history (v, cluster_id, uid, epoch, at, from_state, to_state, reason,
                 actor, generation, operation_id, details_hash, hash, details, object_kind, namespace, name, kind,
                 sequence, prev)
             SELECT * FROM unnest($1::smallint[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[],
                 $7::text[], $8::text[], $9::text[], $10::bigint[], $11::uuid[], $12::bytea[], $13::bytea[],
                 $14::text[]::jsonb[], $15::text[], $16::text[], $17::text[], $18::text[], $19::bigint[], $20::bytea[])
             ON CONFLICT DO NOTHING",
        )
        .bind(envelopes.clone().map(|envelope| envelope.kind.as_str()).collect::<Vec<_>>())
        .bind(envelopes.clone().map(|envelope| envelope.seq.cast_signed()).collect::<Vec<_>>())
        .bind(envelopes.map(|envelope| envelope.prev.as_bytes().as_slice()).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map_err(|error| Failure::new("adding to the history", error))?;
    Ok(())
}
