//! A TenantContainer as a rollout sees it.
//!
//! Owns: reading one. Must never: decide how it stands with a rollout.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        self, TenantContainer,
        release::{Content, Release},
        tenant_container::{DesiredState, ReleaseStatus},
    },
    ledger::Micros,
    tenant::validate::time,
};

/// One target.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`: a release is written only over what was seen.
    pub resource_version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.image`: what a release overrides.
    pub image: String,
    /// What is in effect.
    pub content: Content,
    /// `spec.release`, in effect or void.
    pub release: Option<Release>,
    /// It is to serve: Running, with replicas.
    pub is_to_serve: bool,
    /// Berth is told to leave it alone.
    pub left_alone: bool,
    /// What its status says; none where that is not about its present spec.
    pub seen: Option<Seen>,
}

/// What a status says.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// As desired.
    pub ready: Told,
    /// It serves.
    pub available: Told,
    /// It will not get there by itself.
    pub stalled: Told,
    /// It is on the way.
    pub reconciling: bool,
    /// The release that it says is in effect, and since when.
    pub release: Option<(ReleaseStatus, Micros)>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// It is true.
    pub is: bool,
    /// Since when it has been what it is.
    pub since: Micros,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Told {
    /// A condition that is not there.
    fn never() -> Self {
        Self { is: false, since: Micros(0), reason: String::new(), message: String::new() }
    }
}

impl Target {
    /// How people name it.
    pub fn to_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether it is seen to serve, and is on the way to nothing else.
    pub fn serves(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.available.is && !seen.reconciling)
    }
}

/// Reads `object`; none where it is on its way out, or lacks what the API server always sets.
pub fn read(object: &TenantContainer) -> Option<Target> {
    let metadata = &object.metadata;
    if metadata.deletion_timestamp.is_some() {
        return None;
    }
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    let spec = &object.spec;
    Some(Target {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
        resource_version: metadata.resource_version.clone()?,
        labels: metadata.labels.clone().unwrap_or_default(),
        image: spec.image.clone(),
        content: spec.content(),
        release: spec.release.clone(),
        is_to_serve: spec.desired_state == DesiredState::Running && spec.replicas > 0,
        left_alone: annotation(api::RECONCILE_ANNOTATION) == Some(api::RECONCILE_DISABLED),
        seen: seen(object),
    })
}

fn seen(object: &TenantContainer) -> Option<Seen> {
    let status = object.status.as_ref()?;
    if Some(status.observed_generation) != object.metadata.generation {
        return None;
    }
    let condition = |name: &str| status.conditions.iter().find(|condition| condition.type_ == name);
    Some(Seen {
        ready: told(condition("Ready")?),
        // Of what Berth has refused from the start nothing else is told.
        available: condition("Available").map_or_else(Told::never, told),
        stalled: told(condition("Stalled")?),
        reconciling: condition("Reconciling").is_some_and(|condition| condition.status == "True"),
        release: status.release.as_ref().and_then(|release| {
            let since = release.since.parse::<jiff::Timestamp>().ok()?;
            Some((release.clone(), Micros(since.as_microsecond())))
        }),
    })
}

fn told(condition: &Condition) -> Told {
    Told {
        is: condition.status == "True",
        since: time(&condition.last_transition_time),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    }
}
