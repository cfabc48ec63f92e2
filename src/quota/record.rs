//! From a quota to the ledger's words: what of it is to be told, and its present.
//!
//! A reservation has no record of its own: what each service is, its own chain tells. A quota's tells who set which limits, and
//! when the organisation came up against them (docs/decisions/0010).
//!
//! Owns: which records a quota's chain has, and what they say. Must never: do I/O or read a clock; keep anybody waiting.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::amounts::{Amounts, Dimension, Limits};
use crate::{
    api::{
        TenantQuota,
        tenant_quota::{Recorded, TenantQuotaStatus},
    },
    chain::{self, Chain, Known, MESSAGE, Unaccountable},
    ledger::{self, Actor, Draft, Head, Kind, Present, Record, Seal, Snapshot},
    lifecycle::State,
};

/// The limits were set.
pub const LIMITS_SET: &str = "LimitsSet";
/// They are others than before.
pub const LIMITS_CHANGED: &str = "LimitsChanged";
/// Somebody waits for room, and nobody did.
pub const EXHAUSTED: &str = "Exhausted";
/// Nobody waits any more.
pub const RELIEVED: &str = "Relieved";
/// Its object was deleted: nothing limits the organisation any more.
pub const REMOVED: &str = "Removed";

/// A quota as its chain tells of it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who it is, as it stands, and where its chain ends.
    pub known: Known,
    /// The status as it was read, moved on by what was recorded since.
    pub status: TenantQuotaStatus,
    tenant_org: String,
    limits: Limits,
}

impl Account {
    /// Reads `object`.
    pub fn read(object: &TenantQuota, cluster: Uuid) -> Result<Self, Unaccountable> {
        Ok(Self {
            known: Known::read(object, cluster)?,
            status: object.status.clone().unwrap_or_default(),
            tenant_org: object.spec.tenant_org.clone(),
            limits: Limits::from(&object.spec.limits),
        })
    }

    /// Its chain, as its status shows it.
    pub fn chain(&self) -> Chain<'_> {
        self.known.chain(&self.status.ledger, self.is_removed())
    }

    fn is_removed(&self) -> bool {
        self.status.recorded.as_ref().is_some_and(|told| told.reason == REMOVED)
    }

    /// Enters a record that is now durable: from here on it is what the chain ends with.
    pub fn advance(&mut self, record: &Record) {
        let envelope = record.envelope();
        let before = self.status.recorded.take();
        let waited = before.as_ref().is_some_and(|told| told.waits);
        self.status.recorded = match envelope.kind {
            Kind::Quota => Some(Recorded {
                waits: match envelope.reason.as_str() {
                    EXHAUSTED => true,
                    RELIEVED => false,
                    _ => waited,
                },
                reason: envelope.reason.clone(),
                generation: envelope.generation,
            }),
            _ => before.map(|told| Recorded {
                generation: chain::seen(record, told.generation, self.known.generation),
                ..told
            }),
        };
        self.known.head = record.head();
    }

    /// What is to be told next; none where all is told. Whether somebody waits is told once it `may` be: it changes often.
    pub fn due(&self, may: bool) -> Option<Draft> {
        if self.is_removed() {
            return None;
        }
        let Some(told) = &self.status.recorded else {
            let (reason, by) = match self.known.deleting {
                true => (REMOVED, Actor::Unknown),
                false => (LIMITS_SET, self.known.actor.clone()),
            };
            return Some(self.draft(reason, by));
        };
        if let Some(unseen) = chain::unseen(self.chain(), told.generation) {
            return Some(unseen);
        }
        let waits = self.status.waiting > 0;
        let (reason, by) = if self.known.deleting {
            // A policy's stamp tells who changed a spec; who deletes, nobody notes.
            (REMOVED, Actor::Unknown)
        } else if told.generation != self.known.generation {
            (LIMITS_CHANGED, self.known.actor.clone())
        } else if waits != told.waits && may {
            (if waits { EXHAUSTED } else { RELIEVED }, Actor::Berth("quota".to_owned()))
        } else {
            return None;
        };
        Some(self.draft(reason, by))
    }

    fn draft(&self, reason: &str, by: Actor) -> Draft {
        let used = Amounts::from(&self.status.used);
        let limited = Dimension::ALL.into_iter().filter_map(|dimension| {
            let limit = dimension.number(self.limits.get(dimension)?);
            Some(format!("{} of {limit}", dimension.words(used.get(dimension))))
        });
        let limited: Vec<String> = limited.collect();
        let reserved = if limited.is_empty() { "nothing is limited".to_owned() } else { limited.join(", ") };
        let org = &self.tenant_org;
        let message = match reason {
            REMOVED => format!("the quota of {org} was deleted: nothing limits it any more; reserved were {reserved}"),
            EXHAUSTED => format!("{} of {org} wait for room; reserved: {reserved}", self.status.waiting),
            RELIEVED => format!("nobody of {org} waits any more; reserved: {reserved}"),
            _ => format!("the limits of {org}, with what is reserved: {reserved}"),
        };
        let details = json!({
            MESSAGE: message,
            "name": self.known.target.name,
            "tenantOrg": org,
            "limits": self.limits(),
            "used": self.used(),
            "waiting": self.status.waiting,
            "setBy": self.known.actor,
        });
        self.known.draft(Kind::Quota, reason, by, reason == REMOVED, details)
    }

    fn limits(&self) -> BTreeMap<String, i64> {
        let set = |dimension: Dimension| Some((dimension.key().to_owned(), self.limits.get(dimension)?));
        Dimension::ALL.into_iter().filter_map(set).collect()
    }

    fn used(&self) -> BTreeMap<String, i64> {
        let used = Amounts::from(&self.status.used);
        Dimension::ALL.into_iter().map(|dimension| (dimension.key().to_owned(), used.get(dimension))).collect()
    }

    /// The present as it is once the chain ends with `head`, by a record that says `draft`, or as it was told last.
    pub fn snapshot(&self, draft: Option<&Draft>, head: Head, seal: Seal) -> Snapshot {
        let ends = draft.is_some_and(|draft| draft.to == Some(State::Deleted));
        let quota = ledger::Quota {
            tenant_org: self.tenant_org.clone(),
            limits: self.limits(),
            used: self.used(),
            waiting: self.status.waiting,
            set_by: self.known.actor.clone(),
            removed: ends || self.is_removed(),
        };
        self.known.snapshot(head, seal, Present::Quota(quota))
    }
}
