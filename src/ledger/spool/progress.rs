//! Where replay stands: what of the journal the database has, in memory and in the file `_acknowledged`.
//!
//! Owns: the three numbers, and how they move. Must never: call anything acknowledged that was not, also not
//! after the journal's end was lost and its numbers are given out again.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    disk::{self, Disk},
    scan::ACKNOWLEDGED,
};
use crate::ledger::error::LedgerError;

/// Numbers of entries in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The first that is still there.
    pub first: u64,
    /// The last that the database is known to have, with all before it.
    pub acknowledged: u64,
    /// The last that is durable.
    pub last: u64,
}

impl Progress {
    /// Of a journal that begins with `first` and ends with `last`, of which `said` were acknowledged.
    pub(super) fn opened(first: u64, last: u64, said: Option<u64>) -> Self {
        let none = first.saturating_sub(1);
        let last = last.max(none);
        Self { first, acknowledged: said.unwrap_or(none).clamp(none, last), last }
    }

    /// Whether there is something that the database is not known to have.
    pub(super) const fn is_behind(&self) -> bool {
        self.last > self.acknowledged
    }

    /// Takes the word that the database has everything up to this number. Only of what is durable.
    pub(super) fn acknowledge(&mut self, up_to: u64) {
        self.acknowledged = self.acknowledged.max(up_to.min(self.last));
    }

    /// Takes the word that the database has lost what it had behind `number`.
    pub(super) fn rewind(&mut self, number: u64) {
        self.acknowledged = self.acknowledged.min(number).max(self.first.saturating_sub(1));
    }

    /// Entry `number` is durable. Where `settled`, nobody has to bring it to the database; it is acknowledged with
    /// what is before it.
    pub(super) fn grew(&mut self, number: u64, settled: bool) {
        if settled && self.acknowledged.checked_add(1) == Some(number) {
            self.acknowledged = number;
        }
        self.last = self.last.max(number);
    }

    /// Everything before `first` is about to go. Answers whether it may.
    pub(super) fn trim(&mut self, first: u64) -> bool {
        let may = self.acknowledged.checked_add(1).is_some_and(|next| first <= next);
        if may {
            self.first = self.first.max(first);
        }
        may
    }
}

/// The progress that handle and writer share.
pub(super) type Standing = watch::Sender<Progress>;

#[derive(Serialize, Deserialize)]
struct Said {
    acknowledged: u64,
}

/// What the file says; none where there is none. One that cannot be read says 0: then all is replayed.
pub(super) fn read(dir: &Path) -> Result<Option<u64>, LedgerError> {
    let path = dir.join(ACKNOWLEDGED);
    match fs::read(&path) {
        Ok(bytes) => {
            let said = serde_json::from_slice::<Said>(&bytes).map(|said| said.acknowledged);
            Ok(Some(said.unwrap_or_else(|error| {
                tracing::warn!(file = %path.display(), %error, "not what was written there; everything is replayed");
                0
            })))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::spool(path, error)),
    }
}

/// Writes the file.
pub(super) fn write(disk: &dyn Disk, dir: &Path, acknowledged: u64) -> Result<(), LedgerError> {
    let path = dir.join(ACKNOWLEDGED);
    let content = format!("{{\"acknowledged\":{acknowledged}}}\n");
    disk::write_whole(disk, &path, content.as_bytes()).map_err(|error| LedgerError::spool(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_prefix_of_what_is_durable_is_acknowledged() {
        let mut progress = Progress::opened(1, 0, None);
        assert!(!progress.is_behind());
        progress.grew(1, true);
        assert_eq!(progress, Progress { first: 1, acknowledged: 1, last: 1 });
        progress.grew(2, false);
        progress.grew(3, true);
        assert_eq!(progress.acknowledged, 1, "2 is not in the database");
        progress.acknowledge(9);
        assert_eq!(progress.acknowledged, 3, "4 to 9 do not exist");
        progress.acknowledge(2);
        assert_eq!(progress.acknowledged, 3, "no step back");
        assert!(!progress.trim(5) && progress.trim(3));
        progress.rewind(0);
        assert_eq!(progress, Progress { first: 3, acknowledged: 2, last: 3 });
    }

    #[test]
    fn what_was_acknowledged_of_a_lost_end_is_not_acknowledged_of_what_takes_its_numbers() {
        assert_eq!(Progress::opened(10, 95, Some(100)).acknowledged, 95);
        assert_eq!(Progress::opened(10, 95, Some(3)).acknowledged, 9);
        assert_eq!(Progress::opened(10, 95, None).acknowledged, 9);
        assert_eq!(Progress::opened(10, 9, Some(9)), Progress { first: 10, acknowledged: 9, last: 9 });
    }
}
