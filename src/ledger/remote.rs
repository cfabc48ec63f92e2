//! The database as the door sees it: PostgreSQL, or, in tests, one in memory that fails on command.
//!
//! Owns: that choice, and nothing else. Must never: decide anything.

use tokio::sync::watch;
use uuid::Uuid;

#[cfg(test)]
use super::simulated;
use super::{
    entry::{Entry, KnownHead, Outcome},
    error::LedgerError,
    postgres::{self, Ending, Facts, Imported, Standing, StoredSpool},
    record::Head,
};

/// See the module's comment.
#[derive(Debug)]
pub(super) enum Remote {
    /// The real one.
    Postgres(postgres::Home),
    /// In memory.
    #[cfg(test)]
    Simulated(simulated::Database),
}

/// Hands a call to whichever it is. What only an object asks that has something to settle is boxed: a pass would have room for it
/// in its own future, and a debug build no room for such a pass on a thread's stack.
macro_rules! either {
    ($self:ident, $home:ident => $call:expr) => {
        match $self {
            Self::Postgres($home) => $call,
            #[cfg(test)]
            Self::Simulated($home) => $call,
        }
    };
}

impl Remote {
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        either!(self, home => home.standing())
    }

    pub(super) fn rewinds(&self) -> watch::Receiver<u64> {
        either!(self, home => home.rewinds())
    }

    pub(super) fn is_up(&self) -> bool {
        either!(self, home => home.is_up())
    }

    pub(super) fn missed(&self) {
        either!(self, home => home.missed());
    }

    pub(super) async fn submit(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        either!(self, home => home.submit(entry).await)
    }

    pub(super) async fn import(&self, entries: Vec<Entry>) -> Result<Imported, LedgerError> {
        either!(self, home => home.import(entries).await)
    }

    pub(super) async fn facts(
        &self,
        cluster: Uuid,
        uid: Uuid,
        shown: Head,
        asked: &[Head],
    ) -> Result<Facts, LedgerError> {
        either!(self, home => Box::pin(home.facts(cluster, uid, shown, asked)).await)
    }

    pub(super) async fn head_follows(
        &self,
        cluster: Uuid,
        uid: Uuid,
        from: Option<Head>,
        to: Head,
    ) -> Result<bool, LedgerError> {
        either!(self, home => Box::pin(home.head_follows(cluster, uid, from, to)).await)
    }

    pub(super) async fn close_head(
        &self,
        cluster: Uuid,
        uid: Uuid,
        terminal: Head,
        epoch: u64,
    ) -> Result<bool, LedgerError> {
        either!(self, home => Box::pin(home.close_head(cluster, uid, terminal, epoch)).await)
    }

    pub(super) async fn put_head(
        &self,
        cluster: Uuid,
        uid: Uuid,
        from: Option<Head>,
        to: Head,
        closed_epoch: u64,
    ) -> Result<bool, LedgerError> {
        either!(self, home => Box::pin(home.put_head(cluster, uid, from, to, closed_epoch)).await)
    }

    pub(super) async fn ending(&self, cluster: Uuid, uid: Uuid, terminal: Head) -> Result<Ending, LedgerError> {
        either!(self, home => Box::pin(home.ending(cluster, uid, terminal)).await)
    }

    pub(super) async fn note_spool(&self, volume: Uuid, last: u64, acknowledged: u64) -> Result<bool, LedgerError> {
        either!(self, home => home.note_spool(volume, last, acknowledged).await)
    }

    pub(super) async fn spools(&self) -> Result<Vec<StoredSpool>, LedgerError> {
        either!(self, home => home.spools().await)
    }

    pub(super) async fn head(&self, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
        either!(self, home => home.head(cluster, uid).await)
    }

    pub(super) async fn largest_epoch(&self, cluster: Uuid) -> Result<u64, LedgerError> {
        either!(self, home => home.largest_epoch(cluster).await)
    }

    /// What its writer did, and how many entries wait for it; none where it is simulated.
    pub(super) fn counters(&self) -> Option<(&postgres::Counters, usize)> {
        match self {
            Self::Postgres(home) => Some((home.counters(), home.waiting())),
            #[cfg(test)]
            Self::Simulated(_) => None,
        }
    }

    pub(super) async fn close(&self) {
        either!(self, home => home.close().await);
    }
}
