//! The one thread that appends to the journal: many waiters, one sync.
//!
//! Owns: the open segment, the order of entries, rotation, the lock. Must never: acknowledge what is not
//! synced; use a segment again after a write or sync of it has failed.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use super::{
    disk::Disk,
    found::Unread,
    frame::{self, Carries},
    index::{Batch, Decision, Index, Place, Terms},
    later::Waits,
    limits::Limits,
    open::{self, Active, Lock},
    recover::{self, Recovered},
    scan,
    shared::{Shared, add},
    shelf::{Sealed, Shelf},
    state::StateFiles,
    written::{Kept, Written},
};
use crate::{
    broken::{self, Variant},
    ledger::{
        entry::{Backend, Entry, Outcome},
        error::LedgerError,
        hash::Hash,
        record::Head,
    },
};

/// The most entries in one sync.
const MAX_BATCH: usize = 1024;
/// No entry is added to a batch that has grown to this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// How long the tail may wait for a sync.
const TAIL_SYNC: Duration = Duration::from_secs(1);
/// How long to wait before something is tried again that the disk refused.
pub(super) const RETRY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });
/// The same where nothing waits for it: so that an alarm ends with its cause.
const RETRY_IDLE: Duration = Duration::from_millis(if cfg!(test) { 40 } else { 10_000 });

/// What the writer is asked.
pub(super) enum Job {
    /// Append this, on its terms.
    Submit(Box<Submit>),
    /// Write `_acknowledged` now, and answer.
    Persist(oneshot::Sender<()>),
    /// Keep these bytes aside, and answer.
    KeepAside(Vec<Unread>, oneshot::Sender<()>),
    /// Append and sync all of the tail that waits.
    Flush(oneshot::Sender<()>),
    /// Finish what was asked before, seal the segment and end.
    Close,
}

/// Something to append, with its bytes, and who waits for it.
pub(super) struct Submit {
    pub(super) kept: Kept,
    pub(super) payload: Vec<u8>,
    pub(super) terms: Terms,
    pub(super) reply: oneshot::Sender<Result<Answer, LedgerError>>,
}

/// What the writer answers.
pub(super) enum Answer {
    /// That is it.
    Outcome(Outcome),
    /// The chain ends at `head`; what is behind it is for the asker to find out.
    Elsewhere {
        /// The end.
        head: Head,
        /// What the entry was made on.
        shown: Head,
        /// The entry's own place.
        record: Head,
    },
}

/// The writer, before it becomes a thread.
pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) active: Active,
    pub(super) shelf: Shelf,
    pub(super) shared: Arc<Shared>,
    pub(super) states: Arc<StateFiles>,
    pub(super) state_thread: JoinHandle<()>,
    pub(super) lock: Lock,
    /// Appended and not yet synced.
    pub(super) unsynced: Vec<Appended>,
    /// Since when there is something of the kind.
    pub(super) unsynced_since: Option<Instant>,
    /// What the file `_acknowledged` says, where there is one.
    pub(super) written: Option<u64>,
    /// When it was tried to write that file, or to trim or thin in vain.
    pub(super) wrote_at: Option<Instant>,
    pub(super) upkeep_failed_at: Option<Instant>,
    /// When it was last tried to go on after a failure.
    pub(super) recovered_at: Option<Instant>,
    /// Whether the last failure was for want of room.
    pub(super) wants_room: bool,
}

/// Something that was appended.
pub(super) struct Appended {
    kept: Kept,
    place: Place,
    terms: Terms,
}

/// What was decided about one who waits.
struct Decided {
    decision: Decision,
    /// The hash of an operation's record: sent again, it is known only by what stands.
    operation: Option<Hash>,
}

impl Writer {
    /// Works until told to close, or until nobody is left to ask.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>, runtime: &Runtime) {
        let mut open = true;
        while open {
            let (mut batch, mut told, mut flushes) = (vec![], vec![], vec![]);
            let mut bytes = 0;
            let mut next = self.wait(&mut jobs, runtime);
            while let Some(job) = next {
                match job {
                    Job::Submit(submit) => {
                        bytes += submit.payload.len();
                        batch.push(*submit);
                    }
                    Job::Persist(reply) => told.push(reply),
                    Job::KeepAside(unread, reply) => {
                        self.keep_aside(&unread);
                        let _ = reply.send(());
                    }
                    Job::Flush(reply) => flushes.push(reply),
                    Job::Close => {
                        open = false;
                        break;
                    }
                }
                let room = batch.len() < MAX_BATCH && bytes < BATCH_BYTES;
                next = if room { jobs.try_recv().ok() } else { None };
            }
            self.commit(batch);
            if let Err(error) = self.sound() {
                tracing::debug!(error = error.explain(), "the spool does not go on yet");
            }
            if !flushes.is_empty() {
                self.flush();
            }
            self.upkeep(!told.is_empty());
            for reply in told.into_iter().chain(flushes) {
                // Whoever has gone away needs no answer; the same holds below.
                let _ = reply.send(());
            }
        }
        jobs.close();
        self.end();
    }

    /// Waits for a job, a nudge, or for what is due. The end of all handles is a job to close.
    fn wait(&self, jobs: &mut mpsc::Receiver<Job>, runtime: &Runtime) -> Option<Job> {
        let due = self.due(Instant::now());
        runtime.block_on(async {
            let due = async {
                match due {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                job = jobs.recv() => Some(job.unwrap_or(Job::Close)),
                () = self.shared.nudge.notified() => None,
                () = due => None,
            }
        })
    }

    /// All of the tail that waits, synced.
    fn flush(&mut self) {
        while self.shared.later.len() > 0 && self.sound().is_ok() {
            self.commit(vec![]);
        }
        if self.sound().is_ok()
            && let Err(error) = self.sync()
        {
            self.poison(&error);
        }
    }

    /// How long nothing has to be done without being asked.
    fn due(&self, now: Instant) -> Option<Duration> {
        let left = |since: Instant, wait: Duration| wait.saturating_sub(now.saturating_duration_since(since));
        let idle = self.shared.later.len() == 0;
        let append = if self.shared.poisoned().is_some() {
            let wait = if idle { RETRY_IDLE } else { RETRY };
            Some(self.recovered_at.map_or(Duration::ZERO, |tried| left(tried, wait)))
        } else {
            (!idle).then_some(Duration::ZERO)
        };
        let sync = self.unsynced_since.map(|since| left(since, TAIL_SYNC));
        [append, sync, self.upkeep_due(now)].into_iter().flatten().min()
    }

    fn end(mut self) {
        self.shared.later.close();
        while self.shared.later.len() > 0 && self.sound().is_ok() {
            self.commit(vec![]);
        }
        add(&self.shared.counts.tail_dropped, self.shared.later.len() as u64);
        if self.sound().is_ok()
            && let Err(error) = self.seal()
        {
            tracing::warn!(
                error = error.explain(),
                "the spool's last segment was not sealed; it is repaired at the next start"
            );
        }
        self.persist(true);
        self.states.finish();
        if self.state_thread.join().is_err() {
            tracing::error!(
                "the thread that writes state files had panicked; the files are made again at the next start"
            );
        }
        drop(self.lock);
    }

    /// From here on, nothing is acknowledged from this segment: after a failed sync nobody can say what of it
    /// is on the disk, and a second sync would say "all of it".
    fn poison(&mut self, error: &LedgerError) {
        tracing::error!(
            segment = %self.active.path.display(),
            error = error.explain(),
            "the spool's segment is poisoned: nothing more is written to it or acknowledged from it"
        );
        let tail = self.unsynced.iter().filter(|appended| matches!(appended.terms, Terms::Tail { .. })).count();
        add(&self.shared.counts.tail_dropped, tail as u64);
        add(&self.shared.counts.poisonings, 1);
        self.unsynced.clear();
        self.unsynced_since = None;
        self.active.back_to_sound();
        self.wants_room = error.wants_room();
        *self.shared.poison.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
    }

    /// Whether there is a segment to append to. After a failure, one is made from time to time.
    fn sound(&mut self) -> Result<(), LedgerError> {
        let Some(error) = self.shared.poisoned() else { return Ok(()) };
        if self.recovered_at.is_some_and(|tried| tried.elapsed() < RETRY) {
            return Err(error);
        }
        self.recovered_at = Some(Instant::now());
        if self.wants_room {
            self.make_room();
        }
        match recover::recover(&*self.disk, &self.dir, &self.name, &self.active) {
            Ok(Recovered { sealed, active }) => {
                tracing::info!(segment = %active.path.display(), "the spool goes on in a new segment");
                sealed.into_iter().for_each(|sealed| self.shelf.push(sealed));
                self.active = active;
                *self.shared.poison.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(())
            }
            Err(again) => {
                tracing::warn!(error = again.explain(), "the spool cannot go on yet; it is tried again");
                self.wants_room = again.wants_room();
                Err(error)
            }
        }
    }

    fn commit(&mut self, batch: Vec<Submit>) {
        if batch.is_empty() && self.shared.later.len() == 0 && !self.must_sync(Instant::now()) {
            return;
        }
        if self.written.is_none() {
            // Before it takes the first entry beside a database, the journal says so.
            self.persist(false);
        }
        let (asked, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|Submit { kept, payload, terms, reply }| ((kept, payload, terms), reply)).unzip();
        let done = match self.sound() {
            Err(error) => Err(error),
            Ok(()) => self.append(asked).inspect_err(|error| self.poison(error)),
        };
        match done {
            Err(_) if broken::is(Variant::ErrorCountedAsSuccess) => {
                let durable = || Ok(Answer::Outcome(Outcome::Durable(Backend::Spool)));
                replies.into_iter().for_each(|reply| drop(reply.send(durable())));
            }
            Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
            Ok(answers) => replies.into_iter().zip(answers).for_each(|(reply, answer)| drop(reply.send(answer))),
        }
    }

    /// Appends what may be appended with one sync, and as much of the tail. An error means that nothing of it is
    /// certain.
    fn append(&mut self, asked: Vec<(Kept, Vec<u8>, Terms)>) -> Result<Vec<Result<Answer, LedgerError>>, LedgerError> {
        if self.active.size >= self.limits.segment_bytes && self.active.next > self.active.first {
            self.rotate()?;
        }
        let mut buffer = vec![];
        // Whoever waits does not wait for much of the tail.
        self.take_tail(if asked.is_empty() { BATCH_BYTES } else { BATCH_BYTES / 16 }, &mut buffer);
        let decided = self.decide(asked, &mut buffer);
        if !buffer.is_empty() {
            self.write(&buffer)?;
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        // A record that is sent again may stand in what the tail has not synced yet.
        if !decided.is_empty() || self.must_sync(Instant::now()) {
            self.sync()?;
        }
        Ok(decided.into_iter().map(|decided| self.answer(decided)).collect())
    }

    fn must_sync(&self, now: Instant) -> bool {
        let late = |since| now.saturating_duration_since(since) >= TAIL_SYNC;
        self.unsynced_since.is_some_and(late) || self.active.size - self.active.sound.0 >= BATCH_BYTES as u64
    }

    /// Puts into `buffer` what the database has and this journal does not.
    fn take_tail(&mut self, bytes: usize, buffer: &mut Vec<u8>) {
        let full = self.is_full();
        for Waits { payload, age } in self.shared.later.take(bytes) {
            match Written::decode(&payload) {
                Ok(Kept::Entry(Entry::Usage(_))) if full => add(&self.shared.counts.usage_refused, 1),
                Ok(kept) => {
                    self.place(kept, &payload, Terms::Tail { age }, buffer);
                }
                Err(error) => {
                    tracing::warn!(%error, "an entry is not kept in the spool's tail: it cannot be read back");
                    add(&self.shared.counts.tail_dropped, 1);
                }
            }
        }
    }

    fn decide(&mut self, asked: Vec<(Kept, Vec<u8>, Terms)>, buffer: &mut Vec<u8>) -> Vec<Decided> {
        let full = self.is_full();
        let shared = Arc::clone(&self.shared);
        let index = read_index(&shared);
        let mut ahead = Batch::on(&index);
        self.unsynced.iter().for_each(|appended| ahead.appended(&appended.kept, appended.place));
        let decided = asked.into_iter().map(|(kept, payload, terms)| {
            let is_usage = matches!(kept, Kept::Entry(Entry::Usage(_)));
            let operation = match &kept {
                Kept::Entry(Entry::Operation { record, .. }) => Some(record.hash()),
                _ => None,
            };
            let decision = if full && is_usage {
                Decision::Refused
            } else if full && broken::is(Variant::DroppedWhenFull) {
                Decision::Stands
            } else {
                ahead.decide(&kept, terms)
            };
            if decision == Decision::Append {
                let appended = self.place(kept, &payload, terms, buffer);
                ahead.appended(&appended.kept, appended.place);
            }
            Decided { decision, operation }
        });
        decided.collect()
    }

    /// Gives the next number to `kept` and puts its frame into `buffer`.
    fn place(&mut self, kept: Kept, payload: &[u8], terms: Terms, buffer: &mut Vec<u8>) -> &Appended {
        let active = &mut self.active;
        let position = active.size + buffer.len() as u64;
        let place = Place { segment: active.first, position, number: active.next };
        frame::write_frame(buffer, Carries::Entry, place.number, payload);
        active.next += 1;
        active.usage += u64::from(matches!(kept, Kept::Entry(Entry::Usage(_))));
        let at = self.unsynced.len();
        self.unsynced.push(Appended { kept, place, terms });
        &self.unsynced[at]
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LedgerError> {
        self.active.file.append(bytes).map_err(|error| LedgerError::spool(&self.active.path, error))?;
        self.active.size += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything appended last, and then known.
    fn sync(&mut self) -> Result<(), LedgerError> {
        self.unsynced_since = None;
        if self.active.size == self.active.sound.0 {
            return Ok(());
        }
        if !broken::is(Variant::FsyncSkipped) {
            self.active.file.sync().map_err(|error| LedgerError::spool(&self.active.path, error))?;
        }
        self.active.synced();
        let mut index = write_index(&self.shared);
        let files: Vec<_> = self.unsynced.iter().filter_map(|new| index.apply(&new.kept, new.place)).collect();
        drop(index);
        self.states.mark(files);
        self.shared.standing.send_modify(|progress| {
            for appended in &self.unsynced {
                let settled = match appended.terms {
                    Terms::Tail { age } => age == self.shared.age.load(Ordering::Acquire),
                    Terms::Home | Terms::Beside => matches!(appended.kept, Kept::Mark(_)),
                };
                progress.grew(appended.place.number, settled);
            }
        });
        self.unsynced.clear();
        Ok(())
    }

    fn answer(&self, Decided { decision, operation }: Decided) -> Result<Answer, LedgerError> {
        Ok(Answer::Outcome(match decision {
            Decision::Append | Decision::Stands => Outcome::Durable(Backend::Spool),
            Decision::Elsewhere { head, shown, record } => return Ok(Answer::Elsewhere { head, shown, record }),
            Decision::Refused => {
                add(&self.shared.counts.usage_refused, 1);
                let why = format!("it has more than {} bytes, so no sample of usage is taken", self.limits.most_bytes);
                let full = std::io::Error::new(std::io::ErrorKind::StorageFull, why);
                return Err(LedgerError::spool(&self.dir, full));
            }
            Decision::Taken(place) => {
                let payload = scan::payload_at(&self.dir, place)?;
                let damaged = |why: String| LedgerError::Damaged { place: format!("entry {}", place.number), why };
                let stands = match Written::decode(&payload).map_err(|error| damaged(error.to_string()))? {
                    Kept::Entry(
                        Entry::Chained { record, .. } | Entry::Operation { record, .. } | Entry::Carried { record, .. },
                    ) => record,
                    Kept::Entry(Entry::Present(_) | Entry::Usage(_)) | Kept::Mark(_) => {
                        return Err(damaged("a record was there and is no more".to_owned()));
                    }
                };
                if operation == Some(stands.hash()) {
                    Outcome::Durable(Backend::Spool)
                } else {
                    Outcome::Adopt(Box::new(stands))
                }
            }
        }))
    }

    /// Seals the segment: nothing follows in it.
    fn seal(&mut self) -> Result<(), LedgerError> {
        let mut bytes = vec![];
        frame::write_frame(&mut bytes, Carries::Seal, self.active.next, &[]);
        self.write(&bytes)?;
        self.sync()
    }

    fn rotate(&mut self) -> Result<(), LedgerError> {
        self.seal()?;
        let full = &self.active;
        let sealed = Sealed::new(full.first, full.next.saturating_sub(1), full.size, full.usage);
        self.active = open::start_segment(&*self.disk, &self.dir, &self.name, full.next)?;
        self.shelf.push(sealed);
        Ok(())
    }

    /// The journal's size.
    pub(super) fn bytes(&self) -> u64 {
        self.shelf.bytes() + self.active.size
    }

    /// Whether samples of usage have to give way.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() > self.limits.most_bytes
    }

    pub(super) fn count_bytes(&self) {
        self.shared.counts.bytes.store(self.bytes(), Ordering::Relaxed);
    }
}

pub(super) fn write_index(shared: &Shared) -> RwLockWriteGuard<'_, Index> {
    shared.index.write().unwrap_or_else(PoisonError::into_inner)
}

fn read_index(shared: &Shared) -> RwLockReadGuard<'_, Index> {
    shared.index.read().unwrap_or_else(PoisonError::into_inner)
}
