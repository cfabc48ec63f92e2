//! What looks at the whole ledger once a story is over, beside `berth verify`.
//!
//! Owns: those looks, and how long two judges may take to agree. Must never: share code with Berth.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    install::{self, NAMESPACE},
    kubectl::{self, Error, Kubectl},
};

/// How long the operator may take until everything that two homes say of an object is one again, in the worst of cases: the database
/// was given up on a starved machine, is tried again after half a minute, and what was not sure meanwhile is looked at then.
const SETTLING: Duration = Duration::from_secs(120);

/// Waits until both checkers find nothing wrong. `spools` names the folders of the operator's spools, which may be written
/// meanwhile; `berth` runs its command line. What is on a spool and not in the database yet is what is waited for: so every
/// operator that has a spool has to run.
pub fn both_agree<T>(
    admin: &Kubectl,
    spools: impl Fn() -> Result<Vec<PathBuf>, Error>,
    berth: impl Fn(&[&str]) -> Result<T, Error>,
) -> Result<(), Error> {
    admin.wait_for("both checkers to agree", SETTLING, |_| {
        berth(&["verify", "--cluster"])?;
        let spools = spools()?;
        for spool in &spools {
            first_checker_of_spool(spool)?;
        }
        second_checker(&spools).map(Some)
    })
}

/// `berth verify` over a spool: each record for itself, where the spool stands beside a database.
fn first_checker_of_spool(spool: &Path) -> Result<(), Error> {
    let mut command = Command::new(install::program()?);
    kubectl::run(command.args(["verify", "--spool"]).arg(spool).env("RUST_LOG", "error"), "").map(drop)
}

/// The checker that knows docs/ledger.md alone, over database, spools, statuses and tombstones. What it found wrong is the error.
pub fn second_checker(spools: &[PathBuf]) -> Result<(), Error> {
    let mut command = "e2e/peers/check.py --kubectl --settled".to_owned();
    let mut checker = Command::new("python3");
    checker.arg(install::top().join("e2e/peers/check.py")).args(["--kubectl", "--settled"]);
    if spools.is_empty() {
        let message = "no spool of this run was found, and what it lost would not be seen".to_owned();
        return Err(Error::Refused { command, message, answer: String::new() });
    }
    for spool in spools {
        checker.arg("--spool").arg(spool);
        command = format!("{command} --spool {}", spool.display());
    }
    match checker.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let texts = [output.stdout, output.stderr];
            let message = texts.iter().map(|text| String::from_utf8_lossy(text)).collect();
            Err(Error::Refused { command, message, answer: String::new() })
        }
        Err(source) => Err(Error::Start { command, source }),
    }
}

/// Names of the tombstones that there are; an object's uid is in its own.
pub fn tombstones() -> Result<Vec<String>, Error> {
    let berth = Kubectl::admin().in_namespace(NAMESPACE);
    let names = berth.run(&["get", "configmap", "--selector=berth.dev/tombstone=true", "--output=name"])?;
    Ok(names.lines().map(str::to_owned).collect())
}
