//! Ten thousand manifests that nobody should write: each is refused with a message or brought to a standing that says what it
//! is, nobody else notices, and nothing panics (docs/ledger.md, "The fault matrix", row 13). By itself, since Berth is under
//! load meanwhile: `e2e/scenarios`, or `. .local/env; BERTH_E2E=1 cargo test -p berth-e2e --test hostile`.
//!
//! `BERTH_FAULT_SEED=S` begins with that seed, `BERTH_HOSTILE=N` makes so many.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

mod manifests;

use std::{
    thread,
    time::{Duration, Instant},
};

use berth_e2e::{
    cluster, database,
    faults::report::{self, Level, Report},
    install::{self, Home, NAMESPACE, POD},
    judges,
    kubectl::Kubectl,
    objects::Tenant,
    scale,
    scenario::Scenario,
};
use manifests::Manifests;
use serde_json::{Value, json};

/// At once.
const BATCH: usize = 500;
/// By so many calls of kubectl.
const CALLS: usize = 5;

#[test]
fn ten_thousand_hostile_manifests_are_refused_or_brought_to_a_standing_and_nobody_else_notices() {
    let name = "hostile";
    if !cluster::wanted(name).unwrap_or_else(|missing| panic!("{missing}")) {
        return;
    }
    install::images().unwrap();
    install::install(Home::Database, "info").unwrap();
    let s = Scenario::alone(name).unwrap();
    let count = std::env::var("BERTH_HOSTILE").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let seed = report::seed();
    let mut manifests = Manifests::of(seed, &s.namespace);
    let (begun, process, before) = (Instant::now(), process(), scale::memory().unwrap());
    let (mut refused, mut accepted, mut neighbours, mut longest) = (0, 0, 0, Duration::ZERO);
    for batch in 0..count / BATCH {
        let items: Vec<Value> = manifests.by_ref().take(BATCH).collect();
        let (made, turned_away) = create(&s, &items);
        assert_eq!(made + turned_away.len(), BATCH, "{turned_away:#?}");
        for message in &turned_away {
            assert!(says_why(message), "seed {seed}: refused without a reason: {message}");
        }
        accepted += made;
        refused += turned_away.len();
        // Whoever comes in between is served as ever.
        let neighbour = Tenant::named(&format!("neighbour-{batch}")).simulated();
        let asked = Instant::now();
        s.run(&neighbour).unwrap();
        longest = longest.max(asked.elapsed());
        neighbours += 1;
        all_have_a_standing(&s);
        delete_all(&s);
    }
    assert!(accepted > count / 50 && refused > count / 50, "{accepted} accepted, {refused} refused");
    assert_eq!(self::process(), process, "Berth has ended meanwhile");
    let log = Kubectl::admin().in_namespace(NAMESPACE).run(&["logs", POD]).unwrap();
    assert!(!log.contains("panicked at"), "seed {seed}: Berth panicked");
    s.verify().unwrap();
    judges::both_agree(&s.admin, install::spools, install::berth).unwrap();
    // Whatever somebody writes, its rows are ones that PostgreSQL takes. One that was put aside and looked at counts as well.
    let quarantined = database::column("SELECT what || ': ' || error FROM berth.ledger_quarantine", &[]).unwrap();
    assert!(quarantined.is_empty(), "seed {seed}: refused by PostgreSQL: {quarantined:?}");
    let written = database::count(
        "SELECT count(*) FROM berth.container_status_history WHERE namespace = :'n'",
        &[("n", &s.namespace)],
    )
    .unwrap();
    println!(
        "{refused} refused, {accepted} accepted, {neighbours} neighbours, memory {before:?} MiB before and {:?} after, in {} s",
        scale::memory().unwrap(),
        begun.elapsed().as_secs()
    );
    let faults = u64::try_from(count).unwrap();
    let longest_blocked_ms = u64::try_from(longest.as_millis()).ok();
    Report { faults, written, longest_blocked_ms, seed: Some(seed), ..Report::new(13, Level::Real, 1) }
        .print()
        .unwrap();
}

/// How many were made, and what was said of each of the others. Before it there is none.
fn create(s: &Scenario, items: &[Value]) -> (usize, Vec<String>) {
    // One call of kubectl makes one object after the other.
    let refused = thread::scope(|scope| {
        let calls: Vec<_> = items.chunks(BATCH / CALLS).map(|some| scope.spawn(|| create_some(s, some))).collect();
        calls.into_iter().flat_map(|call| call.join().unwrap()).collect()
    });
    (s.admin.json(&["get", "tc"]).unwrap()["items"].as_array().map_or(0, Vec::len), refused)
}

fn create_some(s: &Scenario, items: &[Value]) -> Vec<String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    // The server's validation is tried, not kubectl's.
    let created = s.user.feed(&["create", "--validate=false", "--filename", "-"], &list);
    created.err().map(|error| refusals(error.message())).unwrap_or_default()
}

/// All of them at once; each goes through its own end.
fn delete_all(s: &Scenario) {
    let all = format!("/apis/berth.dev/v1alpha1/namespaces/{}/tenantcontainers", s.namespace);
    s.admin.run(&["delete", "--raw", &all]).unwrap();
    s.admin
        .wait_for("none to be left", Duration::from_secs(300), |admin| {
            Ok(admin.run(&["get", "tc", "--output=name"])?.is_empty().then_some(()))
        })
        .unwrap();
}

/// One for each object: what a refusal says may go over several lines.
fn refusals(text: &str) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    for line in text.lines() {
        let begins = line.starts_with("Error from server") || (line.starts_with("The ") && line.contains("is invalid"));
        match all.last_mut() {
            Some(last) if !begins => {
                last.push('\n');
                last.push_str(line);
            }
            _ => all.push(line.to_owned()),
        }
    }
    all
}

/// A field, or what is wrong with the whole.
fn says_why(message: &str) -> bool {
    !message.contains("nternal error")
        && [
            "Invalid value",
            "Too long",
            "Too many",
            "Required value",
            "Unsupported value",
            "is invalid",
            "Forbidden",
            "denied",
            // Two of a batch that chance gave the same name.
            "AlreadyExists",
        ]
        .iter()
        .any(|word| message.contains(word))
}

/// Each has conditions about its newest generation: it runs, or it says why not.
fn all_have_a_standing(s: &Scenario) {
    let within = Duration::from_secs(300);
    s.admin
        .wait_for("a standing of every object", within, |admin| {
            let all = admin.json(&["get", "tc"])?;
            let stands = |object: &Value| {
                let ready = object["status"]["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(|condition| condition["type"] == "Ready");
                object["status"]["observedGeneration"] == object["metadata"]["generation"]
                    && ready.is_some_and(|ready| !ready["reason"].as_str().unwrap_or_default().is_empty())
            };
            Ok(all["items"].as_array().into_iter().flatten().all(stands).then_some(()))
        })
        .unwrap();
}

/// Berth's pod, and how often its container was started.
fn process() -> (Value, Value) {
    let pod = Kubectl::admin().in_namespace(NAMESPACE).json(&["get", "pod", POD]).unwrap();
    (pod["metadata"]["uid"].clone(), pod["status"]["containerStatuses"][0]["restartCount"].clone())
}
