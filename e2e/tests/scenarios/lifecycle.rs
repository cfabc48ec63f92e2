//! Pause and resume, disks that outlive their service, an object that is left alone, and requests that change faster than
//! pods follow.

use berth_e2e::{
    kubectl::Error,
    objects::{self, Tenant, condition, message, reason},
    scenario::{Scenario, uid},
};
use serde_json::{Value, json};

use crate::{
    alone,
    life::{size, write},
    scenario,
};

/// How many addresses the Service has.
fn endpoints(s: &Scenario, name: &str) -> Result<usize, Error> {
    let selector = format!("kubernetes.io/service-name={name}");
    let slices = s.admin.json(&["get", "endpointslices", "--selector", &selector])?;
    let all = slices["items"].as_array().into_iter().flatten();
    Ok(all.map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).sum())
}

fn until_endpoints(s: &Scenario, name: &str, count: usize) {
    let what = format!("the Service {name} to have {count} endpoints");
    s.eventually(&what, |_| Ok((endpoints(s, name)? == count).then_some(()))).unwrap();
}

/// The CPU that a pod is to have, and what its container has.
fn cpu(pod: &Value) -> (String, String) {
    let limit = |container: &Value| container["resources"]["limits"]["cpu"].as_str().unwrap_or_default().to_owned();
    (limit(&pod["spec"]["containers"][0]), limit(&pod["status"]["containerStatuses"][0]))
}

fn until_cpu(s: &Scenario, pod: &str, wanted: &str) -> Value {
    let both = (wanted.to_owned(), wanted.to_owned());
    s.eventually(&format!("{pod} to have {wanted} of CPU"), |_| {
        let pod = s.get("pod", pod)?;
        Ok((cpu(&pod) == both).then_some(pod))
    })
    .unwrap()
}

#[test]
fn pause_and_resume_keep_the_very_same_pods() {
    let Some(s) = scenario("pause") else { return };
    let object = s.run(&Tenant::named("nap").with("replicas", 2).with("resources/cpu", "120m")).unwrap();
    let id = uid(&object).to_owned();
    until_endpoints(&s, "nap", 2);
    let before: Vec<String> = (0..2).map(|i| uid(&s.get("pod", &format!("nap-{i}")).unwrap()).to_owned()).collect();
    let set = s.get("sts", "nap").unwrap()["metadata"]["generation"].clone();

    s.change("nap", &json!({"desiredState": "Paused"})).unwrap();
    let paused = s.until_ready("nap", "Paused").unwrap();
    assert_eq!((reason(&paused, "Ready"), condition(&paused, "Available")), ("Paused", "False"));
    until_endpoints(&s, "nap", 0);
    for (i, before) in before.iter().enumerate() {
        let pod = until_cpu(&s, &format!("nap-{i}"), "50m");
        assert_eq!(uid(&pod), before, "it is the same pod");
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    }
    let told = s.until("nap", "its CPU is told", |object| message(object, "Ready").contains("50m of its CPU")).unwrap();
    assert_eq!(told["status"]["readyReplicas"], 2, "probes are answered");
    assert_eq!(s.get("sts", "nap").unwrap()["metadata"]["generation"], set, "its template is left alone");

    s.change("nap", &json!({"desiredState": "Running"})).unwrap();
    let running = s.until_ready("nap", "Running").unwrap();
    assert_eq!(condition(&running, "Available"), "True");
    until_endpoints(&s, "nap", 2);
    for (i, before) in before.iter().enumerate() {
        assert_eq!(uid(&until_cpu(&s, &format!("nap-{i}"), "120m")), before);
    }
    let hops = s.hops(&id).unwrap();
    assert_eq!(hops[1..], ["pending>running AllReplicasReady", "running>paused Paused", "paused>running Resumed"]);
    assert!(s.is_one_line(&id).unwrap());
    let asked = s.asked(
        3,
        "SELECT action FROM berth.operation_logs WHERE target_uid = :'uid' AND phase = 'finish' AND succeeded ORDER BY at",
        &[("uid", &id)],
    )
    .unwrap();
    assert_eq!(asked, [["Create"], ["Pause"], ["Resume"]]);
}

#[test]
fn a_node_without_room_keeps_a_paused_service_out_until_there_is_some() {
    // It takes most of the node.
    let Some(s) = alone("room") else { return };
    let node = s.get("node", "node-1").unwrap();
    let cores = node["status"]["allocatable"]["cpu"].as_str().unwrap_or_default().to_owned();
    assert!(!cores.ends_with('m'), "this test counts in cores: {cores}");
    // More than half of the node, so that two of them never fit.
    let most = format!("{}m", cores.parse::<u64>().unwrap() * 550);
    s.run(&Tenant::named("first").with("resources/cpu", most.as_str()).with("drainSeconds", 0)).unwrap();
    s.change("first", &json!({"desiredState": "Paused"})).unwrap();
    s.until_ready("first", "Paused").unwrap();
    until_cpu(&s, "first-0", "50m");
    s.run(&Tenant::named("second").with("resources/cpu", most.as_str()).with("drainSeconds", 0)).unwrap();
    s.change("first", &json!({"desiredState": "Running"})).unwrap();
    let waits = s.until("first", "resume pending", |object| condition(object, "ResumePending") == "True").unwrap();
    assert_eq!((waits["status"]["phase"].as_str(), condition(&waits, "Available")), (Some("Paused"), "False"));
    assert!(message(&waits, "ResumePending").contains("replica 0"), "{}", message(&waits, "ResumePending"));
    assert_eq!(endpoints(&s, "first").unwrap(), 0);
    s.change("second", &json!({"desiredState": "Paused"})).unwrap();
    let back = s.until_ready("first", "Running").unwrap();
    assert_eq!(condition(&back, "ResumePending"), "", "it is gone");
    until_endpoints(&s, "first", 1);
}

#[test]
fn a_disk_that_is_kept_comes_back_to_its_own_tenant_by_an_administrators_word() {
    let Some(s) = scenario("retain") else { return };
    let tenant = Tenant::named("keep").with("resources/disk", "16Mi").with("deletionPolicy", "Retain");
    s.run(&tenant).unwrap();
    write(&s, "keep-0", "/data/kept", 4096);
    let disk = uid(&s.get("pvc", "data-keep-0").unwrap()).to_owned();
    // In the foreground the garbage collector takes at once whatever has an owner.
    s.user.run(&["delete", "tc", "keep", "--cascade=foreground", "--timeout=90s"]).unwrap();
    let claim = s.get("pvc", "data-keep-0").unwrap();
    assert_eq!((uid(&claim), &claim["metadata"]["deletionTimestamp"]), (disk.as_str(), &Value::Null));
    assert_eq!(claim["metadata"]["ownerReferences"], Value::Null);

    s.apply(&tenant).unwrap();
    let waits = s.until_stalled("keep", "DiskRetained").unwrap();
    assert!(s.get("sts", "keep").is_err(), "nothing mounts it");
    let given = format!("berth.dev/adopt={}", uid(&waits));
    let refused = s.user.run(&["annotate", "pvc", "data-keep-0", &given]).unwrap_err();
    assert!(refused.message().contains("an administrator sets them"), "{refused}");
    s.admin.run(&["annotate", "pvc", "data-keep-0", &given]).unwrap();
    s.until_ready("keep", "Running").unwrap();
    assert_eq!(uid(&s.get("pvc", "data-keep-0").unwrap()), disk);
    assert_eq!(size(&s, "data-keep-0", "/data/kept"), 4096, "what was on it is there");
    s.change("keep", &json!({"deletionPolicy": "Delete"})).unwrap();
    s.until("keep", "the policy is seen", objects::is_current).unwrap();
    s.delete("keep").unwrap();
    assert!(s.get("pvc", "data-keep-0").is_err(), "it goes with its service, as asked now");
}

#[test]
fn an_object_is_left_alone_visibly_and_deleted_all_the_same() {
    let Some(s) = scenario("alone") else { return };
    let object = s.run(&Tenant::named("still")).unwrap();
    s.user.run(&["annotate", "tc", "still", "berth.dev/reconcile=disabled"]).unwrap();
    s.until("still", "left alone", |object| reason(object, "Reconciling") == "ReconcileDisabled").unwrap();
    let table = s.user.run(&["get", "tc", "still"]).unwrap();
    assert!(table.contains("ReconcileDisabled") && table.contains("Running"), "{table}");
    s.change("still", &json!({"desiredState": "Stopped"})).unwrap();
    s.admin.run(&["delete", "service", "still"]).unwrap();
    // Berth answers another object, and so has seen both of these.
    s.run(&Tenant::named("other")).unwrap();
    assert!(s.get("service", "still").is_err());
    assert!(s.get("pod", "still-0").is_ok());
    assert!(s.events("still").unwrap().iter().filter(|event| event.starts_with("ReconcileDisabled")).count() == 1);
    s.user.run(&["annotate", "tc", "still", "berth.dev/reconcile-"]).unwrap();
    s.until_ready("still", "Stopped").unwrap();
    s.user.run(&["annotate", "tc", "still", "berth.dev/reconcile=disabled"]).unwrap();
    s.until("still", "left alone", |object| reason(object, "Reconciling") == "ReconcileDisabled").unwrap();
    s.delete("still").unwrap();
    assert_eq!(s.hops(uid(&object)).unwrap().last().unwrap(), "stopped>deleted Deleted");
}

/// `BERTH_CHANGES=1000` makes so many, `BERTH_SEED=S` others.
#[test]
fn states_that_change_faster_than_pods_follow_never_leave_the_table() {
    let Some(s) = scenario("hasty") else { return };
    let setting = |name: &str, or: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (changes, mut seed) = (setting("BERTH_CHANGES", 100), setting("BERTH_SEED", 1));
    let object = s.run(&Tenant::named("hasty").with("drainSeconds", 0)).unwrap();
    for _ in 0..changes {
        // Knuth's MMIX generator; its high bits are good enough to choose one of three.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let state = ["Running", "Paused", "Stopped"][usize::try_from((seed >> 33) % 3).unwrap_or_default()];
        s.change("hasty", &json!({"desiredState": state})).unwrap();
    }
    s.change("hasty", &json!({"desiredState": "Paused"})).unwrap();
    s.until_ready("hasty", "Paused").unwrap();
    s.change("hasty", &json!({"desiredState": "Running"})).unwrap();
    s.until_ready("hasty", "Running").unwrap();
    // As docs draw it from the code's table.
    let drawn = std::fs::read_to_string(berth_e2e::install::top().join("docs/lifecycle.md")).unwrap();
    let edges = drawn.lines().filter_map(|line| line.trim().split_once(" --> "));
    let table: Vec<String> =
        edges.map(|(from, to)| format!("{}>{}", from.replace("[*]", ""), to.split(':').next().unwrap())).collect();
    let hops = s.hops(uid(&object)).unwrap();
    let outside: Vec<_> = hops
        .iter()
        .filter(|hop| {
            !hop.ends_with("ChangesUnseen") && !table.iter().any(|edge| hop.split(' ').next() == Some(edge.as_str()))
        })
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
    assert!(s.is_one_line(uid(&object)).unwrap());
    println!("{changes} changes, {} records", hops.len());
}
