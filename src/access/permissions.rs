//! What can be granted: the table of keys and verbs, and what each means in Kubernetes.
//!
//! The keys and verbs are those of the permissions object that roles have in the database. Each pair that is known has one
//! row here; its rights are one ClusterRole, shipped with the chart (`charts/berth/files/grants.yaml` is written from this
//! table, the ClusterRoles and the policy that asks authors for the same rights are written from that file, and
//! docs/security.md shows it).
//!
//! Owns: that table and the built-in roles. Must never: do I/O; drop what it does not know.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::api::access_grant::Role;

/// A permissions object, as it is written: verbs by key. Unknown ones are kept.
pub type Permissions = BTreeMap<String, Vec<String>>;

/// Rights on some resources, as a ClusterRole writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Right {
    /// API groups; the empty one is the core.
    pub api_groups: &'static [&'static str],
    /// Resources, with their subresources as `pods/log`.
    pub resources: &'static [&'static str],
    /// Verbs of the API server.
    pub verbs: &'static [&'static str],
}

/// What a key and a verb mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What it is about.
    pub key: &'static str,
    /// What may be done.
    pub verb: &'static str,
    /// The rights that it stands for; whoever grants it has to hold them.
    pub rights: &'static [Right],
    /// Whether a RoleBinding can carry it. Where it cannot, no right inside one namespace means it.
    pub bound: bool,
}

const LOOK: &[&str] = &["get", "list", "watch"];
const CHANGE: &[&str] = &["update", "patch"];
const REMOVE: &[&str] = &["delete", "deletecollection"];

const fn right(
    api_groups: &'static [&'static str],
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Right {
    Right { api_groups, resources, verbs }
}

const fn bound(key: &'static str, verb: &'static str, rights: &'static [Right]) -> Permission {
    Permission { key, verb, rights, bound: true }
}

const fn unbound(key: &'static str, verb: &'static str, rights: &'static [Right]) -> Permission {
    Permission { key, verb, rights, bound: false }
}

const BERTH: &[&str] = &["berth.dev"];
const CORE: &[&str] = &[""];
const CLAIMS: &[&str] = &["persistentvolumeclaims"];
const CONFIG_MAPS: &[&str] = &["configmaps"];
const SECRETS: &[&str] = &["secrets"];
const NAMESPACES: &[&str] = &["namespaces"];

/// Every pair that is known, in the order of the permissions object.
pub const TABLE: &[Permission] = &[
    bound(
        "containers",
        "read",
        &[
            right(BERTH, &["tenantcontainers"], LOOK),
            right(BERTH, &["tenantcontainers/status", "tenantcontainers/scale"], &["get"]),
            right(CORE, &["pods"], LOOK),
        ],
    ),
    bound("containers", "create", &[right(BERTH, &["tenantcontainers"], &["create"])]),
    bound("containers", "update", &[right(BERTH, &["tenantcontainers", "tenantcontainers/scale"], CHANGE)]),
    bound("containers", "delete", &[right(BERTH, &["tenantcontainers"], REMOVE)]),
    // In a namespace, this is the namespace itself.
    bound("namespaces", "read", &[right(CORE, NAMESPACES, &["get"])]),
    // A namespace is not in a namespace: there is nothing to bind.
    unbound("namespaces", "create", &[right(CORE, NAMESPACES, &["create"])]),
    // Its labels decide whose it is and what its pods may do: that is its administrator's alone, whoever grants it.
    unbound("namespaces", "update", &[right(CORE, NAMESPACES, CHANGE)]),
    bound("volumes", "read", &[right(CORE, CLAIMS, LOOK)]),
    bound("volumes", "create", &[right(CORE, CLAIMS, &["create"])]),
    bound("volumes", "update", &[right(CORE, CLAIMS, CHANGE)]),
    bound("volumes", "delete", &[right(CORE, CLAIMS, REMOVE)]),
    bound("config_maps", "read", &[right(CORE, CONFIG_MAPS, LOOK)]),
    bound("config_maps", "create", &[right(CORE, CONFIG_MAPS, &["create"])]),
    bound("config_maps", "update", &[right(CORE, CONFIG_MAPS, CHANGE)]),
    bound("config_maps", "delete", &[right(CORE, CONFIG_MAPS, REMOVE)]),
    bound("secrets", "read", &[right(CORE, SECRETS, LOOK)]),
    bound("secrets", "create", &[right(CORE, SECRETS, &["create"])]),
    bound("secrets", "update", &[right(CORE, SECRETS, CHANGE)]),
    bound("secrets", "delete", &[right(CORE, SECRETS, REMOVE)]),
    // `kubectl logs` looks the pod up first.
    bound("logs", "read", &[right(CORE, &["pods/log"], &["get"]), right(CORE, &["pods"], &["get", "list"])]),
    bound(
        "monitoring",
        "read",
        &[right(&["metrics.k8s.io"], &["pods"], &["get", "list"]), right(CORE, &["events"], LOOK)],
    ),
];

/// The ClusterRole of a pair that can be bound.
pub fn cluster_role(permission: &Permission) -> String {
    format!("berth-grant-{}-{}", permission.key.replace('_', "-"), permission.verb)
}

/// The ClusterRole of a built-in role.
pub fn cluster_role_of(role: Role) -> String {
    format!("berth-grant-{}", role.as_str())
}

/// What a built-in role gives, as a permissions object.
pub fn of(role: Role) -> Permissions {
    // What gives nothing is in no role: else nobody but a cluster's administrator could grant it.
    let pairs = TABLE.iter().filter(|permission| permission.bound).filter(|permission| match role {
        Role::Admin => true,
        Role::Operator => match permission.key {
            "secrets" => false,
            "containers" | "config_maps" => matches!(permission.verb, "read" | "update"),
            _ => permission.verb == "read",
        },
        Role::ReadOnly => permission.key != "secrets" && permission.verb == "read",
    });
    let mut permissions = Permissions::new();
    for permission in pairs {
        permissions.entry(permission.key.to_owned()).or_default().push(permission.verb.to_owned());
    }
    permissions
}

/// A permissions object, looked up in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// The ClusterRoles to bind, in the table's order.
    pub cluster_roles: Vec<String>,
    /// What is not in the table, as `key: verb`.
    pub unknown: Vec<String>,
    /// What is in the table and cannot be bound, as `key: verb`.
    pub unbound: Vec<String>,
}

/// What `permissions` mean.
pub fn meaning(permissions: &Permissions) -> Meaning {
    let has = |permission: &&Permission| {
        permissions.get(permission.key).is_some_and(|verbs| verbs.iter().any(|verb| verb == permission.verb))
    };
    let known: Vec<&Permission> = TABLE.iter().filter(has).collect();
    let is_known = |key: &str, verb: &str| TABLE.iter().any(|known| known.key == key && known.verb == verb);
    // A set: a verb that is written twice is one.
    let unknown: BTreeSet<String> = permissions
        .iter()
        .flat_map(|(key, verbs)| verbs.iter().map(move |verb| (key, verb)))
        .filter(|(key, verb)| !is_known(key, verb))
        .map(|(key, verb)| format!("{key}: {verb}"))
        .collect();
    let said = |permission: &&Permission| format!("{}: {}", permission.key, permission.verb);
    Meaning {
        cluster_roles: known.iter().filter(|permission| permission.bound).map(|known| cluster_role(known)).collect(),
        unknown: unknown.into_iter().collect(),
        unbound: known.iter().filter(|permission| !permission.bound).map(said).collect(),
    }
}

/// What a built-in role means: one ClusterRole has all of it.
pub fn meaning_of(role: Role) -> Meaning {
    Meaning { cluster_roles: vec![cluster_role_of(role)], ..Meaning::default() }
}

/// A role as the chart reads it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shipped {
    name: String,
    rules: Vec<Right>,
}

/// A row of the table as the chart reads it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    verb: &'static str,
    rules: &'static [Right],
}

/// All that the chart reads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ForChart {
    /// The ClusterRoles to make.
    cluster_roles: Vec<Shipped>,
    /// What the built-in roles give.
    roles: BTreeMap<&'static str, Permissions>,
    /// What the author of a grant has to hold, by key.
    held: BTreeMap<&'static str, Vec<Row>>,
}

fn for_chart() -> ForChart {
    let rules_of = |permissions: &Permissions| {
        let granted =
            |row: &&Permission| permissions.get(row.key).is_some_and(|verbs| verbs.iter().any(|verb| verb == row.verb));
        TABLE.iter().filter(granted).flat_map(|row| row.rights).copied().collect()
    };
    let roles = Role::ALL.map(|role| Shipped { name: cluster_role_of(role), rules: rules_of(&of(role)) });
    let rows = TABLE.iter().filter(|row| row.bound);
    let rows = rows.map(|row| Shipped { name: cluster_role(row), rules: row.rights.to_vec() });
    let mut held = BTreeMap::<_, Vec<Row>>::new();
    for row in TABLE {
        held.entry(row.key).or_default().push(Row { verb: row.verb, rules: row.rights });
    }
    ForChart {
        cluster_roles: roles.into_iter().chain(rows).collect(),
        roles: Role::ALL.iter().map(|&role| (role.as_str(), of(role))).collect(),
        held,
    }
}

/// The text of `charts/berth/files/grants.yaml`.
pub fn render() -> Result<String, serde_yaml::Error> {
    Ok(format!(
        "# Generated from src/access/permissions.rs by `make generate`; do not edit.\n{}",
        serde_yaml::to_string(&for_chart())?
    ))
}
