//! Many clients against one organisation's quota, and a leader that is killed in the middle: what the tests with and without
//! a database share.
//!
//! Owns: doing it, and what was seen. Must never: assert; what is wrong is for tests to say.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    install,
    kubectl::{Error, Kubectl},
    objects::{Tenant, condition, is_current, reason},
    scenario::{Scenario, is_ready},
};

/// How long all of them may take, on a busy machine, with the fifteen seconds of a dead leader's Lease.
const PATIENCE: Duration = Duration::from_secs(240);

/// Who runs and who waits, by name, and what was seen on the way.
#[derive(Debug)]
pub struct Standing {
    /// The names of those that run.
    pub running: BTreeSet<String>,
    /// Those that wait, oldest first.
    pub waiting: Vec<Value>,
}

/// Sets an organisation's limits.
pub fn limit(s: &Scenario, limits: &Value) -> Result<(), Error> {
    s.put(&[json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "TenantQuota", "metadata": {"name": s.namespace},
        "spec": {"tenantOrg": s.namespace, "limits": limits},
    })])
}

/// The quota as it stands.
pub fn quota(s: &Scenario) -> Result<Value, Error> {
    Kubectl::admin().json(&["get", "tq", &s.namespace])
}

/// So many clients make so many services each, at once; the leader is killed when a fifth of what `allowed` says is
/// reserved. Gives the most StatefulSets that were there at a time until it was over, and how long that took.
pub fn race(s: &Scenario, clients: usize, each: usize, allowed: usize) -> Result<(usize, Duration), Error> {
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let most = scope.spawn(|| most_at_a_time(s, &over));
        let creators: Vec<_> = (0..clients)
            .map(|client| {
                let names = (0..each).map(move |i| format!("c{client}-{i}"));
                let items: Vec<Value> = names.map(|name| Tenant::named(&name).simulated().of(&s.namespace)).collect();
                let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
                scope.spawn(move || s.user.feed(&["create", "--filename", "-"], &list))
            })
            .collect();
        let killed = s.eventually("a fifth of the quota is reserved", |_| {
            let reserved = quota(s)?["status"]["used"]["containers"].as_u64().unwrap_or(0);
            Ok((reserved >= allowed as u64 / 5).then_some(()))
        });
        let killed = killed.and_then(|()| install::kill());
        let created = creators.into_iter().try_for_each(|creator| joined(creator).map(drop));
        let settled = killed.and(created).and_then(|()| standing(s, allowed, clients * each - allowed));
        over.store(true, Ordering::Relaxed);
        let most = joined(most);
        settled.map(drop)?;
        Ok((most?, begun.elapsed()))
    })
}

/// Waits until so many run and so many wait for the quota, and says which.
pub fn standing(s: &Scenario, running: usize, waiting: usize) -> Result<Standing, Error> {
    s.admin.wait_for(&format!("{running} Running and {waiting} waiting for their quota"), PATIENCE, |admin| {
        let all = admin.json(&["get", "tc"])?;
        let all: Vec<Value> = all["items"].as_array().cloned().unwrap_or_default();
        let run: BTreeSet<String> = all.iter().filter(|it| is_ready(it, "Running")).map(name).collect();
        let mut wait: Vec<Value> = all.into_iter().filter(is_waiting).collect();
        wait.sort_by_key(|it| {
            let text = |key: &str| it["metadata"][key].as_str().unwrap_or_default().to_owned();
            (text("creationTimestamp"), text("uid"))
        });
        Ok(((run.len(), wait.len()) == (running, waiting)).then_some(Standing { running: run, waiting: wait }))
    })
}

/// The name of an object.
pub fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn is_waiting(object: &Value) -> bool {
    let phase = &object["status"]["phase"];
    is_current(object)
        && phase == "Pending"
        && condition(object, "Ready") == "False"
        && reason(object, "Ready") == "QuotaExceeded"
}

fn most_at_a_time(s: &Scenario, over: &AtomicBool) -> Result<usize, Error> {
    let mut most = 0;
    while !over.load(Ordering::Relaxed) {
        let sets = s.admin.run(&["get", "statefulsets", "--output=name"])?;
        most = most.max(sets.lines().count());
        thread::sleep(Duration::from_millis(500));
    }
    Ok(most)
}

/// A panic in a thread of ours is that test's.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
