//! Builders: a TenantContainer, and a cluster small enough to keep in one struct that does what controllers would do.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    api::TenantContainer,
    ledger::{Micros, Seal},
    lifecycle::State,
    tenant::{
        build::ChildKind,
        course::Course,
        observe::Observed,
        plan::{self, Verdict},
        record, status,
        validate::{self, Refusal, Surroundings, Tenant},
        view::{NamespaceView, PodView, StatefulSetView},
    },
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
    serde_json::from_value(manifest.clone()).unwrap()
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

/// A cluster with one TenantContainer in it.
pub(super) struct World {
    pub(super) manifest: Value,
    pub(super) now: i64,
    pub(super) observed: Observed,
    /// States in the order in which they were shown.
    pub(super) shown: Vec<State>,
    pub(super) last: Option<Verdict>,
    pub(super) course: Option<Course>,
    /// What each pod's container reports, by ordinal; ready where nothing is said.
    pub(super) reports: BTreeMap<i32, Value>,
    /// Reasons in the order of the records.
    pub(super) reasons: Vec<String>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            manifest: manifest(),
            now: START,
            observed: Observed::default(),
            shown: vec![],
            last: None,
            course: None,
            reports: BTreeMap::new(),
            reasons: vec![],
        }
    }

    pub(super) fn tenant(&self) -> Tenant {
        validated(&self.manifest).unwrap()
    }

    /// A user changes the spec.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.manifest["spec"]);
        let generation = self.manifest["metadata"]["generation"].as_i64().unwrap() + 1;
        self.manifest["metadata"]["generation"] = json!(generation);
        self.manifest["metadata"]["annotations"]["berth.dev/actor-generation"] = json!(generation.to_string());
    }

    pub(super) fn delete(&mut self) {
        self.manifest["metadata"]["deletionTimestamp"] = json!("2026-11-24T01:00:00Z");
        let generation = self.manifest["metadata"]["generation"].as_i64().unwrap() + 1;
        self.manifest["metadata"]["generation"] = json!(generation);
    }

    /// One pass as `pass.rs` runs it, with every write succeeding at once.
    pub(super) fn pass(&mut self) {
        for _ in 0..8 {
            let mut tenant = self.tenant();
            if let Some(request) = plan::new_request(&tenant, &self.observed) {
                tenant.shown.status.operation = Some(request);
            }
            let now = Micros(self.now);
            let course = plan::plan(&tenant, now);
            self.apply(&course);
            let verdict = plan::conclude(&tenant, &course, &self.observed, None, now);
            let kept = status::Kept::In(crate::ledger::Backend::Database);
            let mut next = tenant.clone();
            let mut record = None;
            if let Some(hop) = &verdict.hop {
                let seal = Seal { cluster: CLUSTER, epoch: 1, at: now };
                let sealed = record::transition(&tenant, hop).seal(seal, tenant.shown.head);
                next.shown.state = Some(hop.transition.to());
                self.shown.push(hop.transition.to());
                self.reasons.push(hop.reason.to_owned());
                record = Some(sealed);
            }
            let mut status = status::of(&next, &self.observed, &verdict.standing, kept, now);
            if let Some(record) = &record {
                status::advance(&mut status, record);
            }
            self.manifest["status"] = serde_json::to_value(status).unwrap();
            let again = verdict.hop.is_some();
            (self.last, self.course) = (Some(verdict), Some(course));
            if !again {
                return;
            }
        }
        panic!("a pass without end: {:?}", self.shown);
    }

    fn apply(&mut self, course: &Course) {
        match course {
            Course::Keep { children, .. } => {
                let child = children.iter().find(|child| child.kind == ChildKind::StatefulSet).unwrap();
                let known =
                    self.observed.stateful_set.as_ref().is_some_and(|set| set.built_from() == Some(&child.built_from));
                if !known {
                    let before = self.observed.stateful_set.as_ref().map(|set| (**set).clone());
                    let mut set = child.manifest.clone();
                    let generation = before.as_ref().and_then(|set| set.metadata.generation).unwrap_or(0) + 1;
                    set["metadata"]["generation"] = json!(generation);
                    let mut view: StatefulSetView = serde_json::from_value(set).unwrap();
                    if let Some(before) = before {
                        // A controller has not looked at the new generation yet; its report is about the old one.
                        view.seen.observed_generation = before.seen.observed_generation;
                        view.seen.current = before.seen.current;
                        view.seen.ready = before.seen.ready;
                        view.seen.updated = before.seen.updated;
                        view.seen.update_revision = before.seen.update_revision;
                    }
                    self.observed.stateful_set = Some(Arc::new(view));
                }
            }
            Course::Leave => {}
            Course::Remove => self.observed = Observed::default(),
        }
    }

    /// The StatefulSet controller, the scheduler and the kubelet bring everything to where it belongs.
    pub(super) fn settle(&mut self) {
        let Some(set) = self.observed.stateful_set.clone() else { return };
        let mut set = (*set).clone();
        let revision = set.built_from().unwrap().to_owned();
        let replicas = set.seen.replicas;
        self.observed.pods = (0..replicas).map(|ordinal| (ordinal, Arc::new(self.pod(ordinal, &revision)))).collect();
        set.seen.observed_generation = set.metadata.generation.unwrap();
        set.seen.current = replicas;
        set.seen.updated = replicas;
        set.seen.update_revision = revision;
        set.seen.ready = i32::try_from(self.observed.pods.values().filter(|pod| pod.seen.ready).count()).unwrap();
        self.observed.stateful_set = Some(Arc::new(set));
    }

    fn pod(&self, ordinal: i32, revision: &str) -> PodView {
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
        serde_json::from_value(json!({
            "metadata": {"name": format!("search-{ordinal}"), "namespace": "acme", "uid": Uuid::from_u128(ordinal as u128 + 1),
                "labels": {"berth.dev/owner-uid": UID, "controller-revision-hash": revision}},
            "spec": {"nodeName": "node-1", "containers": [{"image": "engine:1"}]},
            "status": status,
        }))
        .unwrap()
    }

    pub(super) fn later(&mut self, seconds: i64) {
        self.now += seconds * 1_000_000;
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

    pub(super) fn condition(&self, name: &str) -> (String, String) {
        let all = self.manifest["status"]["conditions"].as_array().unwrap();
        let found = all.iter().find(|condition| condition["type"] == name).unwrap();
        (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
    }
}

/// What a kubelet reports of a container that waits.
pub(super) fn waiting(reason: &str, message: &str) -> Value {
    json!({"restartCount": 3, "state": {"waiting": {"reason": reason, "message": message}}})
}
