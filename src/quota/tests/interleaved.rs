//! The desk over a cluster small enough for a test, with two leaders whose caches are as old as it comes: whatever happens
//! in whatever order, nobody has more than they have reserved, and nothing is granted beyond a limit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::objects::{ORG, demand, need, quota};
use crate::{
    api::{TenantQuota, tenant_quota::TenantQuotaStatus},
    ledger::Micros,
    quota::{
        Amounts, Answer, Demand, Desk, Dimension, Ground, Held, QuotaError, Reservations,
        admit::used,
        amounts::Limits,
        desk::{Left, Place},
        status,
    },
};

/// A service as the API server has it.
#[derive(Clone, Debug, PartialEq)]
struct Service {
    demand: Demand,
    version: u64,
    /// It asks to run; else only its disk is to stay.
    wanted: bool,
    /// What its children have.
    has: Amounts,
}

#[derive(Clone, Default)]
struct Objects {
    services: BTreeMap<Uuid, Service>,
    quota: Option<TenantQuota>,
}

/// What happens to the next write of a quota's status.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Done,
    /// It is carried out, and whoever made it does not hear of it.
    Lost,
    /// It is not carried out.
    Refused,
}

/// What all share.
struct Server {
    objects: Objects,
    version: u64,
    /// Of whoever leads.
    epoch: u64,
    fate: Fate,
    /// Grants beyond a limit.
    wrong: Vec<String>,
}

/// One leader: what it knows, and what it has told.
struct Leader {
    server: Arc<Mutex<Server>>,
    cache: Mutex<Objects>,
    desk: Desk,
    woken: mpsc::UnboundedReceiver<Place>,
    epoch: u64,
}

fn api() -> QuotaError {
    let source = Box::new(kube::Error::TlsRequired);
    QuotaError::Api { quota: ORG.to_owned(), verb: "written", what: "its status".to_owned(), source }
}

struct Seen<'a>(&'a Leader);

impl Ground for Seen<'_> {
    fn quota(&self, _: &str) -> Option<Arc<TenantQuota>> {
        self.0.cache.lock().unwrap().quota.clone().map(Arc::new)
    }

    fn demands(&self, _: &str) -> Vec<Demand> {
        let cache = self.0.cache.lock().unwrap();
        cache.services.values().filter(|service| service.wanted).map(|service| service.demand.clone()).collect()
    }

    fn knows(&self, uid: Uuid, _: &Held) -> bool {
        self.0.cache.lock().unwrap().services.contains_key(&uid)
    }

    fn term(&self) -> Option<(u64, Micros)> {
        Some((self.0.epoch, Micros(1)))
    }

    async fn read(&self, _: &str) -> Result<Option<Arc<TenantQuota>>, QuotaError> {
        if self.0.is_over() {
            return Err(QuotaError::NotLeader);
        }
        let quota = self.0.server.lock().unwrap().objects.quota.clone();
        self.0.cache.lock().unwrap().quota.clone_from(&quota);
        Ok(quota.map(Arc::new))
    }

    async fn write(&self, read: &TenantQuota, status: &TenantQuotaStatus) -> Result<(), QuotaError> {
        let mut server = self.0.server.lock().unwrap();
        let Some(mut quota) = server.objects.quota.clone() else { return Err(QuotaError::Overtaken(ORG.to_owned())) };
        let fate = std::mem::replace(&mut server.fate, Fate::Done);
        if fate == Fate::Refused {
            return Err(api());
        }
        if quota.metadata.resource_version != read.metadata.resource_version {
            return Err(QuotaError::Overtaken(ORG.to_owned()));
        }
        let before = status::reservations(&quota);
        quota.status = Some(status.clone());
        server.version += 1;
        quota.metadata.resource_version = Some(server.version.to_string());
        let after = status::reservations(&quota).expect("what is written can be read");
        if let Some(before) = before {
            let (limits, had, has) = (Limits::from(&quota.spec.limits), used(&before), used(&after));
            for dimension in Dimension::ALL {
                let is_over = limits.get(dimension).is_some_and(|limit| has.get(dimension) > limit);
                if has.get(dimension) > had.get(dimension) && is_over {
                    server.wrong.push(format!("{had:?} became {has:?} of {limits:?}"));
                }
            }
        }
        server.objects.quota = Some(quota.clone());
        if fate == Fate::Lost {
            return Err(api());
        }
        self.0.cache.lock().unwrap().quota = Some(quota);
        Ok(())
    }

    async fn count(&self, _: &str) -> Result<Reservations, QuotaError> {
        let server = self.0.server.lock().unwrap();
        let services = server.objects.services.values().filter(|service| service.has != Amounts::ZERO);
        Ok(services
            .map(|service| {
                let Demand { uid, namespace, name, .. } = service.demand.clone();
                (uid, Held { namespace, name, amounts: service.has })
            })
            .collect())
    }

    async fn left(&self, uid: Uuid, _: &Held) -> Result<Left, QuotaError> {
        let is_there = self.0.server.lock().unwrap().objects.services.contains_key(&uid);
        Ok(if is_there { Left::Everything } else { Left::Disks(0) })
    }
}

impl Leader {
    fn new(server: &Arc<Mutex<Server>>, epoch: u64) -> Self {
        let (desk, woken) = Desk::new();
        let cache = Mutex::new(server.lock().unwrap().objects.clone());
        Self { server: Arc::clone(server), cache, desk, woken, epoch }
    }

    /// Another leads. What this one sends now is what it had made up before: it has read nothing since.
    fn is_over(&self) -> bool {
        self.server.lock().unwrap().epoch != self.epoch
    }

    /// Its watches tell of everything.
    fn hear(&self) {
        if self.is_over() {
            return;
        }
        *self.cache.lock().unwrap() = self.server.lock().unwrap().objects.clone();
    }

    /// A pass over a service as the cache has it. `writes_children`: it leads, and no fence keeps it from it.
    async fn pass(&self, uid: Uuid, writes_children: bool) {
        let Some(service) = self.cache.lock().unwrap().services.get(&uid).cloned() else { return };
        let ground = Seen(self);
        if !service.wanted {
            let _ = self.desk.withdraw(&ground, ORG, uid).await;
            if writes_children {
                self.bring(&service, Amounts::of_disks(service.has.get(Dimension::Disk)));
            }
        } else {
            match self.desk.ask(&ground, ORG, &service.demand).await {
                Ok(Answer::Admitted) if writes_children => self.bring(&service, service.demand.need),
                Ok(Answer::Waits(_)) if service.has == Amounts::ZERO => {
                    let is_newest = async { Ok(self.is_newest(&service)) };
                    let _ = self.desk.give_back(&ground, ORG, uid, Amounts::ZERO, is_newest).await;
                }
                _ => {}
            }
        }
        // Where it has come to rest.
        let Some(now) = self.cache.lock().unwrap().services.get(&uid).cloned() else { return };
        let rests = if now.wanted { now.has == now.demand.need } else { now.has.get(Dimension::Replicas) == 0 };
        if rests {
            let is_newest = async { Ok(self.is_newest(&now)) };
            let _ = self.desk.give_back(&ground, ORG, uid, now.has, is_newest).await;
        }
    }

    fn is_newest(&self, seen: &Service) -> bool {
        let server = self.server.lock().unwrap();
        server.objects.services.get(&seen.demand.uid).is_some_and(|newest| newest.version == seen.version)
    }

    /// Writes a service's children, and notes in its status what they are.
    fn bring(&self, seen: &Service, has: Amounts) {
        let mut server = self.server.lock().unwrap();
        server.version += 1;
        let version = server.version;
        let Some(service) = server.objects.services.get_mut(&seen.demand.uid) else { return };
        // The children are written whatever the object is by now; its status is compared and set.
        service.has = has;
        service.version = version;
        let service = service.clone();
        if service.demand == seen.demand && service.wanted == seen.wanted {
            self.cache.lock().unwrap().services.insert(seen.demand.uid, service);
        }
    }
}

struct World {
    server: Arc<Mutex<Server>>,
    leaders: Vec<Leader>,
    epoch: u64,
    clock: i64,
    /// The uid of the last service of each name: none comes twice.
    uids: BTreeMap<u128, Uuid>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(replicas: i64, cpu: i64) -> Self {
        let objects = Objects { quota: Some(quota(json!({"replicas": replicas, "cpu": cpu}))), ..Objects::default() };
        let server = Server { objects, version: 1, epoch: 1, fate: Fate::Done, wrong: vec![] };
        let server = Arc::new(Mutex::new(server));
        let leaders = vec![Leader::new(&server, 1)];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { server, leaders, epoch: 1, clock: 0, uids: BTreeMap::new(), runtime }
    }

    fn change(&self, change: impl FnOnce(&mut Objects, u64)) {
        let mut server = self.server.lock().unwrap();
        server.version += 1;
        let version = server.version;
        change(&mut server.objects, version);
    }

    fn uid(&self, name: u128) -> Uuid {
        self.uids.get(&name).copied().unwrap_or_default()
    }

    fn create(&mut self, name: u128, amounts: Amounts) {
        if self.server.lock().unwrap().objects.services.contains_key(&self.uid(name)) {
            return;
        }
        self.clock += 1;
        let demand = demand(name + 100 * u128::try_from(self.clock).unwrap(), self.clock, amounts);
        self.uids.insert(name, demand.uid);
        self.change(|objects, version| {
            let service = Service { demand, version, wanted: true, has: Amounts::ZERO };
            objects.services.insert(service.demand.uid, service);
        });
    }

    fn edit(&self, name: u128, edit: impl FnOnce(&mut Service)) {
        let uid = self.uid(name);
        self.change(|objects, version| {
            if let Some(service) = objects.services.get_mut(&uid) {
                edit(service);
                service.version = version;
            }
        });
    }

    /// What it has is gone before it is.
    fn delete(&self, uid: Uuid) {
        self.change(|objects, _| drop(objects.services.remove(&uid)));
    }

    fn limit(&self, replicas: i64, cpu: i64) {
        self.change(|objects, version| {
            let Some(quota) = &mut objects.quota else { return };
            quota.spec.limits.replicas = Some(replicas);
            quota.spec.limits.cpu = Some(cpu.to_string().parse().unwrap());
            quota.metadata.generation = quota.metadata.generation.map(|generation| generation + 1);
            quota.metadata.resource_version = Some(version.to_string());
        });
    }

    fn current(&self) -> &Leader {
        self.leaders.last().unwrap()
    }

    /// Everything that the leader does once its watches have told it all.
    fn come_to_rest(&mut self) {
        for _ in 0..4 {
            let leader = self.leaders.last_mut().unwrap();
            leader.hear();
            self.runtime.block_on(leader.desk.round(&Seen(leader), ORG)).unwrap();
            while leader.woken.try_recv().is_ok() {}
            let all: Vec<_> = leader.cache.lock().unwrap().services.keys().copied().collect();
            for uid in all {
                leader.hear();
                self.runtime.block_on(leader.pass(uid, true));
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let server = self.server.lock().unwrap();
        prop_assert_eq!(&server.wrong, &Vec::<String>::new());
        let held = server.objects.quota.as_ref().and_then(status::reservations);
        if let Some(held) = held {
            for (uid, service) in &server.objects.services {
                let reserved = held.get(uid).map_or(Amounts::ZERO, |held| held.amounts);
                prop_assert!(reserved.covers(&service.has), "{:?} has {:?} of {:?}", uid, service.has, reserved);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Create(u128, i64, i64),
    Scale(u128, i64, i64),
    Stop(u128),
    Start(u128),
    Delete(u128),
    Limit(i64, i64),
    /// Another process leads; the one before goes on for a while, and writes no child any more.
    Leader,
    Hear(usize),
    Pass(usize, u128),
    Round(usize),
    Fate(Fate),
    /// The status is lost, as by a restore that left it out.
    Wipe,
}

fn happening() -> impl Strategy<Value = Happening> {
    let who = 0u128..8;
    prop_oneof![
        4 => (who.clone(), 0i64..4, 0i64..6).prop_map(|(uid, replicas, cpu)| Happening::Create(uid, replicas, cpu)),
        3 => (who.clone(), 0i64..4, 0i64..6).prop_map(|(uid, replicas, cpu)| Happening::Scale(uid, replicas, cpu)),
        1 => who.clone().prop_map(Happening::Stop),
        1 => who.clone().prop_map(Happening::Start),
        1 => who.clone().prop_map(Happening::Delete),
        1 => (0i64..10, 0i64..12).prop_map(|(replicas, cpu)| Happening::Limit(replicas, cpu)),
        1 => Just(Happening::Leader),
        4 => (0usize..3).prop_map(Happening::Hear),
        8 => (0usize..3, who).prop_map(|(leader, uid)| Happening::Pass(leader, uid)),
        2 => (0usize..3).prop_map(Happening::Round),
        1 => prop_oneof![Just(Fate::Lost), Just(Fate::Refused)].prop_map(Happening::Fate),
        1 => Just(Happening::Wipe),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nobody_has_more_than_is_reserved_and_nothing_is_granted_beyond_a_limit(
        happenings in prop::collection::vec(happening(), 1..60)
    ) {
        let mut world = World::new(6, 8);
        for happening in happenings {
            match happening {
                Happening::Create(uid, replicas, cpu) => world.create(uid, need(replicas, cpu)),
                Happening::Scale(uid, replicas, cpu) => world.edit(uid, |it| it.demand.need = need(replicas, cpu)),
                Happening::Stop(uid) => world.edit(uid, |it| it.wanted = false),
                Happening::Start(uid) => world.edit(uid, |it| it.wanted = true),
                Happening::Delete(name) => world.delete(world.uid(name)),
                Happening::Limit(replicas, cpu) => world.limit(replicas, cpu),
                Happening::Leader => {
                    world.epoch += 1;
                    world.server.lock().unwrap().epoch = world.epoch;
                    let next = Leader::new(&world.server, world.epoch);
                    world.leaders.push(next);
                }
                // The leader that leads, or one of those before it.
                Happening::Hear(back) => {
                    if let Some(leader) = world.leaders.iter().rev().nth(back) { leader.hear(); }
                }
                Happening::Pass(back, name) => {
                    if let Some(leader) = world.leaders.iter().rev().nth(back) {
                        world.runtime.block_on(leader.pass(world.uid(name), back == 0));
                    }
                }
                Happening::Round(back) => {
                    if let Some(leader) = world.leaders.iter().rev().nth(back) {
                        let _ = world.runtime.block_on(leader.desk.round(&Seen(leader), ORG));
                    }
                }
                Happening::Fate(fate) => world.server.lock().unwrap().fate = fate,
                Happening::Wipe => world.change(|objects, version| {
                    let quota = objects.quota.as_mut().unwrap();
                    quota.status = None;
                    quota.metadata.resource_version = Some(version.to_string());
                }),
            }
            world.check()?;
        }
        // Once it is quiet, everybody who can be there at the same time is, the oldest first; and when those go, the others.
        world.server.lock().unwrap().fate = Fate::Done;
        world.limit(6, 8);
        for _ in 0..20 {
            world.come_to_rest();
            world.check()?;
            let there: Vec<Service> = world.server.lock().unwrap().objects.services.values().cloned().collect();
            let is_waiting = |it: &Service| it.wanted && it.has != it.demand.need;
            let waiting = there.iter().filter(|it| is_waiting(it));
            let fits = |it: &&Service| need(6, 8).covers(&it.demand.need);
            let oldest = waiting.clone().filter(fits).min_by_key(|it| (it.demand.created, it.demand.uid));
            // One that has something and waits for more stands in the way as well.
            let others = there.iter().filter(|it| oldest.is_none_or(|oldest| oldest.demand.uid != it.demand.uid));
            let others: Vec<_> = others.filter(|it| it.has != Amounts::ZERO || !is_waiting(it)).collect();
            prop_assert!(oldest.is_none() || !others.is_empty(), "{:?} waits, and nobody else has anything", oldest);
            let quota = world.current().cache.lock().unwrap().quota.clone().unwrap();
            prop_assert_eq!(quota.status.unwrap().waiting, i64::try_from(waiting.count()).unwrap());
            for service in others {
                world.delete(service.demand.uid);
            }
        }
        let left = world.server.lock().unwrap().objects.services.len();
        let never = world.server.lock().unwrap().objects.services.values().filter(|it| !need(6, 8).covers(&it.demand.need)).count();
        prop_assert_eq!(left, never, "somebody waits for ever");
    }
}

#[test]
fn whoever_waited_is_woken_when_room_is_freed_a_limit_raised_or_the_quota_deleted() {
    let mut world = World::new(2, 100);
    for uid in 1..=4 {
        world.create(uid, need(1, 1));
    }
    world.current().hear();
    for uid in 1..=4 {
        world.runtime.block_on(world.current().pass(world.uid(uid), true));
    }
    let woken = |world: &mut World| {
        let leader = world.leaders.last_mut().unwrap();
        leader.hear();
        world.runtime.block_on(leader.desk.round(&Seen(leader), ORG)).unwrap();
        let mut all: Vec<String> = vec![];
        while let Ok((_, name)) = leader.woken.try_recv() {
            all.push(name.rsplit('0').next().unwrap().to_owned());
        }
        all.sort();
        all
    };
    assert_eq!(woken(&mut world), [] as [&str; 0], "nothing has changed");
    world.delete(world.uid(1));
    assert_eq!(woken(&mut world), ["3"], "the oldest");
    world.limit(2, 99);
    assert_eq!(woken(&mut world), ["4"], "what it says about the limit is said anew");
    world.limit(3, 99);
    assert_eq!(woken(&mut world), ["4"]);
    world.create(5, need(1, 1));
    world.current().hear();
    world.runtime.block_on(world.current().pass(world.uid(5), true));
    world.change(|objects, _| objects.quota = None);
    assert_eq!(woken(&mut world), ["5"], "nobody limits it any more");
}

#[test]
fn a_round_that_changes_nothing_writes_nothing() {
    let world = World::new(2, 100);
    let leader = world.current();
    let round = || world.runtime.block_on(leader.desk.round(&Seen(leader), ORG)).unwrap();
    assert_eq!(round(), 1, "counted");
    assert_eq!((round(), round()), (0, 0));
    world.server.lock().unwrap().epoch = 9;
    let next = Leader::new(&world.server, 9);
    let round = || world.runtime.block_on(next.desk.round(&Seen(&next), ORG)).unwrap();
    assert_eq!((round(), round()), (1, 0), "the next leader takes it over");
}
