//! What is not written: entries without a month, and rows that PostgreSQL refuses. They are put away, and the rest goes on.

use std::{collections::HashMap, sync::atomic::Ordering};

use super::{
    super::{
        batch::{Item, Mode},
        failure::Refusal,
        partitions::{self as months, Month},
        quarantine::{self, Refused},
    },
    Writer, answer_all, subject, time,
};
use crate::ledger::{entry::Entry, error::LedgerError};

/// The entries that have their months.
pub(super) struct Admitted {
    pub(super) items: Vec<Item>,
    /// How many others are in the quarantine; or why one of them is nowhere.
    pub(super) quarantined: Result<u64, LedgerError>,
}

impl Admitted {
    fn count(&mut self, kept: Result<(), LedgerError>) {
        match (&mut self.quarantined, kept) {
            (Ok(count), Ok(())) => *count += 1,
            (quarantined @ Ok(_), Err(error)) => *quarantined = Err(error),
            (Err(_), _) => {}
        }
    }
}

impl Writer {
    /// Sees to it that every record has its month. One whose time is out of bounds is put away; one whose month cannot be
    /// made is told why, for it is not to blame, and put away where nobody would tell it again; the rest goes on.
    pub(super) async fn with_months(&mut self, mode: Mode, batch: Vec<Item>) -> Admitted {
        let mut admitted = Admitted { items: Vec::with_capacity(batch.len()), quarantined: Ok(0) };
        let mut failed: HashMap<Month, LedgerError> = HashMap::new();
        for item in batch {
            let Some(at) = time(&item.entry) else {
                admitted.items.push(item);
                continue;
            };
            let month = match months::admit(at) {
                Ok(month) => month,
                Err(why) => {
                    let refusal = Refusal { sqlstate: String::new(), message: why };
                    admitted.count(self.put_away_and_answer(item, &refusal).await);
                    continue;
                }
            };
            if !self.months.has(month)
                && self.breaker.is_up()
                && !failed.contains_key(&month)
                && let Err(failure) = self.months.make(&self.way.writing_pool(), month, month).await
            {
                let error = failure.into_error("making a month of the history");
                tracing::warn!(error = error.explain(), "a month of the ledger could not be made");
                match error {
                    // What is in the way of one month is not in the way of the others.
                    LedgerError::Refused { .. } => drop(failed.insert(month, error)),
                    error => self.breaker.open(&error),
                }
            }
            let away = self.breaker.error().filter(|_| !self.months.has(month));
            match away.as_ref().or_else(|| failed.get(&month)) {
                None => admitted.items.push(item),
                Some(LedgerError::Refused { sqlstate, message, .. }) if mode == Mode::Import && away.is_none() => {
                    let refusal = Refusal { sqlstate: sqlstate.clone(), message: message.clone() };
                    admitted.count(self.put_away_and_answer(item, &refusal).await);
                }
                Some(error) => {
                    admitted.count(Err(error.clone()));
                    answer_all(vec![item], error);
                }
            }
        }
        admitted
    }

    /// A single entry that PostgreSQL refused. A record is tried once more without its snapshot: what the present looks
    /// like must not cost the chain its next link.
    pub(super) async fn refuse(&self, mut one: Item, refusal: Refusal) -> Option<Item> {
        if let (Entry::Chained { snapshot, .. }, false) = (&one.entry, one.bare) {
            match self.put_away(Refused::Present(snapshot), &one.entry, &refusal).await {
                Ok(()) => {
                    one.bare = true;
                    return Some(one);
                }
                Err(error) => answer_all(vec![one], &error),
            }
        } else {
            let _ = self.put_away_and_answer(one, &refusal).await;
        }
        None
    }

    /// Into the quarantine, with an answer for the one who waits.
    pub(super) async fn put_away_and_answer(&self, item: Item, refusal: &Refusal) -> Result<(), LedgerError> {
        let kept = self.put_away(Refused::from(&item.entry), &item.entry, refusal).await;
        let told = kept.clone().err().unwrap_or_else(|| LedgerError::Quarantined {
            subject: subject(&item.entry),
            message: refusal.message.clone(),
        });
        answer_all(vec![item], &told);
        kept
    }

    /// Into the quarantine.
    pub(super) async fn put_away(
        &self,
        what: Refused<'_>,
        entry: &Entry,
        refusal: &Refusal,
    ) -> Result<(), LedgerError> {
        self.keep_away(what, refusal).await?;
        tracing::debug!(subject = subject(entry), "put away");
        Ok(())
    }

    /// Into the quarantine what came of no entry.
    pub(super) async fn keep_away(&self, what: Refused<'_>, refusal: &Refusal) -> Result<(), LedgerError> {
        let kept = quarantine::keep(&self.way.writing_pool(), &self.name, what, refusal).await;
        self.breaker.judge(kept.map_err(|failure| failure.into_error("quarantining an entry")))?;
        self.counters.quarantined.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
