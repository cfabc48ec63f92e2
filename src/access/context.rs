//! What passes over grants share, what one can come to, and why one can fail.
//!
//! Owns: those types. Must never: do anything with them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Client;
use kube_runtime::events::Recorder;
use tokio::sync::watch;
use uuid::Uuid;

use super::plan::Damaged;
use crate::{
    api::AccessGrant,
    chain::{ChainError, Keeper, Told},
    ledger::{Ledger, Namespace},
    tenant::cache::Cache,
};

/// The grants themselves.
pub type Grants = Cache<AccessGrant>;
/// The RoleBindings that Berth made.
pub type Bindings = Cache<RoleBinding>;

/// Everything that a pass works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The grants.
    pub grants: Grants,
    /// Their RoleBindings.
    pub bindings: Bindings,
    /// A namespace as it was seen; none where its event is still on its way.
    pub namespace: Box<SeeNamespace>,
    /// Uid of the namespace `kube-system`.
    pub cluster: Uuid,
    /// Berth's own namespace, where tombstones are.
    pub home: String,
    /// Moves whenever a tombstone was written: somebody has to look after it.
    pub tombstones: watch::Sender<u64>,
    /// The ledger.
    pub ledger: Ledger,
    /// What it was told last of each grant: to tell it of changes only.
    pub told: Told,
    /// The epoch of the leadership under which this process may write now; none after its local deadline.
    pub epoch: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Events.
    pub recorder: Recorder,
    /// The time.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

/// Looks a namespace up by its name.
type SeeNamespace = dyn Fn(&str) -> Option<NamespaceSeen> + Send + Sync;

/// A namespace as grants need it.
#[derive(Clone, Debug)]
pub struct NamespaceSeen {
    /// As the ledger keeps it.
    pub row: Namespace,
    /// It is on its way out.
    pub is_terminating: bool,
}

impl Context {
    /// What the chains of grants are kept and shown with.
    pub(super) fn keeper(&self) -> Keeper<'_> {
        let Self { client, home, ledger, told, tombstones, .. } = self;
        Keeper { client, home, ledger, told, tombstones }
    }
}

/// Why a pass ended early. It is tried again, later and later.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A RoleBinding could not be read, written or deleted.
    #[error("the API server did not {verb} RoleBinding {subject}")]
    Binding {
        /// What was asked.
        verb: &'static str,
        /// Namespace and name.
        subject: String,
        /// What the API server or the connection said.
        source: Box<kube::Error>,
    },
    /// Its chain could not be brought further; the access is as it should be, but nothing new is shown.
    #[error("how the access stands is not shown")]
    Chain(#[from] ChainError),
    /// The API server left out what it always sets.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl PassError {
    /// One CamelCase word: metric label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Binding { .. } => "BindingNotWritten",
            Self::Chain(error) => error.reason(),
            Self::Damaged(_) => "MetadataDamaged",
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
