//! What the ledger beside a database consists of: the database, the spool once it could be opened, and what is known of both.
//!
//! Owns: those parts, and the spool's opening in the background. Must never: choose between the two (`beside` does).

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    entry::{Entry, Outcome},
    error::LedgerError,
    postgres::Standing,
    remote::Remote,
    replay::Pace,
    spool::{ShownMark, Spool},
};

/// How long the spool's disk may take for a sync before it counts as failed.
const DISK: Duration = Duration::from_secs(2);
/// How soon a spool that could not be opened is tried again.
const REOPEN: Duration = Duration::from_secs(3);

/// What the door and the tasks behind it share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) remote: Remote,
    pub(super) shelf: Shelf,
    pub(super) writer: String,
    pub(super) budget: Duration,
    pub(super) counters: Counters,
    /// Moves whenever the database has come to have everything that this replica's spool holds.
    pub(super) news: watch::Sender<u64>,
    /// How many of the database's rewinds the spool has been told of, and when the last one was seen.
    pub(super) rewound: Mutex<Rewound>,
}

/// What is known of rewinds of the database.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rewound {
    /// So many were answered with the tail.
    pub(super) answered: u64,
    /// When the last one was.
    pub(super) at: Option<Instant>,
}

/// What was done beside the ordinary, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Entries that the database did not take in time and the spool did.
    pub spooled: AtomicU64,
    /// Records that neither took: the status alone carries them.
    pub carried_alone: AtomicU64,
    /// Entries that replay has brought into the database.
    pub replayed: AtomicU64,
    /// Spools of other replicas that nobody tells of any more, and that nobody declared gone.
    pub out_of_reach: AtomicU64,
    /// How replay goes; none while there is none.
    pub pace: Mutex<Option<Pace>>,
}

impl Counters {
    /// See [`Self::pace`].
    pub fn pace(&self) -> Option<Pace> {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn goes(&self, pace: Option<Pace>) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }
}

impl Shared {
    pub(super) fn rewound(&self) -> MutexGuard<'_, Rewound> {
        self.rewound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the spool, again and again until it can be opened.
    pub(super) async fn look_after_spool(self: Arc<Self>, dir: PathBuf, writer: String) {
        loop {
            let (folder, name) = (dir.clone(), writer.clone());
            let opened = tokio::task::spawn_blocking(move || Spool::open_beside(&folder, &name)).await;
            match opened.unwrap_or(Err(LedgerError::Closed)) {
                Ok(spool) => {
                    let progress = spool.progress();
                    info!(
                        entries = progress.last.saturating_sub(progress.first.saturating_sub(1)),
                        to_replay = progress.last.saturating_sub(progress.acknowledged),
                        "the spool is open"
                    );
                    return self.shelf.put(Ok(spool));
                }
                Err(error) => {
                    warn!(reason = error.reason(), error = error.explain(), "the spool cannot be opened; trying again");
                    self.shelf.put(Err(error));
                }
            }
            tokio::time::sleep(REOPEN).await;
        }
    }

    /// Waits until the database is there.
    pub(super) async fn up(&self) {
        // The sender lives as long as the remote, which is here.
        drop(self.remote.standing().wait_for(|standing| matches!(standing, Standing::Up)).await);
    }
}

/// The spool, once it could be opened.
#[derive(Debug)]
pub(super) struct Shelf(watch::Sender<Result<Spool, LedgerError>>);

impl Default for Shelf {
    fn default() -> Self {
        Self(watch::Sender::new(Err(LedgerError::Connecting)))
    }
}

impl Shelf {
    fn put(&self, spool: Result<Spool, LedgerError>) {
        drop(self.0.send_replace(spool));
    }

    /// The spool, or why there is none.
    pub(super) fn get(&self) -> Result<Spool, LedgerError> {
        self.0.borrow().clone()
    }

    /// The spool, as soon as there is one.
    pub(super) async fn opened(&self) -> Option<Spool> {
        let mut receiver = self.0.subscribe();
        let opened = receiver.wait_for(Result::is_ok).await.ok()?;
        opened.as_ref().ok().cloned()
    }

    /// Waits until the first try to open it has ended, one way or the other.
    pub(super) async fn tried(&self) {
        drop(self.0.subscribe().wait_for(|spool| !matches!(spool, Err(LedgerError::Connecting))).await);
    }

    pub(super) async fn keep(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        let spool = self.get()?;
        in_time(spool.keep(entry)).await
    }

    /// See [`Spool::note_mark`].
    pub(super) async fn note_mark(&self, mark: ShownMark) -> Result<(), LedgerError> {
        let spool = self.get()?;
        in_time(spool.note_mark(mark)).await
    }

    /// Copies for the tail. Without a spool there is no tail: what is in the database is safe there.
    pub(super) fn keep_later(&self, age: u64, entries: Vec<Entry>) {
        if let Ok(spool) = self.get() {
            spool.keep_later_of(age, entries);
        }
    }

    /// See [`Spool::age`].
    pub(super) fn age(&self) -> u64 {
        self.get().map_or(0, |spool| spool.age())
    }
}

/// A disk that hangs is one that fails: what it was asked may still come to be, and is told elsewhere as well.
async fn in_time<T>(asked: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    match tokio::time::timeout(DISK, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(LedgerError::spool("the spool", io::Error::from(io::ErrorKind::TimedOut))),
    }
}
