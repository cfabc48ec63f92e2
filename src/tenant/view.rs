//! Projections: what the planner reads of each child, and nothing more, made while a list or watch is decoded.
//!
//! A whole StatefulSet takes some 15 kB of memory, its view a few hundred bytes; with 18,000 children that decides
//! whether the operator needs 13 MB or 270 MB (docs/benchmarks.md).
//!
//! Owns: those small types. Must never: keep a field that nobody reads; talk to an API server.

use std::{
    borrow::Cow,
    collections::{BTreeMap, hash_map::DefaultHasher},
    fmt::Debug,
    hash::{Hash, Hasher},
};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{Namespace, PersistentVolumeClaim, Pod, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::names;
use crate::api::Quantity;

/// What of an object's `spec` and `status` is kept.
pub trait Project: Clone + Debug + Send + Sync + 'static {
    /// The kind in the cluster.
    type Kind: Resource<DynamicType = ()>;
    /// What is read of the spec.
    type Spec: DeserializeOwned + Default;
    /// What is read of the status.
    type Status: DeserializeOwned + Default;

    /// Keeps what is needed.
    fn project(spec: Self::Spec, status: Self::Status) -> Self;
}

/// A child as it was seen: trimmed metadata and the projection.
#[derive(Clone, Debug)]
pub struct View<P> {
    /// name, namespace, uid, resourceVersion, generation, deletionTimestamp, owner references, Berth's own labels and annotations.
    pub metadata: ObjectMeta,
    /// Who has set which fields.
    pub fields: Fields,
    /// What else is read.
    pub seen: P,
}

/// Who has set which fields of a child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Somebody but Berth has set fields of the spec.
    pub others: bool,
    /// Fingerprint of Berth's fields, and of others' in the spec: any edit changes it, also one that only takes away.
    pub print: u64,
}

impl<P> View<P> {
    /// The uid of the TenantContainer that controls the object.
    pub fn owner_uid(&self) -> Option<&str> {
        let owners = self.metadata.owner_references.as_ref()?;
        owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
    }

    /// The hash of what Berth built it from.
    pub fn built_from(&self) -> Option<&str> {
        Some(self.metadata.annotations.as_ref()?.get(names::BUILT_FROM)?.as_str())
    }

    /// Berth's label of that name.
    pub fn label(&self, name: &str) -> Option<&str> {
        Some(self.metadata.labels.as_ref()?.get(name)?.as_str())
    }

    /// Whether it is on its way out.
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<OwnerReference>,
    #[serde(default)]
    managed_fields: Vec<WireManager>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireManager {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    subresource: String,
    fields_v1: Option<Value>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = ""))]
struct Wire<P: Project> {
    metadata: WireMeta,
    #[serde(default)]
    spec: P::Spec,
    #[serde(default)]
    status: P::Status,
}

impl<'de, P: Project> Deserialize<'de> for View<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::<P>::deserialize(deserializer)?;
        let fields = Fields::of(&metadata.managed_fields);
        Ok(Self { metadata: metadata.trim(), fields, seen: P::project(spec, status) })
    }
}

impl Fields {
    fn of(managers: &[WireManager]) -> Self {
        let mut fields = Self::default();
        let mut hasher = DefaultHasher::new();
        for manager in managers.iter().filter(|manager| manager.subresource != "status") {
            let Some(all) = &manager.fields_v1 else { continue };
            if manager.manager == names::FIELD_MANAGER {
                all.to_string().hash(&mut hasher);
            } else if let Some(spec) = all.get("f:spec").filter(|spec| is_edit(spec)) {
                fields.others = true;
                (&manager.manager, spec.to_string()).hash(&mut hasher);
            }
        }
        fields.print = hasher.finish();
        fields
    }
}

/// The volume's name in a claim is the binder's to set.
fn is_edit(spec: &Value) -> bool {
    spec.as_object().is_some_and(|fields| fields.keys().any(|key| key != "f:volumeName" && key != "."))
}

impl WireMeta {
    fn trim(self) -> ObjectMeta {
        let ours = |map: BTreeMap<String, String>| {
            let kept: BTreeMap<_, _> = map.into_iter().filter(|(key, _)| names::is_ours(key)).collect();
            (!kept.is_empty()).then_some(kept)
        };
        ObjectMeta {
            name: self.name,
            namespace: self.namespace,
            uid: self.uid,
            resource_version: self.resource_version,
            generation: self.generation,
            creation_timestamp: self.creation_timestamp,
            deletion_timestamp: self.deletion_timestamp,
            labels: ours(self.labels),
            annotations: ours(self.annotations),
            owner_references: (!self.owner_references.is_empty()).then_some(self.owner_references),
            ..ObjectMeta::default()
        }
    }
}

impl<P: Project> Resource for View<P> {
    type DynamicType = ();
    type Scope = <P::Kind as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        P::Kind::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        P::Kind::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        P::Kind::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        P::Kind::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The shape that most of the wire structs below share: absent means default.
macro_rules! wire {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[doc(hidden)]
        pub struct $name { $($(#[$field_meta])* $field: $type),* }
    };
}

/// Nothing of it is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ignored {}

/// A StatefulSet: how far its rollout is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetSeen {
    /// Replicas it was told to run.
    pub replicas: i32,
    /// Image of its first container.
    pub image: String,
    /// The restart annotation that its pods carry.
    pub restarted_at: Option<String>,
    /// The generation that its controller has looked at.
    pub observed_generation: i64,
    /// Pods that exist.
    pub current: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods of the newest revision.
    pub updated: i32,
    /// The newest revision.
    pub update_revision: String,
}

wire! { StatefulSetSpecWire { replicas: Option<i32>, template: TemplateWire } }
wire! { TemplateWire { metadata: TemplateMetaWire, spec: TemplateSpecWire } }
wire! { TemplateMetaWire { annotations: BTreeMap<String, String> } }
wire! { TemplateSpecWire { containers: Vec<ContainerWire> } }
wire! { ContainerWire { image: String, resources: ResourcesWire } }
wire! { ResourcesWire { limits: BTreeMap<String, String> } }
wire! { StatefulSetStatusWire { observed_generation: i64, replicas: i32, ready_replicas: i32, updated_replicas: i32, update_revision: String } }

impl Project for StatefulSetSeen {
    type Kind = StatefulSet;
    type Spec = StatefulSetSpecWire;
    type Status = StatefulSetStatusWire;

    fn project(spec: StatefulSetSpecWire, status: StatefulSetStatusWire) -> Self {
        let mut template = spec.template;
        Self {
            replicas: spec.replicas.unwrap_or(1),
            image: template
                .spec
                .containers
                .first_mut()
                .map(|container| std::mem::take(&mut container.image))
                .unwrap_or_default(),
            restarted_at: template.metadata.annotations.remove(crate::api::RESTARTED_AT_ANNOTATION),
            observed_generation: status.observed_generation,
            current: status.replicas,
            ready: status.ready_replicas,
            updated: status.updated_replicas,
            update_revision: status.update_revision,
        }
    }
}

/// A pod: where it is, how it is, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSeen {
    /// Node, once scheduled.
    pub node: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Since when and why the scheduler finds no node for it.
    pub unschedulable: Option<(Option<Time>, String)>,
    /// Since when it has a node, as long as its sandbox (volumes and network) is not there.
    pub without_sandbox: Option<Time>,
    /// Image as asked for.
    pub image: String,
    /// What runs, once pulled.
    pub image_id: Option<String>,
    /// Restarts of its container.
    pub restarts: i32,
    /// How its container is.
    pub container: ContainerSeen,
    /// How its container ended the last time: reason and exit code.
    pub last_end: Option<(String, i32)>,
    /// CPU that it is to have, in thousandths of a core.
    pub cpu: Option<i64>,
    /// CPU that its container has, where the node tells; then it can be changed in place.
    pub actual_cpu: Option<i64>,
    /// Why its node does not change it for now, or never: reason and message.
    pub resize_pending: Option<(String, String)>,
    /// The generation that its node has looked at.
    pub looked_at: Option<i64>,
}

/// How a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ContainerSeen {
    /// Nobody has reported on it yet.
    #[default]
    Unknown,
    /// Not running yet, or not any more for now.
    Waiting {
        /// Why.
        reason: String,
        /// In a sentence.
        message: String,
    },
    /// Running.
    Running {
        /// Since when.
        started_at: Option<Time>,
    },
    /// Ended.
    Terminated {
        /// Why.
        reason: String,
        /// Exit code.
        exit_code: i32,
        /// When it started.
        started_at: Option<Time>,
        /// When it ended.
        finished_at: Option<Time>,
    },
}

wire! { PodSpecWire { node_name: Option<String>, containers: Vec<ContainerWire> } }
wire! { PodStatusWire {
    observed_generation: Option<i64>, conditions: Vec<PodConditionWire>, container_statuses: Vec<ContainerStatusWire>
} }
wire! { PodConditionWire {
    r#type: String, status: String, reason: String, message: String, last_transition_time: Option<Time>
} }
wire! { ContainerStatusWire {
    #[serde(rename = "imageID")] image_id: String, restart_count: i32, state: StateWire, last_state: StateWire,
    resources: ResourcesWire
} }
wire! { StateWire { waiting: Option<WaitingWire>, running: Option<RunningWire>, terminated: Option<TerminatedWire> } }
wire! { WaitingWire { reason: String, message: String } }
wire! { RunningWire { started_at: Option<Time> } }
wire! { TerminatedWire { reason: String, exit_code: i32, started_at: Option<Time>, finished_at: Option<Time> } }

impl Project for PodSeen {
    type Kind = Pod;
    type Spec = PodSpecWire;
    type Status = PodStatusWire;

    fn project(spec: PodSpecWire, status: PodStatusWire) -> Self {
        let condition = |name: &str| status.conditions.iter().find(|condition| condition.r#type == name);
        let ready = condition("Ready").is_some_and(|condition| condition.status == "True");
        let unschedulable = condition("PodScheduled")
            .filter(|condition| condition.status == "False" && condition.reason == "Unschedulable")
            .map(|condition| (condition.last_transition_time.clone(), condition.message.clone()));
        let has_sandbox = condition("PodReadyToStartContainers").is_some_and(|condition| condition.status == "True");
        let without_sandbox = condition("PodScheduled")
            .filter(|condition| condition.status == "True" && !has_sandbox)
            .and_then(|condition| condition.last_transition_time.clone());
        let resize_pending = condition("PodResizePending")
            .filter(|condition| condition.status == "True")
            .map(|condition| (condition.reason.clone(), condition.message.clone()));
        let report = status.container_statuses.into_iter().next().unwrap_or_default();
        let container = spec.containers.into_iter().next().unwrap_or_default();
        Self {
            node: spec.node_name,
            ready,
            unschedulable,
            without_sandbox,
            cpu: container.resources.cpu_millis(),
            actual_cpu: report.resources.cpu_millis(),
            resize_pending,
            looked_at: status.observed_generation,
            image: container.image,
            image_id: (!report.image_id.is_empty()).then_some(report.image_id),
            restarts: report.restart_count,
            container: report.state.into(),
            last_end: report.last_state.terminated.map(|end| (end.reason, end.exit_code)),
        }
    }
}

impl ResourcesWire {
    /// The limit, which is the request as well.
    fn cpu_millis(&self) -> Option<i64> {
        Some(self.limits.get("cpu")?.parse::<Quantity>().ok()?.millis())
    }
}

impl From<StateWire> for ContainerSeen {
    fn from(state: StateWire) -> Self {
        match state {
            StateWire { terminated: Some(end), .. } => Self::Terminated {
                reason: end.reason,
                exit_code: end.exit_code,
                started_at: end.started_at,
                finished_at: end.finished_at,
            },
            StateWire { running: Some(running), .. } => Self::Running { started_at: running.started_at },
            StateWire { waiting: Some(waiting), .. } => {
                Self::Waiting { reason: waiting.reason, message: waiting.message }
            }
            _ => Self::Unknown,
        }
    }
}

/// A claim: how big it is asked to be, and is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimSeen {
    /// Bytes asked for, as written.
    pub requested: Option<String>,
    /// Bytes there are, as written.
    pub capacity: Option<String>,
}

wire! { ClaimSpecWire { resources: ClaimResourcesWire } }
wire! { ClaimResourcesWire { requests: BTreeMap<String, String> } }
wire! { ClaimStatusWire { capacity: BTreeMap<String, String> } }

impl Project for ClaimSeen {
    type Kind = PersistentVolumeClaim;
    type Spec = ClaimSpecWire;
    type Status = ClaimStatusWire;

    fn project(mut spec: ClaimSpecWire, mut status: ClaimStatusWire) -> Self {
        Self { requested: spec.resources.requests.remove("storage"), capacity: status.capacity.remove("storage") }
    }
}

/// A child of which only the metadata is read.
#[derive(Debug)]
pub struct MetadataOnly<K>(std::marker::PhantomData<fn() -> K>);

impl<K> Clone for MetadataOnly<K> {
    fn clone(&self) -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<K: Resource<DynamicType = ()> + Debug + 'static> Project for MetadataOnly<K> {
    type Kind = K;
    type Spec = Ignored;
    type Status = Ignored;

    fn project(_: Ignored, _: Ignored) -> Self {
        Self(std::marker::PhantomData)
    }
}

/// A StatefulSet.
pub type StatefulSetView = View<StatefulSetSeen>;
/// A pod.
pub type PodView = View<PodSeen>;
/// A PersistentVolumeClaim.
pub type ClaimView = View<ClaimSeen>;
/// A Service.
pub type ServiceView = View<MetadataOnly<Service>>;
/// A ServiceAccount.
pub type ServiceAccountView = View<MetadataOnly<ServiceAccount>>;
/// A PodDisruptionBudget.
pub type BudgetView = View<MetadataOnly<PodDisruptionBudget>>;

/// A namespace, with all its labels: the ledger keeps them.
#[derive(Clone, Debug, Deserialize)]
pub struct NamespaceView {
    /// Trimmed metadata.
    #[serde(deserialize_with = "namespace_metadata")]
    pub metadata: ObjectMeta,
}

fn namespace_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut wire = WireMeta::deserialize(deserializer)?;
    let labels = std::mem::take(&mut wire.labels);
    let mut metadata = wire.trim();
    metadata.labels = Some(labels);
    Ok(metadata)
}

impl Resource for NamespaceView {
    type DynamicType = ();
    type Scope = <Namespace as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        Namespace::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        Namespace::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        Namespace::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        Namespace::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
