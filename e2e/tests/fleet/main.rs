//! A rollout over a fleet on simulated nodes, in five waves, with three targets that the release breaks, while the operator is
//! killed ten times in the middle of it. The operator is a process of the test: `e2e/fleet`, inside the cluster's namespace.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

mod nodes;
mod watched;

use std::{
    env, thread,
    time::{Duration, Instant},
};

use berth_e2e::{
    cluster, database,
    faults::{
        api::{Act, Rule},
        operator::{Process, Stand},
        wait_until,
    },
    install::{self, Home},
    judges,
    kubectl::Kubectl,
    objects::{Tenant, condition},
    scenario::{Scenario, uid},
};
use nodes::Nodes;
use serde_json::{Value, json};
use watched::Watched;

/// The name of the process, as of a pod.
const NAME: &str = "process-0";
/// How often it is killed.
const KILLS: usize = 10;
/// Targets that the release breaks.
const BAD: usize = 3;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1_500);

/// How many targets may be out at once, in every wave: few enough that all the kills are in the middle.
fn max_unavailable(count: usize) -> usize {
    (count / 20).max(BAD + 2)
}

fn targets() -> usize {
    env::var("BERTH_FLEET").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// What a bad target needs and the release takes: its node has room for what it asks for, and not for more.
fn fleet(count: usize) -> Vec<Tenant> {
    (0..count)
        .map(|number| {
            // One in the second wave, the others in the middle and near the end.
            let bad = [count / 10, count / 2, count - 3].iter().position(|place| *place == number);
            let pool = bad.map_or_else(|| "large".to_owned(), |place| format!("small-{place}"));
            let place = json!({"type": "kwok", "berth-e2e/pool": pool});
            Tenant::named(&format!("t{number:03}")).simulated().with("placement/nodeSelector", place)
        })
        .collect()
}

fn make(s: &Scenario, count: usize) {
    for batch in fleet(count).chunks(50) {
        let items: Vec<Value> = batch
            .iter()
            .map(|tenant| {
                let mut manifest = tenant.of(&s.namespace);
                let number: usize = tenant.name()[1..].parse().unwrap();
                manifest["metadata"]["labels"] = json!({"fleet": "one", "canary": (number < 2).to_string()});
                manifest
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        s.user.feed(&["create", "--filename", "-"], &list).unwrap();
    }
}

fn rollout(count: usize) -> Value {
    let wave = |name: &str, more: Value| {
        let mut wave = json!({"name": name, "maxUnavailable": max_unavailable(count), "maxFailures": BAD});
        for (key, value) in more.as_object().unwrap() {
            wave[key] = value.clone();
        }
        wave
    };
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "fleet"},
        "spec": {
            "selector": {"matchLabels": {"fleet": "one"}},
            "release": {
                "image": "localhost/berth-e2e/testservice:next", "resources": {"memory": "96Mi"},
                "env": [{"name": "RELEASE", "value": "next"}],
            },
            "strategy": {"waves": [
                wave("canary", json!({"selector": {"matchLabels": {"canary": "true"}}, "soakSeconds": 2})),
                wave("few", json!({"count": count / 10})),
                wave("fifth", json!({"percent": 20})),
                wave("third", json!({"percent": 30, "gate": {"condition": "Available", "seconds": 1}})),
                wave("rest", json!({})),
            ]},
            "progressDeadlineSeconds": 900,
        },
    })
}

/// When it is killed: before, at or after a release or a status is written; which one, so that all ten are in the middle.
fn kills(count: usize) -> Vec<(Rule, &'static str)> {
    let (release, status) = ("fieldManager=berth-rollout", "deployments/fleet/status?");
    // Those that are under way at the same time come to an end as well.
    let step = u64::try_from((count / (KILLS + 2)).saturating_sub(max_unavailable(count))).unwrap().max(1);
    let acts = [Act::Stall, Act::StallAfter, Act::Delay(Duration::ZERO)];
    (0..KILLS)
        .map(|kill| {
            let act = acts[kill % acts.len()];
            if kill % 4 == 3 {
                (Rule::once("PATCH", status, act), "status")
            } else {
                (Rule::once("PATCH", release, act).nth(step), "release")
            }
        })
        .collect()
}

#[test]
fn a_rollout_ends_right_however_often_the_operator_dies_in_the_middle_of_it() {
    if !cluster::wanted("the fleet").unwrap_or_else(|missing| panic!("{missing}")) {
        return;
    }
    let (count, limit) = (targets(), max_unavailable(targets()));
    install::images().unwrap();
    install::install(Home::Database, "info").unwrap();
    let s = Scenario::alone("fleet").unwrap();
    let _nodes = Nodes::prepare(BAD, "80Mi");
    let stand = Stand::begin().unwrap();
    let mut process = Some(stand.start(NAME).unwrap());
    let began = Instant::now();
    make(&s, count);
    let serves = |object: &Value| condition(object, "Ready") == "True" && object["status"]["phase"] == "Running";
    s.admin
        .wait_for("the fleet serves", PATIENCE, |admin| {
            let all = admin.json(&["get", "tc"])?;
            Ok(all["items"]
                .as_array()
                .is_some_and(|all| all.iter().filter(|one| serves(one)).count() == count)
                .then_some(()))
        })
        .unwrap();
    println!("{count} services serve after {} s", began.elapsed().as_secs());

    let began = Instant::now();
    let watching = {
        let admin = s.admin.clone();
        thread::spawn(move || Watched::follow(&admin, count, BAD, PATIENCE))
    };
    let mut kills = kills(count).into_iter().enumerate().peekable();
    // Counted before: on a busy machine the write is held up and done before anybody asks.
    let mut stalled = stand.api.counts().stalled;
    if let Some((_, (rule, _))) = kills.peek() {
        stand.api.rule(rule.clone());
    }
    s.user.feed(&["create", "--filename", "-"], &rollout(count).to_string()).unwrap();
    while let Some((number, (_, what))) = kills.next() {
        assert!(stand.api.until_struck(PATIENCE), "kill {number}: no {what} was written");
        if number % 3 == 1 {
            let is_done = || stand.api.counts().stalled > stalled;
            assert!(wait_until(PATIENCE, is_done), "kill {number}: it was never done");
        }
        process.take().map(Process::kill).unwrap().unwrap();
        let given = s.admin.json(&["get", "tc"]).unwrap();
        let given = given["items"].as_array().unwrap().iter().filter(|one| !one["spec"]["release"].is_null()).count();
        println!(
            "kill {number} at a {what} after {} s: {given} of {count} have the release",
            began.elapsed().as_secs()
        );
        assert!(given < count, "that is not the middle");
        stand.api.fair();
        // Before the next one begins: it would be beyond it.
        stalled = stand.api.counts().stalled;
        if let Some((_, (rule, _))) = kills.peek() {
            stand.api.rule(rule.clone());
        }
        stand.free_lease().unwrap();
        process = Some(stand.start(NAME).unwrap());
    }
    let watched = watching.join().unwrap().unwrap();
    let done = s
        .admin
        .watch(&["get", "bdeploy", "--field-selector=metadata.name=fleet"], PATIENCE, |object| {
            (object["status"]["phase"] == "Complete").then(|| object.clone())
        })
        .unwrap();
    println!(
        "rolled out after {} s and {KILLS} kills: {} events, at most {} of {limit} out at once",
        began.elapsed().as_secs(),
        watched.events,
        watched.most_out
    );
    ends_right(&s.admin, &done, count);
    is_told(&s, &stand, &done, count);
    assert!(watched.most_out <= limit, "{} were out at once: {:?}", watched.most_out, watched.worst);
    assert!(watched.most_out >= limit / 2, "a rollout that hurries nowhere shows nothing");
    // `berth rollout status` says the same.
    let told = stand.berth(&["rollout", "status", "fleet", "--namespace", &s.namespace]).unwrap();
    assert!(told.contains(&format!("{}/{count}", count - BAD)) && told.contains("Complete"), "{told}");
}

/// What came of each target is in the ledger and in its table, once, whoever wrote the records.
fn is_told(s: &Scenario, stand: &Stand, done: &Value, count: usize) {
    s.until_synced().unwrap();
    let values = [("uid", uid(done)), ("revision", done["status"]["revision"].as_str().unwrap())];
    let number = |query: &str| usize::try_from(database::count(query, &values).unwrap()).unwrap();
    let row = |what: &str| {
        let all = "SELECT count(*) FROM berth.deployment_status WHERE id = :'uid' AND revision = :'revision'";
        number(&format!("{all} AND began_at <= ended_at AND {what}"))
    };
    // Berth adds the last of it within ten seconds.
    assert_eq!(row("scope = 'rollout' AND outcome = 'Complete' AND NOT deleted"), 1);
    assert_eq!(row("scope = 'wave' AND outcome = 'Done'"), 5);
    assert_eq!(row("scope = 'target' AND outcome = 'Updated'"), count - BAD);
    assert_eq!(row("scope = 'target' AND outcome = 'Failed' AND reason = 'Unschedulable'"), BAD);
    let story = database::line(uid(done)).unwrap();
    println!("{} records: {}", story.len(), story.join(", "));
    assert_eq!((story[0].as_str(), story.last().unwrap().as_str()), ("> Began", "> Complete"));
    assert!(story.len() <= 12 + count / 20, "{story:?}");
    let is_slow = stand.has_left_the_database_alone().unwrap();
    assert!(is_slow || database::is_one_line(uid(done)).unwrap(), "{:?}", database::hops(uid(done)));
    // What stands beside the line was never shown, and told again.
    let told = |what: &str| {
        let parts = "FROM line, jsonb_array_elements(details->'parts') p WHERE p->>'scope' = 'target'";
        number(&format!("{} SELECT count({what}) {parts}", database::LINE))
    };
    assert_eq!((told("*"), told("DISTINCT p->>'key'")), (count, count), "each target is told of once");
    judges::both_agree(&s.admin, || stand.spools(), |arguments| stand.berth(arguments)).unwrap();
}

fn ends_right(admin: &Kubectl, done: &Value, count: usize) {
    let status = &done["status"];
    assert_eq!(status["progress"], format!("{}/{count}", count - BAD), "{status:#}");
    assert_eq!((condition(done, "Ready"), status["failed"].as_u64()), ("True", Some(BAD as u64)));
    assert_eq!(status["wave"], "5 of 5");
    let mut bad: Vec<&str> =
        status["failures"].as_array().unwrap().iter().map(|failure| failure["reason"].as_str().unwrap()).collect();
    bad.dedup();
    assert_eq!(bad, ["Unschedulable"]);
    let released: u64 = status["waves"].as_array().unwrap().iter().map(|wave| wave["released"].as_u64().unwrap()).sum();
    assert_eq!(released, count as u64);
    let all = admin.json(&["get", "tc", "--show-managed-fields"]).unwrap();
    for object in all["items"].as_array().unwrap() {
        let name = &object["metadata"]["name"];
        // Made once, given a release once, and nothing else changed its spec.
        assert_eq!(object["metadata"]["generation"], 2, "{name} was not updated exactly once");
        let release = &object["spec"]["release"];
        assert_eq!(release["overrode"], "localhost/berth-e2e/testservice:dev", "{name}");
        assert_eq!(release["rollout"]["revision"], status["revision"], "{name}");
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        let ours: Vec<_> = entries.iter().filter(|entry| entry["manager"] == "berth-rollout").collect();
        assert_eq!(ours.len(), 1, "{name}: {entries:?}");
        let operation = &object["status"]["operation"];
        assert_eq!(
            operation["actor"],
            format!("berth:rollout {}/fleet", object["metadata"]["namespace"].as_str().unwrap())
        );
        assert_eq!(operation["action"], "Release", "{name}");
    }
}
