//! A fleet, its rollout, and the time.
//!
//! Owns: how services behave that were given a release. Must never: decide anything that a rollout decides.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    api::{Deployment, TenantContainer, deployment::DeploymentStatus, tenant_container::TenantContainerStatus},
    fleet::{
        plan::{self, Effect, Plan, Sight},
        rollout::{self, Rollout},
        select::Conflict,
        status,
        target::{self, Target},
    },
    ledger::Micros,
    tenant::{held, status::rfc3339},
};

/// Noon of some day.
const START: i64 = 1_893_499_200_000_000;

/// One service, as somebody who cannot see Berth would describe it.
pub(super) struct Service {
    pub(super) object: Value,
    /// Seconds from a new spec to the first look at it, and from there to ready.
    pub(super) look: i64,
    pub(super) start: i64,
    /// With this image it never gets ready: it is stalled instead, or says nothing until it is too late.
    pub(super) breaks_with: Option<&'static str>,
    pub(super) silently: bool,
    /// How often it was given a release, by revision.
    pub(super) given: BTreeMap<String, usize>,
    changed_at: i64,
    /// The image that runs, and for what its status was written last: time only tells apart until it has started.
    image: String,
    lived: (i64, bool, bool),
}

pub(super) struct World {
    pub(super) now: i64,
    pub(super) rollout: Value,
    pub(super) services: Vec<Service>,
    pub(super) status: DeploymentStatus,
    pub(super) conflict: Option<Conflict>,
    pub(super) refused: BTreeMap<String, String>,
    /// The most that were out of service or on their way at once.
    pub(super) most_out: usize,
    version: u64,
}

pub(super) const OLD: &str = "engine:1";
pub(super) const NEW: &str = "engine:2";
pub(super) const NEWER: &str = "engine:3";

impl World {
    /// So many services that serve, and a rollout with this strategy.
    pub(super) fn new(count: usize, strategy: Value) -> Self {
        let rollout = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Deployment",
            "metadata": {"name": "r", "namespace": "acme", "uid": "rollout", "generation": 1},
            "spec": {"selector": {}, "release": {"image": NEW}, "strategy": strategy, "progressDeadlineSeconds": 100},
        });
        let mut world = Self {
            now: START,
            rollout,
            services: vec![],
            status: DeploymentStatus::default(),
            conflict: None,
            refused: BTreeMap::new(),
            most_out: 0,
            version: 0,
        };
        for _ in 0..count {
            world.add();
        }
        world
    }

    /// One service more, which serves.
    pub(super) fn add(&mut self) -> &mut Service {
        let number = self.services.len();
        self.version += 1;
        let mut service = Service {
            object: json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "TenantContainer",
                "metadata": {
                    "name": format!("s{number:03}"), "namespace": "acme", "uid": format!("uid-{number}"), "generation": 1,
                    "resourceVersion": self.version.to_string(), "labels": {"n": number.to_string()},
                },
                "spec": {
                    "tenantOrg": "acme", "user": "alice", "serviceName": format!("s{number}"), "image": OLD,
                    "resources": {"cpu": "1", "memory": "1Gi"}, "ports": [{"name": "http", "port": 80}],
                },
            }),
            look: 1,
            start: 2,
            breaks_with: None,
            silently: false,
            given: BTreeMap::new(),
            changed_at: self.now - 1_000_000_000,
            image: OLD.to_owned(),
            lived: (0, false, false),
        };
        service.live(self.now);
        self.services.push(service);
        self.services.last_mut().unwrap()
    }

    pub(super) fn rollout(&self) -> Rollout {
        rollout::read(&serde_json::from_value::<Deployment>(self.rollout.clone()).unwrap()).unwrap()
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        let read = |service: &Service| target::read(&service.read());
        let mut targets: Vec<Target> = self.services.iter().filter_map(read).collect();
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        targets
    }

    pub(super) fn plan(&self) -> Plan {
        self.sight(plan::plan)
    }

    fn sight<T>(&self, then: impl FnOnce(Sight<'_>) -> T) -> T {
        let (rollout, targets) = (self.rollout(), self.targets());
        let (conflict, refused) = (self.conflict.as_ref(), &self.refused);
        then(Sight { rollout: &rollout, targets: &targets, conflict, refused, now: Micros(self.now) })
    }

    /// One pass that is cut off after so many writes. Answers how many it made.
    pub(super) fn pass(&mut self, most: usize) -> usize {
        let effects: Vec<Effect> = self.plan().effects.into_iter().take(most).collect();
        let made = effects.len();
        for effect in effects {
            self.write(effect);
        }
        self.measure();
        if made < most {
            self.status = self.sight(|sight| status::of(&self.status, &sight, &plan::plan(sight)));
        }
        made
    }

    /// What the API server does with a release.
    pub(super) fn write(&mut self, effect: Effect) {
        self.version += 1;
        let service = self.services.iter_mut().find(|service| service.name() == effect.name).unwrap();
        assert_eq!(service.object["metadata"]["resourceVersion"], effect.resource_version, "over what was not seen");
        let step = format!("{} {:?}", effect.release.rollout.revision, effect.release.rollout.step);
        *service.given.entry(step).or_default() += 1;
        service.object["spec"]["release"] = serde_json::to_value(effect.release).unwrap();
        service.changed(self.version, self.now);
    }

    /// Somebody changes the spec of a service.
    pub(super) fn edit(&mut self, number: usize, change: impl FnOnce(&mut Value)) {
        self.version += 1;
        let service = &mut self.services[number];
        change(&mut service.object["spec"]);
        service.changed(self.version, self.now);
    }

    /// Somebody changes the rollout.
    pub(super) fn order(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.rollout["spec"]);
        let generation = self.rollout["metadata"]["generation"].as_i64().unwrap();
        self.rollout["metadata"]["generation"] = json!(generation + 1);
    }

    /// Time goes by, and services do what they do.
    pub(super) fn later(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += 1_000_000;
            for service in &mut self.services {
                if service.live(self.now) {
                    self.version += 1;
                    service.object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                }
            }
            self.measure();
        }
    }

    /// Passes and seconds, until nothing has happened for longer than anything takes.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 120 {
            quiet = if self.pass(usize::MAX) == 0 { quiet + 1 } else { 0 };
            self.later(1);
        }
    }

    fn measure(&mut self) {
        self.most_out = self.most_out.max(self.services.iter().filter(|service| !service.serves(self.now)).count());
    }

    /// Numbers of the services that run this image.
    pub(super) fn with(&self, image: &str) -> Vec<usize> {
        let runs = |service: &Service| service.read().spec.effective().image == image;
        (0..self.services.len()).filter(|i| runs(&self.services[*i])).collect()
    }

    pub(super) fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    pub(super) fn condition(&self, name: &str) -> (String, String, String) {
        let found = self.status.conditions.iter().find(|condition| condition.type_ == name).unwrap();
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }
}

impl Service {
    pub(super) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap()
    }

    pub(super) fn read(&self) -> TenantContainer {
        serde_json::from_value(self.object.clone()).unwrap()
    }

    pub(super) fn changed(&mut self, version: u64, now: i64) {
        let generation = self.object["metadata"]["generation"].as_i64().unwrap();
        self.object["metadata"]["generation"] = json!(generation + 1);
        self.object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.changed_at = now;
        self.image = self.read().spec.effective().image.clone();
    }

    /// Whether clients are served as they are to be: what a rollout must not take from too many at once.
    fn serves(&self, now: i64) -> bool {
        let breaks = self.breaks_with == Some(self.image.as_str());
        now >= self.changed_at + (self.look + self.start) * 1_000_000 && !breaks
    }

    /// Its status as Berth would write it now; whether that is another.
    pub(super) fn live(&mut self, now: i64) -> bool {
        let looked = self.changed_at + self.look * 1_000_000;
        let breaks = self.breaks_with == Some(self.image.as_str());
        let life = (self.changed_at, now >= looked + self.start * 1_000_000, breaks);
        let is_shown = self.object["status"]["observedGeneration"] == self.object["metadata"]["generation"];
        if now < looked || is_shown && life == self.lived {
            return false;
        }
        self.lived = life;
        let object = self.read();
        let ready = now >= looked + self.start * 1_000_000 && !breaks;
        let stalled = breaks && !self.silently && now >= looked + self.start * 1_000_000;
        let before = object.status.clone().unwrap_or_default();
        let since_before = before.release.as_ref().map(|release| release.since.clone());
        let condition = |name: &str, is: bool, reason: &str| {
            let status = if is { "True" } else { "False" };
            let old = before.conditions.iter().find(|old| old.type_ == name && old.status == status);
            let since = old.map_or_else(|| json!(rfc3339(Micros(now))), |old| json!(old.last_transition_time));
            json!({"type": name, "status": status, "reason": reason, "message": format!("{reason}, it says"), "lastTransitionTime": since})
        };
        let release = object.spec.release_in_effect().map(|release| {
            let origin = &release.rollout;
            let same = before
                .release
                .as_ref()
                .filter(|old| (&old.uid, &old.revision, old.step) == (&origin.uid, &origin.revision, origin.step));
            json!({
                "image": release.image, "rollout": format!("{}/{}", origin.namespace, origin.name), "uid": origin.uid,
                "revision": origin.revision, "step": origin.step,
                "since": same.map_or_else(|| rfc3339(Micros(now)), |old| old.since.clone()),
                "readySeconds": same.and_then(|old| old.ready_seconds),
                "availableSeconds": same.and_then(|old| old.available_seconds),
            })
        });
        let mut status = json!({
            "observedGeneration": object.metadata.generation, "release": release,
            "conditions": [
                condition("Ready", ready, if stalled { "CrashLoop" } else { "Some" }),
                condition("Reconciling", !ready && !stalled, "Some"),
                condition("Stalled", stalled, if stalled { "CrashLoop" } else { "Some" }),
                condition("Available", ready, "Some"),
            ],
        });
        let after: TenantContainerStatus = serde_json::from_value(status.clone()).unwrap();
        if let Some(release) = after.release.filter(|release| Some(&release.since) == since_before.as_ref()) {
            let release = held::entered(release, &before.conditions, &after.conditions, Micros(now));
            status["release"] = json!(release);
        }
        let changed = self.object["status"] != status;
        self.object["status"] = status;
        changed
    }
}
