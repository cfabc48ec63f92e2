//! From a rollout to the ledger's words: what of it is to be told, and its present.
//!
//! A record tells of everything that has turned since the last one: the rollout's phase, its waves' phases, and what came of
//! the targets of waves that have ended. So there are as many records as turns, however many targets; and where the outcomes
//! are more than one record holds, as many before it as they fill (docs/decisions/0009).
//!
//! Owns: which records a rollout's chain has, and what they say. Must never: do I/O or read a clock.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    outcome::{self, Outcome},
    rollout::Rollout,
    status,
};
use crate::{
    api::{
        Deployment,
        deployment::{Cursor, DeploymentStatus, Recorded, RecordedWave, WaveStatus},
    },
    chain::{self, Chain, Known, MESSAGE, Unaccountable},
    ledger::{
        self, Actor, Counts, Draft, Hash, Head, Kind, Micros, Part, Present, Record, Scope, Seal, Snapshot, visible,
    },
    lifecycle::State,
    tenant::status::rfc3339,
};

/// A rollout of another revision than before has begun.
pub const BEGAN: &str = "Began";
/// Outcomes of targets, more than the record that follows holds.
pub const TARGETS: &str = "TargetsTold";
/// Its object was deleted.
pub const REMOVED: &str = "Removed";

/// How many bytes the details of a record may have, as this room reckons: less than the ledger's bound, for cleaning.
const ROOM: usize = ledger::MAX_DETAILS - 1_500;
/// How many of them a record that tells of targets alone needs for the rest.
const BESIDE_TARGETS: usize = 2_000;
/// How many bytes of targets a snapshot holds: less than a home takes in one piece.
const TARGETS_IN_SNAPSHOT: usize = 6 << 20;
/// The longest sentence of a record, and the longest name in one, in characters.
const MAX_MESSAGE: usize = 1_000;
const MAX_NAME: usize = 128;
/// What a rollout shows that goes on.
const PROGRESSING: &str = "Progressing";

/// A rollout as its chain tells of it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who it is, as it stands, and where its chain ends.
    pub known: Known,
    /// The status as it was shown last, moved on by what was recorded since.
    pub status: DeploymentStatus,
    revision: String,
    image: String,
}

/// How it all was seen to stand, once what could be done was done.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The status that follows.
    pub shown: DeploymentStatus,
    /// What came of each target.
    pub outcomes: Vec<Outcome>,
    /// The release is being taken back, or was: then waves are what they were.
    pub is_back: bool,
    /// When that was so.
    pub now: Micros,
}

/// What a record's details say that what follows depends on.
#[derive(Serialize, Deserialize)]
struct Told {
    revision: String,
    parts: Vec<Part>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<Cursor>,
}

impl Account {
    /// Reads `object`, which is `rollout`.
    pub fn read(object: &Deployment, rollout: &Rollout, cluster: Uuid) -> Result<Self, Unaccountable> {
        Ok(Self {
            known: Known::read(object, cluster)?,
            status: object.status.clone().unwrap_or_default(),
            revision: rollout.revision.clone(),
            image: rollout.content.image.clone(),
        })
    }

    /// Its chain, as its status shows it.
    pub fn chain(&self) -> Chain<'_> {
        self.known.chain(&self.status.ledger, self.is_removed())
    }

    fn is_removed(&self) -> bool {
        self.status.recorded.as_ref().is_some_and(|told| told.reason == REMOVED)
    }

    /// Enters a record that is now durable: from here on it is what the chain ends with.
    pub fn advance(&mut self, seen: &Seen, record: &Record) {
        let envelope = record.envelope();
        let details = record.details().and_then(|text| serde_json::from_str(text).ok());
        let to = envelope.to == Some(State::Deleted);
        self.status.recorded = after(self.status.recorded.take(), envelope.kind, envelope.generation, details, to);
        let has_more = self.status.recorded.as_ref().is_some_and(|recorded| recorded.cursor.is_some());
        if envelope.kind != Kind::Rollout || !has_more {
            // What came of targets comes before the record that answers to what was asked for.
            self.status.observed_generation =
                chain::seen(record, self.status.observed_generation, self.known.generation);
        }
        if let Some(recorded) = &mut self.status.recorded {
            // Waves that the spec does not have any more.
            recorded.waves.retain(|wave| seen.shown.waves.iter().any(|shown| shown.name == wave.name));
        }
        self.known.head = record.head();
    }

    /// What is to be told next; none where all is told.
    pub fn due(&self, seen: &Seen) -> Option<Draft> {
        if self.is_removed() {
            return None;
        }
        if let Some(unseen) = chain::unseen(self.chain(), self.status.observed_generation) {
            return Some(unseen);
        }
        let before = self.status.recorded.as_ref();
        let told = before.filter(|told| told.revision == self.revision);
        let now = self.now(seen, told);
        let turned = told.is_none_or(|told| told.generation != self.known.generation || is_turn(told, &now));
        if !turned {
            return None;
        }
        let turn = Hash::of(json!([now.revision, gist(&now)]).to_string().as_bytes()).to_string()[..16].to_owned();
        let owed = owed(seen, told, &now);
        let Some(told) = told else {
            // It has begun before anything came of it, also where nobody was looking.
            let now = if owed.is_empty() || self.known.deleting { now } else { under_way(now) };
            let parts = self.parts(seen, &now, |_| true);
            let message = match before {
                Some(other) => format!("a release of {} takes the place of revision {}", self.image, other.revision),
                None => format!("a release of {}", self.image),
            };
            let message = format!("{message}: {} targets in {} waves", seen.shown.targets, seen.shown.waves.len());
            let (reason, by) = match now.reason.as_str() {
                REMOVED => (REMOVED, Actor::Unknown),
                _ => (BEGAN, self.known.actor.clone()),
            };
            return Some(self.draft(reason, by, &message, parts, None));
        };
        let after = told.cursor.as_ref().filter(|cursor| cursor.turn == turn).map(|cursor| cursor.after.as_str());
        let left: Vec<&Outcome> =
            owed.into_iter().filter(|outcome| after.is_none_or(|after| outcome.name().as_str() > after)).collect();
        let was =
            |wave: &RecordedWave| told.waves.iter().any(|old| (&old.name, &old.phase) == (&wave.name, &wave.phase));
        let turn_parts = self.parts(seen, &now, |wave| !was(wave));
        let (reason, actor) = self.why(seen, told, &now);
        let message = self.sentence(seen, told, &now);
        let bare = self.draft(&reason, actor.clone(), &message, turn_parts.clone(), None);
        let parts = |outcomes: &[&Outcome]| outcomes.iter().map(|outcome| outcome.part.clone()).collect::<Vec<_>>();
        if let (fitting, []) = fitting(&left, size(&bare.details)) {
            let all = turn_parts.into_iter().chain(parts(fitting)).collect();
            return Some(self.draft(&reason, actor, &message, all, None));
        }
        // Before the record of the turn, as many as they fill.
        let (fitting, _) = fitting(&left, BESIDE_TARGETS);
        let cursor = Cursor { turn, after: fitting.last().map(|outcome| outcome.name()).unwrap_or_default() };
        let message = format!("what came of {} targets, up to {}", fitting.len(), cursor.after);
        Some(self.draft(TARGETS, by_berth(), &message, parts(fitting), Some(cursor)))
    }

    /// What there is to be recorded now, where `told` was recorded of this revision.
    fn now(&self, seen: &Seen, told: Option<&Recorded>) -> Recorded {
        let at = rfc3339(seen.now);
        let shown = &seen.shown;
        let phase = shown.phase.clone().unwrap_or_default();
        let is_end = matches!(phase.as_str(), "Complete" | "RolledBack");
        let reason = shown.conditions.first().map(|ready| ready.reason.clone()).unwrap_or_default();
        let same = told.filter(|told| told.phase == phase);
        let of_wave = |wave: &WaveStatus| {
            let old = told.and_then(|told| told.waves.iter().find(|old| old.name == wave.name));
            let waits = matches!(wave.phase.as_str(), "Waiting" | "AwaitingApproval");
            let still = old.filter(|old| old.phase == wave.phase);
            RecordedWave {
                name: wave.name.clone(),
                phase: wave.phase.clone(),
                began: (!waits).then(|| old.and_then(|old| old.began.clone()).unwrap_or_else(|| at.clone())),
                ended: (wave.phase == "Done")
                    .then(|| still.and_then(|old| old.ended.clone()).unwrap_or_else(|| at.clone())),
            }
        };
        let ended = (is_end || self.known.deleting)
            .then(|| same.and_then(|told| told.ended.clone()).unwrap_or_else(|| at.clone()));
        Recorded {
            revision: self.revision.clone(),
            generation: self.known.generation,
            phase: if self.known.deleting && !is_end { "Deleted".to_owned() } else { phase },
            reason: if self.known.deleting { REMOVED.to_owned() } else { reason },
            began: Some(told.and_then(|told| told.began.clone()).unwrap_or(at.clone())),
            ended,
            waves: match told.filter(|_| seen.is_back) {
                Some(told) => told.waves.clone(),
                None => shown.waves.iter().map(of_wave).collect(),
            },
            cursor: None,
        }
    }

    /// In one word why it is told, and who caused it.
    fn why(&self, seen: &Seen, told: &Recorded, now: &Recorded) -> (String, Actor) {
        if now.reason == REMOVED {
            // A policy's stamp tells who changed a spec; who deletes, nobody notes.
            return (REMOVED.to_owned(), Actor::Unknown);
        }
        let became = |phase: &str| {
            let is_new = |wave: &&RecordedWave| {
                wave.phase == phase && told.waves.iter().all(|old| old.name != wave.name || old.phase != phase)
            };
            now.waves.iter().find(is_new)
        };
        // One that comes back, from a soak or a failure, was begun before, by whoever approved it then.
        let has_begun = |name: &str| told.waves.iter().any(|old| old.name == name && old.began.is_some());
        let started = became(PROGRESSING).filter(|wave| !has_begun(&wave.name));
        let approved = started.and_then(|wave| {
            let shown = seen.shown.waves.iter().find(|shown| shown.name == wave.name)?;
            shown.approved_by.clone()
        });
        let reason = if (&told.phase, &told.reason) != (&now.phase, &now.reason) && now.phase != PROGRESSING {
            now.reason.as_str()
        } else if told.phase == "Paused" && now.phase != "Paused" {
            "Resumed"
        } else if started.is_some() {
            "WaveStarted"
        } else if became("Failed").is_some() {
            "WaveFailed"
        } else if became("Done").is_some() {
            "WaveDone"
        } else if !is_turn(told, now) {
            "Changed"
        } else {
            PROGRESSING
        };
        let actor = match approved {
            Some(by) if reason == "WaveStarted" => Actor::User(by),
            _ if told.generation != self.known.generation => self.known.actor.clone(),
            _ => by_berth(),
        };
        (reason.to_owned(), actor)
    }

    /// What has turned, in a sentence each: as the Events have it.
    fn sentence(&self, seen: &Seen, told: &Recorded, now: &Recorded) -> String {
        let mut shown = seen.shown.clone();
        if seen.is_back {
            shown.waves.clear();
        }
        let news = status::news(&status::as_recorded(told), &shown);
        let mut news: Vec<String> = news.into_iter().map(|news| news.message).collect();
        if now.reason == REMOVED {
            let progress = seen.shown.progress.as_deref().unwrap_or_default();
            news.push(format!(
                "its object was deleted, with {progress} targets past the gate; they keep what they have"
            ));
        }
        if news.is_empty() {
            news.push("its spec was changed, and nothing has turned yet".to_owned());
        }
        news.join("; ")
    }

    /// The rollout itself, and those of its waves that are `wanted`.
    fn parts(&self, seen: &Seen, now: &Recorded, wanted: impl Fn(&RecordedWave) -> bool) -> Vec<Part> {
        let shown = &seen.shown;
        let blank = |scope, key: &str| Part {
            scope,
            key: key.to_owned(),
            wave: None,
            namespace: None,
            name: None,
            outcome: String::new(),
            reason: None,
            message: None,
            began: None,
            ended: None,
            counts: None,
            approved_by: None,
        };
        let moment = |text: &Option<String>| {
            text.as_deref()?.parse::<jiff::Timestamp>().ok().map(|at| Micros(at.as_microsecond()))
        };
        let mut all = vec![Part {
            outcome: now.phase.clone(),
            reason: Some(now.reason.clone()),
            began: moment(&now.began),
            ended: moment(&now.ended),
            counts: Some(Counts {
                targets: shown.targets,
                released: shown.released,
                done: shown.done,
                failed: shown.failed,
            }),
            ..blank(Scope::Rollout, "")
        }];
        all.extend(now.waves.iter().filter(|wave| wanted(wave)).map(|wave| {
            let live = shown.waves.iter().find(|live| live.name == wave.name);
            Part {
                outcome: wave.phase.clone(),
                began: moment(&wave.began),
                ended: moment(&wave.ended),
                counts: live.map(|live| Counts {
                    targets: live.targets,
                    released: live.released,
                    done: live.done,
                    failed: live.failed,
                }),
                approved_by: live.and_then(|live| live.approved_by.as_ref()).map(|by| visible(by, MAX_NAME)),
                ..blank(Scope::Wave, &wave.name)
            }
        }));
        if size(&all) > ROOM / 2 {
            // Many waves with long names, approved by long names: what is left has to fit, whatever it is.
            for part in &mut all {
                (part.counts, part.approved_by) = (None, None);
            }
        }
        all
    }

    fn draft(&self, reason: &str, actor: Actor, message: &str, parts: Vec<Part>, cursor: Option<Cursor>) -> Draft {
        let told = Told { revision: self.revision.clone(), parts, cursor };
        let mut details = json!(told);
        details[MESSAGE] = json!(visible(message, MAX_MESSAGE));
        details["namespace"] = json!(self.known.target.namespace);
        details["name"] = json!(self.known.target.name);
        details["image"] = json!(self.image);
        details["askedBy"] = json!(visible(&String::from(self.known.actor.clone()), MAX_NAME));
        self.known.draft(Kind::Rollout, reason, actor, reason == REMOVED, details)
    }

    /// The present as it is once the chain ends with `head`, by a record that says `draft`, or as it was told last.
    pub fn snapshot(&self, seen: &Seen, draft: Option<&Draft>, head: Head, seal: Seal) -> Snapshot {
        let told = self.status.recorded.clone();
        let recorded = match draft {
            Some(draft) => after(told, draft.kind, draft.generation, Some(draft.details.clone()), draft.to.is_some()),
            None => told,
        };
        let of_now = recorded.as_ref().filter(|recorded| recorded.revision == self.revision);
        let fitting = outcome::fitting(&seen.outcomes, TARGETS_IN_SNAPSHOT);
        let parts = of_now.map(|recorded| {
            let targets = fitting.iter().map(|outcome| outcome.part.clone());
            self.parts(seen, recorded, |_| true).into_iter().chain(targets).collect()
        });
        let rollout = ledger::Rollout {
            revision: self.revision.clone(),
            image: self.image.clone(),
            asked_by: self.known.actor.clone(),
            removed: recorded.as_ref().is_some_and(|recorded| recorded.reason == REMOVED),
            whole: parts.is_some() && fitting.len() == seen.outcomes.len(),
            parts: parts.unwrap_or_default(),
        };
        self.known.snapshot(head, seal, Present::Rollout(rollout))
    }
}

/// What nobody asked for: the rollout goes on by itself.
fn by_berth() -> Actor {
    Actor::Berth("rollout".to_owned())
}

/// What is recorded, once a record of this kind is, which says `details` in answer to `generation`. One whose details are lost
/// tells nothing: it is told again.
fn after(
    told: Option<Recorded>,
    kind: Kind,
    generation: i64,
    details: Option<Value>,
    is_end: bool,
) -> Option<Recorded> {
    if kind != Kind::Rollout {
        return told;
    }
    let mut now = told.unwrap_or_default();
    if is_end {
        now.reason = REMOVED.to_owned();
    }
    let Some(Told { revision, parts, cursor }) = details.and_then(|details| serde_json::from_value(details).ok())
    else {
        return Some(now);
    };
    if cursor.is_some() {
        return Some(Recorded { cursor, ..now });
    }
    if now.revision != revision {
        now = Recorded { revision, ..Recorded::default() };
    }
    let text = |at: Option<Micros>| at.map(rfc3339);
    for part in parts {
        let Part { scope, key, outcome, reason, began, ended, .. } = part;
        let (began, ended) = (text(began), text(ended));
        match scope {
            Scope::Rollout => {
                (now.phase, now.reason, now.began, now.ended) = (outcome, reason.unwrap_or_default(), began, ended);
            }
            Scope::Wave => {
                let wave = RecordedWave { name: key, phase: outcome, began, ended };
                match now.waves.iter_mut().find(|old| old.name == wave.name) {
                    Some(old) => *old = wave,
                    None => now.waves.push(wave),
                }
            }
            Scope::Target => {}
        }
    }
    (now.generation, now.cursor) = (generation, None);
    Some(now)
}

/// Whether something has turned that a record tells of, beside a spec that was changed.
fn is_turn(told: &Recorded, now: &Recorded) -> bool {
    let was = |wave: &RecordedWave| {
        told.waves.iter().find(|old| old.name == wave.name).map_or("Waiting", |old| old.phase.as_str())
    };
    (&told.phase, &told.reason) != (&now.phase, &now.reason) || now.waves.iter().any(|wave| was(wave) != wave.phase)
}

/// What tells one turn from another.
fn gist(recorded: &Recorded) -> Value {
    let waves: Vec<_> = recorded.waves.iter().map(|wave| (&wave.name, &wave.phase)).collect();
    json!([recorded.phase, recorded.reason, waves])
}

/// As it was before anything came of it.
fn under_way(mut now: Recorded) -> Recorded {
    (now.phase, now.reason, now.ended) = (PROGRESSING.to_owned(), PROGRESSING.to_owned(), None);
    for wave in &mut now.waves {
        if matches!(wave.phase.as_str(), "Done" | "Failed" | "Soaking") {
            (wave.phase, wave.ended) = (PROGRESSING.to_owned(), None);
        }
    }
    now
}

/// The targets of which is to be told what came of them, because their wave, or all of it, has ended since `told`; in the
/// order of their names.
fn owed<'a>(seen: &'a Seen, told: Option<&Recorded>, now: &Recorded) -> Vec<&'a Outcome> {
    let was = |wave: &RecordedWave| {
        told.is_some_and(|told| told.waves.iter().any(|old| (&old.name, &old.phase) == (&wave.name, &wave.phase)))
    };
    let ends =
        |phase: &str, reason: &str| matches!((phase, reason), ("RolledBack", _) | (_, "RollbackFailed" | REMOVED));
    // Of a rollout that had come to its end, all was told.
    let all_end = ends(&now.phase, &now.reason)
        && !(now.reason == REMOVED && told.is_some_and(|told| told.ended.is_some()))
        && told.is_none_or(|told| (&told.phase, &told.reason) != (&now.phase, &now.reason));
    let is_owed = |outcome: &&Outcome| {
        let wave = now.waves.iter().find(|wave| outcome.part.wave.as_ref() == Some(&wave.name));
        let told_before = wave.is_some_and(|wave| wave.phase == "Done" && was(wave));
        let wave = wave.filter(|wave| !was(wave)).map(|wave| wave.phase.as_str());
        match wave {
            Some("Done") => true,
            Some("Failed") => outcome.part.ended.is_some(),
            _ => all_end && outcome.is_touched && !(now.reason == REMOVED && told_before),
        }
    };
    seen.outcomes.iter().filter(is_owed).collect()
}

/// Those that fit into a record beside so many bytes, and the rest.
fn fitting<'a, 'b>(all: &'b [&'a Outcome], mut bytes: usize) -> (&'b [&'a Outcome], &'b [&'a Outcome]) {
    let fits = |outcome: &&&Outcome| {
        bytes += size(&outcome.part) + 1;
        bytes <= ROOM
    };
    all.split_at(all.iter().take_while(fits).count())
}

fn size(value: &impl Serialize) -> usize {
    serde_json::to_string(value).map_or(usize::MAX / 2, |text| text.len())
}
