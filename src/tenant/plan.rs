//! What should stand now, and what follows from what stands: the two decisions of a pass.
//!
//! [`plan`] comes before anything is written and says which children there should be. [`conclude`] comes after, looks at
//! what the API server returned, and says which state the service is in. Both are total, and know neither a client nor
//! a clock. A goal that lies several states away is reached hop by hop: the pass calls both again after each hop.
//!
//! Owns: the decisions. Must never: do I/O.

use crate::{
    ledger::{Actor, Micros},
    lifecycle::{Goal, State, Transition, next_hop},
};

use super::{
    admission::QUOTA_EXCEEDED,
    build::{Shape, children},
    course::{Children, Course, Wait},
    cpu::{self, Lag},
    disks,
    health::{Failure, Health, MAX_SKEW, Severity, Trouble},
    observe::Observed,
    requests,
    retry::{self, Retry},
    validate::Tenant,
};

/// How soon it is tried again where something that is not ours stands in the way, in microseconds. A read each time, or
/// a write that is refused.
const TROUBLE_AGAIN: i64 = 15_000_000;

/// What a pass has found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The state that begins now, if one does.
    pub hop: Option<Hop>,
    /// Whether the service is as desired, and if not, why.
    pub standing: Standing,
    /// What is done about replicas that are broken, before anything is recorded.
    pub retry: Option<Retry>,
    /// When to look again even if nothing happens.
    pub look_again: Option<Micros>,
}

/// A state that begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// From where to where.
    pub transition: Transition,
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// Who caused it.
    pub actor: Actor,
}

/// Whether the service is as desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    AsDesired {
        /// One CamelCase word.
        reason: &'static str,
        /// A sentence.
        message: String,
    },
    /// It is on the way.
    OnTheWay {
        /// One CamelCase word.
        reason: &'static str,
        /// A sentence.
        message: String,
    },
    /// It goes on once there is room in its quota.
    Waiting(Failure),
    /// It will not get there by itself.
    Stuck(Failure),
}

/// What there should be, given the state that is shown. Of what there is, it matters whether a paused service's replicas have
/// their CPU again: before that it does not serve.
pub fn plan(tenant: &Tenant, observed: &Observed, now: Micros) -> Course {
    if tenant.shown.state == Some(State::Deleted) {
        return Course::Remove;
    }
    if tenant.namespace_terminating || tenant.orphaning {
        return Course::Leave;
    }
    let running = Shape { replicas: tenant.spec.replicas, serving: true };
    let draining = Shape { serving: false, ..running };
    let stopped = Shape { replicas: 0, serving: false };
    let shape = match (tenant.goal, tenant.shown.state) {
        (Goal::Running, _) if cpu::lag(tenant, observed).is_some() => draining,
        (Goal::Running, _) => running,
        // Also while it starts: nobody is to reach it.
        (Goal::Paused, _) | (_, Some(State::Running)) => draining,
        (_, Some(State::Paused)) if now < drained_at(tenant, now) => draining,
        (_, _) => stopped,
    };
    Course::Keep(Children {
        shape,
        all: children(tenant, shape),
        make_missing: tenant.goal != Goal::Deleted,
        wait: None,
    })
}

/// When a service that is being drained has drained.
pub(super) fn drained_at(tenant: &Tenant, now: Micros) -> Micros {
    let since = tenant.shown.since.filter(|since| since.0 <= now.0.saturating_add(MAX_SKEW)).map_or(0, |since| since.0);
    Micros(since.saturating_add(i64::from(tenant.spec.drain_seconds) * 1_000_000))
}

/// Which state the service is in, after `course` was carried out as far as `trouble`.
///
/// `observed` is what the API server returned for what was written, and what the caches hold of the rest.
pub fn conclude(
    tenant: &Tenant,
    course: &Course,
    observed: &Observed,
    trouble: Option<&Trouble>,
    now: Micros,
) -> Verdict {
    let health = Health::of(tenant, course, observed, now);
    let seen = Seen {
        retry: retry::due(tenant, &health.broken, observed, now),
        tries: retry::sentence(tenant, &health.broken),
        health,
        trouble,
        stands: course.wait().is_none() && stands(course, observed),
        wait: course.wait(),
        out_of_service: out_of_service(course, observed),
        serves: matches!(course, Course::Keep(children) if children.shape.serving),
        cpu: cpu::sentence(tenant, observed),
        lag: cpu::lag(tenant, observed),
    };
    let hop = hop(tenant, &seen);
    let state = hop.as_ref().map(|hop| hop.transition.to()).or(tenant.shown.state);
    let drain = (state == Some(State::Paused) && tenant.goal != Goal::Running && hop.is_none())
        .then(|| drained_at(tenant, now));
    // What stands in the way is somebody else's object or rule: no watch of ours tells when it goes.
    let is_refused = trouble.is_some() || seen.lag.as_ref().is_some_and(|lag| lag.is_refused);
    let again = is_refused.then(|| Micros(now.0.saturating_add(TROUBLE_AGAIN)));
    Verdict {
        standing: standing(tenant, &seen, state),
        look_again: [
            drain,
            again,
            retry::due_at(tenant, &seen.health.broken, now),
            retry::forgotten_at(tenant),
            seen.health.look_again,
        ]
        .into_iter()
        .flatten()
        // What is due and not done waits for something else.
        .filter(|at| *at > now)
        .min(),
        hop,
        retry: seen.retry,
    }
}

/// What a verdict is made from.
struct Seen<'a> {
    /// Another try that is due.
    retry: Option<Retry>,
    /// How often Berth has tried, for the message of a failure.
    tries: Option<String>,
    health: Health,
    trouble: Option<&'a Trouble>,
    /// The StatefulSet is as it should be.
    stands: bool,
    /// It waits for its quota.
    wait: Option<&'a Wait>,
    /// The Service selects nobody, as it should, or is not there.
    out_of_service: bool,
    /// The Service selects its replicas, or should.
    serves: bool,
    /// What CPU its replicas have while it is paused.
    cpu: Option<String>,
    /// What keeps it from being back in its Service.
    lag: Option<Lag>,
}

impl Seen<'_> {
    /// What keeps the service from being what it has to be.
    fn failure(&self) -> Option<&Failure> {
        self.trouble_of(Severity::Missing).or(self.health.failure.as_ref())
    }

    /// That, or what keeps it from being as asked for.
    fn objection(&self) -> Option<&Failure> {
        self.failure().or(self.trouble.map(|trouble| &trouble.failure))
    }

    fn trouble_of(&self, severity: Severity) -> Option<&Failure> {
        self.trouble.filter(|trouble| trouble.severity >= severity).map(|trouble| &trouble.failure)
    }

    /// It answers, and nothing that it needs is missing.
    fn runs(&self) -> bool {
        // Who waits has perhaps nothing that could be ready.
        self.health.ready && self.failure().is_none() && (self.wait.is_none() || self.health.serves)
    }
}

fn stands(course: &Course, observed: &Observed) -> bool {
    course
        .stateful_set()
        .is_some_and(|hash| observed.stateful_set.as_ref().and_then(|set| set.built_from()) == Some(hash))
}

fn out_of_service(course: &Course, observed: &Observed) -> bool {
    let hidden = matches!(course, Course::Keep(children) if !children.shape.serving);
    hidden && observed.service.as_ref().is_none_or(|service| service.built_from() == course.service())
}

/// What begins with the first pass over a service, whatever its children are.
pub fn first(tenant: &Tenant) -> Option<Hop> {
    if tenant.shown.state.is_some() {
        return None;
    }
    Some(Hop {
        transition: Transition::new(None, State::Pending).ok()?,
        reason: "Accepted",
        message: "accepted; its replicas are being made".to_owned(),
        actor: tenant.request.actor.clone(),
    })
}

fn hop(tenant: &Tenant, seen: &Seen<'_>) -> Option<Hop> {
    let (shown, health) = (tenant.shown.state, &seen.health);
    let make = |to, reason, message: String, actor| {
        Some(Hop { transition: Transition::new(shown, to).ok()?, reason, message, actor })
    };
    let observed = || Actor::Berth("observed".to_owned());
    let asked = || tenant.request.actor.clone();
    let next = next_hop(shown, tenant.goal).map(Transition::to);
    match (tenant.goal, shown) {
        (_, None) => first(tenant),
        (_, Some(State::Deleted)) => None,
        (Goal::Running, Some(State::Paused)) if seen.runs() => {
            // Not before its replicas have their CPU again, and the Service knows.
            (seen.lag.is_none() && seen.serves)
                .then(|| format!("back in its Service; {}", health.sentence()))
                .and_then(|message| make(State::Running, "Resumed", message, asked()))
        }
        (Goal::Running, Some(State::Pending | State::Paused)) | (Goal::Paused, Some(State::Pending)) => {
            match seen.failure() {
                _ if seen.runs() => make(State::Running, "AllReplicasReady", health.sentence(), observed()),
                Some(failure) => make(State::Failed, failure.reason, failure.message.clone(), observed()),
                None => None,
            }
        }
        (Goal::Running, Some(State::Running)) => {
            // A release that the API server refused is not one yet.
            if shown_revision_differs(tenant) && seen.stands {
                let change = requests::asked_for(tenant);
                make(State::Running, change.reason(), change.sentence(tenant), asked())
            } else if let (Some(failure), false) = (seen.failure(), health.serves) {
                make(State::Failed, failure.reason, failure.message.clone(), observed())
            } else {
                None
            }
        }
        (Goal::Paused, Some(State::Running)) if seen.out_of_service => {
            make(State::Paused, "Paused", "taken out of its Service, as asked; its replicas stay".to_owned(), asked())
        }
        (Goal::Paused, Some(State::Running)) => None,
        (Goal::Paused, Some(State::Paused)) => match seen.failure() {
            Some(failure) if !health.serves => make(State::Failed, failure.reason, failure.message.clone(), observed()),
            _ => None,
        },
        (Goal::Running | Goal::Paused, Some(State::Failed)) => {
            if shown_revision_differs(tenant) && seen.stands {
                make(State::Pending, "Retried", "changed; tried again".to_owned(), asked())
            } else if let Some(retry) = &seen.retry {
                make(State::Pending, "Retried", retry.message.clone(), retry.actor.clone())
            } else if seen.failure().is_none() && health.known && !tenant.namespace_terminating {
                make(State::Pending, "Recovered", "what kept it from running is gone".to_owned(), observed())
            } else {
                None
            }
        }
        (Goal::Running | Goal::Paused, Some(State::Stopped)) => {
            make(State::Pending, "Started", "started again".to_owned(), asked())
        }
        (Goal::Deleted, Some(State::Running | State::Pending | State::Paused | State::Failed)) if tenant.orphaning => {
            let message = "its children are left to themselves, as asked (--cascade=orphan)".to_owned();
            make(next?, "Orphaned", message, asked())
        }
        (_, Some(State::Running)) => make(
            State::Paused,
            "Draining",
            format!("taken out of its Service; {} s for requests under way", tenant.spec.drain_seconds),
            asked(),
        ),
        (_, Some(State::Pending | State::Paused | State::Failed)) => {
            if health.gone {
                make(
                    next?,
                    "ScaledToZero",
                    "no replica is left; its disks are kept".to_owned(),
                    Actor::Berth("drain".to_owned()),
                )
            } else {
                None
            }
        }
        (Goal::Deleted, Some(State::Stopped)) => {
            let stays = if disks::are_kept(tenant) { "its disks and its ledger stay" } else { "its ledger stays" };
            make(State::Deleted, "Deleted", format!("deleted; {stays}"), asked())
        }
        (Goal::Stopped, Some(State::Stopped)) => None,
    }
}

fn shown_revision_differs(tenant: &Tenant) -> bool {
    tenant.shown.status.revision.as_ref() != Some(&tenant.revision)
}

fn standing(tenant: &Tenant, seen: &Seen<'_>, state: Option<State>) -> Standing {
    let (health, failure) = (&seen.health, seen.objection());
    if let (Goal::Running | Goal::Paused, Some(wait)) = (tenant.goal, seen.wait) {
        let message = match failure {
            Some(failure) => format!("{}; meanwhile, {}", wait.message, failure.message),
            None => wait.message.clone(),
        };
        return Standing::Waiting(Failure { reason: QUOTA_EXCEEDED, message });
    }
    let on_the_way = |reason, message: &str| Standing::OnTheWay { reason, message: message.to_owned() };
    match (tenant.goal, state) {
        (Goal::Running | Goal::Paused, Some(State::Failed)) => match failure {
            Some(failure) => Standing::Stuck(Failure {
                reason: failure.reason,
                message: match &seen.tries {
                    Some(tries) => format!("{}; {tries}", failure.message),
                    None => failure.message.clone(),
                },
            }),
            None => on_the_way("Recovering", "what kept it from running is gone"),
        },
        (Goal::Running, Some(State::Running)) => match failure {
            Some(failure) => Standing::Stuck(failure.clone()),
            None if !health.ready => Standing::OnTheWay { reason: "RollingOut", message: health.sentence() },
            None => match &health.growing {
                Some(growing) => on_the_way("DiskGrowing", growing),
                None if tenant.spec.replicas == 0 => {
                    Standing::AsDesired { reason: "NoReplicasWanted", message: "zero replicas are wanted".to_owned() }
                }
                None => Standing::AsDesired { reason: "AllReplicasReady", message: health.sentence() },
            },
        },
        (Goal::Paused, Some(State::Paused)) => match failure {
            Some(failure) => Standing::Stuck(failure.clone()),
            None if !health.ready => Standing::OnTheWay { reason: "RollingOut", message: health.sentence() },
            None => match &health.growing {
                Some(growing) => on_the_way("DiskGrowing", growing),
                None => Standing::AsDesired {
                    reason: "Paused",
                    message: match &seen.cpu {
                        Some(cpu) => format!("out of its Service, as asked; {}; {cpu}", health.sentence()),
                        None => format!("out of its Service, as asked; {}", health.sentence()),
                    },
                },
            },
        },
        (Goal::Paused, Some(State::Running)) => match failure {
            Some(failure) => Standing::Stuck(failure.clone()),
            None => on_the_way("Pausing", "it is being taken out of its Service"),
        },
        (Goal::Running, Some(State::Paused)) => Standing::OnTheWay {
            reason: "Resuming",
            message: seen.lag.as_ref().map_or_else(|| health.sentence(), |lag| lag.message.clone()),
        },
        (Goal::Running | Goal::Paused, _) => Standing::OnTheWay { reason: "Starting", message: health.sentence() },
        (Goal::Stopped, Some(State::Stopped)) => {
            Standing::AsDesired { reason: "Stopped", message: "stopped as asked; its disks are kept".to_owned() }
        }
        (Goal::Deleted, Some(State::Deleted)) => {
            on_the_way("Deleting", "its last record is written; its children are going")
        }
        (_, _) if let Some(failure) = seen.trouble_of(Severity::Replicas) => Standing::Stuck(failure.clone()),
        (_, Some(State::Paused)) => on_the_way("Draining", "taken out of its Service; requests under way may finish"),
        (_, _) => Standing::OnTheWay { reason: "Stopping", message: format!("{} replicas are left", health.present) },
    }
}
