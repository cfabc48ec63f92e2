//! What the ledger was told last of each object: to tell it of changes only.
//!
//! Owns: that memory. Must never: be needed for anything to be right; a process begins without.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::{Chained, head};
use crate::ledger::{Head, Present, Snapshot};

/// What the ledger was told, by uid: a fingerprint of the last snapshot. Clones are the same memory.
#[derive(Clone, Default)]
pub struct Told {
    snapshots: Arc<Mutex<HashMap<Uuid, u64>>>,
    /// Whose chain and status were seen to agree.
    agreed: Arc<Mutex<HashMap<Uuid, Agreement>>>,
}

/// That a chain and its status agreed.
#[derive(Clone, Copy)]
struct Agreement {
    /// How many rewinds of the ledger were known then.
    rewinds: u64,
    /// Where the chain ended. A status that shows less was put back since: the API server was restored (rule 5).
    sequence: u64,
}

impl Told {
    /// Whether `snapshot` says anything new. The moment, the leader and the chain's end are not news.
    pub fn is_news(&self, snapshot: &Snapshot) -> bool {
        self.map().get(&snapshot.target.uid) != Some(&Self::gist(snapshot))
    }

    /// Whether nobody has seen yet, with so many rewinds known, that the chain of `object` and its status agree.
    pub fn doubts<K: Chained>(&self, object: &K, rewinds: u64) -> bool {
        let uid = object.meta().uid.as_ref().and_then(|uid| uid.parse().ok());
        let shown = object.status().and_then(|status| head(K::ledger(status)).ok());
        let begun = uid.zip(shown).filter(|(_, shown)| *shown != Head::GENESIS);
        begun.is_some_and(|(uid, shown)| !self.agrees(uid, rewinds, shown.sequence))
    }

    /// Whether an object's chain and status, which shows so many records, were seen to agree, with so many rewinds known.
    pub(super) fn agrees(&self, uid: Uuid, rewinds: u64, shown: u64) -> bool {
        let agreed = locked(&self.agreed).get(&uid).copied();
        agreed.is_some_and(|agreed| agreed.rewinds == rewinds && agreed.sequence <= shown)
    }

    /// Takes the word that they agree on so many records.
    pub(super) fn agreed(&self, uid: Uuid, rewinds: u64, sequence: u64) {
        locked(&self.agreed).insert(uid, Agreement { rewinds, sequence });
    }

    /// Nobody knows whether they agree until a record that the ledger took is shown.
    pub(super) fn parts(&self, uid: Uuid) {
        locked(&self.agreed).remove(&uid);
    }

    /// A record is shown: where the ledger took it behind what was shown before, nothing has to be compared. Call it once the
    /// status write succeeded.
    pub fn shows(&self, uid: Uuid, record: Head, taken: Option<u64>) {
        if let Some(rewinds) = taken {
            self.agreed(uid, rewinds, record.sequence);
        }
    }

    /// Notes that the ledger has this.
    pub fn note(&self, snapshot: &Snapshot) {
        self.map().insert(snapshot.target.uid, Self::gist(snapshot));
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: Uuid) {
        self.map().remove(&uid);
        locked(&self.agreed).remove(&uid);
    }

    fn gist(snapshot: &Snapshot) -> u64 {
        match &snapshot.present {
            Present::Service(service) => {
                fingerprint(&(snapshot.generation, &service.replicas_seen, &service.namespace.labels))
            }
            Present::Grant(grant) => fingerprint(&(snapshot.generation, grant.access, &grant.namespace.labels)),
            Present::Rollout(rollout) => fingerprint(&(snapshot.generation, rollout)),
            Present::Quota(quota) => fingerprint(&(snapshot.generation, quota)),
        }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Uuid, u64>> {
        locked(&self.snapshots)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells values apart within one process.
fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
