//! What looks at the whole ledger once a story is over, beside `berth verify`.
//!
//! Owns: those looks, and how long two judges may take to agree. Must never: share code with Berth.

use std::{process::Command, time::Duration};

use crate::{
    install::{self, NAMESPACE},
    kubectl::{Error, Kubectl},
};

/// How long the operator may take until everything that two homes say of an object is one again, in the worst of cases: the database
/// was given up on a starved machine, is tried again after half a minute, and what was not sure meanwhile is looked at then.
const SETTLING: Duration = Duration::from_secs(120);

/// Waits until both checkers find nothing wrong. `berth` runs its command line.
pub fn both_agree<T>(admin: &Kubectl, berth: impl Fn(&[&str]) -> Result<T, Error>) -> Result<(), Error> {
    admin.wait_for("both checkers to agree", SETTLING, |_| {
        berth(&["verify", "--cluster"])?;
        second_checker().map(Some)
    })
}

/// The checker that knows docs/ledger.md alone, over database, statuses and tombstones. What it found wrong is the error.
fn second_checker() -> Result<(), Error> {
    let mut checker = Command::new("python3");
    checker.arg(install::top().join("e2e/peers/check.py")).args(["--kubectl", "--settled"]);
    let command = "e2e/peers/check.py --kubectl --settled".to_owned();
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
