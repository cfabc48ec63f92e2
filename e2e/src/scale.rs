//! Many services at once, on simulated nodes: what the scale test and the benchmark share.
//!
//! Owns: making them and seeing that they run. Must never: assert; what is too slow is for others to say.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    install,
    kubectl::{Error, Kubectl},
    objects::Tenant,
    scenario::{Scenario, is_ready},
};

/// Whether there are simulated nodes for so many replicas: 110 fit on one.
pub fn has_room(count: usize) -> Result<bool, Error> {
    let nodes = Kubectl::admin().run(&["get", "nodes", "--selector", "type=kwok", "--output=name"])?;
    Ok(nodes.lines().count() * 110 >= count)
}

/// Applies `count` services in one go, and gives how long it takes until the last of them runs: from the start of
/// `kubectl apply`, which takes a part of it.
pub fn converge(s: &Scenario, count: usize) -> Result<Duration, Error> {
    let items: Vec<Value> = (0..count).map(|i| Tenant::named(&format!("s-{i}")).simulated().of(&s.namespace)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let begun = Instant::now();
    s.user.feed(&["apply", "--filename", "-"], &list)?;
    let patience = Duration::from_secs(60 + u64::try_from(count).unwrap_or(0));
    s.admin.wait_for(&format!("{count} services Running"), patience, |admin| {
        let all = admin.json(&["get", "tc"])?;
        let running = all["items"].as_array().into_iter().flatten().filter(|object| is_ready(object, "Running"));
        Ok((running.count() == count).then_some(()))
    })?;
    Ok(begun.elapsed())
}

/// How many passes Berth has made since it started.
pub fn passes() -> Result<u64, Error> {
    let metrics = install::metrics()?;
    let lines = metrics.lines().filter(|line| line.starts_with("controller_runtime_reconcile_total"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

/// What Berth's process holds in memory now, and held at most, in MiB.
pub fn memory() -> Result<Option<(u64, u64)>, Error> {
    Ok(install::process()?.and_then(|process| {
        let status = fs::read_to_string(process.join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
        };
        Some((field("VmRSS:")?, field("VmHWM:")?))
    }))
}
