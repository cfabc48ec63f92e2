//! What a test of a fault tells: one line of JSON on standard output behind a prefix, which `e2e/faults/run` counts.
//!
//! Owns: the line's form. Must never: be printed by a test that has not looked at what it tells.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// What such a line begins with.
pub const PREFIX: &str = "BERTH-FAULT ";

/// How near to the real thing a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The protocol, explored exhaustively.
    Model,
    /// The real code against an API server and a database in the same process.
    Simulated,
    /// Real API server, real PostgreSQL, real disk.
    Real,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Model => "model",
            Self::Simulated => "simulated",
            Self::Real => "real",
        })
    }
}

/// What came of some runs of one row of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Number of the row.
    pub row: u32,
    /// How near to the real thing.
    pub level: Level,
    /// How many times the story was played.
    pub runs: u64,
    /// Faults that came true (not: that were asked for).
    #[serde(default)]
    pub faults: u64,
    /// Records that were acknowledged or shown.
    #[serde(default)]
    pub written: u64,
    /// Of those, how many are in no home afterwards.
    #[serde(default)]
    pub lost: u64,
    /// Of those, how many are in the database more than once.
    #[serde(default)]
    pub doubled: u64,
    /// The longest that anything waited which must not be blocked; none where time is made by the test.
    #[serde(default)]
    pub longest_blocked_ms: Option<u64>,
    /// What repeats it, where there was chance.
    #[serde(default)]
    pub seed: Option<u64>,
}

impl Report {
    /// A report of so many runs, to be filled in.
    pub fn new(row: u32, level: Level, runs: u64) -> Self {
        Self { row, level, runs, faults: 0, written: 0, lost: 0, doubled: 0, longest_blocked_ms: None, seed: None }
    }

    /// Prints it past the capture of a test's output. An error where it tells of something lost or doubled.
    pub fn print(&self) -> io::Result<()> {
        let line = serde_json::to_string(self)?;
        let mut output = io::stdout().lock();
        writeln!(output, "{PREFIX}{line}")?;
        output.flush()?;
        if self.lost + self.doubled > 0 {
            return Err(io::Error::other(format!("{} lost, {} doubled", self.lost, self.doubled)));
        }
        Ok(())
    }

    /// The report of a line, if it is one. A test's name may stand before it (`test name ... BERTH-FAULT {…}`).
    pub fn parse(line: &str) -> Option<Result<Self, serde_json::Error>> {
        line.split_once(PREFIX).map(|(_, json)| serde_json::from_str(json.trim()))
    }
}

/// The seed of this run: `BERTH_FAULT_SEED`, so that a failure can be repeated, else another one each time.
pub fn seed() -> u64 {
    let asked = std::env::var("BERTH_FAULT_SEED").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // Short enough to be typed.
        now.as_micros().try_into().unwrap_or(0_u64) % 1_000_000_000
    })
}

/// How long a run that has no end of its own may take: `BERTH_FAULT_SECONDS`.
pub fn seconds(default: u64) -> std::time::Duration {
    let asked = std::env::var("BERTH_FAULT_SECONDS").ok().and_then(|text| text.parse().ok());
    std::time::Duration::from_secs(asked.unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::{Level, Report};

    #[test]
    fn a_line_is_read_as_it_was_written_also_behind_a_tests_name() {
        let report = Report { faults: 3, seed: Some(9), ..Report::new(6, Level::Real, 2) };
        let line = format!("test x ... {}{}", super::PREFIX, serde_json::to_string(&report).unwrap());
        assert_eq!(Report::parse(&line).unwrap().unwrap(), report);
        let short = Report::parse(r#"BERTH-FAULT {"row":1,"level":"model","runs":5}"#).unwrap().unwrap();
        assert_eq!(short, Report::new(1, Level::Model, 5));
        assert!(Report::parse("running 3 tests").is_none());
        assert!(Report::parse("BERTH-FAULT {}").unwrap().is_err());
    }
}
