//! The chain of one object: how its records are kept, shown, brought into agreement with the ledger, and ended.
//!
//! Every kind whose objects have a chain does it this way (docs/ledger.md, the seven rules): a pass decides what there is to
//! tell, [`keep`]s it, and [`show`]s it by compare-and-set on the head of the chain; [`agree`] is for where ledger and status
//! differ; [`let_go`] stands between the last record and the release of the finalizer. [`tell`] does all of it in
//! this order, for a kind whose objects wait for no record.
//!
//! Owns: that order, and the only writes to a status that moves a head. Must never: decide what a record says, or know what a
//! kind's children are.

pub mod actor;
mod calm;
mod carried;
mod disagree;
mod ending;
pub mod event;
mod keep;
mod known;
mod record;
mod show;
#[cfg(test)]
pub(crate) mod simulated;
mod synced;
mod tell;
mod told;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

pub use calm::Calm;
pub use carried::{SLOTS, read, slots_left};
pub use ending::{LetGo, let_go};
pub use keep::{Agreed, Entered, agree, doubt, is_cleared, keep};
pub use known::{Known, Unaccountable};
pub use record::{MESSAGE, detail, is_no_news, seen, unseen};
pub use show::{MANAGER, ShowError, hold, is_held, release, show, show_as_read};
pub use synced::{Kept, SYNCED, is_unsynced, look_again};
pub use tell::{Account, Said, StatusOf, Telling, Untold, tell};
pub use told::Told;

use crate::{
    api::LedgerStatus,
    ledger::{Hash, Head, Ledger, LedgerError, Target},
    lifecycle::State,
    tombstone::TombstoneError,
};

/// A kind of object whose status shows a chain.
pub trait Chained: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned {
    /// Its status.
    type Status: Serialize + Sync;

    /// The fields of its status that are written with its chain, where somebody else writes the others; empty: all.
    const OWNED: &'static [&'static str] = &[];

    /// Where the API server has those that are in this namespace; for a kind without namespaces, all.
    fn api(client: Client, namespace: &str) -> Api<Self>;

    /// Its status, once it has one.
    fn status(&self) -> Option<&Self::Status>;

    /// What a status says of the chain.
    fn ledger(status: &Self::Status) -> &LedgerStatus;

    /// The conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];
}

/// What passes of one kind keep and show chains with.
#[derive(Clone, Copy)]
pub struct Keeper<'a> {
    /// The API server.
    pub client: &'a Client,
    /// Berth's own namespace, where tombstones are.
    pub home: &'a str,
    /// The ledger.
    pub ledger: &'a Ledger,
    /// What it was told of objects of this kind.
    pub told: &'a Told,
    /// Moves whenever a tombstone is written: somebody has to look after it, whatever becomes of the pass.
    pub tombstones: &'a watch::Sender<u64>,
}

/// The chain of one object, as its status shows it.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// The object.
    pub target: &'a Target,
    /// `metadata.generation`.
    pub generation: i64,
    /// Somebody deletes it.
    pub deleting: bool,
    /// The state where the chain ends; of a kind without states, none but `deleted`.
    pub state: Option<State>,
    /// Where it ends.
    pub head: Head,
    /// What the status says of it.
    pub shown: &'a LedgerStatus,
}

/// The end of the chain that a status shows; what Berth cannot have written, as the field and its value.
pub fn head(shown: &LedgerStatus) -> Result<Head, (&'static str, String)> {
    if shown.head.is_empty() {
        return Ok(Head::GENESIS);
    }
    let sequence = u64::try_from(shown.sequence).map_err(|_| ("ledger.sequence", shown.sequence.to_string()))?;
    let hash: Hash = shown.head.parse().map_err(|_| ("ledger.head", shown.head.clone()))?;
    Ok(Head { sequence, hash })
}

/// Why a chain could not be brought further.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The object itself could not be written.
    #[error(transparent)]
    Show(#[from] ShowError),
    /// The ledger did not take a record; nothing new is shown.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What goes with the object has no other home yet: its finalizer stays.
    #[error(transparent)]
    Tombstone(#[from] TombstoneError),
    /// There is nothing to be told of the object.
    #[error(transparent)]
    Unaccountable(#[from] Unaccountable),
    /// This process is not, or not certainly, the leader any more.
    #[error("this process is not the leader; it writes nothing")]
    NotLeader,
    /// More steps than there can be.
    #[error("{0} takes more steps than there can be; this is a defect of Berth")]
    Endless(String),
}

impl ChainError {
    /// One CamelCase word: metric label and Event reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Show(error) => error.reason(),
            Self::Ledger(error) => error.reason(),
            Self::Tombstone(_) => "TombstoneNotWritten",
            Self::Unaccountable(error) => error.reason(),
            Self::NotLeader => "NotLeader",
            Self::Endless(_) => "Endless",
        }
    }
}
