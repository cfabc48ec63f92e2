//! What the condition `LedgerSynced` says: where an object's records are.
//!
//! Owns: its words. Must never: say that the database has what it may lack.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{Chain, Keeper, keep::is_open};
use crate::ledger::{Backend, LedgerError, visible};

/// The longest message of a condition, in characters.
const MAX_MESSAGE: usize = 1_024;

/// How soon [`look_again`] is, where the status says that the database lacks something.
const AGAIN: Duration = Duration::from_secs(5);

/// How soon it is where ledger and status were not seen to agree: what the ledger cannot answer now may be true of every object
/// there is, for hours.
const OPEN: Duration = Duration::from_secs(60);

/// The condition's type.
pub const SYNCED: &str = "LedgerSynced";

/// Where the records are, as far as this pass knows.
#[derive(Clone, Copy, Debug)]
pub enum Kept<'a> {
    /// Nothing new was recorded.
    AsBefore,
    /// Durable there.
    In(Backend),
    /// On the spool and in the status, until the database takes it: this is why it does not.
    Away(Option<&'a LedgerError>),
    /// Not recorded: nothing new is shown.
    Not(&'a LedgerError),
}

/// Whether a status says that its records are not in their home.
pub fn is_unsynced(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| condition.type_ == SYNCED && condition.status == "False")
}

/// How soon an object is looked at again for its chain's sake, as this pass leaves it, though the database is there. That may
/// have caught up, and told so, before its status said that something is missing, and tells nobody twice; and it may have
/// answered a part of what was asked.
pub fn look_again(keeper: Keeper<'_>, chain: Chain<'_>, conditions: &[Condition]) -> Option<Duration> {
    if is_unsynced(conditions) && keeper.ledger.is_up() {
        return Some(AGAIN);
    }
    // Else there will be news.
    (is_open(keeper, chain) && keeper.ledger.is_current()).then_some(OPEN)
}

impl Kept<'_> {
    /// Status, reason and message of the condition, where the status carries so many records; none where it stays as it is.
    pub fn words(self, carried: usize) -> Option<(bool, &'static str, String)> {
        match self {
            Self::AsBefore => None,
            Self::In(Backend::Database) => Some((true, "Database", "its records are in the database".to_owned())),
            Self::In(Backend::Spool) => {
                Some((true, "Spool", "its records are on the spool; no database is configured".to_owned()))
            }
            Self::Away(trouble) => {
                let message = format!("its last records ({carried}) are kept by the spool and this status");
                Some(match trouble {
                    Some(error) => (false, error.reason(), format!("{message}: {error}")),
                    None => (false, "Replaying", format!("{message}, on their way")),
                })
            }
            Self::Not(error) => Some((false, error.reason(), error.to_string())),
        }
    }

    /// The condition in a status that carries so many records, where `before` were its conditions; none where it has none yet.
    pub fn condition(self, carried: usize, before: &[Condition], generation: i64, now: &Time) -> Option<Condition> {
        let old = before.iter().find(|old| old.type_ == SYNCED);
        let Some((is, reason, message)) = self.words(carried) else { return old.cloned() };
        let status = if is { "True" } else { "False" };
        let since = old.filter(|old| old.status == status).map_or(now, |old| &old.last_transition_time);
        Some(Condition {
            type_: SYNCED.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: visible(&message, MAX_MESSAGE),
            last_transition_time: since.clone(),
            observed_generation: Some(generation),
        })
    }

    /// `status.ledger.backend` from here on, where it was `before`.
    pub fn backend(self, before: Option<&String>) -> Option<String> {
        match self {
            Self::In(Backend::Database) => Some("Database".to_owned()),
            Self::In(Backend::Spool) => Some("Spool".to_owned()),
            Self::AsBefore | Self::Away(_) | Self::Not(_) => before.cloned(),
        }
    }
}
