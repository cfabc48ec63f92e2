//! The status of a grant, made from what was decided and seen: phase for people, conditions as the truth.
//!
//! Owns: every field of the status but the place in the chain. Must never: say that access is there, or gone, before it was
//! seen to be.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    plan::Grant,
    record::{CHANGED, EXPIRED, GRANTED, REMOVED},
};
use crate::{
    api::{
        LedgerStatus,
        access_grant::{AccessGrantStatus, Recorded},
    },
    chain::{Kept, Untold},
    ledger::visible,
};

/// The longest message of a condition, in characters.
const MAX_MESSAGE: usize = 1_024;

/// How a grant stands, once a pass has done what it could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The access is there.
    Active,
    /// It is not all there, and somebody has to change something.
    Stuck {
        /// One CamelCase word.
        reason: &'static str,
        /// What, and what to do.
        message: String,
    },
    /// It comes, or is being exchanged, without anybody's help.
    OnTheWay,
    /// It has ended, and all of it is gone.
    Expired,
    /// It has ended, and is still there.
    Overdue(Vec<String>),
    /// Its object is being deleted, and all of it is gone.
    Removed,
    /// The namespace is going: nothing can be given in it.
    NamespaceTerminating,
    /// What it is in fact is not durable yet, and so not shown.
    Untold {
        /// One CamelCase word.
        reason: &'static str,
        /// Why.
        message: String,
        /// It will not go on by itself.
        is_stuck: bool,
    },
}

impl Standing {
    /// What was recorded last is shown; how it stands now comes next, or once the ledger takes it.
    pub fn untold(why: Untold<'_>) -> Self {
        let (reason, message, is_stuck) = why.words();
        Self::Untold { reason, message, is_stuck }
    }

    /// In one word; where how it stands is not to be shown, by what was recorded last.
    fn phase(&self, recorded: Option<&Recorded>) -> &'static str {
        match self {
            Self::Removed => "Deleted",
            Self::Untold { .. } => match recorded.map(|told| told.reason.as_str()) {
                Some(GRANTED | CHANGED) => "Active",
                Some(EXPIRED) => "Expired",
                Some(REMOVED) => "Deleted",
                Some(_) | None => "Pending",
            },
            Self::Active => "Active",
            Self::Stuck { .. } | Self::OnTheWay | Self::NamespaceTerminating => "Pending",
            Self::Expired => "Expired",
            Self::Overdue(_) => "Overdue",
        }
    }

    /// Reason and message of the conditions.
    pub fn words(&self, grant: &Grant) -> (&'static str, String) {
        let until = grant.expires_at;
        match self {
            Self::Active if grant.meaning.cluster_roles.is_empty() => {
                ("NothingToBind", format!("it gives nothing in Kubernetes{}", notes(grant)))
            }
            Self::Active => ("Bound", format!("the access is there until {until}{}", notes(grant))),
            Self::Stuck { reason, message } => (reason, message.clone()),
            Self::OnTheWay => ("Binding", "RoleBindings are being written".to_owned()),
            Self::Expired => ("Expired", format!("it ended at {until}; its RoleBindings are gone")),
            Self::Overdue(names) => {
                ("BindingsLeft", format!("it has ended, and these RoleBindings are still there: {}", names.join(", ")))
            }
            Self::Removed => ("Removed", "its grant is deleted; its RoleBindings are gone".to_owned()),
            Self::NamespaceTerminating => ("NamespaceTerminating", "the namespace is being deleted".to_owned()),
            Self::Untold { reason, message, is_stuck: _ } => (reason, message.clone()),
        }
    }
}

/// What of a permissions object gives nothing, and why.
fn notes(grant: &Grant) -> String {
    let mut text = String::new();
    for (which, why) in [
        (&grant.meaning.unknown, "not known, kept and without effect"),
        (&grant.meaning.unbound, "without effect inside one namespace"),
    ] {
        if !which.is_empty() {
            text.push_str(&format!("; {why}: {}", which.join(", ")));
        }
    }
    text
}

/// The status of a grant that stands so, with these RoleBindings there.
pub fn of(
    before: &AccessGrantStatus,
    grant: &Grant,
    standing: &Standing,
    bindings: Vec<String>,
    kept: Kept<'_>,
    now: Timestamp,
) -> AccessGrantStatus {
    let (ready, reconciling, stalled) = match standing {
        Standing::Active | Standing::Expired | Standing::Removed => (true, false, false),
        Standing::OnTheWay | Standing::Overdue(_) | Standing::NamespaceTerminating => (false, true, false),
        Standing::Stuck { .. } => (false, false, true),
        Standing::Untold { is_stuck, .. } => (false, !is_stuck, *is_stuck),
    };
    let (reason, message) = standing.words(grant);
    // That is all the API keeps.
    let whole_second = Time(Timestamp::from_second(now.as_second()).unwrap_or_default());
    let condition = |name: &str, is: bool, reason: &str, message: &str| {
        let status = if is { "True" } else { "False" };
        let old = before.conditions.iter().find(|old| old.type_ == name && old.status == status);
        Condition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: visible(message, MAX_MESSAGE),
            last_transition_time: old.map_or(&whole_second, |old| &old.last_transition_time).clone(),
            observed_generation: Some(grant.generation),
        }
    };
    let mut conditions = vec![
        condition("Ready", ready, reason, &message),
        condition("Reconciling", reconciling, reason, &message),
        condition("Stalled", stalled, reason, &message),
    ];
    conditions.extend(kept.condition(before.ledger.pending.len(), &before.conditions, grant.generation, &whole_second));
    AccessGrantStatus {
        observed_generation: grant.generation,
        phase: Some(standing.phase(before.recorded.as_ref()).to_owned()),
        conditions,
        bindings,
        unknown: grant.meaning.unknown.clone(),
        unbound: grant.meaning.unbound.clone(),
        recorded: before.recorded.clone(),
        ledger: LedgerStatus { backend: kept.backend(before.ledger.backend.as_ref()), ..before.ledger.clone() },
    }
}
