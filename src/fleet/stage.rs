//! How one target stands with a rollout.
//!
//! A release is on trial in a target from when the target's status first shows it in effect, for as long as the rollout's
//! deadline. What happens to a target later than that is not the release's doing: a rollout that was complete stays so.
//!
//! Owns: that decision. Must never: look at another target.

use super::{
    rollout::{Rollout, seconds},
    target::{Seen, Target, Told},
};
use crate::{
    api::{
        deployment::{Gate, GateCondition},
        release::Step,
    },
    ledger::Micros,
};

/// How a target stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does not have this revision.
    Waiting,
    /// It does not have it, and the API server did not take it.
    Refused(String),
    /// Berth is to leave it alone.
    Skipped,
    /// It had this revision, and its image was edited since: that counts.
    Diverged,
    /// It has what this step gives.
    Has(Step, Trial),
}

/// How what it has works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Not past the gate yet; by the clock alone, something changes then.
    Under(Option<Micros>),
    /// Past the gate, since then.
    Passed(Micros),
    /// It does not work, or took too long.
    Failed {
        /// One CamelCase word.
        reason: String,
        /// A sentence.
        message: String,
    },
}

impl Stage {
    /// Whether a target that stands so counts as out of service: it is on its way to what it was given, it failed, or it does not
    /// serve though it should, whatever the reason.
    pub fn is_out(&self, target: &Target) -> bool {
        match self {
            Self::Has(_, Trial::Under(_) | Trial::Failed { .. }) => true,
            Self::Skipped => false,
            Self::Waiting | Self::Refused(_) | Self::Diverged | Self::Has(_, Trial::Passed(_)) => {
                target.is_to_serve && !target.serves()
            }
        }
    }

    /// Whether it has the release and is not through with it.
    pub fn is_under_way(&self) -> bool {
        matches!(self, Self::Has(Step::Released, Trial::Under(_) | Trial::Failed { .. }))
    }
}

/// How `target` stands with `rollout`, behind `gate`.
pub fn stage(rollout: &Rollout, target: &Target, gate: &Gate, now: Micros) -> Stage {
    let release = target.release.as_ref().filter(|release| rollout.is_origin(&release.rollout));
    match release {
        Some(release) if !release.is_in_effect(&target.image) => Stage::Diverged,
        _ if target.left_alone => Stage::Skipped,
        None => Stage::Waiting,
        Some(release) => Stage::Has(release.rollout.step, trial(rollout, target, release.rollout.step, gate, now)),
    }
}

fn trial(rollout: &Rollout, target: &Target, step: Step, gate: &Gate, now: Micros) -> Trial {
    let Some(seen) = &target.seen else { return Trial::Under(None) };
    let shown = seen
        .release
        .as_ref()
        .filter(|(shown, _)| shown.uid == rollout.uid && shown.revision == rollout.revision && shown.step == step);
    // Until its status shows that the release is in effect, nothing that it says is about the release; but that Berth refuses to
    // work on it at all.
    let Some((_, begun)) = shown else {
        return if seen.stalled.is { failed(&seen.stalled) } else { Trial::Under(None) };
    };
    let end = Micros(begun.0.saturating_add(rollout.deadline));
    if seen.ready.is {
        return match passes_at(target, seen, gate, *begun) {
            Some(at) if at <= now => Trial::Passed(at),
            at => Trial::Under(at),
        };
    }
    if seen.ready.since > end && has_held(target, seen, gate, now) {
        return Trial::Passed(end);
    }
    if seen.stalled.is {
        return failed(&seen.stalled);
    }
    if now < end {
        return Trial::Under(Some(end));
    }
    Trial::Failed {
        reason: "ProgressDeadlineExceeded".to_owned(),
        message: format!("not ready {} s after it began: {}", rollout.deadline / 1_000_000, seen.ready.message),
    }
}

/// Whether it had worked for as long as the gate asks before it came to fail.
fn has_held(target: &Target, seen: &Seen, gate: &Gate, now: Micros) -> bool {
    let Some((release, _)) = &seen.release else { return false };
    let by_ready = release.ready_seconds;
    let held = match gate.condition {
        GateCondition::Available if target.is_to_serve && seen.available.is => {
            return by_ready.is_some() && seen.available.since.0.saturating_add(seconds(gate.seconds)) <= now.0;
        }
        GateCondition::Available => by_ready.and(release.available_seconds).max(by_ready),
        GateCondition::Ready => by_ready,
    };
    held.is_some_and(|held| held >= i64::from(gate.seconds))
}

fn failed(stalled: &Told) -> Trial {
    Trial::Failed { reason: stalled.reason.clone(), message: stalled.message.clone() }
}

/// When a target that is ready is past the gate, if nothing happens before; none where it does not serve yet.
fn passes_at(target: &Target, seen: &Seen, gate: &Gate, begun: Micros) -> Option<Micros> {
    let since = match gate.condition {
        // A target that is paused, stopped or has no replicas serves nobody, as desired.
        GateCondition::Available if target.is_to_serve => {
            if !seen.available.is {
                return None;
            }
            seen.available.since
        }
        GateCondition::Available | GateCondition::Ready => seen.ready.since.max(begun),
    };
    Some(Micros(since.0.saturating_add(seconds(gate.seconds)).max(begun.0)))
}
