//! The golden vectors of docs/ledger-vectors.json: made here, and recomputed by a program in another language.
//!
//! `BERTH_BLESS=1 cargo test golden` writes the file anew. A change of existing vectors is a change of the
//! format, and needs a new envelope version.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Actor, Draft, Head, Kind, Micros, Record, Seal, canonical, samples::CLUSTER};
use crate::lifecycle::State;

struct Vectors {
    head: Head,
    vectors: Vec<Value>,
}

fn draft(kind: Kind, uid: u128) -> Draft {
    Draft {
        kind,
        uid: Uuid::from_u128(uid),
        from: None,
        to: None,
        reason: "Observed".to_owned(),
        actor: Actor::Berth("observed".to_owned()),
        generation: 1,
        operation: None,
        details: json!({}),
    }
}

fn seal(at: i64) -> Seal {
    Seal { cluster: CLUSTER, epoch: 1_700_000_000, at: Micros(at) }
}

impl Vectors {
    /// Seals `draft` behind `previous` and notes what went in and what came out.
    fn add_behind(&mut self, name: &str, draft: Draft, seal: Seal, previous: Option<Head>) -> Record {
        let said = json!({
            "kind": draft.kind, "uid": draft.uid, "from": draft.from, "to": draft.to, "reason": draft.reason,
            "actor": String::from(draft.actor.clone()), "generation": draft.generation,
            "operation": draft.operation, "details": draft.details,
        });
        let sealed = json!({"cluster": seal.cluster, "epoch": seal.epoch, "at": seal.at});
        let record = draft.seal(seal, previous.unwrap_or(Head::GENESIS));
        let mut vector = json!({
            "name": name, "draft": said, "seal": sealed,
            "record": record.bytes(), "hash": record.hash(), "details": record.details(),
        });
        if let Some(previous) = previous {
            vector["previous"] = json!(previous);
        }
        self.vectors.push(vector);
        record
    }

    fn add(&mut self, name: &str, draft: Draft, at: i64) {
        self.add_behind(name, draft, seal(at), None);
    }

    /// The next of the one chain.
    fn chain(&mut self, name: &str, draft: Draft, at: i64) {
        let previous = Some(self.head).filter(|head| *head != Head::GENESIS);
        self.head = self.add_behind(name, draft, seal(at), previous).head();
    }
}

fn vectors() -> Value {
    let mut all = Vectors { head: Head::GENESIS, vectors: vec![] };
    const AT: i64 = 1_700_000_000_000_000;

    // A chain of five, each with its own kind of cause.
    all.chain(
        "chain, first record",
        Draft {
            to: Some(State::Pending),
            reason: "Accepted".to_owned(),
            actor: Actor::User("alice@example.org".to_owned()),
            details: json!({"message": "accepted", "b": [1, true, null], "a": {"y": 2, "x": 1}}),
            ..draft(Kind::Transition, 1)
        },
        AT,
    );
    all.chain(
        "chain, second record: a guessed actor and an operation",
        Draft {
            from: Some(State::Pending),
            to: Some(State::Running),
            reason: "AllReplicasReady".to_owned(),
            actor: Actor::Guess("kubectl-edit".to_owned()),
            operation: Some(Uuid::from_u128(0xabcdef)),
            ..draft(Kind::Transition, 1)
        },
        AT + 1,
    );
    all.chain(
        "chain, third record: unobserved, by nobody known",
        Draft {
            from: Some(State::Running),
            to: Some(State::Failed),
            actor: Actor::Unknown,
            generation: 9,
            details: json!({"message": "7 changes unseen"}),
            ..draft(Kind::Unobserved, 1)
        },
        AT + 2_000_000,
    );
    all.chain(
        "chain, fourth record: a resolution",
        Draft {
            from: Some(State::Failed),
            to: Some(State::Failed),
            reason: "ApiRewound".to_owned(),
            actor: Actor::Berth("replay".to_owned()),
            ..draft(Kind::Resolution, 1)
        },
        AT - 5,
    );
    all.chain("chain, fifth record: a checkpoint", draft(Kind::Checkpoint, 1), AT + 3_000_000);

    // Every other kind.
    for (at, kind) in [(0, Kind::Rollout), (1, Kind::Quota), (2, Kind::Grant)] {
        all.add(&format!("first of its chain: {}", kind.as_str()), draft(kind, 10 + at), AT);
    }
    for (at, kind) in [(0, Kind::Lost), (1, Kind::Import)] {
        let before = Head { sequence: 41, hash: super::Hash::of(b"a record that is elsewhere") };
        let name = format!("behind a record that is elsewhere: {}", kind.as_str());
        all.add_behind(&name, draft(kind, 20 + at), seal(AT), Some(before));
    }
    for (at, kind) in [(0, Kind::OperationStart), (1, Kind::OperationFinish)] {
        let operation = Some(Uuid::from_u128(0xabcdef));
        let reason = "Stop".to_owned();
        let before = Head { sequence: 5, hash: all.head.hash };
        let draft = Draft { operation, reason, ..draft(kind, 1) };
        all.add_behind(&format!("stands alone: {}", kind.as_str()), draft, seal(AT + at), Some(before));
    }

    // Strings.
    all.add(
        "unicode is not escaped",
        Draft {
            actor: Actor::User("李雷".to_owned()),
            details: json!({"message": "naïve 🦀 \"quoted\" \\ back/slash", "ключ": "значение", "Z": 1, "a": 2}),
            ..draft(Kind::Quota, 30)
        },
        AT,
    );
    all.add(
        "control characters become visible",
        Draft {
            reason: "Bad\u{0}Reason".to_owned(),
            actor: Actor::User("mallory\u{1b}[2J\u{9b}31m".to_owned()),
            details: json!({"message": "tab\tline\nbell\u{7}del\u{7f}rtl\u{202e}zwsp\u{200b}bom\u{feff}", "k\u{1}": "v"}),
            ..draft(Kind::Quota, 31)
        },
        AT,
    );
    all.add(
        "long strings are cut",
        Draft {
            reason: "R".repeat(65),
            actor: Actor::User(format!("{}\u{7}ü", "ü".repeat(300))),
            ..draft(Kind::Quota, 32)
        },
        AT,
    );
    all.add(
        "the longest strings are not cut",
        Draft { reason: "R".repeat(64), actor: Actor::User("ü".repeat(251)), ..draft(Kind::Quota, 33) },
        AT,
    );

    // Numbers.
    let largest = canonical::MAX_INTEGER;
    all.add_behind(
        "the largest integers",
        Draft {
            generation: largest,
            details: json!({"most": largest, "least": -largest, "more": largest + 1, "less": -largest - 1,
                "huge": u64::MAX, "real": 0.5}),
            ..draft(Kind::Import, 40)
        },
        Seal { cluster: Uuid::max(), epoch: largest.unsigned_abs(), at: Micros(largest) },
        Some(Head { sequence: largest.unsigned_abs() - 1, hash: super::Hash::from_bytes([0xff; 32]) }),
    );
    all.add("the smallest time", Draft { generation: 0, ..draft(Kind::Quota, 41) }, -largest);

    // Details.
    all.add(
        "details at the limit stay",
        Draft { details: json!({"m": "x".repeat(super::MAX_DETAILS - 8)}), ..draft(Kind::Quota, 50) },
        AT,
    );
    all.add(
        "details beyond the limit are left out",
        Draft { details: json!({"m": "x".repeat(super::MAX_DETAILS - 7)}), ..draft(Kind::Quota, 51) },
        AT,
    );
    json!({
        "about": "Golden vectors of Berth's ledger (docs/ledger.md). Each is what a caller said (draft, seal, the end of \
                  the chain before it where there is one) and what became of it: the canonical text, its SHA-256, \
                  and the canonical details. e2e/peers/recompute.py makes them anew.",
        "envelopeVersion": super::VERSION,
        "vectors": all.vectors,
    })
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ledger-vectors.json")
}

#[test]
fn golden_vectors_are_what_this_code_makes() {
    let made = format!("{}\n", serde_json::to_string_pretty(&vectors()).unwrap());
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(path(), &made).unwrap();
    }
    let kept = std::fs::read_to_string(path()).unwrap();
    assert!(made == kept, "docs/ledger-vectors.json is not what this code makes: was the format changed?");
}

#[test]
fn golden_vectors_read_back_and_cover_every_kind() {
    let vectors = vectors();
    let vectors = vectors["vectors"].as_array().unwrap();
    let mut kinds: Vec<_> = vectors.iter().map(|vector| vector["draft"]["kind"].as_str().unwrap()).collect();
    for vector in vectors {
        let text = |field: &str| vector[field].as_str().unwrap().to_owned();
        let record = Record::read(&text("record"), Some(text("details"))).unwrap();
        assert_eq!(record.hash().to_string(), text("hash"), "{}", vector["name"]);
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 11, "{kinds:?}");
}

#[test]
fn golden_vectors_are_recomputed_by_another_language() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/peers/recompute.py");
    let ran = Command::new("python3").arg(&program).arg(path()).output();
    let output = ran.expect("python3 is needed to recompute the golden vectors; install it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("vectors agree"), "{said}");
}
