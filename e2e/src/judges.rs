//! What looks at the whole ledger once a story is over, beside `berth verify`.
//!
//! Owns: those looks. Must never: wait for anything, or share code with Berth.

use std::process::Command;

use crate::{
    install::{self, NAMESPACE},
    kubectl::{Error, Kubectl},
};

/// The checker that knows docs/ledger.md alone, over database, statuses and tombstones. What it found wrong is the error.
pub fn second_checker() -> Result<(), Error> {
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
