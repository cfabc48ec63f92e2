//! The ledger where a database is configured: database first, within a budget; else the spool, and afterwards the database.
//!
//! Owns: which of the two an entry goes to, the copies in the spool's tail, and that nobody waits for a database that is
//! away (rule 4). Must never: show anything, or decide what follows when chains differ (`protocol`).

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use tracing::warn;

use super::{
    entry::{Entry, Outcome, Target},
    error::LedgerError,
    postgres::{Standing, StoredSpool},
    protocol::{Certain, Mark},
    record::Record,
    remote::Remote,
    replay,
    shared::{Counters, Shared, Shelf},
    spool::{ShownMark, Spool},
};
use crate::broken::{self, Variant};

/// How long a commit may take before the same bytes go to the spool (design: the ledger's budget).
pub(super) const BUDGET: Duration = Duration::from_millis(300);
/// How long something that nothing waits for may take.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });
/// How long after a rewind every replica that works has noticed it: each looks every ten seconds.
const SETTLED: Duration = Duration::from_secs(30);

/// See the module's comment.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Where the spool itself fails, a record of a chain can still be carried by the status that shows it (rule 2).
pub(super) fn or_nowhere(is_chained: bool, kept: Result<Outcome, LedgerError>) -> Result<Outcome, LedgerError> {
    match kept {
        Err(error @ LedgerError::Spool { .. }) if is_chained => {
            warn!(reason = error.reason(), error = error.explain(), "only the status can carry a record");
            Ok(Outcome::Away(Certain::Nowhere))
        }
        Err(LedgerError::Connecting) if is_chained => Ok(Outcome::Away(Certain::Nowhere)),
        kept => kept,
    }
}

/// The same as another record, which only [`Variant::ReencodedOnRetry`] makes.
fn a_moment_later(entry: Entry) -> Entry {
    let Entry::Chained { record, snapshot } = &entry else { return entry };
    let (at, later) = (record.envelope().at.0, record.envelope().at.0 + 1);
    let bytes = record.bytes().replacen(&format!("\"at\":{at}"), &format!("\"at\":{later}"), 1);
    let record = Record::read(&bytes, record.details().map(ToOwned::to_owned));
    record.map_or_else(|_| entry.clone(), |record| Entry::Chained { record, snapshot: snapshot.clone() })
}

impl Beside {
    /// Needs no database that answers, and no spool that can be written: both are looked for in the background.
    pub(super) fn start(remote: Remote, dir: PathBuf, writer: String, budget: Duration) -> Self {
        let shared = Arc::new(Shared {
            remote,
            shelf: Shelf::default(),
            writer: writer.clone(),
            budget,
            counters: Counters::default(),
            news: watch::Sender::new(0),
            rewound: Mutex::default(),
        });
        let tasks = vec![
            tokio::spawn(Arc::clone(&shared).look_after_spool(dir, writer)),
            tokio::spawn(replay::run(Arc::clone(&shared))),
        ];
        Self { shared, tasks: Mutex::new(tasks) }
    }

    /// Keeps an entry where it can be kept in time.
    pub(super) async fn submit(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        let shared = &self.shared;
        if shared.remote.is_up() {
            let age = shared.shelf.age();
            match tokio::time::timeout(shared.budget, shared.remote.submit(entry.clone())).await {
                Ok(Ok(outcome)) => {
                    if matches!(outcome, Outcome::Durable(_)) {
                        shared.shelf.keep_later(age, vec![entry]);
                    }
                    return Ok(outcome);
                }
                Ok(Err(error)) if !error.is_about_the_database() => return Err(error),
                Ok(Err(_)) => {}
                Err(_) => shared.remote.missed(),
            }
            if broken::is(Variant::ReencodedOnRetry) {
                return self.set_aside(a_moment_later(entry)).await;
            }
        }
        self.set_aside(entry).await
    }

    /// Keeps an entry without the database.
    pub(super) async fn set_aside(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        let counters = &self.shared.counters;
        let is_chained = entry.is_chained();
        match or_nowhere(is_chained, self.shared.shelf.keep(entry).await)? {
            Outcome::Durable(_) => {
                counters.spooled.fetch_add(1, Ordering::Relaxed);
                Ok(Outcome::Away(Certain::Spool))
            }
            Outcome::Away(certain) => {
                counters.carried_alone.fetch_add(1, Ordering::Relaxed);
                Ok(Outcome::Away(certain))
            }
            // Another account of an operation's phase stands there.
            other => Ok(other),
        }
    }

    /// Runs a question to the database; none where it does not answer in time.
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<Option<T>, LedgerError> {
        if !self.shared.remote.is_up() {
            return Ok(None);
        }
        match tokio::time::timeout(self.shared.budget, question).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) if !error.is_about_the_database() => Err(error),
            // One question that came late says nothing of the others: whoever writes finds out.
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    /// Brings records into the database that a status or a tombstone carried, and keeps them in the own tail. False
    /// where the database did not take them.
    pub(super) async fn bring(&self, target: &Target, records: &[Record]) -> Result<bool, LedgerError> {
        let carried = |record: &Record| Entry::Carried { record: record.clone(), target: target.clone() };
        let entries: Vec<_> = records.iter().map(carried).collect();
        if !self.shared.remote.is_up() {
            return Ok(false);
        }
        let age = self.shared.shelf.age();
        match tokio::time::timeout(PATIENCE, self.shared.remote.import(entries.clone())).await {
            Ok(Ok(_)) => {
                self.shared.shelf.keep_later(age, entries);
                Ok(true)
            }
            Ok(Err(error)) if !error.is_about_the_database() => Err(error),
            Ok(Err(_)) => Ok(false),
            Err(_) => {
                self.shared.remote.missed();
                Ok(false)
            }
        }
    }

    /// Notes on the spool that an ending was shown, with copies of what the status carries (rules 5 and 6).
    pub(super) async fn note_shown(&self, mark: ShownMark, copies: Vec<Entry>) -> Mark {
        let noted = async {
            for copy in copies {
                self.shared.shelf.keep(copy).await?;
            }
            self.shared.shelf.note_mark(mark).await
        };
        match noted.await {
            Ok(()) => Mark::Noted,
            Err(error) => {
                warn!(reason = error.reason(), error = error.explain(), "an ending could not be noted on the spool");
                Mark::Impossible
            }
        }
    }

    /// Whether the database is there and has everything that this replica's spool holds.
    pub(super) fn is_current(&self) -> bool {
        let behind = |spool: Spool| {
            let progress = spool.progress();
            progress.last > progress.acknowledged
        };
        let shared = &self.shared;
        let answered = shared.rewound().answered == *shared.remote.rewinds().borrow();
        shared.remote.is_up() && answered && !shared.shelf.get().is_ok_and(behind)
    }

    /// Why the database takes nothing at the moment.
    pub(super) fn trouble(&self) -> Option<LedgerError> {
        match &*self.shared.remote.standing().borrow() {
            Standing::Up => None,
            Standing::Down(error) => Some(error.clone()),
            Standing::Connecting => Some(LedgerError::Connecting),
        }
    }

    /// Whether nobody is left who could have what the database lacks: every spool that it knows is replayed, or was
    /// declared gone (rule 6).
    pub(super) async fn spools_exhausted(&self) -> bool {
        let spools = match self.ask(self.shared.remote.spools()).await {
            Ok(Some(spools)) => spools,
            Ok(None) | Err(_) => return false,
        };
        let own = spools.iter().find(|spool| spool.writer == self.shared.writer);
        // What the own spool has is known once it is open, and if it is the one that the database knows.
        let opened = self.shared.shelf.get().is_ok_and(|spool| own.is_none_or(|own| own.last <= spool.progress().last));
        let mut others = spools.iter().filter(|spool| spool.writer != self.shared.writer && !spool.gone);
        // After a rewind, what the database says of a spool is as old as itself, until that spool's replica has told anew.
        let rewound = self.shared.rewound().at.map(|at| at.elapsed());
        let told_since = |spool: &StoredSpool| rewound.is_none_or(|since| since > SETTLED && spool.silent_for < since);
        // Who is silent may have died in an outage, of which the database knows nothing.
        let has_all = |spool: &StoredSpool| spool.acknowledged >= spool.last && spool.is_told_of();
        opened && self.is_current() && others.all(|spool| has_all(spool) && told_since(spool))
    }

    pub(super) async fn close(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        // Side by side: a database that does not answer must not keep the spool from being closed.
        let spool = async {
            if let Ok(spool) = self.shared.shelf.get()
                && let Err(error) = spool.close().await
            {
                tracing::error!(error = error.explain(), "the spool did not close; it is repaired at the next start");
            }
        };
        tokio::join!(self.shared.remote.close(), spool);
    }
}
