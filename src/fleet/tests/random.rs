//! Fleets at random: targets that fail, take their time, are changed and are added, and an operator that dies after any write.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{NEW, World};

#[derive(Clone, Debug)]
struct Fate {
    look: i64,
    start: i64,
    breaks: bool,
    silently: bool,
}

fn fate() -> impl Strategy<Value = Fate> {
    (0..4i64, 1..6i64, prop::bool::weighted(0.1), any::<bool>()).prop_map(|(look, start, breaks, silently)| Fate {
        look,
        start,
        breaks,
        silently,
    })
}

fn waves() -> impl Strategy<Value = (Value, usize)> {
    (1..5usize, 1..4i64, 1..60i64, 0..3i64).prop_map(|(limit, count, percent, soak)| {
        let wave = |name: &str, more: Value| {
            let mut wave = json!({"name": name, "maxUnavailable": limit, "maxFailures": 100, "soakSeconds": soak});
            for (key, value) in more.as_object().unwrap() {
                wave[key] = value.clone();
            }
            wave
        };
        let waves =
            json!([wave("a", json!({"count": count})), wave("b", json!({"percent": percent})), wave("c", json!({}))]);
        (waves, limit)
    })
}

/// What happens between two seconds.
#[derive(Clone, Debug)]
enum Happening {
    /// A pass that dies after so many writes.
    Pass(usize),
    /// Nobody works for so long.
    Away(i64),
    /// The rollout's status is gone.
    StatusGone,
    /// A service more.
    Added(Fate),
    /// Another field of a service is changed by its user.
    Scaled(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..4usize).prop_map(Happening::Pass),
        1 => (1..20i64).prop_map(Happening::Away),
        1 => Just(Happening::StatusGone),
        1 => fate().prop_map(Happening::Added),
        1 => (0..20usize).prop_map(Happening::Scaled),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_target_twice_none_forgotten_and_never_more_out_than_may_be(
        fates in prop::collection::vec(fate(), 1..20),
        (waves, limit) in waves(),
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::new(fates.len(), json!({"waves": waves}));
        for (service, fate) in world.services.iter_mut().zip(&fates) {
            (service.look, service.start) = (fate.look, fate.start);
            service.breaks_with = fate.breaks.then_some(NEW);
            service.silently = fate.silently;
        }
        world.later(20);
        world.most_out = 0;
        let mut edits = 0;
        for happening in happenings {
            match happening {
                Happening::Pass(most) => drop(world.pass(most)),
                Happening::Away(seconds) => world.later(seconds),
                Happening::StatusGone => world.status = Default::default(),
                Happening::Added(Fate { look, start, breaks, silently }) => {
                    let service = world.add();
                    (service.look, service.start) = (look, start);
                    service.breaks_with = breaks.then_some(NEW);
                    service.silently = silently;
                }
                Happening::Scaled(number) => {
                    let number = number % world.services.len();
                    world.edit(number, |spec| spec["replicas"] = json!(3));
                    edits += 1;
                }
            }
            world.later(1);
        }
        world.settle();
        // What its users take out themselves is not the rollout's.
        prop_assert!(world.most_out <= limit + edits, "{} out, {limit} allowed", world.most_out);
        for service in &world.services {
            prop_assert!(service.given.values().all(|count| *count == 1), "{}: {:?}", service.name(), service.given);
        }
        let broken = world.services.iter().filter(|service| service.breaks_with.is_some()).count();
        if broken < limit {
            prop_assert_eq!(world.with(NEW).len(), world.services.len(), "{:?}", world.status);
            prop_assert_eq!(world.phase(), "Complete");
        } else {
            // All that may be out is out: it stands, says so, and has harmed nobody else.
            prop_assert!(world.phase() == "Complete" || world.condition("Stalled").0 == "True", "{:?}", world.status);
        }
    }

    #[test]
    fn a_rollback_at_any_moment_leaves_everybody_with_what_they_had(
        fates in prop::collection::vec(fate(), 1..15),
        (waves, limit) in waves(),
        passes in prop::collection::vec(0..4usize, 0..20),
        cut in prop::collection::vec(0..3usize, 0..20),
    ) {
        let mut world = World::new(fates.len(), json!({"waves": waves}));
        for (service, fate) in world.services.iter_mut().zip(&fates) {
            (service.look, service.start) = (fate.look, fate.start);
            service.breaks_with = fate.breaks.then_some(NEW);
        }
        world.later(20);
        world.most_out = 0;
        for most in passes {
            world.pass(most);
            world.later(1);
        }
        world.order(|spec| spec["rollBack"] = json!(true));
        for most in cut {
            world.pass(most);
            world.later(1);
        }
        world.settle();
        prop_assert_eq!(world.with(NEW).len(), 0);
        prop_assert_eq!(world.phase(), "RolledBack");
        prop_assert!(world.most_out <= limit, "{} out, {limit} allowed", world.most_out);
        for service in &world.services {
            prop_assert!(service.given.values().all(|count| *count == 1), "{}: {:?}", service.name(), service.given);
        }
    }
}
