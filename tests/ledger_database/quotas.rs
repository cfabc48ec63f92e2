//! `tenant_quota`: what quotas leave there, by whatever way it comes.

use std::collections::BTreeMap;

use berth::{
    ledger::{
        Actor, Backend, Draft, Entry, Head, Kind, Micros, Outcome, Present, Quota, Record, Seal, Snapshot, Target,
    },
    lifecycle::State,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    ledger,
    objects::{CLUSTER, now},
};

const DURABLE: Outcome = Outcome::Durable(Backend::Database);

/// A quota and the end of its chain, as its pass knows them.
struct Limited {
    uid: Uuid,
    head: Head,
    limits: BTreeMap<String, i64>,
    used: BTreeMap<String, i64>,
}

fn amounts(all: &[(&str, i64)]) -> BTreeMap<String, i64> {
    all.iter().map(|(key, amount)| ((*key).to_owned(), *amount)).collect()
}

impl Limited {
    fn new() -> Self {
        Self {
            uid: Uuid::new_v4(),
            head: Head::GENESIS,
            limits: amounts(&[("containers", 3), ("cpu", 1500)]),
            used: amounts(&[("containers", 2), ("cpu", 500), ("memory", 1 << 30)]),
        }
    }

    fn target(&self) -> Target {
        let (kind, name) = ("TenantQuota".to_owned(), "acme-corp".to_owned());
        Target { cluster: CLUSTER, uid: self.uid, kind, namespace: String::new(), name }
    }

    fn record(&self, reason: &str) -> Record {
        let draft = Draft {
            kind: Kind::Quota,
            uid: self.uid,
            from: None,
            to: (reason == "Removed").then_some(State::Deleted),
            reason: reason.to_owned(),
            actor: Actor::User("dana".to_owned()),
            generation: 1,
            operation: None,
            details: json!({
                "message": reason, "tenantOrg": "Acme_Corp", "limits": self.limits, "used": self.used, "waiting": 1,
                "setBy": "user:dana",
            }),
        };
        draft.seal(Seal { cluster: CLUSTER, epoch: 1, at: now() }, self.head)
    }

    fn snapshot(&self, head: Head, removed: bool) -> Snapshot {
        Snapshot {
            target: self.target(),
            created_at: Micros(1_760_000_000_000_001),
            observed_at: now(),
            generation: 1,
            epoch: 1,
            head,
            present: Present::Quota(Quota {
                tenant_org: "Acme_Corp".to_owned(),
                limits: self.limits.clone(),
                used: self.used.clone(),
                waiting: 1,
                set_by: Actor::User("dana".to_owned()),
                removed,
            }),
        }
    }

    fn step(&mut self, reason: &str) -> Entry {
        let record = self.record(reason);
        self.head = record.head();
        Entry::Chained { snapshot: Box::new(self.snapshot(record.head(), reason == "Removed")), record }
    }
}

#[tokio::test]
async fn an_organisation_has_its_limits_and_what_it_has_reserved_in_one_row() {
    let (database, ledger) = ledger().await;
    let mut quota = Limited::new();
    assert_eq!(ledger.submit(quota.step("LimitsSet")).await.unwrap(), DURABLE);
    let row = "SELECT count(*) FROM berth.tenant_quota
               WHERE name = 'acme-corp' AND tenant_org_id = 'Acme_Corp' AND containers_limit = 3 AND containers_used = 2
                 AND cpu_limit = 1500 AND cpu_used = 500 AND memory_limit IS NULL AND memory_used = 1073741824
                 AND vectors_used = 0 AND waiting = 1 AND set_by = 'user:dana' AND sequence = 1 AND NOT deleted";
    assert_eq!(database.number(row).await, 1);
    // Without a record, and an older sight of it after that.
    let early = quota.snapshot(quota.head, false);
    quota.used.insert("containers".to_owned(), 3);
    ledger.submit(Entry::Present(Box::new(quota.snapshot(quota.head, false)))).await.unwrap();
    ledger.submit(Entry::Present(Box::new(early))).await.unwrap();
    let used = "SELECT containers_used FROM berth.tenant_quota";
    assert_eq!(database.number(used).await, 3);
    quota.limits.remove("cpu");
    assert_eq!(ledger.submit(quota.step("LimitsChanged")).await.unwrap(), DURABLE);
    assert_eq!(ledger.submit(quota.step("Removed")).await.unwrap(), DURABLE);
    let row = "SELECT count(*) FROM berth.tenant_quota WHERE deleted AND cpu_limit IS NULL AND sequence = 3";
    assert_eq!(database.number(row).await, 1);
    assert_eq!(database.number("SELECT count(*) FROM berth.quota_history").await, 3);
}

#[tokio::test]
async fn what_comes_without_a_snapshot_is_told_by_the_chain() {
    let (database, ledger) = ledger().await;
    let mut quota = Limited::new();
    let mut records = vec![];
    for (reason, containers) in [("LimitsSet", 3), ("LimitsChanged", 5), ("Removed", 5)] {
        quota.limits = amounts(&[("containers", containers)]);
        records.push(quota.record(reason));
        quota.head = records.last().unwrap().head();
    }
    for record in &records[..2] {
        assert!(ledger.bring(&quota.target(), std::slice::from_ref(record)).await.unwrap());
    }
    let row = "SELECT count(*) FROM berth.tenant_quota
               WHERE containers_limit = 5 AND containers_used = 2 AND cpu_limit IS NULL AND sequence = 2 AND NOT deleted";
    assert_eq!(database.number(row).await, 1);
    // Sent again, and in any order, it is the same; an ending is let in by whoever notes that it was shown.
    ledger.bring(&quota.target(), &records).await.unwrap();
    assert_eq!(database.number(row).await, 1);
    ledger.put_head(&quota.target(), Some(records[1].head()), records[2].head(), 1).await.unwrap();
    let gone = "SELECT count(*) FROM berth.tenant_quota WHERE containers_limit = 5 AND sequence = 3 AND deleted";
    assert_eq!(database.number(gone).await, 1);
}
