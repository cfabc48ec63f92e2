//! `kubectl`, as tests use it: as somebody, in some namespace, with manifests on standard input.
//!
//! Owns: running the program and reading what it says. Must never: sleep instead of waiting for a condition.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How soon it is looked again at first.
const SOON: Duration = Duration::from_millis(100);
/// And at last: after each look, a tenth of the time that has gone by.
const LATER: Duration = Duration::from_secs(1);

/// Why a command gave no answer.
#[derive(thiserror::Error)]
pub enum Error {
    /// The program could not be started.
    #[error("{command} did not run (is PATH that of .local/env?): {source}")]
    Start {
        /// The command line.
        command: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The program ended with an error: most often, the API server refused.
    #[error("{command}: {message}\n{answer}")]
    Refused {
        /// The command line.
        command: String,
        /// What it wrote to standard error.
        message: String,
        /// What it wrote to standard output all the same.
        answer: String,
    },
    /// The program's answer is no JSON.
    #[error("{command} did not answer in JSON: {source}")]
    NotJson {
        /// The command line.
        command: String,
        /// The reader's reason.
        source: serde_json::Error,
    },
    /// The environment lacks something that `.local/env` sets.
    #[error("{0} is not set: `. .local/env`")]
    Environment(&'static str),
    /// A condition did not come true in time.
    #[error("{what}: not within {seconds} s\n{dump}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What there was in the namespace at the end.
        dump: String,
    },
}

/// As for people: a test that ends with it prints what it saw, line by line.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Error {
    /// What the API server, or kubectl, said; empty where neither was asked.
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } => message,
            Self::Start { .. } | Self::NotJson { .. } | Self::Environment(_) | Self::Deadline { .. } => "",
        }
    }
}

/// A variable of `.local/env`.
pub fn environment(name: &'static str) -> Result<String, Error> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(Error::Environment(name))
}

/// Who runs `kubectl`, and where.
#[derive(Clone, Debug, Default)]
pub struct Kubectl {
    user: Option<String>,
    groups: Vec<String>,
    namespace: Option<String>,
}

impl Kubectl {
    /// As the administrator that KUBECONFIG names.
    pub fn admin() -> Self {
        Self::default()
    }

    /// As another user (impersonated).
    #[must_use]
    pub fn as_user(&self, name: &str) -> Self {
        Self { user: Some(name.to_owned()), ..self.clone() }
    }

    /// As a member of one more group. Kubernetes wants a user beside it.
    #[must_use]
    pub fn in_group(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.groups.push(name.to_owned());
        other
    }

    /// In a namespace.
    #[must_use]
    pub fn in_namespace(&self, name: &str) -> Self {
        Self { namespace: Some(name.to_owned()), ..self.clone() }
    }

    /// Runs `kubectl ARGUMENTS` and gives its standard output.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        self.feed(arguments, "")
    }

    /// Runs `kubectl ARGUMENTS` with a text on standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        run(&mut self.command(arguments), input)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        // It lives for a tenth of a second, a quarter of which it spends on collecting garbage that goes with it anyway.
        command.env("GOGC", "400");
        command.args(self.namespace.iter().flat_map(|name| ["--namespace", name]));
        command.args(self.user.iter().flat_map(|name| ["--as", name]));
        command.args(self.groups.iter().flat_map(|name| ["--as-group", name]));
        command.args(arguments);
        command
    }

    /// Runs `kubectl ARGUMENTS --output json`.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, Error> {
        self.feed_json(arguments, "")
    }

    /// Runs `kubectl ARGUMENTS --output json` with a text on standard input.
    pub fn feed_json(&self, arguments: &[&str], input: &str) -> Result<Value, Error> {
        let text = self.feed(&[arguments, &["--output", "json"]].concat(), input)?;
        serde_json::from_str(&text).map_err(|source| Error::NotJson { command: arguments.join(" "), source })
    }

    /// Waits until `condition` gives something. A refusal counts as "not yet"; the last one is in the error.
    pub fn wait_for<T>(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&Self) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        loop {
            let refusal = match condition(self) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => None,
                Err(error @ Error::Start { .. }) => return Err(error),
                Err(error) => Some(error),
            };
            if began.elapsed() >= within {
                let said = refusal.map(|error| format!("the last answer was: {error}\n")).unwrap_or_default();
                return Err(Error::Deadline {
                    what: what.to_owned(),
                    seconds: within.as_secs(),
                    dump: said + &self.dump(),
                });
            }
            // Looking takes a tenth of a second of a core: long waits that looked as often as short ones left none to wait for.
            thread::sleep((began.elapsed() / 10).clamp(SOON, LATER));
        }
    }

    /// Follows `kubectl ARGUMENTS --watch` until `condition` gives something for one of the objects that it tells of: as
    /// they are at first, and after every change. One process, however long it takes, and no state is missed: where the
    /// objects are named by a selector. Of one that is named itself, kubectl reads it, then watches, and throws away the
    /// first event, which is another state if the object changed in between.
    pub fn watch<T>(
        &self,
        arguments: &[&str],
        within: Duration,
        mut condition: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, Error> {
        let limit = format!("--request-timeout={}s", within.as_secs().max(1));
        let mut command = self.command(&[arguments, &["--watch", "--output", "json", &limit]].concat());
        let what = arguments.join(" ");
        let end = Instant::now() + within;
        let mut last = Value::Null;
        // A watch may end early (the object is not there yet, the API server closes it): then there is another one.
        while Instant::now() < end {
            let mut child = command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|source| Error::Start { command: what.clone(), source })?;
            let mut found = None;
            if let Some(output) = child.stdout.take() {
                for object in serde_json::Deserializer::from_reader(output).into_iter::<Value>() {
                    let Ok(object) = object else { break };
                    found = condition(&object);
                    last = object;
                    if found.is_some() {
                        break;
                    }
                }
            }
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            if let Some(found) = found {
                return Ok(found);
            }
            thread::sleep(SOON);
        }
        let dump = format!("the last one was: {last:#}\n{}", self.dump());
        Err(Error::Deadline { what, seconds: within.as_secs(), dump })
    }

    /// What there is in the namespace, for the message of a test that failed.
    pub fn dump(&self) -> String {
        let Some(namespace) = &self.namespace else { return String::new() };
        let admin = Self::admin().in_namespace(namespace);
        let kinds = "tenantcontainers,statefulsets,pods,services,persistentvolumeclaims,poddisruptionbudgets";
        [
            &["get", kinds, "--output", "wide"][..],
            &["get", "tenantcontainers", "--output", "yaml"],
            &["get", "events", "--sort-by", ".lastTimestamp"],
        ]
        .into_iter()
        .map(|arguments| {
            let answer = admin.run(arguments).unwrap_or_else(|error| error.to_string());
            format!("--- kubectl --namespace {namespace} {}\n{answer}\n", arguments.join(" "))
        })
        .collect()
    }
}

/// Runs a program with a text on standard input, and gives its standard output.
pub fn run(command: &mut Command, input: &str) -> Result<String, Error> {
    let line = format!("{command:?}").replace('"', "");
    let start = |source| Error::Start { command: line.clone(), source };
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(start)?;
    let pipe = child.stdin.take();
    // Beside the reading, since a long text would fill one pipe while the program waits for the other to be read.
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A program that does not read all of it says so itself, by how it ends.
            pipe.map(|mut pipe| pipe.write_all(input.as_bytes()))
        });
        child.wait_with_output()
    })
    .map_err(start)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Err(Error::Refused { command: line, message, answer })
    }
}
