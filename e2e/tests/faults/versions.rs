//! Row 15: an older Berth and this one take turns under load, with a change of the schema in between.
//!
//! Owns: which of them runs when. Must never: make up an older one: it is what the history has (`e2e/faults/previous`).

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use berth_e2e::{
    faults::operator::Process,
    install,
    kubectl::environment,
    objects::{Tenant, condition},
    outage::Aside,
    scenario::is_ready,
};
use serde_json::{Value, json};

use crate::life::{NAME, Theatre, theatre};

/// Upgrades and rollbacks, each.
const ROUNDS: u64 = 5;
const READY: Duration = Duration::from_secs(120);

/// Runs this Berth in the place of the one that runs.
fn take_turns(t: &Theatre, before: Option<Process>, program: &Path) -> Process {
    if let Some(before) = before {
        before.kill().unwrap();
        t.stand.free_lease().unwrap();
    }
    t.stand.start_other(NAME, program, &[]).unwrap()
}

/// Lives of services, one after another, until it is enough.
fn load(t: &Theatre, enough: &AtomicBool) -> Vec<Value> {
    let mut lives = vec![];
    while !enough.load(Ordering::Relaxed) {
        lives.push(t.live(&format!("load-{}", lives.len())));
    }
    lives
}

/// Takes the services of a test that failed away with it: the database that comes back never knew them.
struct Strangers<'a>(&'a Theatre);

impl Drop for Strangers<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let services = self.0.s.admin.json(&["get", "tc"]).unwrap_or_default();
        let free = json!({"metadata": {"finalizers": null}}).to_string();
        for name in services["items"].as_array().into_iter().flatten().filter_map(|tc| tc["metadata"]["name"].as_str())
        {
            // What cannot be taken away is what the next test says is there.
            let _ = self.0.s.admin.run(&["patch", "tc", name, "--type=merge", "--patch", &free]);
            let _ = self.0.s.admin.run(&["delete", "tc", name, "--ignore-not-found", "--wait=false"]);
        }
    }
}

#[test]
fn an_older_version_and_this_one_take_turns_and_lose_nothing() {
    let Ok(older) = environment("BERTH_PREVIOUS").map(PathBuf::from) else {
        eprintln!(
            "not tried: BERTH_PREVIOUS names no older berth; run it as: BERTH_PREVIOUS=$(e2e/faults/previous) ..."
        );
        return;
    };
    let Some(t) = theatre("versions") else { return };
    let newer = install::program().unwrap();
    let _aside = Aside::put().unwrap();
    let _strangers = Strangers(&t);
    t.stand.berth_of(&older, &["migrate"]).unwrap();
    let mut process = take_turns(&t, None, &older);
    process.until_ready(READY).unwrap();
    let witness = t.s.apply(&Tenant::named("witness").simulated().with("drainSeconds", 0)).unwrap();
    t.until("witness", |object| is_ready(object, "Running"));
    t.until_told(&t.live("before"));

    // This version before its schema: it is not ready, so that an upgrade stops here; what it leads it looks after, and it keeps
    // the records elsewhere until the schema is there.
    t.stand.berth_of(&newer, &["migrate", "--check"]).unwrap_err();
    process = take_turns(&t, Some(process), &newer);
    let early = t.live("early");
    t.s.change("witness", &json!({"replicas": 2})).unwrap();
    t.until("witness", |object| {
        is_ready(object, "Running") && object["status"]["replicas"] == 2 && condition(object, "LedgerSynced") == "False"
    });
    assert!(process.until_ready(Duration::ZERO).is_err(), "ready over an older schema");
    t.stand.berth_of(&newer, &["migrate"]).unwrap();
    process.until_ready(READY).unwrap();
    t.until_told(&early);
    t.until("witness", |object| condition(object, "LedgerSynced") == "True");

    let enough = AtomicBool::new(false);
    let (process, mut lives) = thread::scope(|scope| {
        let load = scope.spawn(|| load(&t, &enough));
        for round in 0..ROUNDS {
            for (program, replicas) in [(&older, 1), (&newer, 2)] {
                process = take_turns(&t, Some(process), program);
                process.until_ready(READY).unwrap();
                t.s.change("witness", &json!({"replicas": replicas})).unwrap();
                t.until("witness", |object| is_ready(object, "Running") && object["status"]["replicas"] == replicas);
                t.live(&format!("turn-{round}-{replicas}"));
            }
        }
        enough.store(true, Ordering::Relaxed);
        (process, load.join().unwrap())
    });
    t.s.user.run(&["delete", "tc", "witness", "--wait=false"]).unwrap();
    t.until_gone("witness");
    lives.extend([witness, early]);
    for object in &lives {
        t.until_told(object);
        t.shows_the_story(object);
    }
    t.settled();
    let runs = u64::try_from(lives.len()).unwrap();
    t.report(15, runs, 2 * ROUNDS + 1, t.longest_wait()).print().unwrap();
    drop(process);
}
