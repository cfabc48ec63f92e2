//! Builders of what the ledger keeps: an object that walks through its life, one sealed record after the other.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use berth::{
    ledger::{
        Actor, Draft, Entry, Head, Index, Kind, Micros, Namespace, OperationOutcome, Present, Record, Replica, Seal,
        Service, Snapshot, Target,
    },
    lifecycle::State,
};
use serde_json::json;
use uuid::Uuid;

/// The cluster of all tests.
pub const CLUSTER: Uuid = Uuid::from_u128(0xc1);

/// A new moment at each call, later than all before, in this month.
pub fn now() -> Micros {
    static STEP: AtomicI64 = AtomicI64::new(0);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Micros(i64::try_from(clock).unwrap() + STEP.fetch_add(1, Ordering::Relaxed))
}

/// An object and the end of its chain, as its reconciler knows them.
#[derive(Clone)]
pub struct Object {
    pub uid: Uuid,
    pub name: String,
    pub head: Head,
    pub state: Option<State>,
    pub epoch: u64,
}

impl Object {
    /// A new one, without records.
    pub fn new(name: &str) -> Self {
        Self { uid: Uuid::new_v4(), name: name.to_owned(), head: Head::GENESIS, state: None, epoch: 1 }
    }

    /// The record that would lead to `to`; the object stays where it is.
    pub fn record(&self, to: State, at: Micros) -> Record {
        let draft = Draft {
            kind: Kind::Transition,
            uid: self.uid,
            from: self.state,
            to: Some(to),
            reason: "Tested".to_owned(),
            actor: Actor::User("alice".to_owned()),
            generation: 1,
            operation: None,
            details: json!({"message": format!("to {to}"), "nested": {"z": 1, "a": [true, null]}}),
        };
        draft.seal(Seal { cluster: CLUSTER, epoch: self.epoch, at }, self.head)
    }

    /// The entry for [`Self::record`].
    pub fn entry(&self, record: &Record) -> Entry {
        let mut snapshot = self.snapshot();
        snapshot.head = record.head();
        service(&mut snapshot).state = record.envelope().to;
        snapshot.observed_at = record.envelope().at;
        Entry::Chained { record: record.clone(), snapshot: Box::new(snapshot) }
    }

    /// Takes the step: what a reconciler does after `Durable`.
    pub fn step(&mut self, to: State) -> Entry {
        let record = self.record(to, now());
        let entry = self.entry(&record);
        self.follow(&record);
        entry
    }

    /// Goes to where the record leads.
    pub fn follow(&mut self, record: &Record) {
        self.head = record.head();
        self.state = record.envelope().to;
    }

    pub fn target(&self) -> Target {
        Target {
            cluster: CLUSTER,
            uid: self.uid,
            kind: "TenantContainer".to_owned(),
            namespace: "team-a".to_owned(),
            name: self.name.clone(),
        }
    }

    /// The present, with one index and one replica.
    pub fn snapshot(&self) -> Snapshot {
        let at = now();
        Snapshot {
            target: self.target(),
            created_at: Micros(1_760_000_000_000_001),
            observed_at: at,
            generation: 1,
            epoch: self.epoch,
            head: self.head,
            present: Present::Service(Service {
                namespace: Namespace {
                    uid: Uuid::from_u128(0xa),
                    name: "team-a".to_owned(),
                    labels: BTreeMap::from([("berth.dev/tenant-org".to_owned(), "acme".to_owned())]),
                },
                tenant_org: "acme".to_owned(),
                user: "alice".to_owned(),
                service_name: self.name.clone(),
                replicas: 1,
                cpu_millis: 500,
                memory_bytes: 1 << 30,
                disk_bytes: 10 << 30,
                gpu_count: 0,
                dimension: Some(768),
                vector_count: Some(1_000_000),
                state: self.state,
                spec: json!({"image": "engine:1", "ratio": 0.5}),
                indexes: vec![index("main")],
                replicas_seen: vec![self.replica(0)],
            }),
        }
    }

    /// A running replica.
    pub fn replica(&self, ordinal: u128) -> Replica {
        Replica {
            uid: Uuid::from_u128(self.uid.as_u128() ^ (ordinal + 1)),
            name: format!("{}-{ordinal}", self.name),
            node: Some("node-1".to_owned()),
            image: "engine:1".to_owned(),
            image_digest: Some("sha256:abc".to_owned()),
            state: "running".to_owned(),
            reason: None,
            ready: true,
            restarts: 0,
            started_at: Some(now()),
            finished_at: None,
        }
    }

    /// The start or finish of an operation on it.
    pub fn operation(&self, id: Uuid, outcome: Option<OperationOutcome>) -> Entry {
        let draft = Draft {
            kind: if outcome.is_some() { Kind::OperationFinish } else { Kind::OperationStart },
            uid: self.uid,
            from: None,
            to: None,
            reason: "Restart".to_owned(),
            actor: Actor::User("alice".to_owned()),
            generation: 1,
            operation: Some(id),
            details: json!({"why": "because the moon was full"}),
        };
        let record = draft.seal(Seal { cluster: CLUSTER, epoch: self.epoch, at: now() }, self.head);
        Entry::Operation { record, target: self.target(), outcome }
    }
}

/// What a service's present adds.
pub fn service(snapshot: &mut Snapshot) -> &mut Service {
    match &mut snapshot.present {
        Present::Service(service) => service,
        Present::Grant(_) | Present::Rollout(_) | Present::Quota(_) => panic!("another kind's"),
    }
}

/// An index of that name.
pub fn index(name: &str) -> Index {
    Index { name: name.to_owned(), dimension: 768, metric: "cosine".to_owned(), declared_count: Some(10) }
}

/// The record inside an entry.
pub fn record_of(entry: &Entry) -> Record {
    match entry {
        Entry::Chained { record, .. } | Entry::Operation { record, .. } | Entry::Carried { record, .. } => {
            record.clone()
        }
        Entry::Present(_) | Entry::Usage(_) => panic!("no record in it"),
    }
}
