//! The fault matrix as data (`e2e/faults/matrix.yaml`), and running it.
//!
//! Owns: which commands run, what is counted of them, and the verdict. Must never: call covered what was not run, nor
//! passed what ran no test.

mod lanes;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::report::{Level, Report};
use lanes::{Outcomes, execute_all};

/// One row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its number.
    pub row: u32,
    /// What breaks.
    pub fault: String,
    /// Where.
    pub at: String,
    /// How near to the real thing it has to be tried.
    pub levels: Vec<Level>,
    /// What must hold.
    pub holds: String,
    /// By what.
    #[serde(default)]
    pub tests: Vec<Test>,
}

impl Row {
    /// Its tests at this level.
    fn tests_at(&self, level: Level) -> impl Iterator<Item = &Test> {
        self.tests.iter().filter(move |test| test.level == level)
    }
}

/// One test of a row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// How near to the real thing.
    pub level: Level,
    /// For people.
    pub name: String,
    /// For bash.
    pub command: String,
    /// What it needs besides.
    #[serde(default)]
    pub needs: Option<Need>,
    /// What of the row it does not try.
    #[serde(default)]
    pub lacks: Option<String>,
}

/// What a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// A cluster as of `make up`, which is one test's at a time; what needs none runs beside it.
    Cluster,
    /// The first cluster, and nothing beside: it measures.
    Quiet,
}

/// What to run, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The checkout.
    pub top: PathBuf,
    /// The cluster, by the name that `BERTH_CLUSTER` gives it; the empty one is that of `make up`.
    pub cluster: String,
    /// Those that are up beside it.
    pub more_clusters: Vec<String>,
    /// Only these rows; empty: all.
    pub rows: BTreeSet<u32>,
    /// Only this level.
    pub level: Option<Level>,
    /// For rows without an end of their own.
    pub seconds: Option<u64>,
    /// What repeats it.
    pub seed: u64,
    /// Whether what the tests run is optimised; what repeats one says so.
    pub released: bool,
    /// Whether a row that nobody tests is no failure.
    pub allow_uncovered: bool,
}

/// What came of a row at a level.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    row: u32,
    level: Level,
    covered: bool,
    runs: u64,
    faults: u64,
    written: u64,
    lost: u64,
    doubled: u64,
    longest_blocked_ms: Option<u64>,
    /// Whether tests told these numbers, or only passed.
    told: bool,
    failed: Vec<String>,
    lacks: Vec<String>,
}

/// Reads the matrix.
pub fn read(path: &Path) -> io::Result<Vec<Row>> {
    serde_yaml::from_str(&fs::read_to_string(path)?)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

/// Runs what was asked for, prints the table, keeps the results, and says whether all is well.
pub fn run(rows: &[Row], options: &Options) -> io::Result<bool> {
    let mut asked: Vec<(&Row, Level)> = Vec::new();
    for row in rows.iter().filter(|row| options.rows.is_empty() || options.rows.contains(&row.row)) {
        let mut levels: BTreeSet<Level> = row.levels.iter().copied().collect();
        levels.extend(row.tests.iter().map(|test| test.level));
        let levels = levels.into_iter().filter(|level| options.level.is_none_or(|asked| asked == *level));
        asked.extend(levels.map(|level| (row, level)));
    }
    let results = Results::begin(options)?;
    // Those of which everything has been run: a run that is stopped leaves what it has found.
    let told = |outcomes: &Outcomes| {
        let whole =
            asked.iter().filter(|(row, level)| row.tests_at(*level).all(|test| outcomes.contains_key(&*test.command)));
        let lines: Vec<Line> = whole.map(|(row, level)| line(row, *level, outcomes, options)).collect();
        if let Err(error) = results.write(&lines, false) {
            println!("{}: {error}", results.path.display());
        }
    };
    let outcomes = execute_all(&asked, options, told);
    let lines: Vec<Line> = asked.iter().map(|(row, level)| line(row, *level, &outcomes, options)).collect();
    print!("{}", table(rows, &lines));
    results.write(&lines, true)?;
    println!("\nkept in {}", results.path.display());
    let failures: Vec<&String> = lines.iter().flat_map(|line| &line.failed).collect();
    let uncovered = lines.iter().filter(|line| !line.covered).count();
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if uncovered > 0 {
        println!(
            "{uncovered} levels of rows are NOT COVERED{}",
            if options.allow_uncovered { "" } else { ": not passed" }
        );
    }
    if lines.is_empty() {
        println!("there is no such row");
    }
    Ok(failures.is_empty() && !lines.is_empty() && (uncovered == 0 || options.allow_uncovered))
}

/// What came of a row at a level.
fn line(row: &Row, level: Level, outcomes: &Outcomes, options: &Options) -> Line {
    let tests: Vec<&Test> = row.tests_at(level).collect();
    let mut line = Line {
        row: row.row,
        level,
        covered: tests.iter().any(|test| test.lacks.is_none()),
        runs: 0,
        faults: 0,
        written: 0,
        lost: 0,
        doubled: 0,
        longest_blocked_ms: None,
        told: false,
        failed: Vec::new(),
        lacks: tests.iter().filter_map(|test| test.lacks.clone()).collect(),
    };
    for test in tests {
        let outcome = outcomes.get(test.command.as_str()).cloned().unwrap_or_default();
        let mine: Vec<&Report> =
            outcome.reports.iter().filter(|report| (report.row, report.level) == (row.row, level)).collect();
        let mut why = outcome.failure;
        if mine.is_empty() {
            line.runs += outcome.passed;
            if outcome.passed == 0 {
                why = why.or_else(|| Some("it ran no test".to_owned()));
            }
        }
        for report in mine {
            line.told = true;
            line.runs += report.runs;
            line.faults += report.faults;
            line.written += report.written;
            line.lost += report.lost;
            line.doubled += report.doubled;
            line.longest_blocked_ms = line.longest_blocked_ms.max(report.longest_blocked_ms);
            if report.lost + report.doubled > 0 {
                why = why.or_else(|| Some(format!("{} lost, {} doubled", report.lost, report.doubled)));
            }
        }
        if let Some(why) = why {
            let again = again(row.row, test, options);
            line.failed.push(format!("row {} {level}, {}: {why}\n  again: {again}", row.row, test.name));
        }
    }
    line
}

/// The one command that repeats it.
fn again(row: u32, test: &Test, options: &Options) -> String {
    let mut text = format!("BERTH_FAULT_SEED={} BERTH_FAULT_ROW={row} ", options.seed);
    if let Some(seconds) = options.seconds {
        let _ = write!(text, "BERTH_FAULT_SECONDS={seconds} ");
    }
    if options.released {
        text.push_str("BERTH_RELEASED=1 ");
    }
    let command = test.command.replace('\'', r"'\''");
    let before = match test.needs {
        Some(_) => format!(". {}/env; BERTH_E2E=1 ", lanes::folder(&options.cluster)),
        None => String::new(),
    };
    let _ = write!(text, "bash -c '{before}{command}'");
    text
}

fn table(rows: &[Row], lines: &[Line]) -> String {
    let mut text = format!(
        "\n{:>3}  {:<9} {:>8} {:>8} {:>9} {:>5} {:>8} {:>10}  \n",
        "row", "level", "runs", "faults", "written", "lost", "doubled", "blocked"
    );
    for line in lines {
        let number = |number: u64| if line.told { number.to_string() } else { "-".to_owned() };
        let blocked = line.longest_blocked_ms.map_or_else(|| "-".to_owned(), |longest| format!("{longest} ms"));
        let fault = rows.iter().find(|row| row.row == line.row).map_or("", |row| row.fault.as_str());
        let mut note: String = fault.chars().take(60).collect();
        if !line.covered {
            let lacks = line.lacks.join("; ");
            note =
                if lacks.is_empty() { format!("NOT COVERED: {note}") } else { format!("NOT COVERED, lacks {lacks}") };
        }
        if !line.failed.is_empty() {
            note = format!("FAILED: {note}");
        }
        let _ = writeln!(
            text,
            "{:>3}  {:<9} {:>8} {:>8} {:>9} {:>5} {:>8} {blocked:>10}  {note}",
            line.row,
            line.level,
            line.runs,
            number(line.faults),
            number(line.written),
            number(line.lost),
            number(line.doubled),
        );
    }
    text
}

/// Where the results are kept, beside the commit that they are of.
struct Results {
    path: PathBuf,
    head: serde_json::Value,
}

impl Results {
    fn begin(options: &Options) -> io::Result<Self> {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").args(arguments).current_dir(&options.top).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let commit = git(&["rev-parse", "HEAD"]);
        let changed = !git(&["status", "--porcelain"]).is_empty();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let folder = options.top.join(".local/faults");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{now}-{}.json", commit.get(..12).unwrap_or("unknown")));
        let head = json!({
            "commit": commit, "changed": changed, "at": now, "seed": options.seed, "seconds": options.seconds,
        });
        Ok(Self { path, head })
    }

    /// Puts these in the place of what was there, in one step. `complete`: the run has come to its end.
    fn write(&self, lines: &[Line], complete: bool) -> io::Result<()> {
        let mut results = self.head.clone();
        (results["complete"], results["rows"]) = (json!(complete), json!(lines));
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{results:#}\n"))?;
        fs::rename(new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::Path};

    use super::{Level, Need, Options, Row, Test, execute_all, lanes::passed, line, read, run};

    fn matrix(command: &str) -> Vec<Row> {
        let test =
            Test { level: Level::Real, name: "x".to_owned(), command: command.to_owned(), needs: None, lacks: None };
        vec![Row {
            row: 6,
            fault: "f".to_owned(),
            at: "a".to_owned(),
            levels: vec![Level::Real],
            holds: "h".to_owned(),
            tests: vec![test],
        }]
    }

    fn verdict(rows: &[Row], change: impl FnOnce(&mut Options)) -> (bool, serde_json::Value) {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options { top: folder.path().to_owned(), seed: 5, ..Options::default() };
        change(&mut options);
        let verdict = run(rows, &options).unwrap();
        let kept = std::fs::read_dir(folder.path().join(".local/faults")).unwrap().next().unwrap().unwrap().path();
        (verdict, serde_json::from_str(&std::fs::read_to_string(kept).unwrap()).unwrap())
    }

    #[test]
    fn the_matrix_has_all_eighteen_rows_and_their_levels() {
        let rows = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/matrix.yaml")).unwrap();
        assert!(rows.iter().map(|row| row.row).eq(1..=18));
        assert!(rows.iter().all(|row| !row.levels.is_empty() && !row.fault.is_empty() && !row.holds.is_empty()));
        let at = |level| rows.iter().filter(|row| row.levels.contains(&level)).map(|row| row.row).collect::<Vec<_>>();
        assert_eq!(at(Level::Model), [12, 16]);
        assert_eq!(at(Level::Simulated), [1, 2, 3, 4, 5, 8, 9, 10, 12, 16, 18]);
        assert!(at(Level::Real).into_iter().eq((1..=18).filter(|row| *row != 9)));
    }

    #[test]
    fn what_tests_tell_is_added_up() {
        let told = |more: &str| format!(r#"echo 'BERTH-FAULT {{"row":6,"level":"real","runs":2,"faults":3{more}}}'"#);
        let both =
            told(r#","written":10,"longest_blocked_ms":4"#) + "; " + &told(r#","written":5,"longest_blocked_ms":9"#);
        let (good, results) = verdict(&matrix(&both), |_| {});
        let row = &results["rows"][0];
        assert!(good);
        assert_eq!((&row["runs"], &row["faults"], &row["written"]), (&4.into(), &6.into(), &15.into()));
        assert_eq!((&row["longest_blocked_ms"], &row["told"]), (&9.into(), &true.into()));
        let (good, _) = verdict(&matrix(&told(r#","lost":1"#)), |_| {});
        assert!(!good, "one that is lost is a failure, whatever the test says");
        assert!(!verdict(&matrix("echo 'BERTH-FAULT {}'"), |_| {}).0);
    }

    #[test]
    fn a_run_that_is_stopped_has_kept_what_it_found() {
        let found = r#"cat .local/faults/*.json > so-far; grep -q '"complete": false' so-far"#;
        let rows = [
            matrix("echo 'test result: ok. 3 passed'"),
            matrix(&format!("{found} && echo 'test result: ok. 1 passed'")),
        ];
        let (good, results) = verdict(&rows.concat(), |_| {});
        assert!(good);
        assert_eq!((&results["complete"], &results["rows"][0]["runs"]), (&true.into(), &3.into()));
    }

    #[test]
    fn a_command_that_fails_or_runs_nothing_has_not_passed() {
        assert_eq!(passed("test result: ok. 12 passed; 0 failed; 0 ignored"), 12);
        assert!(verdict(&matrix("echo 'test result: ok. 3 passed; 0 failed'"), |_| {}).0);
        assert!(!verdict(&matrix("echo 'test result: ok. 0 passed; 0 failed'"), |_| {}).0);
        assert!(!verdict(&matrix("echo 'test result: ok. 3 passed; 0 failed'; exit 3"), |_| {}).0);
        let (_, results) = verdict(&matrix("false"), |_| {});
        let again = results["rows"][0]["failed"][0].as_str().unwrap();
        assert!(again.contains("BERTH_FAULT_SEED=5 BERTH_FAULT_ROW=6 bash -c 'false'"), "{again}");
        let (_, results) = verdict(&matrix("false"), |options| options.released = true);
        let again = results["rows"][0]["failed"][0].as_str().unwrap();
        assert!(again.contains("BERTH_FAULT_ROW=6 BERTH_RELEASED=1 bash -c 'false'"), "{again}");
        let seeded = r#"[ "$BERTH_FAULT_SEED $BERTH_FAULT_SECONDS" = "5 60" ] && echo "test result: ok. 1 passed""#;
        assert!(verdict(&matrix(seeded), |options| options.seconds = Some(60)).0);
    }

    const PASSED: &str = "echo 'test result: ok. 1 passed'";

    /// A checkout with these clusters, each with its `env`, and a `down` that leaves a mark.
    fn checkout(clusters: &[&str]) -> (tempfile::TempDir, Options) {
        let folder = tempfile::tempdir().unwrap();
        for name in clusters {
            let local = folder.path().join(if name.is_empty() { ".local" } else { ".local/clusters" }).join(name);
            std::fs::create_dir_all(&local).unwrap();
            std::fs::write(local.join("env"), "").unwrap();
        }
        let down = folder.path().join("e2e/cluster/down");
        std::fs::create_dir_all(down.parent().unwrap()).unwrap();
        std::fs::write(&down, "#!/bin/sh\ntouch \"down$BERTH_CLUSTER\"\n").unwrap();
        std::fs::set_permissions(&down, std::fs::Permissions::from_mode(0o755)).unwrap();
        let more_clusters = clusters[1..].iter().map(|&name| name.to_owned()).collect();
        let options = Options { top: folder.path().to_owned(), more_clusters, ..Options::default() };
        (folder, options)
    }

    /// Runs these, each a row, and gives the numbers of those that failed.
    fn failed(commands: &[(Option<Need>, String)], options: &Options) -> Vec<u32> {
        let mut rows = vec![];
        for (row, (needs, command)) in (1..).zip(commands) {
            rows.extend(matrix(command));
            let last: &mut Row = rows.last_mut().unwrap();
            (last.row, last.tests[0].needs) = (row, *needs);
        }
        let asked: Vec<_> = rows.iter().map(|row| (row, Level::Real)).collect();
        let outcomes = execute_all(&asked, options, |_| ());
        let failed = asked.iter().filter(|(row, level)| !line(row, *level, &outcomes, options).failed.is_empty());
        failed.map(|(row, _)| row.row).collect()
    }

    /// Says that this has come, and waits for that.
    fn meets(mine: &str, other: &str) -> String {
        format!("touch {mine}; timeout 60 bash -c 'until [ -e {other} ]; do sleep 0.01; done' && {PASSED}")
    }

    /// One that would meet another of its kind in the same room of the same cluster.
    fn alone(n: u32) -> (Option<Need>, String) {
        let room = "room$BERTH_CLUSTER";
        (Some(Need::Cluster), format!("mkdir {room} && sleep 0.05 && rmdir {room} && echo {n} && {PASSED}"))
    }

    #[test]
    fn whatever_asks_a_cluster_says_that_it_needs_it() {
        let rows = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/matrix.yaml")).unwrap();
        for test in rows.iter().flat_map(|row| &row.tests) {
            let asks_the_cluster = test.command.contains("e2e/") || test.command.contains("berth-e2e");
            assert_eq!(test.needs.is_some(), asks_the_cluster, "{}", test.command);
        }
    }

    #[test]
    fn what_needs_the_cluster_has_it_alone_and_what_measures_comes_last() {
        let (_folder, options) = checkout(&[""]);
        let commands = [
            // It finds both ended: the one beside, and the one with the cluster, which wait for each other.
            (Some(Need::Quiet), format!("[ -e beside ] && [ -e cluster ] && [ ! -e down ] && {PASSED}")),
            (None, meets("beside", "cluster")),
            (Some(Need::Cluster), meets("cluster", "beside")),
            (None, "exit 3".to_owned()),
            // The same once more, which would fail if it were run again.
            (Some(Need::Cluster), format!("mkdir once && {PASSED}")),
            (Some(Need::Cluster), format!("mkdir once && {PASSED}")),
            alone(1),
            alone(2),
        ];
        assert_eq!(failed(&commands, &options), [4]);
    }

    #[test]
    fn two_clusters_share_what_needs_one_and_the_second_is_gone_when_something_measures() {
        let (_folder, options) = checkout(&["", "second"]);
        // Each is on a cluster of its own, at the same time.
        let meeting = |n: u32| {
            let (mine, other) = ("on-$BERTH_CLUSTER", "$([ $BERTH_CLUSTER ] && echo on- || echo on-second)");
            (Some(Need::Cluster), format!("other={other}; export other; {} && echo {n}", meets(mine, "$other")))
        };
        let commands = [meeting(1), meeting(2), alone(3), alone(4), alone(5), alone(6)];
        let last =
            (Some(Need::Quiet), format!("[ -e downsecond ] && [ ! -e down ] && [ -z $BERTH_CLUSTER ] && {PASSED}"));
        assert_eq!(failed(&[&[last][..], &commands[..]].concat(), &options), [0; 0]);
    }

    #[test]
    fn what_is_not_covered_has_not_passed_unless_that_is_allowed() {
        let mut rows = matrix("echo 'test result: ok. 3 passed'");
        rows[0].tests[0].lacks = Some("half".to_owned());
        assert!(!verdict(&rows, |_| {}).0);
        assert!(verdict(&rows, |options| options.allow_uncovered = true).0);
        rows[0].tests.clear();
        assert!(!verdict(&rows, |_| {}).0);
        assert!(!verdict(&rows, |options| options.rows = [7].into()).0, "there is no such row");
    }
}
