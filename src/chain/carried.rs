//! The records that a status carries while the database is away (docs/ledger.md, "Homes").
//!
//! Owns: `status.ledger.pending`: how it is read, and how many slots it has. Must never: decide what goes in or out.

use crate::{
    api::LedgerStatus,
    ledger::{LedgerError, Record, Target},
};

/// The records that a status can carry; the schema says the same.
pub const SLOTS: usize = 32;

/// The records that a status carries, oldest first. The second is the first one that cannot be read, if there is one.
pub fn read(shown: &LedgerStatus) -> (Vec<Record>, Option<String>) {
    let mut records = vec![];
    for text in &shown.pending {
        match Record::read(text, None) {
            Ok(record) => records.push(record),
            Err(error) => return (records, Some(error.to_string())),
        }
    }
    (records, None)
}

/// How many more it can carry.
pub fn slots_left(shown: &LedgerStatus) -> usize {
    SLOTS.saturating_sub(shown.pending.len())
}

/// The records that the status of `target` carries, where all of them can be read.
pub(super) fn readable(target: &Target, shown: &LedgerStatus) -> Result<Vec<Record>, LedgerError> {
    match read(shown) {
        (pending, None) => Ok(pending),
        (_, Some(why)) => Err(LedgerError::Damaged { place: format!("status.ledger.pending of {target}"), why }),
    }
}
