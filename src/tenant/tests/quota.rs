//! A service whose organisation has a quota: nothing that it may not have is made, and what it has goes on.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    objects::{CLAIMS, OBJECT, QUOTAS, SERVICE, STATEFUL_SET, UID, World, waiting},
    server::Cut,
};
use crate::{
    api::Quantity,
    ledger::{Record, simulated::Database},
    lifecycle::State,
};

/// What the service has reserved.
fn reserved(world: &World) -> Value {
    let quota = world.quota();
    let all = quota["status"]["reservations"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["uid"] == UID).map_or(Value::Null, |one| one["amounts"].clone())
}

fn message(world: &World) -> String {
    let object = world.object();
    let all = object["status"]["conditions"].as_array().unwrap();
    let ready = all.iter().find(|condition| condition["type"] == "Ready").unwrap();
    ready["message"].as_str().unwrap().to_owned()
}

fn replicas(world: &World) -> i64 {
    world.stateful_set().map_or(0, |set| set["spec"]["replicas"].as_i64().unwrap())
}

fn is_waiting(world: &World) -> bool {
    world.condition("Ready") == ("False".into(), "QuotaExceeded".into())
}

#[test]
fn a_service_without_room_stays_pending_and_nothing_is_made_for_it() {
    let mut world = World::new();
    world.limit(json!({"cpu": "500m"}));
    world.run();
    assert_eq!(world.states(), [State::Pending]);
    assert!(is_waiting(&world));
    assert_eq!(
        message(&world),
        "needs 1 cpu, 500m are allowed in all by quota acme: it never fits unless one of the two is changed"
    );
    assert_eq!((world.condition("Reconciling").0, world.condition("Stalled").0), ("True".into(), "False".into()));
    let made = |part: &str| world.server.writes().iter().any(|write| write.contains(part));
    assert!(!made("statefulsets") && !made("services") && !made("claims"), "{:?}", world.server.writes());
    assert_eq!((world.quota()["status"]["waiting"].clone(), reserved(&world)), (json!(1), json!(null)));
    let writes = world.server.writes();
    for _ in 0..5 {
        world.later(600);
        world.pass();
        assert!(!world.round());
    }
    assert_eq!(world.server.writes(), writes, "it waits, and that costs nothing");
    world.limit(json!({"cpu": "1"}));
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Running]);
    assert_eq!(reserved(&world), json!({"containers": 1, "replicas": 2, "cpu": "1", "memory": "2Gi"}));
    assert_eq!(world.quota()["status"]["summary"]["cpu"], "1/1");
    world.verify();
}

#[test]
fn a_service_with_room_is_never_said_to_wait() {
    let mut world = World::new();
    world.limit(json!({"containers": 1}));
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Running]);
    let said: Vec<_> =
        world.server.shown().iter().map(|object| object["status"]["conditions"][0]["reason"].clone()).collect();
    assert!(!said.contains(&json!("QuotaExceeded")), "{said:?}");
    let quotas = world.server.writes().iter().filter(|write| write.contains("tenantquotas")).count();
    assert_eq!(quotas, 1, "one write reserves all of it");
}

#[test]
fn an_organisation_without_a_quota_is_not_limited_nor_by_anothers() {
    let mut world = World::new();
    world.limit(json!({"containers": 0}));
    world.server.change(&format!("{QUOTAS}/acme"), |quota| quota["spec"]["tenantOrg"] = json!("Acme"));
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Running]);
}

/// Another service of the organisation has reserved so much.
fn neighbour(world: &World, replicas: i64, cores: i64) {
    const OTHER: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430ff";
    let mut other = world.object();
    other["metadata"]["uid"] = json!(OTHER);
    other["metadata"]["name"] = json!("other");
    world.server.put(&OBJECT.replace("/search", "/other"), other);
    world.server.change(&format!("{QUOTAS}/acme"), |quota| {
        let status = &mut quota["status"];
        let (had, cpu) = amounts(&status["used"]);
        status["used"]["replicas"] = json!(had + replicas);
        status["used"]["cpu"] = json!(format!("{}m", cpu + cores * 1000));
        let theirs = json!({"replicas": replicas, "cpu": cores.to_string()});
        let one = json!({"uid": OTHER, "namespace": "acme", "name": "other", "amounts": theirs});
        status["reservations"].as_array_mut().unwrap().push(one);
    });
}

#[rstest]
#[case::more_replicas(json!({"replicas": 5}), "needs 3 more replicas; 2 of 6 left, and 1500m more cpu; 1 of 4 left in quota acme")]
#[case::more_cpu(json!({"resources": {"cpu": "1200m", "memory": "1Gi"}}), "needs 1400m more cpu; 1 of 4 left in quota acme")]
fn what_runs_goes_on_as_it_was_while_its_growth_waits(#[case] growth: Value, #[case] sentence: &str) {
    let mut world = World::new();
    world.limit(json!({"replicas": 6, "cpu": "4"}));
    world.run();
    neighbour(&world, 2, 2);
    let (before, service) = (world.stateful_set(), world.server.get(SERVICE));
    world.edit(|spec| json_patch::merge(spec, &growth));
    world.run();
    assert_eq!((world.stateful_set(), world.server.get(SERVICE)), (before, service));
    assert!(is_waiting(&world));
    assert_eq!(message(&world), sentence);
    assert_eq!(
        (world.condition("Available").0, world.object()["status"]["phase"].clone()),
        ("True".into(), json!("Running"))
    );
    assert_eq!(world.states(), [State::Pending, State::Running]);
    let writes = world.server.writes().len();
    world.pass();
    assert_eq!(world.server.writes().len(), writes);
    world.limit(json!({"replicas": 9, "cpu": "9"}));
    world.run();
    assert_eq!(world.states()[2..], [State::Running], "now it is rolled out");
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(replicas(&world), growth["replicas"].as_i64().unwrap_or(2));
}

#[test]
fn a_growth_that_is_taken_back_leaves_nothing_behind() {
    let mut world = World::new();
    world.limit(json!({"replicas": 2}));
    world.run();
    let (set, has) = (world.stateful_set(), reserved(&world));
    world.edit(|spec| spec["replicas"] = json!(3));
    world.run();
    assert!(is_waiting(&world));
    world.edit(|spec| spec["replicas"] = json!(2));
    world.run();
    assert_eq!(world.condition("Ready"), ("True".into(), "AllReplicasReady".into()));
    assert_eq!((world.stateful_set(), reserved(&world)), (set, has));
    assert_eq!(world.quota()["status"]["waiting"], 0);
}

#[test]
fn while_its_growth_waits_it_can_be_paused_and_stopped_and_what_fails_is_told() {
    let mut world = World::new();
    world.limit(json!({"replicas": 2}));
    world.run();
    world.edit(|spec| spec["replicas"] = json!(4));
    world.run();
    world.reports.insert(0, waiting("CrashLoopBackOff", "back-off"));
    world.reports.insert(1, waiting("CrashLoopBackOff", "back-off"));
    world.run();
    assert_eq!(world.object()["status"]["phase"], "Failed");
    assert!(is_waiting(&world) && message(&world).contains("; meanwhile, replica 0"), "{}", message(&world));
    world.reports.clear();
    world.run();
    assert_eq!(world.object()["status"]["phase"], "Running", "{:?}", world.states());
    world.edit(|spec| spec["desiredState"] = json!("Paused"));
    world.run();
    assert_eq!(world.object()["status"]["phase"], "Paused");
    assert_ne!(world.server.get(SERVICE).unwrap()["spec"]["selector"]["berth.dev/owner-uid"], UID);
    assert!(is_waiting(&world));
    assert_eq!(replicas(&world), 2);
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    assert_eq!((world.object()["status"]["phase"].clone(), replicas(&world)), (json!("Stopped"), 0));
    assert_eq!(world.condition("Ready").0, "True");
    world.verify();
}

#[test]
fn stopped_it_keeps_its_disks_alone_and_starts_only_where_there_is_room() {
    let mut world = World::new();
    world.limit(json!({"replicas": 2, "disk": "10Gi"}));
    world.edit(|spec| spec["resources"]["disk"] = json!("5Gi"));
    world.run();
    assert_eq!(reserved(&world)["disk"], "10Gi");
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    assert_eq!(reserved(&world), json!({"disk": "10Gi"}));
    world.limit(json!({"replicas": 1, "disk": "10Gi"}));
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.run();
    assert_eq!(world.object()["status"]["phase"], "Pending");
    assert!(is_waiting(&world));
    assert_eq!((replicas(&world), world.server.list(CLAIMS).len()), (0, 2));
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    assert_eq!(
        (world.object()["status"]["phase"].clone(), world.quota()["status"]["waiting"].clone()),
        (json!("Stopped"), json!(0))
    );
    world.limit(json!({"replicas": 2}));
    world.edit(|spec| spec["desiredState"] = json!("Running"));
    world.run();
    assert_eq!(
        (world.object()["status"]["phase"].clone(), reserved(&world)["replicas"].clone()),
        (json!("Running"), json!(2))
    );
    // Two of its disks stay when it is scaled down, and count.
    world.edit(|spec| spec["replicas"] = json!(1));
    world.run();
    assert_eq!(
        reserved(&world),
        json!({"containers": 1, "replicas": 1, "cpu": "500m", "memory": "1Gi", "disk": "10Gi"})
    );
}

#[test]
fn a_disk_that_outlives_its_service_counts_until_it_is_gone() {
    let mut world = World::new();
    world.limit(json!({"disk": "10Gi"}));
    world.edit(|spec| {
        spec["resources"]["disk"] = json!("5Gi");
        spec["deletionPolicy"] = json!("Retain");
    });
    world.run();
    world.delete();
    world.run();
    assert_eq!(world.server.get(OBJECT), None);
    assert!(world.round());
    assert_eq!(reserved(&world), json!({"disk": "10Gi"}));
    assert!(!world.round(), "found out once");
    world.server.remove(&format!("{CLAIMS}/data-search-0"));
    assert!(world.round());
    assert_eq!(reserved(&world), json!({"disk": "5Gi"}));
    world.server.remove(&format!("{CLAIMS}/data-search-1"));
    assert!(world.round());
    assert_eq!(world.quota()["status"]["reservations"], json!(null));
}

#[test]
fn a_replacement_reserves_the_larger_of_old_and_new_until_it_is_done() {
    let mut world = World::new();
    world.limit(json!({"cpu": "3"}));
    world.run();
    world.edit(|spec| spec["resources"] = json!({"cpu": "1", "memory": "512Mi"}));
    world.pass();
    assert_eq!(reserved(&world), json!({"containers": 1, "replicas": 2, "cpu": "2", "memory": "2Gi"}));
    world.run();
    assert_eq!(reserved(&world), json!({"containers": 1, "replicas": 2, "cpu": "2", "memory": "1Gi"}));
}

#[test]
fn lost_reservations_are_counted_anew_from_what_runs() {
    let mut world = World::new();
    world.limit(json!({"replicas": 1}));
    world.server.remove(&format!("{QUOTAS}/acme"));
    world.edit(|spec| spec["resources"]["disk"] = json!("1Gi"));
    world.run();
    // A quota that comes later stops nothing, however low it is.
    world.limit(json!({"replicas": 1}));
    let writes = world.server.writes().len();
    world.run();
    let all = json!({"containers": 1, "replicas": 2, "cpu": "1", "memory": "2Gi", "disk": "2Gi"});
    assert_eq!((reserved(&world), world.condition("Ready").0), (all.clone(), "True".into()));
    assert_eq!(world.quota()["status"]["conditions"][0]["reason"], "OverLimit");
    // Restored from a backup, without a status, and then with a part of it.
    world.server.change(&format!("{QUOTAS}/acme"), |quota| quota["status"] = json!({"observedGeneration": -1}));
    world.run();
    assert_eq!(reserved(&world), all);
    world.server.change(&format!("{QUOTAS}/acme"), |quota| quota["status"]["reservations"] = json!([]));
    world.start_operator_again();
    world.run();
    assert_eq!(reserved(&world), all);
    let others = world.server.writes()[writes..].iter().filter(|write| !write.contains("tenantquotas")).count();
    assert_eq!(others, 0, "nothing but the quota was written");
}

#[test]
fn labels_that_somebody_writes_in_their_own_namespace_count_against_nobody_else() {
    let mut world = World::new();
    world.edit(|spec| spec["resources"]["disk"] = json!("1Gi"));
    world.run();
    let mut forged = world.server.get(&format!("{CLAIMS}/data-search-0")).unwrap();
    forged["metadata"]["namespace"] = json!("rogue");
    forged["metadata"]["labels"]["berth.dev/owner-uid"] = json!("6ba7b810-9dad-41d1-80b4-00c04fd430ff");
    world.server.put(&format!("{CLAIMS}/data-search-0").replace("/acme/", "/rogue/"), forged);
    world.limit(json!({"disk": "2Gi"}));
    world.run();
    assert_eq!(world.quota()["status"]["used"]["disk"], "2Gi");
    assert_eq!(world.quota()["status"]["reservations"].as_array().unwrap().len(), 1);
}

#[test]
fn who_waits_for_more_and_has_nothing_yet_gives_back_what_was_reserved() {
    let mut tried = 0;
    for write in 0..8 {
        let mut world = World::new();
        world.limit(json!({"cpu": "1"}));
        world.server.cut_after(write, Cut::After);
        world.pass();
        world.server.never_cut();
        if reserved(&world) == Value::Null || world.stateful_set().is_some() {
            continue;
        }
        tried += 1;
        world.edit(|spec| spec["resources"]["cpu"] = json!("4"));
        world.run();
        assert!(is_waiting(&world));
        assert_eq!(reserved(&world), Value::Null, "an older one may wait for it");
        let writes = world.server.writes().len();
        world.run();
        assert_eq!(world.server.writes().len(), writes, "it waits, and that costs nothing");
        world.edit(|spec| spec["resources"]["cpu"] = json!("500m"));
        world.run();
        assert_eq!(world.states(), [State::Pending, State::Running]);
    }
    assert!(tried > 0, "no write lies between what is reserved and what is made of it");
}

#[test]
fn a_quota_that_is_deleted_lets_everybody_go() {
    let mut world = World::new();
    world.limit(json!({"containers": 0}));
    world.run();
    assert!(is_waiting(&world));
    world.server.remove(&format!("{QUOTAS}/acme"));
    world.run();
    assert_eq!(world.states(), [State::Pending, State::Running]);
}

/// A life under a quota that is too small now and then.
fn live(world: &mut World) {
    world.limit(json!({"replicas": 1}));
    world.run();
    world.limit(json!({"replicas": 3}));
    world.run();
    world.edit(|spec| spec["replicas"] = json!(5));
    world.run();
    world.limit(json!({"replicas": 5}));
    world.run();
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.run();
    world.edit(|spec| {
        spec["desiredState"] = json!("Running");
        spec["replicas"] = json!(4);
    });
    world.run();
    world.delete();
    world.run();
    world.run();
    for _ in 0..3 {
        world.round();
    }
}

fn gist(record: &Record) -> String {
    let envelope = record.envelope();
    format!("{} {} {}", envelope.seq, envelope.to.map_or("", State::as_str), envelope.reason)
}

#[rstest]
#[case::the_operator_ends_before_it(Cut::Before)]
#[case::the_operator_ends_after_it(Cut::After)]
#[case::the_answer_is_lost(Cut::Lost)]
#[case::it_is_refused(Cut::Answer(500))]
fn a_life_that_is_interrupted_at_any_write_reserves_the_same(#[case] how: Cut) {
    let mut undisturbed = World::new();
    live(&mut undisturbed);
    let told: Vec<_> = undisturbed.records().iter().map(gist).collect();
    let writes = undisturbed.server.writes();
    let quotas = writes.iter().filter(|write| write.contains("tenantquotas")).count();
    assert!(quotas >= 7, "{writes:?}");
    assert_eq!(undisturbed.quota()["status"]["reservations"], json!(null), "a whole life");
    for (write, what) in writes.iter().enumerate() {
        let mut world = World::new();
        world.server.cut_after(write, how);
        live(&mut world);
        assert!(world.server.was_cut(), "the life took fewer than {write} writes");
        assert_eq!(world.server.get(OBJECT), None, "cut at write {write}: it never came to its end");
        assert_eq!(world.quota()["status"]["reservations"], json!(null), "cut at write {write} ({what})");
        let again: Vec<_> = world.records().iter().map(gist).collect();
        assert_eq!(again, told, "told otherwise than undisturbed, cut at write {write} ({what})");
        world.verify();
    }
}

#[test]
fn what_one_leader_did_not_come_to_give_back_the_next_one_does() {
    for write in 0..8 {
        let mut world = World::new();
        world.limit(json!({"replicas": 2}));
        world.run();
        assert_eq!(reserved(&world)["replicas"], 2);
        world.edit(|spec| spec["desiredState"] = json!("Stopped"));
        world.server.cut_after(write, Cut::Before);
        world.run();
        assert_eq!(world.object()["status"]["phase"], "Stopped", "cut at write {write}");
        assert_eq!(reserved(&world), json!(null), "cut at write {write}");
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Desired(&'static str),
    Replicas(i64),
    Cpu(i64),
    Limit(Option<(i64, i64)>),
    Wipe,
    Operator,
    Controllers,
    Round,
    Pass,
    Later(i64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => prop_oneof![Just("Running"), Just("Paused"), Just("Stopped")].prop_map(Happening::Desired),
        3 => (0i64..5).prop_map(Happening::Replicas),
        2 => (1i64..5).prop_map(Happening::Cpu),
        3 => prop::option::weighted(0.9, (0i64..6, 0i64..8)).prop_map(Happening::Limit),
        1 => Just(Happening::Wipe),
        1 => Just(Happening::Operator),
        5 => Just(Happening::Controllers),
        2 => Just(Happening::Round),
        6 => Just(Happening::Pass),
        3 => (0i64..8).prop_map(Happening::Later),
    ]
}

/// Replicas and CPU, in thousandths of a core, that its StatefulSet is told to run.
fn told(world: &World) -> (i64, i64) {
    let Some(set) = world.stateful_set() else { return (0, 0) };
    let count = set["spec"]["replicas"].as_i64().unwrap();
    let limits = &set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
    (count, count * limits["cpu"].as_str().unwrap().parse::<Quantity>().unwrap().millis())
}

fn amounts(of: &Value) -> (i64, i64) {
    let cpu = of["cpu"].as_str().map_or(0, |cpu| cpu.parse::<Quantity>().unwrap().millis());
    (of["replicas"].as_i64().unwrap_or(0), cpu)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is asked of it under whatever limits: its StatefulSet is never told to run more than it has reserved, what it
    /// reserves never grows beyond a limit, and without a quota it ends where its user wants it.
    #[test]
    fn no_order_of_events_gives_it_more_than_it_has_reserved(happenings in prop::collection::vec(happening(), 1..40)) {
        let mut world = World::new();
        world.limit(json!({"replicas": 3, "cpu": 3}));
        for happening in happenings {
            let (had, was) = (told(&world), amounts(&reserved(&world)));
            let is_counted = world.quota()["status"]["epoch"].as_i64().unwrap_or(0) > 0;
            match happening {
                Happening::Desired(state) => world.edit(|spec| spec["desiredState"] = json!(state)),
                Happening::Replicas(count) => world.edit(|spec| spec["replicas"] = json!(count)),
                Happening::Cpu(cores) => world.edit(|spec| spec["resources"]["cpu"] = json!(cores.to_string())),
                Happening::Limit(Some((replicas, cpu))) => world.limit(json!({"replicas": replicas, "cpu": cpu})),
                Happening::Limit(None) => world.server.remove(&format!("{QUOTAS}/acme")),
                Happening::Wipe if world.quota() != json!(null) => {
                    world.server.change(&format!("{QUOTAS}/acme"), |quota| quota["status"] = json!({"observedGeneration": -1}));
                }
                Happening::Operator => world.start_operator_again(),
                Happening::Controllers => world.settle(),
                Happening::Round => drop(world.round()),
                Happening::Later(seconds) => world.later(seconds),
                Happening::Pass => world.pass(),
                Happening::Wipe => {}
            }
            let quota = world.quota();
            let (now, has) = (told(&world), amounts(&reserved(&world)));
            if quota["status"]["epoch"].as_i64().unwrap_or(0) > 0 {
                prop_assert!(now.0 <= has.0.max(had.0) && now.1 <= has.1.max(had.1), "{now:?} of {has:?}, before {had:?}");
            }
            if now.0 > had.0 && quota != json!(null) {
                prop_assert!(now.0 <= has.0 && now.1 <= has.1, "told to run {now:?}, has reserved {has:?}");
            }
            let limits = &quota["spec"]["limits"];
            let limit = (limits["replicas"].as_i64(), limits["cpu"].as_i64().map(|cpu| cpu * 1000));
            // What was counted anew is what runs, whatever the limit says.
            if is_counted {
                prop_assert!(has.0 <= was.0 || limit.0.is_none_or(|limit| has.0 <= limit), "{was:?} to {has:?} of {limit:?}");
                prop_assert!(has.1 <= was.1 || limit.1.is_none_or(|limit| has.1 <= limit), "{was:?} to {has:?} of {limit:?}");
            }
        }
        world.server.remove(&format!("{QUOTAS}/acme"));
        world.run();
        let object = world.object();
        let wanted = object["spec"]["desiredState"].as_str().unwrap_or("Running");
        prop_assert_eq!(object["status"]["phase"].as_str(), Some(wanted), "{:?}", world.states());
        world.verify();
    }
}

#[test]
fn a_frozen_leader_gives_back_nothing_that_another_has_granted_since() {
    let database = Database::default();
    let mut world = World::beside(&database);
    world.limit(json!({"replicas": 4}));
    world.run();
    world.edit(|spec| spec["replicas"] = json!(4));
    world.run();
    // Scaled down, and about to give back what it had.
    world.edit(|spec| spec["replicas"] = json!(1));
    world.pass();
    world.settle();
    world.later(1);
    let mut frozen = world.another_leader();
    world.swap(&mut frozen);
    for write in 0..4 {
        let reached = world.freeze(&mut frozen, write, |world| {
            world.edit(|spec| spec["replicas"] = json!(4));
            world.run();
        });
        let (has, now) = (amounts(&reserved(&world)), told(&world));
        assert!(now.0 <= has.0, "frozen before write {write} (reached: {reached}): {now:?} of {has:?}");
        world.edit(|spec| spec["replicas"] = json!(1));
        world.pass();
        world.settle();
    }
    assert_eq!(world.server.get(STATEFUL_SET).map(|set| set["spec"]["replicas"].clone()), Some(json!(1)));
}
