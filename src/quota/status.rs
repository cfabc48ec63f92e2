//! The status of a quota, made from what was decided.
//!
//! Owns: every field of it but the place in the chain, both ways. Must never: decide.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use uuid::Uuid;

use super::{
    admit::{Held, Reservations, Round, used},
    amounts::{Amounts, Dimension, Limits},
};
use crate::{
    api::{
        TenantQuota,
        tenant_quota::{QuotaAmounts, QuotaSummary, Reservation, TenantQuotaStatus},
    },
    ledger::Micros,
};

/// The reservations that a quota's status holds. None where nobody has counted yet, or where it is not as Berth writes it
/// (a restore that left it out, or took a part): then what runs is counted anew.
pub fn reservations(quota: &TenantQuota) -> Option<Reservations> {
    let status = quota.status.as_ref().filter(|status| status.epoch > 0)?;
    let held: Reservations = status
        .reservations
        .iter()
        .map(|one| {
            let Reservation { uid, namespace, name, amounts } = one;
            let held = Held { namespace: namespace.clone(), name: name.clone(), amounts: Amounts::from(amounts) };
            Some((uid.parse().ok()?, held))
        })
        .collect::<Option<_>>()?;
    (Amounts::from(&status.used) == used(&held)).then_some(held)
}

/// Whether this leader has written the status: what an earlier one had sent arrives no more.
pub fn is_taken_over(quota: &TenantQuota, epoch: u64) -> bool {
    quota.status.as_ref().and_then(|status| u64::try_from(status.epoch).ok()) == Some(epoch)
}

/// What one service has reserved.
pub fn reservation(quota: &TenantQuota, uid: Uuid) -> Option<Amounts> {
    let status = quota.status.as_ref().filter(|status| status.epoch > 0)?;
    let uid = uid.to_string();
    status.reservations.iter().find(|one| one.uid == uid).map(|one| Amounts::from(&one.amounts))
}

/// The status after a round.
pub fn of(quota: &TenantQuota, round: &Round, epoch: u64, now: Micros) -> TenantQuotaStatus {
    let before = quota.status.clone().unwrap_or_default();
    let (limits, used) = (Limits::from(&quota.spec.limits), used(&round.held));
    let (reason, message) = words(&limits, &used, round);
    let generation = quota.metadata.generation.unwrap_or_default();
    let condition = |name: &str, is: bool| {
        let status = if is { "True" } else { "False" };
        let old = before.conditions.iter().find(|old| old.type_ == name && old.status == status);
        Condition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.clone(),
            // Whole seconds: that is all the API keeps.
            last_transition_time: old.map_or_else(
                || Time(Timestamp::from_second(now.0.div_euclid(1_000_000)).unwrap_or_default()),
                |old| old.last_transition_time.clone(),
            ),
            observed_generation: Some(generation),
        }
    };
    TenantQuotaStatus {
        observed_generation: generation,
        conditions: vec![condition("Ready", true), condition("Reconciling", false), condition("Stalled", false)],
        epoch: i64::try_from(epoch).unwrap_or(i64::MAX).max(1),
        used: QuotaAmounts::from(&used),
        summary: summary(&limits, &used),
        waiting: i64::try_from(round.waiting.len()).unwrap_or(i64::MAX),
        // The chain's.
        recorded: before.recorded.clone(),
        ledger: before.ledger.clone(),
        reservations: round
            .held
            .iter()
            .map(|(uid, held)| Reservation {
                uid: uid.to_string(),
                namespace: held.namespace.clone(),
                name: held.name.clone(),
                amounts: QuotaAmounts::from(&held.amounts),
            })
            .collect(),
    }
}

fn words(limits: &Limits, used: &Amounts, round: &Round) -> (&'static str, String) {
    let over: Vec<_> = Dimension::ALL
        .into_iter()
        .filter_map(|dimension| Some((dimension, limits.get(dimension)?)))
        .filter(|(dimension, limit)| used.get(*dimension) > *limit)
        .map(|(dimension, limit)| format!("{} of {}", dimension.words(used.get(dimension)), dimension.number(limit)))
        .collect();
    if !over.is_empty() {
        let message = format!("{} are reserved: what runs goes on, nothing new of it is admitted", over.join(", "));
        return ("OverLimit", message);
    }
    match round.waiting.first() {
        None => ("WithinLimits", "nobody waits".to_owned()),
        Some(oldest) => {
            let demand = &oldest.demand;
            ("Exhausted", format!("the oldest that waits is {}/{}: {}", demand.namespace, demand.name, oldest.message))
        }
    }
}

fn summary(limits: &Limits, used: &Amounts) -> QuotaSummary {
    let of = |dimension: Dimension| {
        let limit = limits.get(dimension).map_or_else(|| "-".to_owned(), |limit| dimension.number(limit));
        format!("{}/{limit}", dimension.number(used.get(dimension)))
    };
    QuotaSummary {
        containers: of(Dimension::Containers),
        replicas: of(Dimension::Replicas),
        cpu: of(Dimension::Cpu),
        memory: of(Dimension::Memory),
        disk: of(Dimension::Disk),
        gpu: of(Dimension::Gpu),
        vectors: of(Dimension::Vectors),
    }
}
