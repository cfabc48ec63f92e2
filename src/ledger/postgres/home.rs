//! The home's own door: open or start, submit, import, ask, close.
//!
//! Owns: that no caller waits for a database that is known to be away, nor without end for one that is not.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use super::{
    bounds::{CALL, timed_out},
    breaker::{Breaker, Standing, opened},
    connect::Source,
    facts::{self, Ending, Facts},
    import::{Import, Imported},
    read, repair,
    spools::{self, StoredSpool},
    way::Way,
    writer::{Counters, IMPORTS, QUEUE, Queues, Work, Writer},
};
use crate::ledger::{
    entry::{Entry, KnownHead, Outcome},
    error::LedgerError,
    record::Head,
};

/// A ledger in PostgreSQL, with the task that writes into it.
pub struct Home {
    name: String,
    way: Arc<Way>,
    breaker: Arc<Breaker>,
    live: mpsc::Sender<Work>,
    imports: mpsc::Sender<Import>,
    rewinds: watch::Receiver<u64>,
    closing: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("way", &self.way).field("breaker", &self.breaker).finish_non_exhaustive()
    }
}

impl Home {
    /// Connects now, or says why not: refuses a server that takes no writes and a schema that is too old, makes months
    /// ahead, and makes the writer known.
    pub async fn open(source: &Source, writer: &str) -> Result<Self, LedgerError> {
        let (home, mut task, queues) = Self::prepare(source, writer)?;
        task.arrive().await?;
        home.breaker.close();
        Ok(home.run(task, queues))
    }

    /// Comes back at once, and does in the background what [`Self::open`] does: again and again, until the database is
    /// there. An error is only what no waiting will help: a URL that cannot be used, or that policy forbids.
    pub fn start(source: &Source, writer: &str) -> Result<Self, LedgerError> {
        let (home, task, queues) = Self::prepare(source, writer)?;
        Ok(home.run(task, queues))
    }

    fn run(self, writer: Writer, queues: Queues) -> Self {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(writer.run(queues)));
        self
    }

    fn prepare(source: &Source, name: &str) -> Result<(Self, Writer, Queues), LedgerError> {
        let way = Arc::new(Way::new(source, name)?);
        let counters = Arc::new(Counters::default());
        let breaker = Arc::new(Breaker::new(Standing::Connecting, Arc::clone(&counters)));
        let (live, live_queue) = mpsc::channel(QUEUE);
        let (imports, imports_queue) = mpsc::channel(IMPORTS);
        let (seen, rewinds) = watch::channel(0);
        let closing = Arc::new(Notify::new());
        let writer = Writer::new(
            Arc::clone(&way),
            Arc::clone(&breaker),
            name,
            Arc::clone(&counters),
            seen,
            Arc::clone(&closing),
        );
        let task = Mutex::new(None);
        let home = Self { name: name.to_owned(), way, breaker, live, imports, rewinds, closing, task, counters };
        Ok((home, writer, Queues { live: live_queue, imports: imports_queue }))
    }

    /// How the database stands; changes wake the receiver.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.breaker.watch()
    }

    /// Whether it takes entries.
    pub fn is_up(&self) -> bool {
        self.breaker.is_up()
    }

    /// An answer did not come within the caller's budget: the breaker opens, whoever waits is answered at once, and what
    /// is still in the queue is not sent any more.
    pub fn missed(&self) {
        if self.is_up() {
            self.breaker.open(&LedgerError::TimedOut { doing: "waiting for a batch", seconds: 0 });
        }
    }

    /// Durable when this returns, or told why not. An entry whose answer did not come in time may still be written.
    pub async fn submit(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        let (answer, waiter) = oneshot::channel();
        let answered = async {
            self.live.send(Work { entry, answer }).await.map_err(|_| LedgerError::Closed)?;
            // The task drops a waiter only when it ends.
            waiter.await.map_err(|_| LedgerError::Closed)?
        };
        // Twice the time of a call: one for the batch before, one for its own.
        let bounded = async {
            match tokio::time::timeout(2 * CALL, answered).await {
                Ok(answer) => answer,
                Err(_) => Err(timed_out("waiting for a batch")),
            }
        };
        self.while_up(bounded).await
    }

    /// Brings entries after the fact, in the order given, any number of one chain: insert-only, and as often as one likes.
    /// Every record is stored; the head moves over each that follows it, and otherwise stays where it is. What PostgreSQL
    /// refuses is put into the quarantine, and the rest goes on. After an error, part of it may be there: bring it again.
    pub async fn import(&self, entries: Vec<Entry>) -> Result<Imported, LedgerError> {
        if let Some(error) = self.breaker.error() {
            return Err(error);
        }
        let (answer, waiter) = oneshot::channel();
        self.imports.send(Import::new(entries, answer)).await.map_err(|_| LedgerError::Closed)?;
        // The task bounds each batch, and answers all imports once the breaker is open.
        waiter.await.map_err(|_| LedgerError::Closed)?
    }

    /// The end of one chain.
    pub async fn head(&self, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
        let db = self.way.asking();
        self.ask(read::head(&db, cluster, uid)).await
    }

    /// The largest epoch that wrote into a chain of this cluster; 0 where none did.
    pub async fn largest_epoch(&self, cluster: Uuid) -> Result<u64, LedgerError> {
        let db = self.way.asking();
        self.ask(read::largest_epoch(&db, cluster)).await
    }

    /// What the protocol needs to know of one object, as of one moment: the head, how it relates to the `shown` one, and
    /// which of the `asked` records are stored.
    pub async fn facts(&self, cluster: Uuid, uid: Uuid, shown: Head, asked: &[Head]) -> Result<Facts, LedgerError> {
        let db = self.way.asking();
        self.ask(facts::facts(&db, (cluster, uid), shown, asked)).await
    }

    /// How the head and a `terminal` record descend from each other, as of one moment.
    pub async fn ending(&self, cluster: Uuid, uid: Uuid, terminal: Head) -> Result<Ending, LedgerError> {
        let db = self.way.asking();
        self.ask(facts::ending(&db, (cluster, uid), terminal)).await
    }

    /// Moves the head to a stored record, and opens it, if it stands exactly at `from`. False: it does not, or the record
    /// is not stored.
    pub async fn head_follows(
        &self,
        cluster: Uuid,
        uid: Uuid,
        from: Option<Head>,
        to: Head,
    ) -> Result<bool, LedgerError> {
        self.put(cluster, uid, from, to, None).await
    }

    /// Closes the head under an epoch if it stands at `terminal`. False: it stands elsewhere.
    pub async fn close_head(&self, cluster: Uuid, uid: Uuid, terminal: Head, epoch: u64) -> Result<bool, LedgerError> {
        let pool = self.way.asking_pool();
        self.ask(repair::close(&pool, (cluster, uid), terminal, epoch)).await
    }

    /// [`Self::head_follows`] and [`Self::close_head`] in one transaction.
    pub async fn put_head(
        &self,
        cluster: Uuid,
        uid: Uuid,
        from: Option<Head>,
        to: Head,
        closed_epoch: u64,
    ) -> Result<bool, LedgerError> {
        self.put(cluster, uid, from, to, Some(closed_epoch)).await
    }

    async fn put(
        &self,
        cluster: Uuid,
        uid: Uuid,
        from: Option<Head>,
        to: Head,
        closed_epoch: Option<u64>,
    ) -> Result<bool, LedgerError> {
        let pool = self.way.asking_pool();
        let put = self.ask(repair::put(&pool, &self.name, (cluster, uid), from, to, closed_epoch)).await?;
        self.counters.quarantined.fetch_add(u64::from(put.refused), Ordering::Relaxed);
        Ok(put.moved)
    }

    /// Tells the others of this replica's spool: its last entry, and up to which the database has them.
    ///
    /// If another volume was told of before, or more entries, what is known of that one stays, under another name, until it is
    /// found again or declared gone. Whether it does.
    pub async fn note_spool(&self, volume: Uuid, last: u64, acknowledged: u64) -> Result<bool, LedgerError> {
        let pool = self.way.asking_pool();
        self.ask(spools::note(&pool, &self.name, volume, last, acknowledged)).await
    }

    /// Says of a spool that is read for its replica: the database has everything up to this number; is its volume `gone`?
    pub async fn settle_spool(&self, writer: &str, volume: Uuid, up_to: u64, gone: bool) -> Result<(), LedgerError> {
        let pool = self.way.asking_pool();
        self.ask(spools::settle(&pool, writer, volume, up_to, gone)).await
    }

    /// Every spool that was ever told of.
    pub async fn spools(&self) -> Result<Vec<StoredSpool>, LedgerError> {
        let db = self.way.asking();
        self.ask(spools::all(&db)).await
    }

    /// How often the database had lost what it had acknowledged to this writer. Each time, the spool's tail is to be
    /// brought again.
    pub fn rewinds(&self) -> watch::Receiver<u64> {
        self.rewinds.clone()
    }

    /// What the writer did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many entries wait for a batch, but for those that the writer has taken already.
    pub fn waiting(&self) -> usize {
        self.live.max_capacity() - self.live.capacity()
    }

    /// Takes nothing more, writes what waits, and lets go of the connections.
    pub async fn close(&self) {
        self.closing.notify_one();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the ledger's writer ended badly");
        }
        // A connection that is silent would say good-bye for ever.
        let _ = tokio::time::timeout(CALL, self.way.pools().close()).await;
    }

    /// A question to the database: not asked while it is away, given up once it is, and a failure of it is noticed.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        self.while_up(async { self.breaker.judge(question.await) }).await
    }

    async fn while_up<T>(&self, work: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        if let Some(error) = self.breaker.error() {
            return Err(error);
        }
        let mut standing = self.breaker.watch();
        tokio::select! {
            biased;
            done = work => done,
            error = opened(&mut standing) => Err(error),
        }
    }
}
