//! How long a call to the database may take: every one goes through here.

use std::{future::Future, time::Duration};

use sea_orm::DbErr;

use super::failure::{Failure, from_orm};
use crate::ledger::error::LedgerError;

/// The most that any call waits. (The budget after which a write goes to the spool instead is the door's.)
pub(super) const CALL: Duration = Duration::from_secs(10);

/// `work`, or a [`LedgerError::TimedOut`].
pub(super) async fn within<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failure> {
    bounded(doing, async { work.await.map_err(|error| Failure::new(doing, error)) }).await
}

/// The same for several calls together, which say themselves what went wrong.
pub(super) async fn bounded<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(CALL, work).await {
        Ok(done) => done,
        Err(_) => Err(timed_out(doing).into()),
    }
}

/// The same for what goes through SeaORM.
pub(super) async fn within_orm<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, DbErr>>,
) -> Result<T, LedgerError> {
    match tokio::time::timeout(CALL, work).await {
        Ok(done) => done.map_err(|error| from_orm(doing, error)),
        Err(_) => Err(timed_out(doing)),
    }
}

/// The error for what took too long.
pub(super) const fn timed_out(doing: &'static str) -> LedgerError {
    LedgerError::TimedOut { doing, seconds: CALL.as_secs() }
}
