//! The commands `berth timeline`, `get` and `verify` on a spool, as a user runs them.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use berth::{
    ledger::{
        Actor, Draft, Entry, Head, Kind, Micros, Namespace, Outcome, Present, Seal, Service, Snapshot, Target,
        spool::Spool,
    },
    lifecycle::State,
};
use serde_json::{Value, json};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(0xc1);
const AT: i64 = 1_700_000_000_000_000;

fn berth(args: &[&str], spool: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(args)
        .arg("--spool")
        .arg(spool)
        .env_remove("DATABASE_URL")
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// Walks the object `name` of number `uid` through `states` on the spool.
async fn live(spool: &Spool, uid: u128, name: &str, states: &[State]) {
    let uid = Uuid::from_u128(uid);
    let (mut head, mut state) = (Head::GENESIS, None);
    for (hop, &to) in (0_i64..).zip(states) {
        let at = Micros(AT + i64::from(uid.as_bytes()[15]) * 60_000_000 + hop * 1_500_000);
        let draft = Draft {
            kind: Kind::Transition,
            uid,
            from: state,
            to: Some(to),
            reason: "Observed".to_owned(),
            actor: Actor::User("alice".to_owned()),
            generation: 1,
            operation: None,
            details: json!({"message": format!("now {to}\u{1b}[31m")}),
        };
        let record = draft.seal(Seal { cluster: CLUSTER, epoch: 1, at }, head);
        (head, state) = (record.head(), Some(to));
        let target = Target {
            cluster: CLUSTER,
            uid,
            kind: "TenantContainer".to_owned(),
            namespace: "team".to_owned(),
            name: name.to_owned(),
        };
        let snapshot = Box::new(Snapshot {
            target,
            created_at: Micros(AT),
            observed_at: at,
            generation: 1,
            epoch: 1,
            head,
            present: Present::Service(Service {
                namespace: Namespace { uid: Uuid::from_u128(1), name: "team".to_owned(), labels: [].into() },
                tenant_org: "acme".to_owned(),
                user: name.to_owned(),
                service_name: "a_b".to_owned(),
                replicas: 1,
                cpu_millis: 500,
                memory_bytes: 1 << 30,
                disk_bytes: 1 << 30,
                gpu_count: 0,
                dimension: None,
                vector_count: None,
                state,
                spec: json!({"image": "weaviate:1"}),
                indexes: vec![],
                replicas_seen: vec![],
            }),
        });
        let outcome = spool.submit(Entry::Chained { record, snapshot }).await.unwrap();
        assert!(matches!(outcome, Outcome::Durable(_)), "{outcome:?}");
    }
}

const WHOLE_LIFE: [State; 5] = [State::Pending, State::Running, State::Paused, State::Stopped, State::Deleted];

async fn spool_with_three_lives(dir: &Path) {
    let spool = Spool::open(dir, "berth-0").unwrap();
    live(&spool, 1, "search", &WHOLE_LIFE).await;
    live(&spool, 2, "search", &WHOLE_LIFE[..2]).await;
    live(&spool, 3, "gone", &WHOLE_LIFE).await;
    // The commands read a spool that is open as well as one that is not.
    if dir.ends_with("live") { std::mem::forget(spool) } else { spool.close().await.unwrap() }
}

#[tokio::test]
async fn a_timeline_shows_every_life_and_no_escape_sequence() {
    for name in ["closed", "live"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join(name);
        spool_with_three_lives(&dir).await;
        let output = berth(&["timeline", "team/search"], &dir);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let said = text(&output);
        assert!(said.contains("life 1 of 2: deleted") && said.contains("life 2 of 2: running"), "{said}");
        assert!(said.contains("stopped → deleted") && said.contains("1.5s") && !said.contains('\u{1b}'), "{said}");
        let timeline = json_of(&berth(&["timeline", "team/search", "-o", "json"], &dir));
        assert_eq!(timeline["lives"][1]["records"][1]["to"], "running");
        assert_eq!(berth(&["timeline", "team/nobody"], &dir).status.code(), Some(1));
        assert_eq!(berth(&["timeline", "nonsense"], &dir).status.code(), Some(2));
    }
}

#[tokio::test]
async fn get_prefers_the_living_and_says_what_has_been_deleted() {
    let dir = tempfile::tempdir().unwrap();
    spool_with_three_lives(dir.path()).await;
    let output = berth(&["get", "--user", "search", "--service", "a_b"], dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("running since"), "{}", text(&output));
    let output = berth(&["get", "--user", "gone", "--service", "a_b"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("has been deleted"), "{}", text(&output));
    let output = berth(&["get", "--user", "gone", "--service", "a_b", "-o", "json"], dir.path());
    assert_eq!(json_of(&output)["found"], "deleted");
    let output = berth(&["get", "--user", "nobody", "--service", "a_b", "-o", "json"], dir.path());
    assert_eq!((json_of(&output)["found"].clone(), output.status.code()), (json!("none"), Some(1)));
}

fn first_segment(dir: &Path) -> PathBuf {
    fs::read_dir(dir.join("_journal")).unwrap().next().unwrap().unwrap().path()
}

#[tokio::test]
async fn verify_proves_the_spool_and_names_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    spool_with_three_lives(dir.path()).await;
    let output = berth(&["verify"], dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("Every rule held: 3 chains, 12 records"), "{}", text(&output));

    // A forged state file names a record that never was.
    let file = dir.path().join("team/tenant_gone_a%5Fb.json");
    let honest = fs::read_to_string(&file).unwrap();
    let head = serde_json::from_str::<Value>(&honest).unwrap()["ledger"]["head"].as_str().unwrap().to_owned();
    fs::write(&file, honest.replace(&head, &"0f".repeat(32))).unwrap();
    let verified = json_of(&berth(&["verify", "-o", "json"], dir.path()));
    assert_eq!(verified["violations"][0]["violation"], "claim-unknown");
    fs::write(&file, honest).unwrap();

    // A flipped bit in the third record: it is lost, named, and the chain shows it.
    let segment = first_segment(dir.path());
    let mut bytes = fs::read(&segment).unwrap();
    let third = bytes.windows(4).enumerate().filter(|(_, window)| window == b"\xffBR\xfe").nth(2).unwrap().0;
    bytes[third + 300] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = berth(&["verify", "-o", "json"], dir.path());
    let verified = json_of(&output);
    assert_eq!((output.status.code(), &verified["clean"]), (Some(1), &json!(false)));
    assert!(verified["damages"][0].as_str().unwrap().contains("1 entries from number 3"), "{verified}");
    assert_eq!(verified["violations"][0]["violation"], "predecessor-missing");
    assert_eq!(verified["violations"][0]["sequence"], 4);
    let said = text(&berth(&["verify"], dir.path()));
    assert!(said.contains("rule 1: 00000000-0000-0000-0000-000000000001"), "{said}");
}

#[test]
fn a_question_without_a_home_is_exit_code_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_berth")).arg("verify").env_remove("DATABASE_URL").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--spool DIR"), "{}", text(&output));
    let output = berth(&["verify"], Path::new("/nonexistent"));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("is no spool"), "{}", text(&output));
    let output = berth(&["verify", "--database-url", "postgresql://x"], Path::new("/nonexistent"));
    assert_eq!(output.status.code(), Some(2));
}
