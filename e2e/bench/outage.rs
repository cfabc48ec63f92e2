//! What an outage of the database costs a pass: the same restarts of the same services, healthy and not, interleaved.
//!
//! From the operator's log: the duration of every pass that wrote something, from the moment of the cut on; and of
//! deletions, what the ledger adds between the children's end and the finalizer's release.

use std::{error::Error, time::Duration};

use berth_e2e::{
    install::{NAMESPACE, POD},
    kubectl::Kubectl,
    outage::{Kind, Outage},
    scenario::Scenario,
};
use serde_json::Value;

/// Restarts of every service in one phase. A status has 32 slots.
const ROUNDS: usize = 8;

/// Runs the phases and prints what they took.
pub(super) fn run(scenario: &Scenario, services: usize) -> Result<(), Box<dyn Error>> {
    let mut healthy: Vec<Vec<u64>> = vec![];
    for (name, kind) in [
        ("healthy", None),
        ("killed", Some(Kind::Killed)),
        ("healthy", None),
        ("standing still", Some(Kind::Frozen)),
        ("healthy", None),
        ("read-only", Some(Kind::ReadOnly)),
        ("healthy", None),
    ] {
        let seen = log()?.len();
        let outage = kind.map(Outage::begin).transpose()?;
        for round in 0..ROUNDS {
            restart_all(scenario, &format!("{name}-{round}-{seen}"))?;
        }
        let passes = numbers(&log()?[seen..], "pass", "pass_us");
        print(&format!("a pass, database {name}"), &passes, services * ROUNDS);
        if let Some(outage) = outage {
            outage.over()?;
            settled(scenario)?;
        } else {
            healthy.push(passes);
        }
    }
    let p99: Vec<u64> = healthy.iter().map(|passes| percentile(passes, 99)).collect();
    println!("healthy against healthy       p99 {p99:?} us");
    let seen = log()?.len();
    let outage = Outage::begin(Kind::Killed)?;
    scenario.user.run(&["delete", "tc", "--all", "--timeout=300s"])?;
    let added = numbers(&log()?[seen..], "let go", "ledger_us");
    print("deleting, database killed: the ledger's part", &added, services);
    outage.over()?;
    Ok(())
}

/// Restarts every service and waits until each has shown it.
fn restart_all(scenario: &Scenario, stamp: &str) -> Result<(), Box<dyn Error>> {
    let annotation = format!("berth.dev/restarted-at={stamp}");
    let before = generations(scenario)?;
    scenario.user.run(&["annotate", "tc", "--all", "--overwrite", &annotation])?;
    scenario.admin.wait_for("every service's record", Duration::from_secs(180), |_| {
        let now = generations(scenario).map_err(|_| ()).unwrap_or_default();
        Ok((now.len() == before.len() && now.iter().zip(&before).all(|(now, before)| now > before)).then_some(()))
    })?;
    Ok(())
}

/// The sequence that each service shows, by name.
fn generations(scenario: &Scenario) -> Result<Vec<i64>, Box<dyn Error>> {
    let all = scenario.admin.json(&["get", "tc"])?;
    let items = all["items"].as_array().into_iter().flatten();
    let simulated =
        items.filter(|object| object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("s-")));
    Ok(simulated.map(|object| object["status"]["ledger"]["sequence"].as_i64().unwrap_or(0)).collect())
}

/// Nothing is carried any more.
fn settled(scenario: &Scenario) -> Result<(), Box<dyn Error>> {
    scenario.admin.wait_for("the ledger to be whole again", Duration::from_secs(300), |admin| {
        let all = admin.json(&["get", "tc"])?;
        let carrying =
            all["items"].as_array().into_iter().flatten().any(|object| {
                object["status"]["ledger"]["pending"].as_array().is_some_and(|pending| !pending.is_empty())
            });
        Ok((!carrying).then_some(()))
    })?;
    Ok(())
}

fn log() -> Result<Vec<Value>, Box<dyn Error>> {
    let text = Kubectl::admin().in_namespace(NAMESPACE).run(&["logs", POD])?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn numbers(lines: &[Value], message: &str, field: &str) -> Vec<u64> {
    let of = lines.iter().filter(|line| line["message"] == message);
    of.filter_map(|line| line[field].as_u64().or_else(|| line[field].as_str()?.parse().ok())).collect()
}

fn percentile(of: &[u64], percent: usize) -> u64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

fn print(what: &str, micros: &[u64], asked: usize) {
    println!(
        "{what:44}  median {:.1} ms, p99 {:.1} ms, most {:.1} ms of {} ({asked} asked for)",
        percentile(micros, 50) as f64 / 1e3,
        percentile(micros, 99) as f64 / 1e3,
        percentile(micros, 100) as f64 / 1e3,
        micros.len()
    );
}
