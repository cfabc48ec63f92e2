//! `AccessGrant`: who may do what in a namespace, and until when.

#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LedgerStatus;

/// Access in one namespace that ends by itself.
// In no category: `kubectl get berth` has to work for whoever may see services, and those who edit them see no grants, as
// they see no RoleBindings.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "AccessGrant",
    plural = "accessgrants",
    shortname = "ag",
    namespaced,
    status = "AccessGrantStatus",
    derive = "PartialEq",
    doc = "Access that ends by itself: a user, group or service account may do in this namespace what a role or a permissions object says, until a moment. Berth makes the RoleBindings, and takes them away on time.",
    selectable = ".spec.subject.kind",
    selectable = ".spec.subject.name",
    selectable = ".spec.role",
    selectable = ".status.phase",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.subject.kind", priority = 1, description = "What the subject is"),
    printcolumn(name = "Subject", type_ = "string", json_path = ".spec.subject.name", description = "Who is given access"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role", description = "The built-in role; empty where a permissions object says it"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt", description = "When it ends"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where it is in its life"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether it is as desired"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "Why it is, or is not, as desired"),
    printcolumn(name = "Synced", type_ = "string", json_path = ".status.conditions[?(@.type=='LedgerSynced')].reason", priority = 1, description = "Where its records are"),
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.subject.displayName", priority = 1, description = "The user's name, for people"),
    printcolumn(name = "Email", type_ = "string", json_path = ".spec.subject.email", priority = 1, description = "The user's e-mail address"),
    printcolumn(name = "Permissions", type_ = "string", json_path = ".spec.permissions", priority = 1, description = "The permissions object, where there is no role"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters: RoleBindings are named after it, and carry it in a label"),
)]
#[x_kube(validation = Rule::new("has(self.role) != has(self.permissions)").message("a grant needs exactly one of role and permissions"))]
#[serde(rename_all = "camelCase")]
pub struct AccessGrantSpec {
    /// Who is given access. Kind, name and namespace are immutable.
    // Without comparing the namespaces: it is a reserved word of CEL, and so of unknown length to the API server's reckoning.
    #[x_kube(validation = Rule::new("self.kind == oldSelf.kind && has(self.namespace) == has(oldSelf.namespace)").message("whom a grant is for is immutable: delete it and create another one"))]
    pub subject: Subject,

    /// What is given: admin, operator or read-only. `docs/security.md` says what each may do. Either this or `permissions`.
    // Not nullable, as `permissions`: policies ask for the one by the absence of the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Role")]
    pub role: Option<Role>,

    /// What is given, in detail: for each of containers, namespaces, volumes, config_maps, secrets, logs and monitoring, which of read, create, update and delete. `docs/security.md` says what each means; what is not known there is kept, gives nothing, and is named in the status. Either this or `role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, Vec<String>>", extend("minProperties" = 1, "maxProperties" = 32, "additionalProperties" = {"type": "array", "maxItems": 16, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 63, "pattern": "^[A-Za-z0-9_.-]+$"}}))]
    #[x_kube(validation = Rule::new("self.all(key, key.matches('^[A-Za-z0-9_.-]{1,63}$'))").message("the keys of permissions may contain only letters, digits, '_', '-' and '.', at most 63"))]
    pub permissions: Option<BTreeMap<String, Vec<String>>>,

    /// When the access ends (RFC 3339, with a zone). It may be moved, to end sooner or later; a new grant must not have ended already.
    #[schemars(with = "String", length(max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$') && timestamp(self) == timestamp(self)").message("expiresAt must be a moment with a zone, in the years 2000 to 2999, such as 2030-01-31T18:00:00Z"))]
    pub expires_at: Time,
}

/// Who is given access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.kind == 'ServiceAccount' || !has(self.namespace)").message("only a ServiceAccount has a namespace"))]
#[x_kube(validation = Rule::new("self.kind == 'User' || !has(self.displayName) && !has(self.email)").message("only a User has a displayName and an email"))]
#[x_kube(validation = Rule::new("self.kind != 'ServiceAccount' || self.name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("the name of a ServiceAccount may contain only lower-case letters, digits, '-' and '.'"))]
#[x_kube(validation = Rule::new("self.name != 'system:anonymous' && self.name != 'system:unauthenticated'").message("access is not granted to those who do not say who they are"))]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// User, Group or ServiceAccount.
    pub kind: SubjectKind,

    /// Name as the API server's authentication knows it; of a ServiceAccount, its own name.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("whom a grant is for is immutable: delete it and create another one"))]
    #[x_kube(validation = Rule::new("!self.matches('[[:cntrl:]]') && self == self.trim()").message("a subject's name must not contain control characters, or begin or end with a space"))]
    pub name: String,

    /// Namespace of a ServiceAccount; left out, that of the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("whom a grant is for is immutable: delete it and create another one"))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("a namespace's name may contain only lower-case letters, digits and '-'"))]
    pub namespace: Option<String>,

    /// Name of a User as people call them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("!self.matches('[[:cntrl:]]')").message("displayName must not contain control characters"))]
    pub display_name: Option<String>,

    /// E-mail address of a User.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 254))]
    #[x_kube(validation = Rule::new("self.matches('^[^@[:space:][:cntrl:]]+@[^@[:space:][:cntrl:]]+$')").message("email must be an e-mail address such as alice@acme.example"))]
    pub email: Option<String>,
}

/// What a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubjectKind {
    /// A person, or whatever else authenticates as a user.
    User,
    /// Everybody in a group.
    Group,
    /// A service account.
    ServiceAccount,
}

impl SubjectKind {
    /// The word that a RoleBinding uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::ServiceAccount => "ServiceAccount",
        }
    }
}

/// A built-in role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// All that a grant can give in a namespace.
    Admin,
    /// Runs what is there: restarts, scales, stops and releases; makes and deletes nothing, and reads no Secret.
    Operator,
    /// Looks, but not at Secrets.
    ReadOnly,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::ReadOnly];

    /// The word in the manifest and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::ReadOnly => "read-only",
        }
    }
}

/// What Berth sees of the grant. Only Berth writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessGrantStatus {
    /// The `metadata.generation` that this status is about; -1 where nobody has looked at the object yet.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where the grant is in its life, for people: Pending, Active, Overdue (it has ended and the access is still there), Expired or Deleted. Programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The truth, as kstatus reads it. Ready: as desired, also when expired. Reconciling: on the way. Stalled: it will not go on by itself. LedgerSynced: its records are in the ledger's home.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The RoleBindings that carry it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<String>,
    /// What of `permissions` Berth does not know, as `key: verb`: it is kept, and gives nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// What is known and gives nothing in Kubernetes, as `key: verb`: no right inside one namespace means it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unbound: Vec<String>,
    /// What the ledger was told last of the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// The end of the grant's chain in the ledger.
    #[serde(default)]
    pub ledger: LedgerStatus,
}

/// A record of the grant, by what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Granted, Changed, Expired or Removed.
    pub reason: String,
    /// The `metadata.generation` that it answers to.
    pub generation: i64,
}
