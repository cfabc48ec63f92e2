//! What passes over rollouts share, what one can come to, and why one can fail.
//!
//! Owns: those types. Must never: do anything with them.

use std::time::Duration;

use kube::Client;
use kube_runtime::events::Recorder;
use tokio::sync::watch;
use uuid::Uuid;

use super::rollout::Damaged;
use crate::{
    api::{Deployment, TenantContainer},
    chain::{Calm, ChainError, Keeper, Told},
    ledger::{Ledger, LedgerError, Micros},
    tenant::{cache::Cache, view::NamespaceView},
};

/// The rollouts themselves.
pub type Rollouts = Cache<Deployment>;

/// Everything that a pass works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The rollouts.
    pub rollouts: Rollouts,
    /// What they may select. The same cache as that of the services' own passes.
    pub tenants: Cache<TenantContainer>,
    /// Where that is.
    pub namespaces: Cache<NamespaceView>,
    /// When the status of each was written last.
    pub calm: Calm,
    /// When the ledger was told of each last.
    pub present: Calm,
    /// Uid of the namespace `kube-system`.
    pub cluster: Uuid,
    /// Berth's own namespace, where tombstones are.
    pub home: String,
    /// Moves whenever a tombstone was written: somebody has to look after it.
    pub tombstones: watch::Sender<u64>,
    /// The ledger.
    pub ledger: Ledger,
    /// What it was told last of each rollout: to tell it of changes only.
    pub told: Told,
    /// The epoch of the leadership under which this process may write now; none after its local deadline.
    pub epoch: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Events.
    pub recorder: Recorder,
    /// The time.
    pub clock: Box<dyn Fn() -> Micros + Send + Sync>,
}

impl Context {
    /// What the chains of rollouts are kept and shown with.
    pub(super) fn keeper(&self) -> Keeper<'_> {
        let Self { client, home, ledger, told, tombstones, .. } = self;
        Keeper { client, home, ledger, told, tombstones }
    }
}

/// Why a pass ended early. It is tried again, later and later, but at its own moment if it has one.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A target's release could not be written, for no reason of the target's own.
    #[error("the release of TenantContainer {subject} could not be written")]
    Release {
        /// Namespace and name.
        subject: String,
        /// What the API server or the connection said.
        source: Box<kube::Error>,
    },
    /// Its chain could not be brought further; targets get what they are to have, but nothing new is shown.
    #[error("how the rollout stands is not shown")]
    Chain(#[from] ChainError),
    /// The ledger did not take how the rollout stands; all else was done.
    #[error("how the rollout stands is not shown")]
    Untold {
        /// Why it did not.
        source: LedgerError,
        /// When the rollout is to be looked at for its own sake, if so: no soak and no deadline waits for the ledger.
        look_again: Option<Duration>,
    },
    /// The API server left out what it always sets.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl PassError {
    /// One CamelCase word: metric label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Release { .. } => "ReleaseNotWritten",
            Self::Chain(error) => error.reason(),
            Self::Untold { source, .. } => source.reason(),
            Self::Damaged(_) => "MetadataDamaged",
        }
    }

    /// When the rollout is to be looked at at the latest, whatever failed; none where that has no moment.
    pub const fn look_again(&self) -> Option<Duration> {
        match self {
            Self::Untold { look_again, .. } => *look_again,
            _ => None,
        }
    }
}

/// What a pass did, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Requests to the API server that wrote.
    pub writes: u32,
    /// Records that were kept.
    pub records: u32,
    /// When to look again.
    pub look_again: Duration,
}
