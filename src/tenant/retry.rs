//! Another try for a service that failed: when, what it comes to, and when Berth gives up.
//!
//! The kubelet starts a broken container again by itself, later and later, on the same node and with the same scratch space.
//! A try of Berth's is a fresh pod instead: the broken one is deleted, its controller makes another. What no fresh pod can
//! help (no node takes it, a child cannot be written) gets none by itself: those are looked at again anyway.
//!
//! Owns: those decisions. Must never: do I/O or read a clock.

use super::{health::MAX_SKEW, observe::Observed, status::rfc3339, validate::Tenant};
use crate::{
    api::tenant_container::RetryStatus,
    ledger::{Actor, Micros},
    lifecycle::{Goal, State},
};

/// How often Berth tries a failed service again by itself.
pub const LIMIT: i32 = 5;
/// How long after a failure, and then twice as long each time (5, 10, 20, 40 and 80 minutes), in microseconds. As long as
/// the kubelet's own longest wait: before that it is still trying.
const FIRST: i64 = 300_000_000;
/// How long a service has to run before its tries are forgotten, in microseconds.
const STEADY: i64 = 600_000_000;

/// A pod that is to be made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its ordinal.
    pub ordinal: i32,
    /// Its name.
    pub name: String,
    /// Its uid: that one or none.
    pub uid: Option<String>,
}

/// Another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The pods that are made anew.
    pub pods: Vec<Broken>,
    /// What is remembered of it.
    pub status: RetryStatus,
    /// Who caused it.
    pub actor: Actor,
    /// In a sentence.
    pub message: String,
}

/// Another try that is due now, of the replicas that are `broken`.
pub fn due(tenant: &Tenant, broken: &[i32], observed: &Observed, now: Micros) -> Option<Retry> {
    if !matches!(tenant.goal, Goal::Running | Goal::Paused) || tenant.namespace_terminating || tenant.orphaning {
        return None;
    }
    let before = tenant.shown.status.retries.clone().unwrap_or_default();
    let is_asked = tenant.request.retry.is_some() && tenant.request.retry != before.asked;
    let count = count(tenant);
    let is_time = due_at(tenant, broken, now).is_some_and(|at| at <= now);
    if !is_asked && !is_time {
        return None;
    }
    let pods = broken.iter().filter_map(|ordinal| {
        let metadata = &observed.pods.get(ordinal)?.metadata;
        Some(Broken { ordinal: *ordinal, name: metadata.name.clone()?, uid: metadata.uid.clone() })
    });
    let pods: Vec<_> = pods.collect();
    let anew = match pods.len() {
        0 => "no replica is broken".to_owned(),
        1 => format!("replica {} is made anew", broken.first().copied().unwrap_or_default()),
        count => format!("{count} replicas are made anew"),
    };
    let asked = tenant.request.retry.clone().or(before.asked);
    Some(if is_asked {
        // Somebody looks after it: Berth's own tries begin anew.
        Retry {
            status: RetryStatus { count: 0, revision: tenant.revision.clone(), at: Some(rfc3339(now)), asked },
            actor: tenant.request.actor.clone(),
            message: format!("tried again, as asked: {anew}"),
            pods,
        }
    } else {
        let count = count + 1;
        Retry {
            status: RetryStatus { count, revision: tenant.revision.clone(), at: Some(rfc3339(now)), asked },
            actor: Actor::Berth("retry".to_owned()),
            message: format!("tried again ({count} of {LIMIT}): {anew}"),
            pods,
        }
    })
}

/// When Berth tries again by itself; none where it does not.
pub fn due_at(tenant: &Tenant, broken: &[i32], now: Micros) -> Option<Micros> {
    let count = count(tenant);
    if broken.is_empty() || count >= LIMIT || tenant.shown.state != Some(State::Failed) {
        return None;
    }
    // What a clock told that has been set back since counts from now on.
    let since = tenant.shown.since.map_or(now.0, |since| since.0);
    let since = if since > now.0.saturating_add(MAX_SKEW) { now.0 } else { since };
    Some(Micros(since.saturating_add(FIRST << count.clamp(0, LIMIT))))
}

/// What to add to a failure's message.
pub fn sentence(tenant: &Tenant, broken: &[i32]) -> Option<String> {
    let count = count(tenant);
    if broken.is_empty() {
        None
    } else if count >= LIMIT {
        Some(format!("given up after {LIMIT} tries of Berth's own; change the spec, or the annotation berth.dev/retry"))
    } else {
        Some(format!("Berth has made its pods anew {count} of {LIMIT} times"))
    }
}

/// What is remembered once the service has run for a while: only what was asked for.
pub fn remembered(tenant: &Tenant, now: Micros) -> Option<RetryStatus> {
    let before = tenant.shown.status.retries.clone()?;
    match forgotten_at(tenant) {
        Some(at) if at <= now => {
            before.asked.is_some().then(|| RetryStatus { asked: before.asked, ..RetryStatus::default() })
        }
        _ => Some(before),
    }
}

/// When its tries are forgotten; none where there are none, or it does not run.
pub fn forgotten_at(tenant: &Tenant) -> Option<Micros> {
    let before = tenant.shown.status.retries.as_ref()?;
    let runs = matches!(tenant.shown.state, Some(State::Running | State::Paused));
    let since = tenant.shown.since.filter(|_| runs && before.at.is_some())?;
    Some(Micros(since.0.saturating_add(STEADY)))
}

/// How often it was tried again as it is asked for now: another spec begins anew.
fn count(tenant: &Tenant) -> i32 {
    let before = tenant.shown.status.retries.as_ref();
    before.filter(|before| before.revision == tenant.revision).map_or(0, |before| before.count)
}
