//! The way from a state to a goal, one hop at a time: a request that spans several states walks every one of them.

use super::{State, Transition};

/// Where a service should end up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// `desiredState: Running`.
    Running,
    /// `desiredState: Paused`.
    Paused,
    /// `desiredState: Stopped`.
    Stopped,
    /// The object is being deleted.
    Deleted,
}

/// The next hop from `state` towards `goal`; none where `state` is the goal's own.
///
/// Only what runs can be paused: there is no way to `Paused` but from `Running`. Whatever is asked to pause starts first,
/// out of its Service all the while.
///
/// Whether the hop may be taken *now* (pods ready, drained, scaled to zero) is the planner's question.
pub fn next_hop(state: Option<State>, goal: Goal) -> Option<Transition> {
    let to = match (state, goal) {
        (None, _) => State::Pending,
        (Some(State::Pending), Goal::Running | Goal::Paused) | (Some(State::Paused), Goal::Running) => State::Running,
        (Some(State::Failed | State::Stopped), Goal::Running | Goal::Paused) => State::Pending,
        (Some(State::Running), Goal::Running) | (Some(State::Paused), Goal::Paused) => return None,
        (Some(State::Running), Goal::Paused | Goal::Stopped | Goal::Deleted) => State::Paused,
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
    fn what_is_to_pause_runs_first_and_what_is_paused_resumes_and_stops_at_once() {
        let starting = [State::Pending, State::Running, State::Paused];
        for state in [None, Some(State::Stopped), Some(State::Failed)] {
            assert_eq!(walk(state, Goal::Paused), starting, "{state:?}");
        }
        assert_eq!(walk(Some(State::Pending), Goal::Paused), starting[1..]);
        assert_eq!(walk(Some(State::Running), Goal::Paused), [State::Paused]);
        assert_eq!(walk(Some(State::Paused), Goal::Running), [State::Running]);
        assert_eq!(walk(Some(State::Paused), Goal::Stopped), [State::Stopped]);
    }

    #[test]
    fn every_goal_is_reached_from_every_live_state() {
        for state in [None].into_iter().chain(State::ALL.map(Some)).filter(|s| *s != Some(State::Deleted)) {
            for (goal, end) in [
                (Goal::Running, State::Running),
                (Goal::Paused, State::Paused),
                (Goal::Stopped, State::Stopped),
                (Goal::Deleted, State::Deleted),
            ] {
                assert_eq!(walk(state, goal).last().copied().or(state), Some(end), "{state:?} to {goal:?}");
            }
        }
    }

    #[test]
    fn what_is_deleted_stays_so() {
        assert_eq!(walk(Some(State::Deleted), Goal::Running), []);
    }
}
