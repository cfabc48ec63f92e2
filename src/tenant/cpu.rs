//! The CPU of a paused service: what each replica should have, whether it has it, and what to say about that.
//!
//! A pod is changed in place (KEP-1287), never by its template, which would make new pods. So a replica that was made
//! anew while its service was paused begins with all of its CPU, and is shrunk again once it is ready.
//!
//! Owns: those decisions. Must never: do I/O or read a clock.

use std::sync::Arc;

use super::{names, observe::Observed, plan::drained_at, validate::Tenant, view::PodView};
use crate::{
    ledger::Micros,
    lifecycle::{Goal, State},
};

/// What a paused replica is left, in thousandths of a core: enough for probes, a TLS handshake and an idle runtime's
/// background threads. A replica that has no more than that anyway is left alone.
pub const FLOOR: i64 = 50;

/// A replica whose CPU is to be changed.
#[derive(Clone, Debug)]
pub struct Resize {
    /// Its ordinal.
    pub ordinal: i32,
    /// Its pod as it was seen: that one or none.
    pub pod: Arc<PodView>,
    /// As a Kubernetes quantity; request and limit.
    pub cpu: String,
}

/// Why a service that is asked to run again is not back in its Service yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The node, or the API server, will not give it for now: not the moment that it takes.
    pub is_refused: bool,
    /// In a sentence.
    pub message: String,
}

/// The replicas whose CPU is to be changed now.
pub fn resizes(tenant: &Tenant, observed: &Observed, now: Micros) -> Vec<Resize> {
    let full = tenant.spec.resources.cpu.millis();
    let state = tenant.shown.state;
    let shrink = match (tenant.goal, state) {
        _ if full <= FLOOR => return vec![],
        // Requests under way finish first, with all the CPU there is.
        (Goal::Paused, Some(State::Paused)) if now < drained_at(tenant, now) => return vec![],
        (Goal::Paused, Some(State::Paused)) => true,
        (Goal::Running | Goal::Paused, _) => false,
        // It ends.
        (Goal::Stopped | Goal::Deleted, _) => return vec![],
    };
    let all = observed.pods.iter().filter(|(_, pod)| !pod.is_terminating());
    let differing = all.filter(|(_, pod)| match pod.seen.cpu {
        // What somebody else has set is theirs; and who does not tell what a container has cannot change it.
        Some(cpu) if shrink => {
            cpu == full && pod.seen.ready && pod.seen.actual_cpu.is_some() && is_newest(pod, observed)
        }
        Some(FLOOR) => state != Some(State::Running) || is_newest(pod, observed),
        _ => false,
    });
    let cpu = if shrink { format!("{FLOOR}m") } else { tenant.spec.resources.cpu.as_str().to_owned() };
    differing.map(|(ordinal, pod)| Resize { ordinal: *ordinal, pod: Arc::clone(pod), cpu: cpu.clone() }).collect()
}

fn is_newest(pod: &PodView, observed: &Observed) -> bool {
    let newest = observed.stateful_set.as_ref().map(|set| set.seen.update_revision.as_str());
    newest.is_some() && pod.label(names::REVISION) == newest
}

/// What keeps a paused service from going back into its Service: replicas that do not have their CPU again. A node that
/// has said yes counts as having given it.
pub fn lag(tenant: &Tenant, observed: &Observed) -> Option<Lag> {
    let full = tenant.spec.resources.cpu.millis();
    if tenant.goal != Goal::Running || tenant.shown.state != Some(State::Paused) || full <= FLOOR {
        return None;
    }
    let all = observed.pods.iter().filter(|(_, pod)| !pod.is_terminating());
    let lags = all.filter_map(|(ordinal, pod)| {
        let seen = &pod.seen;
        let waits = match (seen.cpu, seen.actual_cpu) {
            (Some(FLOOR), _) => true,
            (Some(cpu), Some(actual)) if cpu == full && actual < full => {
                seen.resize_pending.is_some() || seen.looked_at < pod.metadata.generation
            }
            _ => false,
        };
        waits.then(|| match (observed.unresized.get(ordinal), &seen.resize_pending) {
            (Some(refusal), _) => {
                Lag { is_refused: true, message: format!("replica {ordinal} does not get its CPU back: {refusal}") }
            }
            (None, Some((reason, message))) if seen.looked_at >= pod.metadata.generation => Lag {
                is_refused: true,
                message: format!("replica {ordinal} does not get its CPU back ({reason}): {message}"),
            },
            _ => Lag { is_refused: false, message: format!("replica {ordinal} gets its CPU back") },
        })
    });
    lags.max_by_key(|lag| lag.is_refused)
}

/// What a paused service's replicas have, for its condition; nothing where there is nothing to say.
pub fn sentence(tenant: &Tenant, observed: &Observed) -> Option<String> {
    let full = &tenant.spec.resources.cpu;
    if full.millis() <= FLOOR {
        return None;
    }
    let kept = observed.pods.iter().find_map(|(ordinal, pod)| {
        let seen = &pod.seen;
        let why = match (observed.unresized.get(ordinal), &seen.resize_pending) {
            (Some(refusal), _) => refusal.clone(),
            (None, Some((reason, message))) => format!("{reason}: {message}"),
            (None, None) if seen.ready && seen.actual_cpu.is_none() => {
                "its node does not tell what a container has, and so cannot change it in place".to_owned()
            }
            (None, None) => return None,
        };
        Some(format!("replica {ordinal} keeps its CPU of {full}: {why}"))
    });
    let mut pods = observed.pods.values();
    let is_shrunk = !observed.pods.is_empty() && pods.all(|pod| pod.seen.cpu == Some(FLOOR));
    kept.or_else(|| is_shrunk.then(|| format!("each with {FLOOR}m of its CPU of {full} until it resumes")))
}
