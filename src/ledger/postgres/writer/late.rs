//! Imports: entries for which nobody waits one by one.
//!
//! Must never: write more than a batch before what is new gets its turn.

use std::{sync::atomic::Ordering, time::Instant};

use super::{
    super::{
        batch::{self, Item, Mode, Moved},
        bounds::bounded,
        failure::Failure,
        heads::Link,
        import::{Import, Next},
        present,
        quarantine::Refused,
    },
    Writer, halve,
    refusals::Admitted,
};
use crate::ledger::error::LedgerError;

const FOLLOWING: &str = "bringing the present up to its chain";

impl Writer {
    /// Writes the next batch of an import; gives it back while there is more of it.
    pub(super) async fn write_import(&mut self, mut import: Import) -> Option<Import> {
        if import.is_abandoned() {
            return None;
        }
        if let Err(error) = self.none_is_lost(&mut import).await {
            import.answer(Err(error));
            return None;
        }
        let done = match import.next(self.pace.entries()) {
            Next::Entries(items) => {
                let (entries, began) = (items.len(), Instant::now());
                let done = self.write_late(Mode::Import, items, &mut import).await;
                self.pace.learn(entries, began.elapsed());
                done
            }
            Next::Heads(links) => self.move_heads(&links).await.map(|moved| import.moved(&moved)),
            Next::Snapshots(items) => self.write_late(Mode::Live, items, &mut import).await,
            Next::Ends(ends) => self.follow(ends, &mut import).await,
            Next::Nothing => {
                self.counters.imported.fetch_add(import.imported.added, Ordering::Relaxed);
                import.answer(Ok(()));
                return None;
            }
        };
        match done {
            Ok(()) => Some(import),
            Err(error) => {
                import.answer(Err(error));
                None
            }
        }
    }

    /// Writes entries for which nobody waits one by one. What PostgreSQL refuses is put away, and the rest goes on.
    async fn write_late(&mut self, mode: Mode, items: Vec<Item>, import: &mut Import) -> Result<(), LedgerError> {
        let Admitted { items, quarantined } = self.with_months(mode, items).await;
        import.imported.quarantined += quarantined?;
        let mut parts = vec![items];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.commit(mode, &part).await {
                Ok(done) if mode == Mode::Import => import.stored(part, &done),
                Ok(_) => {}
                Err(Failure::Row(refusal) | Failure::NoPartition(refusal)) => {
                    self.counters.halved.fetch_add(1, Ordering::Relaxed);
                    match halve(&mut part) {
                        Some(second) => parts.extend([second, part]),
                        None => {
                            for one in part {
                                self.put_away(Refused::from(&one.entry), &one.entry, &refusal).await?;
                                import.imported.quarantined += 1;
                            }
                        }
                    }
                }
                Err(Failure::Conflict(error) | Failure::All(error)) => {
                    tracing::warn!(error = error.explain(), entries = part.len(), "an import was not committed");
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Whether the database still has what this import has written; else it has to come again.
    async fn none_is_lost(&mut self, import: &mut Import) -> Result<(), LedgerError> {
        let settled = self.settle().await.map_err(|failure| failure.into_error("reading this writer's mark"));
        self.breaker.judge(settled)?;
        if import.is_overtaken(*self.rewinds.borrow()) { Err(LedgerError::Overtaken) } else { Ok(()) }
    }

    async fn move_heads(&mut self, links: &[Link]) -> Result<Moved, LedgerError> {
        let Some(marks) = &mut self.marks else {
            return Err(self.breaker.error().unwrap_or(LedgerError::Closed));
        };
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        match batch::move_heads(&self.way.writing_pool(), &self.name, marks, links).await {
            // It comes again with the whole import.
            Err(Failure::Conflict(error)) => Err(error),
            moved => self.breaker.judge(moved.map_err(|failure| failure.into_error("moving the heads of chains"))),
        }
    }

    /// Brings the present of these objects to where their chains end. One whose present PostgreSQL refuses is put away: its
    /// records are there.
    async fn follow(&mut self, ends: Vec<present::Followed>, import: &mut Import) -> Result<(), LedgerError> {
        let mut parts = vec![ends];
        while let Some(mut part) = parts.pop() {
            match self.try_follow(&part).await {
                Ok(()) => {}
                Err(Failure::Row(refusal)) => {
                    self.counters.halved.fetch_add(1, Ordering::Relaxed);
                    match halve(&mut part) {
                        Some(second) => parts.extend([second, part]),
                        None => {
                            for present::Followed { cluster, uid, head, .. } in part {
                                self.keep_away(Refused::Followed((cluster, uid), head), &refusal).await?;
                                import.imported.quarantined += 1;
                            }
                        }
                    }
                }
                Err(failure) => return self.breaker.judge(Err(failure.into_error(FOLLOWING))),
            }
        }
        Ok(())
    }

    async fn try_follow(&self, ends: &[present::Followed]) -> Result<(), Failure> {
        let pool = self.way.writing_pool();
        bounded(FOLLOWING, async {
            let mut connection = pool.acquire().await.map_err(|error| Failure::new(FOLLOWING, error))?;
            present::follow(&mut connection, ends).await
        })
        .await
    }
}
