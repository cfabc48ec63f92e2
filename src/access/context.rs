//! What passes over grants share, what one can come to, and why one can fail.
//!
//! Owns: those types. Must never: do anything with them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Client;
use kube_runtime::events::Recorder;

use super::plan::Damaged;
use crate::{api::AccessGrant, tenant::cache::Cache};

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
    /// Whether a namespace is on its way out.
    pub is_terminating: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// Events.
    pub recorder: Recorder,
    /// The time.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
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
    /// The grant has changed since it was read: the next pass reads again.
    #[error("{0} has changed since it was read; it is read again")]
    Overtaken(String),
    /// The grant is gone.
    #[error("{0} is gone")]
    Gone(String),
    /// The status could not be written.
    #[error("the status of AccessGrant {subject} could not be written")]
    Status {
        /// Namespace and name.
        subject: String,
        /// What the API server or the connection said.
        source: Box<kube::Error>,
    },
    /// The API server left out what it always sets.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl PassError {
    /// One CamelCase word: metric label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Binding { .. } => "BindingNotWritten",
            Self::Overtaken(_) => "Overtaken",
            Self::Gone(_) => "Gone",
            Self::Status { .. } => "StatusNotWritten",
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
