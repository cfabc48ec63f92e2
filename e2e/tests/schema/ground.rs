//! What these tests stand on: definitions, policies, namespaces and users, put in place once.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
    time::Duration,
};

use berth_e2e::{
    cluster,
    kubectl::{self, Error, Kubectl},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The release, as it is installed by default: the policies know Berth by this name.
const RELEASE: &str = "berth";
const NAMESPACE: &str = "berth-system";
pub(crate) const BERTH: &str = "system:serviceaccount:berth-system:berth";

/// The administrator of the cluster, once all is in place; nobody, where there is no cluster.
pub(crate) fn ground(what: &str) -> Option<Kubectl> {
    static READY: OnceLock<()> = OnceLock::new();
    cluster::wanted(what).unwrap_or_else(|missing| panic!("{missing}")).then(|| {
        let admin = Kubectl::admin();
        READY.get_or_init(|| lay(&admin));
        admin
    })
}

fn lay(admin: &Kubectl) {
    // In the name of Helm: an installation of the chart later on then takes these over instead of refusing to.
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=helm", "--filename", "-"];
    let objects = cluster_wide(&template(RELEASE, NAMESPACE, &[]).unwrap());
    admin.feed(&apply, &list(&objects)).unwrap();
    let definitions = [
        "crd/tenantcontainers.berth.dev",
        "crd/deployments.berth.dev",
        "crd/accessgrants.berth.dev",
        "crd/tenantquotas.berth.dev",
    ];
    admin.run(&[&["wait", "--for=condition=Established", "--timeout=30s"][..], &definitions].concat()).unwrap();
    admin.feed(&apply, &fs::read_to_string(manifests().join("ground.yaml")).unwrap()).unwrap();
    policies_are_active(admin);
    let alice = admin.as_user("alice").in_namespace("schema-acme");
    alice
        .wait_for("the aggregated rights of `edit`", Duration::from_secs(30), |alice| {
            alice.run(&["auth", "can-i", "create", "tenantcontainers"]).map(Some)
        })
        .unwrap();
    // Established is not yet usable: mutating policies refuse a kind until the API server has read its schema anew.
    for (author, manifest) in [
        ("alice", "valid/minimal.yaml"),
        ("alice", "valid/rollout-minimal.yaml"),
        ("dana", "valid/grant-admin-to-group.yaml"),
        ("quinn", "valid/quota.yaml"),
    ] {
        let text = fs::read_to_string(manifests().join(manifest)).unwrap();
        let author = admin.as_user(author).in_namespace("schema-valid");
        author
            .wait_for("the definitions' schemas in the API server's admission", Duration::from_secs(60), |author| {
                author.feed(&["create", "--dry-run=server", "--filename", "-"], &text).map(Some)
            })
            .unwrap();
    }
    clear(&admin.in_namespace("schema-acme"));
}

/// Policies take effect some time after they were written, and nothing tells when. But the API server takes up all changes
/// of one kind in their order: once policies that were written last have their effect, so have the others.
fn policies_are_active(admin: &Kubectl) {
    let token = format!("canary-{}", process::id());
    let rules = json!({"resourceRules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"], "resourceNames": [token],
    }]});
    let stamp = format!("[JSONPatch{{op: 'add', path: '/data', value: {{'stamped': '{token}'}}}}]");
    let object = |kind: &str, spec: Value| {
        let version = "admissionregistration.k8s.io/v1";
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": token}, "spec": spec})
    };
    let canaries = list(&[
        object(
            "MutatingAdmissionPolicy",
            json!({
                "failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": rules,
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": stamp}}],
            }),
        ),
        object("MutatingAdmissionPolicyBinding", json!({"policyName": token})),
        object(
            "ValidatingAdmissionPolicy",
            json!({
                "matchConstraints": rules,
                "validations": [{"expression": "!has(object.data)", "message": "the canaries are alive"}],
            }),
        ),
        object("ValidatingAdmissionPolicyBinding", json!({"policyName": token, "validationActions": ["Deny"]})),
    ]);
    admin.feed(&["create", "--filename", "-"], &canaries).unwrap();
    let asked = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": token}}).to_string();
    let seen = admin.in_namespace("schema-valid").wait_for("the policies' effect", Duration::from_secs(60), |admin| {
        // Refused by the last policy, for what the last mutation wrote.
        let answer = admin.feed(&["create", "--dry-run=server", "--filename", "-"], &asked);
        Ok(answer.err().filter(|error| error.message().contains("the canaries are alive")))
    });
    admin.feed(&["delete", "--filename", "-"], &canaries).unwrap();
    seen.unwrap();
}

/// Removes what tests, also earlier ones that failed, left in the namespace, as Berth would if it were there.
pub(crate) fn clear(admin: &Kubectl) {
    admin.run(&["delete", "tc,bdeploy,ag", "--all", "--wait=false"]).unwrap();
    admin
        .wait_for("an empty namespace", Duration::from_secs(30), |admin| {
            let found = admin.json(&["get", "tc,bdeploy,ag"])?;
            let items: Vec<&Value> = found["items"].as_array().into_iter().flatten().collect();
            for item in &items {
                let kind = format!("{}.v1alpha1.berth.dev", item["kind"].as_str().unwrap_or_default());
                release(&admin.as_user(BERTH), &kind, item["metadata"]["name"].as_str().unwrap_or_default())?;
            }
            Ok(items.is_empty().then_some(()))
        })
        .unwrap();
}

/// Removes a quota, if it is there, as Berth would.
pub(crate) fn delete_quota(admin: &Kubectl, name: &str) {
    let deleted = admin.run(&["delete", "tq", name, "--ignore-not-found", "--wait=false"]).unwrap();
    if !deleted.is_empty() {
        release(&admin.as_user(BERTH), "tq", name).unwrap();
    }
}

/// Takes the finalizers from an object.
pub(crate) fn release(who: &Kubectl, kind: &str, name: &str) -> Result<String, Error> {
    who.run(&["patch", kind, name, "--type=merge", "--patch", r#"{"metadata": {"finalizers": null}}"#])
}

/// The chart as Helm would install it, with its hooks.
pub(crate) fn template(release: &str, namespace: &str, values: &[&str]) -> Result<String, Error> {
    let mut command = Command::new("helm");
    command.args(["template", release, "--namespace", namespace]).arg(top().join("charts/berth"));
    command.args(values.iter().flat_map(|value| ["--set", value]));
    kubectl::run(&mut command, "")
}

/// The objects of the chart that belong to no namespace, marked as Helm marks its own.
fn cluster_wide(rendered: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(rendered).map(|document| Value::deserialize(document).unwrap());
    let mut objects: Vec<Value> =
        documents.filter(|object| object.is_object() && object["metadata"]["namespace"].is_null()).collect();
    for object in &mut objects {
        object["metadata"]["annotations"]["meta.helm.sh/release-name"] = json!(RELEASE);
        object["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = json!(NAMESPACE);
    }
    objects
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// The files of a folder by name.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, String> {
    let read =
        |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap());
    fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}
