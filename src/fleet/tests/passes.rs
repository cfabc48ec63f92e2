//! An operator, its caches, its API server and its ledger, for one rollout over a fleet that lives as its world has it.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use kube::Resource;
use kube_runtime::{
    events::{Recorder, Reporter},
    reflector::{ObjectRef, store::Writer},
    watcher::Event,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::world::World;
use crate::{
    api::{Deployment, FINALIZER, TenantContainer},
    chain::{
        Calm, Told,
        simulated::{Ended, Replica, Server},
    },
    fleet::{self, Context, Done, PassError, rollout},
    ledger::{Micros, simulated::Database},
    tenant::{cache::Cache, view::NamespaceView},
    tombstone,
};

const ROLLOUT: &str = "/apis/berth.dev/v1alpha1/namespaces/acme/deployments/r";
const SERVICES: &str = "/apis/berth.dev/v1alpha1/namespaces/acme/tenantcontainers";
const CLUSTER: Uuid = Uuid::from_u128(7);
const HOME: &str = "berth-system";

pub(super) struct Fleet {
    pub(super) world: World,
    pub(super) server: Server,
    pub(super) replica: Replica,
    pub(super) context: Context,
    rollouts: Writer<Deployment>,
    tenants: Writer<TenantContainer>,
    clock: Arc<AtomicI64>,
}

impl Fleet {
    pub(super) async fn new(mut world: World, database: Database) -> Self {
        let metadata = &mut world.rollout["metadata"];
        metadata["uid"] = json!("11111111-2222-3333-4444-555555555555");
        metadata["creationTimestamp"] = json!("2030-01-01T11:00:00Z");
        // As the policy has it.
        metadata["finalizers"] = json!([FINALIZER]);
        metadata["annotations"] = stamps("root@acme.example", 1);
        let (server, replica) = (Server::default(), Replica::new(database).await);
        server.put(ROLLOUT, world.rollout.clone());
        let clock = Arc::new(AtomicI64::new(world.now));
        let (rollouts, tenants) = (Writer::default(), Writer::default());
        let context = context(&server, &replica, &clock, &rollouts, &tenants);
        let mut fleet = Self { world, server, replica, context, rollouts, tenants, clock };
        fleet.lives();
        fleet
    }

    /// Time goes by, and services do what they do.
    pub(super) fn later(&mut self, seconds: i64) {
        self.takes_what_was_given();
        self.world.later(seconds);
        self.clock.store(self.world.now, Ordering::Relaxed);
        self.lives();
    }

    /// What was written to services is theirs.
    fn takes_what_was_given(&mut self) {
        for service in &mut self.world.services {
            let given = self.server.get(&format!("{SERVICES}/{}", service.name())).unwrap();
            if given["spec"]["release"] == service.object["spec"]["release"] {
                continue;
            }
            let origin = &given["spec"]["release"]["rollout"];
            let step = format!("{} {}", origin["revision"], origin["step"]);
            *service.given.entry(step).or_default() += 1;
            service.object["spec"]["release"] = given["spec"]["release"].clone();
            let version = given["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            service.changed(version, self.world.now);
            self.server.put(&format!("{SERVICES}/{}", service.name()), service.object.clone());
        }
    }

    /// The API server has what services show.
    fn lives(&mut self) {
        for service in &mut self.world.services {
            let path = format!("{SERVICES}/{}", service.name());
            let there = self.server.get(&path);
            if there.as_ref().is_none_or(|there| there["status"] != service.object["status"]) {
                self.server.put(&path, service.object.clone());
            }
        }
    }

    /// The watches catch up.
    fn watch(&mut self) {
        hear(&mut self.rollouts, &self.context.rollouts, self.server.get(ROLLOUT).into_iter().collect());
        let services = self.world.services.iter();
        let services = services.filter_map(|service| self.server.get(&format!("{SERVICES}/{}", service.name())));
        hear(&mut self.tenants, &self.context.tenants, services.collect());
    }

    /// One pass, where the rollout is there.
    pub(super) async fn pass(&mut self) -> Result<Done, PassError> {
        self.takes_what_was_given();
        self.watch();
        let Some(object) = self.object() else { return Ok(Done::default()) };
        let object: Deployment = serde_json::from_value(object).unwrap();
        fleet::pass(&self.context, &object).await
    }

    /// Passes and seconds, until nothing has happened for longer than anything takes.
    pub(super) async fn settle(&mut self) {
        assert!(!self.settle_through_a_cut().await);
    }

    /// The same, also where the API server falls silent on the way, and the operator is started anew, or an answer is lost. Whether
    /// that happened.
    pub(super) async fn settle_through_a_cut(&mut self) -> bool {
        let (mut quiet, mut is_cut) = (0, false);
        while quiet < 12 {
            let ended = self.pass_through_a_cut().await;
            is_cut |= ended.is_none();
            quiet = if ended.is_some_and(|done| done.writes + done.records == 0) { quiet + 1 } else { 0 };
            self.later(1);
        }
        is_cut || self.server.has_lost()
    }

    /// Passes until the API server falls silent in one; whether it did.
    pub(super) async fn settle_through_a_cut_once(&mut self) -> bool {
        for _ in 0..1_000 {
            if self.pass_through_a_cut().await.is_none() {
                return true;
            }
            self.later(1);
        }
        false
    }

    /// One pass. None where the API server falls silent in it, and the operator is started anew; or where an answer was lost.
    pub(super) async fn pass_through_a_cut(&mut self) -> Option<Done> {
        let server = self.server.clone();
        match server.through_a_cut(self.pass()).await {
            Ended::Done(done) => Some(done),
            Ended::AnswerLost => None,
            Ended::Silent => {
                self.restarts().await;
                None
            }
        }
    }

    /// The process is killed, and another one is started with the same volume.
    async fn restarts(&mut self) {
        self.replica.ends().await;
        self.knows_nothing();
        self.replica.begins().await;
        self.knows_nothing();
    }

    fn knows_nothing(&mut self) {
        (self.rollouts, self.tenants) = (Writer::default(), Writer::default());
        self.context = context(&self.server, &self.replica, &self.clock, &self.rollouts, &self.tenants);
    }

    /// Somebody changes the spec; the API server stamps who.
    pub(super) fn change(&mut self, who: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.object().unwrap();
        change(&mut object["spec"]);
        let generation = object["metadata"]["generation"].as_i64().unwrap() + 1;
        object["metadata"]["generation"] = json!(generation);
        object["metadata"]["annotations"] = stamps(who, generation);
        self.server.put(ROLLOUT, object);
    }

    /// Somebody approves a wave of what is rolled out.
    pub(super) fn approve(&mut self, who: &str, wave: &str) {
        let rollout: Deployment = serde_json::from_value(self.object().unwrap()).unwrap();
        let revision = rollout::read(&rollout).unwrap().revision;
        self.change(who, |spec| spec["approvals"] = json!([{"wave": wave, "revision": revision, "by": who}]));
    }

    /// Somebody deletes it.
    pub(super) fn delete(&self) {
        let mut object = self.object().unwrap();
        object["metadata"]["deletionTimestamp"] = json!("2030-01-01T13:00:00Z");
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        self.server.put(ROLLOUT, object);
    }

    /// As a restore leaves it that brings no status.
    pub(super) fn wipe(&self) {
        let mut object = self.object().unwrap();
        object["status"] = Value::Null;
        self.server.put(ROLLOUT, object);
    }

    /// As it is where the policy is not.
    pub(super) fn release_the_hold(&self) {
        let mut object = self.object().unwrap();
        object["metadata"]["finalizers"] = json!([]);
        self.server.put(ROLLOUT, object);
    }

    pub(super) fn object(&self) -> Option<Value> {
        self.server.get(ROLLOUT)
    }

    fn status(&self) -> Value {
        self.object().unwrap()["status"].clone()
    }

    pub(super) fn phase(&self) -> String {
        self.status()["phase"].as_str().unwrap().to_owned()
    }

    /// How many records the status carries.
    pub(super) fn pending(&self) -> usize {
        self.status()["ledger"]["pending"].as_array().unwrap().len()
    }

    /// The reason of the condition Ready.
    pub(super) fn reason(&self) -> String {
        self.condition("Ready")["reason"].as_str().unwrap().to_owned()
    }

    /// Status and reason of the condition LedgerSynced.
    pub(super) fn synced(&self) -> String {
        let found = self.condition("LedgerSynced");
        format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    }

    fn condition(&self, name: &str) -> Value {
        let all = self.status()["conditions"].as_array().unwrap().clone();
        all.into_iter().find(|condition| condition["type"] == name).unwrap()
    }

    /// What the leader does about tombstones.
    pub(super) async fn bury(&self) -> usize {
        let now = (self.context.clock)();
        tombstone::settle(&self.context.client, HOME, CLUSTER, &self.context.ledger, now).await.unwrap()
    }
}

fn hear<K>(writer: &mut Writer<K>, cache: &Cache<K>, objects: Vec<Value>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
    ObjectRef<K>: Hash + Eq,
{
    let read = |value| Event::InitApply(serde_json::from_value(value).unwrap());
    for event in std::iter::once(Event::Init).chain(objects.into_iter().map(read)).chain([Event::InitDone]) {
        writer.apply_watcher_event(&event);
        cache.heard(&event);
    }
}

fn stamps(who: &str, generation: i64) -> Value {
    json!({"berth.dev/actor": who, "berth.dev/actor-generation": generation.to_string()})
}

fn context(
    server: &Server,
    replica: &Replica,
    clock: &Arc<AtomicI64>,
    rollouts: &Writer<Deployment>,
    tenants: &Writer<TenantContainer>,
) -> Context {
    let reporter = Reporter { controller: "berth.dev/deployment".into(), instance: None };
    let now = Arc::clone(clock);
    Context {
        client: server.client(),
        rollouts: Cache::new(rollouts.as_reader()),
        tenants: Cache::new(tenants.as_reader()),
        namespaces: Cache::new(Writer::<NamespaceView>::default().as_reader()),
        calm: Calm::of_status(),
        present: Calm::of_present(),
        cluster: CLUSTER,
        home: HOME.to_owned(),
        tombstones: watch::Sender::new(0),
        ledger: replica.ledger.clone(),
        told: Told::default(),
        epoch: replica.epoch(),
        recorder: Recorder::new(server.client(), reporter),
        clock: Box::new(move || Micros(now.load(Ordering::Relaxed))),
    }
}
