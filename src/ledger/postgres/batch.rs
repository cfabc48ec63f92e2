//! One transaction: what waits, written together, or not at all (docs/decisions/0004).
//!
//! Owns: the order of the steps, which is the order of the locks. Must never: retry; decide what a refusal means.

use std::collections::HashMap;

use sqlx::PgPool;

use super::{
    bounds::{CALL, timed_out},
    failure::Failure,
    heads::{self, HeadRow, Standing},
    history,
    operations::{self, Account, Operation, Taken},
    present,
    writers::{self, Mark},
};
use crate::ledger::{
    entry::{Entry, Snapshot, Target},
    hash::Hash,
    record::{Head, Record},
};

const DOING: &str = "committing a batch of records";

/// An entry on its way in.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) entry: Entry,
    /// The record is written without its snapshot, which is in the quarantine.
    pub(super) bare: bool,
}

/// What became of an entry, as far as the batch can tell.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It is there.
    Durable,
    /// Another record stands where it would.
    Sibling(HeadRow),
    /// The chain is beyond its place: the history knows more.
    Behind(HeadRow),
    /// The chain is not there yet.
    Ahead(Head),
    /// Another account of its operation's phase stands.
    Told(Account),
}

/// What this process knows of its mark in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// The mark after the last acknowledged batch.
    pub(super) known: Mark,
    /// The mark of a batch whose COMMIT may or may not have arrived.
    pub(super) attempted: Option<Mark>,
}

/// Writes the items in one transaction; each object occurs once among them.
pub(super) async fn commit(
    pool: &PgPool,
    writer: &str,
    marks: &mut Marks,
    items: &[Item],
) -> Result<Vec<Verdict>, Failure> {
    match tokio::time::timeout(CALL, transaction(pool, writer, marks, items)).await {
        Ok(done) => done,
        Err(_) => Err(timed_out(DOING).into()),
    }
}

async fn transaction(pool: &PgPool, writer: &str, marks: &mut Marks, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
    let parts = Parts::of(items);
    let mut transaction = pool.begin().await.map_err(|error| Failure::new(DOING, error))?;
    let standings = heads::advance(&mut transaction, &parts.records()).await?;
    let next: Vec<(&Record, &Target)> = parts
        .chained
        .iter()
        .filter(|(record, _)| standings.get(&record.hash()) == Some(&Standing::Next))
        .copied()
        .collect();
    history::insert(&mut transaction, &next).await?;
    let taken = operations::insert(&mut transaction, &parts.operations).await?;
    present::upsert(&mut transaction, &counting(items, &standings)).await?;
    let added: Vec<Hash> = next.iter().map(|(record, _)| record.hash()).chain(taken.added.iter().copied()).collect();
    let after = marks.known.after(&added);
    // From here on the answer may be lost. While it is in doubt, the row of the mark is locked by this transaction.
    marks.attempted = Some(after);
    writers::advance(&mut transaction, writer, marks.known, after).await?;
    transaction.commit().await.map_err(|error| Failure::new(DOING, error))?;
    *marks = Marks { known: after, attempted: None };
    Ok(items.iter().map(|item| verdict(&item.entry, &standings, &taken)).collect())
}

/// The entries by table, each sorted by its key.
struct Parts<'a> {
    chained: Vec<(&'a Record, &'a Target)>,
    operations: Vec<Operation<'a>>,
}

impl<'a> Parts<'a> {
    fn of(items: &'a [Item]) -> Self {
        let mut parts = Self { chained: vec![], operations: vec![] };
        for item in items {
            match &item.entry {
                Entry::Chained { record, snapshot } => parts.chained.push((record, &snapshot.target)),
                Entry::Operation { record, target, outcome } => {
                    parts.operations.push(Operation { record, target, outcome: *outcome });
                }
                // Carried records and samples come by `import` only.
                Entry::Present(_) | Entry::Carried { .. } | Entry::Usage(_) => {}
            }
        }
        parts.chained.sort_by_key(|(record, _)| (record.envelope().cluster, record.envelope().uid));
        // Stable: of two accounts of one phase, the one that was told first comes first.
        parts.operations.sort_by_key(|operation| operations::key(operation.record));
        parts
    }

    fn records(&self) -> Vec<&'a Record> {
        self.chained.iter().map(|(record, _)| *record).collect()
    }
}

/// The snapshots that count: those of records that stand, and those that come without one.
fn counting<'a>(items: &'a [Item], standings: &HashMap<Hash, Standing>) -> Vec<&'a Snapshot> {
    items
        .iter()
        .filter_map(|item| match &item.entry {
            Entry::Present(snapshot) => Some(&**snapshot),
            Entry::Chained { record, snapshot } => {
                let stands = matches!(standings.get(&record.hash()), Some(Standing::Next | Standing::Last));
                (stands && !item.bare).then_some(&**snapshot)
            }
            Entry::Operation { .. } | Entry::Carried { .. } | Entry::Usage(_) => None,
        })
        .collect()
}

fn verdict(entry: &Entry, standings: &HashMap<Hash, Standing>, taken: &Taken) -> Verdict {
    match entry {
        Entry::Present(_) | Entry::Carried { .. } | Entry::Usage(_) => Verdict::Durable,
        Entry::Chained { record, snapshot: _ } => match standings.get(&record.hash()) {
            Some(Standing::Sibling(head)) => Verdict::Sibling(*head),
            Some(Standing::Behind(head)) => Verdict::Behind(*head),
            Some(Standing::Ahead(head)) => Verdict::Ahead(*head),
            Some(Standing::Next | Standing::Last) | None => Verdict::Durable,
        },
        Entry::Operation { record, target: _, outcome: _ } => match taken.standing.get(&operations::key(record)) {
            Some(account) if account.hash != record.hash() => Verdict::Told(*account),
            Some(_) | None => Verdict::Durable,
        },
    }
}
