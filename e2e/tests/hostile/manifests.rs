//! Manifests that nobody should write, from a seed: values that do not belong where they stand, and values that may stand there
//! but that nobody thinks of.
//!
//! Owns: what is hostile about them. Must never: know what will be refused; the cluster says.

use berth_e2e::{faults::Dice, objects::Tenant};
use serde_json::{Map, Value, json};

/// An endless line of them; their names are different.
pub(super) struct Manifests {
    seed: u64,
    next: u64,
    org: String,
}

impl Manifests {
    pub(super) fn of(seed: u64, org: &str) -> Self {
        Self { seed, next: 0, org: org.to_owned() }
    }
}

impl Iterator for Manifests {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.next += 1;
        let mut dice = Dice::at(self.seed, self.next);
        // Most have no replica: what is tried is Berth, not the scheduler.
        let state = if dice.below(10) == 0 { "Running" } else { "Stopped" };
        let tenant = Tenant::named(&format!("h-{}", self.next)).simulated().with("desiredState", state);
        let mut manifest = tenant.of(&self.org);
        if dice.below(10) == 0 {
            extreme(&mut manifest, &mut dice);
        } else {
            for _ in 0..=dice.below(3) {
                misplace(&mut manifest, &mut dice);
            }
        }
        Some(manifest)
    }
}

/// Values that are allowed, and that nobody thinks of.
fn extreme(manifest: &mut Value, dice: &mut Dice) {
    let text = hostile_text(dice).replace('\0', "0");
    let long: String = text.chars().cycle().take(if text.is_empty() { 0 } else { 900 }).collect();
    let spec = &mut manifest["spec"];
    match dice.below(9) {
        0 => spec["env"] = (0..100).map(|n| json!({"name": format!("V{n}"), "value": text})).collect(),
        1 => spec["args"] = json!([long, text]),
        2 => spec["user"] = json!("a".repeat(64)),
        3 => spec["image"] = json!(format!("registry.example/{}:1", "x".repeat(200))),
        4 => {
            let selector: Map<String, Value> =
                (0..16).map(|n| (format!("k{n}.example/{n}"), json!("v".repeat(63)))).collect();
            spec["placement"]["nodeSelector"] = Value::Object(selector);
        }
        5 => spec["indexes"] = json!([{"name": text, "dimension": 3, "metric": "Cosine"}]),
        6 => {
            manifest["metadata"]["annotations"] = json!({"hostile.example/text": long, "berth.dev/restarted-at": text})
        }
        7 => {
            manifest["metadata"]["annotations"] =
                (0..200).map(|n| (format!("hostile.example/{n}"), json!(text))).collect()
        }
        _ => {
            manifest["metadata"]["labels"] =
                (0..50).map(|n| (format!("hostile.example/{n}"), json!("x".repeat(63)))).collect()
        }
    }
}

/// A value where it does not belong.
fn misplace(manifest: &mut Value, dice: &mut Dice) {
    const PLACES: &[&str] = &[
        "/spec/tenantOrg",
        "/spec/user",
        "/spec/serviceName",
        "/spec/image",
        "/spec/imagePullPolicy",
        "/spec/replicas",
        "/spec/resources",
        "/spec/resources/cpu",
        "/spec/resources/memory",
        "/spec/resources/disk",
        "/spec/resources/gpu",
        "/spec/ports",
        "/spec/ports/0/name",
        "/spec/ports/0/port",
        "/spec/ports/0/targetPort",
        "/spec/command",
        "/spec/args",
        "/spec/env",
        "/spec/volumes",
        "/spec/dataPath",
        "/spec/storageClassName",
        "/spec/probes/readinessPath",
        "/spec/drainSeconds",
        "/spec/desiredState",
        "/spec/vectors",
        "/spec/indexes",
        "/spec/placement/nodeSelector",
        "/spec/placement/tolerations",
        "/spec/placement/priorityClassName",
        "/spec/noSuchField",
        "/spec",
        "/status",
        "/metadata/name",
        "/metadata/finalizers",
    ];
    let Some(place) = dice.one_of(PLACES) else { return };
    let value = match (*place, dice.below(8)) {
        ("/metadata/name", _) => json!(hostile_text(dice)),
        // Of the right type, or kubectl does not send it.
        ("/metadata/finalizers", _) => json!(["hostile.example/".to_owned() + &"x".repeat(300)]),
        (_, 0) => Value::Null,
        (_, 1) => json!([hostile_text(dice), {"name": hostile_text(dice)}, 7]),
        (_, 2) => (0..300).map(|n| (format!("{}{n}", hostile_text(dice)), json!(n))).collect(),
        (_, 3) => deep(40),
        (_, 4) => dice.one_of(NUMBERS).cloned().map_or(Value::Null, |number| json!(number)),
        _ => json!(hostile_text(dice)),
    };
    put(manifest, place, value);
}

const NUMBERS: &[f64] = &[-1.0, 0.0, 1.5, 65_536.0, 2_147_483_647.0, 2_147_483_648.0, 9.0e15, 1.0e300];

fn hostile_text(dice: &mut Dice) -> String {
    const TEXTS: &[&str] = &[
        "",
        " ",
        "\0",
        "a\0b",
        "\u{202e}desrever",
        "\u{200b}",
        "日本語",
        "🦀",
        "\u{feff}bom",
        "a\nb",
        "\t",
        "\"",
        "\\",
        "'; DROP TABLE x; --",
        "{{ .Values }}",
        "$(id)",
        "../../etc/passwd",
        "null",
        "-1",
        "1e308",
        "kube-system",
        "berth-system",
        "A",
        "-",
        ".",
        "..",
        "%s%n",
    ];
    let text = dice.one_of(TEXTS).copied().unwrap_or_default();
    match dice.below(6) {
        0 => text.repeat(253),
        1 => "x".repeat(253),
        _ => text.to_owned(),
    }
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(json!("bottom"), |inner, _| json!({"deeper": [inner]}))
}

/// Sets what the pointer names, if what it stands in is still there.
fn put(manifest: &mut Value, pointer: &str, value: Value) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    match manifest.pointer_mut(parent) {
        Some(Value::Object(object)) => drop(object.insert(key.to_owned(), value)),
        Some(Value::Array(array)) => {
            if let Some(place) = key.parse::<usize>().ok().and_then(|index| array.get_mut(index)) {
                *place = value;
            }
        }
        _ => {}
    }
}
