//! Looks after tombstones and noted endings: when the database is there again, and when one was written.
//!
//! Owns: when that happens. Must never: decide what becomes of one (`tombstone`, `ledger::protocol`).

use std::{convert::Infallible, sync::Arc, time::Duration};

use tracing::warn;

use super::Worker;
use crate::tombstone;

/// How soon tombstones that are left are looked at again.
const AGAIN: Duration = Duration::from_secs(15);

/// Works until it is dropped.
pub(super) async fn run(worker: Arc<Worker>) -> Infallible {
    // Whether an object is gone is asked of the API server itself, but an operator that has not read anything yet has no
    // business with it.
    worker.synced().await;
    let context = &worker.context;
    let (mut news, mut written, rewinds) =
        (context.ledger.news(), context.tombstones.subscribe(), context.ledger.rewinds());
    // The ledger may have been rewound while nobody looked: once at the start in any case.
    let mut answered = None;
    loop {
        news.borrow_and_update();
        written.borrow_and_update();
        let mut wait = super::RESYNC;
        // While the database is away nothing can be done about either, and news comes when it is back.
        if context.ledger.is_current() {
            let now = (context.clock)();
            let left = tombstone::settle(&context.client, &context.home, context.cluster, &context.ledger, now).await;
            match &left {
                Ok(left) => worker.metrics.tombstones(*left),
                Err(error) => {
                    warn!(error = error as &dyn std::error::Error, "tombstones could not be looked at; trying again");
                }
            }
            let seen = *rewinds.borrow();
            let repaired =
                Some(seen) == answered || tombstone::repair(&context.client, context.cluster, &context.ledger).await;
            if repaired {
                answered = Some(seen);
            }
            if !repaired || !matches!(left, Ok(0)) {
                wait = AGAIN;
            }
        }
        tokio::select! {
            Ok(()) = news.changed() => {}
            Ok(()) = written.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
