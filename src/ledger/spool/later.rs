//! The tail that waits to be appended.
//!
//! Owns: its bound in bytes, and the count of what did not fit. Must never: wait.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The most bytes that wait.
const MOST: usize = 16 << 20;

/// One of them.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) payload: Vec<u8>,
    /// How many rewinds of the database were known when the database had it.
    pub(super) age: u64,
}

/// Payloads that the database has, and the journal does not yet.
#[derive(Debug, Default)]
pub(super) struct Later {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    payloads: VecDeque<Waits>,
    bytes: usize,
    closed: bool,
}

impl Later {
    /// Takes a payload, if it fits.
    pub(super) fn push(&self, payload: Vec<u8>, age: u64) -> bool {
        let mut queue = self.queue();
        let fits = !queue.closed && queue.bytes + payload.len() <= MOST;
        if fits {
            queue.bytes += payload.len();
            queue.payloads.push_back(Waits { payload, age });
        }
        fits
    }

    /// Hands out the oldest payloads, up to about `bytes`.
    pub(super) fn take(&self, bytes: usize) -> Vec<Waits> {
        let mut queue = self.queue();
        let mut taken = vec![];
        let mut size = 0;
        while size < bytes
            && let Some(waits) = queue.payloads.pop_front()
        {
            size += waits.payload.len();
            taken.push(waits);
        }
        queue.bytes -= size;
        taken
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue().payloads.len()
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.queue().closed = true;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_what_was_taken_comes_out_in_order() {
        let later = Later::default();
        let mut taken = 0;
        while later.push(vec![taken; 1 << 20], 0) {
            taken += 1;
        }
        assert_eq!(usize::from(taken), MOST >> 20);
        assert_eq!(later.take(3 << 20).iter().map(|waits| waits.payload[0]).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(later.push(vec![99; 2 << 20], 0));
        assert_eq!(later.take(usize::MAX).last().map(|waits| waits.payload[0]), Some(99));
        later.close();
        assert_eq!((later.len(), later.push(vec![], 0)), (0, false));
    }
}
