//! What the records of an object say of it, whatever its kind: who it is, as it stands, and where its chain ends.
//!
//! Owns: reading that, and the envelope's share of drafts and snapshots. Must never: know what a kind's records tell.

use serde_json::Value;
use uuid::Uuid;

use super::{Chain, Chained, actor, head};
use crate::{
    api::LedgerStatus,
    ledger::{Actor, Draft, Head, Kind, LedgerError, Micros, Present, Seal, Snapshot, Target},
    lifecycle::State,
};

/// An object as its records name it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who it is.
    pub target: Target,
    /// `metadata.generation`.
    pub generation: i64,
    /// Somebody deletes it.
    pub deleting: bool,
    /// Where its chain ends, as shown.
    pub head: Head,
    /// Who asked for it as it stands.
    pub actor: Actor,
    created_at: Micros,
}

/// Why there is nothing to be told of an object.
#[derive(Debug, thiserror::Error)]
pub enum Unaccountable {
    /// The API server left out what it always sets.
    #[error("metadata.{0} is missing or is not what Kubernetes writes there")]
    Damaged(&'static str),
    /// Its status holds what Berth did not write.
    #[error(transparent)]
    Status(#[from] LedgerError),
}

impl Unaccountable {
    /// One CamelCase word: metric label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Damaged(_) => "MetadataDamaged",
            Self::Status(error) => error.reason(),
        }
    }
}

impl Known {
    /// Reads `object`.
    pub fn read<K: Chained>(object: &K, cluster: Uuid) -> Result<Self, Unaccountable> {
        use Unaccountable::Damaged;
        let metadata = object.meta();
        let target = Target {
            cluster,
            uid: metadata.uid.as_ref().and_then(|uid| uid.parse().ok()).ok_or(Damaged("uid"))?,
            kind: K::kind(&()).into_owned(),
            // Of an object of the cluster, none.
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().ok_or(Damaged("name"))?,
        };
        let generation = metadata.generation.ok_or(Damaged("generation"))?;
        let created_at = metadata.creation_timestamp.as_ref().ok_or(Damaged("creationTimestamp"))?;
        let shown = object.status().map(K::ledger);
        let head = shown.map_or(Ok(Head::GENESIS), head).map_err(|(field, value)| LedgerError::Damaged {
            place: format!("status.{field} of {target}"),
            why: format!("Berth cannot have written \"{value}\""),
        })?;
        Ok(Self {
            target,
            generation,
            deleting: metadata.deletion_timestamp.is_some(),
            head,
            actor: actor::of(metadata, generation),
            created_at: Micros(created_at.0.as_microsecond()),
        })
    }

    /// Its chain, as `shown`; whether its end is told.
    pub fn chain<'a>(&'a self, shown: &'a LedgerStatus, is_removed: bool) -> Chain<'a> {
        Chain {
            target: &self.target,
            generation: self.generation,
            deleting: self.deleting,
            state: is_removed.then_some(State::Deleted),
            head: self.head,
            shown,
        }
    }

    /// What is told of it, of a kind without states; the last of its life, if it `ends`.
    pub fn draft(&self, kind: Kind, reason: &str, actor: Actor, ends: bool, details: Value) -> Draft {
        Draft {
            kind,
            uid: self.target.uid,
            from: None,
            to: ends.then_some(State::Deleted),
            reason: reason.to_owned(),
            actor,
            generation: self.generation,
            operation: None,
            details,
        }
    }

    /// As it is once its chain ends with `head`.
    pub fn snapshot(&self, head: Head, seal: Seal, present: Present) -> Snapshot {
        Snapshot {
            target: self.target.clone(),
            created_at: self.created_at,
            observed_at: seal.at,
            generation: self.generation,
            epoch: seal.epoch,
            head,
            present,
        }
    }
}
