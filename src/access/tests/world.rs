//! An operator, its caches, its API server and its ledger, for one grant.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube_runtime::{
    events::{Recorder, Reporter},
    reflector::store::Writer,
    watcher::Event,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::{at, grant};
use crate::{
    access::{self, Context, Done, NamespaceSeen, PassError},
    api::AccessGrant,
    chain::{
        Told,
        simulated::{Replica, Server},
    },
    ledger::{Namespace, simulated::Database},
    tenant::cache::Cache,
    tombstone,
};

pub(super) const GRANT: &str = "/apis/berth.dev/v1alpha1/namespaces/acme/accessgrants/alice";
pub(super) const BINDING: &str =
    "/apis/rbac.authorization.k8s.io/v1/namespaces/acme/rolebindings/berth-grant-alice-11111111-operator";
pub(super) const NAME: &str = "berth-grant-alice-11111111-operator";
pub(super) const CLUSTER: Uuid = Uuid::from_u128(7);
const HOME: &str = "berth-system";

pub(super) struct World {
    pub(super) server: Server,
    pub(super) database: Database,
    pub(super) context: Context,
    pub(super) grants: Writer<AccessGrant>,
    pub(super) bindings: Writer<RoleBinding>,
    clock: Arc<AtomicI64>,
    replica: Replica,
}

impl World {
    /// With the grant there, a minute before noon.
    pub(super) async fn new() -> Self {
        Self::beside(Database::default()).await
    }

    /// The same, with this database.
    pub(super) async fn beside(database: Database) -> Self {
        let server = Server::default();
        server.put(GRANT, serde_json::to_value(grant()).unwrap());
        let clock = Arc::new(AtomicI64::new(at("2030-01-01T11:59:00Z").as_microsecond()));
        let (grants, bindings) = (Writer::default(), Writer::default());
        let replica = Replica::new(database.clone()).await;
        let context = context(&server, &replica, &clock, &grants, &bindings);
        Self { server, database, context, grants, bindings, clock, replica }
    }

    /// Another replica leads from now on: it knows what the API server and the database say, and nothing else.
    pub(super) async fn takes_over(&mut self) {
        self.replica.takes_over().await;
        self.knows_nothing();
    }

    /// The process is killed, and another one is started with the same volume.
    pub(super) async fn restarts(&mut self) {
        self.replica.ends().await;
        self.knows_nothing();
        self.replica.begins().await;
        self.knows_nothing();
    }

    fn knows_nothing(&mut self) {
        (self.grants, self.bindings) = (Writer::default(), Writer::default());
        self.context = context(&self.server, &self.replica, &self.clock, &self.grants, &self.bindings);
    }

    /// A process of its own for each pass is cut off by leaving its leadership.
    pub(super) fn leads(&self, leads: bool) {
        self.replica.leads(leads);
    }

    pub(super) fn now_is(&self, text: &str) {
        self.clock.store(at(text).as_microsecond(), Ordering::Relaxed);
    }

    /// The watches catch up.
    pub(super) fn watch(&mut self) {
        let read = |value: Value| serde_json::from_value(value).unwrap();
        let grant = self.server.get(GRANT).map(|value| Event::InitApply(read(value)));
        for event in std::iter::once(Event::Init).chain(grant).chain([Event::InitDone]) {
            self.grants.apply_watcher_event(&event);
            self.context.grants.heard(&event);
        }
        let all =
            self.server.bindings().into_iter().map(|value| Event::InitApply(serde_json::from_value(value).unwrap()));
        for event in std::iter::once(Event::Init).chain(all).chain([Event::InitDone]) {
            self.bindings.apply_watcher_event(&event);
            self.context.bindings.heard(&event);
        }
    }

    /// One pass, where the grant is there.
    pub(super) async fn pass(&mut self) -> Result<Done, PassError> {
        self.watch();
        let Some(object) = self.server.get(GRANT) else { return Ok(Done::default()) };
        let object: AccessGrant = serde_json::from_value(object).unwrap();
        access::pass(&self.context, &object).await
    }

    /// Passes until nothing is written, as its own writes bring it about.
    pub(super) async fn settle(&mut self) {
        for _ in 0..6 {
            if self.pass().await.unwrap().writes == 0 {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.server.requests());
    }

    /// Somebody changes the spec; the API server stamps who.
    pub(super) fn change(&self, who: &str, key: &str, value: Value) {
        let Some(mut object) = self.server.get(GRANT) else { return };
        let generation = object["metadata"]["generation"].as_i64().unwrap() + 1;
        object["spec"][key] = value;
        object["metadata"]["generation"] = json!(generation);
        object["metadata"]["annotations"]["berth.dev/actor"] = json!(who);
        object["metadata"]["annotations"]["berth.dev/actor-generation"] = json!(generation.to_string());
        self.server.put(GRANT, object);
    }

    /// Somebody deletes it.
    pub(super) fn delete(&self) {
        let Some(mut object) = self.server.get(GRANT) else { return };
        object["metadata"]["deletionTimestamp"] = json!(super::NOON);
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        self.server.put(GRANT, object);
    }

    /// Phase, and status and reason of the condition Ready.
    pub(super) fn shown(&self) -> String {
        let status = &self.server.get(GRANT).unwrap()["status"];
        let ready = &status["conditions"][0];
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", word(&status["phase"]), word(&ready["status"]), word(&ready["reason"]))
    }

    /// Status and reason of the condition LedgerSynced.
    pub(super) fn synced(&self) -> String {
        let status = &self.server.get(GRANT).unwrap()["status"];
        let all = status["conditions"].as_array().unwrap();
        let found = all.iter().find(|condition| condition["type"] == "LedgerSynced").unwrap();
        format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    }

    /// Reason and actor of each record that the database has, along the line.
    pub(super) fn told(&self) -> Vec<String> {
        self.replica.told()
    }

    /// What the leader does about tombstones.
    pub(super) async fn bury(&self) -> usize {
        let now = (self.context.clock)();
        let now = crate::ledger::Micros(now.as_microsecond());
        tombstone::settle(&self.context.client, HOME, CLUSTER, &self.context.ledger, now).await.unwrap()
    }

    /// Until the database has everything that the spool holds.
    pub(super) async fn replayed(&self) {
        self.replica.replayed().await;
    }
}

fn context(
    server: &Server,
    replica: &Replica,
    clock: &Arc<AtomicI64>,
    grants: &Writer<AccessGrant>,
    bindings: &Writer<RoleBinding>,
) -> Context {
    let reporter = Reporter { controller: "berth.dev/accessgrant".into(), instance: None };
    let now = Arc::clone(clock);
    let namespace = NamespaceSeen {
        row: Namespace { uid: Uuid::from_u128(8), name: "acme".to_owned(), labels: [].into() },
        is_terminating: false,
    };
    Context {
        client: server.client(),
        grants: Cache::new(grants.as_reader()),
        bindings: Cache::new(bindings.as_reader()),
        namespace: Box::new(move |_| Some(namespace.clone())),
        cluster: CLUSTER,
        home: HOME.to_owned(),
        tombstones: watch::Sender::new(0),
        ledger: replica.ledger.clone(),
        told: Told::default(),
        epoch: replica.epoch(),
        recorder: Recorder::new(server.client(), reporter),
        clock: Box::new(move || Timestamp::from_microsecond(now.load(Ordering::Relaxed)).unwrap()),
    }
}
