//! What an outage of the database costs a pass: the same restarts of the same services, healthy and not, interleaved.
//!
//! From the operator's log, which is followed (what `kubectl logs` shows of it begins anew every ten megabytes): the duration
//! of every pass that wrote something, from the moment of the cut on; and of deletions, what the ledger adds between the
//! children's end and the finalizer's release.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use berth_e2e::{
    faults::report::{Level, Report},
    install::{self, NAMESPACE, POD},
    judges,
    outage::{Kind, Outage},
    scenario::Scenario,
};
use serde_json::Value;

/// Passes in one phase: so many that those which are on their way at the cut, sixteen that wait once for as long as a record may
/// take, are less than one in a hundred, and that three outages and what is between them are more than ten thousand. A busy
/// machine makes more passes of a restart, an idle one fewer: so the passes are counted, not the restarts. Each makes one at
/// least, so that the nine of two hundred services are the most: a status has 32 slots, and each may need two.
const PASSES: usize = 1_800;

const OUTAGES: [(&str, Kind); 6] = [
    ("killed", Kind::Killed),
    ("standing still", Kind::Frozen),
    ("slow", Kind::Slow),
    ("read-only", Kind::ReadOnly),
    ("out of connections", Kind::Crowded),
    ("wrong password", Kind::WrongPassword),
];

/// What the p99 of an outage may be of the largest healthy one, which has the spread of healthy against healthy in it.
const PROMISED: f64 = 1.1;

/// Runs the phases and prints what they took; only those of `part`, where it names any. An error where a promise is broken.
pub(super) fn run(scenario: &Scenario, services: usize, part: &str) -> Result<(), Box<dyn Error>> {
    let log = Followed::begin()?;
    let (mut healthy, mut outages_p99): (Vec<u64>, Vec<(&str, u64)>) = (vec![], vec![]);
    let (mut counted, mut longest) = (0, 0);
    let shown_before: i64 = sequences(scenario)?.values().sum();
    let wanted = |name: &str| matches!(part, "" | "outages") || part.contains(name);
    let outages = OUTAGES.into_iter().filter(|(name, _)| wanted(name));
    let phases = outages.flat_map(|(name, kind)| [("healthy", None), (name, Some(kind))]);
    for (name, kind) in phases {
        log.forget();
        let begun = Instant::now();
        let outage = kind.map(Outage::begin).transpose()?;
        let (mut passes, mut restarts) = (vec![], 0);
        while passes.len() < PASSES {
            restart_all(scenario, services, &format!("{name}-{restarts}-{begun:?}"))?;
            restarts += 1;
            passes = log.numbers("pass", "pass_us", services * restarts)?;
        }
        print(&format!("a pass, database {name}, {restarts} restarts of each"), &passes);
        counted += passes.len();
        let p99 = percentile(&passes, 99);
        if let Some(outage) = outage {
            outage.over()?;
            settled(scenario)?;
            outages_p99.push((name, p99));
            longest = passes.iter().copied().max().unwrap_or(0).max(longest);
        } else {
            healthy.push(p99);
        }
    }
    // All that was written meanwhile has arrived, once.
    judges::both_agree(&scenario.admin, install::spools, install::berth)?;
    Report {
        faults: outages_p99.len().try_into()?,
        written: (sequences(scenario)?.values().sum::<i64>() - shown_before).try_into()?,
        longest_blocked_ms: Some(longest / 1_000),
        ..Report::new(6, Level::Real, counted.try_into()?)
    }
    .print()?;
    compare(counted, &healthy, &outages_p99)?;
    if !matches!(part, "" | "outages" | "deletions") {
        return Ok(());
    }
    log.forget();
    let outage = Outage::begin(Kind::Killed)?;
    scenario.user.run(&["delete", "tc", "--all", "--timeout=300s"])?;
    let added = log.numbers("let go", "ledger_us", services)?;
    print("deleting, database killed: the ledger's part", &added);
    outage.over()?;
    Ok(())
}

/// Prints how the outages' p99 compare with the healthy ones, and says which of them break the promise.
fn compare(counted: usize, healthy: &[u64], outages: &[(&str, u64)]) -> Result<(), Box<dyn Error>> {
    let most = healthy.iter().max().copied().unwrap_or(0);
    println!("{counted} passes; healthy against healthy, p99 {healthy:?} us");
    let ratio = |p99: u64| p99 as f64 / most.max(1) as f64;
    for (name, p99) in outages {
        println!("{name:28}  p99 {:.2} of the largest healthy one", ratio(*p99));
    }
    let broken: Vec<&str> = outages.iter().filter(|(_, p99)| ratio(*p99) > PROMISED).map(|(name, _)| *name).collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(format!("more than {PROMISED} times the largest healthy p99 with the database {}", broken.join(", ")).into())
}

/// Restarts every service, by one user, who asks for some twenty a second, and waits until each has shown it. (Four users at once
/// were tried: the cluster's own controllers fall behind then, and a healthy p99 of half a second hides any outage.)
fn restart_all(scenario: &Scenario, services: usize, stamp: &str) -> Result<(), Box<dyn Error>> {
    let annotation = format!("berth.dev/restarted-at={stamp}");
    let before = sequences(scenario)?;
    if before.len() != services {
        return Err(format!("{} services are there, not {services}", before.len()).into());
    }
    scenario.user.run(&["annotate", "tc", "--all", "--overwrite", &annotation])?;
    scenario.admin.wait_for("every service's record", Duration::from_secs(180), |_| {
        let now = sequences(scenario).map_err(|_| ()).unwrap_or_default();
        Ok(before.iter().all(|(name, before)| now.get(name) > Some(before)).then_some(()))
    })?;
    Ok(())
}

/// The sequence that each service shows, by name.
fn sequences(scenario: &Scenario) -> Result<BTreeMap<String, i64>, Box<dyn Error>> {
    let all = scenario.admin.json(&["get", "tc"])?;
    let items = all["items"].as_array().into_iter().flatten();
    let named = items.filter_map(|object| Some((object["metadata"]["name"].as_str()?, &object["status"]["ledger"])));
    let simulated = named.filter(|(name, _)| name.starts_with("s-"));
    Ok(simulated.map(|(name, ledger)| (name.to_owned(), ledger["sequence"].as_i64().unwrap_or(0))).collect())
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

/// The operator's log from some moment on.
struct Followed {
    lines: Arc<Mutex<Vec<Value>>>,
    kubectl: Child,
}

impl Followed {
    fn begin() -> Result<Self, Box<dyn Error>> {
        let mut kubectl = Command::new("kubectl")
            .args(["--namespace", NAMESPACE, "logs", "--follow", "--since=1s", POD])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()?;
        let output = kubectl.stdout.take().ok_or("kubectl has no output")?;
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str::<Value>(&line)
                    && matches!(line["message"].as_str(), Some("pass" | "let go"))
                {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        Ok(Self { lines, kubectl })
    }

    /// What was heard so far counts no more.
    fn forget(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A number from every line with this message, once there are at least so many.
    fn numbers(&self, message: &str, field: &str, least: usize) -> Result<Vec<u64>, Box<dyn Error>> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let found = {
                let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                numbers(&lines, message, field)
            };
            if found.len() >= least {
                return Ok(found);
            }
            if Instant::now() > end {
                return Err(
                    format!("only {} of {least} lines \"{message}\" are in the operator's log", found.len()).into()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
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

fn print(what: &str, micros: &[u64]) {
    println!(
        "{what:60}  median {:.1} ms, p99 {:.1} ms, most {:.1} ms of {}",
        percentile(micros, 50) as f64 / 1e3,
        percentile(micros, 99) as f64 / 1e3,
        percentile(micros, 100) as f64 / 1e3,
        micros.len()
    );
}
