//! Who may grant what, and what becomes of a grant: the policies and roles of AccessGrants, with Berth's own hand played by
//! its account.

use std::{fs, time::Duration};

use berth_e2e::kubectl::{Error, Kubectl};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ground::{BERTH, ground, release, top};

const NAMESPACE: &str = "schema-grants";

fn grant(name: &str, what: &Value) -> String {
    let mut spec = json!({"subject": {"kind": "User", "name": "frank"}, "expiresAt": "2099-01-01T00:00:00Z"});
    for (key, value) in what.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    json!({"apiVersion": "berth.dev/v1alpha1", "kind": "AccessGrant", "metadata": metadata, "spec": spec}).to_string()
}

fn create(who: &Kubectl, name: &str, what: &Value) -> Result<String, Error> {
    who.feed(&["create", "--filename", "-"], &grant(name, what))
}

fn tried(who: &Kubectl, what: &Value) -> Result<String, Error> {
    who.feed(&["create", "--dry-run=server", "--filename", "-"], &grant("tried", what))
}

fn patch(who: &Kubectl, name: &str, patch: &Value) -> Result<String, Error> {
    who.run(&["patch", "ag", name, "--type=merge", "--patch", &patch.to_string()])
}

/// Gives `user` the ClusterRole in the namespace, and waits until the API server acts on it.
fn bind(admin: &Kubectl, user: &str, role: &str) {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": format!("{user}-{role}"), "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    admin.feed(&["apply", "--filename", "-"], &binding.to_string()).unwrap();
}

/// Deletes a grant as `who`, and lets it go as Berth does once its last record is durable.
fn delete(admin: &Kubectl, who: &Kubectl, name: &str) {
    who.run(&["delete", "ag", name, "--wait=false"]).unwrap();
    release(&admin.as_user(BERTH), "ag", name).unwrap();
}

#[track_caller]
fn refused(answer: Result<String, Error>, sentence: &str) {
    let error = answer.map(|_| "accepted").unwrap_err();
    assert!(error.message().contains(sentence), "instead of \"{sentence}\": {error}");
}

/// The table from which chart and policies are made: by key, the rules of each verb.
fn table() -> Value {
    let text = fs::read_to_string(top().join("charts/berth/files/grants.yaml")).unwrap();
    let mut all = Value::deserialize(serde_yaml::Deserializer::from_str(&text)).unwrap();
    all["held"].take()
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let Some(admin) = ground("who may grant what") else { return };
    let admin = admin.in_namespace(NAMESPACE);
    let [dana, erin, mallory] = ["dana", "erin", "mallory"].map(|name| admin.as_user(name));
    let mut pairs = 0;
    for (key, rows) in table().as_object().unwrap() {
        for row in rows.as_array().unwrap() {
            pairs += 1;
            let verb = row["verb"].as_str().unwrap();
            let what = json!({"permissions": {key: [verb]}});
            // `berth-access` brings the measurements, but not the events beside them.
            refused(tried(&erin, &what), &format!(", and so may not grant it ({key}: {verb})"));
            match (key.as_str(), verb) {
                ("namespaces", "create" | "update") => {
                    refused(tried(&dana, &what), &format!("dana may not {verb} namespaces in namespace {NAMESPACE}"));
                }
                _ => drop(tried(&dana, &what).unwrap_or_else(|error| panic!("{key}: {verb}: {error}"))),
            }
            tried(&admin, &what).unwrap();
        }
    }
    assert_eq!(pairs, 21);
    for role in ["admin", "operator", "read-only"] {
        // Several policies object; which one is heard first, the API server decides.
        refused(tried(&erin, &json!({"role": role})), "erin may not ");
        tried(&dana, &json!({"role": role})).unwrap();
    }
    // Every right on the group berth.dev is none on Secrets, pods and the rest.
    refused(tried(&mallory, &json!({"role": "admin"})), "mallory may not ");
    refused(tried(&mallory, &json!({"permissions": {"secrets": ["read"]}})), "mallory may not get secrets");
    tried(&mallory, &json!({"permissions": {"containers": ["create", "update", "delete"]}})).unwrap();
    // What nobody knows is nobody's to hold, and gives nothing.
    tried(&erin, &json!({"permissions": {"teapots": ["brew"], "secrets": ["READ"]}})).unwrap();
}

#[test]
fn a_right_that_was_granted_can_be_granted_further_only_by_who_may_write_grants() {
    let Some(admin) = ground("granting further") else { return };
    let admin = admin.in_namespace(NAMESPACE);
    bind(&admin, "gina", "berth-grant-admin");
    bind(&admin, "hugo", "berth-grant-secrets-read");
    bind(&admin, "hugo", "berth-access");
    let [gina, hugo] = ["gina", "hugo"].map(|name| admin.as_user(name));
    hugo.wait_for("the effect of hugo's rights", Duration::from_secs(30), |hugo| {
        Ok(tried(hugo, &json!({"permissions": {"secrets": ["read"]}})).ok())
    })
    .unwrap();
    refused(tried(&hugo, &json!({"permissions": {"secrets": ["read", "update"]}})), "hugo may not update secrets");
    refused(tried(&gina, &json!({"role": "read-only"})), "cannot create resource \"accessgrants\"");
    // The shipped roles give what the table says, no more: not the rights of those who administer.
    for (verb, resource) in [
        ("create", "accessgrants.berth.dev"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("update", "namespaces"),
        ("create", "pods"),
        ("create", "serviceaccounts"),
    ] {
        assert!(gina.run(&["auth", "can-i", verb, resource]).is_err(), "gina may {verb} {resource}");
    }
    for (verb, resource) in [("get", "secrets"), ("delete", "tenantcontainers.berth.dev"), ("patch", "configmaps")] {
        gina.run(&["auth", "can-i", verb, resource]).unwrap();
    }
}

#[test]
fn who_changes_a_grant_answers_for_all_of_it_but_anybody_may_let_it_end_sooner() {
    let Some(admin) = ground("changed grants") else { return };
    let admin = admin.in_namespace(NAMESPACE);
    let [dana, erin] = ["dana", "erin"].map(|name| admin.as_user(name));
    create(&dana, "changed", &json!({"permissions": {"secrets": ["read"]}})).unwrap();
    let longer = json!({"spec": {"expiresAt": "2099-01-02T00:00:00Z"}});
    refused(patch(&erin, "changed", &longer), "erin may not get secrets");
    refused(
        patch(
            &erin,
            "changed",
            &json!({"spec": {"expiresAt": "2098-01-01T00:00:00Z", "permissions": {"logs": ["read"]}}}),
        ),
        "erin may not ",
    );
    refused(
        patch(&erin, "changed", &json!({"spec": {"subject": {"displayName": "Frank"}}})),
        "erin may not get secrets",
    );
    patch(&erin, "changed", &json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
    patch(&erin, "changed", &json!({"spec": {"expiresAt": "2098-01-01T00:00:00Z"}})).unwrap();
    // At once, also: a change may lie in the past. To bring it back takes the right again.
    patch(&erin, "changed", &json!({"spec": {"expiresAt": "2020-01-01T00:00:00Z"}})).unwrap();
    refused(patch(&erin, "changed", &longer), "erin may not get secrets");
    patch(&dana, "changed", &longer).unwrap();
    delete(&admin, &erin, "changed");
}

#[test]
fn a_grant_carries_the_name_of_its_author_and_the_finalizer() {
    let Some(admin) = ground("the stamps of grants") else { return };
    let admin = admin.in_namespace(NAMESPACE);
    let dana = admin.as_user("dana");
    create(&dana, "stamped", &json!({"role": "operator"})).unwrap();
    let stamps = || {
        let metadata = admin.json(&["get", "ag", "stamped"]).unwrap()["metadata"].take();
        assert_eq!(metadata["finalizers"], json!(["berth.dev/ledger"]));
        (
            metadata["annotations"]["berth.dev/actor"].clone(),
            metadata["annotations"]["berth.dev/actor-generation"].clone(),
        )
    };
    assert_eq!(stamps(), (json!("dana"), json!("1")));
    let forged = json!({"metadata": {"annotations": {"berth.dev/actor": "eve", "berth.dev/actor-generation": "9"}}});
    patch(&dana, "stamped", &forged).unwrap();
    assert_eq!(stamps(), (json!("dana"), json!("1")));
    patch(&admin.as_user("erin"), "stamped", &json!({"spec": {"expiresAt": "2098-01-01T00:00:00Z"}})).unwrap();
    assert_eq!(stamps(), (json!("erin"), json!("2")));
    // Taken off, it comes back.
    patch(&dana, "stamped", &json!({"metadata": {"finalizers": null}})).unwrap();
    assert_eq!(stamps(), (json!("erin"), json!("2")));
    delete(&admin, &dana, "stamped");
}

#[test]
fn only_berth_says_how_a_grant_stands() {
    let Some(admin) = ground("the status of grants") else { return };
    let admin = admin.in_namespace(NAMESPACE);
    create(&admin.as_user("dana"), "shown", &json!({"role": "operator"})).unwrap();
    let write = |who: &Kubectl| {
        let phase = r#"{"status": {"phase": "Expired"}}"#;
        who.run(&["patch", "ag", "shown", "--subresource=status", "--type=merge", "--patch", phase])
    };
    let born = admin.json(&["get", "ag", "shown"]).unwrap();
    let unseen = json!({"observedGeneration": -1, "ledger": {"sequence": 0, "head": "", "pending": []}});
    assert_eq!(born["status"], unseen, "kstatus does not take it for current");
    refused(write(&admin.as_user("dana")), "cannot patch resource \"accessgrants/status\"");
    refused(write(&admin.as_user("mallory")), "is written by Berth alone");
    refused(write(&admin), "is written by Berth alone");
    write(&admin.as_user("root").in_group("system:masters").in_group("berth:break-glass")).unwrap();
    write(&admin.as_user(BERTH)).unwrap();
    delete(&admin, &admin, "shown");
}

#[test]
fn a_grant_that_is_deleted_is_held_until_berth_has_taken_what_it_gives() {
    let Some(admin) = ground("grants and the garbage collector") else { return };
    let admin = admin.in_namespace(NAMESPACE);
    let [dana, berth] = ["dana", BERTH].map(|name| admin.as_user(name));
    create(&dana, "gone", &json!({"role": "operator"})).unwrap();
    let uid = admin.json(&["get", "ag", "gone"]).unwrap()["metadata"]["uid"].clone();
    let binding = |name: &str, role: &str| {
        let owner = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "AccessGrant", "name": "gone", "uid": uid, "controller": true});
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ines"}],
        })
        .to_string()
    };
    let apply = |text: &str| berth.feed(&["apply", "--server-side", "--field-manager=berth", "--filename", "-"], text);
    apply(&binding("berth-grant-gone-operator", "berth-grant-operator")).unwrap();
    // Berth's own account, as if it were stolen: no other role, and nobody else's RoleBinding.
    refused(apply(&binding("berth-grant-gone-theft", "cluster-admin")), "attempting to grant RBAC permissions");
    refused(apply(&binding("another", "berth-grant-operator")), "RoleBindings of AccessGrants only");
    bind(&admin, "ines", "view");
    refused(berth.run(&["delete", "rolebinding", "ines-view"]), "RoleBindings of AccessGrants only");
    let ines = admin.as_user("ines");
    ines.wait_for("the effect of the grant", Duration::from_secs(30), |ines| {
        Ok(ines.run(&["auth", "can-i", "update", "tenantcontainers.berth.dev"]).ok())
    })
    .unwrap();
    // Left to itself, it would never end.
    refused(dana.run(&["delete", "ag", "gone", "--cascade=orphan"]), "cannot be deleted with --cascade=orphan");
    refused(patch(&dana, "gone", &json!({"metadata": {"finalizers": ["orphan"]}})), "cannot have the finalizer orphan");
    dana.run(&["delete", "ag", "gone", "--wait=false"]).unwrap();
    refused(patch(&dana, "gone", &json!({"metadata": {"finalizers": null}})), "is removed by Berth alone");
    berth.run(&["delete", "rolebinding", "berth-grant-gone-operator"]).unwrap();
    ines.wait_for("the end of the access", Duration::from_secs(30), |ines| {
        Ok(ines.run(&["auth", "can-i", "update", "tenantcontainers.berth.dev"]).err())
    })
    .unwrap();
    patch(&berth, "gone", &json!({"metadata": {"finalizers": null}})).unwrap();
    admin.run(&["wait", "ag", "gone", "--for=delete", "--timeout=30s"]).unwrap();
}
