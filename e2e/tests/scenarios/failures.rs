//! What cannot run says why, in phase, condition, Event and ledger, and runs once it is put right.

use berth_e2e::{
    objects::{Tenant, message},
    scenario::{Scenario, uid},
};
use serde_json::{Value, json};

use crate::scenario;

/// It has failed for `reason`, with a word of it in the message, wherever somebody might look.
fn says_why(s: &Scenario, name: &str, reason: &str, word: &str) {
    let object = s.until_stalled(name, reason).unwrap();
    assert_eq!(object["status"]["phase"], "Failed");
    assert!(message(&object, "Ready").contains(word), "{}", message(&object, "Ready"));
    let events = s.events(name).unwrap();
    assert!(events.iter().any(|event| event.starts_with(reason) && event.contains(word)), "{events:?}");
    let recorded = s
        .column(
            "SELECT reason FROM berth.container_status_history WHERE uid = :'uid' AND to_state = 'failed'",
            &[("uid", uid(&object))],
        )
        .unwrap();
    assert_eq!(recorded, [reason]);
    let finished = s
        .asked(
            1,
            "SELECT succeeded FROM berth.operation_logs WHERE target_uid = :'uid' AND phase = 'finish'",
            &[("uid", uid(&object))],
        )
        .unwrap();
    assert_eq!(finished, [["f"]], "the request has failed, in the audit");
}

fn put_right(s: &Scenario, name: &str, spec: &Value) {
    s.change(name, spec).unwrap();
    let object = s.until_ready(name, "Running").unwrap();
    let hops = s.hops(uid(&object)).unwrap();
    assert_eq!(hops[hops.len() - 2..], ["failed>pending Retried", "pending>running AllReplicasReady"]);
    assert!(s.is_one_line(uid(&object)).unwrap());
}

#[test]
fn an_image_that_nobody_has() {
    let Some(s) = scenario("image") else { return };
    s.apply(&Tenant::named("never").with("image", "localhost/nowhere/nothing:1")).unwrap();
    let absent = Tenant::named("absent").with("image", "localhost/nowhere/nothing:1");
    s.apply(&absent.with("imagePullPolicy", "IfNotPresent")).unwrap();
    says_why(&s, "never", "ImagePull", "localhost/nowhere/nothing:1");
    says_why(&s, "absent", "ImagePull", "localhost/nowhere/nothing:1");
    for name in ["never", "absent"] {
        put_right(&s, name, &json!({"image": berth_e2e::objects::IMAGE}));
    }
}

#[test]
fn a_process_that_keeps_ending() {
    let Some(s) = scenario("crash") else { return };
    s.apply(&Tenant::named("crash").env(json!({"name": "EXIT_AT_START", "value": "3"}))).unwrap();
    says_why(&s, "crash", "CrashLoop", "exit code 3");
    put_right(&s, "crash", &json!({"env": null}));
}

#[test]
fn a_process_that_uses_more_memory_than_it_has() {
    let Some(s) = scenario("memory") else { return };
    let object = s.run(&Tenant::named("memory").with("resources/memory", "32Mi")).unwrap();
    let begun = uid(&object);
    // Once more whenever it is back, until the kubelet waits between its attempts.
    s.eventually("stalled for want of memory", |admin| {
        let now = admin.json(&["get", "tc", "memory"])?;
        if berth_e2e::objects::reason(&now, "Stalled") == "OutOfMemory" {
            return Ok(Some(()));
        }
        let pod = admin.json(&["get", "pod", "memory-0"])?;
        if let Some(address) = pod["status"]["podIP"].as_str() {
            // It dies while it answers.
            let url = format!("http://{address}:8080/memory?mib=200");
            let enter = berth_e2e::install::top().join("e2e/cluster/enter");
            let _ = berth_e2e::kubectl::run(
                std::process::Command::new(enter).args([
                    "curl",
                    "--silent",
                    "--max-time",
                    "5",
                    "--request",
                    "POST",
                    &url,
                ]),
                "",
            );
        }
        Ok(None)
    })
    .unwrap();
    let object = s.until_stalled("memory", "OutOfMemory").unwrap();
    assert_eq!(uid(&object), begun);
    assert!(message(&object, "Stalled").contains("spec.resources.memory"), "{}", message(&object, "Stalled"));
    s.change("memory", &json!({"resources": {"memory": "64Mi"}})).unwrap();
    s.until_ready("memory", "Running").unwrap();
}

#[test]
fn a_replica_that_fits_on_no_node() {
    let Some(s) = scenario("nowhere") else { return };
    s.apply(&Tenant::named("nowhere").with("placement", json!({"nodeSelector": {"disk": "faster"}}))).unwrap();
    says_why(&s, "nowhere", "Unschedulable", "node");
    put_right(&s, "nowhere", &json!({"placement": null}));
}

#[test]
fn a_service_that_stops_working_and_recovers_by_itself() {
    let Some(s) = scenario("recovers") else { return };
    // It runs for want of nothing, then its Secret goes and its pod with it.
    s.put(&[json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"k": "v"}})])
        .unwrap();
    let object = s
        .run(&Tenant::named("recovers").env(json!({"name": "K", "secretKeyRef": {"name": "keys", "key": "k"}})))
        .unwrap();
    s.admin.run(&["delete", "secret", "keys"]).unwrap();
    s.admin.run(&["delete", "pod", "recovers-0"]).unwrap();
    s.until_stalled("recovers", "ReferenceNotFound").unwrap();
    s.put(&[json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"k": "v"}})])
        .unwrap();
    s.until_ready("recovers", "Running").unwrap();
    assert_eq!(
        s.hops(uid(&object)).unwrap()[2..],
        ["running>failed ReferenceNotFound", "failed>pending Recovered", "pending>running AllReplicasReady"]
    );
}

#[test]
fn a_broken_pod_is_made_anew_when_somebody_asks() {
    let Some(s) = scenario("retry") else { return };
    let object = s.run(&Tenant::named("again").with("replicas", 2)).unwrap();
    let pods = || ["again-0", "again-1"].map(|pod| uid(&s.get("pod", pod).unwrap()).to_owned());
    let before = pods();
    // Nothing is broken: nothing is made anew, and the request is over.
    s.user.run(&["annotate", "tc", "again", "berth.dev/retry=1"]).unwrap();
    s.until("again", "noted", |object| object["status"]["retries"]["asked"] == "1").unwrap();
    assert_eq!(pods(), before);
    s.change("again", &json!({"replicas": 1, "env": [{"name": "EXIT_AT_START", "value": "3"}]})).unwrap();
    s.until_stalled("again", "CrashLoop").unwrap();
    let broken = uid(&s.get("pod", "again-0").unwrap()).to_owned();
    s.user.run(&["annotate", "tc", "again", "berth.dev/retry=2", "--overwrite"]).unwrap();
    s.eventually("another pod", |_| Ok((uid(&s.get("pod", "again-0")?) != broken).then_some(()))).unwrap();
    s.until_stalled("again", "CrashLoop").unwrap();
    let who = s
        .column(
            "SELECT actor FROM berth.container_status_history WHERE uid = :'uid' AND reason = 'Retried'",
            &[("uid", uid(&object))],
        )
        .unwrap();
    assert_eq!(who, [format!("user:{}", berth_e2e::scenario::USER)]);
    assert!(s.is_one_line(uid(&object)).unwrap());
}
