//! `ledger_heads`: the ends of the chains, moved by compare-and-set (docs/decisions/0004).
//!
//! Owns: who may add the next record of a chain. Must never: touch a row out of key order, for two leaders may write at
//! once and must not wait for each other in a circle.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{failure::Failure, time::Timestamptz};
use crate::{
    broken::{self, Variant},
    ledger::{
        error::LedgerError,
        hash::Hash,
        record::{Head, Micros, Record},
    },
    lifecycle::State,
};

const DOING: &str = "moving the heads of chains";

/// A row of `ledger_heads`, as far as it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadRow {
    pub(super) head: Head,
    pub(super) prev: Hash,
    pub(super) at: Micros,
    /// It is known to be an ending that was shown.
    pub(super) closed: bool,
}

/// How far a head goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Over whatever follows it: its writer saw what was shown.
    All,
    /// Not onto an ending, and not off one that is closed: what comes late does not know what was shown meanwhile. Where an
    /// object ended is said by its status, or by what was noted of it (docs/ledger.md, "What the model changed", 11).
    NoEnding,
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

/// Where the record of `link` stands to the chain that ends in `head`. Pure.
pub(super) fn judge(link: &Link, head: Option<HeadRow>) -> Standing {
    let Some(row) = head else {
        return if link.follows(Head::GENESIS) { Standing::Next } else { Standing::Ahead(Head::GENESIS) };
    };
    let HeadRow { head, prev, at: _, closed: _ } = link.row;
    if row.head.hash == head.hash {
        Standing::Last
    } else if link.follows(row.head) || broken::is(Variant::HeadMovedWithoutCompare) {
        Standing::Next
    } else if row.head.sequence == head.sequence && row.prev == prev {
        Standing::Sibling(row)
    } else if row.head.sequence >= head.sequence {
        Standing::Behind(row)
    } else {
        Standing::Ahead(row.head)
    }
}

/// A chain, by cluster and object.
pub(super) type Key = (Uuid, Uuid);

/// The chain of a record.
pub(super) fn key(record: &Record) -> Key {
    (record.envelope().cluster, record.envelope().uid)
}

/// A record as a link of its chain: what `ledger_heads` names of it where the chain ends in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) chain: Key,
    pub(super) row: HeadRow,
    pub(super) epoch: u64,
    pub(super) state: Option<State>,
}

impl Link {
    /// For [`catch_up`], which asks for no more of it.
    pub(super) fn at(chain: Key, head: Head) -> Self {
        let row = HeadRow { head, prev: Hash::GENESIS, at: Micros(0), closed: false };
        Self { chain, row, epoch: 0, state: None }
    }

    pub(super) fn of(record: &Record) -> Self {
        let envelope = record.envelope();
        let row = HeadRow { head: record.head(), prev: envelope.prev, at: envelope.at, closed: false };
        Self { chain: key(record), row, epoch: envelope.epoch, state: envelope.to }
    }

    /// Whether it attaches right behind `head`.
    fn follows(&self, head: Head) -> bool {
        self.row.head.sequence == head.sequence + 1 && self.row.prev == head.hash
    }
}

/// A head on its way.
#[derive(Clone, Copy, Debug)]
struct Move {
    from: Head,
    to: Link,
}

/// Where the records stood, and which heads moved.
#[derive(Debug, Default)]
pub(super) struct Advanced {
    /// By the record's hash.
    pub(super) standings: HashMap<Hash, Standing>,
    /// The new ends of the chains whose heads moved.
    pub(super) moved: Vec<Link>,
}

/// Moves each head over all links that follow it, one after the other, and tells where each stood.
///
/// `links` are sorted by chain, those of one chain in the order in which they came. The order of locks is the same in
/// every transaction: new chains by key, then known ones by key.
pub(super) async fn advance(connection: &mut PgConnection, links: &[Link], reach: Reach) -> Result<Advanced, Failure> {
    debug_assert!(links.is_sorted_by_key(|link| link.chain), "links are sorted by chain");
    let runs: Vec<&[Link]> = links.chunk_by(|a, b| a.chain == b.chain).collect();
    let mut advanced = Advanced::default();
    let first: Vec<Link> =
        runs.iter().filter_map(|run| Some(walk(run, None, reach, &mut HashMap::new())?.to)).collect();
    let begun = begin(connection, &first).await?;
    let known: Vec<Key> =
        runs.iter().filter_map(|run| run.first().map(|link| link.chain)).filter(|key| !begun.contains(key)).collect();
    let rows = lock(connection, &known).await?;
    let mut moves = vec![];
    for run in runs {
        let Some(chain) = run.first().map(|link| link.chain) else { continue };
        let Some(step) = walk(run, rows.get(&chain).copied(), reach, &mut advanced.standings) else { continue };
        advanced.moved.push(step.to);
        if !begun.contains(&chain) {
            moves.push(step);
        }
    }
    move_to(connection, &moves).await?;
    Ok(advanced)
}

/// Judges the links of one chain in their order, each behind those before it that were next. Pure.
fn walk(run: &[Link], row: Option<HeadRow>, reach: Reach, standings: &mut HashMap<Hash, Standing>) -> Option<Move> {
    let from = row.map_or(Head::GENESIS, |row| row.head);
    let (mut row, mut end) = (row, None);
    for link in run {
        let mut standing = judge(link, row);
        let ends = link.state == Some(State::Deleted) || row.is_some_and(|row| row.closed);
        if standing == Standing::Next && reach == Reach::NoEnding && ends {
            standing = Standing::Ahead(row.map_or(Head::GENESIS, |row| row.head));
        }
        if standing == Standing::Next {
            (row, end) = (Some(link.row), Some(*link));
        }
        // What comes twice has moved the head the first time.
        standings.entry(link.row.head.hash).or_insert(standing);
    }
    end.map(|to| Move { from, to })
}

/// Moves heads on over records that were stored before the one that they follow: of two spools the later one may be
/// replayed first. `ends` are locked by this transaction. Returns the records passed, and the new ends.
///
/// Where two records claim the place behind a head, it stays: which of them was shown, the status knows. It also stays before
/// an ending ([`Reach::NoEnding`]).
pub(super) async fn catch_up(connection: &mut PgConnection, ends: &[Link]) -> Result<Vec<Link>, Failure> {
    if ends.is_empty() {
        return Ok(vec![]);
    }
    let columns = Columns::of(ends);
    let rows = sqlx::query(
        "WITH RECURSIVE ahead AS (
             SELECT cluster_id, uid, sequence, hash, NULL::bytea AS prev, NULL::bigint AS epoch, NULL::text AS state,
                    NULL::timestamptz AS at
             FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bytea[]) AS r (cluster_id, uid, sequence, hash)
             UNION ALL
             SELECT a.cluster_id, a.uid, a.sequence + 1, n.hash, a.hash, n.epoch, n.state, n.at
             FROM ahead a CROSS JOIN LATERAL (
                 SELECT (array_agg(h.hash))[1] AS hash, (array_agg(h.epoch))[1] AS epoch,
                        (array_agg(h.to_state))[1]::text AS state, (array_agg(h.at))[1] AS at
                 FROM berth.container_status_history h
                 WHERE h.cluster_id = a.cluster_id AND h.uid = a.uid AND h.sequence = a.sequence + 1
                   AND h.prev = a.hash
                 HAVING count(*) = 1 AND bool_and(h.to_state IS DISTINCT FROM 'deleted')) n)
         SELECT * FROM ahead WHERE prev IS NOT NULL ORDER BY cluster_id, uid, sequence",
    )
    .bind(columns.clusters)
    .bind(columns.uids)
    .bind(columns.sequences)
    .bind(columns.hashes)
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    let passed: Vec<Link> = rows
        .iter()
        .map(|row| {
            let state: Option<String> = row.try_get("state")?;
            Ok(Link {
                chain: (row.try_get("cluster_id")?, row.try_get("uid")?),
                row: head_row(row)?,
                epoch: row.try_get::<i64, _>("epoch")?.cast_unsigned(),
                state: state.and_then(|state| state.parse().ok()),
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|error| Failure::new(DOING, error))?;
    let from: HashMap<Key, Head> = ends.iter().map(|end| (end.chain, end.row.head)).collect();
    let moves: Vec<Move> = passed
        .chunk_by(|a, b| a.chain == b.chain)
        .filter_map(|run| {
            let to = *run.last()?;
            Some(Move { from: from.get(&to.chain).copied()?, to })
        })
        .collect();
    move_to(connection, &moves).await?;
    Ok(passed)
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
    fn of(ends: impl IntoIterator<Item = &'a Link>) -> Self {
        let mut columns = Self::default();
        for Link { chain: (cluster, uid), row: HeadRow { head, prev, at, closed: _ }, epoch, state } in ends {
            columns.clusters.push(*cluster);
            columns.uids.push(*uid);
            columns.sequences.push(head.sequence.cast_signed());
            columns.epochs.push(epoch.cast_signed());
            columns.hashes.push(head.hash.as_bytes());
            columns.prevs.push(prev.as_bytes());
            columns.states.push(state.map(State::as_str));
            columns.times.push((*at).into());
        }
        columns
    }
}

async fn begin(connection: &mut PgConnection, ends: &[Link]) -> Result<HashSet<Key>, Failure> {
    if ends.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(ends);
    let begun: Vec<Key> = sqlx::query_as(
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

async fn lock(connection: &mut PgConnection, chains: &[Key]) -> Result<HashMap<Key, HeadRow>, Failure> {
    if chains.is_empty() {
        return Ok(HashMap::new());
    }
    let (clusters, uids): (Vec<Uuid>, Vec<Uuid>) = chains.iter().copied().unzip();
    let rows = sqlx::query(
        "SELECT cluster_id, uid, h.sequence, h.hash, h.prev, h.at, h.closed_epoch IS NOT NULL AS closed
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
            let closed = row.try_get("closed")?;
            Ok(((row.try_get("cluster_id")?, row.try_get("uid")?), HeadRow { closed, ..head_row(row)? }))
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|error| Failure::new(DOING, error))
}

fn head_row(row: &PgRow) -> Result<HeadRow, sqlx::Error> {
    Ok(HeadRow {
        head: Head {
            sequence: row.try_get::<i64, _>("sequence")?.cast_unsigned(),
            hash: Hash::from_bytes(row.try_get("hash")?),
        },
        prev: Hash::from_bytes(row.try_get("prev")?),
        at: row.try_get::<Timestamptz, _>("at")?.0,
        closed: false,
    })
}

async fn move_to(connection: &mut PgConnection, moves: &[Move]) -> Result<(), Failure> {
    if moves.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(moves.iter().map(|step| &step.to));
    let moved = sqlx::query(
        "UPDATE berth.ledger_heads h
         SET sequence = r.sequence, epoch = r.epoch, hash = r.hash, prev = r.prev, state = r.state, at = r.at,
             moved_at = now(), closed_epoch = NULL
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::text[],
                     $8::timestamptz[], $9::bigint[], $10::bytea[])
             AS r (cluster_id, uid, sequence, epoch, hash, prev, state, at, from_sequence, from_hash)
         WHERE h.cluster_id = r.cluster_id AND h.uid = r.uid AND h.hash = r.from_hash AND h.sequence = r.from_sequence",
    )
    .bind(columns.clusters)
    .bind(columns.uids)
    .bind(columns.sequences)
    .bind(columns.epochs)
    .bind(columns.hashes)
    .bind(columns.prevs)
    .bind(columns.states)
    .bind(columns.times)
    .bind(moves.iter().map(|step| step.from.sequence.cast_signed()).collect::<Vec<_>>())
    .bind(moves.iter().map(|step| step.from.hash.as_bytes().as_slice()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?
    .rows_affected();
    // The rows are locked since they were judged, so this only fails when something else is badly wrong.
    if moved == moves.len() as u64 {
        Ok(())
    } else {
        Err(Failure::All(LedgerError::Damaged {
            place: "berth.ledger_heads".to_owned(),
            why: format!("{moved} of {} locked heads moved", moves.len()),
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

    fn link(record: &Record) -> Link {
        Link::of(record)
    }

    fn row(record: &Record) -> HeadRow {
        link(record).row
    }

    #[test]
    fn a_record_is_judged_by_its_place_and_its_predecessor() {
        let one = record(Head::GENESIS, 1);
        let other = record(Head::GENESIS, 2);
        let two = record(one.head(), 3);
        let three = record(two.head(), 4);
        assert_eq!(judge(&link(&one), None), Standing::Next);
        assert_eq!(judge(&link(&two), None), Standing::Ahead(Head::GENESIS));
        assert_eq!(judge(&link(&two), Some(row(&one))), Standing::Next);
        assert_eq!(judge(&link(&one), Some(row(&one))), Standing::Last);
        assert_eq!(judge(&link(&other), Some(row(&one))), Standing::Sibling(row(&one)));
        assert_eq!(judge(&link(&one), Some(row(&two))), Standing::Behind(row(&two)));
        assert_eq!(judge(&link(&record(other.head(), 5)), Some(row(&two))), Standing::Behind(row(&two)));
        assert_eq!(judge(&link(&three), Some(row(&one))), Standing::Ahead(one.head()));
    }

    #[test]
    fn a_run_moves_the_head_as_far_as_its_records_follow_each_other() {
        let one = record(Head::GENESIS, 1);
        let (two, other) = (record(one.head(), 2), record(one.head(), 3));
        let (three, five) = (record(two.head(), 4), record(Head { sequence: 4, hash: one.hash() }, 5));
        let mut standings = HashMap::new();
        let step = walk(
            &[link(&one), link(&two), link(&one), link(&other), link(&three), link(&five)],
            None,
            Reach::All,
            &mut standings,
        )
        .unwrap();
        assert_eq!((step.from, step.to.row), (Head::GENESIS, row(&three)));
        let stood = [&one, &two, &other, &three, &five].map(|record| standings[&record.hash()]);
        let beside = Standing::Sibling(row(&two));
        assert_eq!(stood, [Standing::Next, Standing::Next, beside, Standing::Next, Standing::Ahead(three.head())]);
        assert!(walk(&[link(&one), link(&two)], Some(row(&two)), Reach::All, &mut HashMap::new()).is_none());
        assert!(
            walk(&[link(&three), link(&two)], None, Reach::All, &mut HashMap::new()).is_none(),
            "it does not begin at the beginning"
        );
    }

    #[test]
    fn what_comes_late_moves_no_head_onto_an_ending_or_off_one() {
        let one = record(Head::GENESIS, 1);
        let draft = Draft {
            kind: Kind::Transition,
            uid: Uuid::nil(),
            from: Some(State::Stopped),
            to: Some(State::Deleted),
            reason: "Test".to_owned(),
            actor: Actor::Unknown,
            generation: 1,
            operation: None,
            details: json!({}),
        };
        let end = draft.seal(Seal { cluster: Uuid::nil(), epoch: 1, at: Micros(2) }, one.head());
        let step = walk(&[link(&one), link(&end)], None, Reach::NoEnding, &mut HashMap::new()).unwrap();
        assert_eq!(step.to.row.head, one.head());
        let step = walk(&[link(&one), link(&end)], None, Reach::All, &mut HashMap::new()).unwrap();
        assert_eq!(step.to.row.head, end.head());
        let closed = HeadRow { closed: true, ..row(&end) };
        let after = record(end.head(), 3);
        assert!(walk(&[link(&after)], Some(closed), Reach::NoEnding, &mut HashMap::new()).is_none());
        assert!(walk(&[link(&after)], Some(closed), Reach::All, &mut HashMap::new()).is_some());
    }
}
