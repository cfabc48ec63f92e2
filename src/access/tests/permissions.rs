use std::collections::BTreeSet;

use serde_json::json;

use crate::{
    access::permissions::{Meaning, Permissions, TABLE, meaning, meaning_of, of, render},
    api::access_grant::Role,
};

fn read(value: serde_json::Value) -> Permissions {
    serde_json::from_value(value).unwrap()
}

/// The object that the owner's document shows, word for word.
fn the_documents() -> Permissions {
    read(json!({
        "containers": ["read", "create", "update", "delete"],
        "namespaces": ["read", "create", "update"],
        "volumes": ["read", "create", "update", "delete"],
        "config_maps": ["read", "create", "update", "delete"],
        "secrets": ["read", "create", "update", "delete"],
        "logs": ["read"],
        "monitoring": ["read"]
    }))
}

#[test]
fn every_key_and_verb_of_the_document_is_known_and_no_other() {
    let asked = the_documents();
    let theirs: BTreeSet<_> =
        asked.iter().flat_map(|(key, verbs)| verbs.iter().map(move |verb| (&**key, &**verb))).collect();
    let ours: BTreeSet<_> = TABLE.iter().map(|row| (row.key, row.verb)).collect();
    assert_eq!(theirs, ours);
    assert_eq!(ours.len(), TABLE.len(), "a pair is in the table twice");
    let Meaning { cluster_roles, unknown, unbound } = meaning(&asked);
    assert_eq!(unknown, Vec::<String>::new());
    assert_eq!(unbound, ["namespaces: create", "namespaces: update"]);
    assert_eq!(cluster_roles.len(), 19);
}

#[test]
fn what_is_not_known_is_named_and_gives_nothing() {
    let asked =
        json!({"containers": ["read", "fly", "fly", "READ"], "Secrets": ["read"], "logs": ["delete"], "gpus": []});
    let Meaning { cluster_roles, unknown, unbound } = meaning(&read(asked));
    assert_eq!(cluster_roles, ["berth-grant-containers-read"]);
    assert_eq!(unknown, ["Secrets: read", "containers: READ", "containers: fly", "logs: delete"]);
    assert!(unbound.is_empty());
}

#[test]
fn the_built_in_roles_are_what_the_documentation_says() {
    let text = |role| serde_json::to_string(&of(role)).unwrap();
    assert_eq!(
        text(Role::Admin),
        r#"{"config_maps":["read","create","update","delete"],"containers":["read","create","update","delete"],"logs":["read"],"monitoring":["read"],"namespaces":["read"],"secrets":["read","create","update","delete"],"volumes":["read","create","update","delete"]}"#
    );
    assert_eq!(
        text(Role::Operator),
        r#"{"config_maps":["read","update"],"containers":["read","update"],"logs":["read"],"monitoring":["read"],"namespaces":["read"],"volumes":["read"]}"#
    );
    assert_eq!(
        text(Role::ReadOnly),
        r#"{"config_maps":["read"],"containers":["read"],"logs":["read"],"monitoring":["read"],"namespaces":["read"],"volumes":["read"]}"#
    );
    for role in Role::ALL {
        assert_eq!(meaning(&of(role)).unbound, Vec::<String>::new(), "a role's ClusterRole has all of it");
        assert_eq!(meaning_of(role).cluster_roles, [format!("berth-grant-{}", role.as_str())]);
    }
}

/// What is granted must not grow by itself: neither Roles nor grants nor statuses, and no wildcard.
#[test]
fn nothing_that_is_granted_grants_anything_further() {
    for row in TABLE {
        assert!(!row.rights.is_empty());
        for right in row.rights {
            let words = [right.api_groups, right.resources, right.verbs].concat();
            assert!(!words.contains(&"*"), "{row:?}");
            for never in ["rbac.authorization.k8s.io", "accessgrants", "serviceaccounts/token", "pods/exec"] {
                assert!(!words.contains(&never), "{row:?}");
            }
            for never in ["bind", "escalate", "impersonate"] {
                assert!(!right.verbs.contains(&never), "{row:?}");
            }
        }
    }
}

/// `make generate` writes the file; this fails where it was forgotten.
#[test]
fn the_charts_table_is_in_sync() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/berth/files/grants.yaml");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == render().unwrap(), "{path} is out of date: run `make generate`");
}

#[test]
fn the_documentation_has_a_line_for_every_pair() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    for row in TABLE {
        assert!(
            text.contains(&format!("| `{}` | `{}` |", row.key, row.verb)),
            "docs/security.md lacks {} {}",
            row.key,
            row.verb
        );
    }
}

#[test]
fn the_built_in_roles_in_the_database_are_those_of_the_table() {
    let sql = include_str!("../../../migrations/sql/0019_roles.sql");
    for role in Role::ALL {
        let row = format!("('{}', true, '", role.as_str());
        let object = sql.split(&row).nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        assert_eq!(serde_json::from_str::<Permissions>(object).unwrap(), of(role), "{row}");
    }
}
