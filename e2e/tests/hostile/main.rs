//! Ten thousand manifests that nobody should write: each is refused with a message or brought to a standing that says what it
//! is, nobody else notices, and nothing panics (docs/ledger.md, "The fault matrix", row 13). By itself, since Berth is under
//! load meanwhile: `e2e/scenarios`, or `. .local/env; BERTH_E2E=1 cargo test -p berth-e2e --test hostile`.
//!
//! `BERTH_FAULT_SEED=S` begins with that seed, `BERTH_HOSTILE=N` makes so many.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

mod manifests;

use std::time::{Duration, Instant};

use berth_e2e::{
    cluster, database,
    faults::report::{self, Level, Report},
    install::{self, Home, NAMESPACE, POD},
    kubectl::Kubectl,
    objects::Tenant,
    scale,
    scenario::Scenario,
};
use manifests::Manifests;
use serde_json::{Value, json};

/// In one call of kubectl.
const BATCH: usize = 500;

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
    let (mut refused, mut accepted, mut neighbours) = (0, 0, 0);
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
        s.run(&neighbour).unwrap();
        neighbours += 1;
        all_have_a_standing(&s);
        s.user.run(&["delete", "tc", "--all", "--timeout=300s"]).unwrap();
    }
    assert!(accepted > count / 50 && refused > count / 50, "{accepted} accepted, {refused} refused");
    assert_eq!(self::process(), process, "Berth has ended meanwhile");
    let log = Kubectl::admin().in_namespace(NAMESPACE).run(&["logs", POD]).unwrap();
    assert!(!log.contains("panicked at"), "seed {seed}: Berth panicked");
    install::berth(&["verify", "--cluster"]).unwrap();
    s.until_synced().unwrap();
    let quarantined = database::count("SELECT count(*) FROM berth.ledger_quarantine", &[]).unwrap();
    let written = database::count(
        "SELECT count(*) FROM berth.container_status_history WHERE namespace = :'n'",
        &[("n", &s.namespace)],
    )
    .unwrap();
    println!(
        "{refused} refused, {accepted} accepted, {neighbours} neighbours, {quarantined} rows in quarantine, memory {before:?} MiB \
         before and {:?} after, in {} s",
        scale::memory().unwrap(),
        begun.elapsed().as_secs()
    );
    let faults = u64::try_from(count).unwrap();
    Report { faults, written, seed: Some(seed), ..Report::new(13, Level::Real, 1) }.print().unwrap();
}

/// How many were made, and what was said of each of the others.
fn create(s: &Scenario, items: &[Value]) -> (usize, Vec<String>) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    // The server's validation is tried, not kubectl's.
    match s.user.feed(&["create", "--validate=false", "--filename", "-"], &list) {
        Ok(output) => (output.lines().count(), vec![]),
        Err(error) => {
            let text = error.message();
            let made = s.admin.json(&["get", "tc"]).unwrap()["items"].as_array().map_or(0, Vec::len);
            (made, refusals(text))
        }
    }
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
