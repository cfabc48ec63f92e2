//! What passes share, what one can come to, and why one can fail.
//!
//! Owns: those types. Must never: do anything with them.

use std::time::Duration;

use kube::Client;
use kube_runtime::events::Recorder;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    apply::ChildError, cache::Cache, observe::Caches, remake::RemakeError, resize::ResizeError, rivals::Rivals,
};
use crate::{
    api::{TenantContainer, TenantQuota},
    chain::{ChainError, Keeper, ShowError, Told, Unaccountable},
    ledger::{Ledger, LedgerError, Micros},
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

impl Context {
    /// What the chains of TenantContainers are kept and shown with.
    pub(crate) fn keeper(&self) -> Keeper<'_> {
        let Self { client, home, ledger, told, tombstones, .. } = self;
        Keeper { client, home, ledger, told, tombstones }
    }
}

/// Why a pass ended early. It is tried again, later and later, but at its own moment if it has one.
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
    /// Nor did it in the end, when all else was done.
    #[error("the new state is not shown")]
    Untold {
        /// Why it did not.
        source: LedgerError,
        /// When the service is to be looked at for its own sake, if so: no drain and no deadline waits for the ledger.
        look_again: Option<Duration>,
    },
    /// What goes with the object has no other home yet: its finalizer stays.
    #[error(transparent)]
    Tombstone(#[from] TombstoneError),
    /// There is nothing to be told of the object.
    #[error(transparent)]
    Unaccountable(Unaccountable),
    /// A pass that takes more hops than a life has.
    #[error("{0} takes more hops than a life has; this is a defect of Berth")]
    Endless(String),
}

impl From<ChainError> for PassError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Show(error) => Self::Show(error),
            ChainError::Ledger(error) => Self::Ledger(error),
            ChainError::Tombstone(error) => Self::Tombstone(error),
            ChainError::Unaccountable(error) => Self::Unaccountable(error),
            ChainError::NotLeader => Self::NotLeader,
            ChainError::Endless(subject) => Self::Endless(subject),
        }
    }
}

impl PassError {
    /// One CamelCase word: metric label and Event reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotLeader => "NotLeader",
            Self::Child(_) | Self::Resize(_) | Self::Remake(_) => "ChildNotWritten",
            Self::Show(error) => error.reason(),
            Self::Quota(QuotaError::NotLeader) => "NotLeader",
            Self::Quota(QuotaError::Overtaken(_)) => "Overtaken",
            Self::Quota(QuotaError::Api { .. }) => "QuotaNotAsked",
            Self::Ledger(error) | Self::Untold { source: error, .. } => error.reason(),
            Self::Tombstone(_) => "TombstoneNotWritten",
            Self::Unaccountable(error) => error.reason(),
            Self::Endless(_) => "Endless",
        }
    }

    /// When the object is to be looked at at the latest, whatever failed; none where that has no moment.
    pub const fn look_again(&self) -> Option<Duration> {
        match self {
            Self::Untold { look_again, .. } => *look_again,
            _ => None,
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
