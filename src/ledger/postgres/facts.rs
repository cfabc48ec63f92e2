//! What the protocol has to know of one chain, as of one moment (docs/ledger.md, "The decisions").
//!
//! Owns: the walk along `prev`. Must never: write; decide.

use std::collections::{HashMap, HashSet};

use sea_orm::{
    AccessMode, ColumnTrait, Condition, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait,
    IsolationLevel, QueryFilter, QuerySelect, TransactionTrait,
};

use super::{
    bounds::within_orm,
    entity::{container_status_history as history, ledger_heads as heads},
    heads::Key,
    stored::{HeadsRow, HistoryRow},
};
use crate::{
    ledger::{
        compare::made_on,
        error::LedgerError,
        hash::Hash,
        protocol::{Descent, Line},
        record::{Head, Record},
    },
    lifecycle::State,
};

const DOING: &str = "reading what is known of a chain";

/// What the database knows of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The end of its chain; none where it has no row.
    pub head: Option<FactsHead>,
    /// Those of the records asked for, and of the shown one, that are stored.
    pub stored: Vec<Head>,
    /// Whether the shown one is. (Nothing shown is always there.)
    pub shown_stored: bool,
}

/// The end of a chain, as it relates to the shown head.
#[derive(Clone, Debug, PartialEq)]
pub struct FactsHead {
    /// The record; none where the head names one that is not stored.
    pub record: Option<Record>,
    /// The end.
    pub head: Head,
    /// The shown head that it was made on, or over; none for the first record of a chain.
    pub made_on: Option<Head>,
    /// Whether it ends its object.
    pub terminal: bool,
    /// What a walk back to the shown head's sequence finds.
    pub line: Line,
    /// The epoch under which the chain was closed; none while it is open.
    pub closed_epoch: Option<u64>,
}

/// How the end of a chain and a terminal record descend from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The end; none where it has no row.
    pub head: Option<Head>,
    /// The epoch under which the chain was closed; none while it is open.
    pub closed_epoch: Option<u64>,
    /// Whether the terminal record is stored.
    pub stored: bool,
    /// Which of them follows the other.
    pub descent: Descent,
    /// Whether a record on the way between them is missing: then it cannot be told whether they are apart.
    pub gap: bool,
}

/// Everything in one snapshot.
pub(super) async fn facts(
    db: &DatabaseConnection,
    chain: Key,
    shown: Head,
    asked: &[Head],
) -> Result<Facts, LedgerError> {
    let (row, links, record) = within_orm(DOING, async {
        let snapshot = snapshot(db).await?;
        let row = heads::Entity::find_by_id(chain).one(&snapshot).await?;
        let end = row.as_ref().map_or(0, |row| row.sequence.cast_unsigned());
        let places: Vec<u64> = asked.iter().chain([&shown]).map(|head| head.sequence).collect();
        let links = links(&snapshot, chain, shown.sequence, end, &places).await?;
        let record = match &row {
            Some(row) => {
                history::Entity::find()
                    .filter(history::Column::ClusterId.eq(chain.0))
                    .filter(history::Column::Uid.eq(chain.1))
                    .filter(history::Column::Sequence.eq(row.sequence))
                    .filter(history::Column::Hash.eq(row.hash.clone()))
                    .filter(history::Column::At.eq(row.at))
                    .one(&snapshot)
                    .await?
            }
            None => None,
        };
        snapshot.commit().await?;
        Ok((row, links, record))
    })
    .await?;
    let mut stored: Vec<Head> = vec![];
    for head in asked.iter().chain([&shown]) {
        if links.has(*head) && !stored.contains(head) {
            stored.push(*head);
        }
    }
    let head = match row.map(HeadsRow::try_from).transpose()? {
        None => None,
        Some(row) => {
            let record = record.map(HistoryRow::try_from).transpose()?.map(|row| row.record);
            let before = Head { sequence: row.known.head.sequence.saturating_sub(1), hash: row.known.prev };
            Some(FactsHead {
                head: row.known.head,
                made_on: record.as_ref().map_or(Some(before).filter(|head| *head != Head::GENESIS), made_on),
                terminal: row.known.state == Some(State::Deleted),
                line: links.line(row.known.head, shown),
                closed_epoch: row.closed_epoch,
                record,
            })
        }
    };
    Ok(Facts { head, shown_stored: shown == Head::GENESIS || links.has(shown), stored })
}

/// The head and a terminal record, in one snapshot.
pub(super) async fn ending(db: &DatabaseConnection, chain: Key, terminal: Head) -> Result<Ending, LedgerError> {
    let (row, links) = within_orm(DOING, async {
        let snapshot = snapshot(db).await?;
        let row = heads::Entity::find_by_id(chain).one(&snapshot).await?;
        let end = row.as_ref().map_or(terminal.sequence, |row| row.sequence.cast_unsigned());
        let (low, high) = (end.min(terminal.sequence), end.max(terminal.sequence));
        let links = links(&snapshot, chain, low, high, &[terminal.sequence]).await?;
        snapshot.commit().await?;
        Ok((row, links))
    })
    .await?;
    let row = row.map(HeadsRow::try_from).transpose()?;
    let head = row.map(|row| row.known.head);
    let (descent, gap) =
        head.map_or((Descent::Apart, false), |head| descent(links.line(head, terminal), links.line(terminal, head)));
    Ok(Ending { head, closed_epoch: row.and_then(|row| row.closed_epoch), stored: links.has(terminal), descent, gap })
}

/// What two walks say of a head and a terminal record, from the head `back` to the record and from the record back to the head;
/// and whether a gap may hide that one follows the other.
pub(in crate::ledger) fn descent(back: Line, on: Line) -> (Descent, bool) {
    match (back, on) {
        (Line::PassesShown, _) => (Descent::HeadFollows, false),
        (_, Line::PassesShown) => (Descent::HeadPrecedes, false),
        _ => (Descent::Apart, back == Line::Gap || on == Line::Gap),
    }
}

async fn snapshot(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    db.begin_with_config(Some(IsolationLevel::RepeatableRead), Some(AccessMode::ReadOnly)).await
}

/// The stored records of one stretch of a chain, and of some places, with what each was made on.
struct Links(HashMap<Head, Hash>);

/// Reads the records behind `low` up to `high`, and those at `places`.
async fn links(
    db: &impl ConnectionTrait,
    (cluster, uid): Key,
    low: u64,
    high: u64,
    places: &[u64],
) -> Result<Links, DbErr> {
    let sequences: HashSet<i64> = places.iter().map(|place| place.cast_signed()).collect();
    let stretch = Condition::all()
        .add(history::Column::Sequence.gt(low.cast_signed()))
        .add(history::Column::Sequence.lte(high.cast_signed()));
    let stretch = Condition::any().add(stretch).add(history::Column::Sequence.is_in(sequences));
    let rows: Vec<(i64, Vec<u8>, Vec<u8>)> = history::Entity::find()
        .select_only()
        .columns([history::Column::Sequence, history::Column::Hash, history::Column::Prev])
        .filter(history::Column::ClusterId.eq(cluster))
        .filter(history::Column::Uid.eq(uid))
        .filter(stretch)
        .into_tuple()
        .all(db)
        .await?;
    let hash = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map(Hash::from_bytes).unwrap_or(Hash::GENESIS);
    // The columns hold 32 bytes each (a check in the schema sees to it).
    Ok(Links(
        rows.into_iter()
            .map(|(sequence, own, prev)| (Head { sequence: sequence.cast_unsigned(), hash: hash(own) }, hash(prev)))
            .collect(),
    ))
}

impl Links {
    fn has(&self, head: Head) -> bool {
        self.0.contains_key(&head)
    }

    /// Walks back from `from` along `prev`, to the sequence of `to`.
    fn line(&self, from: Head, to: Head) -> Line {
        let mut at = from;
        // Each step goes one sequence back, so this ends whatever the rows say.
        while at.sequence > to.sequence {
            match self.0.get(&at) {
                Some(prev) => at = Head { sequence: at.sequence - 1, hash: *prev },
                None => return Line::Gap,
            }
        }
        if at == to { Line::PassesShown } else { Line::MissesShown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sequence: u64, name: &str) -> Head {
        Head { sequence, hash: Hash::of(name.as_bytes()) }
    }

    #[test]
    fn a_walk_passes_misses_or_meets_a_gap() {
        let links = Links(HashMap::from([
            (head(1, "a"), Hash::GENESIS),
            (head(2, "b"), head(1, "a").hash),
            (head(3, "c"), head(2, "b").hash),
            (head(5, "e"), head(4, "d").hash),
        ]));
        assert_eq!(links.line(head(3, "c"), head(1, "a")), Line::PassesShown);
        assert_eq!(links.line(head(3, "c"), head(1, "x")), Line::MissesShown);
        assert_eq!(links.line(head(3, "c"), head(3, "x")), Line::MissesShown);
        assert_eq!(links.line(head(3, "c"), Head::GENESIS), Line::PassesShown);
        assert_eq!(links.line(head(5, "e"), head(3, "c")), Line::Gap);
        assert_eq!(links.line(head(2, "b"), head(3, "c")), Line::MissesShown, "it is behind");
    }
}
