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

/// For each object: the oldest event that no pass has answered, and the sum so far.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<ObjectRef<TenantContainer>, (Option<Instant>, Duration)>>);

impl Shares {
    /// An event about this object has arrived.
    pub(super) fn heard(&self, about: &ObjectRef<TenantContainer>) {
        self.map().entry(about.clone()).or_default().0.get_or_insert_with(Instant::now);
    }

    /// A pass has ended; the object's sum so far.
    pub(super) fn passed(&self, about: &ObjectRef<TenantContainer>) -> Duration {
        let mut map = self.map();
        let (since, sum) = map.entry(about.clone()).or_default();
        *sum += since.take().map_or(Duration::ZERO, |since| since.elapsed());
        *sum
    }

    fn map(&self) -> MutexGuard<'_, HashMap<ObjectRef<TenantContainer>, (Option<Instant>, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
