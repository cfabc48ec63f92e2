//! The records that a status carries while the database is away (docs/ledger.md, "Homes").
//!
//! Owns: `status.ledger.pending`: how it is read, and how many slots it has. Must never: decide what goes in or out.

use crate::{api::tenant_container::TenantContainerStatus, ledger::Record};

/// The records that a status can carry; the schema says the same.
pub const SLOTS: usize = 32;

/// The records that `status` carries, oldest first. The second is the first one that cannot be read, if there is one.
pub fn read(status: &TenantContainerStatus) -> (Vec<Record>, Option<String>) {
    let mut records = vec![];
    for text in &status.ledger.pending {
        match Record::read(text, None) {
            Ok(record) => records.push(record),
            Err(error) => return (records, Some(error.to_string())),
        }
    }
    (records, None)
}

/// How many more it can carry.
pub fn slots_left(status: &TenantContainerStatus) -> usize {
    SLOTS.saturating_sub(status.ledger.pending.len())
}
