//! What the ledger is told of a quota, whatever comes between, and that what is reserved is nobody's but the desk's.

use std::sync::{Arc, Mutex};

use rstest::rstest;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    api::{FINALIZER, TenantQuota},
    chain::{
        ChainError, Keeper, Said, Telling, Told,
        simulated::{Cut, Ended, Replica, Server},
    },
    ledger::{
        Kind, Micros,
        simulated::{Database, Weather},
    },
    quota::{Pace, tell},
    tombstone,
};

const QUOTA: &str = "/apis/berth.dev/v1alpha1/tenantquotas/acme";
const CLUSTER: Uuid = Uuid::from_u128(7);
const HOME: &str = "berth-system";
/// Noon of some day.
const START: i64 = 1_893_499_200_000_000;
const MINUTE: i64 = 60_000_000;

/// What its life comes to, undisturbed: by whom and why.
const LIFE: [&str; 5] = [
    "LimitsSet user:root@acme.example",
    "LimitsChanged user:dana@acme.example",
    "Exhausted berth:quota",
    "Relieved berth:quota",
    "Removed unknown:",
];

struct World {
    server: Server,
    replica: Replica,
    told: Told,
    pace: Pace,
    tombstones: watch::Sender<u64>,
    /// What was handed over as let go, by its finalizers.
    let_go: Mutex<Vec<Option<Vec<String>>>>,
    now: i64,
}

impl World {
    async fn new(database: Database) -> Self {
        let (server, replica) = (Server::default(), Replica::new(database).await);
        let object = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "TenantQuota",
            "metadata": {
                "name": "acme", "uid": "11111111-2222-3333-4444-555555555555", "generation": 1,
                "creationTimestamp": "2030-01-01T11:00:00Z", "finalizers": [FINALIZER],
                "annotations": {"berth.dev/actor": "root@acme.example", "berth.dev/actor-generation": "1"},
            },
            "spec": {"tenantOrg": "acme", "limits": {"containers": 3, "memory": "4Gi"}},
        });
        server.put(QUOTA, object);
        let world = Self {
            server,
            replica,
            told: Told::default(),
            pace: Pace::default(),
            tombstones: watch::Sender::new(0),
            let_go: Mutex::default(),
            now: START,
        };
        world.round(2, 0);
        world
    }

    fn object(&self) -> Option<Value> {
        self.server.get(QUOTA)
    }

    /// What the desk writes.
    fn round(&self, containers: i64, waiting: i64) {
        let Some(mut object) = self.object() else { return };
        let generation = object["metadata"]["generation"].clone();
        let status = &mut object["status"];
        status["epoch"] = json!(1);
        status["observedGeneration"] = generation;
        status["used"] = json!({"containers": containers, "memory": "1Gi"});
        status["waiting"] = json!(waiting);
        self.server.put(QUOTA, object);
    }

    fn change(&self, who: &str, limits: &Value) {
        let Some(mut object) = self.object() else { return };
        let generation = object["metadata"]["generation"].as_i64().unwrap() + 1;
        object["spec"]["limits"] = limits.clone();
        object["metadata"]["generation"] = json!(generation);
        object["metadata"]["annotations"] =
            json!({"berth.dev/actor": who, "berth.dev/actor-generation": generation.to_string()});
        self.server.put(QUOTA, object);
    }

    fn delete(&self) {
        let Some(mut object) = self.object() else { return };
        object["metadata"]["deletionTimestamp"] = json!("2030-01-01T13:00:00Z");
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        self.server.put(QUOTA, object);
    }

    /// The steps of a life, as others take them; each more than a minute after the one before.
    fn step(&mut self, number: usize) {
        self.now += 2 * MINUTE;
        match number {
            0 => {}
            1 => self.change("dana@acme.example", &json!({"containers": 2})),
            2 => self.round(2, 5),
            3 => self.round(1, 0),
            4 => self.delete(),
            _ => unreachable!("a life has five steps"),
        }
    }

    /// What there is to tell, after a round.
    async fn tell(&self) -> Result<Said, ChainError> {
        let Some(object) = self.object() else { return Ok(Said::default()) };
        let object: Arc<TenantQuota> = Arc::new(serde_json::from_value(object).unwrap());
        let (client, epoch) = (self.server.client(), self.replica.epoch());
        let telling = Telling {
            keeper: Keeper {
                client: &client,
                home: HOME,
                ledger: &self.replica.ledger,
                told: &self.told,
                tombstones: &self.tombstones,
            },
            cluster: CLUSTER,
            epoch: &epoch,
            now: Micros(self.now),
        };
        let let_go = |quota: TenantQuota| self.let_go.lock().unwrap().push(quota.metadata.finalizers);
        tell(telling, object, &self.pace, &|quota| Arc::new(quota), &let_go).await
    }

    /// Until there is nothing more to tell; also where the API server falls silent on the way: then the operator is started
    /// anew. Whether it was.
    async fn settle(&mut self) -> bool {
        let mut is_cut = false;
        loop {
            let server = self.server.clone();
            match server.through_a_cut(self.tell()).await {
                Ended::Done(said) if said.writes + said.records == 0 => return is_cut || server.has_lost(),
                Ended::Done(_) => {}
                Ended::AnswerLost => is_cut = true,
                Ended::Silent => {
                    is_cut = true;
                    self.replica.ends().await;
                    self.replica.begins().await;
                    (self.told, self.pace) = (Told::default(), Pace::default());
                }
            }
        }
    }

    async fn bury(&self) -> usize {
        let client = self.server.client();
        tombstone::settle(&client, HOME, CLUSTER, &self.replica.ledger, Micros(self.now)).await.unwrap()
    }
}

#[tokio::test]
async fn a_quota_is_told_by_whom_and_why_and_what_is_reserved_stays_the_desks() {
    let mut world = World::new(Database::default()).await;
    for number in 0..LIFE.len() {
        world.step(number);
        let before = world.object().unwrap()["status"].clone();
        world.settle().await;
        let Some(after) = world.object() else { break };
        for kept in ["used", "waiting", "epoch"] {
            assert_eq!(after["status"][kept], before[kept], "step {number}");
        }
        assert_eq!(after["status"]["ledger"]["backend"], "Database");
    }
    assert_eq!(world.replica.told(), LIFE);
    assert_eq!(world.object(), None, "it is let go");
    assert_eq!(*world.let_go.lock().unwrap(), [Some(vec![])], "and the cache hears that it is");
    let records = world.replica.line();
    assert!(records.iter().all(|record| record.envelope().kind == Kind::Quota));
    let details = |number: usize| serde_json::from_str::<Value>(records[number].details().unwrap()).unwrap();
    assert_eq!(details(0)["limits"], json!({"containers": 3, "memory": 4_294_967_296_i64}));
    assert_eq!(
        (&details(1)["limits"], &details(1)["setBy"]),
        (&json!({"containers": 2}), &json!("user:dana@acme.example"))
    );
    // A deletion is a generation, and nobody's stamp is of it.
    assert_eq!(details(4)["setBy"], "user:dana@acme.example");
    assert_eq!((&details(2)["waiting"], &details(2)["used"]["containers"]), (&json!(5), &json!(2)));
    assert_eq!(details(2)["message"], "5 of acme wait for room; reserved: 2 containers of 2");
    assert!(world.replica.database.verify().is_clean());
}

#[rstest]
#[case::with_the_database(false)]
#[case::without(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_interrupted_at_any_write_is_told_the_same(#[case] is_away: bool) {
    let at_first = || {
        let database = Database::default();
        if is_away {
            database.set(Weather::Away);
        }
        database
    };
    let mut whole = World::new(at_first()).await;
    for number in 0..LIFE.len() {
        whole.step(number);
        whole.settle().await;
    }
    let writes = whole.server.writes();
    assert!(writes >= 6, "a life takes {writes} writes");
    for how in Cut::ALL {
        for left in 0..writes {
            let database = at_first();
            let mut world = World::new(database.clone()).await;
            world.server.cut_after(left, how);
            let mut is_cut = false;
            for number in 0..LIFE.len() {
                world.step(number);
                is_cut |= world.settle().await;
            }
            database.set(Weather::Fair);
            world.replica.replayed().await;
            for _ in 0..10 {
                if world.bury().await == 0 {
                    break;
                }
            }
            assert!(is_cut, "{how:?} {left}: nothing was cut");
            assert_eq!((world.object(), world.server.tombstones()), (None, 0), "{how:?} {left}");
            assert_eq!(world.replica.told(), LIFE, "{how:?} {left}");
            let report = database.verify();
            assert!(report.is_clean(), "{how:?} {left}: {report:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_the_status_carries_what_it_lacks() {
    let mut world = World::new(Database::default()).await;
    world.settle().await;
    world.replica.database.set(Weather::Away);
    world.step(1);
    world.settle().await;
    let carried = |world: &World| world.object().unwrap()["status"]["ledger"]["pending"].as_array().unwrap().len();
    assert_eq!((carried(&world), world.replica.told().len()), (1, 1));
    world.replica.database.set(Weather::Fair);
    world.replica.replayed().await;
    world.settle().await;
    assert_eq!((carried(&world), world.replica.told().len()), (0, 2));
}

#[tokio::test]
async fn who_waits_is_told_once_a_minute_however_often_it_changes() {
    let mut world = World::new(Database::default()).await;
    world.settle().await;
    for second in 0..600 {
        world.now += 1_000_000;
        world.round(2, second % 2);
        world.settle().await;
    }
    let told = world.replica.told().len();
    assert!((5..=11).contains(&told), "{told} records in ten minutes");
}

#[tokio::test]
async fn limits_that_nobody_saw_are_counted() {
    let mut world = World::new(Database::default()).await;
    world.settle().await;
    for containers in [5, 6, 7] {
        world.change("dana@acme.example", &json!({"containers": containers}));
    }
    world.settle().await;
    assert_eq!(world.replica.told(), [LIFE[0], "ChangesUnseen unknown:", LIFE[1]]);
}
