//! What tests with a simulated world tell the fault matrix: a line for each world that was, `RUNS FAULTS WRITTEN`, in the file
//! that `BERTH_TALLY` names, if any. `scripts/library` adds them up.
//!
//! Owns: that file. Must never: judge; a test that finds something lost or doubled fails.

use std::{fs::File, io::Write};

/// So many runs with so many faults that came true, and records that were shown or acknowledged.
pub(crate) fn tell(runs: usize, faults: usize, written: usize) {
    let Some(path) = std::env::var_os("BERTH_TALLY") else { return };
    let line = format!("{runs} {faults} {written}\n");
    // In one write, at the end: tests tell at once.
    let told =
        File::options().create(true).append(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()));
    told.unwrap();
}
