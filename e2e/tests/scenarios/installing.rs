//! Helm: what waits for a service, and what outlives Berth itself.

use berth_e2e::{
    install::{self, Home},
    objects::{Tenant, is_current},
    scenario::uid,
};
use serde_json::json;

use crate::{alone, scenario};

#[test]
fn helm_install_wait_waits_until_the_service_is_ready() {
    let Some(s) = scenario("helm") else { return };
    let chart = tempfile::tempdir().unwrap();
    let service = Tenant::named("charted").env(json!({"name": "READY_AFTER", "value": "4"}));
    std::fs::create_dir(chart.path().join("templates")).unwrap();
    std::fs::write(chart.path().join("Chart.yaml"), "{apiVersion: v2, name: tenant, version: 1.0.0}\n").unwrap();
    std::fs::write(chart.path().join("templates/service.yaml"), service.of(&s.namespace).to_string()).unwrap();
    let folder = chart.path().display().to_string();
    let arguments = ["install", "tenant", &folder, "--namespace", &s.namespace, "--wait", "--timeout=90s"];
    install::helm(&arguments.map(str::to_owned)).unwrap();
    let object = s.get("tc", "charted").unwrap();
    assert!(is_current(&object));
    assert_eq!(object["status"]["phase"], "Running", "Helm came back, so it runs");
    let arguments = ["uninstall", "tenant", "--namespace", &s.namespace, "--wait", "--timeout=90s"];
    install::helm(&arguments.map(str::to_owned)).unwrap();
    assert!(s.get("tc", "charted").is_err());
}

#[test]
fn objects_outlive_berth_and_their_chains_go_on_after_it_is_back() {
    let Some(s) = alone("reinstall") else { return };
    let object = s.run(&Tenant::named("kept")).unwrap();
    install::uninstall().unwrap();
    let kept = s.get("tc", "kept").unwrap();
    assert_eq!(uid(&kept), uid(&object), "definitions and objects stay");
    assert_eq!(s.get("pod", "kept-0").unwrap()["status"]["phase"], "Running", "and so do the replicas");
    // Changed while nobody was there.
    s.admin.run(&["patch", "tc", "kept", "--type=merge", "--patch", r#"{"spec": {"replicas": 2}}"#]).unwrap();
    install::install(Home::Database, "info").unwrap();
    s.until("kept", "two replicas", |object| is_current(object) && object["status"]["readyReplicas"] == 2).unwrap();
    s.until_ready("kept", "Running").unwrap();
    let hops = s.hops(uid(&object)).unwrap();
    assert_eq!(hops, [">pending Accepted", "pending>running AllReplicasReady", "running>running Scaled"]);
    assert!(s.is_one_line(uid(&object)).unwrap());
}
