//! Builders: a TenantContainer, and a cluster small enough for a test, whose controllers work when they are told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use kube::Resource;
use kube_runtime::{
    events::{Recorder, Reporter},
    reflector::store::Writer,
    watcher::Event,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::watch};
use uuid::Uuid;

use super::server::{Cut, Server};
use crate::{
    api::{Quantity, TenantContainer, TenantQuota},
    chain::{self, Told},
    ledger::{Config, Health, Kind, Ledger, Micros, Reader, Record, samples::Sample, simulated::Database},
    lifecycle::State,
    quota::Desk,
    tenant::{
        Context, Done, PassError,
        cache::Cache,
        observe::{Caches, Observed},
        pass,
        rivals::Rivals,
        validate::{self, Refusal, Surroundings, Tenant},
        view::NamespaceView,
    },
    tombstone,
};

pub(super) const UID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
pub(super) const CLUSTER: Uuid = Uuid::from_u128(7);
/// 2026-11-24T00:00:00Z.
pub(super) const START: i64 = 1_795_478_400_000_000;

pub(super) fn manifest() -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "TenantContainer",
        "metadata": {
            "name": "search", "namespace": "acme", "uid": UID, "generation": 1, "resourceVersion": "1",
            "creationTimestamp": "2026-11-24T00:00:00Z",
            "annotations": {"berth.dev/actor": "alice@acme", "berth.dev/actor-generation": "1"},
            "finalizers": ["berth.dev/ledger"],
        },
        "spec": {
            "tenantOrg": "acme", "user": "alice", "serviceName": "search", "image": "engine:1", "replicas": 2,
            "resources": {"cpu": "500m", "memory": "1Gi"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            "drainSeconds": 5,
        },
    })
}

pub(super) fn object(manifest: &Value) -> TenantContainer {
    TenantContainer::deserialize(manifest).unwrap()
}

pub(super) fn namespace(org: &str) -> NamespaceView {
    serde_json::from_value(json!({"metadata": {
        "name": "acme", "uid": "6ba7b811-9dad-41d1-80b4-00c04fd430c8", "labels": {"berth.dev/tenant-org": org}}}))
    .unwrap()
}

pub(super) fn validated(manifest: &Value) -> Result<Tenant, Refusal> {
    let namespace = namespace("acme");
    validate::validate(&object(manifest), Surroundings { cluster: CLUSTER, namespace: &namespace, rival: None })
}

/// What the schema puts where no status was ever written.
pub(super) fn no_status() -> Value {
    json!({"observedGeneration": -1, "ledger": {"sequence": 0, "head": "", "pending": []}})
}

pub(super) const OBJECT: &str = "/apis/berth.dev/v1alpha1/namespaces/acme/tenantcontainers/search";
pub(super) const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/acme/statefulsets/search";
pub(super) const SERVICE: &str = "/api/v1/namespaces/acme/services/search";
pub(super) const TOMBSTONES: &str = "/api/v1/namespaces/berth-system/configmaps";
pub(super) const CLAIMS: &str = "/api/v1/namespaces/acme/persistentvolumeclaims";
const NAMESPACE: &str = "/api/v1/namespaces/acme";
pub(super) const QUOTAS: &str = "/apis/berth.dev/v1alpha1/tenantquotas";
pub(super) const PODS: &str = "/api/v1/namespaces/acme/pods";

/// How one pass ended.
#[derive(Debug)]
pub(super) enum Ended {
    Done(Done),
    Failed(PassError),
    /// The operator is gone, in the middle of it.
    Cut,
}

/// What the node can do about the CPU of a running pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resizing {
    /// Nothing, and it does not tell what a container has.
    Cannot,
    /// It changes it.
    Does,
    /// It takes what is given up; it has no room for more.
    HasNoRoom,
}

/// A cluster with one TenantContainer in it, and the operator at work: its real passes, its real ledger on files.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) now: Arc<AtomicI64>,
    /// What each pod's container reports, by ordinal; ready where nothing is said.
    pub(super) reports: BTreeMap<i32, Value>,
    pub(super) ended: Option<Ended>,
    pub(super) resizing: Resizing,
    epoch: Arc<AtomicU64>,
    operator: Operator,
    database: Option<Database>,
    /// What some watches show instead of what there is, by their place in [`Operator::feeds`]; the objects' own comes last.
    behind: BTreeMap<usize, Server>,
    spool: TempDir,
    // Last: the ledger's tasks end before it.
    runtime: Runtime,
}

/// A replica that does not work at the moment.
pub(super) struct Leader {
    operator: Operator,
    epoch: Arc<AtomicU64>,
    spool: TempDir,
}

/// What is in the operator's memory, and is lost with it.
struct Operator {
    context: Context,
    tenants: Writer<TenantContainer>,
    feeds: Vec<Feed>,
}

/// Brings a cache of one kind up to what the server has.
type Feed = Box<dyn FnMut(&Server, bool)>;

impl World {
    pub(super) fn new() -> Self {
        Self::with(None, "")
    }

    /// With a database beside the spool.
    pub(super) fn beside(database: &Database) -> Self {
        Self::with(Some(database), "")
    }

    /// With a database, and a spool that cannot be opened until [`Self::repair_spool`].
    pub(super) fn without_spool(database: &Database) -> Self {
        Self::with(Some(database), "broken/spool")
    }

    fn with(database: Option<&Database>, folder: &str) -> Self {
        let server = Server::default();
        server.put(NAMESPACE, serde_json::from_value(json!({"metadata": {
            "name": "acme", "uid": "6ba7b811-9dad-41d1-80b4-00c04fd430c8", "labels": {"berth.dev/tenant-org": "acme"}}})).unwrap());
        let mut object = manifest();
        object["status"] = no_status();
        server.put(OBJECT, object);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let spool = folder_in_memory();
        if !folder.is_empty() {
            std::fs::write(spool.path().join("broken"), "no folder").unwrap();
        }
        let config = impatient(spool.path().join(folder), "test");
        let ledger = runtime.block_on(async {
            match database {
                None => Ledger::open(&config).await.unwrap(),
                Some(database) => Ledger::simulated(database, &config).await,
            }
        });
        let (now, epoch) = (Arc::new(AtomicI64::new(START)), Arc::new(AtomicU64::new(1)));
        let operator = {
            let _entered = runtime.enter();
            Operator::start(&server, ledger, Arc::clone(&now), Arc::clone(&epoch))
        };
        let database = database.cloned();
        let (reports, behind) = (BTreeMap::new(), BTreeMap::new());
        Self {
            server,
            now,
            reports,
            ended: None,
            resizing: Resizing::Cannot,
            epoch,
            operator,
            database,
            behind,
            spool,
            runtime,
        }
    }

    pub(super) fn database(&self) -> &Database {
        self.database.as_ref().unwrap()
    }

    /// The volume is well again.
    pub(super) fn repair_spool(&self) {
        let broken = self.spool.path().join("broken");
        std::fs::remove_file(&broken).unwrap();
        std::fs::create_dir(&broken).unwrap();
        let ledger = self.operator.context.ledger.clone();
        self.wait("the spool is open", || matches!(ledger.health(), Health::Database { spool: Some(_), .. }));
    }

    /// The database is there; what statuses and tombstones carry is brought into it.
    pub(super) fn settle_ledger(&mut self) {
        let ledger = self.operator.context.ledger.clone();
        for _ in 0..3 {
            self.wait("the database has everything that the spool holds", || ledger.is_current());
            self.pass();
            if self.is_idle() {
                break;
            }
            self.settle();
        }
        let context = &self.operator.context;
        self.runtime.block_on(async {
            tombstone::repair(&context.client, CLUSTER, &ledger).await;
            for _ in 0..2 {
                tombstone::settle(&context.client, &context.home, CLUSTER, &ledger, Micros(START)).await.unwrap();
            }
        });
    }

    /// The database has everything that the spool holds.
    pub(super) fn wait_for_replay(&self) {
        let ledger = self.operator.context.ledger.clone();
        self.wait("the database has everything that the spool holds", || ledger.is_current());
    }

    /// Another object has something to tell, so that a batch is written.
    pub(super) fn another_object_changes(&self) {
        let ledger = self.operator.context.ledger.clone();
        let told = async {
            // A spool that is only being opened takes nothing yet.
            while ledger.submit(Sample::new(99).operation(1)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), told).await }).unwrap();
    }

    /// Another replica with a spool of its own, over the same API server and database.
    pub(super) fn another_leader(&self) -> Leader {
        let spool = folder_in_memory();
        let config = impatient(spool.path().to_owned(), "other");
        let ledger = self.runtime.block_on(Ledger::simulated(self.database(), &config));
        let epoch = Arc::new(AtomicU64::new(1_000));
        let _entered = self.runtime.enter();
        let operator = Operator::start(&self.server, ledger, Arc::clone(&self.now), Arc::clone(&epoch));
        Leader { operator, epoch, spool }
    }

    /// The other one works from now on.
    pub(super) fn swap(&mut self, other: &mut Leader) {
        std::mem::swap(&mut self.operator, &mut other.operator);
        std::mem::swap(&mut self.epoch, &mut other.epoch);
        std::mem::swap(&mut self.spool, &mut other.spool);
    }

    fn wait(&self, what: &str, until: impl Fn() -> bool) {
        let waited = self.runtime.block_on(async {
            let come = async {
                while !until() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), come).await
        });
        waited.unwrap_or_else(|_| {
            panic!("it did not come to pass that {what}: {:?}", self.operator.context.ledger.health())
        });
    }

    /// Whether everything that the ledger promises holds of the database.
    pub(super) fn verify_database(&self, database: &Database, what: &str) {
        let report = database.verify();
        assert!(report.is_clean(), "{what}: {report:#?}");
    }

    /// What was shown is in the database, whatever came between.
    pub(super) fn verify_shown(&self, database: &Database) {
        let stored: BTreeSet<String> = database.records().iter().map(|record| record.hash().to_string()).collect();
        for head in self.server.heads() {
            assert!(stored.contains(&head), "record {head} was shown and is lost");
        }
    }

    pub(super) fn object(&self) -> Value {
        self.server.get(OBJECT).unwrap_or_default()
    }

    pub(super) fn stateful_set(&self) -> Option<Value> {
        self.server.get(STATEFUL_SET)
    }

    pub(super) fn tenant(&self) -> Tenant {
        validated(&self.object()).unwrap()
    }

    /// What the next pass would see.
    pub(super) fn observed(&mut self) -> Observed {
        self.operator.catch_up(&self.server, &self.behind);
        self.operator.context.caches.observe(&self.tenant())
    }

    /// A user changes the spec.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        self.server.change(OBJECT, |object| {
            change(&mut object["spec"]);
            let generation = object["metadata"]["generation"].as_i64().unwrap() + 1;
            object["metadata"]["generation"] = json!(generation);
            object["metadata"]["annotations"]["berth.dev/actor-generation"] = json!(generation.to_string());
        });
    }

    pub(super) fn edit_if_there(&mut self, change: impl FnOnce(&mut Value)) {
        if self.object()["metadata"]["deletionTimestamp"].is_null() && self.server.get(OBJECT).is_some() {
            self.edit(change);
        }
    }

    pub(super) fn delete_if_there(&mut self) {
        if self.object()["metadata"]["deletionTimestamp"].is_null() && self.server.get(OBJECT).is_some() {
            self.delete();
        }
    }

    /// Where everything is, for whoever reads the log of a test.
    pub(super) fn in_short(&self) -> String {
        let (object, ended) = (self.object(), &self.ended);
        let ledger = &object["status"]["ledger"];
        let pending = ledger["pending"].as_array().map_or(0, Vec::len);
        let database = self.database.as_ref().map_or(0, Database::count);
        format!(
            "{} seq {} pending {pending} database {database} epoch {} {ended:?}",
            object["status"]["phase"],
            ledger["sequence"],
            self.epoch.load(Ordering::Relaxed)
        )
    }

    pub(super) fn restart_service(&mut self, at: &str) {
        self.server.change(OBJECT, |object| object["metadata"]["annotations"]["berth.dev/restarted-at"] = json!(at));
    }

    pub(super) fn delete(&mut self) {
        self.server.change(OBJECT, |object| {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-24T01:00:00Z");
            let generation = object["metadata"]["generation"].as_i64().unwrap() + 1;
            object["metadata"]["generation"] = json!(generation);
        });
    }

    /// One pass over the object, if it is still there.
    pub(super) fn pass(&mut self) {
        self.operator.catch_up(&self.server, &self.behind);
        self.pass_unheard();
    }

    /// How many watches there are.
    pub(super) fn watches(&self) -> usize {
        self.operator.feeds.len() + 1
    }

    /// One of the watches tells of nothing new from now on, not to the next operator either.
    pub(super) fn stall(&mut self, watch: usize) {
        self.stall_as(watch, self.server.copy());
    }

    /// As [`Self::stall`], and it tells of what there was then.
    pub(super) fn stall_as(&mut self, watch: usize, then: Server) {
        self.server.another_fault();
        self.behind.insert(watch, then);
    }

    /// All watches tell of what there is.
    pub(super) fn stall_nothing(&mut self) {
        self.behind.clear();
    }

    /// The operator stands still before one of its next writes, in the middle of a pass; `meanwhile` happens, and then it goes
    /// on. Whether it came that far.
    pub(super) fn freeze(&mut self, frozen: &mut Leader, write: usize, meanwhile: impl FnOnce(&mut Self)) -> bool {
        let Some(object) = self.server.read(OBJECT) else { return false };
        frozen.operator.catch_up(&self.server, &self.behind);
        self.server.cut_after(write, Cut::Hold);
        let mut pass = Box::pin(pass(&frozen.operator.context, &object));
        let is_cut = Arc::clone(&self.server.is_cut);
        let held = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = is_cut.notified() => true,
                _ = &mut pass => false,
            }
        });
        self.server.never_cut();
        if held {
            meanwhile(self);
            self.server.go_on();
            // It was overtaken, or it was not: both are right.
            let _ = self.runtime.block_on(pass);
        }
        held
    }

    /// How soon the object is looked at again for its chain's sake.
    pub(super) fn for_its_chain(&self) -> Option<Duration> {
        let tenant = self.tenant();
        chain::look_again(self.operator.context.keeper(), tenant.chain(), &tenant.shown.status.conditions)
    }

    /// The Lease was deleted: the next term's number is lower than any before.
    pub(super) fn lose_lease(&mut self) {
        self.epoch.store(0, Ordering::Relaxed);
        self.start_operator_again();
    }

    /// One pass over the object as it was; its watch is behind.
    pub(super) fn pass_as_of(&mut self, before: &Value) {
        self.operator.catch_up_with(&self.server, &self.behind, Some(object(before)));
        self.pass_unheard();
    }

    /// One pass over what the controller read before, and no watch has told of anything since.
    pub(super) fn pass_over(&mut self, before: &TenantContainer) -> Result<Done, PassError> {
        self.runtime.block_on(pass(&self.operator.context, before))
    }

    /// One pass, and no watch has told of anything since the last.
    pub(super) fn pass_unheard(&mut self) {
        let Some(object) = self.server.read(OBJECT) else { return };
        let context = &self.operator.context;
        self.server.refused();
        let ended = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.server.is_cut.notified() => Ended::Cut,
                outcome = pass(context, &object) => outcome.map_or_else(Ended::Failed, Ended::Done),
            }
        });
        if matches!(ended, Ended::Cut) {
            self.start_operator_again();
        }
        // No event tells of a write that did not happen. Here somebody looks all the time, and would hide it.
        let refused = self.server.refused();
        if let Ended::Done(done) = &ended {
            let soon = refused.is_empty() || done.look_again <= Duration::from_secs(60);
            assert!(soon, "{refused:?} was refused, and nobody comes back to it soon: {done:?}");
        }
        self.ended = Some(ended);
    }

    /// How often whoever looks after tombstones was told of one.
    pub(super) fn tombstones_told(&self) -> u64 {
        *self.operator.context.tombstones.borrow()
    }

    /// Another process under another epoch, which remembers nothing.
    pub(super) fn start_operator_again(&mut self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let ledger = self.operator.context.ledger.clone();
        let _entered = self.runtime.enter();
        self.operator = Operator::start(&self.server, ledger, Arc::clone(&self.now), Arc::clone(&self.epoch));
    }

    /// An administrator sets the organisation's limits.
    pub(super) fn limit(&mut self, limits: Value) {
        let path = format!("{QUOTAS}/acme");
        if self.server.get(&path).is_some() {
            return self.server.change(&path, |quota| {
                quota["spec"]["limits"] = limits;
                let generation = quota["metadata"]["generation"].as_i64().unwrap() + 1;
                quota["metadata"]["generation"] = json!(generation);
            });
        }
        self.server.put(&path, json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "TenantQuota", "metadata": {"name": "acme", "generation": 1},
            "spec": {"tenantOrg": "acme", "limits": limits}, "status": {"observedGeneration": -1},
        }));
    }

    /// The organisation's quota as it stands; null where there is none.
    pub(super) fn quota(&self) -> Value {
        self.server.get(&format!("{QUOTAS}/acme")).unwrap_or_default()
    }

    /// A round of the organisation's quota, as its controller holds one, if the operator survives it. Whether it wrote.
    pub(super) fn round(&mut self) -> bool {
        self.operator.catch_up(&self.server, &self.behind);
        let context = &self.operator.context;
        let held = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.server.is_cut.notified() => None,
                outcome = context.desk.round(context, "acme") => Some(outcome),
            }
        });
        match held {
            None => self.start_operator_again(),
            Some(outcome) => return outcome.is_ok_and(|writes| writes > 0),
        }
        false
    }

    /// The operator's term is over.
    pub(super) fn stop_leading(&mut self) {
        self.epoch.store(0, Ordering::Relaxed);
    }

    /// The StatefulSet controller, the scheduler, the kubelet and the garbage collector bring everything to where it
    /// belongs.
    pub(super) fn settle(&mut self) {
        let before = self.server.list(PODS);
        for pod in &before {
            self.server.remove(&format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap()));
        }
        let Some(mut set) = self.stateful_set() else { return };
        let revision = set["metadata"]["annotations"]["berth.dev/built-from"].clone();
        let replicas = i32::try_from(set["spec"]["replicas"].as_i64().unwrap()).unwrap();
        for ordinal in 0..replicas {
            let mut pod = self.pod(ordinal, &set, &revision);
            let old = before.iter().find(|old| {
                old["metadata"]["name"] == pod["metadata"]["name"]
                    && old["metadata"]["labels"]["controller-revision-hash"] == revision
            });
            self.kubelet(&mut pod, old, &set);
            self.server.put(&format!("{PODS}/search-{ordinal}"), pod);
        }
        let ready = (0..replicas).filter(|ordinal| !self.reports.contains_key(ordinal)).count();
        let status = json!({
            "observedGeneration": set["metadata"]["generation"], "replicas": replicas, "readyReplicas": ready,
            "updatedReplicas": replicas, "updateRevision": revision,
        });
        if set["status"] != status {
            set["status"] = status;
            self.server.put(STATEFUL_SET, set);
        }
    }

    /// What the node makes of the CPU that a pod is to have.
    fn kubelet(&self, pod: &mut Value, old: Option<&Value>, set: &Value) {
        if self.resizing == Resizing::Cannot {
            return;
        }
        let template = &set["spec"]["template"]["spec"]["containers"][0]["resources"];
        let asked = old.map_or(template, |old| &old["spec"]["containers"][0]["resources"]).clone();
        let had = old.map_or(template, |old| &old["status"]["containerStatuses"][0]["resources"]).clone();
        let generation = old.map_or(json!(1), |old| old["metadata"]["generation"].clone());
        let cpu = |amounts: &Value| amounts["limits"]["cpu"].as_str().unwrap().parse::<Quantity>().unwrap().millis();
        let is_refused = self.resizing == Resizing::HasNoRoom && cpu(&asked) > cpu(&had);
        pod["metadata"]["generation"] = generation.clone();
        pod["spec"]["containers"][0]["resources"] = asked.clone();
        pod["status"]["observedGeneration"] = generation;
        let report = &mut pod["status"]["containerStatuses"];
        if report.is_null() {
            *report = json!([{}]);
        }
        report[0]["resources"] = if is_refused { had } else { asked };
        if is_refused {
            let pending = json!({"type": "PodResizePending", "status": "True", "reason": "Deferred",
                "message": "Node didn't have enough resource: cpu"});
            pod["status"]["conditions"].as_array_mut().unwrap().push(pending);
        }
    }

    fn pod(&self, ordinal: i32, set: &Value, revision: &Value) -> Value {
        let report = self.reports.get(&ordinal);
        let mut status =
            json!({"conditions": [{"type": "Ready", "status": if report.is_none() { "True" } else { "False" }}]});
        match report {
            Some(condition) if condition.get("type").is_some() => {
                status["conditions"].as_array_mut().unwrap().push(condition.clone());
            }
            Some(container) => status["containerStatuses"] = json!([container]),
            None => {}
        }
        let mut labels = set["spec"]["template"]["metadata"]["labels"].clone();
        labels["controller-revision-hash"] = revision.clone();
        json!({
            "metadata": {"name": format!("search-{ordinal}"), "namespace": "acme",
                "uid": Uuid::from_u128(ordinal as u128 + 1), "labels": labels},
            "spec": {"nodeName": "node-1", "containers": [{"image": "engine:1"}]},
            "status": status,
        })
    }

    pub(super) fn later(&mut self, seconds: i64) {
        self.now.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    /// Passes and controllers in turn until nothing changes any more.
    pub(super) fn run(&mut self) {
        for _ in 0..6 {
            self.pass();
            self.settle();
            self.later(6);
        }
        self.pass();
    }

    /// The same, until two passes in a row have nothing to do: one alone may wait for a drain.
    pub(super) fn rest(&mut self) {
        let mut idle = 0;
        for _ in 0..7 {
            self.pass();
            idle = if self.is_idle() { idle + 1 } else { 0 };
            if idle == 2 {
                break;
            }
            self.settle();
            self.later(6);
        }
    }

    /// Whether the last pass wrote nothing, or there is nothing to pass over.
    fn is_idle(&self) -> bool {
        let wrote_nothing = matches!(&self.ended, Some(Ended::Done(done)) if done.writes == 0 && done.records == 0);
        wrote_nothing || self.server.get(OBJECT).is_none()
    }

    /// Another image after the other, `engine:2` first, each brought to its end.
    pub(super) fn release_times(&mut self, times: usize) {
        for number in 2..times + 2 {
            self.edit(|spec| spec["image"] = json!(format!("engine:{number}")));
            self.run();
        }
    }

    pub(super) fn condition(&self, name: &str) -> (String, String) {
        condition(&self.object(), name)
    }

    /// What the ledger holds of the object's chain, by its own reading commands.
    pub(super) fn records(&self) -> Vec<Record> {
        let reader = Reader::Spool(self.spool.path().to_owned());
        let read = self.runtime.block_on(reader.timeline("acme", "search")).unwrap();
        assert_eq!(read.damages, Vec::<String>::new());
        let (chained, _): (Vec<_>, Vec<_>) =
            read.value.into_iter().map(|moment| moment.record).partition(|record| record.envelope().kind.is_chained());
        chained
    }

    /// States in the order of their transitions.
    pub(super) fn states(&self) -> Vec<State> {
        let records = self.records();
        let transitions = records.iter().map(Record::envelope).filter(|envelope| envelope.kind == Kind::Transition);
        transitions.filter_map(|envelope| envelope.to).collect()
    }

    /// Reasons in the order of the records.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.records().iter().map(|record| record.envelope().reason.clone()).collect()
    }

    /// Whether everything that the ledger promises of its own holds.
    pub(super) fn verify(&self) {
        let reader = Reader::Spool(self.spool.path().to_owned());
        let verified = self.runtime.block_on(reader.verify()).unwrap();
        assert!(verified.is_clean(), "{verified:#?}");
    }

    /// How many entries of the audit there are.
    pub(super) fn audit_entries(&self) -> u64 {
        let reader = Reader::Spool(self.spool.path().to_owned());
        self.runtime.block_on(reader.verify()).unwrap().standalone
    }

    pub(super) fn failure(&self) -> &PassError {
        match &self.ended {
            Some(Ended::Failed(error)) => error,
            other => panic!("the pass ended otherwise: {other:?}"),
        }
    }

    pub(super) fn done(&self) -> Done {
        match &self.ended {
            Some(Ended::Done(done)) => *done,
            other => panic!("the pass ended otherwise: {other:?}"),
        }
    }
}

/// Memory where the machine has some that looks like a disk: what a crash of the machine leaves is tried elsewhere.
fn folder_in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// A ledger that waits less for a database that says nothing.
fn impatient(spool: PathBuf, writer: &str) -> Config {
    Config { budget: Duration::from_millis(30), ..Config::new(None, spool, writer.to_owned()) }
}

/// A condition of an object: status and reason.
pub(super) fn condition(object: &Value, name: &str) -> (String, String) {
    let all = object["status"]["conditions"].as_array().unwrap();
    let found = all.iter().find(|condition| condition["type"] == name).unwrap();
    (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
}

impl Operator {
    fn start(server: &Server, ledger: Ledger, now: Arc<AtomicI64>, epoch: Arc<AtomicU64>) -> Self {
        let mut feeds: Vec<Feed> = vec![];
        let collection = |group: &str, kind: &str| format!("{group}/namespaces/acme/{kind}");
        let tenants = Writer::default();
        let caches = Caches {
            namespaces: {
                let (cache, mut writer) = cache::<NamespaceView>();
                let feeding = cache.clone();
                feeds.push(Box::new(move |server, _| feed(&feeding, &mut writer, server.read(NAMESPACE))));
                cache
            },
            stateful_sets: fed(&mut feeds, collection("/apis/apps/v1", "statefulsets")),
            pods: fed(&mut feeds, collection("/api/v1", "pods")),
            claims: fed(&mut feeds, collection("/api/v1", "persistentvolumeclaims")),
            services: fed(&mut feeds, collection("/api/v1", "services")),
            service_accounts: fed(&mut feeds, collection("/api/v1", "serviceaccounts")),
            budgets: fed(&mut feeds, collection("/apis/policy/v1", "poddisruptionbudgets")),
        };
        let quotas = {
            let (cache, mut writer) = cache::<TenantQuota>();
            let feeding = cache.clone();
            feeds.push(Box::new(move |server, _| feed(&feeding, &mut writer, server.read_all(QUOTAS, |_| true))));
            cache
        };
        let client = server.client();
        let reporter = Reporter { controller: "berth.dev/tenantcontainer".into(), instance: None };
        let context = Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            home: "berth-system".to_owned(),
            tombstones: watch::Sender::new(0),
            cluster: CLUSTER,
            tenants: Cache::new(tenants.as_reader()),
            caches,
            rivals: Rivals::default(),
            quotas,
            desk: Desk::new().0,
            ledger,
            epoch: Box::new(move || Some(epoch.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0)),
            clock: Box::new(move || Micros(now.load(Ordering::Relaxed))),
            told: Told::default(),
        };
        Self { context, tenants, feeds }
    }

    fn catch_up(&mut self, server: &Server, behind: &BTreeMap<usize, Server>) {
        let tenant = behind.get(&self.feeds.len()).unwrap_or(server).read(OBJECT);
        self.catch_up_with(server, behind, tenant);
    }

    fn catch_up_with(&mut self, server: &Server, behind: &BTreeMap<usize, Server>, tenant: Option<TenantContainer>) {
        for (watch, feed) in self.feeds.iter_mut().enumerate() {
            match behind.get(&watch) {
                // Over and over, over what Berth has written since.
                Some(old) => feed(old, true),
                None => feed(server, false),
            }
        }
        for event in events(tenant) {
            self.tenants.apply_watcher_event(&event);
            self.context.rivals.heard(&event);
            self.context.tenants.heard(&event);
        }
    }
}

fn cache<K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + 'static>() -> (Cache<K>, Writer<K>) {
    let writer = Writer::default();
    (Cache::new(writer.as_reader()), writer)
}

/// A cache that follows a collection, as far as Berth's watches see it.
fn fed<K>(feeds: &mut Vec<Feed>, collection: String) -> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + 'static,
{
    let (cache, mut writer) = cache();
    let feeding = cache.clone();
    let mut last = None;
    feeds.push(Box::new(move |server, again| {
        // A watch tells of what has changed.
        let versions = server.versions(&collection);
        if last.replace(versions) == Some(versions) && !again {
            return;
        }
        let is_ours = |object: &Value| object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "berth";
        feed(&feeding, &mut writer, server.read_all(&collection, is_ours));
    }));
    cache
}

fn feed<K>(cache: &Cache<K>, writer: &mut Writer<K>, objects: impl IntoIterator<Item = K>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + 'static,
{
    for event in events(objects) {
        writer.apply_watcher_event(&event);
        cache.heard(&event);
    }
}

/// A complete list, as a watch tells it.
fn events<K>(objects: impl IntoIterator<Item = K>) -> impl Iterator<Item = Event<K>> {
    std::iter::once(Event::Init).chain(objects.into_iter().map(Event::InitApply)).chain([Event::InitDone])
}

/// What a kubelet reports of a container that waits.
pub(super) fn waiting(reason: &str, message: &str) -> Value {
    json!({"restartCount": 3, "state": {"waiting": {"reason": reason, "message": message}}})
}
