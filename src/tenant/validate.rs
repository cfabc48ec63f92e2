//! From the object as it came over the wire to types in which nothing is missing that the planner needs.
//!
//! Owns: what makes an object unfit to be worked on, and the sentence that says so. The schema has refused most of it
//! already; what is left depends on other objects or on the status. Must never: do I/O or read a clock.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use uuid::Uuid;

use super::view::NamespaceView;
use crate::{
    api::{
        self, TenantContainer,
        release::Release,
        tenant_container::{DesiredState, TenantContainerSpec, TenantContainerStatus},
    },
    chain::{self, Chain, actor},
    ledger::{self, Actor, Hash, Head, Micros, Target},
    lifecycle::{Goal, State},
};

/// The finalizer by which the garbage collector is told to leave children alone.
const ORPHAN: &str = "orphan";

/// A TenantContainer that can be worked on.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Who it is.
    pub target: Target,
    /// What its user wants, with what a rollout has put in the place of parts of it.
    pub spec: TenantContainerSpec,
    /// The release of a rollout that is in effect in it.
    pub release: Option<Release>,
    /// Where that leads.
    pub goal: Goal,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created_at: Micros,
    /// The namespace that holds it.
    pub namespace: ledger::Namespace,
    /// The namespace is on its way out: nothing can be created in it, and draining is pointless.
    pub namespace_terminating: bool,
    /// Whoever deletes it wants its children left to themselves (`--cascade=orphan`).
    pub orphaning: bool,
    /// Its user wants it left alone (`berth.dev/reconcile: disabled`). A deletion goes on all the same: a finalizer that hangs
    /// surprises, and whoever deletes has asked for something newer.
    pub left_alone: bool,
    /// The request that this generation carries.
    pub request: Request,
    /// Fingerprint of the part of the spec that pods are made from.
    pub revision: String,
    /// What has been shown so far.
    pub shown: Shown,
}

/// Somebody's request: one change of the spec, one restart, or the deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Follows from the object and its generation, so that every pass and every leader calls it the same.
    pub id: Uuid,
    /// Who asked.
    pub actor: Actor,
    /// When it was asked for, as the API server noted it.
    pub at: Micros,
    /// The restart annotation, if there is one.
    pub restarted_at: Option<String>,
    /// The retry annotation, if there is one.
    pub retry: Option<String>,
}

/// What the status says: where the shown chain ends, and the state there.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The state; none before the first record.
    pub state: Option<State>,
    /// The end of the shown chain.
    pub head: Head,
    /// Since when it has been in its state.
    pub since: Option<Micros>,
    /// The whole status as it was read: what a new one is compared with.
    pub status: TenantContainerStatus,
}

/// Why an object is not worked on. Its `reason` is the reason of the condition `Stalled` and of the Event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another live object has the same (tenantOrg, user, serviceName).
    #[error(
        "{namespace}/{name} already is the service {service} of user {user} in {org}, and is older; delete one of the two"
    )]
    Duplicate {
        /// Namespace of the one that counts.
        namespace: String,
        /// Its name.
        name: String,
        /// Tenant organisation.
        org: String,
        /// User.
        user: String,
        /// Service name.
        service: String,
    },
    /// The namespace belongs to somebody else.
    #[error("namespace {namespace} {}, but spec.tenantOrg is {org}; an administrator sets the label {label} on the namespace", found.as_ref().map_or("is no tenant organisation's".to_owned(), |found| format!("belongs to {found}")), label = api::TENANT_ORG_LABEL)]
    TenantOrgMismatch {
        /// The namespace.
        namespace: String,
        /// What its label says.
        found: Option<String>,
        /// What the spec says.
        org: String,
    },
    /// The status was written by something else.
    #[error(
        "status.{field} is \"{value}\", which Berth cannot have written; restore the status from a backup or from the ledger"
    )]
    StatusDamaged {
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// The API server left out what it always sets.
    #[error("metadata.{0} is missing or is not what Kubernetes writes there")]
    MetadataDamaged(&'static str),
}

impl Refusal {
    /// One CamelCase word: reason of the condition and of the Event.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Duplicate { .. } => "Duplicate",
            Self::TenantOrgMismatch { .. } => "TenantOrgMismatch",
            Self::StatusDamaged { .. } => "StatusDamaged",
            Self::MetadataDamaged(_) => "MetadataDamaged",
        }
    }
}

/// Everything outside the object that its validity depends on.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Uid of the namespace `kube-system`.
    pub cluster: Uuid,
    /// The object's namespace.
    pub namespace: &'a NamespaceView,
    /// Namespace and name of an older live object of the same identity.
    pub rival: Option<&'a (String, String)>,
}

impl Tenant {
    /// Its chain, as its status shows it.
    pub(super) fn chain(&self) -> Chain<'_> {
        Chain {
            target: &self.target,
            generation: self.generation,
            deleting: self.goal == Goal::Deleted,
            state: self.shown.state,
            head: self.shown.head,
            shown: &self.shown.status.ledger,
        }
    }
}

/// The parts of an object that can be read even if it is refused.
pub fn identify(object: &TenantContainer, cluster: Uuid) -> Result<Target, Refusal> {
    let metadata = &object.metadata;
    Ok(Target {
        cluster,
        uid: uid(metadata)?,
        kind: "TenantContainer".to_owned(),
        namespace: metadata.namespace.clone().ok_or(Refusal::MetadataDamaged("namespace"))?,
        name: metadata.name.clone().ok_or(Refusal::MetadataDamaged("name"))?,
    })
}

/// What has been shown of `object` so far.
pub fn shown(status: Option<&TenantContainerStatus>) -> Result<Shown, Refusal> {
    let status =
        status.cloned().unwrap_or_else(|| TenantContainerStatus { observed_generation: -1, ..Default::default() });
    let state = match &status.phase {
        None => None,
        Some(phase) => Some(
            State::ALL
                .into_iter()
                .find(|state| state.phase() == phase)
                .ok_or_else(|| Refusal::StatusDamaged { field: "phase", value: phase.clone() })?,
        ),
    };
    let damaged = |field, value: &dyn ToString| Refusal::StatusDamaged { field, value: value.to_string() };
    let head = chain::head(&status.ledger).map_err(|(field, value)| Refusal::StatusDamaged { field, value })?;
    let since = match &status.since {
        None => None,
        Some(text) => Some(text.parse::<jiff::Timestamp>().map(micros).map_err(|_| damaged("since", text))?),
    };
    Ok(Shown { state, head, since, status })
}

/// Checks `object` against its surroundings.
pub fn validate(object: &TenantContainer, around: Surroundings<'_>) -> Result<Tenant, Refusal> {
    let target = identify(object, around.cluster)?;
    let metadata = &object.metadata;
    let shown = shown(object.status.as_ref())?;
    let spec = object.spec.effective().into_owned();
    let deleting = metadata.deletion_timestamp.as_ref();
    let labels = around.namespace.metadata.labels.clone().unwrap_or_default();
    // An object that has a history is led to its end whatever became of its namespace's label.
    if deleting.is_none() {
        let found = labels.get(api::TENANT_ORG_LABEL).cloned();
        if found.as_ref() != Some(&spec.tenant_org) {
            return Err(Refusal::TenantOrgMismatch { namespace: target.namespace, found, org: spec.tenant_org });
        }
    }
    if let Some((namespace, name)) = around.rival
        && shown.state.is_none()
    {
        return Err(Refusal::Duplicate {
            namespace: namespace.clone(),
            name: name.clone(),
            org: spec.tenant_org,
            user: spec.user,
            service: spec.service_name,
        });
    }
    let goal = match (deleting, spec.desired_state) {
        (Some(_), _) => Goal::Deleted,
        (None, DesiredState::Stopped) => Goal::Stopped,
        (None, DesiredState::Paused) => Goal::Paused,
        (None, DesiredState::Running) => Goal::Running,
    };
    let generation = metadata.generation.ok_or(Refusal::MetadataDamaged("generation"))?;
    let restarted_at = metadata.annotations.as_ref().and_then(|all| all.get(api::RESTARTED_AT_ANNOTATION)).cloned();
    let created_at =
        metadata.creation_timestamp.as_ref().map(time).ok_or(Refusal::MetadataDamaged("creationTimestamp"))?;
    let retry = metadata.annotations.as_ref().and_then(|all| all.get(api::RETRY_ANNOTATION)).cloned();
    let id = request_id(target.uid, generation, restarted_at.as_deref(), retry.as_deref(), deleting.is_some());
    let noted = shown.status.operation.as_ref().filter(|operation| operation.id == id.to_string());
    let request = Request {
        id,
        actor: match noted {
            // Who asked was told when the request was new; what was stamped since belongs to something else.
            Some(operation) => Actor::from(operation.actor.clone()),
            None if deleting.is_some() => Actor::Unknown,
            None => who(metadata, generation, &shown),
        },
        at: deleting.or_else(|| actor::last_change(metadata)?.time.as_ref()).map_or(created_at, time),
        restarted_at,
        retry,
    };
    Ok(Tenant {
        namespace: ledger::Namespace { uid: uid(&around.namespace.metadata)?, name: target.namespace.clone(), labels },
        namespace_terminating: around.namespace.metadata.deletion_timestamp.is_some(),
        orphaning: deleting.is_some() && metadata.finalizers.iter().flatten().any(|name| name == ORPHAN),
        left_alone: deleting.is_none()
            && metadata.annotations.as_ref().and_then(|all| all.get(api::RECONCILE_ANNOTATION)).map(String::as_str)
                == Some(api::RECONCILE_DISABLED),
        release: object.spec.release_in_effect().cloned(),
        revision: revision(&spec, request.restarted_at.as_deref()),
        target,
        spec,
        goal,
        generation,
        created_at,
        request,
        shown,
    })
}

fn uid(metadata: &ObjectMeta) -> Result<Uuid, Refusal> {
    metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).ok_or(Refusal::MetadataDamaged("uid"))
}

/// The ledger's time of a Kubernetes time.
pub fn time(time: &Time) -> Micros {
    micros(time.0)
}

fn micros(time: jiff::Timestamp) -> Micros {
    Micros(time.as_microsecond())
}

/// Version 5 (RFC 9562): the same request has the same id in every pass, so that it is in the audit once.
fn request_id(uid: Uuid, generation: i64, restarted_at: Option<&str>, retry: Option<&str>, deleting: bool) -> Uuid {
    let mut name = format!("{generation}/{}/{deleting}", restarted_at.unwrap_or_default());
    // Only where there is one: what was called something before retries existed is called that for good.
    if let Some(retry) = retry {
        name = format!("{name}/{retry}");
    }
    Uuid::new_v5(&uid, name.as_bytes())
}

/// Who asked: the API server's stamp if it belongs to this generation, else the last manager of the spec as a guess.
/// A restart makes no generation, and a retry neither; each has a stamp of its own.
fn who(metadata: &ObjectMeta, generation: i64, shown: &Shown) -> Actor {
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
    let known_generation = shown.status.operation.as_ref().map(|operation| operation.generation) == Some(generation);
    let asked = shown.status.retries.as_ref().and_then(|retries| retries.asked.as_ref());
    let is_retry = annotation(api::RETRY_ANNOTATION).is_some_and(|retry| Some(retry) != asked);
    let without_generation = if is_retry { api::RETRIED_BY_ANNOTATION } else { api::RESTARTED_BY_ANNOTATION };
    match annotation(without_generation) {
        Some(name) if known_generation => Actor::User(name.clone()),
        _ => actor::of(metadata, generation),
    }
}

/// Fingerprint of what pods are made from. Destructured whole, so that a new field does not compile until somebody
/// decides whether changing it is a new release.
fn revision(spec: &TenantContainerSpec, restarted_at: Option<&str>) -> String {
    let TenantContainerSpec {
        image,
        image_pull_policy,
        replicas,
        resources,
        data_path,
        ports,
        command,
        args,
        env,
        volumes,
        probes,
        placement,
        tenant_org: _,
        user: _,
        service_name: _,
        desired_state: _,
        storage_class_name: _,
        vectors: _,
        indexes: _,
        drain_seconds: _,
        deletion_policy: _,
        // What is in effect of it is in image, resources and env already.
        release: _,
    } = spec;
    let parts = serde_json::json!([
        image,
        image_pull_policy,
        replicas,
        resources,
        data_path,
        ports,
        command,
        args,
        env,
        volumes,
        probes,
        placement,
        restarted_at
    ]);
    Hash::of(parts.to_string().as_bytes()).to_string()[..16].to_owned()
}
