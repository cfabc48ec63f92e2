//! The API server's store, put back to an older state as from a backup, while the operator works on.
//!
//! Owns: the copy of etcd's folder, and which processes of the control plane have to begin anew with it. Must never: touch
//! Berth's own process or its database: they are what is ahead of the API server afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    install,
    kubectl::{self, Error, environment},
};

/// They remember revisions that the store will not have reached, as the documentation of a restore says.
const BEGIN_ANEW: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "volumes", "kwok", "etcd"];

/// See the module's comment.
#[derive(Debug)]
pub struct Snapshot(PathBuf);

impl Snapshot {
    /// The store as it is now: what a crash at this moment would leave.
    pub fn take() -> Result<Self, Error> {
        let state = PathBuf::from(environment("BERTH_STATE")?);
        let copy = state.join("etcd.snapshot");
        let etcd = process(&state, "etcd")?;
        run(Command::new("rm").arg("-rf").arg(&copy))?;
        run(Command::new("kill").args(["-STOP", &etcd]))?;
        let copied = run(Command::new("cp").arg("-a").arg(state.join("etcd")).arg(&copy));
        run(Command::new("kill").args(["-CONT", &etcd]))?;
        copied.map(|()| Self(copy))
    }

    /// Puts it in the place of the store, and starts the control plane on it.
    pub fn restore(self) -> Result<(), Error> {
        let state = PathBuf::from(environment("BERTH_STATE")?);
        for name in BEGIN_ANEW {
            run(Command::new("kill").args(["-KILL", &process(&state, name)?]))?;
        }
        run(Command::new("rm").arg("-rf").arg(state.join("etcd")))?;
        run(Command::new("mv").arg(&self.0).arg(state.join("etcd")))?;
        run(Command::new(install::top().join("e2e/cluster/up")).env("NODES", "kwok:4"))
    }
}

/// The process of a part of the cluster, by the file that e2e/cluster/lib.sh keeps of it.
fn process(state: &Path, name: &str) -> Result<String, Error> {
    let file = state.join("run").join(name);
    let text = fs::read_to_string(&file)
        .map_err(|source| Error::Start { command: format!("reading {}", file.display()), source })?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

fn run(command: &mut Command) -> Result<(), Error> {
    kubectl::run(command, "").map(drop)
}
