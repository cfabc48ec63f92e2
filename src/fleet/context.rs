//! What passes over rollouts share, what one can come to, and why one can fail.
//!
//! Owns: those types. Must never: do anything with them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::Client;
use kube_runtime::events::Recorder;

use super::rollout::Damaged;
use crate::{
    api::{Deployment, TenantContainer},
    chain::ShowError,
    ledger::Micros,
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
    /// Events.
    pub recorder: Recorder,
    /// The time.
    pub clock: Box<dyn Fn() -> Micros + Send + Sync>,
}

/// How long a status that differs from the one before only in what it counts is not worth another write, in microseconds.
const CALM: i64 = 1_000_000;

/// When this process wrote each rollout's status last, by uid. What it forgets costs a write.
#[derive(Default)]
pub struct Calm(Mutex<HashMap<String, Micros>>);

impl Calm {
    /// How long a mere count has to wait yet, in microseconds; none where it has not.
    pub(super) fn left(&self, uid: &str, now: Micros) -> Option<i64> {
        let last = *self.locked().get(uid)?;
        // Not where a clock was set back.
        Some(last.0 + CALM - now.0).filter(|left| (1..=CALM).contains(left))
    }

    pub(super) fn wrote(&self, uid: &str, now: Micros) {
        let mut all = self.locked();
        all.retain(|_, at| at.0 + CALM > now.0);
        all.insert(uid.to_owned(), now);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Micros>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a pass ended early. It is tried again, later and later.
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
    /// The rollout's own status could not be written.
    #[error(transparent)]
    Show(#[from] ShowError),
    /// The API server left out what it always sets.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl PassError {
    /// One CamelCase word: metric label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Release { .. } => "ReleaseNotWritten",
            Self::Show(error) => error.reason(),
            Self::Damaged(_) => "MetadataDamaged",
        }
    }
}

/// What a pass did, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Requests to the API server that wrote.
    pub writes: u32,
    /// When to look again.
    pub look_again: Duration,
}
