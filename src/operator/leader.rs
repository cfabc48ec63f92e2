//! Who may write: a Lease (coordination.k8s.io), held with an epoch and a local deadline.
//!
//! The holder renews every [`RENEW`]; others take over once the Lease has not changed for [`DURATION`] by their own
//! clock. The holder itself stops writing [`DEADLINE`] after the *start* of its last successful renewal, by its
//! monotonic clock: earlier than anybody can take over, whatever its wall clock says, and also if it was frozen.
//!
//! Owns: the Lease, the epoch, the deadline. Must never: exit the process, or know what is written.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tracing::{info, warn};

/// How often the holder renews.
const RENEW: Duration = Duration::from_secs(2);
/// How long the holder may write after the start of its last successful renewal.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a Lease must not have changed before somebody else takes it.
const DURATION: Duration = Duration::from_secs(15);
/// How often those who wait look.
const LOOK: Duration = Duration::from_secs(2);
/// Annotation: the epoch of the holder.
const EPOCH: &str = "berth.dev/epoch";

const _: () = assert!(DEADLINE.as_secs() < DURATION.as_secs());

/// This process's standing. Cheap to clone and to ask.
#[derive(Clone, Default)]
pub struct Leadership(Arc<Mutex<Option<Term>>>);

#[derive(Clone, Copy)]
struct Term {
    epoch: u64,
    until: Instant,
}

impl Leadership {
    /// The epoch under which this process may write right now; none if it may not.
    pub fn epoch(&self) -> Option<u64> {
        self.term().filter(|term| Instant::now() < term.until).map(|term| term.epoch)
    }

    /// Until when this process may write; none if it may not.
    pub fn until(&self) -> Option<Instant> {
        self.term().filter(|term| Instant::now() < term.until).map(|term| term.until)
    }

    /// It may write under this epoch until then.
    pub(super) fn lead(&self, epoch: u64, until: Instant) {
        self.set(Some(Term { epoch, until }));
    }

    fn set(&self, term: Option<Term>) {
        *self.term() = term;
    }

    fn term(&self) -> MutexGuard<'_, Option<Term>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The Lease did not come to pass.
#[derive(Debug, thiserror::Error)]
#[error("the Lease {name} could not be {verb}")]
pub struct LeaseError {
    name: String,
    verb: &'static str,
    source: Box<kube::Error>,
}

/// One candidate.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    leadership: Leadership,
}

impl Candidate {
    /// A candidate for the Lease `name` in `namespace`. `identity` must be another one for each start of a process.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            leadership: Leadership::default(),
        }
    }

    /// How this process stands; follows every renewal.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Waits until this process holds the Lease. `floor` is the largest epoch that the ledger knows.
    pub async fn acquire(&self, floor: u64) -> Result<u64, LeaseError> {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            let started = Instant::now();
            let current = self.api.get_opt(&self.name).await.map_err(|source| self.error("read", source))?;
            let version = current.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
            let held_by_other =
                current.as_ref().is_some_and(|lease| holder(lease).is_some_and(|name| name != self.identity));
            let since = match &seen {
                Some((before, since)) if *before == version => *since,
                _ => {
                    seen = Some((version, started));
                    started
                }
            };
            if !held_by_other || since.elapsed() >= DURATION {
                let epoch = next_epoch(current.as_ref(), floor);
                match self.write(current, epoch, true).await {
                    Ok(_) => {
                        self.leadership.lead(epoch, started + DEADLINE);
                        info!(identity = self.identity, epoch, "leading");
                        return Ok(epoch);
                    }
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(source) => return Err(self.error("taken", source)),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Renews until the Lease is lost; returns then.
    pub async fn hold(&self, epoch: u64) {
        let mut until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            tokio::time::sleep(RENEW).await;
            let started = Instant::now();
            match tokio::time::timeout(until.saturating_duration_since(started), self.renew(epoch)).await {
                Ok(Ok(true)) => {
                    until = started + DEADLINE;
                    self.leadership.lead(epoch, until);
                }
                Ok(Ok(false)) => {
                    warn!(identity = self.identity, "somebody else holds the Lease");
                    break;
                }
                Ok(Err(error)) => warn!(error = %error, "the Lease was not renewed; trying again until the deadline"),
                Err(_) => break,
            }
        }
        self.leadership.set(None);
        warn!(identity = self.identity, epoch, "not leading any more");
    }

    /// Gives the Lease back, so that the next one need not wait.
    pub async fn resign(&self) {
        self.leadership.set(None);
        if let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await
            && holder(&lease) == Some(&self.identity)
        {
            lease.spec.get_or_insert_default().holder_identity = Some(String::new());
            if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
                warn!(error = %error, "the Lease was not given back; it expires by itself");
            }
        }
    }

    async fn renew(&self, epoch: u64) -> Result<bool, kube::Error> {
        let Some(current) = self.api.get_opt(&self.name).await? else {
            // Deleted under us. Nobody else holds it either until it is made again; whoever makes it first leads.
            return match self.write(None, epoch, false).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                other => other.map(|_| true),
            };
        };
        if holder(&current) != Some(&self.identity) {
            return Ok(false);
        }
        match self.write(Some(current), epoch, false).await {
            // Somebody wrote in between; the next look tells who.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(self.api.get(&self.name).await.is_ok_and(|lease| holder(&lease) == Some(&self.identity)))
            }
            other => other.map(|_| true),
        }
    }

    async fn write(&self, current: Option<Lease>, epoch: u64, new_term: bool) -> Result<Lease, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let create = current.is_none();
        let mut lease = current.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        lease.metadata.annotations.get_or_insert_default().insert(EPOCH.to_owned(), epoch.to_string());
        let before = lease.spec.take().unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if new_term { Some(now.clone()) } else { before.acquire_time },
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(new_term && !create)),
            renew_time: Some(now),
            ..before
        });
        if create {
            self.api.create(&PostParams::default(), &lease).await
        } else {
            self.api.replace(&self.name, &PostParams::default(), &lease).await
        }
    }

    fn error(&self, verb: &'static str, source: kube::Error) -> LeaseError {
        LeaseError { name: self.name.clone(), verb, source: Box::new(source) }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|name| !name.is_empty())
}

/// Larger than any that was ever seen, and at least the clock's seconds, so that a Lease that was deleted does not
/// bring an old epoch back.
fn next_epoch(lease: Option<&Lease>, floor: u64) -> u64 {
    let noted =
        lease.and_then(|lease| lease.metadata.annotations.as_ref()?.get(EPOCH)?.parse::<u64>().ok()).unwrap_or(0);
    let seconds = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    (noted.max(floor) + 1).max(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(epoch: &str) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.annotations.get_or_insert_default().insert(EPOCH.to_owned(), epoch.to_owned());
        lease
    }

    #[test]
    fn an_epoch_is_never_seen_twice() {
        let far = 9_000_000_000;
        assert_eq!(next_epoch(Some(&lease(&far.to_string())), 7), far + 1);
        assert_eq!(next_epoch(None, far), far + 1);
        assert!(next_epoch(Some(&lease("rubbish")), 0) > 1_700_000_000, "at least the clock's seconds");
    }

    #[test]
    fn nothing_is_written_after_the_deadline() {
        let leadership = Leadership::default();
        assert_eq!(leadership.epoch(), None);
        let now = Instant::now();
        leadership.lead(5, now + Duration::from_secs(60));
        assert_eq!(leadership.epoch(), Some(5));
        leadership.lead(5, now);
        assert_eq!(leadership.epoch(), None);
    }
}
