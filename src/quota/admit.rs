//! Who gets what: the decision of one round over everything that an organisation has reserved and asks for.
//!
//! In the order of creation, then of the uid. Whoever does not fit keeps their place: what they are about to take is set
//! aside, so nobody younger takes what they wait for, and a large one is not starved by small ones. Younger ones pass only
//! with what the older do not need (the one waits for a GPU, the other asks for none). What could never fit, since it is
//! more than the limit by itself, sets nothing aside.
//!
//! Owns: that decision. Must never: do I/O, read a clock, or take back what was granted.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::amounts::{Amounts, Dimension, Limits};
use crate::ledger::Micros;

/// The most services that one quota keeps reservations for: each takes up to 300 bytes of its status, and an object has to
/// stay below the 1.5 MiB that etcd takes.
pub const MAX_RESERVATIONS: usize = 4_000;

/// What each service has reserved, by uid.
pub type Reservations = BTreeMap<Uuid, Held>;

/// What one service has reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its namespace.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// How much.
    pub amounts: Amounts,
}

/// What one service asks for: all that it needs, not only what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its uid.
    pub uid: Uuid,
    /// Its namespace.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// When it was made.
    pub created: Micros,
    /// How much.
    pub need: Amounts,
}

/// Why a demand waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What waits.
    pub demand: Demand,
    /// What is missing, in a sentence for whoever reads the service's conditions.
    pub message: String,
}

/// What a round comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// All reservations, with those that were granted now.
    pub held: Reservations,
    /// Who waits, oldest first.
    pub waiting: Vec<Refusal>,
}

/// Decides.
pub fn admit(quota: &str, limits: &Limits, mut held: Reservations, mut demands: Vec<Demand>) -> Round {
    demands.sort_by_key(|demand| (demand.created, demand.uid));
    let mut free = left(limits, &held);
    let mut waiting = vec![];
    for demand in demands {
        let have = held.get(&demand.uid).map_or(Amounts::ZERO, |held| held.amounts);
        let lacks = demand.need.beyond(&have);
        if lacks == Amounts::ZERO {
            continue;
        }
        let is_full = held.len() >= MAX_RESERVATIONS && !held.contains_key(&demand.uid);
        if is_full || never(limits, &demand.need, &lacks).next().is_some() {
            waiting.push(demand);
            continue;
        }
        let fits = Dimension::ALL.into_iter().all(|dimension| is_left(&free, dimension, lacks.get(dimension)));
        for dimension in Dimension::ALL {
            if let Some(free) = &mut free[dimension as usize] {
                *free = free.saturating_sub(lacks.get(dimension));
            }
        }
        if fits {
            // The larger of old and new, until what is given back is given back.
            let amounts = have.or_more(&demand.need);
            held.insert(demand.uid, Held { namespace: demand.namespace, name: demand.name, amounts });
        } else {
            waiting.push(demand);
        }
    }
    let left = left(limits, &held);
    let waiting = waiting
        .into_iter()
        .map(|demand| {
            let have = held.get(&demand.uid).map_or(Amounts::ZERO, |held| held.amounts);
            let is_full = held.len() >= MAX_RESERVATIONS && !held.contains_key(&demand.uid);
            Refusal { message: why(quota, limits, &left, &demand, &have, is_full), demand }
        })
        .collect();
    Round { held, waiting }
}

/// The sum of all reservations.
pub fn used(held: &Reservations) -> Amounts {
    held.values().fold(Amounts::ZERO, |sum, held| sum.plus(&held.amounts))
}

type Left = [Option<i64>; 7];

/// What is left of each limit; less than nothing where a limit was lowered below what is reserved.
fn left(limits: &Limits, held: &Reservations) -> Left {
    let used = used(held);
    Dimension::ALL.map(|dimension| Some(limits.get(dimension)?.saturating_sub(used.get(dimension))))
}

fn is_left(free: &Left, dimension: Dimension, lacks: i64) -> bool {
    lacks == 0 || free[dimension as usize].is_none_or(|free| lacks <= free)
}

/// What a demand needs more of than the limit is, if nobody else had anything.
fn never(limits: &Limits, need: &Amounts, lacks: &Amounts) -> impl Iterator<Item = (Dimension, i64)> {
    Dimension::ALL.into_iter().filter_map(|dimension| {
        let limit = limits.get(dimension)?;
        (lacks.get(dimension) > 0 && need.get(dimension) > limit).then_some((dimension, limit))
    })
}

fn why(quota: &str, limits: &Limits, left: &Left, demand: &Demand, have: &Amounts, is_full: bool) -> String {
    let lacks = demand.need.beyond(have);
    let never: Vec<_> = never(limits, &demand.need, &lacks)
        .map(|(dimension, limit)| {
            format!("{}, {} are allowed in all", dimension.words(demand.need.get(dimension)), dimension.number(limit))
        })
        .collect();
    if !never.is_empty() {
        return format!(
            "needs {} by quota {quota}: it never fits unless one of the two is changed",
            never.join(", and ")
        );
    }
    if is_full {
        return format!(
            "quota {quota} keeps {MAX_RESERVATIONS} reservations already, and has no place for another one"
        );
    }
    let missing: Vec<_> = Dimension::ALL
        .into_iter()
        .filter(|dimension| !is_left(left, *dimension, lacks.get(*dimension)))
        .map(|dimension| {
            let more = if have.get(dimension) > 0 { "more " } else { "" };
            let words = dimension.words(lacks.get(dimension));
            let words = words.split_once(' ').map_or(words.clone(), |(number, noun)| format!("{number} {more}{noun}"));
            let free = left[dimension as usize].unwrap_or(0).max(0);
            let limit = limits.get(dimension).unwrap_or(0);
            format!("{words}; {} of {} left", dimension.number(free), dimension.number(limit))
        })
        .collect();
    if missing.is_empty() {
        format!("older services of the organisation wait for what is left in quota {quota}; they come first")
    } else {
        format!("needs {} in quota {quota}", missing.join(", and "))
    }
}
