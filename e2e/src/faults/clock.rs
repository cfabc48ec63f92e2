//! A wall clock of a process's own, which can be moved while the process runs.
//!
//! Owns: how far it is off. Must never: move the machine's clock, or the monotonic one.

use std::{ffi::OsString, fs::File, os::unix::fs::FileExt, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{
    install,
    kubectl::{self, Error},
};

/// See the module's comment.
#[derive(Debug)]
pub struct Clock {
    folder: TempDir,
    offset: File,
}

impl Clock {
    /// One that is right.
    pub fn new() -> Result<Self, Error> {
        let start = |source| Error::Start { command: "a clock of its own".to_owned(), source };
        let folder = TempDir::new().map_err(start)?;
        let offset = File::create(folder.path().join("offset")).map_err(start)?;
        let clock = Self { folder, offset };
        clock.is_off_by(0)?;
        let source = install::top().join("e2e/faults/clock.c");
        let mut compile = Command::new("cc");
        compile.args(["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o"]).arg(clock.library()).arg(source);
        kubectl::run(&mut compile, "")?;
        Ok(clock)
    }

    /// From now on it is so many seconds ahead of the machine's, or behind it.
    pub fn is_off_by(&self, seconds: i64) -> Result<(), Error> {
        let written = self.offset.write_all_at(&seconds.to_ne_bytes(), 0);
        written.map_err(|source| Error::Start { command: "moving a clock".to_owned(), source })
    }

    /// What a process has to be started with.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [("LD_PRELOAD", self.library().into()), ("BERTH_CLOCK", self.folder.path().join("offset").into())]
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_another_time_of_day() {
        let clock = Clock::new().unwrap();
        let told = || {
            let mut date = Command::new("date");
            kubectl::run(date.arg("+%s").envs(clock.environment()), "").unwrap().trim().parse::<i64>().unwrap()
        };
        let right = machine_time();
        assert!((told() - right).abs() < 600);
        for off in [3_600, -3_600] {
            clock.is_off_by(off).unwrap();
            assert!((told() - right - off).abs() < 600, "{off}");
        }
    }

    fn machine_time() -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap()
    }
}
