//! From creation to deletion, and what the ledger keeps of it.

use std::thread;

use berth_e2e::{
    audit,
    objects::{self, Tenant, condition},
    scenario::{USER, uid},
};
use serde_json::json;

use crate::scenario;

#[test]
fn a_service_that_is_applied_runs_and_answers_through_its_address() {
    let Some(s) = scenario("apply") else { return };
    s.apply(&Tenant::named("search")).unwrap();
    s.user.run(&["wait", "--for=condition=Ready", "tc/search", "--timeout=90s"]).unwrap();
    s.until_synced().unwrap();
    let object = s.get("tc", "search").unwrap();
    assert_eq!(object["status"]["phase"], "Running");
    assert_eq!(condition(&object, "Available"), "True");
    assert_eq!(condition(&object, "LedgerSynced"), "True");
    assert_eq!(object["status"]["ledger"]["backend"], "Database");

    let address = s.get("service", "search").unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned();
    // Ready comes a moment before the node's proxy has heard of the endpoint.
    let url = format!("http://{address}/");
    let answer = s.eventually("the Service to answer", |_| Ok(s.ask("search-0", &url).ok())).unwrap();
    assert!(answer.starts_with("200 OK") && answer.contains(r#""hostname":"search-0""#), "{answer}");
    let endpoint = object["status"]["endpoint"].as_str().unwrap();
    assert_eq!(endpoint, format!("search.{}.svc", s.namespace));

    let hops = s.hops(uid(&object)).unwrap();
    assert_eq!(hops, [">pending Accepted", "pending>running AllReplicasReady"]);
    assert!(s.is_one_line(uid(&object)).unwrap());
    let asked = s.asked(
        2,
        "SELECT h.actor, o.actor, o.action, o.phase FROM berth.container_status_history h
         JOIN berth.operation_logs o USING (operation_id) WHERE h.uid = :'uid' AND h.sequence = 1 ORDER BY o.at, o.phase DESC",
        &[("uid", uid(&object))],
    )
    .unwrap();
    let who = format!("user:{USER}");
    let operation = |phase: &str| vec![who.clone(), who.clone(), "Create".to_owned(), phase.to_owned()];
    assert_eq!(asked, [operation("start"), operation("finish")], "who asked is in the chain and in the audit");
}

#[test]
fn kubectl_shows_and_finds_services_by_what_people_call_them() {
    let Some(s) = scenario("columns") else { return };
    s.apply(&Tenant::named("one").with("user", "ann").with("serviceName", "passages")).unwrap();
    s.apply(&Tenant::named("two").with("user", "ben").with("desiredState", "Stopped")).unwrap();
    s.until_ready("one", "Running").unwrap();
    s.until_ready("two", "Stopped").unwrap();
    let table = s.user.run(&["get", "tc"]).unwrap();
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[..4], ["NAME", "ORG", "USER", "SERVICE"], "{table}");
    let row: Vec<&str> = table.lines().find(|line| line.starts_with("one")).unwrap().split_whitespace().collect();
    assert_eq!(row[1..4], [s.namespace.as_str(), "ann", "passages"], "{table}");
    assert!(row.contains(&"Running"), "{table}");
    for (selector, found) in [
        ("spec.user=ann", "one"),
        ("spec.serviceName=two", "two"),
        ("spec.desiredState=Stopped", "two"),
        ("status.phase=Running", "one"),
    ] {
        let names = s.user.run(&["get", "tc", "--field-selector", selector, "--output=name"]).unwrap();
        assert_eq!(names.trim(), format!("tenantcontainer.berth.dev/{found}"), "{selector}");
    }
    for category in ["all", "berth"] {
        let names = s.user.run(&["get", category, "--output=name"]).unwrap();
        assert!(names.contains("tenantcontainer.berth.dev/one"), "kubectl get {category}: {names}");
    }
}

#[test]
fn scaling_to_two_and_to_zero_keeps_a_service_running() {
    let Some(s) = scenario("scale") else { return };
    let before = s.run(&Tenant::named("engine")).unwrap();
    s.user.run(&["scale", "tc/engine", "--replicas=2"]).unwrap();
    let two = s
        .until("engine", "two replicas ready", |object| {
            objects::is_current(object)
                && object["status"]["readyReplicas"] == 2
                && condition(object, "Ready") == "True"
        })
        .unwrap();
    assert_eq!(two["status"]["phase"], "Running");
    s.user.run(&["scale", "tc/engine", "--replicas=0"]).unwrap();
    let zero = s
        .until("engine", "no replica wanted, none there", |object| {
            objects::is_current(object) && object["status"]["replicas"] == 0 && condition(object, "Ready") == "True"
        })
        .unwrap();
    assert_eq!(zero["status"]["phase"], "Running");
    assert_eq!(condition(&zero, "Available"), "False");
    let hops = s.hops(uid(&before)).unwrap();
    assert_eq!(hops[2..], ["running>running Scaled", "running>running Scaled"]);
    let actors = s
        .column(
            "SELECT actor FROM berth.container_status_history WHERE uid = :'uid' AND sequence > 2",
            &[("uid", uid(&before))],
        )
        .unwrap();
    // The policy does not see what goes through /scale: a guess, and called one.
    assert!(actors.iter().all(|actor| actor.starts_with("guess:")), "{actors:?}");
}

#[test]
fn stop_and_start_keep_the_disk_and_every_hop_is_recorded() {
    let Some(s) = scenario("stop") else { return };
    let tenant = Tenant::named("store")
        .with("resources/disk", "64Mi")
        .with("indexes", json!([{"name": "Passage", "dimension": 768, "metric": "dot", "count": 10}]))
        .with("drainSeconds", 2);
    let object = s.run(&tenant).unwrap();
    let id = uid(&object).to_owned();
    let claim = s.get("pvc", "data-store-0").unwrap();
    write(&s, "store-0", "/data/kept", 4096);

    s.change("store", &json!({"desiredState": "Stopped"})).unwrap();
    // While it drains, its replica is there, and out of its Service.
    s.until("store", "paused", |object| object["status"]["phase"] == "Paused").unwrap();
    s.eventually("the Service selects nothing", |admin| {
        let slices = admin.json(&["get", "endpointslices", "--selector", "kubernetes.io/service-name=store"])?;
        let endpoints = slices["items"].as_array().into_iter().flatten();
        let any = endpoints.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten()).next().is_some();
        Ok((!any).then_some(()))
    })
    .unwrap();
    let stopped = s.until_ready("store", "Stopped").unwrap();
    assert_eq!(condition(&stopped, "Available"), "False");
    assert_eq!(stopped["status"]["replicas"], 0);
    s.admin.run(&["get", "pods", "--output=name"]).map(|pods| assert_eq!(pods, "")).unwrap();
    assert_eq!(uid(&s.get("pvc", "data-store-0").unwrap()), uid(&claim), "the disk is kept");

    s.change("store", &json!({"desiredState": "Running"})).unwrap();
    s.until_ready("store", "Running").unwrap();
    assert_eq!(uid(&s.get("pvc", "data-store-0").unwrap()), uid(&claim));
    assert_eq!(size(&s, "data-store-0", "/data/kept"), 4096, "and so is what is on it");
    assert_eq!(
        s.hops(&id).unwrap(),
        [
            ">pending Accepted",
            "pending>running AllReplicasReady",
            "running>paused Draining",
            "paused>stopped ScaledToZero",
            "stopped>pending Started",
            "pending>running AllReplicasReady",
        ]
    );
    assert!(s.is_one_line(&id).unwrap());
}

#[test]
fn what_is_deleted_stays_in_every_table_and_its_name_can_be_used_again() {
    let Some(s) = scenario("delete") else { return };
    let tenant = Tenant::named("gone")
        .with("resources/disk", "16Mi")
        .with("indexes", json!([{"name": "Passage", "dimension": 768, "metric": "dot", "count": 10}]));
    let first = s.run(&tenant).unwrap();
    let id = uid(&first).to_owned();
    s.delete("gone").unwrap();
    let left = s.admin.run(&["get", "sts,pods,svc,pvc,pdb", "--output=name"]).unwrap();
    assert_eq!(left, "", "the finalizer went last");
    assert!(s.get("serviceaccount", "gone").is_err());

    assert_eq!(
        s.hops(&id).unwrap(),
        [
            ">pending Accepted",
            "pending>running AllReplicasReady",
            "running>paused Draining",
            "paused>stopped ScaledToZero",
            "stopped>deleted Deleted",
        ]
    );
    assert!(s.is_one_line(&id).unwrap());
    let one = |query: &str| s.rows(query, &[("uid", &id), ("ns", &s.namespace)]).unwrap();
    let expected = |text: &[&str]| vec![text.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    assert_eq!(
        one("SELECT deleted, status, tenant_org_id, user_id, service_name, replicas, cpu, memory, disk, sequence,
                    sync_time > created_at
             FROM berth.tenant_containers WHERE id = :'uid'"),
        expected(&["t", "deleted", &s.namespace, USER, "gone", "1", "100", "67108864", "16777216", "5", "t"])
    );
    assert_eq!(
        one("SELECT name, node, image, image_digest <> '', status, cpu, memory
             FROM berth.containers WHERE tenant_container_id = :'uid'"),
        expected(&["gone-0", "node-1", objects::IMAGE, "t", "terminated", "100", "67108864"])
    );
    assert_eq!(
        one("SELECT count(*) > 0 FROM berth.container_images i JOIN berth.containers c
             ON (i.image, i.digest) = (c.image, c.image_digest) WHERE c.tenant_container_id = :'uid'"),
        expected(&["t"])
    );
    assert_eq!(
        one("SELECT name, labels ->> 'berth.dev/tenant-org' FROM berth.namespaces WHERE name = :'ns'"),
        expected(&[&s.namespace, &s.namespace])
    );
    assert_eq!(
        one(
            "SELECT name, dimension, metric, declared_count FROM berth.index_metadata WHERE tenant_container_id = :'uid'"
        ),
        expected(&["Passage", "768", "dot", "10"])
    );
    assert_eq!(
        s.asked(
            4,
            "SELECT action, phase, coalesce(succeeded::text, '') FROM berth.operation_logs
             WHERE target_uid = :'uid' ORDER BY action, phase DESC",
            &[("uid", &id)],
        )
        .unwrap(),
        // Not by time: the end of the one and the beginning of the other may be written together.
        [["Create", "start", ""], ["Create", "finish", "true"], ["Delete", "start", ""], ["Delete", "finish", "true"]]
            .map(|row| row.map(str::to_owned).to_vec())
    );

    let second = s.run(&tenant).unwrap();
    assert_ne!(uid(&second), id);
    assert_eq!(s.hops(uid(&second)).unwrap(), [">pending Accepted", "pending>running AllReplicasReady"]);
    assert_eq!(
        one("SELECT count(*), count(*) FILTER (WHERE deleted) FROM berth.tenant_containers
             WHERE tenant_org_id = :'ns' AND service_name = 'gone'"),
        expected(&["2", "1"])
    );
}

#[test]
fn a_service_that_never_ran_can_be_deleted() {
    let Some(s) = scenario("unborn") else { return };
    let object = s.apply(&Tenant::named("unborn").with("image", "localhost/nowhere/nothing:1")).unwrap();
    s.delete("unborn").unwrap();
    let hops = s.hops(uid(&object)).unwrap();
    assert_eq!(hops.last().map(String::as_str), Some("stopped>deleted Deleted"), "{hops:?}");
    assert!(s.is_one_line(uid(&object)).unwrap());
}

#[test]
fn a_namespace_with_services_inside_can_be_deleted() {
    let Some(s) = scenario("namespace") else { return };
    let running = s.run(&Tenant::named("running").with("resources/disk", "16Mi").with("drainSeconds", 60)).unwrap();
    let failed = s.apply(&Tenant::named("failed").with("image", "localhost/nowhere/nothing:1")).unwrap();
    s.until_stalled("failed", "ImagePull").unwrap();
    s.user.run(&["get", "tc"]).unwrap();
    berth_e2e::kubectl::Kubectl::admin().run(&["delete", "namespace", &s.namespace, "--timeout=90s"]).unwrap();
    for object in [&running, &failed] {
        let hops = s.hops(uid(object)).unwrap();
        assert_eq!(hops.last().map(String::as_str), Some("stopped>deleted Deleted"), "{hops:?}");
        assert!(s.is_one_line(uid(object)).unwrap());
    }
}

#[test]
fn one_broken_service_never_slows_its_neighbours() {
    let Some(s) = scenario("neighbours") else { return };
    thread::scope(|scope| {
        for i in 0..3 {
            let s = &s;
            scope.spawn(move || {
                let broken = Tenant::named(&format!("broken-{i}")).with("image", "localhost/nowhere/nothing:1");
                s.apply(&broken).unwrap();
            });
        }
    });
    for i in 0..3 {
        s.until_stalled(&format!("broken-{i}"), "ImagePull").unwrap();
    }
    let begun = std::time::Instant::now();
    s.run(&Tenant::named("healthy")).unwrap();
    let took = begun.elapsed();
    // Under 5 s on an idle machine; what is asserted is that nothing waits for the broken ones' backoff (60 s).
    assert!(took.as_secs() < 45, "{took:?}");
}

pub(crate) fn write(s: &berth_e2e::scenario::Scenario, pod: &str, path: &str, bytes: u32) {
    let address = s.get("pod", pod).unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    let url = format!("http://{address}:8080/write?path={path}&bytes={bytes}");
    let answer = berth_e2e::kubectl::run(
        std::process::Command::new(berth_e2e::install::top().join("e2e/cluster/enter")).args([
            "curl",
            "--silent",
            "--fail",
            "--request",
            "POST",
            &url,
        ]),
        "",
    )
    .unwrap();
    assert!(answer.contains(path), "{answer}");
}

/// Size of a file on a claim, on the node's disk: the image has no shell to ask.
pub(crate) fn size(s: &berth_e2e::scenario::Scenario, claim: &str, path: &str) -> u64 {
    let claim = s.get("pvc", claim).unwrap();
    let volume = berth_e2e::kubectl::Kubectl::admin()
        .json(&["get", "pv", claim["spec"]["volumeName"].as_str().unwrap()])
        .unwrap();
    let source = &volume["spec"];
    let folder = source["hostPath"]["path"].as_str().or(source["local"]["path"].as_str()).unwrap();
    std::fs::metadata(format!("{folder}/{}", path.trim_start_matches("/data/"))).unwrap().len()
}

#[test]
fn deleting_in_the_foreground_makes_nothing_anew_and_orphans_run_on() {
    let Some(s) = scenario("cascade") else { return };
    let gone = s.run(&Tenant::named("gone").with("drainSeconds", 20)).unwrap();
    let orphan = s.run(&Tenant::named("orphan")).unwrap();
    let mark = audit::mark().unwrap();
    s.user.run(&["delete", "tc", "gone", "--cascade=foreground", "--timeout=60s"]).unwrap();
    let writes = audit::writes_since(mark).unwrap();
    let made = writes.iter().filter(|write| {
        write.contains(&format!(" {}/gone", s.namespace)) && write.ends_with(": 201") && !write.contains(" events ")
    });
    assert_eq!(made.collect::<Vec<_>>(), Vec::<&String>::new());
    let hops = s.hops(uid(&gone)).unwrap();
    assert_eq!(hops[2..], ["running>paused Draining", "paused>stopped ScaledToZero", "stopped>deleted Deleted"]);

    let before = s.get("statefulset", "orphan").unwrap();
    s.user.run(&["delete", "tc", "orphan", "--cascade=orphan", "--timeout=60s"]).unwrap();
    let after = s.get("statefulset", "orphan").unwrap();
    assert_eq!((uid(&after), &after["spec"]), (uid(&before), &before["spec"]), "it runs on as it did");
    assert_eq!(after["metadata"]["ownerReferences"], json!(null));
    assert_eq!(condition(&s.get("pod", "orphan-0").unwrap(), "Ready"), "True");
    let hops = s.hops(uid(&orphan)).unwrap();
    assert_eq!(hops[2..], ["running>paused Orphaned", "paused>stopped Orphaned", "stopped>deleted Deleted"]);
}
