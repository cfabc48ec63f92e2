//! The spool: the ledger on this replica's own disk. Its home where no database is configured; else it stands
//! beside the database, as the journal of outages and the tail of what the database has.
//!
//! Owns: an append-only journal of entries, the heads that follow from it, and one readable state file for each
//! container (docs/ledger.md, "The spool"). Must never: show or acknowledge what is not synced; share its folder
//! with another process; panic on any bytes that it finds.
//!
//! The files of this folder, in the order of a write: [`written`] makes the payload, [`index`] decides whether
//! the chain takes it, [`writer`] appends it in one of [`frame`]'s frames and syncs through [`disk`], [`state`]
//! then writes the readable file under the name that [`names`] gives it. [`open`] puts in order what a crash
//! left, [`recover`] what a failing disk left, by the same [`scan`] that [`read`] reads with.
//!
//! Beside a database: [`beside`] is what the door asks, [`later`] the tail that waits, [`replay`] what the database
//! gets, [`found`] the damage on the way, [`progress`] what it has. [`upkeep`] trims and thins, as [`shelf`] decides, within the [`limits`].

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLockReadGuard, atomic::Ordering},
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use self::{
    disk::{Disk, Os, Syncs},
    found::Known,
    index::{Index, Terms},
    replay::Cursor,
    shared::Shared,
    state::StateFiles,
    writer::{Answer, Job, Submit, Writer},
    written::{Kept, Written},
};
use super::{
    entry::{Backend, Entry, KnownHead, Outcome},
    error::LedgerError,
    record::Head,
};

mod beside;
mod compare;
mod disk;
mod found;
mod frame;
mod index;
mod later;
mod limits;
mod names;
mod open;
mod progress;
pub mod read;
mod recover;
mod replay;
mod scan;
mod shared;
mod shelf;
mod state;
#[cfg(test)]
mod tests;
mod thin;
mod upkeep;
mod volume;
mod writer;
mod written;

pub use limits::Limits;
pub use progress::Progress;
pub use replay::Stretch;
pub use scan::{Damage, DamageKind};
pub use written::ShownMark;

/// How many entries may wait for the writer; whoever comes then waits to be let in.
const QUEUE: usize = 1024;

/// A handle to the spool; clones share it.
///
/// When the last one is dropped, what was asked is finished and the spool is let go, but nobody is told when:
/// [`Self::close`] waits for it.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    volume: Uuid,
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    states: Arc<StateFiles>,
    syncs: Arc<Syncs>,
    damages: Known,
    cursor: Mutex<Option<Cursor>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How the spool is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Why nothing is acknowledged; none while all is well. It is tried again with what comes next.
    pub poisoned: Option<LedgerError>,
    /// What was not as it was written, when the spool was opened or when it was read for replay; each place once.
    pub damages: Vec<Damage>,
    /// Objects known.
    pub objects: usize,
    /// State files that are behind the journal.
    pub state_files_behind: usize,
    /// Syncs of the journal since the spool was opened, one for each group of entries.
    pub journal_syncs: u64,
    /// All other syncs: new segments, state files, directories.
    pub other_syncs: u64,
    /// Size of the journal.
    pub bytes: u64,
    /// Entries that the database is not known to have.
    pub unacknowledged: u64,
    /// Entries that the database has, and the tail did not take: too many at once, or the disk failed.
    pub tail_dropped: u64,
    /// Samples of usage that were taken out of a journal that is too long.
    pub usage_thinned: u64,
    /// Samples of usage that it did not take.
    pub usage_refused: u64,
    /// How often a write or sync of the journal failed.
    pub poisonings: u64,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

impl Spool {
    /// As [`Self::open_with`], with the usual limits, or those that fit the volume.
    pub fn open(dir: &Path, writer: &str) -> Result<Self, LedgerError> {
        Self::open_with(dir, writer, Limits::default())
    }

    /// Opens the spool in the folder `dir` (made if its parent exists) for the replica `writer`.
    ///
    /// Reads the whole journal, so it blocks: call it before the work starts. Refuses a folder that another
    /// process has open.
    pub fn open_with(dir: &Path, writer: &str, limits: Limits) -> Result<Self, LedgerError> {
        let syncs = Arc::new(Syncs::default());
        Self::open_on(Arc::new(Os::new(Arc::clone(&syncs))), syncs, dir, writer, limits)
    }

    /// As [`Self::open`], beside a database: a full volume lets go of what that has, the oldest first, where it has no room
    /// for the segment that is written anew at each start.
    pub fn open_beside(dir: &Path, writer: &str) -> Result<Self, LedgerError> {
        loop {
            match Self::open(dir, writer) {
                Err(error) if error.wants_room() && open::make_room(&Os::default(), dir, writer)? => {}
                opened => return opened,
            }
        }
    }

    /// The id of the volume that it stands on.
    pub fn volume(&self) -> Uuid {
        self.inner.volume
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        syncs: Arc<Syncs>,
        dir: &Path,
        writer: &str,
        limits: Limits,
    ) -> Result<Self, LedgerError> {
        let opened = open::open(&*disk, dir, writer, limits.segment_bytes)?;
        let limits = disk.volume(dir).map_or(limits, |bytes| limits.within(bytes));
        let shared = Arc::new(Shared::new(opened.index, watch::Sender::new(opened.progress), opened.said));
        let states = Arc::new(StateFiles::new(dir, Arc::clone(&disk), Arc::clone(&shared.index)));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| LedgerError::spool(dir, error))?;
        let state_thread = {
            let states = Arc::clone(&states);
            spawn(dir, "berth-state", move || states.run())?
        };
        let writer = Writer {
            dir: dir.to_owned(),
            name: writer.to_owned(),
            limits,
            disk,
            active: opened.active,
            shelf: opened.shelf,
            shared: Arc::clone(&shared),
            states: Arc::clone(&states),
            state_thread,
            lock: opened.lock,
            unsynced: vec![],
            unsynced_since: None,
            written: opened.said.map(|said| said.min(opened.progress.acknowledged)),
            wrote_at: None,
            upkeep_failed_at: None,
            recovered_at: None,
            wants_room: false,
        };
        writer.count_bytes();
        let thread = Mutex::new(Some(spawn(dir, "berth-spool", move || writer.run(queue, &runtime))?));
        let damages = Known::new(opened.damages);
        let cursor = Mutex::default();
        let volume = opened.volume;
        let inner = Inner { dir: dir.to_owned(), volume, jobs, shared, states, syncs, damages, cursor, thread };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes an entry durable, if its chain is where the entry was made. Many callers share one sync.
    ///
    /// The same entry may be sent again, however often. A caller that stops waiting must send it again to know.
    pub async fn submit(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        consistent(&entry)?;
        let chain = chain_of(&entry);
        match self.ask(Kept::Entry(entry), chain, Terms::Home).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            Answer::Elsewhere { head, shown, record } => self.look_back(chain, head, shown, record).await,
        }
    }

    async fn ask(&self, kept: Kept, (_, uid): (Uuid, Uuid), terms: Terms) -> Result<Answer, LedgerError> {
        let payload = payload_of(&kept, uid)?;
        let (reply, answer) = oneshot::channel();
        let submit = Submit { kept, payload, terms, reply };
        self.inner.jobs.send(Job::Submit(Box::new(submit))).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// The chain ends elsewhere: with the record in it (then it is durable), or beside it. Looked up in the
    /// journal itself: it is asked once after a restore, and remembering every hash for it would cost memory
    /// every day.
    async fn look_back(
        &self,
        chain: (Uuid, Uuid),
        head: Head,
        shown: Head,
        record: Head,
    ) -> Result<Outcome, LedgerError> {
        if record.sequence > head.sequence {
            // Made on something at or beyond the end that is not the end.
            return Ok(Outcome::Elsewhere { head, shown_is_ancestor: false });
        }
        let dir = self.inner.dir.clone();
        let looked = tokio::task::spawn_blocking(move || read::holds(&dir, chain, record.hash, shown.hash)).await;
        let holds = looked.map_err(|_| LedgerError::Closed)??;
        if holds.record {
            return Ok(Outcome::Durable(Backend::Spool));
        }
        Ok(Outcome::Elsewhere { head, shown_is_ancestor: holds.shown || shown == Head::GENESIS })
    }

    /// The end of an object's chain; none where the spool has no record of it.
    pub async fn head(&self, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
        Ok(self.index().end((cluster, uid)).map(|end| end.known))
    }

    /// The largest epoch that wrote anything about this cluster; 0 where nothing is known of it.
    pub async fn largest_epoch(&self, cluster: Uuid) -> Result<u64, LedgerError> {
        Ok(self.index().largest_epoch(cluster).unwrap_or(0))
    }

    /// How the spool is.
    pub fn health(&self) -> Health {
        let shared = &self.inner.shared;
        let counts = &shared.counts;
        let progress = self.progress();
        Health {
            poisoned: shared.poisoned(),
            damages: self.inner.damages.all(),
            objects: self.index().objects(),
            state_files_behind: self.inner.states.behind_count(),
            journal_syncs: self.inner.syncs.journal.load(Ordering::Relaxed),
            other_syncs: self.inner.syncs.other.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            unacknowledged: progress.last.saturating_sub(progress.acknowledged),
            tail_dropped: counts.tail_dropped.load(Ordering::Relaxed),
            usage_thinned: counts.usage_thinned.load(Ordering::Relaxed),
            usage_refused: counts.usage_refused.load(Ordering::Relaxed),
            poisonings: counts.poisonings.load(Ordering::Relaxed),
        }
    }

    /// Finishes what was asked, writes the state files, and lets the folder go. Later calls to
    /// [`Self::submit`] answer [`LedgerError::Closed`].
    pub async fn close(&self) -> Result<(), LedgerError> {
        // It is closed already where nobody listens.
        let _ = self.inner.jobs.send(Job::Close).await;
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        let panicked = || LedgerError::spool(&self.inner.dir, std::io::Error::other("the spool's thread had panicked"));
        tokio::task::spawn_blocking(move || thread.join()).await.map_err(|_| panicked())?.map_err(|_| panicked())
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.inner.shared.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(dir: &Path, name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LedgerError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| LedgerError::spool(dir, error))
}

fn payload_of(kept: &Kept, uid: Uuid) -> Result<Vec<u8>, LedgerError> {
    let malformed = |why: String| LedgerError::Malformed { subject: uid.to_string(), why };
    let payload =
        Written::encode(kept.clone()).map_err(|error| malformed(format!("it cannot be read back: {error}")))?;
    if payload.len() > frame::MAX_PAYLOAD {
        let most = frame::MAX_PAYLOAD;
        return Err(malformed(format!("it has {} bytes, more than {most}", payload.len())));
    }
    Ok(payload)
}

fn chain_of(entry: &Entry) -> (Uuid, Uuid) {
    match entry {
        Entry::Chained { record, .. } | Entry::Operation { record, .. } | Entry::Carried { record, .. } => {
            (record.envelope().cluster, record.envelope().uid)
        }
        Entry::Present(snapshot) => (snapshot.target.cluster, snapshot.target.uid),
        Entry::Usage(usage) => (usage.cluster, usage.uid),
    }
}

/// Refuses an entry whose parts are about different things: the journal would keep it, and every reader stumble.
fn consistent(entry: &Entry) -> Result<(), LedgerError> {
    let (record, target, chained) = match entry {
        Entry::Chained { record, snapshot } => (record, &snapshot.target, true),
        Entry::Carried { record, target } => (record, target, true),
        Entry::Operation { record, target, .. } => (record, target, false),
        Entry::Present(_) | Entry::Usage(_) => return Ok(()),
    };
    let envelope = record.envelope();
    let why = if envelope.kind.is_chained() != chained {
        format!("a record of kind {} does not belong into such an entry", envelope.kind.as_str())
    } else if (envelope.cluster, envelope.uid) != (target.cluster, target.uid) {
        format!("its record is about {}, the rest about {}", envelope.uid, target.uid)
    } else {
        return Ok(());
    };
    Err(LedgerError::Malformed { subject: chain_of(entry).1.to_string(), why })
}
