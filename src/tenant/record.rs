//! From a decision to the ledger's words: drafts, snapshots, operations.
//!
//! Owns: what a record of a TenantContainer says, and what it leaves out. Must never: do I/O.

use serde_json::{Value, json};

use super::{
    observe::Observed,
    plan::Hop,
    requests,
    validate::{Tenant, time},
    view::{ContainerSeen, PodView},
};
use crate::{
    api::tenant_container::{OperationStatus, TenantContainerSpec},
    chain::MESSAGE,
    ledger::{
        Actor, Draft, Entry, Head, Index, Kind, Micros, OperationOutcome, Present, Replica, Seal, Service, Snapshot,
    },
    lifecycle::State,
};

/// The draft of a transition.
pub fn transition(tenant: &Tenant, hop: &Hop) -> Draft {
    let operation = tenant.shown.status.operation.as_ref().filter(|operation| operation.result.is_none());
    Draft {
        kind: Kind::Transition,
        uid: tenant.target.uid,
        from: hop.transition.from(),
        to: Some(hop.transition.to()),
        reason: hop.reason.to_owned(),
        actor: hop.actor.clone(),
        generation: tenant.generation,
        operation: operation.and_then(|operation| operation.id.parse().ok()),
        details: json!({
            MESSAGE: hop.message,
            "namespace": tenant.target.namespace,
            "name": tenant.target.name,
            "tenantOrg": tenant.spec.tenant_org,
            "user": tenant.spec.user,
            "serviceName": tenant.spec.service_name,
            "image": tenant.spec.image,
            "replicas": tenant.spec.replicas,
            REVISION: tenant.revision,
        }),
    }
}

/// The detail of a transition that says which spec it answers to.
pub const REVISION: &str = "revision";

/// The present as it is once the chain ends with `head` in `state`.
pub fn snapshot(
    tenant: &Tenant,
    observed: &Observed,
    state: Option<State>,
    head: Head,
    epoch: u64,
    now: Micros,
) -> Snapshot {
    let spec = &tenant.spec;
    Snapshot {
        target: tenant.target.clone(),
        created_at: tenant.created_at,
        observed_at: now,
        generation: tenant.generation,
        epoch,
        head,
        present: Present::Service(Service {
            namespace: tenant.namespace.clone(),
            tenant_org: spec.tenant_org.clone(),
            user: spec.user.clone(),
            service_name: spec.service_name.clone(),
            replicas: spec.replicas,
            cpu_millis: spec.resources.cpu.millis(),
            memory_bytes: spec.resources.memory.units(),
            disk_bytes: spec.resources.disk.as_ref().map_or(0, |disk| disk.units()),
            gpu_count: spec.resources.gpu,
            dimension: spec.vectors.as_ref().map(|vectors| vectors.dimension),
            vector_count: spec.vectors.as_ref().and_then(|vectors| vectors.count),
            state,
            spec: without_literals(spec),
            indexes: spec
                .indexes
                .iter()
                .map(|index| Index {
                    name: index.name.clone(),
                    dimension: index.dimension,
                    metric: index.metric.as_str().to_owned(),
                    declared_count: index.count,
                })
                .collect(),
            replicas_seen: observed.pods.values().filter_map(|pod| replica(pod)).collect(),
        }),
    }
}

/// The spec without literal values of environment variables: people put secrets there whatever they are told.
fn without_literals(spec: &TenantContainerSpec) -> Value {
    let mut spec = spec.clone();
    for variable in &mut spec.env {
        if variable.value.is_some() {
            variable.value = Some("(literal)".to_owned());
        }
    }
    serde_json::to_value(spec).unwrap_or_default()
}

fn replica(pod: &PodView) -> Option<Replica> {
    let seen = &pod.seen;
    let (state, reason, started_at, finished_at) = match &seen.container {
        ContainerSeen::Unknown => ("waiting", None, None, None),
        ContainerSeen::Waiting { reason, message: _ } => ("waiting", Some(reason.clone()), None, None),
        ContainerSeen::Running { started_at } => ("running", None, started_at.as_ref().map(time), None),
        ContainerSeen::Terminated { reason, exit_code: _, started_at, finished_at } => {
            ("terminated", Some(reason.clone()), started_at.as_ref().map(time), finished_at.as_ref().map(time))
        }
    };
    Some(Replica {
        uid: pod.metadata.uid.as_deref()?.parse().ok()?,
        name: pod.metadata.name.clone()?,
        node: seen.node.clone(),
        image: seen.image.clone(),
        image_digest: seen.image_id.clone(),
        state: state.to_owned(),
        reason,
        ready: seen.ready,
        restarts: seen.restarts,
        started_at,
        finished_at,
    })
}

/// The start of `request`, which `tenant` carries.
pub fn operation_started(tenant: &Tenant, request: &OperationStatus, seal: Seal) -> Entry {
    // At the moment that the API server noted, not at ours.
    let seal = Seal { at: tenant.request.at, ..seal };
    Entry::Operation {
        record: operation(tenant, Kind::OperationStart, request).seal(seal, Head::GENESIS),
        target: tenant.target.clone(),
        outcome: None,
    }
}

/// The detail of a finish that says what came of it.
pub const RESULT: &str = "result";

/// The finish of `request`, at `seal.at`.
pub fn operation_finished(tenant: &Tenant, request: &OperationStatus, result: &str, seal: Seal) -> Entry {
    let started = request.started_at.parse::<jiff::Timestamp>().map_or(seal.at.0, jiff::Timestamp::as_microsecond);
    let mut draft = operation(tenant, Kind::OperationFinish, request);
    if let Some(details) = draft.details.as_object_mut() {
        details.insert(RESULT.to_owned(), json!(result));
    }
    Entry::Operation {
        record: draft.seal(seal, Head::GENESIS),
        target: tenant.target.clone(),
        outcome: Some(OperationOutcome {
            succeeded: result == requests::SUCCEEDED,
            duration_ms: (seal.at.0 - started).max(0) / 1_000,
        }),
    }
}

fn operation(tenant: &Tenant, kind: Kind, request: &OperationStatus) -> Draft {
    Draft {
        kind,
        uid: tenant.target.uid,
        from: None,
        to: None,
        reason: request.action.clone(),
        actor: Actor::from(request.actor.clone()),
        generation: request.generation,
        operation: request.id.parse().ok(),
        details: json!({"namespace": tenant.target.namespace, "name": tenant.target.name}),
    }
}
