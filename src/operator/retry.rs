//! When a failed pass is tried again: later and later, with jitter, for each object by itself.
//!
//! Owns: the count of failures per object. Must never: slow down an object that did not fail.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(60);

/// Failures in a row, by object.
pub(super) struct Retries<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Retries<K> {
    /// Another failure: how long to wait, and no longer than `look_again` unless that were a storm. `dice` is uniform in 0..1 and
    /// spreads what failed together.
    pub(super) fn failed(&self, object: K, dice: f64, look_again: Option<Duration>) -> Duration {
        let mut counts = self.counts();
        let count = counts.entry(object).or_insert(0);
        let wait = LAST.min(FIRST.saturating_mul(1 << (*count).min(16)));
        *count += 1;
        let wait = wait.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0);
        look_again.map_or(wait, |soonest| wait.min(soonest.max(FIRST)))
    }

    /// It went well: the next failure is a first one.
    pub(super) fn succeeded(&self, object: &K) {
        self.counts().remove(object);
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_for_the_object_that_fails_and_for_no_other() {
        let retries = Retries::default();
        let waits: Vec<_> = (0..12).map(|_| retries.failed("a", 1.0, None)).collect();
        assert_eq!(waits[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(waits[11], LAST);
        assert_eq!(retries.failed("b", 1.0, None), FIRST);
        retries.succeeded(&"a");
        assert_eq!(retries.failed("a", 0.0, None), FIRST / 2);
    }
    #[test]
    fn what_has_its_moment_does_not_wait_for_longer() {
        let retries = Retries::default();
        for _ in 0..12 {
            retries.failed("a", 1.0, None);
        }
        let moment = Duration::from_secs(7);
        assert_eq!(retries.failed("a", 1.0, Some(moment)), moment);
        assert_eq!(retries.failed("a", 1.0, Some(Duration::ZERO)), FIRST, "a storm");
        assert_eq!(retries.failed("a", 1.0, Some(LAST * 9)), LAST);
    }
}
