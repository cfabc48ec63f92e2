//! The benchmark of docs/benchmarks.md: `make bench`.
//!
//! 1. From `kubectl apply` to Running, as somebody sees it who applies a manifest and watches: twenty times, one after
//!    another, on the real node. And Berth's own share of that: for each pass, from the event that it answers to its
//!    end, added up over all passes until the service runs, from the operator's log.
//! 2. Two hundred services at once on simulated nodes: time, passes, memory.
//! 3. The same services while the database is there and while it is unavailable, in six ways, in turn: what a pass takes, and
//!    whether that keeps the promise; and what the ledger adds to their deletion ([`outage`]).
//!
//! 4. How long a service takes to leave its Service when it is paused, and to come back: twenty times ([`pause`]).
//!
//! `PART=pause` does only that. `PART=outages`, `PART=deletions`, or the names of outages, does only that of the third, and the
//! scale that it needs.

use std::{
    collections::BTreeMap,
    error::Error,
    time::{Duration, Instant},
};

mod outage;
mod pause;

use berth_e2e::{
    install::{self, Home, NAMESPACE, POD},
    kubectl::Kubectl,
    objects::Tenant,
    scale,
    scenario::{PATIENCE, Scenario, is_ready},
};
use serde_json::Value;

const RUNS: usize = 20;
const SERVICES: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    install::images()?;
    install::install(Home::Database, "info,berth::operator=debug,berth::tenant=debug,berth::chain::ending=debug")?;
    let scenario = Scenario::begin("bench")?;
    scenario.apply(&Tenant::named("stopped").with("desiredState", "Stopped"))?;
    scenario.until_ready("stopped", "Stopped")?;
    let part = std::env::var("PART").unwrap_or_default();
    if part.is_empty() {
        starts(&scenario)?;
    }
    if part.is_empty() || part == "pause" {
        pause::run(&scenario)?;
    }
    if part == "pause" {
        return Ok(());
    }
    if scale::has_room(SERVICES)? {
        let before = scale::memory()?;
        let passes = scale::passes()?;
        let took = scale::converge(&scenario, SERVICES)?;
        let passes = scale::passes()? - passes;
        let rate = passes as f64 / took.as_secs_f64();
        println!(
            "{SERVICES} services Running          {:.1} s, {passes} passes, {rate:.0} passes/s",
            took.as_secs_f64()
        );
        if let (Some((before, _)), Some((now, most))) = (before, scale::memory()?) {
            println!("memory of the operator        {before} MiB before, {now} MiB after, {most} MiB at most");
        }
        outage::run(&scenario, SERVICES, &part)?;
    } else {
        println!("{SERVICES} services on simulated nodes: left out, there are too few nodes (make up NODES=kwok:4)");
    }
    Ok(())
}

/// Twenty services, one after another.
fn starts(scenario: &Scenario) -> Result<(), Box<dyn Error>> {
    let mut waits = vec![];
    // The first is for the caches of everybody else.
    for run in 0..=RUNS {
        let took = one(scenario, &format!("run-{run}"))?;
        if run > 0 {
            waits.push(took);
        }
    }
    let shares = shares(&Kubectl::admin().in_namespace(NAMESPACE).run(&["logs", POD])?);
    let of_runs = (1..=RUNS).filter_map(|run| shares.get(&(scenario.namespace.clone(), format!("run-{run}"))).copied());
    print("kubectl apply to Running", waits);
    print("Berth's own share of it", of_runs.collect());
    Ok(())
}

/// From the start of `kubectl apply` until a watch that was there before tells that it runs.
fn one(scenario: &Scenario, name: &str) -> Result<Duration, Box<dyn Error>> {
    let tenant = Tenant::named(name).with("drainSeconds", 0);
    let (sender, receiver) = std::sync::mpsc::channel();
    let watched = std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            // It tells of the stopped service at once: then it listens.
            let mut listening = Some(sender);
            scenario.admin.watch(&["get", "tc"], PATIENCE, |object| {
                if let Some(listening) = listening.take() {
                    // Nobody waits any more: then the error is told there.
                    let _ = listening.send(());
                }
                (object["metadata"]["name"] == name && is_ready(object, "Running")).then(Instant::now)
            })
        });
        receiver.recv()?;
        let begun = Instant::now();
        scenario.apply(&tenant)?;
        let ended = watch.join().map_err(|_| "the watch ended early")??;
        Ok::<_, Box<dyn Error>>(ended - begun)
    })?;
    scenario.delete(name)?;
    Ok(watched)
}

/// The share that each service had when it first ran, by namespace and name.
fn shares(log: &str) -> BTreeMap<(String, String), Duration> {
    let mut running = std::collections::BTreeSet::new();
    let mut shares = BTreeMap::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let about = (text("namespace"), text("name"));
        match line["message"].as_str() {
            Some("state") if line["to"] == "running" => drop(running.insert(about)),
            Some("pass") if running.contains(&about) => {
                let micros = line["share_us"].as_u64().or_else(|| line["share_us"].as_str()?.parse().ok());
                shares.entry(about).or_insert(Duration::from_micros(micros.unwrap_or(0)));
            }
            _ => {}
        }
    }
    shares
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let millis =
        |place: usize| times.get(place.min(times.len().saturating_sub(1))).map_or(0.0, |t| t.as_secs_f64() * 1e3);
    let count = times.len();
    println!(
        "{what:28}  median {:.0} ms of {count} (least {:.0}, nine of ten under {:.0}, most {:.0})",
        millis(count / 2),
        millis(0),
        millis(count * 9 / 10),
        millis(count),
    );
}
