//! States, and the one table of transitions between them.
//!
//! A [`Transition`] can only be made from the table, so code that holds one need not ask whether it is allowed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The state of a tenant's service, as shown in `status.phase` and kept in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Accepted; its pods are not all ready yet.
    Pending,
    /// As many replicas as asked for are ready (with zero replicas: none is asked for).
    Running,
    /// Taken out of its Service; pods stay.
    Paused,
    /// Scaled to zero; disks stay.
    Stopped,
    /// It cannot run as asked; the reason says why.
    Failed,
    /// Gone; only its ledger stays.
    Deleted,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 6] = [Self::Pending, Self::Running, Self::Paused, Self::Stopped, Self::Failed, Self::Deleted];

    /// The name in the ledger and in the database: lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Deleted => "deleted",
        }
    }

    /// The name in `status.phase`: as Kubernetes writes phases.
    pub const fn phase(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
            Self::Deleted => "Deleted",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no state.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a state: expected one of pending, running, paused, stopped, failed, deleted")]
pub struct NotAState(String);

impl FromStr for State {
    type Err = NotAState;

    fn from_str(text: &str) -> Result<Self, NotAState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| NotAState(text.to_owned()))
    }
}

/// A step from one state to the next that the table allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    from: Option<State>,
    to: State,
}

/// Two states between which there is no step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no transition from {} to {to}", from.map_or("nothing", State::as_str))]
pub struct NoSuchTransition {
    /// The state before; none for an object without history.
    pub from: Option<State>,
    /// The state asked for.
    pub to: State,
}

/// Every transition that exists, and when it happens. Nothing else can be written down.
pub const TRANSITIONS: &[(Option<State>, State, &str)] = &[
    (None, State::Pending, "the object is accepted"),
    (Some(State::Pending), State::Running, "all replicas are ready"),
    (Some(State::Pending), State::Failed, "it cannot start as asked"),
    (Some(State::Pending), State::Stopped, "it is told to stop, or deleted, before it ran"),
    (Some(State::Running), State::Running, "restarted, scaled or given a new release"),
    (Some(State::Running), State::Paused, "taken out of its Service: paused, or draining before a stop"),
    (Some(State::Running), State::Failed, "it stopped working"),
    (Some(State::Paused), State::Running, "back in its Service"),
    (Some(State::Paused), State::Stopped, "drained and scaled to zero"),
    (Some(State::Paused), State::Failed, "it stopped working while paused"),
    (Some(State::Failed), State::Pending, "tried again: repaired, changed or recovered"),
    (Some(State::Failed), State::Stopped, "told to stop, or deleted, after it failed"),
    (Some(State::Stopped), State::Pending, "started again"),
    (Some(State::Stopped), State::Deleted, "deleted"),
];

impl Transition {
    /// The transition from `from` to `to`, if there is one.
    pub fn new(from: Option<State>, to: State) -> Result<Self, NoSuchTransition> {
        if TRANSITIONS.iter().any(|&(a, b, _)| (a, b) == (from, to)) {
            Ok(Self { from, to })
        } else {
            Err(NoSuchTransition { from, to })
        }
    }

    /// The state before; none for the first of a life.
    pub const fn from(self) -> Option<State> {
        self.from
    }

    /// The state after.
    pub const fn to(self) -> State {
        self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_designs_edges_exist() {
        let mut edges = String::new();
        for from in [None].into_iter().chain(State::ALL.map(Some)) {
            let to: Vec<_> =
                State::ALL.iter().filter(|&&to| Transition::new(from, to).is_ok()).map(|s| s.as_str()).collect();
            edges += &format!("{} → {}\n", from.map_or("(none)", State::as_str), to.join(" | "));
        }
        insta::assert_snapshot!(edges, @r"
        (none) → pending
        pending → running | stopped | failed
        running → running | paused | failed
        paused → running | stopped | failed
        stopped → pending | deleted
        failed → pending | stopped
        deleted → 
        ");
    }

    #[test]
    fn names_round_trip() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!("Running".parse::<State>().is_err());
    }
}
