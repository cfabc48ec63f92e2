//! A database in memory, for tests of what is around it: it keeps what PostgreSQL would keep, and fails on command.
//!
//! Owns: the meaning of each call, as docs/ledger.md has it and `tests/ledger_database` proves of the real one. Must never:
//! be kinder than the real one: it compares before it sets, and takes nothing while it is away.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use uuid::Uuid;

use super::{
    compare::made_on,
    entry::{Backend, Entry, KnownHead, Outcome, Usage},
    error::LedgerError,
    hash::Hash,
    postgres::{Ending, Facts, FactsHead, Imported, Standing, StoredSpool, descent},
    protocol::{Descent, Line},
    record::{Head, Kind, Record},
    verify::{Report, Verifier},
    view::{ChainId, Stored, StoredHead},
};
use crate::{lifecycle::State, tally};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It answers.
    Fair,
    /// It refuses every connection.
    Away,
    /// It takes connections and says nothing.
    Silent,
}

type Chain = (Uuid, Uuid);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    head: Head,
    prev: Hash,
    epoch: u64,
    closed: Option<u64>,
}

/// Everything that a backup has.
#[derive(Clone, Debug, Default)]
struct Tables {
    records: BTreeMap<(Chain, u64, [u8; 32]), Record>,
    heads: HashMap<Chain, Row>,
    operations: HashMap<(Uuid, Option<Uuid>, Kind), Record>,
    usage: Vec<Usage>,
    /// By writer: volume, last entry, and up to which it is here.
    spools: BTreeMap<String, (Uuid, u64, u64)>,
}

#[derive(Debug)]
struct Kept {
    tables: Tables,
    weather: Weather,
    /// After so many more writes, the answers of so many are lost, after they were carried out.
    lost_answers: (u32, u32),
    /// After so many more calls, one does not arrive.
    lost_call: Option<u32>,
    backup: Option<Tables>,
    /// It was restored, and nobody has noticed yet.
    restored: bool,
    faults: usize,
}

impl Drop for Kept {
    fn drop(&mut self) {
        // The run is told of by the server beside it.
        tally::tell(0, self.faults, 0);
    }
}

/// See the module's comment. Clones are the same database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    writer: String,
    kept: Arc<Mutex<Kept>>,
    standing: Arc<watch::Sender<Standing>>,
    rewinds: Arc<watch::Sender<u64>>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            writer: "test".to_owned(),
            kept: Arc::new(Mutex::new(Kept {
                tables: Tables::default(),
                weather: Weather::Fair,
                lost_answers: (0, 0),
                lost_call: None,
                backup: None,
                restored: false,
                faults: 0,
            })),
            standing: Arc::new(watch::Sender::new(Standing::Up)),
            rewinds: Arc::new(watch::Sender::new(0)),
        }
    }
}

fn chain(record: &Record) -> Chain {
    (record.envelope().cluster, record.envelope().uid)
}

fn key(record: &Record) -> (Chain, u64, [u8; 32]) {
    (chain(record), record.envelope().seq, *record.hash().as_bytes())
}

/// What a test does with it.
impl Database {
    /// Changes the weather; where it clears up, that is noticed at once.
    pub(crate) fn set(&self, weather: Weather) {
        let mut kept = self.kept();
        kept.faults += usize::from(weather != Weather::Fair && weather != kept.weather);
        kept.weather = weather;
        drop(kept);
        match weather {
            Weather::Fair => drop(self.standing.send_replace(Standing::Up)),
            Weather::Away => self.down(),
            Weather::Silent => {}
        }
    }

    /// The answers to the next writes are lost.
    pub(crate) fn lose_answers(&self, writes: u32) {
        self.kept().lost_answers = (0, writes);
    }

    /// The answer to one write is lost, and those to so many before it arrive.
    pub(crate) fn lose_answer(&self, after: u32) {
        self.kept().lost_answers = (after, 1);
    }

    /// One call does not arrive, and so many before it do.
    pub(crate) fn lose_call(&self, after: u32) {
        self.kept().lost_call = Some(after);
    }

    /// Remembers all there is.
    pub(crate) fn back_up(&self) {
        let mut kept = self.kept();
        kept.backup = Some(kept.tables.clone());
    }

    /// Goes back to the backup.
    pub(crate) fn restore(&self) {
        let mut kept = self.kept();
        if let Some(backup) = kept.backup.take() {
            kept.tables = backup;
            kept.restored = true;
            kept.faults += 1;
        }
    }

    /// As after a rewind that is half repaired: the only chain there is ends at `sequence`, and lacks the record behind that.
    pub(crate) fn repair_by_halves(&self, sequence: u64) {
        let mut kept = self.kept();
        let tables = &mut kept.tables;
        tables.records.retain(|(_, of, _), _| *of != sequence + 1);
        let end = tables.records.values().find(|record| record.envelope().seq == sequence).cloned();
        end.into_iter().for_each(|end| tables.add(end));
    }

    /// What its records prove.
    pub(crate) fn verify(&self) -> Report {
        let mut verifier = Verifier::new(self.heads());
        for stored in self.chains() {
            verifier.take(stored);
        }
        verifier.finish()
    }

    fn chains(&self) -> Vec<Stored> {
        let kept = self.kept();
        let stored = |record: &Record| Stored {
            chain: ChainId { cluster: record.envelope().cluster, uid: record.envelope().uid },
            sequence: record.envelope().seq,
            bytes: record.bytes().to_owned(),
            hash: record.hash(),
            details: record.details().map(ToOwned::to_owned),
            place: "the simulated database".to_owned(),
        };
        kept.tables.records.values().map(stored).collect()
    }

    fn heads(&self) -> Vec<StoredHead> {
        let kept = self.kept();
        let row =
            |(&(cluster, uid), row): (&Chain, &Row)| StoredHead { chain: ChainId { cluster, uid }, head: row.head };
        kept.tables.heads.iter().map(row).collect()
    }

    /// How many records it has.
    pub(crate) fn count(&self) -> usize {
        self.kept().tables.records.len()
    }

    /// The records of one chain, by sequence.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.kept().tables.records.values().cloned().collect()
    }

    /// Where the only chain there is ends.
    pub(crate) fn head_of_the_only_chain(&self) -> Head {
        self.kept().tables.heads.values().next().map_or(Head::GENESIS, |row| row.head)
    }

    /// The hashes on the line of the only chain there is, from its beginning to its head.
    pub(crate) fn line(&self) -> Vec<String> {
        let kept = self.kept();
        let mut line = vec![];
        let mut at = kept.tables.heads.iter().next().map(|(&chain, row)| (chain, row.head));
        while let Some((chain, head)) = at {
            line.push(head.hash.to_string());
            at = kept
                .tables
                .get(chain, head)
                .filter(|record| record.envelope().seq > 1)
                .map(|record| (chain, Head { sequence: head.sequence - 1, hash: record.envelope().prev }));
        }
        line.reverse();
        line
    }

    /// How many entries its audit has.
    pub(crate) fn audit_entries(&self) -> u64 {
        self.kept().tables.operations.len() as u64
    }

    /// Which chains are closed, under which epoch.
    pub(crate) fn closed(&self, cluster: Uuid, uid: Uuid) -> Option<u64> {
        self.kept().tables.heads.get(&(cluster, uid))?.closed
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn down(&self) {
        self.standing.send_replace(Standing::Down(LedgerError::TimedOut { doing: "answering a test", seconds: 0 }));
    }

    /// Whether it takes a call; waits for ever where it is silent.
    async fn answers(&self) -> Result<(), LedgerError> {
        let (weather, lost) = {
            let mut kept = self.kept();
            let lost = kept.lost_call == Some(0);
            kept.lost_call = kept.lost_call.and_then(|after| after.checked_sub(1));
            kept.faults += usize::from(lost);
            (kept.weather, lost)
        };
        if lost {
            return Err(LedgerError::TimedOut { doing: "answering a test", seconds: 0 });
        }
        if let Standing::Down(error) = &*self.standing.borrow() {
            return Err(error.clone());
        }
        match weather {
            Weather::Fair => Ok(()),
            Weather::Away => {
                self.down();
                Err(LedgerError::TimedOut { doing: "answering a test", seconds: 0 })
            }
            // As long as a call may take, in the time of a test.
            Weather::Silent => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                if self.kept().weather != Weather::Fair {
                    self.down();
                }
                Err(LedgerError::TimedOut { doing: "answering a test", seconds: 0 })
            }
        }
    }

    /// A batch notices at once that the writer's mark is gone.
    fn notice(&self) {
        let mut kept = self.kept();
        if std::mem::take(&mut kept.restored) {
            self.rewinds.send_modify(|times| *times += 1);
        }
    }

    /// After a write was carried out.
    fn answer<T>(&self, answer: T) -> Result<T, LedgerError> {
        let mut kept = self.kept();
        let (after, writes) = &mut kept.lost_answers;
        if *after > 0 {
            *after -= 1;
        } else if *writes > 0 {
            *writes -= 1;
            kept.faults += 1;
            // The connection is gone, and the next one works: whoever waits for standing is told of both.
            return Err(LedgerError::TimedOut { doing: "answering a test", seconds: 0 });
        }
        Ok(answer)
    }
}

/// What the door asks of it.
impl Database {
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(super) fn rewinds(&self) -> watch::Receiver<u64> {
        self.rewinds.subscribe()
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Up)
    }

    pub(super) fn missed(&self) {
        if self.kept().weather != Weather::Fair {
            self.down();
        }
    }

    pub(super) async fn submit(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        self.answers().await?;
        self.notice();
        let outcome = self.kept().tables.submit(entry);
        self.answer(outcome)
    }

    pub(super) async fn import(&self, entries: Vec<Entry>) -> Result<Imported, LedgerError> {
        self.answers().await?;
        self.notice();
        let mut added = 0;
        {
            let mut kept = self.kept();
            for entry in entries {
                added += u64::from(kept.tables.import(entry));
            }
        }
        self.answer(Imported { added, quarantined: 0 })
    }

    pub(super) async fn facts(
        &self,
        cluster: Uuid,
        uid: Uuid,
        shown: Head,
        asked: &[Head],
    ) -> Result<Facts, LedgerError> {
        self.answers().await?;
        let kept = self.kept();
        let tables = &kept.tables;
        let chain = (cluster, uid);
        let head = tables.heads.get(&chain).map(|row| {
            let record = tables.get(chain, row.head).cloned();
            FactsHead {
                head: row.head,
                made_on: record.as_ref().and_then(made_on),
                terminal: record.as_ref().is_some_and(|record| record.envelope().to == Some(State::Deleted)),
                line: tables.line(chain, row.head, shown),
                closed_epoch: row.closed,
                record,
            }
        });
        let stored = asked.iter().copied().filter(|&head| tables.get(chain, head).is_some()).collect();
        Ok(Facts { head, stored, shown_stored: shown == Head::GENESIS || tables.get(chain, shown).is_some() })
    }

    pub(super) async fn head_follows(
        &self,
        cluster: Uuid,
        uid: Uuid,
        from: Option<Head>,
        to: Head,
    ) -> Result<bool, LedgerError> {
        self.answers().await?;
        let moved = self.kept().tables.put((cluster, uid), from, to, None);
        self.answer(moved)
    }

    pub(super) async fn put_head(
        &self,
        cluster: Uuid,
        uid: Uuid,
        from: Option<Head>,
        to: Head,
        closed_epoch: u64,
    ) -> Result<bool, LedgerError> {
        self.answers().await?;
        let moved = self.kept().tables.put((cluster, uid), from, to, Some(closed_epoch));
        self.answer(moved)
    }

    pub(super) async fn close_head(
        &self,
        cluster: Uuid,
        uid: Uuid,
        terminal: Head,
        epoch: u64,
    ) -> Result<bool, LedgerError> {
        self.answers().await?;
        let closed = match self.kept().tables.heads.get_mut(&(cluster, uid)) {
            Some(row) if row.head == terminal => {
                row.closed = Some(epoch);
                true
            }
            _ => false,
        };
        self.answer(closed)
    }

    pub(super) async fn ending(&self, cluster: Uuid, uid: Uuid, terminal: Head) -> Result<Ending, LedgerError> {
        self.answers().await?;
        let kept = self.kept();
        let (tables, chain) = (&kept.tables, (cluster, uid));
        let row = tables.heads.get(&chain).copied();
        let (descent, gap) = row.map_or((Descent::Apart, false), |row| {
            descent(tables.line(chain, row.head, terminal), tables.line(chain, terminal, row.head))
        });
        Ok(Ending {
            head: row.map(|row| row.head),
            closed_epoch: row.and_then(|row| row.closed),
            descent,
            gap,
            stored: tables.get(chain, terminal).is_some(),
        })
    }

    pub(super) async fn note_spool(&self, volume: Uuid, last: u64, acknowledged: u64) -> Result<bool, LedgerError> {
        self.answers().await?;
        let spools = &mut self.kept().tables.spools;
        let told = spools.insert(self.writer.clone(), (volume, last, acknowledged));
        let left = told.filter(|(of, was, _)| *of != volume || *was > last);
        spools.retain(|of, (known, was, _)| *of == self.writer || *known != volume || *was > last);
        left.map(|left| spools.insert(format!("{}/until-then", self.writer), left));
        Ok(left.is_some())
    }

    pub(super) async fn spools(&self) -> Result<Vec<StoredSpool>, LedgerError> {
        self.answers().await?;
        let kept = self.kept();
        let spool = |(writer, &(volume, last, acknowledged)): (&String, &(Uuid, u64, u64))| StoredSpool {
            writer: writer.clone(),
            volume: Some(volume),
            last,
            acknowledged,
            silent_for: Duration::ZERO,
            gone: false,
            read: false,
        };
        Ok(kept.tables.spools.iter().map(spool).collect())
    }

    pub(super) async fn head(&self, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
        self.answers().await?;
        let row = self.kept().tables.heads.get(&(cluster, uid)).copied();
        Ok(row.map(|row| KnownHead { head: row.head, epoch: row.epoch, state: None, prev: row.prev }))
    }

    pub(super) async fn largest_epoch(&self, cluster: Uuid) -> Result<u64, LedgerError> {
        self.answers().await?;
        let kept = self.kept();
        let epochs = kept.tables.heads.iter().filter(|((of, _), _)| *of == cluster).map(|(_, row)| row.epoch);
        Ok(epochs.max().unwrap_or(0))
    }

    pub(super) async fn close(&self) {}
}

impl Tables {
    fn get(&self, chain: Chain, head: Head) -> Option<&Record> {
        self.records.get(&(chain, head.sequence, *head.hash.as_bytes()))
    }

    fn line(&self, chain: Chain, from: Head, to: Head) -> Line {
        let mut at = from;
        while at.sequence > to.sequence {
            let Some(record) = self.get(chain, at) else { return Line::Gap };
            at = Head { sequence: at.sequence - 1, hash: record.envelope().prev };
        }
        if at == to { Line::PassesShown } else { Line::MissesShown }
    }

    fn submit(&mut self, entry: Entry) -> Outcome {
        let durable = Outcome::Durable(Backend::Database);
        match entry {
            Entry::Chained { record, .. } | Entry::Carried { record, .. } => self.submit_record(record),
            Entry::Operation { record, .. } => {
                let envelope = record.envelope();
                let phase = (envelope.cluster, envelope.operation, envelope.kind);
                match self.operations.get(&phase) {
                    Some(told) if told.hash() != record.hash() => Outcome::Adopt(Box::new(told.clone())),
                    _ => {
                        self.operations.insert(phase, record);
                        durable
                    }
                }
            }
            Entry::Present(_) => durable,
            Entry::Usage(usage) => {
                self.usage.push(usage);
                durable
            }
        }
    }

    fn submit_record(&mut self, record: Record) -> Outcome {
        let (chain, envelope) = (chain(&record), record.envelope());
        let head = self.heads.get(&chain).map_or(Head::GENESIS, |row| row.head);
        if head == record.head() {
            return Outcome::Durable(Backend::Database);
        }
        if record.follows(head) {
            self.add(record);
            return Outcome::Durable(Backend::Database);
        }
        let row = self.heads.get(&chain);
        match row.and_then(|row| self.get(chain, row.head)) {
            Some(end) if head.sequence == envelope.seq && end.envelope().prev == envelope.prev => {
                return Outcome::Adopt(Box::new(end.clone()));
            }
            _ => {}
        }
        if self.get(chain, record.head()).is_some() {
            return Outcome::Durable(Backend::Database);
        }
        let shown = Head { sequence: envelope.seq - 1, hash: envelope.prev };
        let shown_is_ancestor = head.sequence >= envelope.seq && self.line(chain, head, shown) == Line::PassesShown;
        Outcome::Elsewhere { head, shown_is_ancestor }
    }

    /// Stores a record and moves the head to it.
    fn add(&mut self, record: Record) {
        let row =
            Row { head: record.head(), prev: record.envelope().prev, epoch: record.envelope().epoch, closed: None };
        self.heads.insert(chain(&record), row);
        self.records.insert(key(&record), record);
    }

    fn import(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Chained { record, .. } | Entry::Carried { record, .. } => {
                let head = self.heads.get(&chain(&record)).map_or(Head::GENESIS, |row| row.head);
                let new = !self.records.contains_key(&key(&record));
                let ends = record.envelope().to == Some(State::Deleted)
                    || self.heads.get(&chain(&record)).is_some_and(|row| row.closed.is_some());
                if record.follows(head) && !ends {
                    let (known, chain) = (self.records.get(&key(&record)).cloned(), chain(&record));
                    self.add(known.unwrap_or(record));
                    self.go_on(chain);
                } else if new {
                    self.records.insert(key(&record), record);
                }
                new
            }
            Entry::Operation { ref record, .. } => {
                let envelope = record.envelope();
                let new = !self.operations.contains_key(&(envelope.cluster, envelope.operation, envelope.kind));
                self.submit(entry);
                new
            }
            Entry::Usage(usage) => {
                let new = !self.usage.contains(&usage);
                if new {
                    self.usage.push(usage);
                }
                new
            }
            Entry::Present(_) => false,
        }
    }

    fn put(&mut self, chain: Chain, from: Option<Head>, to: Head, closed: Option<u64>) -> bool {
        if self.heads.get(&chain).map(|row| row.head) != from {
            return false;
        }
        let Some(record) = self.get(chain, to).cloned() else { return false };
        self.add(record);
        match (self.heads.get_mut(&chain), closed) {
            (Some(row), Some(_)) => row.closed = closed,
            _ => self.go_on(chain),
        }
        true
    }

    /// A head that was moved late goes on over stored records that follow it, as long as no two claim a place, and not onto
    /// an ending.
    fn go_on(&mut self, chain: Chain) {
        while let Some(row) = self.heads.get(&chain).copied().filter(|row| row.closed.is_none()) {
            let place = (chain, row.head.sequence + 1, [0; 32])..(chain, row.head.sequence + 2, [0; 32]);
            let mut next =
                self.records.range(place).map(|(_, record)| record).filter(|record| record.follows(row.head));
            match (next.next().cloned(), next.next()) {
                (Some(only), None) if only.envelope().to != Some(State::Deleted) => self.add(only),
                _ => return,
            }
        }
    }
}

#[tokio::test]
async fn of_a_chain_without_a_head_row_it_says_what_postgresql_says() {
    let terminal = Head { sequence: 3, hash: Hash::from_bytes([7; 32]) };
    let none = Database::default().ending(Uuid::new_v4(), Uuid::new_v4(), terminal).await.unwrap();
    assert_eq!((none.head, none.stored, none.descent, none.gap), (None, false, Descent::Apart, false));
}
