//! The way from a state to a goal, one hop at a time: a request that spans several states walks every one of them.

use super::{State, Transition};

/// Where a service should end up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// `desiredState: Running`.
    Running,
    /// `desiredState: Stopped`.
    Stopped,
    /// The object is being deleted.
    Deleted,
}

/// The next hop from `state` towards `goal`; none where `state` is the goal's own.
///
/// Whether the hop may be taken *now* (pods ready, drained, scaled to zero) is the planner's question.
pub fn next_hop(state: Option<State>, goal: Goal) -> Option<Transition> {
    let to = match (state, goal) {
        (None, _) => State::Pending,
        (Some(State::Pending | State::Paused), Goal::Running) => State::Running,
        (Some(State::Failed | State::Stopped), Goal::Running) => State::Pending,
        (Some(State::Running), Goal::Running) => return None,
        (Some(State::Running), Goal::Stopped | Goal::Deleted) => State::Paused,
        (Some(State::Pending | State::Paused | State::Failed), Goal::Stopped | Goal::Deleted) => State::Stopped,
        (Some(State::Stopped), Goal::Stopped) => return None,
        (Some(State::Stopped), Goal::Deleted) => State::Deleted,
        (Some(State::Deleted), _) => return None,
    };
    Transition::new(state, to).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(mut state: Option<State>, goal: Goal) -> Vec<State> {
        let mut hops = vec![];
        while let Some(hop) = next_hop(state, goal) {
            assert!(hops.len() < 8, "{state:?} never reaches {goal:?}: {hops:?}");
            hops.push(hop.to());
            state = Some(hop.to());
        }
        hops
    }

    #[test]
    fn stop_and_delete_of_a_running_service_walk_through_paused() {
        assert_eq!(walk(Some(State::Running), Goal::Stopped), [State::Paused, State::Stopped]);
        assert_eq!(walk(Some(State::Running), Goal::Deleted), [State::Paused, State::Stopped, State::Deleted]);
    }

    #[test]
    fn every_goal_is_reached_from_every_live_state() {
        for state in [None].into_iter().chain(State::ALL.map(Some)).filter(|s| *s != Some(State::Deleted)) {
            for (goal, end) in
                [(Goal::Running, State::Running), (Goal::Stopped, State::Stopped), (Goal::Deleted, State::Deleted)]
            {
                assert_eq!(walk(state, goal).last().copied().or(state), Some(end), "{state:?} to {goal:?}");
            }
        }
    }

    #[test]
    fn what_is_deleted_stays_so() {
        assert_eq!(walk(Some(State::Deleted), Goal::Running), []);
    }
}
