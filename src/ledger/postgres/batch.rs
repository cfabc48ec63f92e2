//! One transaction: what waits, written together, or not at all (docs/decisions/0004).
//!
//! Owns: the order of the steps, which is the order of the locks. Must never: retry; decide what a refusal means.

use std::collections::{HashMap, HashSet};

use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::oneshot;

use super::{
    bounds::bounded,
    failure::Failure,
    heads::{self, Advanced, HeadRow, Link, Reach, Standing},
    history,
    operations::{self, Account, Operation, Taken},
    present, usage,
    writer::Answer,
    writers::{self, Mark},
};
use crate::{
    broken::{self, Variant},
    ledger::{
        entry::{Entry, Target, Usage},
        hash::Hash,
        record::{Head, Record},
        snapshot::Snapshot,
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
    /// Every record is kept, also beside the line: it was shown, or may have been. Heads are moved afterwards, by
    /// [`move_heads`], and snapshots after that.
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
}

/// What became of heads.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// The ends of the chains whose heads moved.
    pub(super) ends: Vec<Link>,
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
    bounded(DOING, async {
        let parts = Parts::of(items);
        let mut transaction = begin(pool).await?;
        let (standings, mut added) = match mode {
            Mode::Live => {
                let Advanced { standings, moved: _ } =
                    heads::advance(&mut transaction, &parts.links(), Reach::All).await?;
                let added = history::insert(&mut transaction, &parts.next(&standings)).await?;
                (standings, added)
            }
            Mode::Import => (HashMap::new(), history::insert(&mut transaction, &parts.once()).await?),
        };
        let taken = operations::insert(&mut transaction, &parts.operations).await?;
        let samples = usage::insert(&mut transaction, &parts.samples).await?;
        if mode == Mode::Live {
            present::upsert(&mut transaction, &counting(items, &passed(&standings))).await?;
        }
        added.extend_from_slice(&taken.added);
        let after = match mode {
            Mode::Live => marks.known.after(&added),
            Mode::Import => marks.known.beyond(&added),
        };
        finish(transaction, writer, marks, after).await?;
        let verdicts = items.iter().map(|item| verdict(&item.entry, &standings, &taken)).collect();
        Ok(Done { verdicts, added: added.len() as u64 + samples })
    })
    .await
}

/// Moves heads, in one transaction, over records that imports of this writer have stored; and on over what was stored
/// before those that they follow.
///
/// Those records are there for certain: the mark of this writer has moved with each of the imports' transactions, and is
/// compared in this one, so a database that was rewound since refuses it (docs/ledger.md, "What the model changed", 10).
pub(super) async fn move_heads(
    pool: &PgPool,
    writer: &str,
    marks: &mut Marks,
    links: &[Link],
) -> Result<Moved, Failure> {
    bounded(DOING, async {
        let mut transaction = begin(pool).await?;
        let Advanced { standings, moved: mut ends } = heads::advance(&mut transaction, links, Reach::NoEnding).await?;
        let mut passed = passed(&standings);
        for end in heads::catch_up(&mut transaction, &ends).await? {
            passed.insert(end.row.head.hash);
            ends.push(end);
        }
        let after = marks.known.beyond(&[]);
        finish(transaction, writer, marks, after).await?;
        Ok(Moved { ends, passed })
    })
    .await
}

async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, Failure> {
    pool.begin().await.map_err(|error| Failure::new(DOING, error))
}

/// Moves the mark and commits.
async fn finish(
    mut transaction: Transaction<'static, Postgres>,
    writer: &str,
    marks: &mut Marks,
    after: Mark,
) -> Result<(), Failure> {
    // From here on the answer may be lost. While it is in doubt, the row of the mark is locked by this transaction.
    marks.attempted = Some(after);
    writers::advance(&mut transaction, writer, marks.known, after).await?;
    if broken::is(Variant::AcknowledgedBeforeCommit) {
        tokio::spawn(transaction.commit());
    } else {
        transaction.commit().await.map_err(|error| Failure::new(DOING, error))?;
    }
    *marks = Marks { known: after, attempted: None };
    Ok(())
}

fn passed(standings: &HashMap<Hash, Standing>) -> HashSet<Hash> {
    let passed = standings.iter().filter(|(_, standing)| matches!(standing, Standing::Next | Standing::Last));
    passed.map(|(hash, _)| *hash).collect()
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

    fn links(&self) -> Vec<Link> {
        self.chained.iter().map(|(record, _)| Link::of(record)).collect()
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
