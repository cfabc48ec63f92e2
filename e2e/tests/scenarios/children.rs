//! What Berth makes for a service: it comes back, it is put right, and what belongs to others is left alone.

use berth_e2e::{
    audit,
    objects::{Tenant, condition, message},
    scenario::{Scenario, uid},
};
use serde_json::{Value, json};

use crate::scenario;

#[test]
fn what_is_deleted_comes_back() {
    let Some(s) = scenario("comes-back") else { return };
    s.run(&Tenant::named("back").with("resources/disk", "16Mi")).unwrap();
    for (kind, name) in [
        ("service", "back"),
        ("service", "back-replicas"),
        ("serviceaccount", "back"),
        ("pdb", "back"),
        ("statefulset", "back"),
    ] {
        let old = s.get(kind, name).unwrap();
        s.admin.run(&["delete", kind, name]).unwrap();
        s.eventually(&format!("{kind} {name} again"), |admin| {
            Ok(admin.json(&["get", kind, name]).ok().filter(|new| uid(new) != uid(&old)))
        })
        .unwrap();
    }
    s.until_ready("back", "Running").unwrap();
}

#[test]
fn what_somebody_edits_is_put_right_once_and_costs_no_endless_writes() {
    let Some(s) = scenario("edited") else { return };
    s.run(&Tenant::named("edited")).unwrap();
    let patch =
        r#"{"spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "service", "image": "evil:1"}]}}}}"#;
    s.admin.run(&["patch", "statefulset", "edited", "--patch", patch]).unwrap();
    s.eventually("the StatefulSet as Berth made it", |admin| {
        let set = admin.json(&["get", "statefulset", "edited"])?;
        let spec = &set["spec"];
        let image = &spec["template"]["spec"]["containers"][0]["image"];
        Ok((spec["replicas"] == 1 && image == berth_e2e::objects::IMAGE).then_some(()))
    })
    .unwrap();
    // What is only taken away leaves nobody's name behind.
    let probe = "/spec/template/spec/containers/0/readinessProbe";
    let without = json!([{"op": "remove", "path": probe}]).to_string();
    s.admin.run(&["patch", "statefulset", "edited", "--type=json", "--patch", &without]).unwrap();
    s.eventually("the probe that was taken away", |admin| {
        Ok(admin.json(&["get", "statefulset", "edited"])?.pointer(probe).map(drop))
    })
    .unwrap();
    // A field that Berth does not set is somebody's own: it is tolerated, and written about once at most.
    s.admin.run(&["patch", "service", "edited", "--patch", r#"{"spec": {"sessionAffinity": "ClientIP"}}"#]).unwrap();
    s.until_ready("edited", "Running").unwrap();
    let mark = s
        .eventually("Berth's answer to the edit", |_| {
            // It is settled once a moment goes by without a write to this namespace.
            let mark = audit::mark()?;
            std::thread::sleep(std::time::Duration::from_secs(5));
            Ok(of(&s, &audit::writes_since(mark)?).is_empty().then_some(mark))
        })
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(10));
    let writes = of(&s, &audit::writes_since(mark).unwrap());
    assert!(writes.is_empty(), "{writes:#?}");
}

/// The writes to this scenario's namespace.
fn of(s: &Scenario, writes: &[String]) -> Vec<String> {
    let here = format!(" {}/", s.namespace);
    writes.iter().filter(|line| line.contains(&here)).cloned().collect()
}

#[test]
fn an_object_of_the_same_name_that_is_not_ours_is_left_alone_and_named() {
    let Some(s) = scenario("foreign") else { return };
    let foreign = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {
        "selector": {"app": "somebody"}, "ports": [{"port": 1234}],
    }});
    s.put(&[foreign]).unwrap();
    let before = s.get("service", "taken").unwrap();
    s.apply(&Tenant::named("taken")).unwrap();
    let object = s.until_stalled("taken", "ForeignObject").unwrap();
    assert!(
        message(&object, "Stalled").contains("Service taken exists and is of nobody"),
        "{}",
        message(&object, "Stalled")
    );
    let events = s.events("taken").unwrap();
    assert!(events.iter().any(|event| event.starts_with("ForeignObject: Service taken")), "{events:?}");
    assert_eq!(s.get("service", "taken").unwrap(), before, "not a byte of it has changed");
    s.run(&Tenant::named("neighbour")).unwrap();

    s.admin.run(&["delete", "service", "taken"]).unwrap();
    let object = s.until_ready("taken", "Running").unwrap();
    assert!(s.is_one_line(uid(&object)).unwrap());

    // One that another controller owns is named after it.
    let owner = s.get("configmap", "kube-root-ca.crt").unwrap();
    s.put(&[json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "owned", "ownerReferences": [{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "uid": uid(&owner), "controller": true,
    }]}})])
    .unwrap();
    s.apply(&Tenant::named("owned")).unwrap();
    let object = s.until_stalled("owned", "ForeignObject").unwrap();
    let said = message(&object, "Stalled");
    assert!(said.contains("is of ConfigMap kube-root-ca.crt"), "{said}");
    s.delete("owned").unwrap();
    assert!(s.get("serviceaccount", "owned").is_ok(), "nor is it deleted with the service");
}

#[test]
fn replicas_have_no_token_and_no_right_that_they_do_not_need() {
    let Some(s) = scenario("restricted") else { return };
    s.run(&Tenant::named("tight").with("resources/disk", "16Mi").with("replicas", 2)).unwrap();
    let account = s.get("serviceaccount", "tight").unwrap();
    assert_eq!(account["automountServiceAccountToken"], false);
    let pod = s.get("pod", "tight-0").unwrap();
    assert_eq!(pod["spec"]["serviceAccountName"], "tight");
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["projected"] == Value::Null), "{volumes:?}");
    let security = &pod["spec"]["containers"][0]["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    let budget = s.get("pdb", "tight").unwrap();
    assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    let allowed = s
        .eventually("the budget counts both replicas", |admin| {
            let budget = admin.json(&["get", "pdb", "tight"])?;
            Ok((budget["status"]["currentHealthy"] == 2).then(|| budget["status"]["disruptionsAllowed"].clone()))
        })
        .unwrap();
    assert_eq!(allowed, 1);
    assert_eq!(condition(&s.get("tc", "tight").unwrap(), "Ready"), "True");
}
