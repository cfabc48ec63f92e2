//! What the handle and the writer's thread both hold.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::{index::Index, later::Later, progress::Standing};
use crate::ledger::error::LedgerError;

/// See the module's comment.
pub(super) struct Shared {
    pub(super) index: Arc<RwLock<Index>>,
    /// Why nothing is acknowledged any more.
    pub(super) poison: Mutex<Option<LedgerError>>,
    pub(super) standing: Standing,
    /// Whether this process uses the journal beside a database.
    pub(super) beside: AtomicBool,
    /// The most that the file `_acknowledged` may say.
    pub(super) may_be_noted: AtomicU64,
    pub(super) later: Later,
    /// How often the database was found to have lost something.
    pub(super) age: AtomicU64,
    /// Wakes the writer where there is no job for it.
    pub(super) nudge: Notify,
    pub(super) counts: Counts,
}

/// What happened since the spool was opened, and its size.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) bytes: AtomicU64,
    pub(super) tail_dropped: AtomicU64,
    pub(super) usage_thinned: AtomicU64,
    pub(super) usage_refused: AtomicU64,
    pub(super) poisonings: AtomicU64,
}

impl Shared {
    pub(super) fn new(index: Index, standing: Standing, written: Option<u64>) -> Self {
        Self {
            index: Arc::new(RwLock::new(index)),
            poison: Mutex::default(),
            standing,
            beside: AtomicBool::new(false),
            may_be_noted: AtomicU64::new(written.unwrap_or(0)),
            later: Later::default(),
            age: AtomicU64::new(0),
            nudge: Notify::new(),
            counts: Counts::default(),
        }
    }

    /// What is acknowledged, which the file may say from here on. Whoever says afterwards that the database has lost it,
    /// waits until the file says so too; who said it before, has been heard.
    pub(super) fn about_to_note(&self) -> u64 {
        let standing = self.standing.borrow();
        self.may_be_noted.fetch_max(standing.acknowledged, Ordering::AcqRel);
        standing.acknowledged
    }

    pub(super) fn poisoned(&self) -> Option<LedgerError> {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
