//! `Deployment`: a release rolled out over a fleet of TenantContainers, wave by wave.

#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, LabelSelectorRequirement},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LedgerStatus, release::Content};

/// A release, and how it goes over a fleet.
// In no category, as AccessGrants: `kubectl get berth` has to work for whoever may see services.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Deployment",
    plural = "deployments",
    shortname = "bdeploy",
    namespaced,
    status = "DeploymentStatus",
    derive = "PartialEq",
    doc = "A release rolled out over a fleet of TenantContainers, wave by wave, each behind a gate. Not the Deployment of apps/v1: `kubectl get bdeploy`.",
    selectable = ".status.phase",
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.release.image", description = "Image that is rolled out"),
    printcolumn(name = "Done", type_ = "string", json_path = ".status.progress", description = "Targets that have the release and are past its gate, of all"),
    printcolumn(name = "Wave", type_ = "string", json_path = ".status.wave", description = "The wave that is under way, of how many"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where the rollout is"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed", description = "Targets that have the release and failed"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether the fleet is as desired"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1, description = "Why it is, or is not, as desired"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision", priority = 1, description = "Fingerprint of the release"),
    printcolumn(name = "Diverged", type_ = "integer", json_path = ".status.diverged", priority = 1, description = "Targets whose image was edited after the release"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters"),
)]
#[x_kube(validation = Rule::new("!has(self.strategy) || !has(self.strategy.waves) || self.strategy.waves.all(w, !has(w.gate) || w.gate.seconds < self.progressDeadlineSeconds)").message("progressDeadlineSeconds must be longer than the gate of each wave: no target could pass it in time"))]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// Which TenantContainers, by their labels. Empty: all of them. A TenantContainer belongs to one Deployment only; a second that selects it does nothing, and says so.
    pub selector: Selector,

    /// In which namespaces, by their labels; left out, in its own. Whoever writes this must be allowed to update TenantContainers, and to read Secrets and ConfigMaps, in all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,

    /// What is rolled out.
    pub release: Content,

    /// Raise it to roll the same release out once more, say after it was rolled back.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempt: i32,

    /// In which order, how fast, and what becomes of a release that fails.
    #[serde(default)]
    pub strategy: Strategy,

    /// How long a target may take, once it has begun with the release, to pass the gate of its wave, in seconds. Then it has failed.
    #[serde(default = "progress_deadline_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub progress_deadline_seconds: i32,

    /// While true nothing more is begun. What has begun goes on, and is watched.
    #[serde(default)]
    pub paused: bool,

    /// While true each target that has this release gets back what it had before.
    #[serde(default)]
    pub roll_back: bool,

    /// Waves that somebody has approved, for one revision each; `berth rollout approve` adds one. Whoever adds one must be allowed to update deployments/approve (a name that exists for RBAC only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["wave".into(), "revision".into()]))]
    pub approvals: Vec<Approval>,
}

fn progress_deadline_seconds() -> i32 {
    600
}

/// Which objects, by their labels: all requirements count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that an object must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,

    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0").message("In and NotIn need values; Exists and DoesNotExist have none"))]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// Name of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: Operator,
    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of them, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Operator {
    const fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }
}

impl From<&Selector> for LabelSelector {
    fn from(selector: &Selector) -> Self {
        let Selector { match_labels, match_expressions } = selector;
        let expression = |requirement: &Requirement| LabelSelectorRequirement {
            key: requirement.key.clone(),
            operator: requirement.operator.as_str().to_owned(),
            values: (!requirement.values.is_empty()).then(|| requirement.values.clone()),
        };
        Self {
            match_labels: (!match_labels.is_empty()).then(|| match_labels.clone()),
            match_expressions: (!match_expressions.is_empty())
                .then(|| match_expressions.iter().map(expression).collect()),
        }
    }
}

/// How a release goes over the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// Waves, one after the other. The last one takes whatever no other has; left out, there is only that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.size() == 0 || !has(self[self.size() - 1].selector) && !has(self[self.size() - 1].count) && !has(self[self.size() - 1].percent)").message("the last wave takes whatever no other has: it has no selector, count or percent"))]
    #[x_kube(validation = Rule::new("self.filter(w, !has(w.selector) && !has(w.count) && !has(w.percent)).size() <= 1").message("each wave but the last needs a selector, a count or a percent"))]
    pub waves: Vec<Wave>,

    /// What follows when more targets have failed than a wave allows.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What follows when a gate fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Nothing more is begun. What works is kept, and the rollout goes on once no more have failed than are allowed.
    #[default]
    Pause,
    /// Each target that has the release gets back what it had before.
    RollBack,
}

/// A part of the fleet that gets the release at the same stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.selector), has(self.count), has(self.percent)].filter(x, x).size() <= 1").message("a wave has one of selector, count and percent"))]
#[serde(rename_all = "camelCase")]
pub struct Wave {
    /// Name of the wave.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("a wave's name may contain only lower-case letters, digits and '-'"))]
    pub name: String,

    /// Those of the fleet with these labels that no earlier wave has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,

    /// So many that no earlier wave has, in the order of namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub count: Option<i32>,

    /// So many percent of the whole fleet, rounded up, that no earlier wave has, in the order of namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub percent: Option<i32>,

    /// How many targets may be out of service, or on their way to the release, at once: of this wave and of all before it. A number, or a percentage of this wave's targets (rounded down, at least 1). A target that has failed counts until it is well.
    #[serde(default = "one")]
    // By pattern: of a value that may be a number the API server's reckoning of CEL assumes the longest string.
    #[schemars(extend("nullable" = false, "minimum" = 1, "pattern" = "^([1-9][0-9]?|100)%$"))]
    pub max_unavailable: IntOrString,

    /// How many targets of this wave may fail before the gate has failed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_failures: i32,

    /// How long the wave has to stay well once all of it is past the gate, in seconds, before the next begins.
    #[serde(default)]
    #[schemars(range(min = 0, max = 604_800))]
    pub soak_seconds: i32,

    /// What each target has to show.
    #[serde(default)]
    pub gate: Gate,

    /// Whether somebody has to approve the wave before it begins.
    #[serde(default)]
    pub approval: ApprovalMode,
}

fn one() -> IntOrString {
    IntOrString::Int(1)
}

impl Wave {
    /// What rolls out where no wave is named: all of the fleet, one target at a time.
    pub fn everything() -> Self {
        Self {
            name: "all".to_owned(),
            selector: None,
            count: None,
            percent: None,
            max_unavailable: one(),
            max_failures: 0,
            soak_seconds: 0,
            gate: Gate::default(),
            approval: ApprovalMode::Automatic,
        }
    }
}

/// What a target has to show to be past the gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Ready: it is as desired. Available: it also has served all that time, without a gap.
    #[serde(default)]
    pub condition: GateCondition,
    /// For how long, in seconds.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub seconds: i32,
}

/// The condition that a gate looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateCondition {
    /// As desired.
    #[default]
    Ready,
    /// As desired, and serving.
    Available,
}

/// Whether a wave waits for somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalMode {
    /// It begins by itself.
    #[default]
    Automatic,
    /// Somebody has to approve it.
    Manual,
}

/// A wave that somebody has approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Name of the wave.
    #[schemars(length(max = 63))]
    pub wave: String,
    /// The revision that is approved: `status.revision`. Another release needs another approval.
    #[schemars(length(max = 64))]
    pub revision: String,
    /// Who did. The API server writes this, whatever was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub by: Option<String>,
}

/// What Berth sees of the rollout. Only Berth writes it; which target gets what does not depend on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// The `metadata.generation` that this status is about; -1 where nobody has looked at the object yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where the rollout is, for people: Progressing, AwaitingApproval, Soaking, Paused, Failed, RollingBack, RolledBack, Complete or Refused. Programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The truth, as kstatus reads it. Ready: as desired. Reconciling: on the way. Stalled: it will not go on by itself. Progressing: as apps/v1 has it. Diverged: images were edited after the release. Conflict: another Deployment has its targets. LedgerSynced: its records are in the ledger's home.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Fingerprint of the release: what is approved, and what each target says that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Targets that are past the gate, of all, as `12/40`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The wave that is under way, as `2 of 4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
    /// Targets in all.
    #[serde(default)]
    pub targets: i32,
    /// Targets that have the release.
    #[serde(default)]
    pub released: i32,
    /// Targets that have it and are past the gate.
    #[serde(default)]
    pub done: i32,
    /// Targets that have it and failed.
    #[serde(default)]
    pub failed: i32,
    /// Targets that have back what they had before.
    #[serde(default)]
    pub rolled_back: i32,
    /// Targets whose image was edited after the release, which is void there.
    #[serde(default)]
    pub diverged: i32,
    /// Targets that Berth is told to leave alone, and so the rollout does too.
    #[serde(default)]
    pub skipped: i32,
    /// Each wave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<WaveStatus>,
    /// What went wrong, target by target; the first twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub failures: Vec<TargetStatus>,
    /// What the ledger was told last of the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// The end of the rollout's chain in the ledger.
    #[serde(default)]
    pub ledger: LedgerStatus,
}

/// How far a rollout is, as far as the ledger was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The revision that it is about.
    #[serde(default)]
    pub revision: String,
    /// The `metadata.generation` that the last record answers to.
    #[serde(default)]
    pub generation: i64,
    /// The phase that was recorded.
    #[serde(default)]
    pub phase: String,
    /// Why it was that; Removed once the object's end is recorded.
    #[serde(default)]
    pub reason: String,
    /// When the rollout began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<String>,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Each wave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<RecordedWave>,
    /// Where the outcomes of targets are more than one record holds: up to where they were told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// How far a wave is, as far as the ledger was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedWave {
    /// Name of the wave.
    #[serde(default)]
    pub name: String,
    /// The phase that was recorded.
    #[serde(default)]
    pub phase: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<String>,
    /// When it was through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A place among the targets of which a record is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// Fingerprint of what has happened: the place holds for that alone.
    #[serde(default)]
    pub turn: String,
    /// Namespace and name of the last target that was told of.
    #[serde(default)]
    pub after: String,
}

/// How far a wave is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveStatus {
    /// Name of the wave.
    #[serde(default)]
    pub name: String,
    /// Where it is: Waiting, AwaitingApproval, Progressing, Soaking, Failed or Done.
    #[serde(default)]
    pub phase: String,
    /// Targets in it.
    #[serde(default)]
    pub targets: i32,
    /// Those that have the release.
    #[serde(default)]
    pub released: i32,
    /// Those that have it and are past the gate.
    #[serde(default)]
    pub done: i32,
    /// Those that have it and failed.
    #[serde(default)]
    pub failed: i32,
    /// Who approved it, if somebody had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

/// A target that needs somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Namespace of the TenantContainer.
    #[serde(default)]
    pub namespace: String,
    /// Name of the TenantContainer.
    #[serde(default)]
    pub name: String,
    /// One CamelCase word.
    #[serde(default)]
    pub reason: String,
    /// A sentence.
    #[serde(default)]
    pub message: String,
}
