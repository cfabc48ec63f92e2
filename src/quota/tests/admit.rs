//! The decision by itself.

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::objects::{demand, need, quota};
use crate::quota::{
    Amounts, Demand, Dimension, Reservations,
    admit::{MAX_RESERVATIONS, Round, admit, used},
    amounts::Limits,
};

fn limits(limits: Value) -> Limits {
    Limits::from(&quota(limits).spec.limits)
}

/// Decides over services that asked one after the other.
fn round(allowed: Value, demands: Vec<Demand>) -> Round {
    admit("acme", &limits(allowed), Reservations::new(), demands)
}

fn names(round: &Round) -> Vec<&str> {
    let mut names: Vec<_> = round.held.values().map(|held| held.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn messages(round: &Round) -> Vec<&str> {
    round.waiting.iter().map(|refusal| refusal.message.as_str()).collect()
}

#[test]
fn the_oldest_come_first_and_what_is_missing_is_said() {
    let demands = vec![demand(3, 2, need(1, 2)), demand(2, 3, need(1, 2)), demand(1, 1, need(1, 9))];
    let all = round(json!({"cpu": "12", "containers": 2}), demands);
    assert_eq!(names(&all), ["s-1", "s-3"]);
    assert_eq!(messages(&all), ["needs 1 container; 0 of 2 left, and 2 cpu; 1 of 12 left in quota acme"]);
}

#[test]
fn services_of_one_second_come_in_the_order_of_their_uids() {
    let demands = (1..=4).rev().map(|uid| demand(uid, 5, need(1, 1))).collect();
    let all = round(json!({"replicas": 2}), demands);
    assert_eq!(all.held.keys().map(Uuid::as_u128).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_large_one_is_not_starved_by_small_ones() {
    let demands = vec![demand(1, 1, need(1, 6)), demand(2, 2, need(1, 8)), demand(3, 3, need(1, 1))];
    let all = round(json!({"cpu": 10}), demands);
    assert_eq!(all.held.len(), 1, "four cores are left, and they are the second one's");
    assert_eq!(
        messages(&all),
        [
            "needs 8 cpu; 4 of 10 left in quota acme",
            "older services of the organisation wait for what is left in quota acme; they come first"
        ]
    );
}

#[test]
fn a_younger_one_passes_with_what_the_older_does_not_need() {
    let gpu = need(1, 1).with(Dimension::Gpu, 1);
    let demands = vec![demand(1, 1, gpu), demand(2, 2, gpu), demand(3, 3, need(1, 1)), demand(4, 4, need(1, 1))];
    let all = round(json!({"cpu": 3, "gpu": 1}), demands);
    let admitted: Vec<_> = all.held.keys().map(Uuid::as_u128).collect();
    assert_eq!(admitted, [1, 3], "the second waits for a GPU, and its core is kept for it");
}

#[test]
fn what_never_fits_keeps_nobody_waiting() {
    let demands = vec![demand(1, 1, need(1, 200)), demand(2, 2, need(1, 10))];
    let all = round(json!({"cpu": 10}), demands);
    assert_eq!(all.held.keys().map(Uuid::as_u128).collect::<Vec<_>>(), [2]);
    assert_eq!(
        messages(&all),
        ["needs 200 cpu, 10 are allowed in all by quota acme: it never fits unless one of the two is changed"]
    );
}

#[test]
fn growing_needs_only_what_is_more_and_keeps_what_it_has_meanwhile() {
    let held = round(json!({"cpu": 10}), vec![demand(1, 1, need(4, 4)), demand(2, 2, need(4, 4))]).held;
    let all = admit("acme", &limits(json!({"cpu": 10})), held.clone(), vec![demand(1, 1, need(8, 8))]);
    assert_eq!((&all.held, messages(&all)[0]), (&held, "needs 4 more cpu; 2 of 10 left in quota acme"));
    let all = admit("acme", &limits(json!({"cpu": 12})), held, vec![demand(1, 1, need(2, 8))]);
    let one = all.held[&Uuid::from_u128(1)].amounts;
    assert_eq!(one, need(4, 8), "the larger of old and new, until the old is given back");
}

#[test]
fn a_limit_that_was_lowered_takes_nothing_back_and_admits_nothing_new_of_it() {
    let held = round(json!({"cpu": 10}), (1..=10).map(|uid| demand(uid, 1, need(1, 1))).collect()).held;
    let demands = vec![demand(11, 2, need(1, 1)), demand(12, 2, need(0, 0))];
    let all = admit("acme", &limits(json!({"cpu": 5})), held.clone(), demands);
    assert!(held.keys().all(|uid| all.held.contains_key(uid)));
    assert_eq!(messages(&all), ["needs 1 cpu; 0 of 5 left in quota acme"]);
    assert!(all.held.contains_key(&Uuid::from_u128(12)), "one that needs none of it is not kept waiting");
}

#[test]
fn a_quota_has_places_for_so_many_reservations() {
    let demands = (0..MAX_RESERVATIONS as u128 + 1).map(|uid| demand(uid, 1, need(0, 0))).collect();
    let all = round(json!({}), demands);
    assert_eq!(all.held.len(), MAX_RESERVATIONS);
    assert_eq!(messages(&all), ["quota acme keeps 4000 reservations already, and has no place for another one"]);
}

fn some() -> impl Strategy<Value = Amounts> {
    ((0i64..5), (0i64..5), (0i64..3)).prop_map(|(replicas, cpu, gpu)| need(replicas, cpu).with(Dimension::Gpu, gpu))
}

proptest! {
    /// Whatever is asked for: never over a limit by what is granted now; nobody loses anything; and whoever is admitted
    /// before an older one takes nothing that the older one waits for, nor what it would take beside that.
    #[test]
    fn never_over_the_limit_and_nobody_is_passed(
        before in prop::collection::vec(some(), 0..6),
        asked in prop::collection::vec((1i64..5, 0usize..12, some()), 0..12),
        (replicas, cpu, gpu) in (0i64..15, 0i64..15, 0i64..6),
    ) {
        let limits = limits(json!({"replicas": replicas, "cpu": cpu, "gpu": gpu}));
        let held: Reservations = (0..).zip(before).map(|(uid, amounts)| {
            let Demand { uid, namespace, name, .. } = demand(uid, 0, amounts);
            (uid, crate::quota::Held { namespace, name, amounts })
        }).collect();
        let mut demands: Vec<Demand> = vec![];
        for (created, uid, amounts) in asked {
            let one = demand(uid as u128, created, amounts);
            if demands.iter().all(|other| other.uid != one.uid) {
                demands.push(one);
            }
        }
        let round = admit("acme", &limits, held.clone(), demands.clone());
        let (had, has) = (used(&held), used(&round.held));
        for dimension in Dimension::ALL {
            if has.get(dimension) > had.get(dimension) {
                prop_assert!(limits.get(dimension).is_none_or(|limit| has.get(dimension) <= limit));
            }
        }
        for (uid, before) in &held {
            prop_assert!(round.held[uid].amounts.covers(&before.amounts));
        }
        let lacks = |one: &Demand| one.need.beyond(&held.get(&one.uid).map_or(Amounts::ZERO, |held| held.amounts));
        let is_waiting = |one: &Demand| round.waiting.iter().any(|refusal| refusal.demand.uid == one.uid);
        demands.sort_by_key(|one| (one.created, one.uid));
        for (place, older) in demands.iter().enumerate().filter(|(_, one)| is_waiting(one)) {
            let fits_alone = Dimension::ALL.into_iter().all(|d| {
                lacks(older).get(d) == 0 || limits.get(d).is_none_or(|limit| older.need.get(d) <= limit)
            });
            if !fits_alone {
                continue;
            }
            // Without everybody younger it would wait all the same, and for the same.
            let alone = admit("acme", &limits, held.clone(), demands[..=place].to_vec());
            prop_assert!(alone.waiting.iter().any(|refusal| refusal.demand.uid == older.uid), "passed by a younger one");
            let left = |round: &Round, d| limits.get(d).map_or(i64::MAX, |limit| limit - used(&round.held).get(d));
            for d in Dimension::ALL.into_iter().filter(|d| lacks(older).get(*d) > 0) {
                let missing = |round: &Round| lacks(older).get(d).saturating_sub(left(round, d)).max(0);
                prop_assert_eq!(missing(&round), missing(&alone), "{:?} was taken from under it", d);
            }
        }
    }
}
