//! Where services ask: looks a reservation up, or holds a round over everybody who asks, and writes what came of it by
//! compare-and-set.
//!
//! Owns: the order of reading, deciding and writing, and who was told to wait. Must never: decide; grant anything that the
//! API server has not taken; give back on the word of a cache.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::Resource;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    admit::{self, Demand, Held, Refusal, Reservations},
    amounts::{Amounts, Limits},
    status,
};
use crate::{
    api::{TenantQuota, tenant_quota::TenantQuotaStatus},
    ledger::Micros,
};

/// How often a write is tried that somebody else was faster with. Within one process nobody is; two leaders meet once.
const TRIES: usize = 4;

/// Why there was no answer. The pass is tried again, later and later.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// Somebody else writes this quota at the same time.
    #[error("TenantQuota {0} has changed since it was read; it is read again")]
    Overtaken(String),
    /// This process is not, or not certainly, the leader any more.
    #[error("this process is not the leader; it grants nothing")]
    NotLeader,
    /// The API server did not answer, or refused.
    #[error("{what} could not be {verb}, so TenantQuota {quota} decides nothing for now")]
    Api {
        /// The quota's name.
        quota: String,
        /// What was asked: `read` or `written`.
        verb: &'static str,
        /// About what.
        what: String,
        /// What the API server or the connection said.
        source: Box<kube::Error>,
    },
}

/// What a service is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has reserved what it needs, or its organisation has no quota.
    Admitted,
    /// It waits: what is missing, in a sentence.
    Waits(String),
}

/// What is left of a service that the caches do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is there: the cache is behind.
    Everything,
    /// It is gone, and of its disks there are so many bytes.
    Disks(i64),
}

/// What the desk stands on: the API server and the caches; in tests, something smaller.
pub trait Ground: Sync {
    /// The newest that is known of a quota.
    fn quota(&self, name: &str) -> Option<Arc<TenantQuota>>;
    /// What all services of an organisation ask for, as the caches know them.
    fn demands(&self, tenant_org: &str) -> Vec<Demand>;
    /// Whether the caches know this very service.
    fn knows(&self, uid: Uuid, held: &Held) -> bool;
    /// The epoch of the leadership under which may be written now, and the time.
    fn term(&self) -> Option<(u64, Micros)>;
    /// Reads a quota from the API server itself.
    fn read(&self, name: &str) -> impl Future<Output = Result<Option<Arc<TenantQuota>>, QuotaError>> + Send;
    /// Replaces the status of a quota, if that has not changed since it was read, and keeps what comes back.
    fn write(
        &self,
        quota: &TenantQuota,
        status: &TenantQuotaStatus,
    ) -> impl Future<Output = Result<(), QuotaError>> + Send;
    /// Counts what runs of an organisation, by the API server itself.
    fn count(&self, tenant_org: &str) -> impl Future<Output = Result<Reservations, QuotaError>> + Send;
    /// What is left of a service that the caches do not know, by the API server itself.
    fn left(&self, uid: Uuid, held: &Held) -> impl Future<Output = Result<Left, QuotaError>> + Send;
}

/// A service, by namespace and name.
pub type Place = (String, String);

/// Who waits for one quota, as the last round has told them.
#[derive(Default)]
struct Queue {
    /// Held over a round: within this process, nobody writes a quota beside another.
    round: Arc<tokio::sync::Mutex<()>>,
    waiting: HashMap<Uuid, Refusal>,
    /// The version of the quota that came of that round.
    version: Option<String>,
}

/// The desk. One for a term of leadership: who was told to wait asks anew in the next.
pub struct Desk {
    /// By quota.
    queues: Mutex<HashMap<String, Queue>>,
    /// Who was told to wait, and may ask again.
    woken: mpsc::UnboundedSender<Place>,
}

impl Desk {
    /// A desk, and who is to ask again.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Place>) {
        let (woken, receiver) = mpsc::unbounded_channel();
        (Self { queues: Mutex::default(), woken }, receiver)
    }

    /// Whether a service may have what it needs.
    pub async fn ask(&self, ground: &impl Ground, tenant_org: &str, own: &Demand) -> Result<Answer, QuotaError> {
        let name = TenantQuota::name_for(tenant_org);
        let (epoch, _) = ground.term().ok_or(QuotaError::NotLeader)?;
        let known = || match (of_org(ground, &name, tenant_org), self.refusal(&name, own.uid)) {
            (None, _) => Some(Answer::Admitted),
            (Some(quota), None) => covers(&quota, epoch, own).then_some(Answer::Admitted),
            // It asks for something else now, or there may be room by now: whoever changed the quota has not told yet.
            (Some(quota), Some((refusal, version))) => (refusal.demand == *own
                && version == quota.metadata.resource_version)
                .then_some(Answer::Waits(refusal.message)),
        };
        if let Some(answer) = known() {
            return Ok(answer);
        }
        let turn = self.turn(&name);
        let _turn = turn.lock().await;
        if let Some(answer) = known() {
            return Ok(answer);
        }
        self.hold_round(ground, &name, tenant_org, Some(own)).await?;
        let refusal = self.refusal(&name, own.uid);
        Ok(refusal.map_or(Answer::Admitted, |(refusal, _)| Answer::Waits(refusal.message)))
    }

    /// A service asks for nothing any more: whoever waits behind it does so no longer.
    pub async fn withdraw(&self, ground: &impl Ground, tenant_org: &str, uid: Uuid) -> Result<u32, QuotaError> {
        if self.refusal(&TenantQuota::name_for(tenant_org), uid).is_none() {
            return Ok(0);
        }
        self.round(ground, tenant_org).await
    }

    /// A round over everybody, because something has changed. Answers how often it wrote.
    pub async fn round(&self, ground: &impl Ground, tenant_org: &str) -> Result<u32, QuotaError> {
        let name = TenantQuota::name_for(tenant_org);
        let turn = self.turn(&name);
        let _turn = turn.lock().await;
        self.hold_round(ground, &name, tenant_org, None).await
    }

    /// Gives back what a service has reserved beyond what it `holds`. `is_newest` asks the API server itself, after the quota
    /// was read, whether the service is still as it was when that was found out: whoever has granted it more since has
    /// changed the quota, and whoever asks for more has changed the service.
    pub async fn give_back(
        &self,
        ground: &impl Ground,
        tenant_org: &str,
        uid: Uuid,
        holds: Amounts,
        is_newest: impl Future<Output = Result<bool, QuotaError>> + Send,
    ) -> Result<u32, QuotaError> {
        let name = TenantQuota::name_for(tenant_org);
        let has_more = || {
            let quota = of_org(ground, &name, tenant_org)?;
            let amounts = status::reservation(&quota, uid).filter(|amounts| !holds.covers(amounts))?;
            Some((quota, amounts))
        };
        if has_more().is_none() {
            return Ok(0);
        }
        let turn = self.turn(&name);
        let _turn = turn.lock().await;
        let (epoch, _) = ground.term().ok_or(QuotaError::NotLeader)?;
        if has_more().is_some_and(|(quota, _)| !status::is_taken_over(&quota, epoch)) {
            self.hold_round(ground, &name, tenant_org, None).await?;
        }
        let Some((quota, amounts)) = has_more() else { return Ok(0) };
        let Some(mut held) = status::reservations(&quota) else { return Ok(0) };
        if !is_newest.await? {
            return Ok(0);
        }
        match held.get_mut(&uid) {
            Some(own) if holds != Amounts::ZERO => own.amounts = amounts.at_most(&holds),
            _ => drop(held.remove(&uid)),
        }
        let mut demands = ground.demands(tenant_org);
        // What it asked for before is what it gives back now.
        demands.retain(|demand| demand.uid != uid);
        match self.decide(ground, &quota, held, demands).await {
            Err(QuotaError::Overtaken(name)) => {
                ground.read(&name).await?;
                Err(QuotaError::Overtaken(name))
            }
            other => other,
        }
    }

    /// The quota is gone: nobody waits for it any more.
    pub fn dissolve(&self, name: &str) {
        let waiting = self.queues().get_mut(name).map(|queue| std::mem::take(&mut queue.waiting));
        self.wake(waiting.unwrap_or_default().into_values());
    }

    async fn hold_round(
        &self,
        ground: &impl Ground,
        name: &str,
        tenant_org: &str,
        own: Option<&Demand>,
    ) -> Result<u32, QuotaError> {
        for _ in 0..TRIES {
            let Some(quota) = of_org(ground, name, tenant_org) else {
                self.dissolve(name);
                return Ok(0);
            };
            let mut held = match status::reservations(&quota) {
                Some(held) => held,
                None => ground.count(tenant_org).await?,
            };
            release(ground, &mut held).await?;
            let mut demands = ground.demands(tenant_org);
            if let Some(own) = own {
                // It knows itself better than the cache does.
                demands.retain(|demand| demand.uid != own.uid);
                demands.push(own.clone());
            }
            match self.decide(ground, &quota, held, demands).await {
                Err(QuotaError::Overtaken(_)) => drop(ground.read(name).await?),
                other => return other,
            }
        }
        Err(QuotaError::Overtaken(name.to_owned()))
    }

    /// Decides, writes what came of it, and tells those who waited. Answers how often it wrote.
    async fn decide(
        &self,
        ground: &impl Ground,
        quota: &TenantQuota,
        held: Reservations,
        demands: Vec<Demand>,
    ) -> Result<u32, QuotaError> {
        let name = quota.meta().name.clone().unwrap_or_default();
        let round = admit::admit(&name, &Limits::from(&quota.spec.limits), held, demands);
        let (epoch, now) = ground.term().ok_or(QuotaError::NotLeader)?;
        let after = status::of(quota, &round, epoch, now);
        let differs = quota.status.as_ref() != Some(&after);
        if differs {
            ground.write(quota, &after).await?;
        }
        let now_waiting: HashMap<Uuid, Refusal> =
            round.waiting.into_iter().map(|refusal| (refusal.demand.uid, refusal)).collect();
        // Whoever changed a limit looks at those who wait: what they say is said anew.
        let is_changed = quota.status.as_ref().map(|status| status.observed_generation) != quota.metadata.generation;
        let version = ground.quota(&name).and_then(|quota| quota.metadata.resource_version.clone());
        let moved = {
            let mut queues = self.queues();
            let queue = queues.entry(name).or_default();
            queue.version = version;
            let mut before = std::mem::replace(&mut queue.waiting, now_waiting);
            before.retain(|uid, _| is_changed || !queue.waiting.contains_key(uid));
            before
        };
        self.wake(moved.into_values());
        Ok(u32::from(differs))
    }

    fn wake(&self, refusals: impl Iterator<Item = Refusal>) {
        for Refusal { demand, .. } in refusals {
            // Nobody listens where nobody leads any more.
            let _ = self.woken.send((demand.namespace, demand.name));
        }
    }

    /// Why a service waits, by the last round, and the version of the quota that came of it.
    fn refusal(&self, name: &str, uid: Uuid) -> Option<(Refusal, Option<String>)> {
        let queues = self.queues();
        let queue = queues.get(name)?;
        Some((queue.waiting.get(&uid)?.clone(), queue.version.clone()))
    }

    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.queues().entry(name.to_owned()).or_default().round)
    }

    /// A panic elsewhere leaves the map whole: every change to it is one call.
    fn queues(&self) -> MutexGuard<'_, HashMap<String, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The quota of an organisation. Another organisation's may have the name (`Acme` and `acme`): it is not theirs.
fn of_org(ground: &impl Ground, name: &str, tenant_org: &str) -> Option<Arc<TenantQuota>> {
    ground.quota(name).filter(|quota| quota.spec.tenant_org == tenant_org)
}

/// Whether a service has reserved what it asks for, in a status of this leader's own: one that an earlier leader wrote may
/// be changed yet by what that has sent and forgotten.
fn covers(quota: &TenantQuota, epoch: u64, own: &Demand) -> bool {
    status::is_taken_over(quota, epoch)
        && status::reservation(quota, own.uid).is_some_and(|amounts| amounts.covers(&own.need))
}

/// Takes out what is held by services that are gone. A cache that does not know one may only be behind.
async fn release(ground: &impl Ground, held: &mut Reservations) -> Result<(), QuotaError> {
    let unknown: Vec<_> = held.iter().filter(|(uid, held)| !ground.knows(**uid, held)).map(|(uid, _)| *uid).collect();
    for uid in unknown {
        let Some(one) = held.get_mut(&uid) else { continue };
        match ground.left(uid, one).await? {
            Left::Everything => {}
            Left::Disks(0) => drop(held.remove(&uid)),
            Left::Disks(bytes) => one.amounts = one.amounts.at_most(&Amounts::of_disks(bytes)),
        }
    }
    Ok(())
}
