//! The fault matrix as data (`e2e/faults/matrix.yaml`), and running it.
//!
//! Owns: which commands run, what is counted of them, and the verdict. Must never: call covered what was not run, nor
//! passed what ran no test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::report::{Level, Report};

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
    /// The one of `make up`, which is one test's at a time; what needs nothing runs beside it.
    Cluster,
    /// The cluster, and nothing beside: it measures.
    Quiet,
}

/// What to run, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The checkout.
    pub top: PathBuf,
    /// Only these rows; empty: all.
    pub rows: BTreeSet<u32>,
    /// Only this level.
    pub level: Option<Level>,
    /// For rows without an end of their own.
    pub seconds: Option<u64>,
    /// What repeats it.
    pub seed: u64,
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
    longest_blocked_ms: u64,
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
    let outcomes = execute_all(&asked, options);
    let lines: Vec<Line> = asked.iter().map(|(row, level)| line(row, *level, &outcomes, options)).collect();
    print!("{}", table(rows, &lines));
    let kept = keep(options, &lines)?;
    println!("\nkept in {}", kept.display());
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

/// What came of a command.
#[derive(Clone, Default)]
struct Outcome {
    reports: Vec<Report>,
    passed: u64,
    failure: Option<String>,
    seconds: u64,
}

/// What came of each command. One that stands in several rows is run once.
type Outcomes<'a> = BTreeMap<&'a str, Outcome>;

/// Runs every test: those that have the cluster one after the other, those that need nothing beside them, and those that
/// measure when all of these are over.
fn execute_all<'a>(asked: &[(&'a Row, Level)], options: &Options) -> Outcomes<'a> {
    let mut seen = BTreeSet::new();
    let tests = asked.iter().flat_map(|(row, level)| row.tests.iter().map(move |test| (row.row, *level, test)));
    let tests: Vec<(u32, &Test)> = tests
        .filter(|(_, level, test)| test.level == *level && seen.insert(test.command.as_str()))
        .map(|(row, _, test)| (row, test))
        .collect();
    let lane = |need: Option<Need>| {
        let mine = tests.iter().filter(move |(_, test)| test.needs == need);
        mine.map(|(row, test)| (test.command.as_str(), execute(*row, test, options))).collect::<Outcomes>()
    };
    thread::scope(|scope| {
        let beside = scope.spawn(|| lane(None));
        let mut outcomes = lane(Some(Need::Cluster));
        // What it lacks is found to have run no test.
        outcomes.extend(beside.join().unwrap_or_default());
        outcomes.extend(lane(Some(Need::Quiet)));
        outcomes
    })
}

/// What came of a row at a level.
fn line(row: &Row, level: Level, outcomes: &Outcomes, options: &Options) -> Line {
    let tests: Vec<&Test> = row.tests.iter().filter(|test| test.level == level).collect();
    let mut line = Line {
        row: row.row,
        level,
        covered: tests.iter().any(|test| test.lacks.is_none()),
        runs: 0,
        faults: 0,
        written: 0,
        lost: 0,
        doubled: 0,
        longest_blocked_ms: 0,
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
    let command = test.command.replace('\'', r"'\''");
    let before = if test.needs.is_some() { ". .local/env; BERTH_E2E=1 " } else { "" };
    let _ = write!(text, "bash -c '{before}{command}'");
    text
}

/// Runs one, and prints what it says: at once where it has the cluster, else as a whole when it has ended.
fn execute(row: u32, test: &Test, options: &Options) -> Outcome {
    let head = format!("== row {row} {}: {}\n   {}", test.level, test.name, test.command);
    let mut said = String::new();
    let outcome = if test.needs.is_some() {
        println!("\n{head}");
        listen(row, test, options, |line| println!("   | {line}"))
    } else {
        println!("== row {row} {} begins beside: {}", test.level, test.name);
        listen(row, test, options, |line| {
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

fn listen(row: u32, test: &Test, options: &Options, say: impl FnMut(&str)) -> Outcome {
    let mut outcome = Outcome::default();
    let began = Instant::now();
    if test.needs.is_some() && !options.top.join(".local/env").exists() {
        outcome.failure = Some("there is no cluster (make up)".to_owned());
    } else if let Err(error) = outcome.hear(row, test, options, say) {
        outcome.failure = Some(format!("bash could not be run to its end: {error}"));
    }
    outcome.seconds = began.elapsed().as_secs();
    outcome
}

impl Outcome {
    fn hear(&mut self, row: u32, test: &Test, options: &Options, mut say: impl FnMut(&str)) -> io::Result<()> {
        let before = if test.needs.is_some() { ". .local/env; export BERTH_E2E=1; " } else { "" };
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec 2>&1; {before}{}", test.command)]).current_dir(&options.top);
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
fn passed(line: &str) -> u64 {
    let Some((_, rest)) = line.split_once("test result: ok. ") else { return 0 };
    rest.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn table(rows: &[Row], lines: &[Line]) -> String {
    let mut text = format!(
        "\n{:>3}  {:<9} {:>8} {:>8} {:>9} {:>5} {:>8} {:>10}  \n",
        "row", "level", "runs", "faults", "written", "lost", "doubled", "blocked"
    );
    for line in lines {
        let number = |number: u64| if line.told { number.to_string() } else { "-".to_owned() };
        let blocked = if line.told { format!("{} ms", line.longest_blocked_ms) } else { "-".to_owned() };
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

/// Writes the results beside the commit that they are of.
fn keep(options: &Options, lines: &[Line]) -> io::Result<PathBuf> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(&options.top).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let commit = git(&["rev-parse", "HEAD"]);
    let changed = !git(&["status", "--porcelain"]).is_empty();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let folder = options.top.join(".local/faults");
    fs::create_dir_all(&folder)?;
    let short = commit.get(..12).unwrap_or("unknown");
    let path = folder.join(format!("{now}-{short}.json"));
    let results = json!({
        "commit": commit, "changed": changed, "at": now, "seed": options.seed, "seconds": options.seconds, "rows": lines,
    });
    let mut file = fs::File::create(&path)?;
    writeln!(file, "{results:#}")?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Level, Need, Options, Row, Test, execute_all, line, passed, read, run};

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
    fn a_command_that_fails_or_runs_nothing_has_not_passed() {
        assert_eq!(passed("test result: ok. 12 passed; 0 failed; 0 ignored"), 12);
        assert!(verdict(&matrix("echo 'test result: ok. 3 passed; 0 failed'"), |_| {}).0);
        assert!(!verdict(&matrix("echo 'test result: ok. 0 passed; 0 failed'"), |_| {}).0);
        assert!(!verdict(&matrix("echo 'test result: ok. 3 passed; 0 failed'; exit 3"), |_| {}).0);
        let (_, results) = verdict(&matrix("false"), |_| {});
        let again = results["rows"][0]["failed"][0].as_str().unwrap();
        assert!(again.contains("BERTH_FAULT_SEED=5 BERTH_FAULT_ROW=6 bash -c 'false'"), "{again}");
        let seeded = r#"[ "$BERTH_FAULT_SEED $BERTH_FAULT_SECONDS" = "5 60" ] && echo "test result: ok. 1 passed""#;
        assert!(verdict(&matrix(seeded), |options| options.seconds = Some(60)).0);
    }

    #[test]
    fn what_needs_the_cluster_has_it_alone_and_what_measures_comes_last() {
        let rows = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/matrix.yaml")).unwrap();
        for test in rows.iter().flat_map(|row| &row.tests) {
            let asks_the_cluster = test.command.contains("e2e/") || test.command.contains("berth-e2e");
            assert_eq!(test.needs.is_some(), asks_the_cluster, "{}", test.command);
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".local")).unwrap();
        std::fs::write(folder.path().join(".local/env"), "").unwrap();
        // The one beside waits for the first with the cluster; the one that measures finds both ended.
        let passed = "echo 'test result: ok. 1 passed'";
        let commands = [
            (Some(Need::Quiet), format!("[ -e beside ] && [ -e cluster ] && {passed}")),
            (None, format!("timeout 60 bash -c 'until [ -e begun ]; do sleep 0.01; done' && touch beside && {passed}")),
            (
                Some(Need::Cluster),
                format!(
                    "touch begun; timeout 60 bash -c 'until [ -e beside ]; do sleep 0.01; done' && touch cluster && {passed}"
                ),
            ),
            (None, "exit 3".to_owned()),
            // The same once more, which would fail if it were run again.
            (Some(Need::Cluster), format!("mkdir once && {passed}")),
            (Some(Need::Cluster), format!("mkdir once && {passed}")),
        ];
        // Two that would meet in the same room.
        let alone =
            |n: u32| (Some(Need::Cluster), format!("mkdir room && sleep 0.05 && rmdir room && echo {n} && {passed}"));
        let commands = commands.into_iter().chain([alone(1), alone(2)]);
        let mut rows = vec![];
        for (row, (needs, command)) in (1..).zip(commands) {
            rows.extend(matrix(&command));
            let last: &mut Row = rows.last_mut().unwrap();
            (last.row, last.tests[0].needs) = (row, needs);
        }
        let options = Options { top: folder.path().to_owned(), ..Options::default() };
        let asked: Vec<_> = rows.iter().map(|row| (row, Level::Real)).collect();
        let outcomes = execute_all(&asked, &options);
        let failed: Vec<u32> = asked
            .iter()
            .filter(|(row, level)| !line(row, *level, &outcomes, &options).failed.is_empty())
            .map(|(row, _)| row.row)
            .collect();
        assert_eq!(failed, [4]);
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
