//! Berth on the cluster, as a user installs it: image, namespace, Secret, Helm.
//!
//! Owns: the installation that tests share. Must never: give Berth a right that the chart does not give.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::kubectl::{self, Error, Kubectl, environment};

/// The folder of what is compiled to be released.
const RELEASE_PROFILE: &str = "release";
/// The release and what it is called after.
pub const RELEASE: &str = "berth";
/// Berth's namespace.
pub const NAMESPACE: &str = "berth-system";
/// Berth's pod.
pub const POD: &str = "berth-0";
/// The claim of its spool's volume.
const SPOOL: &str = "spool-berth-0";
/// Where the chart mounts the authority of the database's certificate.
const AUTHORITY: &str = "/etc/berth/database-ca/ca.crt";

/// Where the records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In PostgreSQL.
    Database,
    /// On the spool alone.
    Files,
}

/// The variable that says: Berth as it is released, also under tests that were compiled without optimisation.
const RELEASED: &str = "BERTH_RELEASED";

/// Compiles Berth in the profile that this program was compiled in, or as it is released, makes its image and that of the test
/// service, and puts both onto the node.
pub fn images() -> Result<(), Error> {
    let program = program()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--package", "berth", "--bin", "berth"]).current_dir(top());
    if program.parent().is_some_and(|folder| folder.ends_with(RELEASE_PROFILE)) {
        cargo.arg("--release");
    }
    // What cargo tells the programs that it runs is not for a cargo that they run: some build scripts read it, and would
    // compile half of the dependencies anew, here and at the next call from a shell.
    for (name, _) in env::vars_os() {
        let told =
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_TARGET_TMPDIR"];
        if name.to_str().is_some_and(|name| told.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(&name);
        }
    }
    kubectl::run(&mut cargo, "")?;
    let berth = format!("berth={}", program.display());
    kubectl::run(Command::new(top().join("e2e/images/build")).args(["testservice", &berth]), "")?;
    kubectl::run(Command::new(top().join("e2e/cluster/load")).args(["testservice", "berth"]), "")?;
    Ok(())
}

/// Where [`images`] compiles Berth to: beside this program, in the profile's folder.
pub fn program() -> Result<PathBuf, Error> {
    let here = env::current_exe().map_err(|source| Error::Start { command: "finding Berth".to_owned(), source })?;
    // target/debug/deps/scenarios-0123 or target/release/bench: the folder of the profile is named after it.
    let folder = here.ancestors().find(|folder| folder.ends_with("debug") || folder.ends_with(RELEASE_PROFILE));
    let folder = folder.unwrap_or(Path::new("target/debug"));
    let is_released = env::var_os(RELEASED).is_some_and(|value| !value.is_empty() && value != "0");
    Ok(if is_released { folder.with_file_name(RELEASE_PROFILE) } else { folder.to_owned() }.join("berth"))
}

/// Installs or upgrades Berth, and waits until it works. `images` comes before.
pub fn install(home: Home, log: &str) -> Result<(), Error> {
    let admin = Kubectl::admin();
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=e2e", "--filename", "-"];
    admin.feed(&apply, &ground(home)?.to_string())?;
    let fresh = admin.in_namespace(NAMESPACE).run(&["get", "statefulset", RELEASE]).is_err();
    helm(&install_arguments(home, log))?;
    if !fresh {
        // The image has the same name as before, and perhaps another content.
        restart()?;
    }
    // The roles that Kubernetes ships are put together from the chart's by a controller.
    let someone = admin.as_user("nobody-yet").in_group("e2e:editors");
    someone.wait_for("the aggregated rights of `edit`", Duration::from_secs(30), |someone| {
        someone.run(&["auth", "can-i", "create", "tenantcontainers", "--all-namespaces"]).map(Some)
    })?;
    policies_work(&admin)
}

/// Ends Berth's process, and waits until the next one works.
pub fn restart() -> Result<(), Error> {
    let berth = Kubectl::admin().in_namespace(NAMESPACE);
    berth.run(&["rollout", "restart", "statefulset", RELEASE])?;
    berth.run(&["rollout", "status", "statefulset", RELEASE, "--timeout=120s"])?;
    Ok(())
}

/// Where the machine tells of Berth's process (`/proc/PID`).
pub fn process() -> Result<Option<PathBuf>, Error> {
    let pod = Kubectl::admin().in_namespace(NAMESPACE).json(&["get", "pod", POD])?;
    let uid = pod["metadata"]["uid"].as_str().unwrap_or("none");
    let mut processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    // A control group is named after the pod's uid; systemd's, with other dashes.
    Ok(processes.find(|process| {
        let group = fs::read_to_string(process.join("cgroup")).unwrap_or_default().replace('_', "-");
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        group.contains(uid) && name.trim() == "berth"
    }))
}

/// Kills Berth's process, without a goodbye. The kubelet starts another one.
pub fn kill() -> Result<(), Error> {
    let process = process()?.and_then(|process| Some(process.file_name()?.to_string_lossy().into_owned()));
    let missing =
        || Error::Start { command: "finding Berth's process".to_owned(), source: io::ErrorKind::NotFound.into() };
    kubectl::run(Command::new("kill").arg("-KILL").arg(process.ok_or_else(missing)?), "").map(drop)
}

/// Removes the release, as `helm uninstall` does: definitions, objects and the spool stay.
pub fn uninstall() -> Result<(), Error> {
    helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout=120s"].map(str::to_owned)).map(drop)
}

/// A command of `berth`, run where the operator runs.
pub fn berth(arguments: &[&str]) -> Result<String, Error> {
    let command = [&["exec", POD, "--", "/usr/bin/berth"], arguments].concat();
    Kubectl::admin().in_namespace(NAMESPACE).run(&command)
}

/// The folder of its spool, beside which the pod goes on working: this cluster's volumes are folders of this machine
/// (`e2e/cluster/volumes`).
pub fn spools() -> Result<Vec<PathBuf>, Error> {
    let admin = Kubectl::admin();
    let claim = admin.in_namespace(NAMESPACE).json(&["get", "pvc", SPOOL])?;
    let name = claim["spec"]["volumeName"].as_str().unwrap_or("none");
    let volume = admin.json(&["get", "pv", name])?;
    match volume["spec"]["local"]["path"].as_str() {
        Some(path) => Ok(vec![path.into()]),
        None => Err(Error::Refused {
            command: format!("kubectl get pv {name}"),
            message: "the spool's volume is no folder of this machine".to_owned(),
            answer: volume["spec"].to_string(),
        }),
    }
}

/// What Berth shows to Prometheus.
pub fn metrics() -> Result<String, Error> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{POD}:8080/proxy/metrics");
    Kubectl::admin().run(&["get", "--raw", &path])
}

/// The operator's log, newest lines last.
pub fn log(lines: u32) -> String {
    let tail = format!("--tail={lines}");
    let berth = Kubectl::admin().in_namespace(NAMESPACE);
    berth.run(&["logs", POD, &tail]).unwrap_or_else(|error| error.to_string())
}

/// Runs Helm.
pub fn helm(arguments: &[String]) -> Result<String, Error> {
    kubectl::run(Command::new("helm").args(arguments), "")
}

/// The checkout.
pub fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn install_arguments(home: Home, log: &str) -> Vec<String> {
    let chart = top().join("charts/berth").display().to_string();
    let log = format!("log={}", log.replace(',', "\\,"));
    let mut arguments: Vec<&str> = vec![
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout=180s",
        "--force-conflicts",
    ];
    arguments.extend(["--set", "image.repository=localhost/berth-e2e/berth,image.tag=dev,image.pullPolicy=Never"]);
    arguments.extend(["--set", "spool.size=256Mi", "--set", &log]);
    if home == Home::Database {
        arguments.extend(["--set", "database.existingSecret=berth-database,database.ca.configMap=berth-database-ca"]);
    }
    arguments.into_iter().map(str::to_owned).collect()
}

/// What a user has before the chart: a namespace, and in it how to reach the database.
fn ground(home: Home) -> Result<Value, Error> {
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "e2e-editors"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "e2e:editors"}],
        }),
    ];
    if home == Home::Database {
        let authority = environment("BERTH_POSTGRES_CA")?;
        let certificate = std::fs::read_to_string(&authority)
            .map_err(|source| Error::Start { command: format!("reading {authority}"), source })?;
        let url = environment("BERTH_OPERATOR_DATABASE_URL")?.replace(&authority, AUTHORITY);
        items.push(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "berth-database", "namespace": NAMESPACE}, "stringData": {"url": url},
        }));
        items.push(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "berth-database-ca", "namespace": NAMESPACE}, "data": {"ca.crt": certificate},
        }));
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// Policies take effect some time after they were written. Both kinds show in one refusal: of an object without a
/// finalizer by a namespace's policy, and of nothing once the stamp is there.
fn policies_work(admin: &Kubectl) -> Result<(), Error> {
    let probe = crate::objects::Tenant::named("policy-probe").of("nobody").to_string();
    admin.in_namespace("default").wait_for("the policies' effect", Duration::from_secs(60), |admin| {
        let answer = admin.feed(&["create", "--dry-run=server", "--filename", "-"], &probe);
        Ok(answer.err().filter(|error| error.message().contains("belongs to no tenant organisation")))
    })?;
    let labelled = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "policy-probe", "labels": {"berth.dev/tenant-org": "nobody"},
    }});
    admin.feed(&["apply", "--filename", "-"], &labelled.to_string())?;
    admin.in_namespace("policy-probe").wait_for("the stamp's effect", Duration::from_secs(60), |admin| {
        let answer = admin.feed_json(&["create", "--dry-run=server", "--filename", "-"], &probe)?;
        let stamped = answer["metadata"]["annotations"]["berth.dev/actor"].is_string();
        Ok((stamped && answer["metadata"]["finalizers"].is_array()).then_some(()))
    })?;
    admin.run(&["delete", "namespace", "policy-probe", "--wait=false"])?;
    Ok(())
}
