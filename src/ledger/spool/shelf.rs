//! The segments that are full: which of them may go, and which are thinned.
//!
//! Owns: that decision (rule 6), from numbers alone. Must never: do I/O; let a segment go of which the database
//! lacks an entry, or one that others stand before.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::limits::Limits;

/// A sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// The number of its first entry; its name.
    pub(super) first: u64,
    /// The number of its last one.
    pub(super) last: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// How many samples of usage are in it.
    pub(super) usage: u64,
    /// How often it was thinned.
    thinned: u32,
    /// Since when the database is known to have all of it.
    settled: Option<Instant>,
}

impl Sealed {
    pub(super) const fn new(first: u64, last: u64, bytes: u64, usage: u64) -> Self {
        Self { first, last, bytes, usage, thinned: 0, settled: None }
    }
}

/// All sealed segments, oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    sealed: VecDeque<Sealed>,
}

impl Shelf {
    /// Takes the next segment.
    pub(super) fn push(&mut self, sealed: Sealed) {
        debug_assert!(self.sealed.back().is_none_or(|before| before.first < sealed.first));
        self.sealed.push_back(sealed);
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.bytes).sum()
    }

    /// Notes at `now` that the database has everything up to `acknowledged`.
    pub(super) fn settle(&mut self, acknowledged: u64, now: Instant) {
        for sealed in &mut self.sealed {
            sealed.settled = (sealed.last <= acknowledged).then(|| sealed.settled.unwrap_or(now));
        }
    }

    /// Whether the oldest segment may go, of a journal of `total` bytes; none before [`Self::settle`] has seen it.
    pub(super) fn to_trim(&self, total: u64, now: Instant, limits: &Limits) -> Option<&Sealed> {
        let oldest = self.sealed.front()?;
        let since = oldest.settled?;
        let settled: u64 = self.sealed.iter().filter(|s| s.settled.is_some()).map(|s| s.bytes).sum();
        let may = now.saturating_duration_since(since) >= limits.tail_age
            || settled > limits.tail_bytes
            || total > limits.most_bytes;
        may.then_some(oldest)
    }

    /// The oldest segment, if it may go where the volume is full.
    pub(super) fn to_make_room(&self) -> Option<&Sealed> {
        self.sealed.front().filter(|oldest| oldest.settled.is_some())
    }

    /// When the oldest segment will be old enough to go.
    pub(super) fn next_trim(&self, now: Instant, limits: &Limits) -> Option<Duration> {
        let since = self.sealed.front()?.settled?;
        Some(limits.tail_age.saturating_sub(now.saturating_duration_since(since)))
    }

    /// The oldest segment is gone.
    pub(super) fn trimmed(&mut self) {
        self.sealed.pop_front();
    }

    /// The segment to be thinned next: each once before any a second time, the oldest first.
    pub(super) fn to_thin(&self) -> Option<&Sealed> {
        self.sealed
            .iter()
            .filter(|sealed| sealed.settled.is_none() && sealed.usage > 1)
            .min_by_key(|sealed| (sealed.thinned, sealed.first))
    }

    /// The segment `first` has `bytes` and `usage` samples now.
    pub(super) fn thinned(&mut self, first: u64, bytes: u64, usage: u64) {
        if let Some(sealed) = self.sealed.iter_mut().find(|sealed| sealed.first == first) {
            (sealed.bytes, sealed.usage, sealed.thinned) = (bytes, usage, sealed.thinned + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn shelf() -> Shelf {
        let mut shelf = Shelf::default();
        for n in 0..4 {
            shelf.push(Sealed::new(n * 10 + 1, n * 10 + 10, 100, 5));
        }
        shelf
    }

    const LIMITS: Limits = Limits { segment_bytes: 100, tail_age: DAY, tail_bytes: 250, most_bytes: 1000 };

    #[test]
    fn a_segment_goes_only_when_the_database_has_all_of_it() {
        let (mut shelf, start) = (shelf(), Instant::now());
        assert_eq!(shelf.to_trim(9999, start + 9 * DAY, &LIMITS), None, "nothing is acknowledged");
        shelf.settle(9, start);
        assert_eq!(shelf.to_trim(9999, start + 9 * DAY, &LIMITS), None, "one entry is not");
        assert_eq!(shelf.to_make_room(), None, "nor where the volume is full");
        shelf.settle(10, start);
        assert_eq!(shelf.to_make_room().map(|s| s.first), Some(1));
        assert_eq!(shelf.to_trim(400, start + DAY / 2, &LIMITS), None, "kept for a day");
        assert_eq!(shelf.to_trim(400, start + DAY, &LIMITS).map(|s| s.first), Some(1));
        assert_eq!(shelf.next_trim(start + DAY / 2, &LIMITS), Some(DAY / 2));
    }

    #[test]
    fn the_day_begins_when_the_database_has_it_not_when_it_was_written() {
        let (mut shelf, start) = (shelf(), Instant::now());
        shelf.settle(10, start + 5 * DAY);
        assert_eq!(shelf.to_trim(400, start + 5 * DAY, &LIMITS), None);
        // The database lost it, and got it again.
        shelf.settle(0, start + 6 * DAY);
        shelf.settle(10, start + 7 * DAY);
        assert_eq!(shelf.to_trim(400, start + 7 * DAY, &LIMITS), None);
    }

    #[test]
    fn too_many_bytes_let_settled_segments_go_before_their_day_is_over() {
        let (mut shelf, start) = (shelf(), Instant::now());
        shelf.settle(20, start);
        assert_eq!(shelf.to_trim(400, start, &LIMITS), None);
        assert_eq!(shelf.to_trim(1001, start, &LIMITS).map(|s| s.first), Some(1), "the journal is full");
        shelf.settle(30, start);
        assert_eq!(shelf.to_trim(400, start, &LIMITS).map(|s| s.first), Some(1), "the tail is");
        shelf.trimmed();
        assert_eq!(shelf.to_trim(300, start, &LIMITS), None);
    }

    #[test]
    fn every_segment_is_thinned_once_before_any_is_thinned_twice() {
        let mut shelf = shelf();
        shelf.settle(10, Instant::now());
        let mut order = vec![];
        while let Some(sealed) = shelf.to_thin().cloned() {
            order.push(sealed.first);
            shelf.thinned(sealed.first, sealed.bytes, sealed.usage.div_ceil(2));
        }
        assert_eq!(order, [11, 21, 31, 11, 21, 31, 11, 21, 31]);
    }
}
