//! How the replicas are: ready, failing and why, or gone. Read from what was observed, and from nothing else.
//!
//! Owns: what counts as a failure, and the sentence for it. Must never: do I/O, or decide what follows.

use super::{
    course::Course,
    names,
    observe::Observed,
    validate::{Tenant, time},
    view::{ContainerSeen, PodView},
};
use crate::{api::Quantity, ledger::Micros, lifecycle::State};

/// How far two clocks may be apart, in microseconds. What began later than that from now was told by a clock that has been
/// set back since: nobody waits for that moment to come again.
pub(super) const MAX_SKEW: i64 = 60_000_000;

/// How long the scheduler may find no node before that is a failure, in microseconds: claims are bound and nodes are
/// added in that time.
const UNSCHEDULABLE_GRACE: i64 = 10_000_000;

/// How long a replica may have a node and no sandbox before the kubelet is asked what it cannot mount, in microseconds:
/// where nothing is wrong it takes half a second.
const FILES_GRACE: i64 = 3_000_000;

/// Something that keeps the service from running, and that will not go away by waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One CamelCase word: reason of the record, the condition and the Event.
    pub reason: &'static str,
    /// A sentence that names the replica and what to do.
    pub message: String,
}

/// A child that is not as it should be, because the API server or somebody else's object stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What, and what to do.
    pub failure: Failure,
    /// What follows.
    pub severity: Severity,
}

/// What follows from a [`Trouble`]: each includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The child is there, only not as asked for now: a disk that does not grow.
    Unchanged,
    /// The child is not there.
    Missing,
    /// The replicas cannot be made, changed or ended.
    Replicas,
}

/// How the replicas are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Every replica that should be is there and of the newest revision: what is told of them is about this spec.
    pub known: bool,
    /// As many as asked for are ready, and all of the newest revision.
    pub ready: bool,
    /// At least one is ready.
    pub serves: bool,
    /// None is left.
    pub gone: bool,
    /// Replicas that exist.
    pub present: i32,
    /// Replicas that are ready.
    pub ready_replicas: i32,
    /// Replicas asked for.
    pub wanted: i32,
    /// What keeps it from running.
    pub failure: Option<Failure>,
    /// Replicas that fail for a reason which may be another for a fresh pod, by ordinal.
    pub broken: Vec<i32>,
    /// A disk that is still growing, in a sentence.
    pub growing: Option<String>,
    /// When a wait that is still fine becomes a failure.
    pub look_again: Option<Micros>,
}

impl Health {
    /// How the replicas of `tenant` are.
    pub fn of(tenant: &Tenant, course: &Course, observed: &Observed, now: Micros) -> Self {
        let set = observed.stateful_set.as_deref();
        let wanted = course.replicas();
        let present = set.map_or(0, |set| set.seen.current).max(i32::try_from(observed.pods.len()).unwrap_or(i32::MAX));
        let ready_replicas = set.map_or(0, |set| set.seen.ready);
        // A StatefulSet that is not yet as we built it, or that its controller has not looked at, tells nothing about this spec.
        let current = set.is_some_and(|set| {
            set.built_from() == course.stateful_set() && set.metadata.generation == Some(set.seen.observed_generation)
        });
        let mut health = Self {
            ready: current
                && set.is_some_and(|set| {
                    let seen = &set.seen;
                    seen.ready == wanted && seen.updated == wanted && seen.current == wanted
                }),
            serves: ready_replicas > 0,
            known: current && observed.pods.len() == usize::try_from(wanted).unwrap_or_default(),
            gone: present == 0
                && set.is_none_or(|set| current && set.seen.replicas == 0 || tenant.namespace_terminating),
            present,
            ready_replicas,
            wanted,
            growing: growing(observed),
            ..Self::default()
        };
        if let (true, Some(set)) = (current, set) {
            for (ordinal, pod) in &observed.pods {
                let newest = pod.label(names::REVISION) == Some(set.seen.update_revision.as_str());
                health.known &= newest && !pod.is_terminating();
                if !pod.is_terminating() && newest && !pod.seen.ready {
                    if let Some(missing) = observed.missing_files.get(ordinal) {
                        health.fail(
                            *ordinal,
                            "ReferenceNotFound",
                            format!("replica {ordinal} cannot start: {missing}"),
                        );
                    }
                    if let Some(due) = awaits_files(tenant, pod) {
                        // Later and later, as the kubelet does: once what is missing is there, the pod itself tells.
                        health.look_again_at(due.0.max(now.0 + (now.0 - due.0 + FILES_GRACE).max(0)));
                    }
                    health.judge(*ordinal, pod, tenant.shown.state == Some(State::Failed), now);
                }
            }
        }
        health
    }

    /// How many replicas are ready, in a sentence.
    pub fn sentence(&self) -> String {
        format!("{} of {} replicas ready", self.ready_replicas, self.wanted)
    }

    /// `failed_before`: between two attempts a broken replica looks as if it were starting; what had failed stays
    /// failed until it is ready.
    fn judge(&mut self, ordinal: i32, pod: &PodView, failed_before: bool, now: Micros) {
        let seen = &pod.seen;
        if let Some((since, message)) = &seen.unschedulable {
            let since =
                since.as_ref().map(|since| time(since).0).filter(|since| *since <= now.0.saturating_add(MAX_SKEW));
            let until = since.map_or(now.0, |since| since + UNSCHEDULABLE_GRACE);
            if until <= now.0 {
                self.fail(ordinal, "Unschedulable", format!("replica {ordinal} fits on no node: {message}"));
            } else {
                self.look_again_at(until);
            }
            return;
        }
        let crashed = |(reason, code): &(String, i32)| {
            if reason == "OOMKilled" {
                (
                    "OutOfMemory",
                    format!(
                        "replica {ordinal} used more memory than spec.resources.memory allows, and was killed {} times",
                        seen.restarts
                    ),
                )
            } else {
                (
                    "CrashLoop",
                    format!(
                        "replica {ordinal} ended with exit code {code} and was started again {} times; its log tells more (kubectl logs)",
                        seen.restarts
                    ),
                )
            }
        };
        match &seen.container {
            ContainerSeen::Waiting { reason, message } => match reason.as_str() {
                "CrashLoopBackOff" => match &seen.last_end {
                    Some(end) => {
                        let (reason, message) = crashed(end);
                        self.fail(ordinal, reason, message);
                    }
                    None => self.fail(ordinal, "CrashLoop", format!("replica {ordinal} keeps ending: {message}")),
                },
                "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
                    self.fail(ordinal, "ImagePull", format!("replica {ordinal} cannot get its image: {message}"));
                }
                "ErrImagePull" if failed_before => {
                    self.fail(ordinal, "ImagePull", format!("replica {ordinal} cannot get its image: {message}"));
                }
                "CreateContainerConfigError" if awaits_kubelet(message) => {}
                "CreateContainerConfigError" if names_missing(message) => {
                    self.fail(ordinal, "ReferenceNotFound", format!("replica {ordinal} cannot start: {message}"));
                }
                "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                    self.fail(ordinal, "CannotStart", format!("replica {ordinal} cannot start: {message}"));
                }
                _ => {}
            },
            ContainerSeen::Running { .. } | ContainerSeen::Terminated { .. } if failed_before => {
                if let Some(end) = &seen.last_end {
                    let (reason, message) = crashed(end);
                    self.fail(ordinal, reason, message);
                }
            }
            ContainerSeen::Unknown | ContainerSeen::Running { .. } | ContainerSeen::Terminated { .. } => {}
        }
    }

    fn look_again_at(&mut self, at: i64) {
        self.look_again = Some(Micros(self.look_again.map_or(at, |before| before.0.min(at))));
    }

    fn fail(&mut self, ordinal: i32, reason: &'static str, message: String) {
        // The scheduler goes on looking for a node by itself.
        if reason != "Unschedulable" && !self.broken.contains(&ordinal) {
            self.broken.push(ordinal);
        }
        if self.failure.is_none() {
            self.failure = Some(Failure { reason, message });
        }
    }
}

/// Whether the kubelet had not read the Secret or ConfigMap yet, which says nothing about whether it is there; it tries
/// again by itself, some seconds later (kubelet, `watch_based_manager.go`).
fn awaits_kubelet(message: &str) -> bool {
    message.contains("failed to sync ") && message.contains(" cache")
}

/// Whether `message` says that a Secret, a ConfigMap or a key of one is not there (kubelet, `kubelet_pods.go`). Under the
/// same reason the kubelet refuses an image that would run as root, for one.
fn names_missing(message: &str) -> bool {
    message.ends_with(" not found") || message.starts_with("couldn't find key ")
}

/// When to ask what keeps the files of `pod` from being mounted; none where it has none, or has them.
pub fn awaits_files(tenant: &Tenant, pod: &PodView) -> Option<Micros> {
    let has_files = tenant.spec.volumes.iter().any(|volume| volume.secret.is_some() || volume.config_map.is_some());
    let since = pod.seen.without_sandbox.as_ref().filter(|_| has_files && is_creating(pod))?;
    Some(Micros(time(since).0.saturating_add(FILES_GRACE)))
}

/// Whether its container waits for what comes before it: volumes, network, image.
fn is_creating(pod: &PodView) -> bool {
    matches!(&pod.seen.container, ContainerSeen::Waiting { reason, .. } if reason == "ContainerCreating")
}

fn growing(observed: &Observed) -> Option<String> {
    observed.claims.iter().find_map(|(ordinal, claim)| {
        let requested = claim.seen.requested.as_deref()?;
        let capacity = claim.seen.capacity.as_deref()?;
        let smaller = capacity.parse::<Quantity>().ok()?.units() < requested.parse::<Quantity>().ok()?.units();
        smaller.then(|| {
            format!(
                "the disk of replica {ordinal} has {capacity}, {requested} are asked for; the storage class grows it"
            )
        })
    })
}
