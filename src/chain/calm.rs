//! When something was written of each object last: what changes all the time is not worth a write each time.
//!
//! Owns: that memory. Must never: be needed for anything to be right; what it forgets costs a write.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::ledger::Micros;

/// When this process wrote of each object last, by uid.
pub struct Calm {
    /// How long another write is not worth it, in microseconds.
    period: i64,
    last: Mutex<HashMap<String, Micros>>,
}

impl Calm {
    /// Of statuses: once a second.
    pub fn of_status() -> Self {
        Self { period: 1_000_000, last: Mutex::default() }
    }

    /// Of the present in the ledger, beside what comes with records: every ten seconds.
    pub fn of_present() -> Self {
        Self { period: 10_000_000, last: Mutex::default() }
    }

    /// Of what may turn and turn back: once a minute.
    pub fn of_turns() -> Self {
        Self { period: 60_000_000, last: Mutex::default() }
    }

    /// How long the next has to wait yet, in microseconds; none where it has not.
    pub fn left(&self, uid: &str, now: Micros) -> Option<i64> {
        let last = *self.locked().get(uid)?;
        // Not where a clock was set back.
        Some(last.0 + self.period - now.0).filter(|left| (1..=self.period).contains(left))
    }

    /// It was written.
    pub fn wrote(&self, uid: &str, now: Micros) {
        let mut all = self.locked();
        all.retain(|_, at| at.0 + self.period > now.0);
        all.insert(uid.to_owned(), now);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Micros>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
