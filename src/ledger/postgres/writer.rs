//! Group commit: everything that waits goes into one transaction, and each waiter gets its own answer.
//!
//! Owns: the queue, the task, what a refusal means (halving, quarantine), this process's memory of its mark.
//! Must never: hold more than the queue's bound; let one entry's refusal answer another's waiter.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sea_orm::DatabaseConnection;
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use super::{
    batch::{self, Item, Marks, Verdict},
    chain,
    failure::{Failure, Refusal},
    operations,
    partitions::{self as months, Month, Months},
    quarantine::{self, Refused},
    writers,
};
use crate::ledger::{
    entry::{Backend, Entry, Outcome},
    error::LedgerError,
    record::Micros,
};

/// The most entries in one transaction. Measured: beyond 1,000 rows a batch is not faster, only later.
const BATCH: usize = 1000;
/// The most entries that wait; a submitter beyond waits before the queue.
pub(super) const QUEUE: usize = 4096;

/// What one submitter waits for.
pub(super) type Answer = Result<Outcome, LedgerError>;

/// An entry with the one who waits for it.
pub(super) struct Work {
    pub(super) entry: Entry,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What the writer did so far, for metrics and tests.
#[derive(Debug, Default)]
pub struct Counters {
    /// Transactions tried.
    pub transactions: AtomicU64,
    /// Entries in those that were committed.
    pub committed: AtomicU64,
    /// Entries in the largest.
    pub largest: AtomicU64,
    /// Transactions that were halved because PostgreSQL refused a row.
    pub halved: AtomicU64,
    /// Entries, or snapshots of entries, that went into the quarantine.
    pub quarantined: AtomicU64,
}

/// The task's own state.
pub(super) struct Writer {
    pub(super) db: DatabaseConnection,
    pub(super) name: String,
    pub(super) months: Months,
    pub(super) marks: Marks,
    pub(super) counters: Arc<Counters>,
    pub(super) closing: Arc<Notify>,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        let mut waiting: VecDeque<Work> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                tokio::select! {
                    work = queue.recv() => match work {
                        Some(work) => waiting.push_back(work),
                        None => return,
                    },
                    () = self.closing.notified() => {
                        // Nothing more comes in; what waits is still written.
                        queue.close();
                        continue;
                    }
                }
            }
            while waiting.len() < BATCH {
                let Ok(work) = queue.try_recv() else { break };
                waiting.push_back(work);
            }
            let batch = take(&mut waiting);
            self.write(batch).await;
        }
    }

    fn pool(&self) -> &PgPool {
        self.db.get_postgres_connection_pool()
    }

    async fn write(&mut self, batch: Vec<Work>) {
        let batch = self.with_months(batch).await;
        let mut parts = vec![Part::of(batch)];
        let mut away: Option<LedgerError> = None;
        while let Some(part) = parts.pop() {
            if part.items.is_empty() {
                continue;
            }
            if let Some(error) = &away {
                part.answer_all(error);
                continue;
            }
            match self.commit(&part.items).await {
                Ok(verdicts) => {
                    self.counters.committed.fetch_add(part.items.len() as u64, Ordering::Relaxed);
                    self.answer(part, verdicts).await;
                }
                Err(Failure::Row(refusal) | Failure::NoPartition(refusal)) => {
                    self.counters.halved.fetch_add(1, Ordering::Relaxed);
                    match part.halve() {
                        Ok((first, second)) => parts.extend([second, first]),
                        Err(one) => parts.extend(self.refuse(one, refusal).await),
                    }
                }
                Err(Failure::Conflict(error) | Failure::All(error)) => {
                    tracing::warn!(error = error.explain(), entries = part.items.len(), "a batch was not committed");
                    part.answer_all(&error);
                    away = Some(error);
                }
            }
        }
    }

    /// Sees to it that every record has its month. One whose time is out of bounds is put away; one whose month cannot be
    /// made is told why, for it is not to blame; the rest goes on.
    async fn with_months(&mut self, batch: Vec<Work>) -> Vec<Work> {
        let mut kept = Vec::with_capacity(batch.len());
        let mut failed: HashMap<Month, LedgerError> = HashMap::new();
        let mut away: Option<LedgerError> = None;
        for work in batch {
            let Some(at) = time(&work.entry) else {
                kept.push(work);
                continue;
            };
            let month = match months::admit(at) {
                Ok(month) => month,
                Err(why) => {
                    let refusal = Refusal { sqlstate: String::new(), message: why };
                    let answer = self.put_away(Refused::from(&work.entry), &work.entry, &refusal).await;
                    let _ = work.answer.send(answer);
                    continue;
                }
            };
            if !self.months.has(month)
                && away.is_none()
                && !failed.contains_key(&month)
                && let Err(failure) = self.months.make(self.db.get_postgres_connection_pool(), month, month).await
            {
                let error = failure.into_error("making a month of the history");
                tracing::warn!(error = error.explain(), "a month of the ledger could not be made");
                match error {
                    LedgerError::Unavailable { .. } | LedgerError::TimedOut { .. } => away = Some(error),
                    error => drop(failed.insert(month, error)),
                }
            }
            match away.as_ref().filter(|_| !self.months.has(month)).or_else(|| failed.get(&month)) {
                None => kept.push(work),
                Some(error) => drop(work.answer.send(Err(error.clone()))),
            }
        }
        kept
    }

    /// One transaction, tried again where another one stood in its way or a month is gone.
    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
        self.settle().await?;
        self.counters.largest.fetch_max(items.len() as u64, Ordering::Relaxed);
        let mut tries = 0;
        loop {
            tries += 1;
            self.counters.transactions.fetch_add(1, Ordering::Relaxed);
            let done = batch::commit(self.db.get_postgres_connection_pool(), &self.name, &mut self.marks, items).await;
            match done {
                Err(Failure::Conflict(_)) if tries < 3 => self.settle().await?,
                Err(Failure::NoPartition(_)) if tries < 2 => {
                    self.months.forget();
                    for month in items.iter().filter_map(|item| months::admit(time(&item.entry)?).ok()) {
                        if !self.months.has(month) {
                            self.months.make(self.db.get_postgres_connection_pool(), month, month).await?;
                        }
                    }
                }
                Err(Failure::Row(_) | Failure::NoPartition(_)) => {
                    // PostgreSQL said no before the COMMIT was sent: nothing is in doubt.
                    self.marks.attempted = None;
                    return done;
                }
                _ => return done,
            }
        }
    }

    /// After a lost answer: did the last COMMIT arrive?
    async fn settle(&mut self) -> Result<(), Failure> {
        let Some(attempted) = self.marks.attempted else { return Ok(()) };
        let found = writers::read_settled(self.pool(), &self.name).await?;
        match found {
            Some(mark) if mark == attempted => self.marks.known = attempted,
            Some(mark) if mark == self.marks.known => {}
            // The seam for the repair from the tail: until then nothing more is written into a database that forgot.
            other => {
                let found = other.map_or(0, |mark| mark.acknowledged);
                return Err(writers::rewound(&self.name, self.marks.known, found).into());
            }
        }
        self.marks.attempted = None;
        Ok(())
    }

    async fn answer(&self, part: Part, verdicts: Vec<Verdict>) {
        for ((item, sender), verdict) in part.items.into_iter().zip(part.answers).zip(verdicts) {
            let answer = match (&item.entry, verdict) {
                (_, Verdict::Durable) => Ok(Outcome::Durable(Backend::Database)),
                (_, Verdict::Ahead(head)) => Ok(Outcome::Elsewhere { head, shown_is_ancestor: false }),
                (Entry::Chained { record, .. }, Verdict::Sibling(head)) => chain::adopt(&self.db, record, head).await,
                (Entry::Chained { record, .. }, Verdict::Behind(head)) => {
                    chain::look_back(&self.db, record, head).await
                }
                (_, Verdict::Told(account)) => operations::adopt(&self.db, account).await,
                (_, Verdict::Sibling(row) | Verdict::Behind(row)) => {
                    Ok(Outcome::Elsewhere { head: row.head, shown_is_ancestor: false })
                }
            };
            // Nobody waits any more: it is written all the same, and a retry finds it.
            let _ = sender.send(answer);
        }
    }

    /// A single entry that PostgreSQL refused. A record is tried once more without its snapshot: what the present looks
    /// like must not cost the chain its next link.
    async fn refuse(&self, mut one: Part, refusal: Refusal) -> Option<Part> {
        let item = one.items.first_mut()?;
        if let (Entry::Chained { snapshot, .. }, false) = (&item.entry, item.bare) {
            let kept = self.put_away(Refused::Present(snapshot), &item.entry, &refusal).await;
            if matches!(kept, Err(LedgerError::Quarantined { .. })) {
                item.bare = true;
                return Some(one);
            }
            one.answer_with(kept);
        } else {
            let answer = self.put_away(Refused::from(&item.entry), &item.entry, &refusal).await;
            one.answer_with(answer);
        }
        None
    }

    /// Into the quarantine; the answer for the one who waits.
    async fn put_away(&self, what: Refused<'_>, entry: &Entry, refusal: &Refusal) -> Answer {
        match quarantine::keep(self.pool(), &self.name, what, refusal).await {
            Ok(()) => {
                self.counters.quarantined.fetch_add(1, Ordering::Relaxed);
                Err(LedgerError::Quarantined { subject: subject(entry), message: refusal.message.clone() })
            }
            Err(failure) => Err(failure.into_error("quarantining an entry")),
        }
    }
}

/// Entries that share a transaction, with those who wait for them.
struct Part {
    items: Vec<Item>,
    answers: Vec<oneshot::Sender<Answer>>,
}

impl Part {
    fn of(batch: Vec<Work>) -> Self {
        let (items, answers) =
            batch.into_iter().map(|work| (Item { entry: work.entry, bare: false }, work.answer)).unzip();
        Self { items, answers }
    }

    /// Two halves, or itself where there is only one entry.
    fn halve(mut self) -> Result<(Self, Self), Self> {
        if self.items.len() < 2 {
            return Err(self);
        }
        let middle = self.items.len() / 2;
        let (items, answers) = (self.items.split_off(middle), self.answers.split_off(middle));
        Ok((self, Self { items, answers }))
    }

    fn answer_all(self, error: &LedgerError) {
        for answer in self.answers {
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// For a part of one.
    fn answer_with(self, with: Answer) {
        if let Some(answer) = self.answers.into_iter().next() {
            let _ = answer.send(with);
        }
    }
}

/// The next batch: in order, each object once; a second entry of one waits for the next.
fn take(waiting: &mut VecDeque<Work>) -> Vec<Work> {
    let mut objects = HashSet::new();
    let (mut batch, mut later) = (Vec::with_capacity(waiting.len()), VecDeque::new());
    for work in waiting.drain(..) {
        let free = batch.len() < BATCH && object(&work.entry).is_none_or(|key| objects.insert(key));
        if free {
            batch.push(work);
        } else {
            later.push_back(work);
        }
    }
    *waiting = later;
    batch
}

/// The object whose rows an entry writes; an operation writes its own only.
fn object(entry: &Entry) -> Option<(Uuid, Uuid)> {
    match entry {
        Entry::Chained { record, snapshot: _ } => Some((record.envelope().cluster, record.envelope().uid)),
        Entry::Present(snapshot) => Some((snapshot.target.cluster, snapshot.target.uid)),
        Entry::Carried { record, target: _ } => Some((record.envelope().cluster, record.envelope().uid)),
        Entry::Operation { .. } | Entry::Usage(_) => None,
    }
}

/// The uid that an entry is about, for people.
pub(super) fn subject(entry: &Entry) -> String {
    match entry {
        Entry::Chained { record, .. } | Entry::Operation { record, .. } | Entry::Carried { record, .. } => {
            record.envelope().uid.to_string()
        }
        Entry::Present(snapshot) => snapshot.target.uid.to_string(),
        Entry::Usage(usage) => usage.uid.to_string(),
    }
}

/// The time that decides in which month a record lies.
fn time(entry: &Entry) -> Option<Micros> {
    match entry {
        Entry::Chained { record, .. } | Entry::Operation { record, .. } | Entry::Carried { record, .. } => {
            Some(record.envelope().at)
        }
        Entry::Usage(usage) => Some(usage.at),
        Entry::Present(_) => None,
    }
}
