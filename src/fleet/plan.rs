//! From a rollout, its targets as observed, and the time: which target gets what now, how far it all is, and when to look again.
//!
//! Nothing but the targets is read: which of them have the release, and what works, follows from what each carries and shows.
//! So whoever plans next, after a crash or with the rollout's status gone, comes to the same.
//!
//! Owns: those decisions. Must never: do I/O, read a clock, or look at a rollout's status.

use std::collections::BTreeMap;

use super::{
    rollout::{Rollout, seconds},
    select::Conflict,
    stage::{Stage, Trial, stage},
    target::Target,
    waves::{Places, limit, place},
};
use crate::{
    api::{
        deployment::OnFailure,
        release::{Content, Release, Step},
    },
    ledger::Micros,
};

/// Everything that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// What is rolled out.
    pub rollout: &'a Rollout,
    /// All targets, in the order of namespace and name.
    pub targets: &'a [Target],
    /// Who else has one of them.
    pub conflict: Option<&'a Conflict>,
    /// Why the API server did not take a release, by the uid of the target; of this pass.
    pub refused: &'a BTreeMap<String, String>,
    /// The time.
    pub now: Micros,
}

/// One thing to do: write `spec.release` of this target, if it still is as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Namespace of the target.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version that was seen.
    pub resource_version: String,
    /// What it gets.
    pub release: Release,
}

/// Which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// The release is given.
    Forward,
    /// It is taken back, as somebody asked.
    BackAsAsked,
    /// It is taken back, since too many targets failed.
    BackAfterFailure,
}

/// Where a wave is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WavePhase {
    /// Its turn has not come.
    Waiting,
    /// Its turn has come, and somebody has to approve it.
    AwaitingApproval,
    /// Targets get the release, or are on trial with it.
    Progressing,
    /// All is well, and has to stay so until then.
    Soaking(Micros),
    /// More targets have failed than it allows.
    Failed,
    /// It is through.
    Done,
}

impl WavePhase {
    /// The word in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::Progressing => "Progressing",
            Self::Soaking(_) => "Soaking",
            Self::Failed => "Failed",
            Self::Done => "Done",
        }
    }
}

/// How far a wave is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaveView {
    /// Where it is.
    pub phase: WavePhase,
    /// Targets in it.
    pub targets: usize,
    /// Those that have the release.
    pub released: usize,
    /// Those past the gate.
    pub done: usize,
    /// Those that failed.
    pub failed: usize,
}

/// What should be done, and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to write. In any order: each is about another target.
    pub effects: Vec<Effect>,
    /// Which way it goes.
    pub course: Course,
    /// How each target stands, in the order of the targets.
    pub stages: Vec<Stage>,
    /// Each wave.
    pub waves: Vec<WaveView>,
    /// The wave that is under way, by its place.
    pub active: usize,
    /// Targets that are out of service, or on their way: what `maxUnavailable` counts.
    pub out: Vec<usize>,
    /// How many may be.
    pub limit: usize,
    /// When to look again, if nothing happens before.
    pub look_again: Option<Micros>,
}

/// What to do now.
pub fn plan(sight: Sight<'_>) -> Plan {
    let Sight { rollout, targets, conflict, refused, now } = sight;
    let Places { of: places, begun, reached } = place(rollout, targets);
    let stages: Vec<Stage> = targets
        .iter()
        .zip(&places)
        .map(|(target, wave)| match stage(rollout, target, &rollout.waves[*wave].gate, now) {
            Stage::Waiting if let Some(why) = refused.get(&target.uid) => Stage::Refused(why.clone()),
            stage => stage,
        })
        .collect();
    let mut waves: Vec<WaveView> = (0..rollout.waves.len()).map(|wave| count(&stages, &places, wave)).collect();
    let active = judge(rollout, &stages, &places, &mut waves, begun, now);
    let course = course(rollout, &stages, &waves);
    // Waves whose turn has not come are not this rollout's doing.
    let concerned = |i: &usize| places[*i] <= active || matches!(stages[*i], Stage::Has(..));
    let out: Vec<usize> = (0..targets.len()).filter(|i| concerned(i) && stages[*i].is_out(&targets[*i])).collect();
    let limit = match course {
        Course::Forward => limit(&rollout.waves[active], waves[active].targets),
        // As fast as the fastest wave that was reached.
        _ => (0..=reached).map(|wave| limit(&rollout.waves[wave], waves[wave].targets)).max().unwrap_or(1),
    };
    let chosen = match course {
        _ if rollout.paused || conflict.is_some() => vec![],
        Course::Forward if matches!(waves[active].phase, WavePhase::Progressing) && !has_failed(&waves) => {
            forward(targets, &stages, &places, active, &out, limit)
        }
        Course::Forward => vec![],
        Course::BackAsAsked | Course::BackAfterFailure => back(targets, &stages, &out, limit),
    };
    let effects = chosen.into_iter().map(|i| effect(rollout, &targets[i], places[i], course)).collect();
    let of_stages = stages.iter().filter_map(|stage| match stage {
        Stage::Has(_, Trial::Under(until)) => *until,
        _ => None,
    });
    let of_waves = waves.iter().filter_map(|wave| match wave.phase {
        WavePhase::Soaking(until) => Some(until),
        _ => None,
    });
    let look_again = of_stages.chain(of_waves).filter(|at| *at > now).min();
    Plan { effects, course, stages, waves, active, out, limit, look_again }
}

fn count(stages: &[Stage], places: &[usize], wave: usize) -> WaveView {
    let mut view = WaveView { phase: WavePhase::Waiting, targets: 0, released: 0, done: 0, failed: 0 };
    for stage in members(stages, places, wave) {
        view.targets += 1;
        match stage {
            Stage::Has(Step::Released, trial) => {
                view.released += 1;
                match trial {
                    Trial::Under(_) => {}
                    Trial::Passed(_) => view.done += 1,
                    Trial::Failed { .. } => view.failed += 1,
                }
            }
            Stage::Has(Step::RolledBack, _) | Stage::Waiting | Stage::Refused(_) | Stage::Skipped | Stage::Diverged => {
            }
        }
    }
    view
}

fn members<'a>(stages: &'a [Stage], places: &'a [usize], wave: usize) -> impl Iterator<Item = &'a Stage> {
    stages.iter().zip(places).filter(move |(_, place)| **place == wave).map(|(stage, _)| stage)
}

/// The phase of each wave; answers which one is under way. A wave is passed for good once a later one has begun, but for
/// its failures.
fn judge(
    rollout: &Rollout,
    stages: &[Stage],
    places: &[usize],
    waves: &mut [WaveView],
    begun: usize,
    now: Micros,
) -> usize {
    let mut active = None;
    for (index, (wave, view)) in rollout.waves.iter().zip(&mut *waves).enumerate() {
        view.phase = if view.failed > usize::try_from(wave.max_failures).unwrap_or(0) {
            WavePhase::Failed
        } else if active.is_some() {
            WavePhase::Waiting
        } else if index < begun {
            WavePhase::Done
        } else {
            match settled(stages, places, index) {
                None if rollout.is_approved(wave) => WavePhase::Progressing,
                None => WavePhase::AwaitingApproval,
                // Nobody is in it, or nobody that got anything: nothing has to soak.
                Some(None) => WavePhase::Done,
                Some(Some(since)) => {
                    let until = Micros(since.0.saturating_add(seconds(wave.soak_seconds)));
                    if until <= now { WavePhase::Done } else { WavePhase::Soaking(until) }
                }
            }
        };
        if view.phase != WavePhase::Done && active.is_none() && index >= begun {
            active = Some(index);
        }
    }
    active.unwrap_or(rollout.waves.len() - 1)
}

/// None while a target of the wave has still to get the release or to pass the gate, or may fail; else the last time that one
/// passed, if one did.
fn settled(stages: &[Stage], places: &[usize], wave: usize) -> Option<Option<Micros>> {
    let mut last = None;
    for stage in members(stages, places, wave) {
        match stage {
            Stage::Waiting | Stage::Refused(_) | Stage::Has(_, Trial::Under(_)) | Stage::Has(Step::RolledBack, _) => {
                return None;
            }
            Stage::Has(Step::Released, Trial::Passed(since)) => last = last.max(Some(*since)),
            Stage::Has(Step::Released, Trial::Failed { .. }) | Stage::Skipped | Stage::Diverged => {}
        }
    }
    Some(last)
}

fn has_failed(waves: &[WaveView]) -> bool {
    waves.iter().any(|wave| wave.phase == WavePhase::Failed)
}

fn course(rollout: &Rollout, stages: &[Stage], waves: &[WaveView]) -> Course {
    let has_begun = || stages.iter().any(|stage| matches!(stage, Stage::Has(Step::RolledBack, _)));
    if rollout.roll_back {
        Course::BackAsAsked
    } else if rollout.on_failure == OnFailure::RollBack && (has_failed(waves) || has_begun()) {
        Course::BackAfterFailure
    } else {
        Course::Forward
    }
}

/// Who gets the release now: first those that are out of service anyway, which costs nobody anything; then others, as long as
/// no more are out than may be. In any case no more are on trial at once than may be out.
fn forward(
    targets: &[Target],
    stages: &[Stage],
    places: &[usize],
    active: usize,
    out: &[usize],
    limit: usize,
) -> Vec<usize> {
    let is_next =
        |i: &usize| places[*i] == active && matches!(stages[*i], Stage::Waiting | Stage::Has(Step::RolledBack, _));
    let (broken, sound): (Vec<_>, Vec<_>) = (0..targets.len()).filter(is_next).partition(|i| is_down(&targets[*i]));
    let trials = stages.iter().filter(|stage| stage.is_under_way()).count();
    let room = limit.saturating_sub(trials);
    let spare = limit.saturating_sub(out.len()).min(room);
    let broken: Vec<usize> = broken.into_iter().take(room).collect();
    let rest = room - broken.len();
    broken.into_iter().chain(sound.into_iter().take(spare.min(rest))).collect()
}

/// Who gets back what it had: all that do not work at once, and others as long as no more are out than may be.
fn back(targets: &[Target], stages: &[Stage], out: &[usize], limit: usize) -> Vec<usize> {
    let is_next = |i: &usize| matches!(stages[*i], Stage::Has(Step::Released, _));
    let is_broken = |i: &usize| matches!(stages[*i], Stage::Has(_, Trial::Failed { .. })) || is_down(&targets[*i]);
    let (broken, sound): (Vec<_>, Vec<_>) = (0..targets.len()).filter(is_next).partition(is_broken);
    let spare = limit.saturating_sub(out.len());
    // One that is on trial is among those that are out: nothing is lost by taking it.
    let (trying, sound): (Vec<_>, Vec<_>) = sound.into_iter().partition(|i| out.contains(i));
    broken.into_iter().chain(trying).chain(sound.into_iter().take(spare)).collect()
}

/// Whether a target is seen not to serve, though it should. One that nobody has looked at since its spec changed may serve well.
fn is_down(target: &Target) -> bool {
    target.is_to_serve && target.seen.as_ref().is_some_and(|seen| !seen.available.is)
}

fn effect(rollout: &Rollout, target: &Target, wave: usize, course: Course) -> Effect {
    let (content, step, previous) = match course {
        Course::Forward => (rollout.content.clone(), Step::Released, Some(target.content.clone())),
        Course::BackAsAsked | Course::BackAfterFailure => {
            let own = Content { image: target.image.clone(), resources: None, env: vec![] };
            let before = target.release.as_ref().and_then(|release| release.previous.clone());
            (before.unwrap_or(own), Step::RolledBack, None)
        }
    };
    let Content { image, resources, env } = content;
    Effect {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: target.uid.clone(),
        resource_version: target.resource_version.clone(),
        release: Release {
            image,
            resources,
            env,
            overrode: target.image.clone(),
            rollout: rollout.origin(wave, step),
            previous,
        },
    }
}
