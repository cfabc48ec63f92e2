//! The status of a rollout, made from what was decided and seen: phase for people, conditions as the truth.
//!
//! Owns: every field of the status but the place in the chain, and the sentences. Must never: say what the targets do not show.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    plan::{Course, Plan, Sight, WavePhase},
    stage::{Stage, Trial},
    target::Target,
};
use crate::{
    api::{
        deployment::{DeploymentStatus, Recorded, TargetStatus, WaveStatus},
        release::Step,
    },
    chain::{SYNCED, Untold},
    ledger::{Micros, visible},
};

/// The longest message of a condition, in characters.
const MAX_MESSAGE: usize = 1_024;
/// How many failures the status names.
const MAX_FAILURES: usize = 20;
/// How many targets a sentence names.
const MAX_NAMES: usize = 5;

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// It does nothing: somebody else has its targets.
    Refused(String),
    /// Nothing more is begun, as asked.
    Paused,
    /// On the way.
    Progressing(&'static str, String),
    /// Somebody has to approve.
    AwaitingApproval(String),
    /// Waiting, to see whether it stays well.
    Soaking(String),
    /// It stands, and will not go on by itself.
    Failed(&'static str, String),
    /// The release is being taken back.
    RollingBack(String),
    /// It is taken back. Not as desired where nobody asked for it.
    RolledBack { asked: bool, message: String },
    /// All is done.
    Complete(String),
}

impl Standing {
    const fn phase(&self) -> &'static str {
        match self {
            Self::Refused(_) => "Refused",
            Self::Paused => "Paused",
            Self::Progressing(..) => "Progressing",
            Self::AwaitingApproval(_) => "AwaitingApproval",
            Self::Soaking(_) => "Soaking",
            Self::Failed(..) => "Failed",
            Self::RollingBack(_) => "RollingBack",
            Self::RolledBack { .. } => "RolledBack",
            Self::Complete(_) => "Complete",
        }
    }

    fn words(&self) -> (&'static str, String) {
        match self {
            Self::Refused(message) => ("Conflict", message.clone()),
            Self::Paused => ("Paused", "spec.paused is true: nothing more is begun".to_owned()),
            Self::Progressing(reason, message) | Self::Failed(reason, message) => (reason, message.clone()),
            Self::AwaitingApproval(message) => ("AwaitingApproval", message.clone()),
            Self::Soaking(message) => ("Soaking", message.clone()),
            Self::RollingBack(message) => ("RollingBack", message.clone()),
            Self::RolledBack { message, .. } => ("RolledBack", message.clone()),
            Self::Complete(message) => ("Complete", message.clone()),
        }
    }
}

fn standing(sight: &Sight<'_>, plan: &Plan) -> Standing {
    let rollout = sight.rollout;
    if let Some(conflict) = sight.conflict {
        return Standing::Refused(format!(
            "TenantContainer {} is selected by Deployment {} too, which is older: nothing is rolled out by this one until \
             one of the two selects less",
            conflict.target, conflict.first
        ));
    }
    let by = |wanted: fn(&Stage) -> bool| names(sight.targets, plan, wanted);
    let has_release = |stage: &Stage| matches!(stage, Stage::Has(Step::Released, _));
    if plan.course != Course::Forward {
        let asked = plan.course == Course::BackAsAsked;
        let left = plan.stages.iter().filter(|stage| has_release(stage)).count();
        let under = plan.stages.iter().filter(|stage| matches!(stage, Stage::Has(_, Trial::Under(_)))).count();
        let (broken, who) = by(|stage| matches!(stage, Stage::Has(Step::RolledBack, Trial::Failed { .. })));
        let why = if asked { "as spec.rollBack asks" } else { "since more targets failed than were allowed" };
        return match (left, under, broken) {
            (0, 0, 0) => Standing::RolledBack {
                asked,
                message: format!("every target has back what it had before, {why}{}", again(asked)),
            },
            (0, 0, _) => Standing::Failed(
                "RollbackFailed",
                format!("what {broken} targets had before does not work either: {who}"),
            ),
            _ if rollout.paused => Standing::Paused,
            _ => {
                Standing::RollingBack(format!("{left} targets still have the release, {under} are on their way; {why}"))
            }
        };
    }
    if let Some(index) = plan.waves.iter().position(|wave| wave.phase == WavePhase::Failed) {
        let (count, who) = by(|stage| matches!(stage, Stage::Has(Step::Released, Trial::Failed { .. })));
        return Standing::Failed(
            "GateFailed",
            format!(
                "wave {} allows {} failed targets; {count} failed: {who}. Nothing more is begun, and what works is kept. It goes \
                 on once they are well; or roll back, or allow more",
                rollout.waves[index].name, rollout.waves[index].max_failures
            ),
        );
    }
    let wave = &rollout.waves[plan.active];
    let view = &plan.waves[plan.active];
    let name = &wave.name;
    match view.phase {
        WavePhase::Done => Standing::Complete(complete(plan)),
        _ if rollout.paused => Standing::Paused,
        WavePhase::AwaitingApproval => Standing::AwaitingApproval(format!(
            "wave {name} has to be approved: berth rollout approve {} -n {}",
            rollout.name, rollout.namespace
        )),
        WavePhase::Soaking(_) => Standing::Soaking(format!(
            "all of wave {name} is past the gate and has to stay well for {} s",
            wave.soak_seconds
        )),
        WavePhase::Waiting | WavePhase::Progressing | WavePhase::Failed => {
            let (refused, which) = by(|stage| matches!(stage, Stage::Refused(_)));
            if refused > 0 {
                let why = plan.stages.iter().find_map(|stage| match stage {
                    Stage::Refused(why) => Some(why.as_str()),
                    _ => None,
                });
                let why = why.unwrap_or_default();
                return Standing::Failed(
                    "TargetRefused",
                    format!("the API server did not take the release for {refused} targets ({which}): {why}"),
                );
            }
            let waits = plan.stages.contains(&Stage::Waiting);
            let moves = plan.stages.iter().any(|stage| matches!(stage, Stage::Has(_, Trial::Under(_))));
            if waits && !moves && plan.effects.is_empty() && plan.out.len() >= plan.limit {
                let out = plan.out.iter().filter_map(|i| sight.targets.get(*i)).map(Target::to_name);
                let message = format!(
                    "{} targets are out of service, and maxUnavailable of wave {name} is {}: {}",
                    plan.out.len(),
                    plan.limit,
                    some_of(out)
                );
                return Standing::Failed("TooManyUnavailable", message);
            }
            Standing::Progressing(
                "Progressing",
                format!(
                    "wave {name}: {} of {} have the release, {} are past the gate",
                    view.released, view.targets, view.done
                ),
            )
        }
    }
}

fn again(asked: bool) -> &'static str {
    if asked { "" } else { "; raise spec.attempt to try the same release once more" }
}

fn complete(plan: &Plan) -> String {
    let total = |count: fn(&Stage) -> bool| plan.stages.iter().filter(|stage| count(stage)).count();
    let done = total(|stage| matches!(stage, Stage::Has(_, Trial::Passed(_))));
    let mut text = format!("{done} of {} targets have the release and are past the gate", plan.stages.len());
    for (count, what) in [
        (total(|stage| matches!(stage, Stage::Has(_, Trial::Failed { .. }))), "failed, as many as the waves allow"),
        (total(|stage| matches!(stage, Stage::Diverged)), "had their image edited since"),
        (total(|stage| matches!(stage, Stage::Skipped)), "are left alone, as their annotation asks"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {what}"));
        }
    }
    text
}

/// How many targets stand so, and the names of the first.
fn names(targets: &[Target], plan: &Plan, wanted: impl Fn(&Stage) -> bool) -> (usize, String) {
    let which: Vec<String> = targets
        .iter()
        .zip(&plan.stages)
        .filter(|(_, stage)| wanted(stage))
        .map(|(target, stage)| match stage {
            Stage::Has(_, Trial::Failed { reason, .. }) => format!("{} ({reason})", target.to_name()),
            _ => target.to_name(),
        })
        .collect();
    (which.len(), some_of(which.into_iter()))
}

fn some_of(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    let text = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

/// The status of a rollout for which `plan` was made from `sight`.
pub fn of(before: &DeploymentStatus, sight: &Sight<'_>, plan: &Plan) -> DeploymentStatus {
    let rollout = sight.rollout;
    let standing = standing(sight, plan);
    let count = |wanted: fn(&Stage) -> bool| integer(plan.stages.iter().filter(|stage| wanted(stage)).count());
    let done = count(|stage| matches!(stage, Stage::Has(Step::Released, Trial::Passed(_))));
    let waves = rollout.waves.iter().zip(&plan.waves).map(|(wave, view)| WaveStatus {
        name: wave.name.clone(),
        phase: view.phase.as_str().to_owned(),
        targets: integer(view.targets),
        released: integer(view.released),
        done: integer(view.done),
        failed: integer(view.failed),
        approved_by: rollout.approval(wave).and_then(|approval| approval.by.clone()),
    });
    DeploymentStatus {
        observed_generation: rollout.generation,
        phase: Some(standing.phase().to_owned()),
        conditions: conditions(before, sight, plan, &standing),
        revision: Some(rollout.revision.clone()),
        progress: Some(format!("{done}/{}", plan.stages.len())),
        wave: Some(format!("{} of {}", plan.active + 1, plan.waves.len())),
        targets: integer(plan.stages.len()),
        released: count(|stage| matches!(stage, Stage::Has(Step::Released, _))),
        done,
        failed: count(|stage| matches!(stage, Stage::Has(Step::Released, Trial::Failed { .. }))),
        rolled_back: count(|stage| matches!(stage, Stage::Has(Step::RolledBack, _))),
        diverged: count(|stage| matches!(stage, Stage::Diverged)),
        skipped: count(|stage| matches!(stage, Stage::Skipped)),
        waves: waves.collect(),
        failures: failures(sight, plan),
        // The chain's.
        recorded: before.recorded.clone(),
        ledger: before.ledger.clone(),
    }
}

fn integer(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn failures(sight: &Sight<'_>, plan: &Plan) -> Vec<TargetStatus> {
    let wrong = sight.targets.iter().zip(&plan.stages).filter_map(|(target, stage)| {
        let (reason, message) = match stage {
            Stage::Has(_, Trial::Failed { reason, message }) => (reason.as_str(), message.as_str()),
            Stage::Refused(why) => ("ReleaseRefused", why.as_str()),
            Stage::Diverged => ("Diverged", "spec.image was edited after the release, which is void now"),
            _ => return None,
        };
        Some(TargetStatus {
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            reason: reason.to_owned(),
            message: visible(message, MAX_MESSAGE),
        })
    });
    wrong.take(MAX_FAILURES).collect()
}

fn conditions(before: &DeploymentStatus, sight: &Sight<'_>, plan: &Plan, standing: &Standing) -> Vec<Condition> {
    let (reason, message) = standing.words();
    let is = |yes: bool| if yes { "True" } else { "False" };
    let (ready, reconciling, stalled) = match standing {
        Standing::Complete(_) | Standing::RolledBack { asked: true, .. } => (true, false, false),
        Standing::Progressing(..) | Standing::AwaitingApproval(_) | Standing::Soaking(_) | Standing::RollingBack(_) => {
            (false, true, false)
        }
        Standing::Paused => (false, false, false),
        Standing::Refused(_) | Standing::Failed(..) | Standing::RolledBack { asked: false, .. } => (false, false, true),
    };
    // As apps/v1 has it: True also once it is complete, Unknown while paused.
    let progressing = match standing {
        Standing::Paused => "Unknown",
        _ => is(!stalled),
    };
    let mut all = vec![
        ("Ready", is(ready), reason, message.clone()),
        ("Reconciling", is(reconciling), reason, message.clone()),
        ("Stalled", is(stalled), reason, message.clone()),
        ("Progressing", progressing, reason, message),
    ];
    let (diverged, who) = names(sight.targets, plan, |stage| *stage == Stage::Diverged);
    all.push(match diverged {
        0 => ("Diverged", "False", "NoneEdited", "every target that has the release runs it".to_owned()),
        _ => (
            "Diverged",
            "True",
            "ImageEdited",
            format!("spec.image of {diverged} targets was edited after the release, which is void there: {who}"),
        ),
    });
    all.push(match standing {
        Standing::Refused(message) => ("Conflict", "True", "TargetTaken", message.clone()),
        _ => ("Conflict", "False", "NoneTaken", "no other Deployment has its targets".to_owned()),
    });
    let since = |name: &str, status: &str| {
        let old = before.conditions.iter().find(|old| old.type_ == name && old.status == status);
        old.map_or_else(|| whole_second(sight.now), |old| old.last_transition_time.clone())
    };
    let made = all.into_iter().map(|(name, status, reason, message)| Condition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: visible(&message, MAX_MESSAGE),
        last_transition_time: since(name, status),
        observed_generation: Some(sight.rollout.generation),
    });
    made.collect()
}

/// What is shown instead of `shown` where the ledger does not have that yet: what is counted, and the phases of `before`.
pub fn untold(before: &DeploymentStatus, shown: &DeploymentStatus, why: Untold<'_>, now: Micros) -> DeploymentStatus {
    let (reason, message, is_stuck) = why.words();
    let of_ledger = |one: &Condition| one.type_ == SYNCED;
    let condition = |one: &Condition| {
        let status = match one.type_.as_str() {
            "Ready" => "False",
            "Reconciling" if is_stuck => "False",
            "Reconciling" => "True",
            "Stalled" if is_stuck => "True",
            "Stalled" => "False",
            _ => return one.clone(),
        };
        let old = before.conditions.iter().find(|old| old.type_ == one.type_ && old.status == status);
        Condition {
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: visible(&message, MAX_MESSAGE),
            last_transition_time: old.map_or_else(|| whole_second(now), |old| old.last_transition_time.clone()),
            ..one.clone()
        }
    };
    let is_ahead = matches!(why, Untold::Ahead);
    let conditions: Vec<Condition> = match (before.conditions.iter().any(|one| !of_ledger(one)), is_ahead) {
        (true, true) => before.conditions.iter().filter(|one| !of_ledger(one)).cloned().collect(),
        (true, false) => before.conditions.iter().filter(|one| !of_ledger(one)).map(condition).collect(),
        (false, _) => shown.conditions.iter().map(condition).collect(),
    };
    DeploymentStatus {
        // Else the next pass would not know that there was something which nobody saw.
        observed_generation: before.observed_generation,
        phase: before.phase.clone(),
        conditions,
        revision: before.revision.clone(),
        wave: before.wave.clone(),
        waves: before.waves.clone(),
        ..shown.clone()
    }
}

/// A status that shows what was recorded, as far as [`news`] looks.
pub fn as_recorded(told: &Recorded) -> DeploymentStatus {
    let waves = told.waves.iter().map(|wave| WaveStatus {
        name: wave.name.clone(),
        phase: wave.phase.clone(),
        ..WaveStatus::default()
    });
    DeploymentStatus {
        revision: Some(told.revision.clone()),
        phase: Some(told.phase.clone()),
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: String::new(),
            reason: told.reason.clone(),
            message: String::new(),
            last_transition_time: whole_second(Micros(0)),
            observed_generation: None,
        }],
        waves: waves.collect(),
        diverged: i32::MAX,
        ..DeploymentStatus::default()
    }
}

/// Whole seconds: that is all the API keeps.
pub fn whole_second(now: Micros) -> Time {
    Time(jiff::Timestamp::from_second(now.0.div_euclid(1_000_000)).unwrap_or_default())
}

/// Whether one status differs from the other in nothing but what it counts: another one follows soon, and says it all. Never
/// where the chain has moved.
pub fn is_mere_count(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let essence = |status: &DeploymentStatus| {
        let conditions = status.conditions.iter();
        (
            status.observed_generation,
            status.phase.clone(),
            status.revision.clone(),
            status.wave.clone(),
            status.failed,
            status.diverged,
            conditions.map(|one| (one.type_.clone(), one.status.clone(), one.reason.clone())).collect::<Vec<_>>(),
            status.waves.iter().map(|wave| wave.phase.clone()).collect::<Vec<_>>(),
            status.ledger.clone(),
        )
    };
    essence(before) == essence(after)
}

/// Something worth an Event: a wave that began or ended, or the rollout's own turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Somebody has to do something.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What has changed from one status to the next. With the first one wiped, what is now is told once more.
pub fn news(before: &DeploymentStatus, after: &DeploymentStatus) -> Vec<News> {
    let mut all = vec![];
    let mut tell = |warning, reason: &str, message: String| {
        all.push(News { warning, reason: reason.to_owned(), message });
    };
    let same_release = before.revision == after.revision;
    for wave in &after.waves {
        let old = before.waves.iter().find(|old| old.name == wave.name).filter(|_| same_release);
        let was = old.map_or("Waiting", |old| old.phase.as_str());
        if was == wave.phase {
            continue;
        }
        let WaveStatus { name, phase, targets, done, failed, approved_by, .. } = wave;
        match phase.as_str() {
            "Progressing" if !matches!(was, "Waiting" | "AwaitingApproval") => tell(
                false,
                "WaveProgressing",
                format!("wave {name} is at work again: {done} of {targets} targets are past the gate"),
            ),
            "Progressing" => {
                let by = approved_by.as_ref().map(|by| format!(", approved by {by}")).unwrap_or_default();
                tell(false, "WaveStarted", format!("wave {name} begins: {targets} targets{by}"));
            }
            "Done" => tell(
                false,
                "WaveDone",
                format!("wave {name} is through: {done} of {targets} targets are past the gate, {failed} failed"),
            ),
            _ => {}
        }
    }
    let reason = |status: &DeploymentStatus| status.conditions.first().map(|condition| condition.reason.clone());
    if (&before.phase, reason(before)) != (&after.phase, reason(after)) || !same_release {
        let words = after.conditions.first().map(|condition| (condition.reason.clone(), condition.message.clone()));
        let (reason, message) = words.unwrap_or_default();
        let warning =
            after.conditions.iter().any(|condition| condition.type_ == "Stalled" && condition.status == "True");
        tell(warning, &reason, message);
    }
    if after.diverged > before.diverged {
        let message = after.conditions.iter().find(|condition| condition.type_ == "Diverged");
        tell(true, "Diverged", message.map(|condition| condition.message.clone()).unwrap_or_default());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_that_comes_back_from_a_soak_does_not_begin_again() {
        let with = |phase: &str| DeploymentStatus {
            waves: vec![WaveStatus { name: "canary".to_owned(), phase: phase.to_owned(), ..WaveStatus::default() }],
            ..DeploymentStatus::default()
        };
        let reasons = |from: &str, to: &str| -> Vec<String> {
            news(&with(from), &with(to)).into_iter().map(|news| news.reason).collect()
        };
        assert_eq!(reasons("AwaitingApproval", "Progressing"), ["WaveStarted"]);
        assert_eq!(reasons("Soaking", "Progressing"), ["WaveProgressing"]);
        assert_eq!(reasons("Progressing", "Progressing"), Vec::<String>::new());
    }
}
