//! The cluster's database, made unavailable in the ways that databases are, and put back.
//!
//! Owns: what is done to the server's processes and to the operator's role, which is undone when an [`Outage`] is dropped;
//! and the whole database put back to a [`Backup`], or [`Aside`]. Must never: touch a single record.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    faults::stop_and_go::{Brakes, StopAndGo},
    install,
    kubectl::{self, Error, environment},
};

/// The role that Berth uses.
const ROLE: &str = "berth_operator";

/// How the database is unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its processes are gone, without a goodbye.
    Killed,
    /// Its processes stand still: connections stay open, and nobody answers.
    Frozen,
    /// It works for a moment once in ten seconds: what is asked of it is answered that late.
    Slow,
    /// It takes no writes, as a standby after a failover.
    ReadOnly,
    /// It takes no more connections of this role.
    Crowded,
    /// The password is another one.
    WrongPassword,
}

impl Kind {
    /// The reason that the condition `LedgerSynced` gives; one of these.
    pub const fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Killed => &["DatabaseUnavailable"],
            Self::Frozen | Self::Slow => &["DatabaseTimedOut"],
            Self::ReadOnly => &["DatabaseReadOnly"],
            Self::Crowded => &["DatabaseTooManyConnections"],
            Self::WrongPassword => &["DatabaseCredentialsRefused"],
        }
    }
}

/// An outage under way; over when it is dropped.
#[derive(Debug)]
pub struct Outage {
    kind: Kind,
    /// Slows it down.
    slowing: Option<StopAndGo>,
}

impl Outage {
    /// Begins one.
    pub fn begin(kind: Kind) -> Result<Self, Error> {
        let mut outage = Self { kind, slowing: None };
        match kind {
            Kind::Killed => signal("KILL")?,
            Kind::Frozen => signal("STOP")?,
            Kind::Slow => {
                outage.slowing = Some(StopAndGo::begin(Signals, Duration::from_millis(100), Duration::from_secs(10))?);
            }
            Kind::ReadOnly => {
                administer("ALTER DATABASE berth SET default_transaction_read_only = on")?;
                cut_off()?;
            }
            Kind::Crowded => {
                administer(&format!("ALTER ROLE {ROLE} CONNECTION LIMIT 0"))?;
                cut_off()?;
            }
            Kind::WrongPassword => {
                administer(&format!("ALTER ROLE {ROLE} PASSWORD 'another-one'"))?;
                cut_off()?;
            }
        }
        Ok(outage)
    }

    /// Ends it, and says what could not be put back.
    pub fn over(mut self) -> Result<(), Error> {
        let done = self.put_back();
        std::mem::forget(self);
        done
    }

    fn put_back(&mut self) -> Result<(), Error> {
        drop(self.slowing.take());
        match self.kind {
            Kind::Killed => {
                let mut up = Command::new(install::top().join("e2e/cluster/up"));
                kubectl::run(up.env("NODES", "kwok:4"), "").map(drop)
            }
            Kind::Frozen | Kind::Slow => signal("CONT"),
            Kind::ReadOnly => administer(
                "SET default_transaction_read_only = off; ALTER DATABASE berth RESET default_transaction_read_only",
            ),
            Kind::Crowded => administer(&format!("ALTER ROLE {ROLE} CONNECTION LIMIT -1")),
            Kind::WrongPassword => {
                let file = state()?.join("postgres/operator-password");
                let password = fs::read_to_string(&file)
                    .map_err(|source| Error::Start { command: format!("reading {}", file.display()), source })?;
                administer(&format!("ALTER ROLE {ROLE} PASSWORD '{}'", password.trim()))
            }
        }
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            eprintln!("the database is still {:?}: {error}", self.kind);
        }
    }
}

fn state() -> Result<PathBuf, Error> {
    environment("BERTH_STATE").map(PathBuf::from)
}

/// The server's processes, by signals.
struct Signals;

impl Brakes for Signals {
    fn stop(&self) -> Result<(), Error> {
        signal("STOP")
    }

    fn go(&self) -> Result<(), Error> {
        signal("CONT")
    }
}

/// Sends a signal to every process of the server: they all work in its data folder.
fn signal(name: &str) -> Result<(), Error> {
    signal_all_in(&state()?.join("postgres/data"), name)
}

/// Until a look finds nobody who has not been told: a server starts and ends processes of its own accord meanwhile.
fn signal_all_in(folder: &Path, name: &str) -> Result<(), Error> {
    let mut told = BTreeSet::new();
    loop {
        let new: Vec<String> = working_in(folder).filter(|id| !told.contains(id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for id in new {
            let sent = kubectl::run(Command::new("kill").args([&format!("-{name}"), &id]), "");
            // One that ended by itself just before is no failure.
            if working_in(folder).any(|other| other == id) {
                sent?;
            }
            told.insert(id);
        }
    }
}

/// The ids of the processes that work in this folder, as all of a server's do in its data folder.
fn working_in(folder: &Path) -> impl Iterator<Item = String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(move |process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
        .filter_map(|process| process.file_name().into_string().ok())
}

/// Open connections go on as they were: they are ended.
fn cut_off() -> Result<(), Error> {
    administer(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"))
}

/// The database as it was at some moment, to which it can be restored as from a backup: what was written since is lost.
#[derive(Debug)]
pub struct Backup(());

impl Backup {
    /// Takes one. Connections are cut for a moment, since PostgreSQL copies only what nobody uses.
    pub fn take() -> Result<Self, Error> {
        beside(&format!(
            "DROP DATABASE IF EXISTS berth_backup;\n{ALONE};\nCREATE DATABASE berth_backup TEMPLATE berth"
        ))?;
        beside("ALTER DATABASE berth ALLOW_CONNECTIONS true").map(|()| Self(()))
    }

    /// Puts it in the place of the database.
    pub fn restore(self) -> Result<(), Error> {
        beside(&format!("{ALONE};\nDROP DATABASE berth WITH (FORCE);\nALTER DATABASE berth_backup RENAME TO berth"))
    }
}

/// An empty database in the place of the one that is there, which is back when this is dropped.
#[derive(Debug)]
pub struct Aside(());

impl Aside {
    /// Puts the database aside. In the empty one the operator's role may make its schema.
    pub fn put() -> Result<Self, Error> {
        let grant = format!("GRANT CREATE, CONNECT, TEMPORARY ON DATABASE berth TO {ROLE}");
        beside(&format!("{ALONE};\nALTER DATABASE berth RENAME TO berth_aside;\nCREATE DATABASE berth;\n{grant}"))
            .map(|()| Self(()))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let back = "DROP DATABASE berth WITH (FORCE);\nALTER DATABASE berth_aside RENAME TO berth;
            ALTER DATABASE berth ALLOW_CONNECTIONS true";
        if let Err(error) = beside(back) {
            eprintln!("the database is still aside, as berth_aside: {error}");
        }
    }
}

/// Nobody is in the database, and nobody comes.
const ALONE: &str = "ALTER DATABASE berth ALLOW_CONNECTIONS false;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'berth'";

fn administer(statement: &str) -> Result<(), Error> {
    tell(&environment("DATABASE_URL")?, statement)
}

/// From a database that is none of Berth's.
fn beside(statement: &str) -> Result<(), Error> {
    tell(&environment("DATABASE_URL")?.replacen("/berth?", "/postgres?", 1), statement)
}

fn tell(url: &str, statement: &str) -> Result<(), Error> {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]).arg(url);
    kubectl::run(&mut command, &format!("{statement};\n")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_come_and_go_meanwhile_hinder_no_signal() {
        let folder = tempfile::tempdir().unwrap();
        // It ends with its folder, so that a test which failed leaves nothing behind.
        let busy = "while test -d $PWD; do /bin/true; done";
        let mut server = Command::new("sh").args(["-c", busy]).current_dir(folder.path()).spawn().unwrap();
        for _ in 0..100 {
            signal_all_in(folder.path(), "STOP").unwrap();
            signal_all_in(folder.path(), "CONT").unwrap();
        }
        signal_all_in(folder.path(), "KILL").unwrap();
        assert_eq!(working_in(folder.path()).count(), 0);
        assert!(!server.wait().unwrap().success());
    }
}
