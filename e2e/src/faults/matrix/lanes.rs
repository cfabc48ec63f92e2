//! Who runs which test of the matrix when: a lane for each cluster, one beside them for what needs none, and one after all.
//!
//! Owns: the commands' processes, their environment, and what is printed of them. Must never: judge what came of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use super::{
    super::report::{Level, Report},
    Need, Options, Row, Test, again,
};

/// How much less than the clusters' tests those beside them get of the machine.
const NICE: &str = "10";

/// What came of a command.
#[derive(Clone, Default)]
pub(super) struct Outcome {
    pub(super) reports: Vec<Report>,
    pub(super) passed: u64,
    pub(super) failure: Option<String>,
    pub(super) seconds: u64,
}

/// What came of each command. One that stands in several rows is run once.
pub(super) type Outcomes<'a> = BTreeMap<&'a str, Outcome>;

/// Runs every test once, though it may stand in several rows. `told` hears what is there so far, after each.
pub(super) fn execute_all<'a>(
    asked: &[(&'a Row, Level)],
    options: &Options,
    told: impl Fn(&Outcomes<'a>) + Sync,
) -> Outcomes<'a> {
    let mut seen = BTreeSet::new();
    let tests = asked.iter().flat_map(|(row, level)| row.tests.iter().map(move |test| (row.row, *level, test)));
    let tests: Vec<(u32, &Test)> = tests
        .filter(|(_, level, test)| test.level == *level && seen.insert(test.command.as_str()))
        .map(|(row, _, test)| (row, test))
        .collect();
    let queue =
        |need: Option<Need>| Mutex::new(tests.iter().filter(move |(_, test)| test.needs == need).copied().collect());
    let outcomes = Mutex::new(Outcomes::new());
    let lane = |queue: &Mutex<VecDeque<(u32, &'a Test)>>, cluster: &str| {
        // Taken by a call of its own: the scrutinee of a `while let` would hold the queue for as long as the test runs.
        let next = || one_at_a_time(queue).pop_front();
        while let Some((row, test)) = next() {
            let outcome = execute(row, test, cluster, options);
            let mut outcomes = one_at_a_time(&outcomes);
            outcomes.insert(test.command.as_str(), outcome);
            told(&outcomes);
        }
    };
    let (beside, on_clusters, last) = (queue(None), queue(Some(Need::Cluster)), queue(Some(Need::Quiet)));
    let (first, others) = (options.cluster.as_str(), &options.more_clusters);
    thread::scope(|scope| {
        let mut lanes = vec![scope.spawn(|| lane(&beside, first))];
        lanes.extend(others.iter().map(|other| scope.spawn(|| lane(&on_clusters, other))));
        lane(&on_clusters, first);
        for lane in lanes {
            // What one that panicked lacks is found to have run no test.
            drop(lane.join());
        }
    });
    if !one_at_a_time(&last).is_empty() {
        others.iter().for_each(|other| take_down(other, options));
    }
    lane(&last, first);
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What a lane that panicked has left is whole: a test is taken, and an outcome entered, in one step.
fn one_at_a_time<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a cluster away before something is measured. One that stays costs the measurement its quiet, which it tells itself.
fn take_down(cluster: &str, options: &Options) {
    let mut down = Command::new("e2e/cluster/down");
    let outcome = down.env("BERTH_CLUSTER", cluster).env_remove("BERTH_STATE").current_dir(&options.top).status();
    if !outcome.as_ref().is_ok_and(std::process::ExitStatus::success) {
        println!("   cluster {cluster} could not be taken down: {outcome:?}");
    }
}

/// The folder of this cluster's `env`, from the top of the checkout (e2e/cluster/lib.sh).
pub(super) fn folder(cluster: &str) -> String {
    if cluster.is_empty() { ".local".to_owned() } else { format!(".local/clusters/{cluster}") }
}

/// Runs one, and prints what it says: at once where it has a cluster, else as a whole when it has ended.
fn execute(row: u32, test: &Test, cluster: &str, options: &Options) -> Outcome {
    let head = format!("== row {row} {}: {}\n   {}", test.level, test.name, test.command);
    let mut said = String::new();
    let outcome = if test.needs.is_some() {
        println!("\n{head}");
        listen(row, test, cluster, options, |line| println!("   {cluster}| {line}"))
    } else {
        println!("== row {row} {} begins beside: {}", test.level, test.name);
        listen(row, test, cluster, options, |line| {
            let _ = writeln!(said, "   | {line}");
        })
    };
    if test.needs.is_none() {
        print!("\n{head}\n{said}");
    }
    println!(
        "   row {row} {}, {} s: {}",
        test.level,
        outcome.seconds,
        outcome.failure.as_deref().unwrap_or("exit code 0")
    );
    if outcome.failure.is_some() {
        println!("FAILED\n  again: {}", again(row, test, options));
    }
    outcome
}

fn listen(row: u32, test: &Test, cluster: &str, options: &Options, say: impl FnMut(&str)) -> Outcome {
    let mut outcome = Outcome::default();
    let began = Instant::now();
    let environment = options.top.join(folder(cluster)).join("env");
    if test.needs.is_some() && !environment.exists() {
        outcome.failure = Some(format!("there is no cluster, or not its {} (make up)", environment.display()));
    } else if let Err(error) = outcome.hear(row, test, cluster, options, say) {
        outcome.failure = Some(format!("bash could not be run to its end: {error}"));
    }
    outcome.seconds = began.elapsed().as_secs();
    outcome
}

impl Outcome {
    fn hear(
        &mut self,
        row: u32,
        test: &Test,
        cluster: &str,
        options: &Options,
        mut say: impl FnMut(&str),
    ) -> io::Result<()> {
        let mut command = if test.needs.is_some() {
            let mut bash = Command::new("bash");
            bash.args(["-c", &format!("exec 2>&1; . {}/env; export BERTH_E2E=1; {}", folder(cluster), test.command)]);
            bash
        } else {
            let mut nice = Command::new("nice");
            nice.args(["-n", NICE, "bash", "-c", &format!("exec 2>&1; {}", test.command)]);
            nice
        };
        command.current_dir(&options.top).env("BERTH_CLUSTER", cluster);
        command.env("BERTH_FAULT_SEED", options.seed.to_string()).env("BERTH_FAULT_ROW", row.to_string());
        if let Some(seconds) = options.seconds {
            command.env("BERTH_FAULT_SECONDS", seconds.to_string());
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                match Report::parse(&line) {
                    Some(Ok(report)) => self.reports.push(report),
                    Some(Err(error)) => self.failure = Some(format!("a report that cannot be read: {error}")),
                    None => self.passed += passed(&line),
                }
                say(&line);
            }
        }
        let status = child.wait()?;
        if !status.success() {
            self.failure = Some(status.to_string());
        }
        Ok(())
    }
}

/// How many tests passed, by the line of a test program that says so.
pub(super) fn passed(line: &str) -> u64 {
    let Some((_, rest)) = line.split_once("test result: ok. ") else { return 0 };
    rest.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}
