//! What a request is: one change of the spec, one restart, or the deletion. What it is called, and when it is over.
//!
//! Owns: those decisions. Must never: do I/O, or decide what is done about it.

use super::{observe::Observed, plan::Standing, status::rfc3339, validate::Tenant};
use crate::{
    api::tenant_container::OperationStatus,
    chain::actor,
    ledger::{Actor, Record},
    lifecycle::{Goal, State},
};

/// It came to be.
pub const SUCCEEDED: &str = "Succeeded";
/// It will not come to be by itself.
pub const FAILED: &str = "Failed";
/// Another request came before it was over.
pub const SUPERSEDED: &str = "Superseded";

/// What a changed revision means, for the record. Told from the StatefulSet as it was before this pass wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The first request.
    Create,
    /// The restart annotation changed.
    Restart,
    /// The retry annotation changed.
    Retry,
    /// Another image.
    Release,
    /// Another number of replicas.
    Scale,
    /// Asked to pause.
    Pause,
    /// Asked to serve again, after it was paused, or while it drains.
    Resume,
    /// Asked to stop.
    Stop,
    /// Asked to start again, after it was stopped.
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
            Self::Retry => "Retry",
            Self::Release => "Release",
            Self::Scale => "Scale",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::Stop => "Stop",
            Self::Start => "Start",
            Self::Delete => "Delete",
            Self::Update => "Update",
        }
    }

    /// Reason of the transition from running to running.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Restart => "Restarted",
            Self::Release => "Released",
            Self::Scale => "Scaled",
            _ => "Updated",
        }
    }

    /// What it comes to, for the record.
    pub(super) fn sentence(self, tenant: &Tenant) -> String {
        match self {
            Self::Restart => "restarted, one replica after another".to_owned(),
            Self::Release => format!("image {}", tenant.spec.image),
            Self::Scale => format!("{} replicas wanted", tenant.spec.replicas),
            _ => "its spec was changed".to_owned(),
        }
    }
}

/// What the request that is being worked on asks for.
pub fn asked_for(tenant: &Tenant) -> Change {
    match tenant.shown.status.operation.as_ref() {
        Some(operation) if operation.id == tenant.request.id.to_string() => known(&operation.action),
        _ => Change::Update,
    }
}

fn known(action: &str) -> Change {
    [
        Change::Create,
        Change::Restart,
        Change::Retry,
        Change::Release,
        Change::Scale,
        Change::Pause,
        Change::Resume,
        Change::Stop,
        Change::Start,
        Change::Delete,
    ]
    .into_iter()
    .find(|change| change.as_str() == action)
    .unwrap_or(Change::Update)
}

/// The request that `tenant` carries, if the status does not have it yet.
pub fn new(tenant: &Tenant, before: &Observed) -> Option<OperationStatus> {
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
    let state = tenant.shown.state;
    // A state that is on its way was asked for by the request before this one.
    let last = tenant.shown.status.operation.as_ref().map(|operation| known(&operation.action));
    let set = before.stateful_set.as_ref().map(|set| &set.seen);
    match tenant.goal {
        Goal::Deleted => Change::Delete,
        _ if last.is_none() => Change::Create,
        Goal::Stopped if state != Some(State::Stopped) && last != Some(Change::Stop) => Change::Stop,
        Goal::Paused if last == Some(Change::Stop) => Change::Pause,
        Goal::Paused if state != Some(State::Paused) && last != Some(Change::Pause) => Change::Pause,
        Goal::Running if state == Some(State::Stopped) => Change::Start,
        Goal::Running if state == Some(State::Paused) => Change::Resume,
        _ => match set {
            Some(set) if set.restarted_at != tenant.request.restarted_at => Change::Restart,
            _ if is_retry(tenant) => Change::Retry,
            Some(set) if set.image != tenant.spec.image || is_rolled_out(tenant) => Change::Release,
            Some(set) if tenant.goal != Goal::Stopped && set.replicas != tenant.spec.replicas => Change::Scale,
            _ => Change::Update,
        },
    }
}

/// Whether the retry annotation has a value that nobody has acted on.
fn is_retry(tenant: &Tenant) -> bool {
    let asked = tenant.shown.status.retries.as_ref().and_then(|retries| retries.asked.as_ref());
    tenant.request.retry.is_some() && tenant.request.retry.as_ref() != asked
}

/// Whether the request is a rollout's, which asks for nothing else: its image may be in the StatefulSet already, by a pass that
/// did not come to tell.
fn is_rolled_out(tenant: &Tenant) -> bool {
    matches!(&tenant.request.actor, Actor::Berth(cause) if cause.starts_with(actor::ROLLOUT))
}

/// The request as the audit has it already: a pass that could not show it told it before, perhaps in other words.
pub fn as_told(told: &Record, mut request: OperationStatus) -> OperationStatus {
    let envelope = told.envelope();
    request.action.clone_from(&envelope.reason);
    request.actor = String::from(envelope.actor.clone());
    request.started_at = rfc3339(envelope.at);
    request
}

/// What came of the request under way, if it is over: the service is as desired, or will not get there by itself.
pub fn outcome(tenant: &Tenant, standing: &Standing) -> Option<&'static str> {
    tenant.shown.status.operation.as_ref().filter(|operation| operation.result.is_none())?;
    match (tenant.shown.state, standing) {
        (Some(State::Deleted), _) | (_, Standing::AsDesired { .. }) => Some(SUCCEEDED),
        (_, Standing::Stuck(_)) => Some(FAILED),
        (_, Standing::OnTheWay { .. } | Standing::Waiting(_)) => None,
    }
}
