//! `TenantContainer`: one tenant's service, as its users declare it and as Berth reports it.

#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Toleration, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    LedgerStatus, Quantity,
    release::{Release, Step},
};

/// What one tenant's service should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "TenantContainer",
    plural = "tenantcontainers",
    shortname = "tc",
    category = "all",
    category = "berth",
    namespaced,
    status = "TenantContainerStatus",
    derive = "PartialEq",
    doc = "One tenant's containerised service (a vector-search engine, say). Berth runs it and keeps a permanent ledger of every state it was in.",
    selectable = ".spec.tenantOrg",
    selectable = ".spec.user",
    selectable = ".spec.serviceName",
    selectable = ".spec.desiredState",
    selectable = ".status.phase",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    printcolumn(name = "Org", type_ = "string", json_path = ".spec.tenantOrg", description = "Tenant organisation"),
    printcolumn(name = "User", type_ = "string", json_path = ".spec.user", description = "User that the service belongs to"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.serviceName", description = "Name of the service"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where it is in its life"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether it is as desired"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "Why it is, or is not, as desired"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas", description = "Replicas asked for"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.readyReplicas", description = "Replicas that are ready"),
    printcolumn(name = "Desired", type_ = "string", json_path = ".spec.desiredState", priority = 1, description = "State asked for"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1, description = "Image of the manifest"),
    printcolumn(name = "Release", type_ = "string", json_path = ".status.release.image", priority = 1, description = "Image of a rollout, where that is in effect instead"),
    printcolumn(name = "Rollout", type_ = "string", json_path = ".status.release.rollout", priority = 1, description = "The Deployment that the release in effect comes from"),
    printcolumn(name = "Synced", type_ = "string", json_path = ".status.conditions[?(@.type=='LedgerSynced')].reason", priority = 1, description = "Where its records are"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && !self.metadata.name.contains('.') && !self.metadata.name.matches('^[0-9]')").message("metadata.name must have at most 40 characters, start with a letter and contain only lower-case letters, digits and '-': Services and pods are named after it"),
)]
#[x_kube(validation = Rule::new("!has(self.volumes) || !has(self.resources.disk) || self.volumes.all(v, v.mountPath != self.dataPath && v.name != 'data')").message("a volume cannot be named 'data' or mounted at dataPath: that is where the service's own disk is"))]
#[x_kube(validation = Rule::new("has(self.resources.disk) == has(oldSelf.resources.disk)").message("a disk can be neither added to nor taken from an existing service: create another one"))]
#[x_kube(validation = Rule::new("!has(self.storageClassName) && !has(oldSelf.storageClassName) || has(self.storageClassName) && has(oldSelf.storageClassName) && self.storageClassName == oldSelf.storageClassName").message("storageClassName is immutable: its disks exist already"))]
#[x_kube(validation = Rule::new("(has(self.env) ? self.env.filter(e, has(e.secretKeyRef) || has(e.configMapKeyRef)).size() : 0) + (has(self.volumes) ? self.volumes.filter(v, has(v.secret) || has(v.configMap)).size() : 0) + (has(self.placement) && has(self.placement.imagePullSecrets) ? self.placement.imagePullSecrets.size() : 0) <= 16").message("a spec may refer to Secrets and ConfigMaps at most 16 times in all (env, volumes, imagePullSecrets): several files of one Secret are one volume"))]
#[x_kube(validation = Rule::new("self.ports.size() == 0 || (has(self.probes) && has(self.probes.port) ? self.ports.exists(p, p.name == self.probes.port && p.protocol == 'TCP') : self.ports[0].protocol == 'TCP')").message("the port that probes ask (probes.port, or else the first of ports) must be one of ports and use TCP"))]
#[serde(rename_all = "camelCase")]
pub struct TenantContainerSpec {
    /// Tenant organisation that the service belongs to and is accounted to. It must be the one in the label `berth.dev/tenant-org` of the namespace. Immutable.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message("tenantOrg may contain only letters, digits, '.', '_' and '-', and must begin and end with a letter or digit"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("tenantOrg is immutable: delete the object and create another one"))]
    pub tenant_org: String,

    /// User within the organisation whose service this is; an e-mail address will do. Immutable.
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._@+-]*[A-Za-z0-9])?$')").message("user may contain only letters, digits, '.', '_', '@', '+' and '-', and must begin and end with a letter or digit"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("user is immutable: delete the object and create another one"))]
    pub user: String,

    /// Name of the service, unique among the live services of the user. Immutable.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message("serviceName may contain only letters, digits, '.', '_' and '-', and must begin and end with a letter or digit"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("serviceName is immutable: delete the object and create another one"))]
    pub service_name: String,

    /// Image to run, with its tag or digest. It has to work as user 65532 with a read-only root file system; `/tmp` is writable.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')").message("image must be an image reference such as registry.example/engine:1.2, without spaces"))]
    pub image: String,

    /// When the node pulls the image: Always, IfNotPresent or Never. Left out, Kubernetes chooses: Always for the tag `latest`, else IfNotPresent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,

    /// How many replicas to run. Zero is allowed and is not the same as stopping: the service stays Running, with none.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,

    /// State that the service should be in. Paused takes it out of its Service and keeps its replicas; what does not run yet is started first. Stopped drains it, scales it to zero and keeps its disks.
    #[serde(default)]
    pub desired_state: DesiredState,

    /// What each replica gets.
    pub resources: Resources,

    /// Where each replica's own disk is mounted, when `resources.disk` asks for one.
    #[serde(default = "data_path")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^(/[A-Za-z0-9._-]+)+$') && !self.matches('/[.]{1,2}(/|$)') && self != '/tmp'").message("dataPath must be an absolute path such as /var/lib/engine, without '.', '..' or a '/' at its end, and not /tmp, which is always there"))]
    pub data_path: String,

    /// StorageClass of the disks; left out, the cluster's default. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("storageClassName may contain only lower-case letters, digits, '-' and '.'"))]
    pub storage_class_name: Option<String>,

    /// Ports that the service listens on; each becomes a port of its Service.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.port == a.port && b.protocol == a.protocol))").message("two ports cannot have the same port and protocol: they are ports of one Service"))]
    pub ports: Vec<Port>,

    /// Command to run instead of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[x_kube(validation = Rule::new("self.all(word, !word.contains('\\x00'))").message("command must not contain NUL characters"))]
    pub command: Vec<String>,

    /// Arguments for the command or the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[x_kube(validation = Rule::new("self.all(word, !word.contains('\\x00'))").message("args must not contain NUL characters"))]
    pub args: Vec<String>,

    /// Environment variables, literal or taken from a Secret or ConfigMap of the same namespace. Env, volumes and imagePullSecrets may hold 16 references in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// Further volumes: files from Secrets and ConfigMaps of the same namespace, and scratch space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.mountPath == a.mountPath))").message("two volumes cannot be mounted at the same mountPath"))]
    pub volumes: Vec<Volume>,

    /// How to tell that a replica is ready and alive. Left out, a replica is ready as soon as its first port accepts a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,

    /// What the engine holds, as declared: for capacity planning and billing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<Vectors>,

    /// Vector indexes of the engine, as declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub indexes: Vec<VectorIndex>,

    /// Where replicas may run, and what pulls their image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// How long a service that is being stopped or deleted is kept out of its Service before its replicas end, in seconds, so that requests under way can finish.
    #[serde(default = "drain_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i32,

    /// What becomes of the disks when the object is deleted. Delete removes them. Retain leaves them, without an owner; an administrator can give them to a later service of the same organisation, user, service name and object name.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// What a rollout (kind Deployment of this group) has put in the place of image, and of resources and env where it names them. Berth alone writes it: leave it out of manifests, and it stays. It is void once image is edited: then image counts again.
    // One whole: a tool that replaced the object owns parts of a release that it never knew, and what the next release lacks would stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub release: Option<Release>,
}

fn one() -> i32 {
    1
}

fn data_path() -> String {
    "/data".to_owned()
}

fn drain_seconds() -> i32 {
    5
}

/// When a node pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl PullPolicy {
    /// The word that a Pod uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// State that a user can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// Serving.
    #[default]
    Running,
    /// Out of its Service: nobody reaches it; replicas and disks kept.
    Paused,
    /// Scaled to zero; disks kept.
    Stopped,
}

/// What becomes of disks when their service is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They are removed with it.
    #[default]
    Delete,
    /// They stay.
    Retain,
}

/// Resources of each replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// CPU, in cores: `500m` is half a core. Reserved, and the limit.
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).isLessThan(quantity('0')) || quantity(string(self)).compareTo(quantity('1m')) >= 0 && quantity(string(self)).compareTo(quantity('4096')) <= 0").message("cpu is counted in cores, from 1m to 4096: 500m is half a core"))]
    pub cpu: Quantity,

    /// Memory, in bytes: `512Mi`, `4Gi`. Reserved, and the limit.
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).isLessThan(quantity('0')) || quantity(string(self)).compareTo(quantity('1Mi')) >= 0").message("memory is counted in bytes, at least 1Mi: write 512Mi, not 512m or 512"))]
    pub memory: Quantity,

    /// Size of each replica's own disk: `10Gi`. It can grow, never shrink. Left out, there is no disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).isLessThan(quantity('0')) || quantity(string(self)).compareTo(quantity('1Mi')) >= 0").message("disk is counted in bytes, at least 1Mi: write 10Gi, not 10 or 10m"))]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0").message("a disk can grow but not shrink: create another service and move the data"))]
    pub disk: Option<Quantity>,

    /// GPUs, whole ones, of the resource named by `gpuResource`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 16))]
    pub gpu: i32,

    /// Extended resource that GPUs are counted as.
    #[serde(default = "gpu_resource")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("gpuResource must be an extended resource such as nvidia.com/gpu"))]
    pub gpu_resource: String,
}

fn gpu_resource() -> String {
    "nvidia.com/gpu".to_owned()
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name of the port, unique within the service, at most 15 characters.
    #[schemars(length(max = 15))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.matches('[a-z]') && !self.contains('--')").message("a port's name may contain only lower-case letters, digits and single '-', with at least one letter"))]
    pub name: String,

    /// Port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// Port that the process listens on; left out, the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<i32>,

    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Transmission Control Protocol.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// User Datagram Protocol.
    #[serde(rename = "UDP")]
    Udp,
}

impl Protocol {
    /// The word that a Service uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.value), has(self.secretKeyRef), has(self.configMapKeyRef)].filter(x, x).size() == 1").message("an environment variable needs exactly one of value, secretKeyRef and configMapKeyRef"))]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_.-]*$')").message("an environment variable's name may contain only letters, digits, '_', '-' and '.', and must not begin with a digit"))]
    pub name: String,

    /// Literal value. Do not put secrets here: use secretKeyRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    #[x_kube(validation = Rule::new("!self.contains('\\x00')").message("an environment variable must not contain NUL characters"))]
    pub value: Option<String>,

    /// Value from a Secret of this namespace. Whoever writes this must be allowed to read that Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,

    /// Value from a ConfigMap of this namespace. Whoever writes this must be allowed to read that ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of a Secret or ConfigMap in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the Secret or ConfigMap.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("the name of a Secret or ConfigMap may contain only lower-case letters, digits, '-' and '.'"))]
    pub name: String,
    /// Key within it.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._A-Za-z0-9]+$')").message("a key of a Secret or ConfigMap may contain only letters, digits, '-', '_' and '.'"))]
    pub key: String,
}

/// One further volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.secret), has(self.configMap), has(self.emptyDir)].filter(x, x).size() == 1").message("a volume needs exactly one of secret, configMap and emptyDir"))]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name of the volume, unique within the service; not `data` and not `tmp`.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self != 'tmp'").message("a volume's name may contain only lower-case letters, digits and '-', and cannot be 'tmp'"))]
    pub name: String,

    /// Absolute path where it is mounted.
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^(/[A-Za-z0-9._-]+)+$') && !self.matches('/[.]{1,2}(/|$)') && self != '/tmp'").message("mountPath must be an absolute path such as /etc/engine, without '.', '..' or a '/' at its end, and not /tmp, which is always there"))]
    pub mount_path: String,

    /// Files from a Secret of this namespace, read-only. Whoever writes this must be allowed to read that Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<NameRef>,

    /// Files from a ConfigMap of this namespace, read-only. Whoever writes this must be allowed to read that ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<NameRef>,

    /// Scratch space that lives as long as the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
}

/// An object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name of the object.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("the name of a Secret or ConfigMap may contain only lower-case letters, digits, '-' and '.'"))]
    pub name: String,
}

/// Scratch space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// How much it may hold before the replica is evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Quantity>,
}

/// How a replica's health is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probes {
    /// Name of the port to ask; left out, the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub port: Option<String>,

    /// HTTP path that answers 2xx or 3xx while the replica can serve. Left out, a TCP connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^/[!-~]*$')").message("readinessPath must begin with '/' and contain no spaces or control characters"))]
    pub readiness_path: Option<String>,

    /// HTTP path that answers 2xx or 3xx while the replica need not be restarted. Left out, it is never restarted for its answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^/[!-~]*$')").message("livenessPath must begin with '/' and contain no spaces or control characters"))]
    pub liveness_path: Option<String>,

    /// How long a replica may take to become ready for the first time before it is restarted, in seconds.
    #[serde(default = "startup_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub startup_seconds: i32,
}

fn startup_seconds() -> i32 {
    300
}

/// What the engine holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vectors {
    /// Dimension of its vectors.
    #[schemars(range(min = 1, max = 65536))]
    pub dimension: i32,
    /// How many there are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub count: Option<i64>,
}

/// One vector index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VectorIndex {
    /// Name of the index, unique within the service.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("!self.matches('[[:cntrl:]]')").message("the name of an index must not contain control characters"))]
    pub name: String,
    /// Dimension of its vectors.
    #[schemars(range(min = 1, max = 65536))]
    pub dimension: i32,
    /// How distance is measured.
    #[serde(default)]
    pub metric: Metric,
    /// How many vectors it is to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub count: Option<i64>,
}

/// Distance between vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Angle.
    #[default]
    Cosine,
    /// Dot product.
    Dot,
    /// Squared Euclidean distance.
    L2Squared,
    /// Sum of absolute differences.
    Manhattan,
    /// Number of differing positions.
    Hamming,
}

impl Metric {
    /// The word in the manifest and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::L2Squared => "l2-squared",
            Self::Manhattan => "manhattan",
            Self::Hamming => "hamming",
        }
    }
}

/// Where replicas may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(validation = Rule::new("self.all(key, key.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$') && self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))").message("nodeSelector must consist of labels: names such as topology.kubernetes.io/zone, values of letters, digits, '-', '_' and '.'"))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that replicas tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(t, (!has(t.operator) || t.operator in ['', 'Exists', 'Equal', 'Lt', 'Gt']) && (!has(t.effect) || t.effect in ['', 'NoSchedule', 'PreferNoSchedule', 'NoExecute']))").message("a toleration's operator is Exists, Equal, Lt or Gt, its effect NoSchedule, PreferNoSchedule or NoExecute"))]
    #[x_kube(validation = Rule::new("self.all(t, (has(t.key) && t.key != '') || (has(t.operator) && t.operator == 'Exists'))").message("a toleration without key needs the operator Exists"))]
    pub tolerations: Vec<Toleration>,

    /// PriorityClass of the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("priorityClassName may contain only lower-case letters, digits, '-' and '.'"))]
    #[x_kube(validation = Rule::new("!self.startsWith('system-')").message("priorityClassName must not be one of the system's own"))]
    pub priority_class_name: Option<String>,

    /// Secrets of this namespace, of type kubernetes.io/dockerconfigjson, that the image is pulled with. Whoever writes this must be allowed to read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub image_pull_secrets: Vec<NameRef>,
}

/// What Berth sees of the service. Only Berth writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantContainerStatus {
    /// The `metadata.generation` that this status is about; -1 where nobody has looked at the object yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where the service is in its life, for people: Pending, Running, Paused, Stopped, Failed or Deleted. Programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The truth, as kstatus reads it. Ready: as desired, also when paused or stopped. Reconciling: on the way. Stalled: it will not go on by itself. Available: it serves. LedgerSynced: where its records are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Replicas that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Selector of the replicas, for `kubectl scale` and autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Address of the service inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Since when the service has been in its phase (RFC 3339, UTC, microseconds): the time in its last record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The request that is being worked on, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationStatus>,
    /// Fingerprint of the part of the spec that pods are made from, as last rolled out: tells a restart from a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The release that is in effect in the place of `spec.image`. Not there where `spec.image` itself is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseStatus>,
    /// Tries to get it going after it failed. Not there where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetryStatus>,
    /// The end of the object's chain in the ledger.
    #[serde(default)]
    pub ledger: LedgerStatus,
}

/// A release that is in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// The image that it brings.
    pub image: String,
    /// The Deployment that it comes from, as `namespace/name`.
    pub rollout: String,
    /// The uid of that Deployment.
    pub uid: String,
    /// The revision of that Deployment.
    pub revision: String,
    /// Whether it is that revision, or what was before it, put back.
    pub step: Step,
    /// Since when it has been in effect (RFC 3339, UTC, microseconds).
    pub since: String,
    /// The longest that the service was Ready with it in one go, in seconds, of what came to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_seconds: Option<i64>,
    /// The longest that the service was Available with it in one go, in seconds, of what came to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_seconds: Option<i64>,
}

/// Tries after a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryStatus {
    /// Tries of Berth's own; at 5 it gives up. Forgotten once the service has run for ten minutes.
    #[serde(default)]
    pub count: i32,
    /// The `status.revision` that they were tries of: a changed spec begins anew.
    #[serde(default)]
    pub revision: String,
    /// When the last one was (RFC 3339, UTC, microseconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The value of the annotation `berth.dev/retry` that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
}

/// One request and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// Identifier of the request, the same as in the ledger.
    #[serde(default)]
    pub id: String,
    /// What was asked for: Create, Update, Scale, Release, Restart, Retry, Pause, Resume, Stop, Start or Delete.
    #[serde(default)]
    pub action: String,
    /// Who asked, as `user:NAME`, `guess:NAME` or `unknown:`.
    #[serde(default)]
    pub actor: String,
    /// The generation that carries the request.
    #[serde(default)]
    pub generation: i64,
    /// When it was asked for (RFC 3339, UTC, microseconds).
    #[serde(default)]
    pub started_at: String,
    /// Succeeded, Failed or Superseded, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}
