//! Which target is in which wave.
//!
//! Owns: that decision, and how many targets a wave may take out at once. Must never: look at how a target does.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

use super::{rollout::Rollout, select, target::Target};
use crate::api::{deployment::Wave, release::Step};

/// Where the targets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The wave of each target, by its place in the rollout's waves.
    pub of: Vec<usize>,
    /// The last wave of which a target has the release.
    pub begun: usize,
    /// The last wave of which a target was given it, also where it was taken back.
    pub reached: usize,
}

/// The wave of each of `targets`.
///
/// A target that has this revision stays in the wave that it was given it in, which it carries itself. One that has not
/// joins no wave before the last that has begun: what was passed is not opened again by who comes late.
pub fn place(rollout: &Rollout, targets: &[Target]) -> Places {
    let last = rollout.waves.len().saturating_sub(1);
    let given = |target: &Target, step: Option<Step>| {
        let origin = target.release.as_ref().map(|release| &release.rollout);
        let origin =
            origin.filter(|origin| rollout.is_origin(origin) && step.is_none_or(|step| step == origin.step))?;
        Some(usize::try_from(origin.wave - 1).unwrap_or(0).min(last))
    };
    let mut places: Vec<Option<usize>> = targets.iter().map(|target| given(target, Some(Step::Released))).collect();
    let begun = places.iter().flatten().max().copied().unwrap_or(0);
    let reached = targets.iter().filter_map(|target| given(target, None)).max().unwrap_or(0);
    for (index, wave) in rollout.waves.iter().enumerate() {
        let selector = wave.selector.as_ref().and_then(select::selector);
        let mut room = room(wave, index < begun, targets.len());
        room = room.saturating_sub(places.iter().flatten().filter(|place| **place == index).count());
        for (target, place) in targets.iter().zip(&mut places) {
            if place.is_none() && room > 0 && takes(wave, selector.as_ref(), target) {
                // By its labels it may be of one that has passed.
                *place = Some(index.max(begun));
                room -= 1;
            }
        }
    }
    Places { of: places.into_iter().map(|place| place.unwrap_or(last)).collect(), begun, reached }
}

/// How many a wave takes.
fn room(wave: &Wave, is_passed: bool, all: usize) -> usize {
    match (wave.count, wave.percent) {
        (None, None) => usize::MAX,
        _ if is_passed => 0,
        (Some(count), _) => usize::try_from(count).unwrap_or(0),
        (None, Some(percent)) => (all * usize::try_from(percent).unwrap_or(0)).div_ceil(100),
    }
}

fn takes(wave: &Wave, selector: Option<&Selector>, target: &Target) -> bool {
    wave.selector.is_none() || selector.is_some_and(|selector| selector.matches(&target.labels))
}

/// How many of a wave of so many may be out at once.
pub fn limit(wave: &Wave, members: usize) -> usize {
    match &wave.max_unavailable {
        IntOrString::Int(count) => usize::try_from(*count).unwrap_or(1).max(1),
        IntOrString::String(text) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            (members * percent / 100).max(1)
        }
    }
}
