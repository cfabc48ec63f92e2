//! `users`, `roles` and `user_roles`: what grants leave there.

use std::collections::BTreeMap;

use berth::{
    ledger::{
        Access, Actor, Backend, Draft, Entry, Gives, Grant, Head, Kind, Micros, Namespace, Outcome, Present, Record,
        Seal, Snapshot, Subject, Target, postgres::Reader,
    },
    lifecycle::State,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    ledger,
    objects::{CLUSTER, now},
    source,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

/// A grant and the end of its chain, as its pass knows them.
struct Given {
    uid: Uuid,
    subject: Subject,
    gives: Gives,
    expires_at: Micros,
    granted_by: Actor,
    head: Head,
}

impl Given {
    fn new(kind: &str, name: &str, gives: Gives) -> Self {
        Self {
            uid: Uuid::new_v4(),
            subject: Subject {
                kind: kind.to_owned(),
                namespace: (kind == "ServiceAccount").then(|| "ci".to_owned()),
                name: name.to_owned(),
                display_name: None,
                email: None,
            },
            gives,
            expires_at: Micros(now().0 + 3_600_000_000),
            granted_by: Actor::User("root@acme.example".to_owned()),
            head: Head::GENESIS,
        }
    }

    fn record(&self, reason: &str, access: Access) -> Record {
        let draft = Draft {
            kind: Kind::Grant,
            uid: self.uid,
            from: None,
            to: (access == Access::Removed).then_some(State::Deleted),
            reason: reason.to_owned(),
            actor: self.granted_by.clone(),
            generation: 1,
            operation: None,
            details: json!({"message": reason}),
        };
        draft.seal(Seal { cluster: CLUSTER, epoch: 1, at: now() }, self.head)
    }

    fn target(&self) -> Target {
        Target {
            cluster: CLUSTER,
            uid: self.uid,
            kind: "AccessGrant".to_owned(),
            namespace: "team-a".to_owned(),
            name: format!("grant-{}", self.uid),
        }
    }

    fn snapshot(&self, head: Head, access: Access) -> Snapshot {
        Snapshot {
            target: self.target(),
            created_at: Micros(1_760_000_000_000_001),
            observed_at: now(),
            generation: 1,
            epoch: 1,
            head,
            present: Present::Grant(Grant {
                namespace: Namespace {
                    uid: Uuid::from_u128(0xa),
                    name: "team-a".to_owned(),
                    labels: BTreeMap::from([("berth.dev/tenant-org".to_owned(), "acme".to_owned())]),
                },
                subject: self.subject.clone(),
                gives: self.gives.clone(),
                expires_at: self.expires_at,
                granted_by: self.granted_by.clone(),
                access,
            }),
        }
    }

    fn step(&mut self, reason: &str, access: Access) -> Entry {
        let record = self.record(reason, access);
        self.head = record.head();
        let snapshot = Box::new(self.snapshot(record.head(), access));
        Entry::Chained { record, snapshot }
    }
}

fn operator() -> Gives {
    Gives::Role("operator".to_owned())
}

#[tokio::test]
async fn a_grant_is_there_with_its_user_and_its_role_until_its_moment() {
    let (database, ledger) = ledger().await;
    let mut alice = Given::new("User", "alice@acme.example", operator());
    alice.subject.display_name = Some("Alice".to_owned());
    alice.subject.email = Some("alice@acme.example".to_owned());
    assert_eq!(ledger.submit(alice.step("Granted", Access::Given)).await.unwrap(), DURABLE);
    let active = "SELECT count(*) FROM berth.active_user_roles
                  WHERE username = 'alice@acme.example' AND full_name = 'Alice' AND namespace = 'team-a'
                    AND role = 'operator' AND permissions @> '{\"containers\": [\"update\"]}'
                    AND granted_by = 'user:root@acme.example'";
    assert_eq!(database.number(active).await, 1);
    // Whoever gave it was seen, too.
    let seen =
        "SELECT count(*) FROM berth.users WHERE username = 'root@acme.example' AND kind = 'User' AND named_at IS NULL";
    assert_eq!(database.number(seen).await, 1);
    // Over at its moment, before anything is recorded of that.
    database.execute("UPDATE berth.user_roles SET expires_at = now() - interval '1 second'").await;
    assert_eq!(database.number(active).await, 0);
    assert_eq!(ledger.submit(alice.step("Expired", Access::Expired)).await.unwrap(), DURABLE);
    assert_eq!(ledger.submit(alice.step("Removed", Access::Removed)).await.unwrap(), DURABLE);
    let row = "SELECT count(*) FROM berth.user_roles WHERE access = 'removed' AND deleted AND sequence = 3";
    assert_eq!(database.number(row).await, 1);
    assert_eq!(database.number("SELECT count(*) FROM berth.grant_history WHERE sequence BETWEEN 1 AND 3").await, 3);
    assert_eq!(database.number("SELECT count(*) FROM berth.ledger_heads WHERE state = 'deleted'").await, 1);
}

#[tokio::test]
async fn an_older_sight_of_a_grant_never_replaces_a_newer_one() {
    let (database, ledger) = ledger().await;
    let mut alice = Given::new("User", "alice", operator());
    alice.subject.display_name = Some("Alice".to_owned());
    ledger.submit(alice.step("Granted", Access::Given)).await.unwrap();
    let mut old = alice.snapshot(alice.head, Access::Given);
    ledger.submit(alice.step("Expired", Access::Expired)).await.unwrap();
    // By the clock of a leader that is ahead.
    old.observed_at.0 += 60_000_000;
    ledger.submit(Entry::Present(Box::new(old))).await.unwrap();
    let kept = "SELECT count(*) FROM berth.user_roles WHERE access = 'expired' AND sequence = 2";
    assert_eq!(database.number(kept).await, 1);
    // What people call her is what was said last, in whichever grant.
    let mut other = Given::new("User", "alice", operator());
    other.subject.display_name = Some("Alice Adams".to_owned());
    let mut early = other.snapshot(Head::GENESIS, Access::Given);
    early.observed_at = Micros(1_760_000_000_000_000);
    ledger.submit(Entry::Present(Box::new(early))).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM berth.users WHERE full_name = 'Alice'").await, 1);
    let mut later = other.snapshot(Head::GENESIS, Access::Given);
    later.observed_at.0 += 120_000_000;
    ledger.submit(Entry::Present(Box::new(later))).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM berth.users WHERE full_name = 'Alice Adams'").await, 1);
}

#[tokio::test]
async fn the_same_permissions_are_one_role_and_a_service_account_has_the_api_servers_name() {
    let (database, ledger) = ledger().await;
    let object = || {
        Gives::Permissions(BTreeMap::from([
            ("containers".to_owned(), vec!["read".to_owned()]),
            ("robots".to_owned(), vec!["wave".to_owned()]),
        ]))
    };
    let mut robot = Given::new("ServiceAccount", "deployer", object());
    robot.granted_by = Actor::User("system:serviceaccount:ops:root".to_owned());
    let mut team = Given::new("Group", "developers", object());
    for grant in [&mut robot, &mut team] {
        assert_eq!(ledger.submit(grant.step("Granted", Access::Given)).await.unwrap(), DURABLE);
    }
    let roles = "SELECT count(*) FROM berth.roles WHERE NOT is_system AND permissions @> '{\"robots\": [\"wave\"]}'";
    assert_eq!(database.number(roles).await, 1);
    let accounts = "SELECT count(*) FROM berth.users WHERE kind = 'ServiceAccount'
                    AND username IN ('system:serviceaccount:ci:deployer', 'system:serviceaccount:ops:root')";
    assert_eq!(database.number(accounts).await, 2);
    assert_eq!(database.number("SELECT count(*) FROM berth.active_user_roles WHERE kind = 'Group'").await, 1);
}

#[tokio::test]
async fn a_record_that_comes_without_its_snapshot_moves_the_row_on() {
    let (database, ledger) = ledger().await;
    let mut alice = Given::new("User", "alice", operator());
    ledger.submit(alice.step("Granted", Access::Given)).await.unwrap();
    let changed = alice.record("Changed", Access::Given);
    alice.head = changed.head();
    assert!(ledger.bring(&alice.target(), std::slice::from_ref(&changed)).await.unwrap());
    let moved = "SELECT count(*) FROM berth.user_roles WHERE sequence = 2 AND access = 'given' AND NOT deleted";
    assert_eq!(database.number(moved).await, 1);
    // An ending is let in by whoever notes that it was shown.
    let removed = alice.record("Removed", Access::Removed);
    assert!(ledger.bring(&alice.target(), std::slice::from_ref(&removed)).await.unwrap());
    assert_eq!(database.number(moved).await, 1);
    ledger.put_head(&alice.target(), Some(alice.head), removed.head(), 1).await.unwrap();
    let gone = "SELECT count(*) FROM berth.user_roles WHERE sequence = 3 AND access = 'removed' AND deleted";
    assert_eq!(database.number(gone).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_without_states_is_verified_to_its_end() {
    let (database, ledger) = ledger().await;
    let mut alice = Given::new("User", "alice", operator());
    for (reason, access) in [("Granted", Access::Given), ("Expired", Access::Expired), ("Removed", Access::Removed)] {
        ledger.submit(alice.step(reason, access)).await.unwrap();
    }
    let name = alice.target().name;
    let moments = Reader::connect(&source(&database)).await.unwrap().timeline(None, "team-a", &name).await.unwrap();
    let reasons: Vec<_> = moments.iter().map(|moment| moment.record.envelope().reason.clone()).collect();
    assert_eq!(reasons, ["Granted", "Expired", "Removed"]);
    let (code, said) = crate::commands::berth(&["verify"], &database.url());
    assert!(code == Some(0) && said.contains("Every rule held: 1 chains, 3 records"), "{said}");
}
