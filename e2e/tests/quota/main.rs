//! One organisation's quota under many clients and a leader that is killed: `make scenarios`, or, on a cluster of
//! `make up NODES=kwok:4`, `. .local/env; BERTH_E2E=1 cargo test -p berth-e2e --test quota`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

use std::{thread, time::Duration};

use berth_e2e::{
    audit, cluster,
    install::{self, Home},
    kubectl::Kubectl,
    objects::{Tenant, condition, is_current, message, reason},
    quota::{self, name},
    scale,
    scenario::Scenario,
};
use serde_json::json;

#[test]
fn two_hundred_creates_by_twenty_clients_against_a_quota_of_a_hundred() {
    if !cluster::wanted("quota").unwrap_or_else(|missing| panic!("{missing}")) {
        return;
    }
    assert!(scale::has_room(200).unwrap(), "too few simulated nodes: make up NODES=kwok:4");
    install::images().unwrap();
    install::install(Home::Database, "info").unwrap();
    let s = Scenario::alone("quota").unwrap();
    let gone = Gone(s.namespace.clone());
    quota::limit(&s, &json!({"containers": 100})).unwrap();
    let (most, took) = quota::race(&s, 20, 10, 100).unwrap();
    println!("100 of 200 Running after {:.1} s, with a leader killed on the way", took.as_secs_f64());
    assert!(most <= 100, "{most} services had a StatefulSet at a time");

    let before = quota::standing(&s, 100, 100).unwrap();
    let sentence = format!("needs 1 container; 0 of 100 left in quota {}", s.namespace);
    for object in &before.waiting {
        assert_eq!(message(object, "Ready"), sentence, "{}", name(object));
        assert_eq!((condition(object, "Reconciling"), condition(object, "Stalled")), ("True", "False"));
    }
    let stands = quota::quota(&s).unwrap();
    assert_eq!(stands["status"]["summary"]["containers"], "100/100");
    assert_eq!((&stands["status"]["waiting"], reason(&stands, "Ready")), (&json!(100), "Exhausted"));
    let reserved = stands["status"]["reservations"].as_array().unwrap();
    assert_eq!(reserved.len(), 100);
    assert!(reserved.iter().all(|one| before.running.contains(one["name"].as_str().unwrap())));
    println!("the quota's status takes {} bytes", stands["status"].to_string().len());
    let table = Kubectl::admin().run(&["get", "tq", &s.namespace]).unwrap();
    assert!(table.contains("100/100") && table.contains("CONTAINERS"), "{table}");
    let told = s.events(&name(&before.waiting[0])).unwrap();
    let told: Vec<_> = told.iter().filter(|event| event.starts_with("QuotaExceeded")).collect();
    assert_eq!(told.len(), 1, "{told:?}");

    // Waiting costs nothing.
    s.eventually("five seconds without a write", |_| {
        let mark = audit::mark()?;
        thread::sleep(Duration::from_secs(5));
        Ok(audit::writes_since(mark)?.is_empty().then_some(()))
    })
    .unwrap();

    // What is freed goes to the oldest of those who wait.
    let leaving: Vec<&str> = before.running.iter().take(10).map(String::as_str).collect();
    s.user.run(&[&["delete", "tc", "--wait=false"][..], &leaving].concat()).unwrap();
    let after = quota::standing(&s, 100, 90).unwrap();
    let (oldest, others) = before.waiting.split_at(10);
    assert!(oldest.iter().all(|object| after.running.contains(&name(object))), "others than the oldest were admitted");
    let waiting: Vec<String> = after.waiting.iter().map(name).collect();
    assert_eq!(waiting, others.iter().map(name).collect::<Vec<_>>());

    // A limit that is lowered stops nothing and admits nothing new.
    quota::limit(&s, &json!({"containers": 50})).unwrap();
    s.eventually("the quota says so", |_| Ok((reason(&quota::quota(&s)?, "Ready") == "OverLimit").then_some(())))
        .unwrap();
    let one = after.running.iter().next().unwrap();
    s.user.run(&["delete", "tc", one]).unwrap();
    let fewer = quota::standing(&s, 99, 90).unwrap();
    assert!(fewer.running.is_subset(&after.running));

    // `kubectl scale` is asked about as well, and what runs goes on.
    quota::limit(&s, &json!({"containers": 50, "replicas": 100})).unwrap();
    let scaled = fewer.running.iter().next().unwrap();
    s.user.run(&["scale", "tc", scaled, "--replicas=4"]).unwrap();
    let object = s
        .until(scaled, "its growth waits", |object| is_current(object) && reason(object, "Ready") == "QuotaExceeded")
        .unwrap();
    assert_eq!((condition(&object, "Available"), &object["status"]["phase"]), ("True", &json!("Running")));
    assert_eq!(message(&object, "Ready"), format!("needs 3 more replicas; 1 of 100 left in quota {}", s.namespace));
    s.user.run(&["scale", "tc", scaled, "--replicas=1"]).unwrap();
    s.until_ready(scaled, "Running").unwrap();

    // Without a quota nobody is limited.
    drop(gone);
    quota::standing(&s, 189, 0).unwrap();
    s.run(&Tenant::named("later").simulated()).unwrap();
    s.verify().unwrap();
}

/// A quota is of the cluster: it goes with the test, whatever becomes of that.
struct Gone(String);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = Kubectl::admin().run(&["delete", "tq", &self.0, "--ignore-not-found", "--wait=false"]);
    }
}
