//! What the writer does between two groups: the file `_acknowledged`, trimming, thinning.
//!
//! Owns: the order in which these happen. Must never: fail what is asked of the journal; what the disk refuses here
//! is tried again.

use std::{
    io,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    found::Unread,
    open, progress,
    scan::{self, JOURNAL, Segment},
    shared::add,
    shelf::Sealed,
    thin,
    writer::{RETRY, Writer, write_index},
};
use crate::{
    broken::{self, Variant},
    ledger::error::LedgerError,
};

/// How often `_acknowledged` is written at most.
const PERSIST: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// How many segments go at once from a full disk: the one that failed is written anew beside itself, what is behind it
/// is kept aside, and another begins.
const ROOM: u64 = 2;

impl Writer {
    /// How long nothing has to be done here.
    pub(super) fn upkeep_due(&self, now: Instant) -> Option<Duration> {
        let left = |since: Option<Instant>, wait: Duration| {
            since.map_or(Duration::ZERO, |since| wait.saturating_sub(now.saturating_duration_since(since)))
        };
        let persist = self.is_beside() && self.written != Some(self.acknowledged());
        let persist = persist.then(|| left(self.wrote_at, PERSIST));
        let trim = self.shelf.next_trim(now, &self.limits).filter(|_| self.is_beside());
        let thin = (self.is_full() && self.shelf.to_thin().is_some()).then_some(Duration::ZERO);
        let work = [trim, thin].into_iter().flatten().min();
        let work = work.map(|wait| wait.max(self.upkeep_failed_at.map_or(wait, |failed| left(Some(failed), RETRY))));
        [persist, work].into_iter().flatten().min()
    }

    /// Does what is due; at most one segment is thinned.
    pub(super) fn upkeep(&mut self, persist_now: bool) {
        self.persist(persist_now);
        let now = Instant::now();
        if broken::is(Variant::TailCutByTimeOnly) {
            self.shared.standing.send_modify(|progress| progress.acknowledge(u64::MAX));
        }
        self.shelf.settle(self.acknowledged(), now);
        if self.upkeep_failed_at.is_none_or(|failed| now.saturating_duration_since(failed) >= RETRY) {
            let done = self.trim(now).and_then(|()| self.thin());
            self.upkeep_failed_at = done.is_err().then_some(now);
            if let Err(error) = done {
                tracing::warn!(error = error.explain(), "the spool's journal stays as long as it is for now");
            }
        }
        self.count_bytes();
    }

    /// Whether this process uses the journal beside a database; without one nothing is trimmed.
    fn is_beside(&self) -> bool {
        self.shared.beside.load(Ordering::Acquire)
    }

    fn acknowledged(&self) -> u64 {
        self.shared.standing.borrow().acknowledged
    }

    /// Writes what is acknowledged, if that is new; about once a second, but at once where the database lost something.
    pub(super) fn persist(&mut self, now: bool) {
        let acknowledged = self.acknowledged();
        if !self.is_beside() || self.written == Some(acknowledged) {
            return;
        }
        let back = self.written.is_some_and(|written| written > acknowledged);
        let early = self.wrote_at.is_some_and(|at| at.elapsed() < PERSIST);
        if early && !back && !now {
            return;
        }
        self.wrote_at = Some(Instant::now());
        let acknowledged = self.shared.about_to_note();
        match progress::write(&*self.disk, &self.dir, acknowledged) {
            Ok(()) => {
                self.written = Some(acknowledged);
                self.shared.may_be_noted.store(acknowledged, Ordering::Release);
            }
            Err(error) => {
                // It may have got its name all the same.
                self.written = None;
                tracing::warn!(error = error.explain(), "what the database has of the spool is not noted");
            }
        }
    }

    /// Keeps what a reader found aside. What the disk refuses is in the journal still, as long as its segment is.
    pub(super) fn keep_aside(&self, unread: &[Unread]) {
        for Unread { segment, offset, bytes } in unread {
            if let Err(error) = open::keep_bytes_aside(&*self.disk, &self.dir, *segment, *offset, bytes) {
                tracing::warn!(error = error.explain(), segment, offset, "damaged bytes are not kept aside");
            }
        }
    }

    /// Lets the oldest segments go, one after the other, as far as they may.
    fn trim(&mut self, now: Instant) -> Result<(), LedgerError> {
        while self.is_beside()
            && let Some(oldest) = self.shelf.to_trim(self.bytes(), now, &self.limits)
        {
            let oldest = oldest.clone();
            if !self.let_go(&oldest)? {
                break;
            }
        }
        Ok(())
    }

    /// Lets the oldest segment go. False where the database has lost something of it.
    fn let_go(&mut self, oldest: &Sealed) -> Result<bool, LedgerError> {
        let next = oldest.last.saturating_add(1);
        // Whoever says just now that the database has lost something, keeps it.
        let mut may = false;
        self.shared.standing.send_if_modified(|progress| {
            may = progress.trim(next);
            may
        });
        if !may {
            return Ok(false);
        }
        write_index(&self.shared).forget_before(next);
        let path = scan::segment_path(&self.dir, oldest.first);
        let failed = |error| LedgerError::spool(&path, error);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // Each before the next, so that no power cut leaves a hole.
        self.disk.sync_dir(&self.dir.join(JOURNAL)).map_err(failed)?;
        self.shelf.trimmed();
        Ok(true)
    }

    /// Before a full disk is tried again: lets go of what the database has, oldest first, as much as it takes to go on.
    /// What the tail is kept for may never come, and the outage is there.
    pub(super) fn make_room(&mut self) {
        self.shelf.settle(self.acknowledged(), Instant::now());
        let enough = ROOM.saturating_mul(self.limits.segment_bytes);
        let mut gone = 0;
        while gone < enough
            && self.is_beside()
            && let Some(oldest) = self.shelf.to_make_room().cloned()
        {
            match self.let_go(&oldest) {
                Ok(true) => gone += oldest.bytes,
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(error = error.explain(), "no room can be made on the spool's volume");
                    break;
                }
            }
        }
        if gone > 0 {
            tracing::warn!(bytes = gone, "the spool's volume is full: the oldest of what the database has went early");
        }
    }

    /// Thins one segment, if the journal is too long.
    fn thin(&mut self) -> Result<(), LedgerError> {
        if !self.is_full() {
            return Ok(());
        }
        let Some(sealed) = self.shelf.to_thin() else { return Ok(()) };
        let (first, last) = (sealed.first, sealed.last);
        let segment = Segment::read(&self.dir, first)?;
        let thinned = thin::thin(&segment, &self.name);
        if thinned.removed > 0 {
            open::keep_aside(&*self.disk, &self.dir, &segment)?;
            drop(open::place_segment(&*self.disk, &self.dir, first, &thinned.bytes, last.saturating_add(1))?);
            add(&self.shared.counts.usage_thinned, thinned.removed);
            self.shelf.thinned(first, thinned.bytes.len() as u64, thinned.left);
        } else {
            self.shelf.thinned(first, segment.bytes.len() as u64, 0);
        }
        Ok(())
    }
}
