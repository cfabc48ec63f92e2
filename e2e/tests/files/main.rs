//! The same without a database: journal and state files on the spool. These install Berth anew, without one, and so run
//! by themselves: `make scenarios`, or `. .local/env; BERTH_E2E=1 cargo test -p berth-e2e --test files`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use berth_e2e::{
    audit, cluster, database,
    install::{self, Home, NAMESPACE, RELEASE},
    kubectl::Kubectl,
    objects::{Tenant, condition, reason},
    quota, scale,
    scenario::{Scenario, uid},
};
use serde_json::{Value, json};

const SPOOL: &str = "/var/lib/berth/spool";
const CLAIM: &str = "spool-berth-0";

/// Removes Berth and its spool, and installs it in another form. What it ran must be gone: an object's history cannot
/// move from a database to a spool.
fn install_anew(home: Home) {
    let admin = Kubectl::admin();
    if admin.in_namespace(NAMESPACE).run(&["get", "statefulset", RELEASE]).is_ok() {
        admin.run(&["delete", "tc", "--all", "--all-namespaces", "--timeout=120s"]).unwrap();
        install::uninstall().unwrap();
    }
    admin.in_namespace(NAMESPACE).run(&["delete", "pvc", CLAIM, "--ignore-not-found", "--timeout=60s"]).unwrap();
    install::install(home, "info").unwrap();
}

/// One at a time.
static BERTH: Mutex<()> = Mutex::new(());

/// Puts the other form back, whatever became of the test.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        install_anew(Home::Database);
    }
}

/// The spool's folder on the node's disk.
fn spool() -> PathBuf {
    let claim = Kubectl::admin().in_namespace(NAMESPACE).json(&["get", "pvc", CLAIM]).unwrap();
    let volume = Kubectl::admin().json(&["get", "pv", claim["spec"]["volumeName"].as_str().unwrap()]).unwrap();
    let source = &volume["spec"];
    source["hostPath"]["path"].as_str().or(source["local"]["path"].as_str()).unwrap().into()
}

/// What `berth` answers about the spool, as JSON; the exit code says no where nothing lives.
fn ask(arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--spool", SPOOL, "--output", "json"]].concat();
    // Standard output comes with an error as well; kubectl's own word for the exit code is on standard error.
    let command = [&["--namespace", NAMESPACE, "exec", "berth-0", "--", "/usr/bin/berth"], &arguments[..]].concat();
    let output = std::process::Command::new("kubectl").args(&command).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

fn hops(namespace: &str, name: &str, life: usize) -> Vec<String> {
    let timeline = ask(&["timeline", &format!("{namespace}/{name}")]);
    let records = timeline["lives"][life]["records"].as_array().unwrap();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    records.iter().map(|hop| format!("{}>{} {}", word(&hop["from"]), word(&hop["to"]), word(&hop["reason"]))).collect()
}

#[test]
fn without_a_database_the_whole_story_is_in_files() {
    if !cluster::wanted("files").unwrap_or_else(|missing| panic!("{missing}")) {
        return;
    }
    let _alone = BERTH.lock().unwrap_or_else(PoisonError::into_inner);
    install::images().unwrap();
    install_anew(Home::Files);
    let _restore = Restore;
    let s = Scenario::alone("files").unwrap();
    let tenant = Tenant::named("store").with("user", "ann").with("resources/disk", "16Mi");
    let first = s.run(&tenant).unwrap();
    assert_eq!(first["status"]["ledger"]["backend"], "Spool");
    assert_eq!(condition(&first, "LedgerSynced"), "True");
    assert_eq!(reason(&first, "LedgerSynced"), "Spool");

    let state = spool().join(&s.namespace).join("tenant_ann_store.json");
    let file: Value = serde_json::from_str(&fs::read_to_string(&state).unwrap()).unwrap();
    assert!(file.to_string().contains("running"), "{file:#}");
    let found = ask(&["get", "--user", "ann", "--service", "store"]);
    assert_eq!(found["found"], "live");
    assert_eq!(found["containers"][0]["uid"], uid(&first));

    s.change("store", &json!({"desiredState": "Stopped"})).unwrap();
    s.until_ready("store", "Stopped").unwrap();
    s.change("store", &json!({"desiredState": "Running"})).unwrap();
    s.until_ready("store", "Running").unwrap();
    s.run(&Tenant::named("broken-not").with("user", "ben")).unwrap();
    s.apply(&Tenant::named("broken").with("image", "localhost/nowhere/nothing:1")).unwrap();
    s.until_stalled("broken", "ImagePull").unwrap();

    // A restart finds its journal again, and writes nothing.
    s.eventually("five seconds without a write", |_| {
        let mark = audit::mark()?;
        thread::sleep(Duration::from_secs(5));
        Ok(audit::writes_since(mark)?.is_empty().then_some(()))
    })
    .unwrap();
    let mark = audit::mark().unwrap();
    install::restart().unwrap();
    s.eventually("a pass over each", |_| Ok((scale::passes()? >= 3).then_some(()))).unwrap();
    let writes = audit::writes_since(mark).unwrap();
    assert!(writes.is_empty(), "after a restart: {writes:#?}");

    s.delete("store").unwrap();
    assert_eq!(
        hops(&s.namespace, "store", 0),
        [
            ">pending Accepted",
            "pending>running AllReplicasReady",
            "running>paused Draining",
            "paused>stopped ScaledToZero",
            "stopped>pending Started",
            "pending>running AllReplicasReady",
            "running>paused Draining",
            "paused>stopped ScaledToZero",
            "stopped>deleted Deleted",
        ]
    );
    assert_eq!(hops(&s.namespace, "broken", 0), [">pending Accepted", "pending>failed ImagePull"]);
    assert_eq!(ask(&["get", "--user", "ann", "--service", "store"])["found"], "deleted");
    assert_eq!(ask(&["get", "--user", "nobody", "--service", "store"])["found"], "none");

    // A second life under the same name prefers the living.
    s.run(&tenant).unwrap();
    assert_eq!(ask(&["get", "--user", "ann", "--service", "store"])["found"], "live");
    assert_eq!(hops(&s.namespace, "store", 1).len(), 2);
    let verified = ask(&["verify"]);
    assert_eq!(verified["clean"], true, "{verified:#}");
}

#[test]
fn two_hundred_services_converge_on_files() {
    if !cluster::wanted("files at scale").unwrap_or_else(|missing| panic!("{missing}")) {
        return;
    }
    assert!(scale::has_room(200).unwrap(), "too few simulated nodes: make up NODES=kwok:4");
    let _alone = BERTH.lock().unwrap_or_else(PoisonError::into_inner);
    install::images().unwrap();
    install_anew(Home::Files);
    let _restore = Restore;
    let s = Scenario::alone("files-scale").unwrap();
    let took = scale::converge(&s, 200).unwrap();
    println!("200 services Running after {:.1} s, on files", took.as_secs_f64());
    let files = fs::read_dir(spool().join(&s.namespace)).unwrap().count();
    assert_eq!(files, 200, "a state file each");
    let verified = ask(&["verify"]);
    assert_eq!(verified["clean"], true, "{verified:#}");
}

#[test]
fn a_quota_is_kept_on_files() {
    if !cluster::wanted("quota on files").unwrap_or_else(|missing| panic!("{missing}")) {
        return;
    }
    assert!(scale::has_room(60).unwrap(), "too few simulated nodes: make up NODES=kwok:4");
    let _alone = BERTH.lock().unwrap_or_else(PoisonError::into_inner);
    install::images().unwrap();
    install_anew(Home::Files);
    let _restore = Restore;
    let s = Scenario::alone("files-quota").unwrap();
    quota::limit(&s, &json!({"containers": 30})).unwrap();
    let (most, took) = quota::race(&s, 20, 3, 30).unwrap();
    println!("30 of 60 Running after {:.1} s, with a leader killed on the way, on files", took.as_secs_f64());
    assert!(most <= 30, "{most} services had a StatefulSet at a time");
    let before = quota::standing(&s, 30, 30).unwrap();
    let leaving: Vec<&str> = before.running.iter().take(10).map(String::as_str).collect();
    s.user.run(&[&["delete", "tc", "--wait=false"][..], &leaving].concat()).unwrap();
    let after = quota::standing(&s, 30, 20).unwrap();
    assert!(before.waiting[..10].iter().all(|object| after.running.contains(&quota::name(object))));
    Kubectl::admin().run(&["delete", "tq", &s.namespace]).unwrap();
    quota::standing(&s, 50, 0).unwrap();
    let verified = ask(&["verify"]);
    assert_eq!(verified["clean"], true, "{verified:#}");
}

#[test]
fn a_ledger_in_files_is_in_the_database_on_the_day_that_one_is_configured() {
    if !cluster::wanted("files to database").unwrap_or_else(|missing| panic!("{missing}")) {
        return;
    }
    let _alone = BERTH.lock().unwrap_or_else(PoisonError::into_inner);
    install::images().unwrap();
    install_anew(Home::Files);
    let s = Scenario::alone("import").unwrap();
    let kept = s.run(&Tenant::named("kept")).unwrap();
    let gone = s.run(&Tenant::named("gone").with("drainSeconds", 0)).unwrap();
    s.delete("gone").unwrap();
    // Nothing but the upgrade: same spool, same objects.
    install::install(Home::Database, "info").unwrap();
    s.eventually("the whole history in the database", |_| {
        let heads = "SELECT count(*) FROM berth.ledger_heads WHERE uid = :'uid' AND closed_epoch IS NOT NULL";
        let ended = database::count(heads, &[("uid", uid(&gone))])? == 1;
        Ok((ended && database::hops(uid(&kept))?.len() == 2 && database::hops(uid(&gone))?.len() == 5).then_some(()))
    })
    .unwrap();
    assert_eq!(database::hops(uid(&gone)).unwrap().last().unwrap(), "stopped>deleted Deleted");
    let deleted = "SELECT count(*) FROM berth.tenant_containers WHERE id = :'uid' AND deleted";
    assert_eq!(database::count(deleted, &[("uid", uid(&gone))]).unwrap(), 1);
    s.until("kept", "its ledger is in the database", |object| reason(object, "LedgerSynced") == "Database").unwrap();
    install::berth(&["verify", "--cluster"]).unwrap();
    // And it goes on from there.
    s.change("kept", &json!({"desiredState": "Stopped"})).unwrap();
    s.until_ready("kept", "Stopped").unwrap();
    assert!(database::is_one_line(uid(&kept)).unwrap());
}
