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
    /// The oldest event that no pass has answered.
    since: Option<Instant>,
    /// The sum so far.
    sum: Duration,
}

/// The shares of all objects.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<ObjectRef<TenantContainer>, Share>>);

impl Shares {
    /// An event about this object has arrived.
    pub(super) fn heard(&self, about: &ObjectRef<TenantContainer>) {
        self.map().entry(about.clone()).or_default().since.get_or_insert_with(Instant::now);
    }

    /// A pass has ended; the object's sum so far.
    pub(super) fn passed(&self, about: &ObjectRef<TenantContainer>) -> Duration {
        let mut map = self.map();
        let share = map.entry(about.clone()).or_default();
        share.sum += share.since.take().map_or(Duration::ZERO, |since| since.elapsed());
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
