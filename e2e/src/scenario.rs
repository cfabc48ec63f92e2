//! One scenario: a namespace of its own, a user in it, and words for what tests do and wait for.
//!
//! Owns: the namespace, from creation to removal, and what is printed when a test fails. Must never: sleep for hope.

use std::{
    process,
    sync::{
        RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    database, install,
    judges::tombstones,
    kubectl::{Error, Kubectl},
    objects::{Tenant, condition, is_current},
};

/// How long a service may take to start, stop or fail on this cluster before that counts as an error. Not how long it
/// takes (2 s): how long a busy machine may make it take.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The user who makes the objects.
pub const USER: &str = "alice@acme.example";

/// Most scenarios run beside each other; one that restarts or removes Berth runs alone.
static BERTH: RwLock<()> = RwLock::new(());

enum Berth {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A scenario under way.
pub struct Scenario {
    /// Its namespace, which is its tenant organisation as well.
    pub namespace: String,
    /// The administrator, in the namespace.
    pub admin: Kubectl,
    /// A tenant's developer, in the namespace: has the role `edit`.
    pub user: Kubectl,
    /// Released after the namespace was removed.
    _berth: Berth,
}

impl Scenario {
    /// Begins one that shares Berth with others.
    pub fn begin(name: &str) -> Result<Self, Error> {
        let guard = BERTH.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self::new(name, Berth::Shared { _guard: guard })
    }

    /// Begins one that has Berth for itself.
    pub fn alone(name: &str) -> Result<Self, Error> {
        let guard = BERTH.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self::new(name, Berth::Alone { _guard: guard })
    }

    fn new(name: &str, berth: Berth) -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("{name}-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        make_namespace(&namespace, &namespace)?;
        let admin = Kubectl::admin().in_namespace(&namespace);
        let user = admin.as_user(USER).in_group("e2e:editors");
        Ok(Self { namespace, admin, user, _berth: berth })
    }

    /// Another namespace of the same organisation. The caller removes it.
    pub fn neighbour(&self, name: &str) -> Result<Kubectl, Error> {
        let namespace = format!("{}-{name}", self.namespace);
        make_namespace(&namespace, &self.namespace)?;
        Ok(self.user.in_namespace(&namespace))
    }

    /// Applies a manifest as the user.
    pub fn apply(&self, tenant: &Tenant) -> Result<Value, Error> {
        self.apply_as(&self.user, tenant)
    }

    /// Applies a manifest as somebody, somewhere.
    pub fn apply_as(&self, who: &Kubectl, tenant: &Tenant) -> Result<Value, Error> {
        who.feed_json(&["apply", "--filename", "-"], &tenant.of(&self.namespace).to_string())
    }

    /// Applies manifests of other kinds as the administrator.
    pub fn put(&self, objects: &[Value]) -> Result<(), Error> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        self.admin.feed(&["apply", "--filename", "-"], &list).map(drop)
    }

    /// An object of the namespace.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value, Error> {
        self.admin.json(&["get", kind, name])
    }

    /// Follows a TenantContainer until `condition` is true of it, and gives it as it is then.
    pub fn until(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value, Error> {
        self.until_in(&self.admin, name, what, condition)
    }

    /// The same in another namespace.
    pub fn until_in(
        &self,
        place: &Kubectl,
        name: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value, Error> {
        let selector = format!("--field-selector=metadata.name={name}");
        let found =
            place.watch(&["get", "tc", &selector], PATIENCE, |object| condition(object).then(|| object.clone()));
        found.map_err(|error| match error {
            Error::Deadline { seconds, dump, .. } => Error::Deadline { what: format!("{name}: {what}"), seconds, dump },
            other => other,
        })
    }

    /// Until it is as desired, in this phase.
    pub fn until_ready(&self, name: &str, phase: &str) -> Result<Value, Error> {
        self.until(name, &format!("ready and {phase}"), |object| is_ready(object, phase))
    }

    /// Until it is stalled for this reason.
    pub fn until_stalled(&self, name: &str, reason: &str) -> Result<Value, Error> {
        self.until(name, &format!("stalled: {reason}"), |object| {
            is_current(object)
                && condition(object, "Stalled") == "True"
                && crate::objects::reason(object, "Stalled") == reason
        })
    }

    /// Applies and waits until it runs.
    pub fn run(&self, tenant: &Tenant) -> Result<Value, Error> {
        self.apply(tenant)?;
        self.until_ready(tenant.name(), "Running")
    }

    /// Until the database has every state of what is or was here: on a busy machine one misses its budget, goes over the spool, or
    /// into a tombstone where its object ends, and arrives some time later. What was asked for comes by itself: [`Self::asked`].
    pub fn until_synced(&self) -> Result<(), Error> {
        self.eventually("every record is in the database", |admin| {
            let all = admin.json(&["get", "tc,bdeploy,accessgrants", "--all-namespaces"])?;
            // Those of its neighbours begin with the same.
            let is_near = |object: &&Value| {
                object["metadata"]["namespace"].as_str().is_some_and(|name| name.starts_with(&self.namespace))
            };
            let mut all = all["items"].as_array().into_iter().flatten().filter(is_near);
            let is_there = all.all(|object| condition(object, "LedgerSynced") != "False") && tombstones()?.is_empty();
            Ok(is_there.then_some(()))
        })
    }

    /// The answer of the ledger's database to a query (as [`database::rows`]), once it has every record.
    pub fn rows(&self, query: &str, values: &[(&str, &str)]) -> Result<Vec<Vec<String>>, Error> {
        self.until_synced()?;
        database::rows(query, values)
    }

    /// The answer of the audit to a query, once it has so many rows: no status says whether it lacks any.
    pub fn asked(&self, count: usize, query: &str, values: &[(&str, &str)]) -> Result<Vec<Vec<String>>, Error> {
        self.eventually("the audit has it", |_| {
            let rows = database::rows(query, values)?;
            Ok((rows.len() >= count).then_some(rows))
        })
    }

    /// One column of an answer, once the database has every record.
    pub fn column(&self, query: &str, values: &[(&str, &str)]) -> Result<Vec<String>, Error> {
        self.until_synced()?;
        database::column(query, values)
    }

    /// The hops of an object's chain (as [`database::hops`]), once the database has every record.
    pub fn hops(&self, uid: &str) -> Result<Vec<String>, Error> {
        self.until_synced()?;
        database::hops(uid)
    }

    /// Whether an object's chain is one line (as [`database::is_one_line`]), once the database has every record.
    pub fn is_one_line(&self, uid: &str) -> Result<bool, Error> {
        self.until_synced()?;
        database::is_one_line(uid)
    }

    /// Deletes it and waits until it is gone.
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        self.user.run(&["delete", "tc", name, "--timeout=90s"]).map(drop)
    }

    /// Changes fields of the spec by a merge patch.
    pub fn change(&self, name: &str, spec: &Value) -> Result<Value, Error> {
        let patch = json!({ "spec": spec }).to_string();
        self.user.json(&["patch", "tc", name, "--type=merge", "--patch", &patch])
    }

    /// What a request inside a replica's container answers: the test service is its own HTTP client.
    pub fn ask(&self, pod: &str, url: &str) -> Result<String, Error> {
        self.admin.run(&["exec", pod, "--", "/testservice", "get", url])
    }

    /// Reasons and messages of the Events about an object, as `reason: message`.
    pub fn events(&self, name: &str) -> Result<Vec<String>, Error> {
        let selector = format!("regarding.kind=TenantContainer,regarding.name={name}");
        let events = self.admin.json(&["get", "events.events.k8s.io", "--field-selector", &selector])?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = events["items"].as_array().into_iter().flatten();
        Ok(all.map(|event| format!("{}: {}", text(&event["reason"]), text(&event["note"]))).collect())
    }

    /// Has Berth prove its ledger, once that has every record, and every chain's head at its end.
    /// The error says what does not hold.
    pub fn verify(&self) -> Result<(), Error> {
        self.until_synced()?;
        let command = ["verify", "-o", "json"];
        let answer = install::berth(&command)?;
        let verified: Value = serde_json::from_str(&answer)
            .map_err(|source| Error::NotJson { command: format!("berth {}", command.join(" ")), source })?;
        if verified["openEnds"] == 0 {
            return Ok(());
        }
        let message = "no tombstone is left, and a chain goes on beyond its head".to_owned();
        Err(Error::Refused { command: format!("berth {}", command.join(" ")), message, answer })
    }

    /// Waits until something that is not a TenantContainer's own state is so.
    pub fn eventually<T>(
        &self,
        what: &str,
        condition: impl FnMut(&Kubectl) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        self.admin.wait_for(what, PATIENCE, condition)
    }
}

/// Whether an object is as desired, in this phase, and the status is about its newest generation.
pub fn is_ready(object: &Value, phase: &str) -> bool {
    is_current(object) && object["status"]["phase"] == phase && condition(object, "Ready") == "True"
}

/// The uid of an object.
pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn make_namespace(name: &str, org: &str) -> Result<(), Error> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {
        "berth.dev/tenant-org": org,
        // e2e/faults/run removes what a run that was stopped has left.
        "berth-e2e/scenario": "",
        // Every scenario proves by the way that what Berth makes is allowed where only the restricted is.
        "pod-security.kubernetes.io/enforce": "restricted",
    }}});
    let admin = Kubectl::admin();
    admin.feed(&["create", "--filename", "-"], &namespace.to_string())?;
    // The namespace's own account, without which no pod can be made.
    admin.in_namespace(name).run(&["wait", "--for=create", "serviceaccount/default", "--timeout=30s"]).map(drop)
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}\n--- the operator's log\n{}", self.admin.dump(), install::log(200));
        }
        // What stands in the way of the next scenario would show there.
        let _ = Kubectl::admin().run(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}
