//! The database goes away under real services, in each way that databases do, and comes back (docs/ledger.md, "The fault
//! matrix", the real level). One after another, since there is one database: `make scenarios`, or `. .local/env;
//! BERTH_E2E=1 cargo test -p berth-e2e --test outages -- --test-threads 1`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

use std::{
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use berth_e2e::{
    cluster, database,
    install::{self, Home, NAMESPACE, POD},
    judges::{self, tombstones},
    kubectl::Kubectl,
    objects::{IMAGE, Tenant, condition, reason},
    outage::{Kind, Outage},
    scale,
    scenario::{Scenario, uid},
};
use serde_json::{Value, json};

/// One at a time.
static DATABASE: Mutex<()> = Mutex::new(());

fn scenario(name: &str) -> Option<(Scenario, MutexGuard<'static, ()>)> {
    static READY: Mutex<bool> = Mutex::new(false);
    if !cluster::wanted(name).unwrap_or_else(|missing| panic!("{missing}")) {
        return None;
    }
    let alone = DATABASE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ready {
        install::images().unwrap();
        install::install(Home::Database, "info").unwrap();
        *ready = true;
    }
    drop(ready);
    Some((Scenario::alone(name).unwrap(), alone))
}

fn pending(object: &Value) -> usize {
    object["status"]["ledger"]["pending"].as_array().map_or(0, Vec::len)
}

/// Everything that was away is in the database, and both checkers agree that nothing is wrong.
fn settled(s: &Scenario) {
    s.eventually("nothing is carried any more", |admin| {
        let all = admin.json(&["get", "tc"])?;
        let carrying = all["items"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|object| pending(object) > 0 || (condition(object, "LedgerSynced") != "True"));
        Ok((!carrying && tombstones()?.is_empty()).then_some(()))
    })
    .unwrap();
    // They look at every object there is, and another's may have yet to settle what two homes say of it.
    judges::both_agree(&s.admin, install::spools, install::berth).unwrap();
}

/// A service's whole life while the database is unavailable in this way.
fn goes_on_without(kind: Kind) {
    let Some((s, _alone)) = scenario(&format!("{kind:?}").to_lowercase()) else { return };
    let kept = s.run(&Tenant::named("kept")).unwrap();
    s.run(&Tenant::named("stopped")).unwrap();
    let gone = s.run(&Tenant::named("gone").with("drainSeconds", 1)).unwrap();
    let began = Instant::now();
    let outage = Outage::begin(kind).unwrap();
    let new = s.run(&Tenant::named("new")).unwrap();
    assert_eq!(pending(&new), 2, "{new:#}");
    assert_eq!(condition(&new, "LedgerSynced"), "False");
    let told = reason(&new, "LedgerSynced");
    assert!(kind.reasons().contains(&told) || told == "DatabaseTimedOut", "{told}");
    s.eventually("the condition of the next state says what is wrong with the database", |admin| {
        let restart =
            json!({"metadata": {"annotations": {"berth.dev/restarted-at": format!("{:?}", began.elapsed())}}});
        admin.run(&["patch", "tc", "kept", "--type=merge", "--patch", &restart.to_string()])?;
        let object = s.until("kept", "carries a record", |object| pending(object) > 0)?;
        Ok(kind.reasons().contains(&reason(&object, "LedgerSynced")).then_some(()))
    })
    .unwrap();
    s.change("stopped", &json!({"desiredState": "Stopped"})).unwrap();
    s.until_ready("stopped", "Stopped").unwrap();
    s.delete("gone").unwrap();
    // Of this object: the services of an earlier test may be on their way out meanwhile.
    let of_gone = |stone: &&String| stone.contains(uid(&gone));
    assert_eq!(tombstones().unwrap().iter().filter(of_gone).count(), 1, "the last records of what is gone have a home");
    outage.over().unwrap();
    settled(&s);
    let hops = database::hops(uid(&gone)).unwrap();
    assert_eq!(
        hops,
        [
            ">pending Accepted",
            "pending>running AllReplicasReady",
            "running>paused Draining",
            "paused>stopped ScaledToZero",
            "stopped>deleted Deleted",
        ]
    );
    for object in [&kept, &new, &gone] {
        assert!(database::is_one_line(uid(object)).unwrap(), "{}", object["metadata"]["name"]);
    }
}

#[test]
fn a_database_that_is_killed_stops_nobody() {
    goes_on_without(Kind::Killed);
}

#[test]
fn a_database_that_stands_still_stops_nobody() {
    goes_on_without(Kind::Frozen);
}

#[test]
fn a_database_that_takes_no_writes_stops_nobody() {
    goes_on_without(Kind::ReadOnly);
}

#[test]
fn a_database_that_takes_no_connections_stops_nobody() {
    goes_on_without(Kind::Crowded);
}

#[test]
fn a_password_that_is_wrong_stops_nobody() {
    goes_on_without(Kind::WrongPassword);
}

#[test]
fn an_operator_that_is_killed_meanwhile_loses_nothing() {
    let Some((s, _alone)) = scenario("killed-meanwhile") else { return };
    let outage = Outage::begin(Kind::Killed).unwrap();
    let berth = Kubectl::admin().in_namespace(NAMESPACE);
    for round in 0..3 {
        let object = s.run(&Tenant::named(&format!("round-{round}"))).unwrap();
        assert_eq!(pending(&object), 2);
        berth.run(&["delete", "pod", POD, "--grace-period=0", "--force"]).unwrap();
        berth.run(&["rollout", "status", "statefulset/berth", "--timeout=120s"]).unwrap();
    }
    outage.over().unwrap();
    settled(&s);
    assert_eq!(
        database::count(
            "SELECT count(*) FROM berth.container_status_history WHERE namespace = :'n'",
            &[("n", &s.namespace)]
        )
        .unwrap(),
        6
    );
}

/// The volume goes with everything on it; the next pod gets a new one.
fn lose_volume() {
    let berth = Kubectl::admin().in_namespace(NAMESPACE);
    berth.run(&["delete", "pvc", "spool-berth-0", "--wait=false"]).unwrap();
    berth.run(&["delete", "pod", POD, "--grace-period=0", "--force"]).unwrap();
    berth.run(&["wait", "--for=delete", "pvc/spool-berth-0", "--timeout=60s"]).unwrap_or_default();
    berth.run(&["delete", "pod", POD, "--ignore-not-found"]).unwrap();
    berth.run(&["rollout", "status", "statefulset/berth", "--timeout=120s"]).unwrap();
}

#[test]
fn a_spool_that_is_lost_while_the_database_is_away_takes_no_record_with_it() {
    let Some((s, _alone)) = scenario("spool-lost") else { return };
    let gone = s.run(&Tenant::named("gone").with("drainSeconds", 0)).unwrap();
    let outage = Outage::begin(Kind::Killed).unwrap();
    let new = s.run(&Tenant::named("new")).unwrap();
    s.delete("gone").unwrap();
    lose_volume();
    outage.over().unwrap();
    settled(&s);
    assert_eq!(database::hops(uid(&gone)).unwrap().last().unwrap(), "stopped>deleted Deleted");
    assert_eq!(database::hops(uid(&new)).unwrap().len(), 2);
}

#[test]
fn what_happens_while_nobody_looks_is_told_when_somebody_does() {
    let Some((s, _alone)) = scenario("unseen") else { return };
    let kept = s.run(&Tenant::named("kept").simulated()).unwrap();
    let berth = Kubectl::admin().in_namespace(NAMESPACE);
    berth.run(&["scale", "statefulset/berth", "--replicas=0"]).unwrap();
    berth.run(&["wait", "--for=delete", &format!("pod/{POD}"), "--timeout=60s"]).unwrap();
    for replicas in [3, 1] {
        let patch = json!({"spec": {"replicas": replicas}}).to_string();
        s.user.run(&["patch", "tc", "kept", "--type=merge", "--patch", &patch]).unwrap();
    }
    let gone = s.apply(&Tenant::named("gone").simulated()).unwrap();
    s.user.run(&["delete", "tc", "gone", "--wait=false"]).unwrap();
    berth.run(&["scale", "statefulset/berth", "--replicas=1"]).unwrap();
    berth.run(&["rollout", "status", "statefulset/berth", "--timeout=120s"]).unwrap();
    s.until("kept", "its last generation", |object| {
        object["status"]["observedGeneration"] == object["metadata"]["generation"]
            && condition(object, "Ready") == "True"
    })
    .unwrap();
    s.admin.run(&["wait", "--for=delete", "tc/gone", "--timeout=120s"]).unwrap();
    let unseen = database::rows(
        "SELECT kind, reason, details ->> 'unseen' FROM berth.container_status_history
         WHERE uid = :'u' AND kind = 'unobserved'",
        &[("u", uid(&kept))],
    )
    .unwrap();
    assert_eq!(unseen, [["unobserved", "ChangesUnseen", "1"]]);
    let hops = database::hops(uid(&gone)).unwrap();
    assert_eq!(hops.first().map(String::as_str), Some(">pending Accepted"));
    assert_eq!(hops.last().map(String::as_str), Some("stopped>deleted Deleted"));
    settled(&s);
}

#[test]
fn a_namespace_with_fifty_services_goes_while_the_database_is_away() {
    let Some((s, _alone)) = scenario("fifty") else { return };
    scale::converge(&s, 50).unwrap();
    let all = s.admin.json(&["get", "tc"]).unwrap();
    let uids: Vec<&str> = all["items"].as_array().unwrap().iter().map(uid).collect();
    let outage = Outage::begin(Kind::Killed).unwrap();
    let namespace = format!("namespace/{}", s.namespace);
    Kubectl::admin().run(&["delete", &namespace, "--timeout=300s"]).unwrap();
    let of_these = |stone: &&String| uids.iter().any(|uid| stone.contains(uid));
    assert_eq!(tombstones().unwrap().iter().filter(of_these).count(), 50, "the last records of each have a home");
    outage.over().unwrap();
    settled(&s);
    let ended = "SELECT count(*) FROM berth.container_status_history WHERE namespace = :'n' AND to_state = 'deleted'";
    assert_eq!(database::count(ended, &[("n", &s.namespace)]).unwrap(), 50);
}

#[test]
fn a_definition_that_is_deleted_takes_its_objects_and_no_record_with_it() {
    let Some((s, _alone)) = scenario("definition") else { return };
    let kept = s.run(&Tenant::named("kept").simulated()).unwrap();
    let outage = Outage::begin(Kind::Killed).unwrap();
    let new = s.run(&Tenant::named("new").simulated()).unwrap();
    let definition = "customresourcedefinition/tenantcontainers.berth.dev";
    Kubectl::admin().run(&["delete", definition, "--timeout=180s"]).unwrap();
    outage.over().unwrap();
    // What somebody deleted by mistake is put back, and Berth goes on.
    install::install(Home::Database, "info").unwrap();
    s.run(&Tenant::named("later").simulated()).unwrap();
    settled(&s);
    for object in [&kept, &new] {
        let hops = database::hops(uid(object)).unwrap();
        assert_eq!(hops.last().map(String::as_str), Some("stopped>deleted Deleted"), "{hops:?}");
        assert!(database::is_one_line(uid(object)).unwrap());
    }
}

#[test]
fn an_operator_that_is_uninstalled_with_unsynced_records_has_them_when_it_is_back() {
    let Some((s, _alone)) = scenario("uninstalled") else { return };
    let outage = Outage::begin(Kind::Killed).unwrap();
    let new = s.run(&Tenant::named("new").simulated()).unwrap();
    assert_eq!(pending(&new), 2);
    install::uninstall().unwrap();
    outage.over().unwrap();
    install::install(Home::Database, "info").unwrap();
    settled(&s);
    assert_eq!(database::hops(uid(&new)).unwrap(), [">pending Accepted", "pending>running AllReplicasReady"]);
}

/// Berth has no replica until this goes, also where a test fails in between.
struct ScaledDown;

impl ScaledDown {
    fn begin() -> Self {
        let berth = Kubectl::admin().in_namespace(NAMESPACE);
        let down = Self;
        berth.run(&["scale", "statefulset/berth", "--replicas=0"]).unwrap();
        berth.run(&["wait", "--for=delete", "pod/berth-0", "--timeout=60s"]).unwrap();
        down
    }
}

impl Drop for ScaledDown {
    fn drop(&mut self) {
        let berth = Kubectl::admin().in_namespace(NAMESPACE);
        let up = berth.run(&["scale", "statefulset/berth", "--replicas=1"]);
        let up = up.and_then(|_| berth.run(&["rollout", "status", "statefulset/berth", "--timeout=120s"]));
        if let Err(error) = up {
            eprintln!("Berth is still scaled down: {error}");
        }
    }
}

#[test]
fn the_volume_of_a_replica_that_does_not_come_back_is_brought_by_one_command() {
    const REPLAY: &str = "berth-replay-spool-berth-0";
    let Some((s, _alone)) = scenario("replica-gone") else { return };
    let berth = Kubectl::admin().in_namespace(NAMESPACE);
    let replay_with = |more: &[&str]| {
        // Where the API server listens.
        let mut command = Command::new(install::top().join("e2e/cluster/enter"));
        command.arg(install::program().unwrap()).args(["replay", "pvc/spool-berth-0"]).args(more);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let replay = || replay_with(&[]);
    // One volume before, which is never found.
    let unread = "SELECT volume FROM berth.ledger_spools WHERE writer LIKE '%/berth-0/until-%'
                  AND gone_at IS NULL AND volume IS NOT NULL ORDER BY seen_at DESC";
    let before = database::column(unread, &[]).unwrap();
    lose_volume();
    let unread = s.admin.wait_for("the earlier volume to be left behind", Duration::from_secs(60), |_| {
        let left = database::column(unread, &[])?;
        Ok(left.into_iter().find(|volume| !before.contains(volume)))
    });
    let unread = unread.unwrap();
    let outage = Outage::begin(Kind::Killed).unwrap();
    let new = s.run(&Tenant::named("new").simulated()).unwrap();
    assert_eq!(pending(&new), 2);
    let (code, _, refused) = replay();
    assert!(code == Some(2) && refused.contains("in use by the pod berth-0 (Running)"), "{refused}");

    let down = ScaledDown::begin();
    // The database is still away: it says so, and nothing is lost by it.
    let (code, said, refused) = replay();
    assert!(code == Some(2) && refused.contains("ended with exit code 2"), "{said}{refused}");
    outage.over().unwrap();
    // What another call has left behind is not this one's.
    let old = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": REPLAY}, "spec": {
    "restartPolicy": "Never",
    "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [{
        "name": "berth", "image": IMAGE, "imagePullPolicy": "Never", "args": ["get", "http://127.0.0.1:1"],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    }]}});
    berth.run(&["wait", "--for=delete", &format!("pod/{REPLAY}"), "--timeout=60s"]).unwrap();
    berth.feed(&["create", "--filename", "-"], &old.to_string()).unwrap();
    berth.run(&["wait", "--for=jsonpath={.status.phase}=Failed", &format!("pod/{REPLAY}"), "--timeout=60s"]).unwrap();
    let (code, said, errors) = replay();
    assert_eq!(code, Some(0), "{said}{errors}");
    let new_ones = said.split_once(" entries read, ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(new_ones.is_some_and(|count| count >= 2), "{said}{errors}");
    let story = [">pending Accepted", "pending>running AllReplicasReady"];
    assert_eq!(database::hops(uid(&new)).unwrap(), story, "no Berth runs: the command brought it");
    berth.run(&["wait", "--for=delete", &format!("pod/{REPLAY}"), "--timeout=60s"]).unwrap();
    // Volumes that the replica lost before, in other tests, are left behind under names of their own.
    let gone = || {
        let own = "SELECT count(*) FROM berth.ledger_spools WHERE gone_at IS NOT NULL AND writer NOT LIKE '%/until-%'";
        database::count(own, &[]).unwrap()
    };
    let before = gone();

    // Two who declare it gone at once share a pod, or come one after the other; none of them has it read twice over.
    let both = thread::scope(|scope| {
        let other = scope.spawn(|| replay_with(&["--gone"]));
        [replay_with(&["--gone"]), other.join().unwrap()]
    });
    assert!(
        both.iter().any(|(code, said, _)| *code == Some(0) && said.contains(" 0 were new to the database")),
        "{both:?}"
    );
    for (code, _, errors) in &both {
        assert!(
            *code == Some(0) || errors.contains("was deleted by somebody else; how it ended is not known"),
            "{both:?}"
        );
    }
    assert_eq!(gone(), before + 1);
    let left_behind =
        "SELECT count(*) FROM berth.ledger_spools WHERE gone_at IS NULL AND writer LIKE '%/berth-0/until-%'";
    assert_eq!(database::count(left_behind, &[]).unwrap(), 0, "nothing more is expected from those either");

    drop(down);
    settled(&s);
    assert_eq!(database::hops(uid(&new)).unwrap(), story);
    // The one that nobody has read is lost, and whichever replica works says so in the audit, once.
    let named =
        "SELECT count(*) FROM berth.operation_logs WHERE action = 'EntriesLost' AND details ->> 'how' = 'VolumeGone'
                 AND details ->> 'volume' = :'volume'";
    s.admin
        .wait_for("what is lost to be named", Duration::from_secs(120), |_| {
            Ok((database::count(named, &[("volume", &unread)])? == 1).then_some(()))
        })
        .unwrap();
    // Whoever tells of it has it.
    s.admin
        .wait_for("the spool to be there again", Duration::from_secs(60), |_| Ok((gone() == before).then_some(())))
        .unwrap();
}
