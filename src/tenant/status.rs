//! The status, made from what was decided and seen: phase for people, conditions as the truth (kstatus reads them).
//!
//! Owns: every field of the status but the request's progress. Must never: be made from children that were not seen.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    cpu,
    health::Failure,
    held,
    observe::Observed,
    plan::Standing,
    record, retry,
    validate::{Refusal, Tenant},
};
use crate::{
    api::{
        LedgerStatus,
        release::Origin,
        tenant_container::{ReleaseStatus, TenantContainerStatus},
    },
    chain::{Kept, SYNCED, detail},
    ledger::{Kind, Micros, Record, visible},
    lifecycle::{Goal, State},
};

/// The longest message of a condition, in characters (the API's limit is 32,768; people read one line).
const MAX_MESSAGE: usize = 1_024;

/// How long a service may have begun to start before its counts are shown, in microseconds.
const CALM: i64 = 2_000_000;

/// The status of a tenant in good standing or on its way there.
pub fn of(
    tenant: &Tenant,
    observed: &Observed,
    standing: &Standing,
    kept: Kept<'_>,
    now: Micros,
) -> TenantContainerStatus {
    let before = &tenant.shown.status;
    let state = tenant.shown.state;
    let set = observed.stateful_set.as_deref();
    let ready_replicas = set.map_or(0, |set| set.seen.ready);
    let mut conditions = Conditions::new(before, tenant.generation, now);
    match standing {
        Standing::AsDesired { reason, message } => {
            conditions.set("Ready", true, reason, message);
            conditions.set("Reconciling", false, reason, message);
            conditions.set("Stalled", false, reason, message);
        }
        Standing::OnTheWay { reason, message } | Standing::Waiting(Failure { reason, message }) => {
            conditions.set("Ready", false, reason, message);
            conditions.set("Reconciling", true, reason, message);
            conditions.set("Stalled", false, reason, message);
        }
        Standing::Stuck(Failure { reason, message }) => {
            conditions.set("Ready", false, reason, message);
            conditions.set("Reconciling", false, reason, message);
            conditions.set("Stalled", true, reason, message);
        }
    }
    // From running on it is in its Service, whether it runs as asked or not; paused, it is out of it.
    let serving = tenant.goal == Goal::Running && state != Some(State::Paused);
    match (serving, ready_replicas) {
        (true, 1..) => conditions.set("Available", true, "Serving", &format!("{ready_replicas} replicas answer")),
        (true, _) => conditions.set("Available", false, "NoReplicaReady", "no replica is ready"),
        (false, _) => conditions.set("Available", false, "OutOfService", "taken out of its Service, as asked"),
    }
    if let Some(lag) = cpu::lag(tenant, observed).filter(|lag| lag.is_refused) {
        conditions.set("ResumePending", true, "CpuNotGiven", &lag.message);
    }
    conditions.set_synced(before, kept);
    let backend = kept.backend(before.ledger.backend.as_ref());
    let conditions = conditions.done();
    let release = release(tenant, &conditions, now);
    TenantContainerStatus {
        observed_generation: tenant.generation,
        phase: state.map(|state| state.phase().to_owned()),
        conditions,
        replicas: set.map_or(0, |set| set.seen.current),
        ready_replicas,
        selector: Some(format!("{}={}", super::names::OWNER_UID, tenant.target.uid)),
        endpoint: Some(format!("{}.{}.svc", super::names::main(&tenant.target.name), tenant.target.namespace)),
        since: before.since.clone(),
        operation: before.operation.clone(),
        revision: before.revision.clone(),
        release,
        retries: retry::remembered(tenant, now),
        ledger: LedgerStatus { backend, ..before.ledger.clone() },
    }
}

/// The status with a record that is no news of the service ([`crate::chain::is_no_news`]): how that stands is what it was shown
/// to be, and neither a client nor a rollout has to do with the ledger's repairs.
pub fn as_it_was(before: &TenantContainerStatus, kept: Kept<'_>, now: Micros) -> TenantContainerStatus {
    let mut conditions = Conditions::new(before, before.observed_generation.max(0), now);
    conditions.after.extend(before.conditions.iter().filter(|condition| condition.type_ != SYNCED).cloned());
    conditions.set_synced(before, kept);
    let backend = kept.backend(before.ledger.backend.as_ref());
    let ledger = LedgerStatus { backend, ..before.ledger.clone() };
    TenantContainerStatus { ledger, ..only_told(before, conditions.done(), now) }
}

/// The release in effect, if there is one; since when and how well is remembered.
fn release(tenant: &Tenant, conditions: &[Condition], now: Micros) -> Option<ReleaseStatus> {
    let release = tenant.release.as_ref()?;
    let Origin { namespace, name, uid, revision, wave: _, step } = &release.rollout;
    let shown = ReleaseStatus {
        image: release.image.clone(),
        rollout: format!("{namespace}/{name}"),
        uid: uid.clone(),
        revision: revision.clone(),
        step: *step,
        since: rfc3339(now),
        ready_seconds: None,
        available_seconds: None,
    };
    let before = &tenant.shown.status;
    let same = before.release.as_ref().filter(|before| {
        let ReleaseStatus { since, ready_seconds, available_seconds, .. } = (*before).clone();
        **before == ReleaseStatus { since, ready_seconds, available_seconds, ..shown.clone() }
    });
    Some(match same {
        Some(same) => held::entered(same.clone(), &before.conditions, conditions, now),
        None => shown,
    })
}

/// `before` with other conditions, of an object that is not worked on.
fn only_told(before: &TenantContainerStatus, conditions: Vec<Condition>, now: Micros) -> TenantContainerStatus {
    let release = before.release.clone().map(|release| held::entered(release, &before.conditions, &conditions, now));
    TenantContainerStatus { conditions, release, ..before.clone() }
}

/// Until when a status that differs from the one before only in what it counts is not worth a write: a service that has just
/// begun to start counts otherwise with every pod, and the state that follows says it all.
///
/// None where it is not so, or no longer.
pub fn calm_at(
    tenant: &Tenant,
    before: &TenantContainerStatus,
    after: &TenantContainerStatus,
    now: Micros,
) -> Option<Micros> {
    let uncounted = |status: &TenantContainerStatus| {
        let mut status = TenantContainerStatus { replicas: 0, ready_replicas: 0, ..status.clone() };
        for condition in status.conditions.iter_mut().filter(|condition| condition.type_ != SYNCED) {
            condition.message.clear();
        }
        status
    };
    let starting = tenant.shown.state == Some(State::Pending) && uncounted(before) == uncounted(after);
    // Not where a clock was set back: it would not be calm for long.
    let since = tenant.shown.since.filter(|since| starting && (since.0..since.0 + CALM).contains(&now.0))?;
    Some(Micros(since.0 + CALM))
}

/// The status of an object that is not worked on: what was shown stays, and the conditions say why.
pub fn refused(
    before: &TenantContainerStatus,
    refusal: &Refusal,
    generation: i64,
    now: Micros,
) -> TenantContainerStatus {
    let message = refusal.to_string();
    let mut conditions = Conditions::new(before, generation, now);
    conditions.set("Ready", false, refusal.reason(), &message);
    conditions.set("Reconciling", false, refusal.reason(), &message);
    conditions.set("Stalled", true, refusal.reason(), &message);
    conditions.keep("Available");
    conditions.keep(SYNCED);
    TenantContainerStatus { observed_generation: generation, ..only_told(before, conditions.done(), now) }
}

/// Reason of the conditions of an object that is left alone, and of the Event.
pub const RECONCILE_DISABLED: &str = "ReconcileDisabled";
/// What that means.
pub const LEFT_ALONE: &str =
    "left alone, as its annotation berth.dev/reconcile: disabled asks; remove it, and Berth looks after it again";

/// The status of an object that is left alone: what was shown stays, and nobody knows whether it still is so.
pub fn left_alone(before: &TenantContainerStatus, now: Micros) -> TenantContainerStatus {
    let mut conditions = Conditions::new(before, before.observed_generation.max(0), now);
    conditions.put("Ready", "Unknown", RECONCILE_DISABLED, LEFT_ALONE);
    conditions.put("Reconciling", "False", RECONCILE_DISABLED, LEFT_ALONE);
    conditions.put("Stalled", "False", RECONCILE_DISABLED, LEFT_ALONE);
    conditions.keep("Available");
    conditions.keep("ResumePending");
    conditions.keep(SYNCED);
    only_told(before, conditions.done(), now)
}

/// Enters a record that is now durable: from here on it is what the object's chain ends with.
pub fn advance(status: &mut TenantContainerStatus, record: &Record) {
    let envelope = record.envelope();
    if let Some(state) = envelope.to {
        status.phase = Some(state.phase().to_owned());
    }
    if let Some(revision) = detail(record, record::REVISION) {
        status.revision = Some(revision);
    }
    if envelope.kind == Kind::Transition {
        status.since = Some(rfc3339(envelope.at));
    }
    status.ledger.sequence = i64::try_from(envelope.seq).unwrap_or(i64::MAX);
    status.ledger.head = record.hash().to_string();
}

/// A moment as the status writes it: RFC 3339, UTC, microseconds.
pub fn rfc3339(at: Micros) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| String::new(), |at| format!("{at:.6}"))
}

struct Conditions<'a> {
    before: &'a [Condition],
    generation: i64,
    now: Micros,
    after: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    fn new(before: &'a TenantContainerStatus, generation: i64, now: Micros) -> Self {
        Self { before: &before.conditions, generation, now, after: vec![] }
    }

    fn old(&self, name: &str) -> Option<&'a Condition> {
        self.before.iter().find(|condition| condition.type_ == name)
    }

    fn set(&mut self, name: &str, is: bool, reason: &str, message: &str) {
        self.put(name, if is { "True" } else { "False" }, reason, message);
    }

    fn put(&mut self, name: &str, status: &str, reason: &str, message: &str) {
        let since = match self.old(name) {
            Some(old) if old.status == status => old.last_transition_time.clone(),
            // Whole seconds: that is all the API keeps.
            _ => Time(jiff::Timestamp::from_second(self.now.0.div_euclid(1_000_000)).unwrap_or_default()),
        };
        self.after.push(Condition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: visible(message, MAX_MESSAGE),
            last_transition_time: since,
            observed_generation: Some(self.generation),
        });
    }

    fn keep(&mut self, name: &str) {
        if let Some(old) = self.old(name) {
            self.after.push(Condition { observed_generation: Some(self.generation), ..old.clone() });
        }
    }

    /// Where the records are, or as it was said before.
    fn set_synced(&mut self, before: &TenantContainerStatus, kept: Kept<'_>) {
        match kept.words(before.ledger.pending.len()) {
            None => self.keep(SYNCED),
            Some((is, reason, message)) => self.set(SYNCED, is, reason, &message),
        }
    }

    fn done(self) -> Vec<Condition> {
        self.after
    }
}
