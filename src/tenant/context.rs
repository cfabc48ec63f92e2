//! What passes share, what one can come to, and why one can fail.
//!
//! Owns: those types. Must never: do anything with them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::Client;
use kube_runtime::events::Recorder;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    apply::ChildError, cache::Cache, observe::Caches, remake::RemakeError, resize::ResizeError, rivals::Rivals,
    show::ShowError, view::fingerprint,
};
use crate::{
    api::{TenantContainer, TenantQuota},
    ledger::{Ledger, LedgerError, Micros, Snapshot},
    quota::{Desk, QuotaError},
    tombstone::TombstoneError,
};

/// The objects themselves.
pub type Tenants = Cache<TenantContainer>;

/// The quotas.
pub type Quotas = Cache<TenantQuota>;

/// Everything that a pass works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Berth's own namespace, where tombstones are.
    pub home: String,
    /// Moves whenever a tombstone was written: somebody has to look after it.
    pub tombstones: watch::Sender<u64>,
    /// Uid of the namespace `kube-system`.
    pub cluster: Uuid,
    /// The TenantContainers.
    pub tenants: Tenants,
    /// Their children.
    pub caches: Caches,
    /// Who claims which identity.
    pub rivals: Rivals,
    /// The quotas of organisations.
    pub quotas: Quotas,
    /// Where a service asks for what its organisation may have.
    pub desk: Desk,
    /// The ledger.
    pub ledger: Ledger,
    /// Events.
    pub recorder: Recorder,
    /// The epoch of the leadership under which this process may write now; none after its local deadline.
    pub epoch: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    /// The time.
    pub clock: Box<dyn Fn() -> Micros + Send + Sync>,
    /// What the ledger was told last of each object: to tell it of changes only.
    pub told: Told,
}

/// What the ledger was told, by uid: a fingerprint of the last snapshot.
#[derive(Default)]
pub struct Told {
    snapshots: Mutex<HashMap<Uuid, u64>>,
    /// Whose chain and status were seen to agree, and how many rewinds of the ledger were known then.
    agreed: Mutex<HashMap<Uuid, u64>>,
}

impl Told {
    /// Whether `snapshot` says anything new. The moment, the leader and the chain's end are not news.
    pub(super) fn is_news(&self, snapshot: &Snapshot) -> bool {
        self.map().get(&snapshot.target.uid) != Some(&Self::gist(snapshot))
    }

    /// Whether an object's chain and status were seen to agree, with so many rewinds known.
    pub(super) fn agrees(&self, uid: Uuid, rewinds: u64) -> bool {
        locked(&self.agreed).get(&uid) == Some(&rewinds)
    }

    pub(super) fn agreed(&self, uid: Uuid, rewinds: u64) {
        locked(&self.agreed).insert(uid, rewinds);
    }

    pub(super) fn note(&self, snapshot: &Snapshot) {
        self.map().insert(snapshot.target.uid, Self::gist(snapshot));
    }

    pub(super) fn forget(&self, uid: Uuid) {
        self.map().remove(&uid);
        locked(&self.agreed).remove(&uid);
    }

    fn gist(snapshot: &Snapshot) -> u64 {
        fingerprint(&(snapshot.generation, &snapshot.replicas_seen, &snapshot.namespace.labels))
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Uuid, u64>> {
        locked(&self.snapshots)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a pass ended early. It is tried again, later and later.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// This process is not, or not certainly, the leader any more.
    #[error("this process is not the leader; it writes nothing")]
    NotLeader,
    /// A child could not be written.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The CPU of a replica could not be changed.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// A broken replica could not be deleted.
    #[error(transparent)]
    Remake(#[from] RemakeError),
    /// The object itself could not be written.
    #[error(transparent)]
    Show(#[from] ShowError),
    /// Its quota could not be asked: it is given nothing new meanwhile.
    #[error("the quota of its organisation could not be asked")]
    Quota(#[from] QuotaError),
    /// The ledger did not take a record; children are as they should be, but nothing new is shown.
    #[error("the new state is not shown")]
    Ledger(#[from] LedgerError),
    /// What goes with the object has no other home yet: its finalizer stays.
    #[error(transparent)]
    Tombstone(#[from] TombstoneError),
    /// A pass that takes more hops than a life has.
    #[error("{0} takes more hops than a life has; this is a defect of Berth")]
    Endless(String),
}

impl PassError {
    /// One CamelCase word: metric label and Event reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotLeader => "NotLeader",
            Self::Child(_) | Self::Resize(_) | Self::Remake(_) => "ChildNotWritten",
            Self::Show(ShowError::Overtaken(_)) => "Overtaken",
            Self::Show(ShowError::Gone(_)) => "Gone",
            Self::Show(ShowError::Api { .. }) => "StatusNotWritten",
            Self::Quota(QuotaError::NotLeader) => "NotLeader",
            Self::Quota(QuotaError::Overtaken(_)) => "Overtaken",
            Self::Quota(QuotaError::Api { .. }) => "QuotaNotAsked",
            Self::Ledger(error) => error.reason(),
            Self::Tombstone(_) => "TombstoneNotWritten",
            Self::Endless(_) => "Endless",
        }
    }
}

/// What a pass did, for metrics and benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Requests to the API server that wrote.
    pub writes: u32,
    /// Records that were kept.
    pub records: u32,
    /// When to look again.
    pub look_again: Duration,
}
