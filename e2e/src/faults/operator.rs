//! The operator as a process of the test, behind both proxies, in the place of the installed one.
//!
//! Owns: that process's surroundings (account, kubeconfig, URL, spool, ports), its beginning and its end. The account, the
//! definitions and the policies are those that the chart installed; its StatefulSet is scaled to 0 meanwhile.
//! Must never: be more to the API server or to the database than the installed operator is; nor judge what it did.
//!
//! All of it is inside the cluster's network namespace, and so has the test to be: `e2e/faults/behind` sees to that.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use super::{api, database, wait_until};
use crate::{
    install::{self, NAMESPACE, POD, RELEASE},
    kubectl::{self, Error, Kubectl, environment},
};

/// The Lease of the leader.
pub const LEASE: &str = "berth-leader";
/// How long a process may take to fill its caches on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// Where processes of the operator run: two proxies, and a folder for what they keep. The installed operator is back when
/// this is dropped.
#[derive(Debug)]
pub struct Stand {
    /// The way to the API server.
    pub api: api::Proxy,
    /// The way to PostgreSQL.
    pub database: database::Proxy,
    folder: TempDir,
}

impl Stand {
    /// In the place of the operator that [`install::install`] installed.
    pub fn begin() -> Result<Self, Error> {
        let start = |source| Error::Start { command: "the stand for the operator's process".to_owned(), source };
        inside().map_err(start)?;
        let state = PathBuf::from(environment("BERTH_STATE")?);
        let upstream = api::Upstream::from_kubeconfig(Path::new(&environment("KUBECONFIG")?));
        let upstream = upstream.map_err(|error| start(io::Error::other(error)))?;
        let stand = Self {
            api: api::Proxy::start(upstream).map_err(start)?,
            database: database::Proxy::start(database::Upstream::in_folder(state.join("postgres/socket")))
                .map_err(start)?,
            folder: TempDir::new().map_err(start)?,
        };
        let berth = Kubectl::admin().in_namespace(NAMESPACE);
        berth.run(&["scale", "statefulset", RELEASE, "--replicas=0"])?;
        berth.run(&["wait", "--for=delete", &format!("pod/{POD}"), "--timeout=90s"])?;
        let token = berth.run(&["create", "token", RELEASE, "--duration=8h"])?;
        stand.api.write_kubeconfig(&stand.kubeconfig(), token.trim()).map_err(start)?;
        Ok(stand)
    }

    /// Starts a process under a pod's name, which keeps its spool from start to start, and waits until it is ready.
    pub fn start(&self, name: &str) -> Result<Process, Error> {
        let process = self.start_unready(name)?;
        process.until_ready(READY)?;
        Ok(process)
    }

    /// The same without waiting: behind a proxy that is broken, or as a replica that waits.
    pub fn start_unready(&self, name: &str) -> Result<Process, Error> {
        self.start_other(name, &install::program()?, &[])
    }

    /// Another program than the one that was built of this checkout, or with more in its environment; without waiting.
    pub fn start_other(&self, name: &str, program: &Path, more: &[(&str, OsString)]) -> Result<Process, Error> {
        let start = |source| Error::Start { command: program.display().to_string(), source };
        let listen = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).map_err(start)?;
        let log = File::options().create(true).append(true).open(self.log_file(name)).map_err(start)?;
        let mut command = Command::new(program);
        command
            .arg("run")
            .envs(more.iter().map(|(name, value)| (name, value)))
            .env("KUBECONFIG", self.kubeconfig())
            .env("DATABASE_URL", self.database.url("berth_operator", "berth"))
            .env("BERTH_SPOOL_DIR", self.spool(name))
            .env("BERTH_LISTEN", listen.to_string())
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", NAMESPACE)
            .env("BERTH_LOG_FORMAT", "text")
            .env("RUST_LOG", "info")
            .env("RUST_BACKTRACE", "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(start)?)
            .stderr(log);
        Ok(Process { child: command.spawn().map_err(start)?, listen })
    }

    /// Gives the Lease of a process that is dead to the next one, which else waits until it has expired.
    pub fn free_lease(&self) -> Result<(), Error> {
        let nobody = json!({"spec": {"holderIdentity": ""}}).to_string();
        let berth = Kubectl::admin().in_namespace(NAMESPACE);
        match berth.run(&["patch", "lease", LEASE, "--type=merge", "--patch", &nobody]) {
            // It was killed before it had made one.
            Err(error) if error.message().contains("NotFound") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Whom the Lease names.
    pub fn leader(&self) -> Result<String, Error> {
        let lease = Kubectl::admin().in_namespace(NAMESPACE).json(&["get", "lease", LEASE])?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    }

    /// A command of `berth` as the operator's own, through the database's proxy: its URL has no password that the command
    /// line of an error could show.
    pub fn berth(&self, arguments: &[&str]) -> Result<String, Error> {
        self.berth_of(&install::program()?, arguments)
    }

    /// The same of another version.
    pub fn berth_of(&self, program: &Path, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new(program);
        command.args(arguments).env("DATABASE_URL", self.database.url("berth_operator", "berth"));
        command.env("POD_NAMESPACE", NAMESPACE).env("RUST_LOG", "error");
        kubectl::run(&mut command, "")
    }

    /// A process's spool.
    pub fn spool(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}-spool"))
    }

    /// The spools of all processes that there were, also of those that run no more.
    pub fn spools(&self) -> Result<Vec<PathBuf>, Error> {
        let read = |source| Error::Start { command: "looking for spools".to_owned(), source };
        let mut spools = vec![];
        for file in fs::read_dir(self.folder.path()).map_err(read)? {
            let path = file.map_err(read)?.path();
            if path.join("_journal").is_dir() {
                spools.push(path);
            }
        }
        spools.sort();
        Ok(spools)
    }

    /// Lines of a process's log, of all its starts, that have this in them; cut short.
    pub fn lines(&self, name: &str, part: &str) -> Vec<String> {
        let text = fs::read(self.log_file(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter(|line| line.contains(part)).map(|line| line.chars().take(300).collect()).collect()
    }

    /// Whether a process has found the database slower than its budget. Where that happens although nothing is wrong with it,
    /// on a starved machine, and a status write fails besides, a record may stand beside the line that was shown.
    pub fn has_left_the_database_alone(&self) -> io::Result<bool> {
        for file in fs::read_dir(self.folder.path())? {
            let path = file?.path();
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            if is_log
                && String::from_utf8_lossy(&fs::read(path)?).contains("the ledger's database is left alone for now")
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            for line in self.api.log().iter().rev().take(10).chain(self.database.log().iter().rev().take(10)) {
                eprintln!("a fault, newest first: {line}");
            }
            let logs = fs::read_dir(self.folder.path()).into_iter().flatten().flatten().map(|entry| entry.path());
            for log in logs.filter(|path| path.extension().is_some_and(|name| name == "log")) {
                let text = fs::read(&log).unwrap_or_default();
                let lines: Vec<String> = String::from_utf8_lossy(&text)
                    .lines()
                    .filter(|line| [" WARN ", "ERROR ", "panicked", "leading"].iter().any(|word| line.contains(word)))
                    .map(|line| line.chars().take(300).collect())
                    .collect();
                let last = lines.iter().skip(lines.len().saturating_sub(25)).cloned().collect::<Vec<_>>();
                eprintln!("--- warnings of {}\n{}", log.display(), last.join("\n"));
            }
        }
        let berth = Kubectl::admin().in_namespace(NAMESPACE);
        let back = self.free_lease().and_then(|()| berth.run(&["scale", "statefulset", RELEASE, "--replicas=1"]));
        let back = back.and_then(|_| berth.run(&["rollout", "status", "statefulset", RELEASE, "--timeout=120s"]));
        if let Err(error) = back {
            eprintln!("the installed operator is not back: {error}");
        }
    }
}

/// A process of the operator, killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    listen: SocketAddr,
}

impl Process {
    /// Waits until it says that it is ready.
    pub fn until_ready(&self, within: Duration) -> Result<(), Error> {
        let began = Instant::now();
        if wait_until(within, || self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))) {
            return Ok(());
        }
        let dump = self.get("/readyz").unwrap_or_else(|error| error.to_string());
        Err(Error::Deadline {
            what: "the operator's process is ready".into(),
            seconds: began.elapsed().as_secs(),
            dump,
        })
    }

    /// What it answers over HTTP.
    pub fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.listen, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Kills it, without a goodbye.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) -> Result<(), Error> {
        kubectl::run(Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()), "").map(drop)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, or been killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn inside() -> io::Result<()> {
    let name = environment("BERTH_NETNS").map_err(io::Error::other)?;
    let here = fs::metadata("/proc/self/ns/net")?.ino();
    if fs::metadata(Path::new("/run/netns").join(name))?.ino() == here {
        return Ok(());
    }
    Err(io::Error::other("outside the cluster's network namespace: e2e/faults/behind runs the tests inside"))
}
