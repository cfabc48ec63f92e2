//! The spool beside a database: the journal of outages, and the tail of what the database has (rules 2, 5 and 6).
//!
//! Owns: what the door asks of it there. Must never: wait for the tail; decide what the database gets.

use std::sync::{PoisonError, atomic::Ordering};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Spool, chain_of, consistent,
    found::Found,
    frame,
    index::Terms,
    progress::Progress,
    replay::{self, Stretch},
    shared::add,
    writer::{Answer, Job},
    written::{Kept, ShownMark, Written},
};
use crate::ledger::{
    entry::{Backend, Entry, Outcome},
    error::LedgerError,
};

impl Spool {
    /// Makes an entry durable, whatever its chain in this journal says: other leaders write too, so that gaps are
    /// normal here. Many callers share one sync.
    ///
    /// Of an operation's phase that this journal was told already by another account, that one is the answer. A sample
    /// of usage is refused where the journal is too long.
    pub async fn keep(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        consistent(&entry)?;
        self.stand_beside();
        let chain = chain_of(&entry);
        match self.ask(Kept::Entry(entry), chain, Terms::Beside).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            // Chains are not asked here.
            Answer::Elsewhere { .. } => Ok(Outcome::Durable(Backend::Spool)),
        }
    }

    /// Keeps entries that the database has: the tail, from which a database that was restored is repaired. Never waits;
    /// they are synced with the next group, or within a second. What does not fit is counted.
    pub fn keep_later(&self, entries: Vec<Entry>) {
        self.keep_later_of(self.age(), entries);
    }

    /// How many rewinds of the database this spool was told of.
    pub fn age(&self) -> u64 {
        self.inner.shared.age.load(Ordering::Acquire)
    }

    /// As [`Self::keep_later`], of entries that the database took when the spool had this `age`. What it took before it was
    /// rewound it may have lost: that is replayed like the rest.
    pub fn keep_later_of(&self, age: u64, entries: Vec<Entry>) {
        self.stand_beside();
        let shared = &self.inner.shared;
        let mut dropped = 0;
        for entry in entries {
            // The writer reads them back: that takes longer than writing them, and nobody waits for it.
            let payload = consistent(&entry).ok().and_then(|()| Written::encode_unread(Kept::Entry(entry)).ok());
            let fits = payload.filter(|payload| payload.len() <= frame::MAX_PAYLOAD);
            dropped += u64::from(!fits.is_some_and(|payload| shared.later.push(payload, age)));
        }
        add(&shared.counts.tail_dropped, dropped);
        shared.nudge.notify_one();
    }

    /// Notes, durably, that a terminal record was shown (rule 5).
    pub async fn note_mark(&self, mark: ShownMark) -> Result<(), LedgerError> {
        self.stand_beside();
        let chain = (mark.target.cluster, mark.target.uid);
        self.ask(Kept::Mark(mark), chain, Terms::Beside).await.map(drop)
    }

    /// As [`Self::note_mark`], where this journal is the only home: for the day on which a database gets all of it.
    pub async fn note_ending(&self, mark: ShownMark) -> Result<(), LedgerError> {
        let chain = (mark.target.cluster, mark.target.uid);
        self.ask(Kept::Mark(mark), chain, Terms::Home).await.map(drop)
    }

    /// The last mark of an object. It lives as long as the segment that it is in.
    pub fn mark_of(&self, cluster: Uuid, uid: Uuid) -> Option<ShownMark> {
        self.index().mark((cluster, uid)).cloned()
    }

    /// The last mark of every object that has one.
    pub fn marks(&self) -> Vec<ShownMark> {
        self.index().marks().cloned().collect()
    }

    /// Where replay stands.
    pub fn progress(&self) -> Progress {
        *self.inner.shared.standing.borrow()
    }

    /// Durable entries behind `number` in their order, for replay: at most `most`, and a few MiB.
    ///
    /// Goes on where the last call ended, so that a whole journal is read once. One replayer at a time is quick.
    /// Damage on the way is passed over; it is said, counted in [`Spool::health`] and kept aside.
    pub async fn after(&self, number: u64, most: usize) -> Result<Stretch, LedgerError> {
        self.rewind_is_noted().await;
        let progress = self.progress();
        if number >= progress.last {
            return Ok(Stretch { entries: vec![], up_to: number });
        }
        let spool = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let inner = &spool.inner;
            let mut cursor = inner.cursor.lock().unwrap_or_else(PoisonError::into_inner).take();
            let read =
                replay::stretch(&inner.dir, &mut cursor, number, progress, most, &|chain| spool.index().newest(chain));
            *inner.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
            read
        });
        let (stretch, found) = read.await.map_err(|_| LedgerError::Closed)??;
        self.note_damage(found).await;
        Ok(stretch)
    }

    /// Before what is behind the damage is handed out: once that is acknowledged, the segment may go.
    async fn note_damage(&self, found: Found) {
        let Found { damages, unread } = found.without_trimmed(self.progress().first);
        self.inner.damages.add(&damages);
        if unread.is_empty() {
            return;
        }
        let (reply, kept) = oneshot::channel();
        if self.inner.jobs.send(Job::KeepAside(unread, reply)).await.is_ok() {
            let _ = kept.await;
        }
    }

    /// Takes the word that the database has everything up to this number.
    pub fn acknowledge(&self, up_to: u64) {
        self.stand_beside();
        self.inner.shared.standing.send_modify(|progress| progress.acknowledge(up_to));
        self.inner.shared.nudge.notify_one();
    }

    /// Takes the word that the database has lost what it had: everything that the journal still holds is replayed.
    pub fn rewind(&self) {
        self.rewind_to(0);
    }

    /// As [`Self::rewind`], where the database is known to have everything up to this number.
    pub fn rewind_to(&self, number: u64) {
        self.stand_beside();
        self.inner.shared.age.fetch_add(1, Ordering::AcqRel);
        self.inner.shared.standing.send_modify(|progress| progress.rewind(number));
        self.inner.shared.nudge.notify_one();
    }

    /// Returns once all of the tail that waited is in the journal and synced, or cannot be.
    pub async fn flush(&self) {
        let (reply, flushed) = oneshot::channel();
        if self.inner.jobs.send(Job::Flush(reply)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Returns once there is something beyond what is acknowledged.
    pub async fn behind(&self) {
        // It cannot be closed while this handle is there.
        let _ = self.inner.shared.standing.subscribe().wait_for(Progress::is_behind).await;
    }

    fn stand_beside(&self) {
        self.inner.shared.beside.store(true, Ordering::Release);
    }

    /// Before a database that has lost something gets anything again, the file must not say that it has it: a crash
    /// would forget what is still to be replayed. A disk that refuses this holds nobody up.
    async fn rewind_is_noted(&self) {
        let shared = &self.inner.shared;
        if shared.may_be_noted.load(Ordering::Acquire) > self.progress().acknowledged {
            let (reply, noted) = oneshot::channel();
            if self.inner.jobs.send(Job::Persist(reply)).await.is_ok() {
                let _ = noted.await;
            }
        }
    }
}
