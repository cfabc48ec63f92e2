//! Berth's own share of the time that users wait: from the moment an event arrived to the end of the pass that it
//! caused, added up over all passes of an object.
//!
//! Owns: that clock. Must never: be read by anything that decides.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube_runtime::reflector::ObjectRef;

use crate::api::TenantContainer;

/// What is known of one object.
#[derive(Clone, Copy, Default)]
struct Share {
    /// The oldest event that no pass has taken up.
    since: Option<Instant>,
    /// Up to when it is counted.
    counted: Option<Instant>,
    /// The sum so far.
    sum: Duration,
}

/// The shares of all objects.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<ObjectRef<TenantContainer>, Share>>);

/// The event that a pass has taken up, if it was one that caused it.
#[must_use = "a share counts once its pass has ended"]
pub(super) struct TakenUp(Option<Instant>);

impl Shares {
    /// An event about this object has arrived.
    pub(super) fn heard(&self, about: &ObjectRef<TenantContainer>, now: Instant) {
        self.map().entry(about.clone()).or_default().since.get_or_insert(now);
    }

    /// A pass begins. An event that arrives from here on is not answered by it.
    pub(super) fn began(&self, about: &ObjectRef<TenantContainer>) -> TakenUp {
        TakenUp(self.map().get_mut(about).and_then(|share| share.since.take()))
    }

    /// A pass has ended; the object's sum so far. No moment counts twice.
    pub(super) fn ended(&self, about: &ObjectRef<TenantContainer>, event: TakenUp, now: Instant) -> Duration {
        let mut map = self.map();
        let share = map.entry(about.clone()).or_default();
        if let TakenUp(Some(since)) = event {
            let from = share.counted.map_or(since, |counted| counted.max(since));
            share.sum += now.saturating_duration_since(from);
            share.counted = Some(now);
        }
        share.sum
    }

    /// Forgets the objects that are gone.
    pub(super) fn retain(&self, lives: impl Fn(&ObjectRef<TenantContainer>) -> bool) {
        self.map().retain(|about, _| lives(about));
    }

    /// How many objects are remembered.
    pub(super) fn len(&self) -> usize {
        self.map().len()
    }

    fn map(&self) -> MutexGuard<'_, HashMap<ObjectRef<TenantContainer>, Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_arrives_during_a_pass_waits_for_the_next() {
        let (shares, about, start) = (Shares::default(), ObjectRef::new("a").within("b"), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        shares.heard(&about, at(0));
        let first = shares.began(&about);
        shares.heard(&about, at(10));
        assert_eq!(shares.ended(&about, first, at(20)), Duration::from_millis(20));
        let second = shares.began(&about);
        assert_eq!(shares.ended(&about, second, at(50)), Duration::from_millis(50), "not 60: no moment twice");
        let of_itself = shares.began(&about);
        assert_eq!(shares.ended(&about, of_itself, at(900)), Duration::from_millis(50), "nobody waited");
    }
}
