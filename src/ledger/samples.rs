//! Objects, records and entries for tests: plausible, deterministic, each different.

use serde_json::json;
use uuid::Uuid;

use super::{
    Actor, Draft, Entry, Head, Index, Kind, Micros, Namespace, OperationOutcome, Present, Record, Replica, Resource,
    Seal, Service, Snapshot, Target, Usage,
};
use crate::lifecycle::State;

/// The cluster of all samples.
pub(crate) const CLUSTER: Uuid = Uuid::from_u128(0xc1);

/// The states that a life of a sample walks through, over and over.
const WALK: [State; 6] =
    [State::Pending, State::Running, State::Running, State::Paused, State::Stopped, State::Pending];

/// An object that has a chain.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) uid: Uuid,
    pub(crate) user: String,
    pub(crate) service_name: String,
    pub(crate) created_at: i64,
    pub(crate) head: Head,
    pub(crate) state: Option<State>,
    pub(crate) epoch: u64,
}

impl Sample {
    pub(crate) fn new(number: u128) -> Self {
        Self {
            uid: Uuid::from_u128(number),
            user: format!("user{number}"),
            service_name: "vectors".to_owned(),
            created_at: 1_700_000_000_000_000 + i64::try_from(number % 1000).unwrap(),
            head: Head::GENESIS,
            state: None,
            epoch: 7,
        }
    }

    /// The next record of its life; the sample goes on from it.
    pub(crate) fn step(&mut self) -> Entry {
        let sequence = self.head.sequence;
        let to = if sequence == 0 { State::Pending } else { WALK[1 + (sequence as usize - 1) % 5] };
        self.step_to(to)
    }

    /// The next record, to the state `to`.
    pub(crate) fn step_to(&mut self, to: State) -> Entry {
        let record = self.draft(Kind::Transition, Some(to)).seal(self.seal(), self.head);
        self.take(record)
    }

    /// Goes on from `record`.
    pub(crate) fn take(&mut self, record: Record) -> Entry {
        self.head = record.head();
        self.state = record.envelope().to.or(self.state);
        Entry::Chained { record, snapshot: Box::new(self.snapshot()) }
    }

    pub(crate) fn draft(&self, kind: Kind, to: Option<State>) -> Draft {
        Draft {
            kind,
            uid: self.uid,
            from: self.state,
            to,
            reason: "Observed".to_owned(),
            actor: Actor::User("alice".to_owned()),
            generation: 1 + i64::try_from(self.head.sequence).unwrap() / 3,
            operation: None,
            details: json!({"message": format!("step {}", self.head.sequence + 1)}),
        }
    }

    pub(crate) fn seal(&self) -> Seal {
        Seal { cluster: CLUSTER, epoch: self.epoch, at: Micros(self.created_at + 1000 * self.now()) }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.head.sequence).unwrap()
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            cluster: CLUSTER,
            uid: self.uid,
            kind: "TenantContainer".to_owned(),
            namespace: "team".to_owned(),
            name: self.user.clone(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            target: self.target(),
            created_at: Micros(self.created_at),
            observed_at: Micros(self.created_at + 1000 * self.now()),
            generation: 1,
            epoch: self.epoch,
            head: self.head,
            present: Present::Service(Service {
                namespace: Namespace {
                    uid: Uuid::from_u128(0x5e),
                    name: "team".to_owned(),
                    labels: [("berth.dev/tenant-org".to_owned(), "acme".to_owned())].into(),
                },
                tenant_org: "acme".to_owned(),
                user: self.user.clone(),
                service_name: self.service_name.clone(),
                replicas: 1,
                cpu_millis: 500,
                memory_bytes: i64::MAX,
                disk_bytes: 1 << 30,
                gpu_count: 0,
                dimension: Some(768),
                vector_count: None,
                state: self.state,
                spec: json!({"image": "weaviate:1", "note": "line\nbreak \u{0} ü", "real": 0.25}),
                indexes: vec![Index {
                    name: "default".to_owned(),
                    dimension: 768,
                    metric: "cosine".to_owned(),
                    declared_count: None,
                }],
                replicas_seen: vec![Replica {
                    uid: Uuid::from_u128(0xb0d),
                    name: format!("{}-0", self.user),
                    node: Some("node-1".to_owned()),
                    image: "weaviate:1".to_owned(),
                    image_digest: None,
                    state: "running".to_owned(),
                    reason: None,
                    ready: true,
                    restarts: 0,
                    started_at: Some(Micros(self.created_at)),
                    finished_at: None,
                }],
            }),
        }
    }

    /// Its next record as a status carried it: with its details, without a snapshot.
    pub(crate) fn carried(&mut self) -> Entry {
        let Entry::Chained { record, .. } = self.step() else { unreachable!("a step is chained") };
        Entry::Carried { record, target: self.target() }
    }

    /// The `number`th sample of what its replica uses, one every 15 seconds.
    pub(crate) fn usage(&self, number: i64) -> Entry {
        Entry::Usage(Usage {
            cluster: CLUSTER,
            uid: self.uid,
            container: Uuid::from_u128(0xb0d),
            resource: Resource::Memory,
            at: Micros(self.created_at + 15_000_000 * number),
            value: 1_000_000 + number,
        })
    }

    /// The start of an operation on it.
    pub(crate) fn operation(&self, id: u128) -> Entry {
        self.phase(id, Kind::OperationStart, None)
    }

    /// Its finish.
    pub(crate) fn finish(&self, id: u128) -> Entry {
        self.phase(id, Kind::OperationFinish, Some(OperationOutcome { succeeded: true, duration_ms: 12 }))
    }

    fn phase(&self, id: u128, kind: Kind, outcome: Option<OperationOutcome>) -> Entry {
        let mut draft = self.draft(kind, None);
        draft.operation = Some(Uuid::from_u128(id));
        let record = draft.seal(self.seal(), self.head);
        Entry::Operation { record, target: self.target(), outcome }
    }
}

impl Snapshot {
    /// What a service's present adds.
    pub(crate) fn service(&mut self) -> &mut Service {
        match &mut self.present {
            Present::Service(service) => service,
            Present::Grant(_) | Present::Rollout(_) | Present::Quota(_) => panic!("another kind's"),
        }
    }
}

/// The record of an entry that has one.
pub(crate) fn record(entry: &Entry) -> &Record {
    match entry {
        Entry::Chained { record, .. } | Entry::Operation { record, .. } | Entry::Carried { record, .. } => record,
        Entry::Present(_) | Entry::Usage(_) => panic!("no record in it"),
    }
}
