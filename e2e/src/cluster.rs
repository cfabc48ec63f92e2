//! Whether there is a cluster to test against.
//!
//! Owns: the rule for skipping. Must never: let a test that was skipped look like one that passed.

use std::{
    env,
    io::{self, Write},
};

/// The variable that says: the environment (KUBECONFIG, PATH) is that of a cluster that tests may write to.
pub const SWITCH: &str = "BERTH_E2E";

/// Continuous integration has no cluster.
#[derive(Debug, thiserror::Error)]
#[error(
    "{SWITCH} is not set, and in CI nothing is skipped: bring the cluster up, then `. .local/env; export {SWITCH}=1`"
)]
pub struct Missing;

/// Whether to run. Without a cluster it says on the terminal, past the capture of the test's output, that `what` is
/// skipped; under `CI=true` that is an error.
pub fn wanted(what: &str) -> Result<bool, Missing> {
    if env::var_os(SWITCH).is_some_and(|value| !value.is_empty() && value != "0") {
        return Ok(true);
    }
    if env::var("CI").is_ok_and(|value| value == "true") {
        return Err(Missing);
    }
    // Nothing better can be done if there is no terminal to say it on.
    let _ = writeln!(io::stderr(), "SKIPPED {what}: no cluster ({SWITCH} is not set)");
    Ok(false)
}
