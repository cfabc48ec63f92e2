//! The one thread that appends to the journal: many waiters, one sync.
//!
//! Owns: the open segment, the order of entries, rotation, the lock. Must never: acknowledge what is not
//! synced; use a segment again after a write or sync of it has failed.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    disk::Disk,
    frame::{self, Carries},
    index::{Batch, Decision, Index, Place},
    open::{self, Active, Lock},
    scan,
    state::StateFiles,
    written::Written,
};
use crate::ledger::{
    entry::{Backend, Entry, Outcome},
    error::LedgerError,
    record::Head,
};

/// The most entries in one sync.
const MAX_BATCH: usize = 1024;
/// No entry is added to a batch that has grown to this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// What the writer is asked.
pub(super) enum Job {
    /// Append this entry if its chain allows.
    Submit(Box<Submit>),
    /// Finish what was asked before, seal the segment and end.
    Close,
}

/// An entry with its bytes, and who waits for it.
pub(super) struct Submit {
    pub(super) entry: Entry,
    pub(super) payload: Vec<u8>,
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
    pub(super) limit: u64,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) active: Active,
    pub(super) index: Arc<RwLock<Index>>,
    pub(super) poison: Arc<Mutex<Option<LedgerError>>>,
    pub(super) states: Arc<StateFiles>,
    pub(super) state_thread: JoinHandle<()>,
    pub(super) lock: Lock,
}

impl Writer {
    /// Works until told to close, or until nobody is left to ask.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut open = true;
        while open && let Some(job) = jobs.blocking_recv() {
            let mut batch = vec![];
            let mut bytes = 0;
            let mut next = Some(job);
            while let Some(job) = next {
                match job {
                    Job::Submit(submit) => {
                        bytes += submit.payload.len();
                        batch.push(*submit);
                    }
                    Job::Close => {
                        open = false;
                        break;
                    }
                }
                let room = batch.len() < MAX_BATCH && bytes < BATCH_BYTES;
                next = if room { jobs.try_recv().ok() } else { None };
            }
            self.commit(batch);
        }
        jobs.close();
        self.end();
    }

    fn end(mut self) {
        if self.poisoned().is_none()
            && let Err(error) = self.seal()
        {
            tracing::warn!(
                error = error.explain(),
                "the spool's last segment was not sealed; it is repaired at the next start"
            );
        }
        self.states.finish();
        if self.state_thread.join().is_err() {
            tracing::error!(
                "the thread that writes state files had panicked; the files are made again at the next start"
            );
        }
        drop(self.lock);
    }

    fn poisoned(&self) -> Option<LedgerError> {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on, nothing is acknowledged from this segment: after a failed sync nobody can say what of it
    /// is on the disk, and a second sync would say "all of it".
    fn poison(&self, error: &LedgerError) {
        tracing::error!(
            segment = %self.active.path.display(),
            error = error.explain(),
            "the spool's segment is poisoned: nothing more is written to it or acknowledged from it"
        );
        *self.poison.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
    }

    fn commit(&mut self, batch: Vec<Submit>) {
        let done = match self.poisoned() {
            Some(error) => Err(error),
            None => self.append(&batch).inspect_err(|error| self.poison(error)),
        };
        match done {
            Err(error) => {
                for submit in batch {
                    // A waiter that has gone away needs no answer; the same holds below.
                    let _ = submit.reply.send(Err(error.clone()));
                }
            }
            Ok(answers) => {
                for (submit, answer) in batch.into_iter().zip(answers) {
                    let _ = submit.reply.send(answer);
                }
            }
        }
    }

    /// Appends what may be appended with one sync. An error means that nothing of the batch is certain.
    fn append(&mut self, batch: &[Submit]) -> Result<Vec<Result<Answer, LedgerError>>, LedgerError> {
        if self.active.size >= self.limit {
            self.rotate()?;
        }
        let (decisions, buffer) = self.decide(batch);
        if !buffer.is_empty() {
            let failed = |error| LedgerError::spool(&self.active.path, error);
            self.active.file.append(&buffer).map_err(failed)?;
            self.active.file.sync().map_err(failed)?;
            self.active.size += buffer.len() as u64;
            self.take_note(batch, &decisions);
        }
        let decided = batch.iter().zip(decisions);
        Ok(decided.map(|(submit, (decision, _))| self.answer(&submit.entry, decision)).collect())
    }

    fn decide(&mut self, batch: &[Submit]) -> (Vec<(Decision, Option<Place>)>, Vec<u8>) {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut ahead = Batch::on(&index);
        let mut buffer = vec![];
        let decisions = batch.iter().map(|submit| {
            let decision = ahead.decide(&submit.entry);
            if decision != Decision::Append {
                return (decision, None);
            }
            let position = self.active.size + buffer.len() as u64;
            let place = Place { segment: self.active.first, position, number: self.active.next };
            frame::write_frame(&mut buffer, Carries::Entry, place.number, &submit.payload);
            self.active.next += 1;
            ahead.appended(&submit.entry, place);
            (decision, Some(place))
        });
        let decisions = decisions.collect();
        (decisions, buffer)
    }

    /// Now that the entries are durable, they are what is known.
    fn take_note(&self, batch: &[Submit], decisions: &[(Decision, Option<Place>)]) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let appended = batch.iter().zip(decisions).filter_map(|(submit, (_, place))| Some((&submit.entry, (*place)?)));
        let files: Vec<_> = appended.filter_map(|(entry, place)| index.apply(entry, place)).collect();
        drop(index);
        self.states.mark(files);
    }

    fn answer(&self, entry: &Entry, decision: Decision) -> Result<Answer, LedgerError> {
        Ok(Answer::Outcome(match decision {
            Decision::Append | Decision::Stands => Outcome::Durable(Backend::Spool),
            Decision::Elsewhere { head, shown, record } => return Ok(Answer::Elsewhere { head, shown, record }),
            Decision::Taken(place) => {
                let payload = scan::payload_at(&self.dir, place)?;
                let damaged = |why: String| LedgerError::Damaged { place: format!("entry {}", place.number), why };
                let stands = match Written::decode(&payload).map_err(|error| damaged(error.to_string()))? {
                    Entry::Chained { record, .. } | Entry::Operation { record, .. } | Entry::Carried { record, .. } => {
                        record
                    }
                    Entry::Present(_) | Entry::Usage(_) => {
                        return Err(damaged("a record was there and is no more".to_owned()));
                    }
                };
                match entry {
                    // An operation sent again is known only by what stands.
                    Entry::Operation { record, .. } if record.hash() == stands.hash() => {
                        Outcome::Durable(Backend::Spool)
                    }
                    _ => Outcome::Adopt(Box::new(stands)),
                }
            }
        }))
    }

    /// Seals the segment: nothing follows in it.
    fn seal(&mut self) -> Result<(), LedgerError> {
        let mut bytes = vec![];
        frame::write_frame(&mut bytes, Carries::Seal, self.active.next, &[]);
        let failed = |error| LedgerError::spool(&self.active.path, error);
        self.active.file.append(&bytes).map_err(failed)?;
        self.active.file.sync().map_err(failed)
    }

    fn rotate(&mut self) -> Result<(), LedgerError> {
        self.seal()?;
        self.active = open::start_segment(&*self.disk, &self.dir, &self.name, self.active.next)?;
        Ok(())
    }
}
