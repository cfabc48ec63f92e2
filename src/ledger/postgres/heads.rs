//! `ledger_heads`: the ends of the chains, moved by compare-and-set (docs/decisions/0004).
//!
//! Owns: who may add the next record of a chain. Must never: look into the history; touch a row out of key order, for
//! two leaders may write at once and must not wait for each other in a circle.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{failure::Failure, time::Timestamptz};
use crate::ledger::{
    error::LedgerError,
    hash::Hash,
    record::{Head, Micros, Record},
};

const DOING: &str = "moving the heads of chains";

/// A row of `ledger_heads`, as far as it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadRow {
    pub(super) head: Head,
    pub(super) prev: Hash,
    pub(super) at: Micros,
}

/// What a record means for its chain as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is the next: the head moves to it.
    Next,
    /// It is the head: a retry after a lost answer.
    Last,
    /// Another record stands where it would: one that may be adopted.
    Sibling(HeadRow),
    /// The chain has gone on beyond its place; the history knows whether with it.
    Behind(HeadRow),
    /// The chain is not there yet.
    Ahead(Head),
}

/// Where `record` stands to the chain that ends in `head`. Pure.
pub(super) fn judge(record: &Record, head: Option<HeadRow>) -> Standing {
    let Some(row) = head else {
        return if record.follows(Head::GENESIS) { Standing::Next } else { Standing::Ahead(Head::GENESIS) };
    };
    let envelope = record.envelope();
    if row.head.hash == record.hash() {
        Standing::Last
    } else if record.follows(row.head) {
        Standing::Next
    } else if row.head.sequence == envelope.seq && row.prev == envelope.prev {
        Standing::Sibling(row)
    } else if row.head.sequence >= envelope.seq {
        Standing::Behind(row)
    } else {
        Standing::Ahead(row.head)
    }
}

/// Moves the heads of all records that are next, and tells where each record stood.
///
/// `records` are sorted by (cluster, uid), each object once. The order of locks is the same in every transaction:
/// new chains by key, then known ones by key.
pub(super) async fn advance(
    connection: &mut PgConnection,
    records: &[&Record],
) -> Result<HashMap<Hash, Standing>, Failure> {
    debug_assert!(records.windows(2).all(|pair| key(pair[0]) < key(pair[1])), "records are sorted, each object once");
    let first: Vec<&Record> = records.iter().copied().filter(|record| record.follows(Head::GENESIS)).collect();
    let begun = begin(connection, &first).await?;
    let known: Vec<&Record> = records.iter().copied().filter(|record| !begun.contains(&key(record))).collect();
    let rows = lock(connection, &known).await?;
    let standings: HashMap<Hash, Standing> = records
        .iter()
        .map(|record| {
            let next = begun.contains(&key(record));
            let standing = if next { Standing::Next } else { judge(record, rows.get(&key(record)).copied()) };
            (record.hash(), standing)
        })
        .collect();
    let next: Vec<&Record> =
        known.iter().copied().filter(|record| standings.get(&record.hash()) == Some(&Standing::Next)).collect();
    move_to(connection, &next).await?;
    Ok(standings)
}

fn key(record: &Record) -> (Uuid, Uuid) {
    (record.envelope().cluster, record.envelope().uid)
}

/// The columns of heads, one array each, for UNNEST.
#[derive(Default)]
struct Columns<'a> {
    clusters: Vec<Uuid>,
    uids: Vec<Uuid>,
    sequences: Vec<i64>,
    epochs: Vec<i64>,
    hashes: Vec<&'a [u8]>,
    prevs: Vec<&'a [u8]>,
    states: Vec<Option<&'static str>>,
    times: Vec<Timestamptz>,
}

impl<'a> Columns<'a> {
    fn of(records: &[&'a Record]) -> Self {
        let mut columns = Self::default();
        for record in records {
            let envelope = record.envelope();
            columns.clusters.push(envelope.cluster);
            columns.uids.push(envelope.uid);
            columns.sequences.push(envelope.seq.cast_signed());
            columns.epochs.push(envelope.epoch.cast_signed());
            columns.hashes.push(record.hash_ref());
            columns.prevs.push(envelope.prev.as_bytes());
            columns.states.push(envelope.to.map(crate::lifecycle::State::as_str));
            columns.times.push(envelope.at.into());
        }
        columns
    }
}

async fn begin(connection: &mut PgConnection, records: &[&Record]) -> Result<HashSet<(Uuid, Uuid)>, Failure> {
    if records.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(records);
    let begun: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "INSERT INTO berth.ledger_heads (cluster_id, uid, sequence, epoch, hash, prev, state, at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::text[],
                              $8::timestamptz[])
         ORDER BY 1, 2
         ON CONFLICT (cluster_id, uid) DO NOTHING
         RETURNING cluster_id, uid",
    )
    .bind(columns.clusters)
    .bind(columns.uids)
    .bind(columns.sequences)
    .bind(columns.epochs)
    .bind(columns.hashes)
    .bind(columns.prevs)
    .bind(columns.states)
    .bind(columns.times)
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(begun.into_iter().collect())
}

async fn lock(connection: &mut PgConnection, records: &[&Record]) -> Result<HashMap<(Uuid, Uuid), HeadRow>, Failure> {
    if records.is_empty() {
        return Ok(HashMap::new());
    }
    let (clusters, uids): (Vec<Uuid>, Vec<Uuid>) = records.iter().map(|record| key(record)).unzip();
    let rows = sqlx::query(
        "SELECT cluster_id, uid, h.sequence, h.hash, h.prev, h.at
         FROM berth.ledger_heads h JOIN unnest($1::uuid[], $2::uuid[]) AS r (cluster_id, uid) USING (cluster_id, uid)
         ORDER BY cluster_id, uid
         FOR NO KEY UPDATE OF h",
    )
    .bind(clusters)
    .bind(uids)
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    rows.iter()
        .map(|row| {
            let head = HeadRow {
                head: Head {
                    sequence: row.try_get::<i64, _>("sequence")?.cast_unsigned(),
                    hash: Hash::from_bytes(row.try_get("hash")?),
                },
                prev: Hash::from_bytes(row.try_get("prev")?),
                at: row.try_get::<Timestamptz, _>("at")?.0,
            };
            Ok(((row.try_get("cluster_id")?, row.try_get("uid")?), head))
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|error| Failure::new(DOING, error))
}

async fn move_to(connection: &mut PgConnection, records: &[&Record]) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(records);
    let moved = sqlx::query(
        "UPDATE berth.ledger_heads h
         SET sequence = r.sequence, epoch = r.epoch, hash = r.hash, prev = r.prev, state = r.state, at = r.at,
             moved_at = now()
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::text[],
                     $8::timestamptz[]) AS r (cluster_id, uid, sequence, epoch, hash, prev, state, at)
         WHERE h.cluster_id = r.cluster_id AND h.uid = r.uid AND h.hash = r.prev AND h.sequence = r.sequence - 1",
    )
    .bind(columns.clusters)
    .bind(columns.uids)
    .bind(columns.sequences)
    .bind(columns.epochs)
    .bind(columns.hashes)
    .bind(columns.prevs)
    .bind(columns.states)
    .bind(columns.times)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?
    .rows_affected();
    // The rows are locked since they were judged, so this only fails when something else is badly wrong.
    if moved == records.len() as u64 {
        Ok(())
    } else {
        Err(Failure::All(LedgerError::Damaged {
            place: "berth.ledger_heads".to_owned(),
            why: format!("{moved} of {} locked heads moved", records.len()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::record::{Actor, Draft, Kind, Seal};

    fn record(previous: Head, at: i64) -> Record {
        let draft = Draft {
            kind: Kind::Transition,
            uid: Uuid::nil(),
            from: None,
            to: None,
            reason: "Test".to_owned(),
            actor: Actor::Unknown,
            generation: 1,
            operation: None,
            details: json!({}),
        };
        draft.seal(Seal { cluster: Uuid::nil(), epoch: 1, at: Micros(at) }, previous)
    }

    fn row(record: &Record) -> HeadRow {
        HeadRow { head: record.head(), prev: record.envelope().prev, at: record.envelope().at }
    }

    #[test]
    fn a_record_is_judged_by_its_place_and_its_predecessor() {
        let one = record(Head::GENESIS, 1);
        let other = record(Head::GENESIS, 2);
        let two = record(one.head(), 3);
        let three = record(two.head(), 4);
        assert_eq!(judge(&one, None), Standing::Next);
        assert_eq!(judge(&two, None), Standing::Ahead(Head::GENESIS));
        assert_eq!(judge(&two, Some(row(&one))), Standing::Next);
        assert_eq!(judge(&one, Some(row(&one))), Standing::Last);
        assert_eq!(judge(&other, Some(row(&one))), Standing::Sibling(row(&one)));
        assert_eq!(judge(&one, Some(row(&two))), Standing::Behind(row(&two)));
        assert_eq!(judge(&record(other.head(), 5), Some(row(&two))), Standing::Behind(row(&two)));
        assert_eq!(judge(&three, Some(row(&one))), Standing::Ahead(one.head()));
    }
}
