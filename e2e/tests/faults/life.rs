//! A life that tests disturb, what it has to have become, and the judges that look at all of the ledger.
//!
//! Owns: the reference. Must never: break anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use berth_e2e::{
    audit, cluster,
    database::{self, hops, line},
    faults::{
        operator::Stand,
        report::{Level, Report},
    },
    install::{self, Home},
    judges::{self, tombstones},
    kubectl::Kubectl,
    objects::{Tenant, is_current},
    scenario::{Scenario, is_ready, uid},
};
use serde_json::{Value, json};

/// The name of the process, as of a pod.
pub(crate) const NAME: &str = "process-0";
/// That of another replica.
pub(crate) const OTHER: &str = "process-1";
/// MiB of a disk that a spool fits on.
pub(crate) const SIZE: u64 = 64;
/// How far a clock is moved, in seconds.
pub(crate) const HOUR: i64 = 3_600;
/// The states of an undisturbed life. Beside them there are records within a state (rollouts), which tell of what was
/// seen in between, and so differ with what came in between.
pub(crate) const STORY: [&str; 5] = [
    ">pending Accepted",
    "pending>running AllReplicasReady",
    "running>paused Draining",
    "paused>stopped ScaledToZero",
    "stopped>deleted Deleted",
];
/// How long anything may take that waits for a backoff of the operator.
const PATIENCE: Duration = Duration::from_secs(180);

/// A stand, and a namespace for services before it; the lock is last, so that the rest is gone before the next test.
pub(crate) struct Theatre {
    pub(crate) s: Scenario,
    pub(crate) stand: Stand,
    began: String,
    longest: Mutex<Duration>,
    _alone: MutexGuard<'static, ()>,
}

/// Where there is a cluster: the installed operator gives way.
pub(crate) fn theatre(name: &str) -> Option<Theatre> {
    static ONE: Mutex<()> = Mutex::new(());
    static READY: Mutex<bool> = Mutex::new(false);
    if !cluster::wanted(name).unwrap_or_else(|missing| panic!("{missing}")) {
        return None;
    }
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ready {
        install::images().unwrap();
        install::install(Home::Database, "info").unwrap();
        *ready = true;
    }
    drop(ready);
    let s = Scenario::alone(name).unwrap();
    let stand = Stand::begin().unwrap();
    Some(Theatre { s, stand, began: now(), longest: Mutex::default(), _alone: alone })
}

fn now() -> String {
    database::column("SELECT now()", &[]).unwrap().remove(0)
}

impl Theatre {
    /// A service's whole life, each step after the one before has come true.
    pub(crate) fn live(&self, name: &str) -> Value {
        let object = self.s.apply(&Tenant::named(name).simulated().with("drainSeconds", 0)).unwrap();
        self.until(name, |object| is_ready(object, "Running"));
        self.s.change(name, &json!({"desiredState": "Stopped"})).unwrap();
        self.until(name, |object| is_ready(object, "Stopped"));
        self.s.user.run(&["delete", "tc", name, "--wait=false"]).unwrap();
        self.until_gone(name);
        object
    }

    /// An undisturbed life, and what was made and removed for it: what the disturbed ones are compared with.
    pub(crate) fn reference(&self) -> BTreeMap<String, usize> {
        let (mark, name) = (audit::mark().unwrap(), "undisturbed");
        let first = self.live(name);
        self.until_told(&first);
        self.is_the_story(&first);
        made_and_removed(mark, name)
    }

    /// Until a service is so; not longer than the operator's backoff allows.
    pub(crate) fn until(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let selector = format!("--field-selector=metadata.name={name}");
        let is_so = |object: &Value| (is_current(object) && condition(object)).then(|| object.clone());
        self.waited(|| self.s.admin.watch(&["get", "tc", &selector], PATIENCE, is_so).unwrap())
    }

    /// Until a service is gone from the API server.
    pub(crate) fn until_gone(&self, name: &str) {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.waited(|| self.s.admin.run(&["wait", "--for=delete", &format!("tc/{name}"), &timeout]).unwrap());
    }

    fn waited<T>(&self, wait: impl FnOnce() -> T) -> T {
        let (outcome, took) = timed(wait);
        let mut longest = self.longest.lock().unwrap();
        *longest = took.max(*longest);
        outcome
    }

    /// The longest that a service of this test took to become what was asked for, from the moment that somebody waited for it.
    pub(crate) fn longest_wait(&self) -> Duration {
        *self.longest.lock().unwrap()
    }

    /// Until the whole story of a life is in the database and no tombstone waits.
    pub(crate) fn until_told(&self, object: &Value) {
        let told = |_: &Kubectl| {
            let ended = hops(uid(object))?.iter().any(|hop| hop.ends_with(" Deleted"));
            Ok((ended && !tombstones()?.iter().any(|name| name.contains(uid(object)))).then_some(()))
        };
        self.s.admin.wait_for("its end is in the database", PATIENCE, told).unwrap();
    }

    /// Its states are those of an undisturbed life, in one line; or as [`Self::shows_the_story`] has it, where a process found
    /// the database slower than its budget: that happens where nothing is wrong with it, on a starved machine.
    pub(crate) fn is_the_story(&self, object: &Value) {
        self.shows_the_story(object);
        let is_one_line = database::is_one_line(uid(object)).unwrap();
        assert!(is_one_line || self.stand.has_left_the_database_alone().unwrap(), "{:?}", hops(uid(object)));
    }

    /// What was shown of it are the states of an undisturbed life. Where the database was slower than its budget and the
    /// status write failed too, a record may stand beside that line: the checkers see to it that it was made on a known record,
    /// and count it. Whether a `Superseded` record names it is for docs/ledger.md ("Not yet"), and looked at by nobody here.
    pub(crate) fn shows_the_story(&self, object: &Value) {
        assert_eq!(story(object), STORY, "{:?}", hops(uid(object)));
    }

    /// Nothing is carried any more, nobody panicked, and both checkers agree that nothing is wrong and nothing is missing that a
    /// spool has. Every process that there was has to run, as each brings what its own spool has.
    pub(crate) fn settled(&self) {
        self.stand.api.fair();
        self.stand.database.fair();
        let carries =
            |object: &Value| object["status"]["ledger"]["pending"].as_array().is_some_and(|all| !all.is_empty());
        let nothing = |admin: &Kubectl| {
            let all = admin.json(&["get", "tc", "--all-namespaces"])?;
            let carrying = all["items"].as_array().into_iter().flatten().any(carries);
            Ok((!carrying && tombstones()?.is_empty()).then_some(()))
        };
        self.s.admin.wait_for("nothing is carried any more", PATIENCE, nothing).unwrap();
        judges::both_agree(&self.s.admin, || self.stand.spools(), |arguments| self.stand.berth(arguments)).unwrap();
        for name in [NAME, OTHER] {
            for end in ["panicked", "overflowed its stack"] {
                let lines = self.stand.lines(name, end);
                assert!(lines.is_empty(), "{lines:?}");
            }
        }
    }

    /// What came of it, by the database and by what is shown.
    pub(crate) fn report(&self, row: u32, runs: u64, faults: u64, longest: Duration) -> Report {
        let since: &[(&str, &str)] = &[("since", &self.began)];
        let records = "FROM berth.container_status_history WHERE recorded_at >= :'since'";
        let written = database::count(&format!("SELECT count(*) {records}"), since).unwrap();
        let doubled =
            database::count(&format!("SELECT count(*) - count(DISTINCT (uid, hash)) {records}"), since).unwrap();
        let longest_blocked_ms = u64::try_from(longest.as_millis()).ok();
        let lost = self.lost(records);
        Report { faults, written, lost, doubled, longest_blocked_ms, ..Report::new(row, Level::Real, runs) }
    }

    /// Records that the database should have, and has not: places of a chain below its last one, and what services show.
    fn lost(&self, records: &str) -> u64 {
        let chains = format!(
            "SELECT max(sequence) - count(DISTINCT sequence) AS missing FROM berth.container_status_history
             WHERE (cluster_id, uid) IN (SELECT cluster_id, uid {records}) GROUP BY cluster_id, uid"
        );
        let missing = format!("SELECT coalesce(sum(missing), 0) FROM ({chains}) chains");
        let missing = database::count(&missing, &[("since", &self.began)]).unwrap();
        let all = self.s.admin.json(&["get", "tc", "--all-namespaces"]).unwrap();
        let objects = all["items"].as_array().into_iter().flatten();
        let shown: BTreeSet<&str> = objects.filter_map(|object| object["status"]["ledger"]["head"].as_str()).collect();
        let shown: Vec<&str> = shown.into_iter().filter(|head| !head.is_empty()).collect();
        let stored = "SELECT count(DISTINCT hash) FROM berth.container_status_history
                      WHERE encode(hash, 'hex') = ANY (string_to_array(:'shown', ','))";
        let stored = database::count(stored, &[("shown", &shown.join(","))]).unwrap();
        missing + (shown.len() as u64).saturating_sub(stored)
    }
}

/// The changes of state of a life, as they were shown.
pub(crate) fn story(object: &Value) -> Vec<String> {
    let within =
        |hop: &String| hop.split_once(' ').and_then(|(states, _)| states.split_once('>')).is_some_and(|(a, b)| a == b);
    line(uid(object)).unwrap().into_iter().filter(|hop| !within(hop)).collect()
}

/// What was made and removed for a service, by the API server's own word.
pub(crate) fn made_and_removed(mark: audit::Mark, name: &str) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for line in audit::writes_since(mark).unwrap() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, verb, resource, object, code] = words[..] else { continue };
        let of_it = object.split_once('/').is_some_and(|(_, object)| {
            let object = object.trim_end_matches(':');
            object == name || object.strip_prefix(name).is_some_and(|rest| rest == "-replicas")
        });
        if of_it && matches!((verb, code), ("patch", "201") | ("delete", "200")) {
            *all.entry(format!("{verb} {resource}")).or_insert(0) += 1;
        }
    }
    all
}

/// How long something took.
pub(crate) fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let outcome = what();
    (outcome, began.elapsed())
}
