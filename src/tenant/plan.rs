//! What should stand now, and what follows from what stands: the two decisions of a pass.
//!
//! [`plan`] comes before anything is written and says which children there should be. [`conclude`] comes after, looks at
//! what the API server returned, and says which state the service is in. Both are total, and know neither a client nor
//! a clock. A goal that lies several states away is reached hop by hop: the pass calls both again after each hop.
//!
//! Owns: the decisions. Must never: do I/O.

use crate::{
    api::tenant_container::OperationStatus,
    ledger::{Actor, Micros},
    lifecycle::{Goal, State, Transition, next_hop},
};

use super::{
    build::{Shape, children},
    course::Course,
    health::{Failure, Health},
    observe::Observed,
    status::rfc3339,
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
    /// It will not get there by itself.
    Stuck(Failure),
}

/// What there should be, given the state that is shown.
pub fn plan(tenant: &Tenant, now: Micros) -> Course {
    if tenant.shown.state == Some(State::Deleted) {
        return Course::Remove;
    }
    if tenant.namespace_terminating {
        return Course::Leave;
    }
    let running = Shape { replicas: tenant.spec.replicas, serving: true };
    let draining = Shape { serving: false, ..running };
    let stopped = Shape { replicas: 0, serving: false };
    let shape = match (tenant.goal, tenant.shown.state) {
        (Goal::Running, _) => running,
        (_, Some(State::Running)) => draining,
        (_, Some(State::Paused)) if now < drained_at(tenant) => draining,
        (_, _) => stopped,
    };
    Course::Keep { shape, children: children(tenant, shape) }
}

/// When a service that is being drained has drained.
fn drained_at(tenant: &Tenant) -> Micros {
    let since = tenant.shown.since.map_or(0, |since| since.0);
    Micros(since.saturating_add(i64::from(tenant.spec.drain_seconds) * 1_000_000))
}

/// Which state the service is in, after `course` was carried out as far as `trouble`.
///
/// `observed` is what the API server returned for what was written, and what the caches hold of the rest.
pub fn conclude(
    tenant: &Tenant,
    course: &Course,
    observed: &Observed,
    trouble: Option<&Failure>,
    now: Micros,
) -> Verdict {
    let health = Health::of(tenant, course, observed, now);
    let failure = trouble.or(health.failure.as_ref());
    let hop = hop(tenant, &health, failure, now);
    let state = hop.as_ref().map(|hop| hop.transition.to()).or(tenant.shown.state);
    let drain = (state == Some(State::Paused) && tenant.goal != Goal::Running && hop.is_none())
        .then(|| drained_at(tenant))
        .filter(|end| *end > now);
    // What stands in the way is somebody else's object or rule: no watch of ours tells when it goes.
    let retry = trouble.map(|_| Micros(now.0.saturating_add(TROUBLE_AGAIN)));
    Verdict {
        standing: standing(tenant, &health, failure, state),
        look_again: [drain, retry, health.look_again].into_iter().flatten().min(),
        hop,
    }
}

fn hop(tenant: &Tenant, health: &Health, failure: Option<&Failure>, now: Micros) -> Option<Hop> {
    let shown = tenant.shown.state;
    let make = |to, reason, message: String, actor| {
        Some(Hop { transition: Transition::new(shown, to).ok()?, reason, message, actor })
    };
    let observed = || Actor::Berth("observed".to_owned());
    let asked = || tenant.request.actor.clone();
    let next = next_hop(shown, tenant.goal).map(Transition::to);
    match (tenant.goal, shown) {
        (_, None) => make(State::Pending, "Accepted", "accepted; its replicas are being made".to_owned(), asked()),
        (_, Some(State::Deleted)) => None,
        (Goal::Running, Some(State::Pending | State::Paused)) => match failure {
            _ if health.ready => make(State::Running, "AllReplicasReady", health.sentence(), observed()),
            Some(failure) => make(State::Failed, failure.reason, failure.message.clone(), observed()),
            None => None,
        },
        (Goal::Running, Some(State::Running)) => {
            if shown_revision_differs(tenant) {
                let change = change(tenant);
                make(State::Running, change.reason(), change.sentence(tenant), asked())
            } else if let (Some(failure), false) = (failure, health.serves) {
                make(State::Failed, failure.reason, failure.message.clone(), observed())
            } else {
                None
            }
        }
        (Goal::Running, Some(State::Failed)) => {
            if shown_revision_differs(tenant) {
                make(State::Pending, "Retried", "changed; tried again".to_owned(), asked())
            } else if failure.is_none() && !tenant.namespace_terminating {
                make(State::Pending, "Recovered", "what kept it from running is gone".to_owned(), observed())
            } else {
                None
            }
        }
        (Goal::Running, Some(State::Stopped)) => make(State::Pending, "Started", "started again".to_owned(), asked()),
        (_, Some(State::Running)) => make(
            State::Paused,
            "Draining",
            format!("taken out of its Service; {} s for requests under way", tenant.spec.drain_seconds),
            asked(),
        ),
        (_, Some(State::Paused)) if !tenant.namespace_terminating && now < drained_at(tenant) => None,
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
            make(State::Deleted, "Deleted", "deleted; its ledger stays".to_owned(), asked())
        }
        (Goal::Stopped, Some(State::Stopped)) => None,
    }
}

fn shown_revision_differs(tenant: &Tenant) -> bool {
    tenant.shown.status.revision.as_ref() != Some(&tenant.revision)
}

fn standing(tenant: &Tenant, health: &Health, failure: Option<&Failure>, state: Option<State>) -> Standing {
    let on_the_way = |reason, message: &str| Standing::OnTheWay { reason, message: message.to_owned() };
    match (tenant.goal, state) {
        (Goal::Running, Some(State::Failed)) => match failure {
            Some(failure) => Standing::Stuck(failure.clone()),
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
        (Goal::Running, _) => Standing::OnTheWay { reason: "Starting", message: health.sentence() },
        (Goal::Stopped, Some(State::Stopped)) => {
            Standing::AsDesired { reason: "Stopped", message: "stopped as asked; its disks are kept".to_owned() }
        }
        (Goal::Deleted, Some(State::Deleted)) => {
            on_the_way("Deleting", "its last record is written; its children are going")
        }
        (_, Some(State::Paused)) => on_the_way("Draining", "taken out of its Service; requests under way may finish"),
        (_, _) => Standing::OnTheWay { reason: "Stopping", message: format!("{} replicas are left", health.present) },
    }
}

/// What a changed revision means, for the record. Told from the StatefulSet as it was before this pass wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The first request.
    Create,
    /// The restart annotation changed.
    Restart,
    /// Another image.
    Release,
    /// Another number of replicas.
    Scale,
    /// Asked to stop.
    Stop,
    /// Asked to start again.
    Start,
    /// Deleted.
    Delete,
    /// Anything else in the spec.
    Update,
}

impl Change {
    /// The word in the audit and in `status.operation.action`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Restart => "Restart",
            Self::Release => "Release",
            Self::Scale => "Scale",
            Self::Stop => "Stop",
            Self::Start => "Start",
            Self::Delete => "Delete",
            Self::Update => "Update",
        }
    }

    /// Reason of the transition from running to running.
    const fn reason(self) -> &'static str {
        match self {
            Self::Restart => "Restarted",
            Self::Release => "Released",
            Self::Scale => "Scaled",
            _ => "Updated",
        }
    }

    fn sentence(self, tenant: &Tenant) -> String {
        match self {
            Self::Restart => "restarted, one replica after another".to_owned(),
            Self::Release => format!("image {}", tenant.spec.image),
            Self::Scale => format!("{} replicas wanted", tenant.spec.replicas),
            _ => "its spec was changed".to_owned(),
        }
    }
}

/// What the request that is being worked on asks for.
pub fn change(tenant: &Tenant) -> Change {
    match tenant.shown.status.operation.as_ref() {
        Some(operation) if operation.id == tenant.request.id.to_string() => known(&operation.action),
        _ => Change::Update,
    }
}

fn known(action: &str) -> Change {
    [Change::Create, Change::Restart, Change::Release, Change::Scale, Change::Stop, Change::Start, Change::Delete]
        .into_iter()
        .find(|change| change.as_str() == action)
        .unwrap_or(Change::Update)
}

/// The request that `tenant` carries, if the status does not have it yet.
pub fn new_request(tenant: &Tenant, before: &Observed) -> Option<OperationStatus> {
    let request = &tenant.request;
    let id = request.id.to_string();
    let known = tenant.shown.status.operation.as_ref().is_some_and(|operation| operation.id == id);
    (!known).then(|| OperationStatus {
        id,
        action: classify(tenant, before).as_str().to_owned(),
        actor: String::from(request.actor.clone()),
        generation: tenant.generation,
        started_at: rfc3339(request.at),
        result: None,
    })
}

/// What a new request asks for, by what stood before it.
fn classify(tenant: &Tenant, before: &Observed) -> Change {
    let paused_or_stopped = matches!(tenant.shown.state, Some(State::Paused | State::Stopped));
    let set = before.stateful_set.as_ref().map(|set| &set.seen);
    match tenant.goal {
        Goal::Deleted => Change::Delete,
        _ if tenant.shown.status.operation.is_none() => Change::Create,
        Goal::Stopped if !paused_or_stopped => Change::Stop,
        Goal::Running if paused_or_stopped => Change::Start,
        _ => match set {
            Some(set) if set.restarted_at != tenant.request.restarted_at => Change::Restart,
            Some(set) if set.image != tenant.spec.image => Change::Release,
            Some(set) if tenant.goal == Goal::Running && set.replicas != tenant.spec.replicas => Change::Scale,
            _ => Change::Update,
        },
    }
}
