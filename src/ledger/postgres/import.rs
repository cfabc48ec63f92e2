//! What is brought after the fact: records of a spool, of a status, of a tombstone.
//!
//! Owns: what is still to be written of one import, and what comes of it. Must never: write; hold more than it was given.

use std::collections::{BTreeMap, HashMap, hash_map::Entry as Slot};

use tokio::sync::oneshot;

use super::{
    batch::{Done, Item, Moved},
    heads::{Key, Link},
    present::Followed,
    writer::BATCH,
};
use crate::ledger::{entry::Entry, error::LedgerError, hash::Hash, record::Record, snapshot::Snapshot};

/// What came of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Rows that were not there before: records, operations and samples.
    pub added: u64,
    /// Entries, snapshots of entries, and presents that would follow from records, that PostgreSQL refused; they are in the
    /// quarantine.
    pub quarantined: u64,
}

/// One import, on its way.
#[derive(Debug)]
pub(super) struct Import {
    rest: std::vec::IntoIter<Entry>,
    answer: oneshot::Sender<Result<Imported, LedgerError>>,
    /// How often the database had been rewound when the first batch was written.
    began: Option<u64>,
    /// What came of it so far.
    pub(super) imported: Imported,
    /// The records that are stored, and whose heads do not know yet.
    links: BTreeMap<Key, Vec<Link>>,
    /// The snapshots that came with records: each counts if a head passes its record.
    made_with: HashMap<Hash, Box<Snapshot>>,
    /// The latest snapshot of each object that counts: written once, after the heads.
    snapshots: HashMap<Key, Box<Snapshot>>,
    /// Where the heads stand that it moved.
    ends: HashMap<Key, Followed>,
}

/// What comes next of an import.
pub(super) enum Next {
    /// These entries.
    Entries(Vec<Item>),
    /// The heads over these records, sorted by chain: the entries are written.
    Heads(Vec<Link>),
    /// These snapshots: the heads are moved.
    Snapshots(Vec<Item>),
    /// The present of these objects follows their heads: the snapshots are written.
    Ends(Vec<Followed>),
    /// Nothing.
    Nothing,
}

impl Import {
    pub(super) fn new(entries: Vec<Entry>, answer: oneshot::Sender<Result<Imported, LedgerError>>) -> Self {
        Self {
            rest: entries.into_iter(),
            answer,
            began: None,
            imported: Imported::default(),
            links: BTreeMap::new(),
            made_with: HashMap::new(),
            snapshots: HashMap::new(),
            ends: HashMap::new(),
        }
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Whether the database, rewound so many times by now, may have lost batches of it: then it has to come again.
    pub(super) fn is_overtaken(&mut self, rewinds: u64) -> bool {
        *self.began.get_or_insert(rewinds) != rewinds
    }

    /// At most so many entries of what is left, in order; or a batch of what is to be done after them.
    pub(super) fn next(&mut self, most: usize) -> Next {
        let entries: Vec<Item> = self.rest.by_ref().take(most).map(item).collect();
        if !entries.is_empty() {
            return Next::Entries(entries);
        }
        let links: Vec<Link> =
            std::iter::from_fn(|| self.links.pop_first()).take(BATCH).flat_map(|(_, links)| links).collect();
        if !links.is_empty() {
            return Next::Heads(links);
        }
        let snapshots: Vec<Item> =
            take(&mut self.snapshots).into_iter().map(|snapshot| item(Entry::Present(snapshot))).collect();
        if !snapshots.is_empty() {
            return Next::Snapshots(snapshots);
        }
        let ends = take(&mut self.ends);
        if ends.is_empty() { Next::Nothing } else { Next::Ends(ends) }
    }

    /// Remembers what a committed batch leaves to be written at the end.
    pub(super) fn stored(&mut self, items: Vec<Item>, done: &Done) {
        self.imported.added += done.added;
        for Item { entry, bare, answer: _ } in items {
            match entry {
                Entry::Present(snapshot) => self.keep(snapshot),
                Entry::Chained { record, snapshot } => {
                    self.link(&record);
                    if !bare {
                        self.made_with.insert(record.hash(), snapshot);
                    }
                }
                Entry::Carried { record, target: _ } => self.link(&record),
                Entry::Operation { .. } | Entry::Usage(_) => {}
            }
        }
    }

    fn link(&mut self, record: &Record) {
        let link = Link::of(record);
        self.links.entry(link.chain).or_default().push(link);
    }

    /// Remembers where heads went.
    pub(super) fn moved(&mut self, moved: &Moved) {
        for end in &moved.ends {
            let (cluster, uid) = end.chain;
            let followed = Followed { cluster, uid, head: end.row.head, epoch: end.epoch, state: end.state };
            self.ends.insert(end.chain, followed);
        }
        for hash in &moved.passed {
            if let Some(snapshot) = self.made_with.remove(hash) {
                self.keep(snapshot);
            }
        }
    }

    fn keep(&mut self, snapshot: Box<Snapshot>) {
        match self.snapshots.entry((snapshot.target.cluster, snapshot.target.uid)) {
            Slot::Vacant(free) => drop(free.insert(snapshot)),
            Slot::Occupied(mut kept) => {
                // The later one replaces the earlier one, as in the table.
                if kept.get().age() <= snapshot.age() {
                    kept.insert(snapshot);
                }
            }
        }
    }

    pub(super) fn answer(self, with: Result<(), LedgerError>) {
        // Nobody waits any more: it is written all the same, and comes again without harm.
        let _ = self.answer.send(with.map(|()| self.imported));
    }
}

fn item(entry: Entry) -> Item {
    Item { entry, bare: false, answer: None }
}

/// At most a batch of the values.
fn take<T>(map: &mut HashMap<Key, T>) -> Vec<T> {
    let keys: Vec<Key> = map.keys().take(BATCH).copied().collect();
    keys.iter().filter_map(|key| map.remove(key)).collect()
}
