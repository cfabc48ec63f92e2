//! How long a release has held: the longest that the service was Ready, and Available, in one go with it. Conditions tell
//! only of the present, and a rollout has to know whether what fails now had once worked for as long as its gate asks.
//!
//! Owns: that measure, written where a condition comes to its end and so with a write that is made anyway. Must never: know
//! any rollout's gate.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::validate::time;
use crate::{api::tenant_container::ReleaseStatus, ledger::Micros};

/// `release` after its service's conditions went from `before` to `after`.
pub fn entered(release: ReleaseStatus, before: &[Condition], after: &[Condition], now: Micros) -> ReleaseStatus {
    let ended = |name: &str| {
        let is_true = |condition: &&Condition| condition.type_ == name && condition.status == "True";
        let old = before.iter().find(is_true).filter(|_| !after.iter().any(|condition| is_true(&condition)))?;
        let begun = release.since.parse::<jiff::Timestamp>().ok()?.as_second();
        let since = time(&old.last_transition_time).0.div_euclid(1_000_000).max(begun);
        Some(now.0.div_euclid(1_000_000).saturating_sub(since).max(0))
    };
    let ready_seconds = release.ready_seconds.max(ended("Ready"));
    let available_seconds = release.available_seconds.max(ended("Available"));
    ReleaseStatus { ready_seconds, available_seconds, ..release }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Micros {
        Micros(second * 1_000_000)
    }

    fn ready(is: &str, since: i64) -> Vec<Condition> {
        vec![Condition {
            type_: "Ready".into(),
            status: is.into(),
            last_transition_time: Time(jiff::Timestamp::from_second(since).unwrap()),
            message: String::new(),
            observed_generation: None,
            reason: "Some".into(),
        }]
    }

    #[test]
    fn the_longest_stretch_counts_and_only_once_it_has_ended() {
        let new = json!({"image": "a", "rollout": "n/r", "uid": "u", "revision": "1", "step": "Released",
            "since": "1970-01-01T00:01:40.000000Z"});
        let new: ReleaseStatus = serde_json::from_value(new).unwrap();
        // Ready before the release was in effect is not ready with it.
        let first = entered(new.clone(), &ready("True", 50), &ready("False", 105), at(105));
        assert_eq!((first.ready_seconds, first.available_seconds), (Some(5), None));
        assert_eq!(entered(first.clone(), &ready("True", 200), &ready("True", 200), at(300)), first);
        let longer = entered(first, &ready("True", 200), &ready("Unknown", 300), at(300));
        assert_eq!(longer.ready_seconds, Some(100));
        assert_eq!(entered(longer.clone(), &ready("True", 400), &ready("False", 401), at(401)), longer);
        // A clock that was set back makes nothing negative.
        assert_eq!(entered(new, &ready("True", 200), &ready("False", 150), at(150)).ready_seconds, Some(0));
    }
}
