//! Group commit: everything that waits goes into one transaction, and each waiter gets its own answer.
//!
//! Owns: the queues, the task, what a refusal means (halving, quarantine), this process's memory of its mark, and the way
//! back once the database failed. Must never: hold more than the queues' bounds; let one entry's refusal answer another's
//! waiter; send what nobody waits for any more.

mod late;
mod marks;
mod pace;
mod refusals;

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use pace::Pace;

use super::{
    batch::{self, Done, Item, Marks, Mode, Verdict},
    breaker::{Backoff, Breaker, opened},
    chain,
    failure::Failure,
    import::Import,
    operations,
    partitions::{self as months, Months},
    probe,
    way::Way,
};
use crate::{
    broken::{self, Variant},
    ledger::{
        entry::{Backend, Entry, Outcome},
        error::LedgerError,
        record::Micros,
    },
};

/// The most entries in one transaction. Measured: beyond 1,000 rows a batch is not faster, only later.
pub(super) const BATCH: usize = 1000;
/// The most entries that wait; a submitter beyond waits before the queue.
pub(super) const QUEUE: usize = 4096;
/// The most imports that wait; each holds what its caller gave it.
pub(super) const IMPORTS: usize = 4;
/// How often the URL's file and the certificates are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a database that was too slow has to be well before it is asked again by whoever waits for an answer: one that
/// wakes for a moment now and then would cost all of them their budget every time.
const STEADY: Duration = Duration::from_millis(500);
/// How long a batch may still take once nobody waits for it: its COMMIT may be on its way.
const GRACE: Duration = Duration::from_secs(2);

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
    /// Entries, snapshots of entries, and presents that would follow from records, that went into the quarantine.
    pub quarantined: AtomicU64,
    /// How often the breaker opened.
    pub opened: AtomicU64,
    /// Probes that did not find the database well.
    pub probes_failed: AtomicU64,
    /// Rows that imports added.
    pub imported: AtomicU64,
    /// How often the database had lost what it had acknowledged.
    pub rewinds: AtomicU64,
}

/// The task's own state.
pub(super) struct Writer {
    way: Arc<Way>,
    breaker: Arc<Breaker>,
    name: String,
    months: Months,
    /// None until the database was reached for the first time.
    marks: Option<Marks>,
    counters: Arc<Counters>,
    rewinds: watch::Sender<u64>,
    closing: Arc<Notify>,
    backoff: Backoff,
    pace: Pace,
    looked: Instant,
}

/// Where entries come from.
pub(super) struct Queues {
    pub(super) live: mpsc::Receiver<Work>,
    pub(super) imports: mpsc::Receiver<Import>,
}

impl Queues {
    /// Nothing more comes in; what waits stays.
    fn close(&mut self) {
        self.live.close();
        self.imports.close();
    }
}

impl Writer {
    pub(super) fn new(
        way: Arc<Way>,
        breaker: Arc<Breaker>,
        name: &str,
        counters: Arc<Counters>,
        rewinds: watch::Sender<u64>,
        closing: Arc<Notify>,
    ) -> Self {
        Self {
            way,
            breaker,
            name: name.to_owned(),
            months: Months::default(),
            marks: None,
            counters,
            rewinds,
            closing,
            backoff: Backoff::default(),
            pace: Pace::default(),
            looked: Instant::now(),
        }
    }

    /// Finds the database well, makes months, registers, and compares what it knows of this writer.
    pub(super) async fn arrive(&mut self) -> Result<(), LedgerError> {
        if let Some(rotated) = self.way.rotated()? {
            tracing::info!("the ledger's database has another configuration now");
            self.way.turn(rotated);
        }
        probe::writable(&self.way.options()).await?;
        probe::schema(&self.way.writing()).await?;
        self.months =
            Months::ahead(&self.way.writing_pool()).await.map_err(|failure| failure.into_error("making months"))?;
        self.settle_anew().await.map_err(|failure| failure.into_error("registering this writer"))
    }

    /// Works until the queues are closed and empty.
    pub(super) async fn run(mut self, mut queues: Queues) {
        let mut waiting: VecDeque<Work> = VecDeque::new();
        let mut importing: Option<Import> = None;
        loop {
            if let Some(error) = self.breaker.error() {
                turn_away(&error, &mut waiting, &mut importing, &mut queues);
                if !self.come_back(&error, &mut queues).await {
                    return;
                }
                continue;
            }
            if waiting.is_empty() && importing.is_none() && !self.wait(&mut queues, &mut waiting, &mut importing).await
            {
                return;
            }
            while waiting.len() < BATCH {
                let Ok(work) = queues.live.try_recv() else { break };
                waiting.push_back(work);
            }
            if importing.is_none() {
                importing = queues.imports.try_recv().ok();
            }
            // In turns, a batch of each at most: neither what is new nor what is late waits for the end of the other.
            let live = take(&mut waiting);
            if !live.is_empty() {
                self.write_live(live).await;
            }
            if let Some(import) = importing.take() {
                importing = self.write_import(import).await;
            }
            if self.looked.elapsed() >= LOOK {
                self.look();
            }
        }
    }

    /// Waits for something to do. False once there never will be.
    async fn wait(
        &mut self,
        queues: &mut Queues,
        waiting: &mut VecDeque<Work>,
        importing: &mut Option<Import>,
    ) -> bool {
        let mut standing = self.breaker.watch();
        tokio::select! {
            work = queues.live.recv() => match work {
                Some(work) => waiting.push_back(work),
                None => {
                    *importing = queues.imports.recv().await;
                    return importing.is_some();
                }
            },
            Some(import) = queues.imports.recv() => *importing = Some(import),
            // What waits is still written.
            () = self.closing.notified() => queues.close(),
            _ = opened(&mut standing) => {}
            () = sleep_until(self.looked + LOOK) => self.look(),
        }
        true
    }

    /// One try to get the database back, after a pause. False once nobody wants it any more.
    async fn come_back(&mut self, error: &LedgerError, queues: &mut Queues) -> bool {
        let pause = if self.breaker.is_connecting() { Duration::ZERO } else { self.backoff.next() };
        tokio::select! {
            () = sleep(pause) => {}
            () = self.closing.notified() => {
                queues.close();
                turn_away(error, &mut VecDeque::new(), &mut None, queues);
                return false;
            }
            work = queues.live.recv() => match work {
                Some(work) => {
                    let _ = work.answer.send(Err(error.clone()));
                    return true;
                }
                None => return false,
            },
            Some(import) = queues.imports.recv() => {
                import.answer(Err(error.clone()));
                return true;
            }
        }
        self.way.renew();
        let mut found = self.arrive().await;
        if found.is_ok() && matches!(error, LedgerError::TimedOut { .. }) {
            sleep(STEADY).await;
            found = probe::writable(&self.way.options()).await;
        }
        match found {
            Ok(()) => self.breaker.close(),
            Err(error) => {
                self.counters.probes_failed.fetch_add(1, Ordering::Relaxed);
                self.breaker.open(&error);
            }
        }
        true
    }

    /// Looks whether the configuration was rotated. If it was, another way is tried aside, and taken if it leads there:
    /// until then the old one goes on.
    fn look(&mut self) {
        self.looked = Instant::now();
        match self.way.rotated() {
            Ok(None) => {}
            Ok(Some(rotated)) => {
                let way = Arc::clone(&self.way);
                tokio::spawn(async move {
                    match probe::writable(&rotated.options).await {
                        Ok(()) => {
                            tracing::info!("the ledger's database has another configuration now");
                            way.turn(rotated);
                        }
                        Err(error) => tracing::warn!(
                            error = error.explain(),
                            "the database's new configuration does not lead there; the old one is used on"
                        ),
                    }
                });
            }
            Err(error) => tracing::warn!(
                error = error.explain(),
                "the database's new configuration cannot be used; the old one is used on"
            ),
        }
    }

    /// Writes a batch; whoever waits gets an answer.
    async fn write_live(&mut self, batch: Vec<Item>) {
        let batch = self.with_months(Mode::Live, batch).await.items;
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            if let Some(error) = self.breaker.error() {
                answer_all(part, &error);
                continue;
            }
            match self.commit(Mode::Live, &part).await {
                Ok(done) => self.answer(part, done.verdicts).await,
                Err(Failure::Row(refusal) | Failure::NoPartition(refusal)) => {
                    self.counters.halved.fetch_add(1, Ordering::Relaxed);
                    match halve(&mut part) {
                        Some(second) => parts.extend([second, part]),
                        None => {
                            for one in part {
                                parts.extend(self.refuse(one, refusal.clone()).await.map(|one| vec![one]));
                            }
                        }
                    }
                }
                Err(Failure::Conflict(error) | Failure::All(error)) => {
                    tracing::warn!(error = error.explain(), entries = part.len(), "a batch was not committed");
                    answer_all(part, &error);
                }
            }
        }
    }

    /// One transaction, tried again where another one stood in its way, a month is gone, or the database was rewound.
    async fn commit(&mut self, mode: Mode, items: &[Item]) -> Result<Done, Failure> {
        let done = self.try_commit(mode, items).await;
        match &done {
            Ok(_) => {
                self.counters.committed.fetch_add(items.len() as u64, Ordering::Relaxed);
                // In time for those who waited: a commit that came after the breaker had opened proves the opposite.
                if mode == Mode::Live && self.breaker.is_up() {
                    self.backoff.reset();
                }
            }
            Err(Failure::All(error)) if error.is_about_the_database() => self.breaker.open(error),
            Err(_) => {}
        }
        done
    }

    async fn try_commit(&mut self, mode: Mode, items: &[Item]) -> Result<Done, Failure> {
        self.settle().await?;
        self.counters.largest.fetch_max(items.len() as u64, Ordering::Relaxed);
        let mut tries = 0;
        loop {
            tries += 1;
            self.counters.transactions.fetch_add(1, Ordering::Relaxed);
            match self.transaction(mode, items).await {
                Err(Failure::Conflict(_)) if tries < 3 => self.settle().await?,
                Err(Failure::All(LedgerError::Rewound { .. })) if tries < 2 => self.settle_anew().await?,
                Err(Failure::NoPartition(_)) if tries < 3 => {
                    self.months.forget();
                    for month in items.iter().filter_map(|item| months::admit(time(&item.entry)?).ok()) {
                        if !self.months.has(month) {
                            self.months.make(&self.way.writing_pool(), month, month).await?;
                        }
                    }
                }
                Err(failure @ (Failure::Row(_) | Failure::NoPartition(_))) => {
                    // PostgreSQL said no before the COMMIT was sent: nothing is in doubt.
                    if let Some(marks) = &mut self.marks {
                        marks.attempted = None;
                    }
                    return Err(failure);
                }
                done => return done,
            }
        }
    }

    async fn transaction(&mut self, mode: Mode, items: &[Item]) -> Result<Done, Failure> {
        let Some(marks) = &mut self.marks else {
            return Err(Failure::All(self.breaker.error().unwrap_or(LedgerError::Closed)));
        };
        let pool = self.way.writing_pool();
        let mut standing = self.breaker.watch();
        // Nobody waits for a live batch any more once the breaker is open; an import is waited for to its end, for on a
        // slow database it is all that gets on.
        let given_up = async {
            if mode == Mode::Import {
                std::future::pending::<()>().await;
            }
            let error = opened(&mut standing).await;
            sleep(GRACE).await;
            error
        };
        tokio::select! {
            done = batch::commit(&pool, &self.name, marks, mode, items) => done,
            error = given_up => Err(Failure::All(error)),
        }
    }

    async fn answer(&self, part: Vec<Item>, verdicts: Vec<Verdict>) {
        for (item, verdict) in part.into_iter().zip(verdicts) {
            let Some(waiter) = item.answer else { continue };
            let db = self.way.writing();
            let answer = match (&item.entry, verdict) {
                (_, Verdict::Durable) => Ok(Outcome::Durable(Backend::Database)),
                (_, Verdict::Ahead(head)) => Ok(Outcome::Elsewhere { head, shown_is_ancestor: false }),
                (Entry::Chained { record, .. } | Entry::Carried { record, .. }, Verdict::Sibling(head)) => {
                    chain::adopt(&db, record, head).await
                }
                (Entry::Chained { record, .. } | Entry::Carried { record, .. }, Verdict::Behind(head)) => {
                    chain::look_back(&db, record, head).await
                }
                (_, Verdict::Told(account)) => operations::adopt(&db, account).await,
                (_, Verdict::Sibling(row) | Verdict::Behind(row)) => {
                    Ok(Outcome::Elsewhere { head: row.head, shown_is_ancestor: false })
                }
            };
            // Nobody waits any more: it is written all the same, and a retry finds it.
            let _ = waiter.send(self.breaker.judge(answer));
        }
    }
}

/// Tells everybody who waits that the database is left alone for now, and why.
fn turn_away(error: &LedgerError, waiting: &mut VecDeque<Work>, importing: &mut Option<Import>, queues: &mut Queues) {
    for work in waiting.drain(..).chain(std::iter::from_fn(|| queues.live.try_recv().ok())) {
        let _ = work.answer.send(Err(error.clone()));
    }
    for import in importing.take().into_iter().chain(std::iter::from_fn(|| queues.imports.try_recv().ok())) {
        import.answer(Err(error.clone()));
    }
}

fn answer_all(items: Vec<Item>, error: &LedgerError) {
    for answer in items.into_iter().filter_map(|item| item.answer) {
        let _ = answer.send(Err(error.clone()));
    }
}

/// Takes the second half away; none of a single item.
fn halve<T>(part: &mut Vec<T>) -> Option<Vec<T>> {
    if broken::is(Variant::BadBatchThrownAway) {
        part.clear();
    }
    (part.len() > 1).then(|| part.split_off(part.len() / 2))
}

/// The next batch: in order, each object once; a second entry of one waits for the next. What nobody waits for is left out.
fn take(waiting: &mut VecDeque<Work>) -> Vec<Item> {
    if broken::is(Variant::WritesSwapped) && waiting.len() > 1 {
        waiting.swap(0, 1);
    }
    let mut objects = HashSet::new();
    let (mut batch, mut later) = (Vec::with_capacity(waiting.len()), VecDeque::new());
    // Who stopped waiting has put his entry elsewhere by now, and a spool will bring it.
    for work in waiting.drain(..).filter(|work| !work.answer.is_closed()) {
        let free = batch.len() < BATCH && object(&work.entry).is_none_or(|key| objects.insert(key));
        if free {
            batch.push(Item { entry: work.entry, bare: false, answer: Some(work.answer) });
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
