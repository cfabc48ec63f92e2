//! A rollout in which nothing is missing that the planner needs.
//!
//! Owns: reading a Deployment, and the fingerprint of its release. Must never: look at a target.

use crate::{
    api::{
        Deployment,
        deployment::{Approval, ApprovalMode, DeploymentSpec, OnFailure, Strategy, Wave},
        release::{Content, Origin, Step},
    },
    ledger::Hash,
};

/// A rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Namespace of the Deployment.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: what a target's release names.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Fingerprint of the release and its attempt.
    pub revision: String,
    /// What is rolled out.
    pub content: Content,
    /// In which order; never empty, and the last takes what no other has.
    pub waves: Vec<Wave>,
    /// What follows when a gate fails.
    pub on_failure: OnFailure,
    /// How long a target may take, in microseconds.
    pub deadline: i64,
    /// Nothing more is begun.
    pub paused: bool,
    /// Every target gets back what it had.
    pub roll_back: bool,
    /// The approvals that count for this revision.
    pub approvals: Vec<Approval>,
}

/// The API server left out what it always sets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata.{0} is missing or is not what Kubernetes writes there")]
pub struct Damaged(pub &'static str);

/// Reads `object`.
pub fn read(object: &Deployment) -> Result<Rollout, Damaged> {
    let metadata = &object.metadata;
    let DeploymentSpec {
        selector: _,
        namespace_selector: _,
        release,
        attempt,
        strategy: Strategy { waves, on_failure },
        progress_deadline_seconds,
        paused,
        roll_back,
        approvals,
    } = &object.spec;
    let revision = revision(release, *attempt);
    Ok(Rollout {
        namespace: metadata.namespace.clone().ok_or(Damaged("namespace"))?,
        name: metadata.name.clone().ok_or(Damaged("name"))?,
        uid: metadata.uid.clone().ok_or(Damaged("uid"))?,
        generation: metadata.generation.ok_or(Damaged("generation"))?,
        content: release.clone(),
        waves: if waves.is_empty() { vec![Wave::everything()] } else { waves.clone() },
        on_failure: *on_failure,
        deadline: seconds(*progress_deadline_seconds),
        paused: *paused,
        roll_back: *roll_back,
        approvals: approvals.iter().filter(|approval| approval.revision == revision).cloned().collect(),
        revision,
    })
}

/// Seconds of a spec in microseconds.
pub fn seconds(seconds: i32) -> i64 {
    i64::from(seconds) * 1_000_000
}

/// Fingerprint of what is rolled out: the same release in the same attempt has the same one, whatever else is changed.
fn revision(content: &Content, attempt: i32) -> String {
    let Content { image, resources, env } = content;
    let parts = serde_json::json!([image, resources, env, attempt]);
    Hash::of(parts.to_string().as_bytes()).to_string()[..16].to_owned()
}

impl Rollout {
    /// What a release of this rollout says of itself.
    pub fn origin(&self, wave: usize, step: Step) -> Origin {
        Origin {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            revision: self.revision.clone(),
            wave: i32::try_from(wave + 1).unwrap_or(i32::MAX),
            step,
        }
    }

    /// Whether a release is of this rollout and this revision.
    pub fn is_origin(&self, origin: &Origin) -> bool {
        origin.uid == self.uid && origin.revision == self.revision
    }

    /// Who approved `wave`, where somebody has to: None where nobody has yet.
    pub fn approval(&self, wave: &Wave) -> Option<&Approval> {
        self.approvals.iter().find(|approval| approval.wave == wave.name)
    }

    /// Whether `wave` may begin.
    pub fn is_approved(&self, wave: &Wave) -> bool {
        wave.approval == ApprovalMode::Automatic || self.approval(wave).is_some()
    }
}
