//! One transaction: what waits, written together, or not at all (docs/decisions/0004).
//!
//! Owns: the order of the steps, which is the order of the locks. Must never: retry; decide what a refusal means.

use std::collections::{HashMap, HashSet};

use sqlx::PgPool;
use tokio::sync::oneshot;

use super::{
    bounds::{CALL, timed_out},
    failure::Failure,
    heads::{self, Advanced, End, HeadRow, Reach, Standing},
    history,
    operations::{self, Account, Operation, Taken},
    present, usage,
    writer::Answer,
    writers::{self, Mark},
};
use crate::{
    broken::{self, Variant},
    ledger::{
        entry::{Entry, Snapshot, Target, Usage},
        hash::Hash,
        record::{Head, Record},
    },
};

const DOING: &str = "committing a batch of records";

/// An entry on its way in.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) entry: Entry,
    /// The record is written without its snapshot, which is in the quarantine.
    pub(super) bare: bool,
    /// Who waits for it; nobody, where it is imported with others.
    pub(super) answer: Option<oneshot::Sender<Answer>>,
}

/// Which rules hold for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A record is kept where it is the next of its chain; its snapshot is written with it.
    Live,
    /// Every record is kept, also beside the line: it was shown, or may have been. Snapshots are written afterwards.
    Import,
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

/// What a batch did.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// One for each item, in their order.
    pub(super) verdicts: Vec<Verdict>,
    /// Rows that were not there before: records, operations and samples.
    pub(super) added: u64,
    /// The ends of the chains whose heads moved.
    pub(super) moved: Vec<End>,
    /// The records at which heads stand, or over which they passed: their snapshots count.
    pub(super) passed: HashSet<Hash>,
}

/// What this process knows of its mark in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// The mark after the last acknowledged batch.
    pub(super) known: Mark,
    /// The mark of a batch whose COMMIT may or may not have arrived.
    pub(super) attempted: Option<Mark>,
}

/// Writes the items in one transaction. Of live ones, each object occurs once among them.
pub(super) async fn commit(
    pool: &PgPool,
    writer: &str,
    marks: &mut Marks,
    mode: Mode,
    items: &[Item],
) -> Result<Done, Failure> {
    match tokio::time::timeout(CALL, transaction(pool, writer, marks, mode, items)).await {
        Ok(done) => done,
        Err(_) => Err(timed_out(DOING).into()),
    }
}

async fn transaction(
    pool: &PgPool,
    writer: &str,
    marks: &mut Marks,
    mode: Mode,
    items: &[Item],
) -> Result<Done, Failure> {
    let parts = Parts::of(items);
    let mut transaction = pool.begin().await.map_err(|error| Failure::new(DOING, error))?;
    let reach = match mode {
        Mode::Live => Reach::All,
        Mode::Import => Reach::NoEnding,
    };
    let Advanced { standings, mut moved } = heads::advance(&mut transaction, &parts.records(), reach).await?;
    let mut passed: HashSet<Hash> = standings
        .iter()
        .filter(|(_, standing)| matches!(standing, Standing::Next | Standing::Last))
        .map(|(hash, _)| *hash)
        .collect();
    let mut added = match mode {
        Mode::Live => history::insert(&mut transaction, &parts.next(&standings)).await?,
        Mode::Import => {
            let added = history::insert(&mut transaction, &parts.once()).await?;
            for end in heads::catch_up(&mut transaction, &moved).await? {
                passed.insert(end.row.head.hash);
                moved.push(end);
            }
            added
        }
    };
    let taken = operations::insert(&mut transaction, &parts.operations).await?;
    let samples = usage::insert(&mut transaction, &parts.samples).await?;
    if mode == Mode::Live {
        present::upsert(&mut transaction, &counting(items, &passed)).await?;
    }
    added.extend_from_slice(&taken.added);
    let after = marks.known.after(&added);
    // From here on the answer may be lost. While it is in doubt, the row of the mark is locked by this transaction.
    marks.attempted = Some(after);
    writers::advance(&mut transaction, writer, marks.known, after).await?;
    if broken::is(Variant::AcknowledgedBeforeCommit) {
        tokio::spawn(transaction.commit());
    } else {
        transaction.commit().await.map_err(|error| Failure::new(DOING, error))?;
    }
    *marks = Marks { known: after, attempted: None };
    let verdicts = items.iter().map(|item| verdict(&item.entry, &standings, &taken)).collect();
    Ok(Done { verdicts, added: added.len() as u64 + samples, moved, passed })
}

/// The entries by table, each sorted by its key.
#[derive(Default)]
struct Parts<'a> {
    chained: Vec<(&'a Record, &'a Target)>,
    operations: Vec<Operation<'a>>,
    samples: Vec<&'a Usage>,
}

impl<'a> Parts<'a> {
    fn of(items: &'a [Item]) -> Self {
        let mut parts = Self::default();
        for item in items {
            match &item.entry {
                Entry::Chained { record, snapshot } => parts.chained.push((record, &snapshot.target)),
                Entry::Carried { record, target } => parts.chained.push((record, target)),
                Entry::Operation { record, target, outcome } => {
                    parts.operations.push(Operation { record, target, outcome: *outcome });
                }
                Entry::Usage(usage) => parts.samples.push(usage),
                Entry::Present(_) => {}
            }
        }
        // Stable: records of one chain stay in their order, and of two accounts of one phase the first comes first.
        parts.chained.sort_by_key(|(record, _)| heads::key(record));
        parts.operations.sort_by_key(|operation| operations::key(operation.record));
        parts
    }

    fn records(&self) -> Vec<&'a Record> {
        self.chained.iter().map(|(record, _)| *record).collect()
    }

    fn next(&self, standings: &HashMap<Hash, Standing>) -> Vec<(&'a Record, &'a Target)> {
        let next = |(record, _): &&(&Record, &Target)| standings.get(&record.hash()) == Some(&Standing::Next);
        self.chained.iter().filter(next).copied().collect()
    }

    /// Each record once, with its details where one of several copies has them.
    fn once(&self) -> Vec<(&'a Record, &'a Target)> {
        let mut places: HashMap<Hash, usize> = HashMap::with_capacity(self.chained.len());
        let mut once: Vec<(&Record, &Target)> = Vec::with_capacity(self.chained.len());
        for &(record, target) in &self.chained {
            match places.get(&record.hash()).and_then(|&place| once.get_mut(place)) {
                None => {
                    places.insert(record.hash(), once.len());
                    once.push((record, target));
                }
                Some(copy) if copy.0.details().is_none() => *copy = (record, target),
                Some(_) => {}
            }
        }
        once
    }
}

/// The snapshots that count: those of records that stand, and those that come without one.
fn counting<'a>(items: &'a [Item], passed: &HashSet<Hash>) -> Vec<&'a Snapshot> {
    items
        .iter()
        .filter_map(|item| match &item.entry {
            Entry::Present(snapshot) => Some(&**snapshot),
            Entry::Chained { record, snapshot } => {
                (passed.contains(&record.hash()) && !item.bare).then_some(&**snapshot)
            }
            Entry::Operation { .. } | Entry::Carried { .. } | Entry::Usage(_) => None,
        })
        .collect()
}

fn verdict(entry: &Entry, standings: &HashMap<Hash, Standing>, taken: &Taken) -> Verdict {
    match entry {
        Entry::Present(_) | Entry::Usage(_) => Verdict::Durable,
        Entry::Chained { record, .. } | Entry::Carried { record, .. } => match standings.get(&record.hash()) {
            Some(Standing::Sibling(head)) => Verdict::Sibling(*head),
            Some(Standing::Behind(head)) => Verdict::Behind(*head),
            Some(Standing::Ahead(head)) => Verdict::Ahead(*head),
            Some(Standing::Next | Standing::Last) | None => Verdict::Durable,
        },
        Entry::Operation { record, target: _, outcome: _ } => match taken.standing.get(&operations::key(record)) {
            Some(account) if account.hash != record.hash() && !broken::is(Variant::ConflictHidesAnotherHash) => {
                Verdict::Told(*account)
            }
            Some(_) | None => Verdict::Durable,
        },
    }
}
