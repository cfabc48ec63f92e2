//! Whether the database is asked at all (rule 4): once it fails, nobody waits for it until a probe has found it well.
//!
//! Owns: how the database stands, and who is told. Must never: touch the network; open for a refusal that concerns one
//! entry alone.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::watch;
use uuid::Uuid;

use super::writer::Counters;
use crate::ledger::error::LedgerError;

/// How the database stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It has not been reached yet.
    Connecting,
    /// It takes entries.
    Up,
    /// It does not, for this reason. It is asked again from time to time.
    Down(LedgerError),
}

impl Standing {
    /// What a caller is told without asking the database; none while it is up.
    fn error(&self) -> Option<LedgerError> {
        match self {
            Self::Up => None,
            Self::Connecting => {
                Some(LedgerError::Unavailable { doing: "connecting for the first time", source: Arc::new(NotYet) })
            }
            Self::Down(error) => Some(error.clone()),
        }
    }
}

#[derive(Debug)]
struct NotYet;

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it has not answered yet")
    }
}

impl std::error::Error for NotYet {}

/// The breaker: closed while the database is up.
#[derive(Debug)]
pub(super) struct Breaker {
    standing: watch::Sender<Standing>,
    counters: Arc<Counters>,
}

impl Breaker {
    pub(super) fn new(standing: Standing, counters: Arc<Counters>) -> Self {
        Self { standing: watch::Sender::new(standing), counters }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Up)
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Connecting)
    }

    /// The last error; none while the database is up.
    pub(super) fn error(&self) -> Option<LedgerError> {
        self.standing.borrow().error()
    }

    /// Nobody asks the database any more.
    pub(super) fn open(&self, error: &LedgerError) {
        self.standing.send_if_modified(|standing| {
            let told = match standing {
                Standing::Up => {
                    self.counters.opened.fetch_add(1, Ordering::Relaxed);
                    false
                }
                Standing::Connecting => false,
                Standing::Down(before) => before.explain() == error.explain(),
            };
            if !told {
                tracing::warn!(
                    reason = error.reason(),
                    error = error.explain(),
                    "the ledger's database is left alone for now"
                );
                *standing = Standing::Down(error.clone());
            }
            !told
        });
    }

    /// A probe has found the database well.
    pub(super) fn close(&self) {
        tracing::info!("the ledger's database takes entries");
        self.standing.send_replace(Standing::Up);
    }

    /// Opens it where the answer shows that the database itself failed; hands the answer on.
    pub(super) fn judge<T>(&self, answer: Result<T, LedgerError>) -> Result<T, LedgerError> {
        answer.inspect_err(|error| {
            if error.is_about_the_database() {
                self.open(error);
            }
        })
    }
}

/// Returns once the breaker is open, with the reason.
pub(super) async fn opened(standing: &mut watch::Receiver<Standing>) -> LedgerError {
    match standing.wait_for(|standing| !matches!(standing, Standing::Up)).await {
        Ok(standing) => standing.error().unwrap_or(LedgerError::Closed),
        Err(_) => LedgerError::Closed,
    }
}

/// The pause before the next probe: from 0.25 s, doubling to 5 s, each between half and the whole of it, so that the
/// replicas of a fleet do not come back all at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failed: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The next pause, somewhat shortened by chance.
    pub(super) fn next(&mut self) -> Duration {
        let [chance, ..] = Uuid::new_v4().into_bytes();
        self.pause(f64::from(chance) / 255.0)
    }

    fn pause(&mut self, chance: f64) -> Duration {
        let whole = Self::FIRST.saturating_mul(1 << self.failed.min(10)).min(Self::LONGEST);
        self.failed = self.failed.saturating_add(1);
        whole.mul_f64(0.5 + 0.5 * chance)
    }

    /// Something was committed: the next failure is the first again. (A probe that succeeds proves too little.)
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        (Breaker::new(Standing::Up, Arc::clone(&counters)), counters)
    }

    fn timed_out() -> LedgerError {
        LedgerError::TimedOut { doing: "testing", seconds: 1 }
    }

    #[test]
    fn pauses_double_to_five_seconds_and_begin_anew_after_a_commit() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
        assert_eq!(backoff.pause(0.0).as_millis(), 2500);
        backoff.reset();
        assert!((125..=250).contains(&backoff.next().as_millis()));
    }

    #[test]
    fn what_concerns_one_entry_alone_does_not_open_it() {
        let (breaker, counters) = breaker();
        let refused = LedgerError::Quarantined { subject: "o".to_owned(), message: "too long".to_owned() };
        assert!(breaker.judge::<()>(Err(refused)).is_err());
        assert!(breaker.is_up());
        assert!(breaker.judge::<()>(Err(timed_out())).is_err());
        assert!(!breaker.is_up());
        assert_eq!(counters.opened.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn who_waits_is_told_why_it_opened_and_the_same_reason_wakes_nobody_again() {
        let (breaker, counters) = breaker();
        let mut standing = breaker.watch();
        breaker.open(&timed_out());
        assert_eq!(opened(&mut standing).await.reason(), "DatabaseTimedOut");
        breaker.open(&timed_out());
        assert!(!standing.has_changed().unwrap());
        breaker.open(&LedgerError::SchemaTooOld { found: 1, needed: 2 });
        assert_eq!(opened(&mut standing).await.reason(), "SchemaTooOld");
        assert_eq!(counters.opened.load(Ordering::Relaxed), 1, "it opened once");
    }
}
