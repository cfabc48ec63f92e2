//! What came of each target, as records and tables say it.
//!
//! Owns: those words, and when each began and ended. Must never: decide how a target stands.

use super::{
    plan::{Plan, Sight},
    stage::{Stage, Trial},
    target::Target,
    waves,
};
use crate::{
    api::release::Step,
    ledger::{Micros, Part, Scope, visible},
};

/// The longest message of a target, in characters: a record holds many.
const MAX_MESSAGE: usize = 200;
/// What a target takes in JSON beside its texts, in bytes; and a text no more than twice itself: all of it may be quotes.
const BESIDE_TEXTS: usize = 400;

/// One target, and what came of it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// It was given the release, or has it back.
    pub is_touched: bool,
    /// What is told of it.
    pub part: Part,
}

impl Outcome {
    /// Namespace and name: what targets are sorted by.
    pub fn name(&self) -> String {
        format!(
            "{}/{}",
            self.part.namespace.as_deref().unwrap_or_default(),
            self.part.name.as_deref().unwrap_or_default()
        )
    }
}

/// All targets, in their order.
pub fn outcomes(sight: &Sight<'_>, plan: &Plan) -> Vec<Outcome> {
    let places = waves::place(sight.rollout, sight.targets).of;
    let all = sight.targets.iter().zip(&plan.stages).zip(places);
    all.map(|((target, stage), place)| outcome(sight, target, stage, place)).collect()
}

/// The first of them that fit into so many bytes of JSON, at least.
pub fn fitting(all: &[Outcome], bytes: usize) -> &[Outcome] {
    let mut left = bytes;
    let fits = |outcome: &&Outcome| {
        let Part { wave, namespace, name, message, .. } = &outcome.part;
        let texts = [wave, namespace, name, message].into_iter().flatten();
        let size = BESIDE_TEXTS + 2 * texts.map(String::len).sum::<usize>();
        left = left.saturating_sub(size);
        left > 0
    };
    &all[..all.iter().take_while(fits).count()]
}

fn outcome(sight: &Sight<'_>, target: &Target, stage: &Stage, place: usize) -> Outcome {
    let why = |reason: &str, message: &str| (Some(reason.to_owned()), Some(visible(message, MAX_MESSAGE)));
    let (word, (reason, message), ended) = match stage {
        Stage::Waiting => ("Waiting", (None, None), None),
        Stage::Refused(message) => ("Refused", why("ReleaseRefused", message), None),
        Stage::Skipped => ("Skipped", (None, None), None),
        Stage::Diverged => ("Diverged", (None, None), None),
        Stage::Has(Step::Released, Trial::Under(_)) => ("Updating", (None, None), None),
        Stage::Has(Step::RolledBack, Trial::Under(_)) => ("RollingBack", (None, None), None),
        Stage::Has(step, Trial::Passed(at)) => {
            let word = if *step == Step::Released { "Updated" } else { "RolledBack" };
            (word, (None, None), Some(*at))
        }
        Stage::Has(step, Trial::Failed { reason, message }) => {
            let word = if *step == Step::Released { "Failed" } else { "RollbackFailed" };
            (word, why(reason, message), Some(failed_at(sight, target)))
        }
    };
    let part = Part {
        scope: Scope::Target,
        key: target.uid.clone(),
        wave: sight.rollout.waves.get(place).map(|wave| wave.name.clone()),
        namespace: Some(target.namespace.clone()),
        name: Some(target.name.clone()),
        outcome: word.to_owned(),
        reason,
        message,
        began: matches!(stage, Stage::Has(..)).then(|| begun(sight, target)).flatten(),
        ended,
        counts: None,
        approved_by: None,
    };
    Outcome { is_touched: matches!(stage, Stage::Has(..)), part }
}

/// When its status first showed that what this rollout gave it is in effect.
fn begun(sight: &Sight<'_>, target: &Target) -> Option<Micros> {
    let (shown, since) = target.seen.as_ref()?.release.as_ref()?;
    (shown.uid == sight.rollout.uid && shown.revision == sight.rollout.revision).then_some(*since)
}

/// When it failed: as its status says; where it says nothing but that it is not ready, at the deadline.
fn failed_at(sight: &Sight<'_>, target: &Target) -> Micros {
    let stalled = target.seen.as_ref().map(|seen| &seen.stalled).filter(|stalled| stalled.is);
    let deadline = || begun(sight, target).map(|begun| Micros(begun.0.saturating_add(sight.rollout.deadline)));
    stalled.map(|stalled| stalled.since).or_else(deadline).unwrap_or(sight.now)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::all_quotes("\"")]
    #[case::long_in_bytes("\u{1f980}")]
    #[case::ordinary("a")]
    fn what_fits_does(#[case] character: &str) {
        let part = Part {
            scope: Scope::Target,
            key: "12345678-1234-1234-1234-123456789012".to_owned(),
            wave: Some("w".repeat(63)),
            namespace: Some("n".repeat(63)),
            name: Some("n".repeat(253)),
            outcome: "RollbackFailed".to_owned(),
            reason: Some("ReferenceNotFound".to_owned()),
            message: Some(character.repeat(MAX_MESSAGE)),
            began: Some(Micros(i64::MAX)),
            ended: Some(Micros(i64::MAX)),
            counts: None,
            approved_by: None,
        };
        let all = vec![Outcome { is_touched: true, part }; 10_000];
        let room = 4 << 20;
        let fitting = fitting(&all, room);
        let parts: Vec<_> = fitting.iter().map(|outcome| &outcome.part).collect();
        let size = serde_json::to_string(&parts).unwrap().len();
        assert!((room / 3..room).contains(&size), "{} targets, {size} bytes", fitting.len());
    }
}
