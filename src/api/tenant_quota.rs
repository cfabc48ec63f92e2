//! `TenantQuota`: how much one tenant organisation may have, over all of its namespaces.

#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct inside a function")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LedgerStatus, Quantity};

/// What one tenant organisation may have.
// In no category, as grants are in none: those who edit services see no objects of the whole cluster.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "TenantQuota",
    plural = "tenantquotas",
    shortname = "tq",
    status = "TenantQuotaStatus",
    derive = "PartialEq",
    doc = "How much one tenant organisation may have, over all of its namespaces. A service that does not fit waits, and is admitted in the order of creation once there is room; what runs is never stopped by a quota.",
    selectable = ".spec.tenantOrg",
    printcolumn(name = "Org", type_ = "string", json_path = ".spec.tenantOrg", description = "Tenant organisation"),
    printcolumn(name = "Containers", type_ = "string", json_path = ".status.summary.containers", description = "Services reserved, of how many"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.summary.replicas", description = "Replicas reserved, of how many"),
    printcolumn(name = "CPU", type_ = "string", json_path = ".status.summary.cpu", description = "CPU reserved, of how much"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.summary.memory", description = "Memory reserved, of how much"),
    printcolumn(name = "Disk", type_ = "string", json_path = ".status.summary.disk", description = "Disk reserved, of how much"),
    printcolumn(name = "GPU", type_ = "string", json_path = ".status.summary.gpu", priority = 1, description = "GPUs reserved, of how many"),
    printcolumn(name = "Vectors", type_ = "string", json_path = ".status.summary.vectors", priority = 1, description = "Vectors reserved, of how many"),
    printcolumn(name = "Waiting", type_ = "integer", json_path = ".status.waiting", description = "Services that wait for room"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether it is in force"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "How the organisation stands"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == self.spec.tenantOrg.lowerAscii().replace('_', '-')").message("metadata.name must be spec.tenantOrg in lower case, with '-' for '_': so there is one quota for each organisation, and it is found by its name"),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantQuotaSpec {
    /// Tenant organisation that the quota is for, as its services name it in `spec.tenantOrg`. Immutable.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message("tenantOrg may contain only letters, digits, '.', '_' and '-', and must begin and end with a letter or digit"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("tenantOrg is immutable: delete the quota and create another one"))]
    pub tenant_org: String,

    /// The most of each that may be reserved at a time; what is left out is counted, and not limited. A limit may be lowered below what is reserved: nothing that runs is stopped, and nothing new is admitted.
    #[serde(default)]
    pub limits: QuotaLimits,
}

/// The most that an organisation may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaLimits {
    /// Services that are not stopped. A quota keeps a reservation for each service of its organisation, at most 4000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4000))]
    pub containers: Option<i64>,
    /// Replicas of all services together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i64>,
    /// CPU of all replicas together, in cores: `20`, `500m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('1048576')) <= 0").message("cpu is counted in cores, at most 1048576: write 20, not 20Gi"))]
    pub cpu: Option<Quantity>,
    /// Memory of all replicas together, in bytes: `64Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('0')) == 0 || quantity(string(self)).compareTo(quantity('1Mi')) >= 0").message("memory is counted in bytes, 0 or at least 1Mi: write 64Gi, not 64"))]
    pub memory: Option<Quantity>,
    /// Disks of all replicas together, in bytes: `500Gi`. Those of stopped services count, and those that outlive their service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('0')) == 0 || quantity(string(self)).compareTo(quantity('1Mi')) >= 0").message("disk is counted in bytes, 0 or at least 1Mi: write 500Gi, not 500"))]
    pub disk: Option<Quantity>,
    /// GPUs of all replicas together, whichever resource they are counted as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub gpu: Option<i64>,
    /// Vectors of all services together, as declared by `spec.vectors.count`, or else by the counts of their indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub vectors: Option<i64>,
}

/// How the organisation stands. Only Berth writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantQuotaStatus {
    /// The `metadata.generation` that this status is about; -1 where nobody has looked at the object yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// The truth, as kstatus reads it. Ready: in force; its reason says how the organisation stands. Reconciling and Stalled are never true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Which leader of Berth wrote this, as a number that grows. 0 where what the organisation has was not counted yet.
    #[serde(default)]
    pub epoch: i64,
    /// The sum of all reservations.
    #[serde(default)]
    pub used: QuotaAmounts,
    /// What is reserved of what may be, for people: `4/10`, or `4/-` where there is no limit.
    #[serde(default)]
    pub summary: QuotaSummary,
    /// Services, or changes of services, that wait for room.
    #[serde(default)]
    pub waiting: i64,
    /// What each service has reserved. A service gets replicas and disks only after it stands here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    // Replaced whole: to note who set which of ten thousand fields would double them.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub reservations: Vec<Reservation>,
    /// What the ledger was told last of the quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// The end of the quota's chain in the ledger.
    #[serde(default)]
    pub ledger: LedgerStatus,
}

/// A record of the quota, by what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// LimitsSet, LimitsChanged, Exhausted, Relieved or Removed.
    #[serde(default)]
    pub reason: String,
    /// The `metadata.generation` that it answers to.
    #[serde(default)]
    pub generation: i64,
    /// Whether it is recorded that somebody waits.
    #[serde(default)]
    pub waits: bool,
}

/// What one service has reserved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The TenantContainer's `metadata.uid`.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// How much it has reserved.
    #[serde(default)]
    pub amounts: QuotaAmounts,
}

/// Amounts of everything that a quota counts; what is zero is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaAmounts {
    /// Services that are not stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<i64>,
    /// Replicas of services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// CPU, in cores.
    // Text in the schema: the rule that a Quantity has would cost too much for each of thousands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub cpu: Option<Quantity>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub memory: Option<Quantity>,
    /// Disks, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub disk: Option<Quantity>,
    /// GPUs, whole ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<i64>,
    /// Vectors, as declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<i64>,
}

/// What is reserved of what may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaSummary {
    /// Services that are not stopped.
    #[serde(default)]
    pub containers: String,
    /// Replicas of services.
    #[serde(default)]
    pub replicas: String,
    /// CPU, in cores.
    #[serde(default)]
    pub cpu: String,
    /// Memory, in bytes.
    #[serde(default)]
    pub memory: String,
    /// Disks, in bytes.
    #[serde(default)]
    pub disk: String,
    /// GPUs, whole ones.
    #[serde(default)]
    pub gpu: String,
    /// Vectors, as declared.
    #[serde(default)]
    pub vectors: String,
}

impl TenantQuota {
    /// What the quota of an organisation is called, if it has one.
    pub fn name_for(tenant_org: &str) -> String {
        tenant_org.to_ascii_lowercase().replace('_', "-")
    }
}
