//! Row 14: others edit, delete, orphan and impersonate what Berth makes for a service; and leave a disk of another tenant there.
//!
//! Owns: what was done to whom. Must never: take Berth's word for what it left alone.

use std::time::Duration;

use berth_e2e::{
    database,
    kubectl::Kubectl,
    objects::{Tenant, condition, is_current, message, reason},
    scenario::{is_ready, uid},
};
use serde_json::{Value, json};

use crate::life::{NAME, Theatre, theatre, timed};

/// How often each is done to each kind.
const ROUNDS: u64 = 5;
/// How long Berth may take to answer.
const ANSWER: Duration = Duration::from_secs(120);

/// A kind of child, and a field of its own that somebody edits.
struct Child {
    kind: &'static str,
    suffix: &'static str,
    field: &'static str,
    edited: fn() -> Value,
    /// One that the API server keeps while a pod uses it does not go when it is deleted.
    protected: bool,
}

const CHILDREN: [Child; 6] = [
    Child { kind: "statefulset", suffix: "", field: "/spec/replicas", edited: || json!(3), protected: false },
    Child { kind: "service", suffix: "", field: "/spec/ports/0/targetPort", edited: || json!(9), protected: false },
    Child { kind: "service", suffix: "-replicas", field: "/spec/ports/0/port", edited: || json!(9), protected: false },
    Child {
        kind: "serviceaccount",
        suffix: "",
        field: "/automountServiceAccountToken",
        edited: || json!(true),
        protected: false,
    },
    Child { kind: "pdb", suffix: "", field: "/spec/maxUnavailable", edited: || json!(0), protected: false },
    Child {
        kind: "pvc",
        suffix: "",
        field: "/metadata/annotations/berth.dev~1user",
        edited: || json!("mallory"),
        protected: true,
    },
];

impl Child {
    fn name(&self, service: &str) -> String {
        if self.kind == "pvc" { format!("data-{service}-0") } else { format!("{service}{}", self.suffix) }
    }

    fn patch(&self, t: &Theatre, service: &str, operations: &Value) {
        let patch = operations.to_string();
        t.s.admin.run(&["patch", self.kind, &self.name(service), "--type=json", "--patch", &patch]).unwrap();
    }

    fn until(&self, t: &Theatre, service: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let name = self.name(service);
        let found = |admin: &Kubectl| Ok(admin.json(&["get", self.kind, &name]).ok().filter(|child| condition(child)));
        t.s.admin.wait_for(&format!("{} {name}: {what}", self.kind), ANSWER, found).unwrap()
    }
}

const OWNER_LABEL: &str = "/metadata/labels/berth.dev~1owner-uid";

fn tenant(name: &str) -> Tenant {
    Tenant::named(name).simulated().with("drainSeconds", 0).with("resources/disk", "16Mi")
}

/// Waits until Berth says that something stands in the way of the service, and gives what it says.
fn until_in_the_way(t: &Theatre, service: &str) -> String {
    let stands = |object: &Value| {
        condition(object, "Stalled") == "True" && ["ForeignObject", "DiskRetained"].contains(&reason(object, "Stalled"))
    };
    let object = t.s.until(service, "something stands in its way", |object| is_current(object) && stands(object));
    message(&object.unwrap(), "Stalled").to_owned()
}

/// What nobody has touched is the very same, to the byte.
fn assert_untouched(t: &Theatre, child: &Child, service: &str, before: &Value) {
    assert_eq!(t.s.get(child.kind, &child.name(service)).unwrap(), *before, "it was not Berth's, and was touched");
}

#[test]
fn a_child_that_others_touch_is_put_right_if_it_is_ours_and_left_alone_if_not() {
    let Some(t) = theatre("children") else { return };
    let _process = t.stand.start(NAME).unwrap();
    let object = t.s.apply(&tenant("edited")).unwrap();
    let runs = |name: &str| t.until(name, |object| is_ready(object, "Running"));
    runs("edited");
    let (mut faults, mut longest) = (0, Duration::ZERO);
    for _ in 0..ROUNDS {
        for child in &CHILDREN {
            let before = t.s.get(child.kind, &child.name("edited")).unwrap();
            let value = |child_now: &Value| child_now.pointer(child.field).cloned();
            for (place, edit) in [(child.field, (child.edited)()), (OWNER_LABEL, json!("somebody"))] {
                child.patch(&t, "edited", &json!([{"op": "replace", "path": place, "value": edit}]));
                let ((), took) = timed(|| {
                    child.until(&t, "edited", &format!("{place} put right"), |now| {
                        uid(now) == uid(&before)
                            && value(now) == value(&before)
                            && now.pointer(OWNER_LABEL) == before.pointer(OWNER_LABEL)
                    });
                });
                (faults, longest) = (faults + 1, longest.max(took));
            }
            if child.protected {
                continue;
            }
            t.s.admin.run(&["delete", child.kind, &child.name("edited")]).unwrap();
            let ((), took) = timed(|| {
                child.until(&t, "edited", "there again", |now| uid(now) != uid(&before));
            });
            (faults, longest) = (faults + 1, longest.max(took));
            runs("edited");
        }
    }
    for round in 0..ROUNDS {
        for child in &CHILDREN {
            runs("edited");
            faults += 1;
            child.patch(&t, "edited", &json!([{"op": "remove", "path": "/metadata/ownerReferences"}]));
            if child.protected {
                // A disk that bears the service's uid is its own, whoever made it: it is taken back.
                child.until(&t, "edited", "owned again", |now| {
                    now["metadata"]["ownerReferences"][0]["uid"] == uid(&object)
                });
                continue;
            }
            // Anything else is whose it is now, until they delete it.
            let orphan = t.s.get(child.kind, &child.name("edited")).unwrap();
            t.s.change("edited", &json!({"drainSeconds": 1 + round % 2})).unwrap();
            let said = until_in_the_way(&t, "edited");
            assert!(said.contains(&child.name("edited")), "{said}");
            assert_untouched(&t, child, "edited", &orphan);
            t.s.admin.run(&["delete", child.kind, &child.name("edited")]).unwrap();
            child.until(&t, "edited", "there again", |now| uid(now) != uid(&orphan));
        }
    }
    runs("edited");
    t.live("neighbour");
    t.s.user.run(&["delete", "tc", "edited", "--wait=false"]).unwrap();
    t.until_gone("edited");
    t.until_told(&object);
    // Orphans stood in its way, which was shown; and all that was shown is one line.
    assert!(database::is_one_line(uid(&object)).unwrap());
    t.settled();
    t.report(14, faults, faults, longest).print().unwrap();
}

/// A child that somebody else has made under the name of ours: with our labels, and without an owner.
fn impostor(t: &Theatre, child: &Child, like: &str, name: &str) -> Value {
    let mut copy = t.s.get(child.kind, &child.name(like)).unwrap();
    let metadata = &copy["metadata"];
    let labels = metadata["labels"].clone();
    copy["metadata"] = json!({"name": child.name(name), "labels": labels, "annotations": {
        "berth.dev/built-from": metadata["annotations"]["berth.dev/built-from"],
    }});
    copy.as_object_mut().unwrap().remove("status");
    if child.kind == "statefulset" {
        // Its replicas would have disks of the names of ours.
        copy["spec"]["replicas"] = json!(0);
    }
    for field in ["clusterIP", "clusterIPs", "volumeName"] {
        if let Some(spec) = copy["spec"].as_object_mut().filter(|spec| spec.get(field) != Some(&json!("None"))) {
            spec.remove(field);
        }
    }
    t.s.put(std::slice::from_ref(&copy)).unwrap();
    t.s.get(child.kind, &child.name(name)).unwrap()
}

#[test]
fn an_impostor_is_never_touched_and_another_tenants_disk_never_mounted() {
    let Some(t) = theatre("impostors") else { return };
    let _process = t.stand.start(NAME).unwrap();
    t.s.apply(&tenant("model")).unwrap();
    t.until("model", |object| is_ready(object, "Running"));
    let (mut faults, mut lives) = (0, vec![]);
    for round in 0..ROUNDS {
        for (place, child) in CHILDREN.iter().enumerate() {
            let name = format!("claimed-{round}-{place}");
            let before = impostor(&t, child, "model", &name);
            let object = t.s.apply(&tenant(&name)).unwrap();
            let said = until_in_the_way(&t, &name);
            assert!(said.contains(&child.name(&name)), "{said}");
            // Every other one: the service goes while the impostor is there; it stays as it is.
            let leaves_it = round % 2 == 1;
            if leaves_it {
                t.s.user.run(&["delete", "tc", &name, "--wait=false"]).unwrap();
                t.until_gone(&name);
            }
            // The controllers of the cluster write what is theirs into it.
            let now = t.s.get(child.kind, &child.name(&name)).unwrap();
            for part in
                ["/metadata/uid", "/metadata/labels", "/metadata/ownerReferences", "/spec/replicas", "/spec/ports"]
            {
                assert_eq!(now.pointer(part), before.pointer(part), "it was not Berth's, and was touched");
            }
            let managers = now["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
            assert!(managers.iter().all(|one| one["manager"] != "berth"), "{managers:?}");
            t.s.admin.run(&["delete", child.kind, &child.name(&name), "--wait=false"]).unwrap();
            if !leaves_it {
                t.until(&name, |object| is_ready(object, "Running"));
                t.s.user.run(&["delete", "tc", &name, "--wait=false"]).unwrap();
                t.until_gone(&name);
                lives.push(object);
            }
            faults += 1;
        }
        let name = format!("strange-{round}");
        let object = a_strange_disk(&t, &name);
        lives.push(object);
        faults += 1;
    }
    for object in &lives {
        t.until_told(object);
    }
    t.settled();
    t.report(14, faults, faults, t.longest_wait()).print().unwrap();
}

/// A disk that was retained from another organisation's service of that name is there, and an administrator's word for it too,
/// which is no word against the tenant's whose it is.
fn a_strange_disk(t: &Theatre, name: &str) -> Value {
    let claim = format!("data-{name}-0");
    let disk = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim,
            "labels": {"berth.dev/tenant-org": "another", "berth.dev/owner-uid": "5b1a2c9e-0000-4000-8000-000000000001",
                "app.kubernetes.io/managed-by": "berth"},
            "annotations": {"berth.dev/user": "alice@acme.example", "berth.dev/service-name": name}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    });
    t.s.put(&[disk]).unwrap();
    let object = t.s.apply(&tenant(name)).unwrap();
    let said = until_in_the_way(t, name);
    assert!(said.contains("retained from") && said.contains("another"), "{said}");
    t.s.admin.run(&["annotate", "pvc", &claim, &format!("berth.dev/adopt={}", uid(&object))]).unwrap();
    t.s.change(name, &json!({"drainSeconds": 1})).unwrap();
    let said = until_in_the_way(t, name);
    assert!(said.contains("retained from"), "{said}");
    assert!(t.s.get("statefulset", name).is_err(), "what would mount it is there");
    t.s.admin.run(&["delete", "pvc", &claim, "--wait=false"]).unwrap();
    t.until(name, |object| is_ready(object, "Running"));
    assert_ne!(
        t.s.get("pvc", &claim).unwrap().pointer("/metadata/labels/berth.dev~1tenant-org"),
        Some(&json!("another"))
    );
    t.s.user.run(&["delete", "tc", name, "--wait=false"]).unwrap();
    t.until_gone(name);
    object
}
