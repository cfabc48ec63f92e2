//! From a grant to the ledger's words: what of it is to be told, and its present.
//!
//! Owns: which records a grant's chain has, and what they say. Must never: do I/O or read a clock.

use serde_json::json;

use super::plan::Grant;
use crate::{
    api::{
        AccessGrant,
        access_grant::{self, AccessGrantStatus, Recorded},
    },
    chain::{self, Chain, Known, MESSAGE, Unaccountable},
    ledger::{self, Access, Actor, Draft, Gives, Head, Kind, Micros, Namespace, Present, Record, Seal, Snapshot},
};

/// Access was given.
pub const GRANTED: &str = "Granted";
/// What is given, to whom or until when, is another than before.
pub const CHANGED: &str = "Changed";
/// It came to its end, and all of it is gone.
pub const EXPIRED: &str = "Expired";
/// Its object was deleted, and all of it is gone.
pub const REMOVED: &str = "Removed";

/// A grant as its chain tells of it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who it is, as it stands, and where its chain ends.
    pub known: Known,
    /// The status as it was shown last.
    pub status: AccessGrantStatus,
    expires_at: Micros,
    namespace: Namespace,
    subject: ledger::Subject,
    gives: Gives,
}

impl Account {
    /// Reads `object`, which is `grant`.
    pub fn read(
        object: &AccessGrant,
        grant: &Grant,
        cluster: uuid::Uuid,
        namespace: Namespace,
    ) -> Result<Self, Unaccountable> {
        Ok(Self {
            known: Known::read(object, cluster)?,
            status: object.status.clone().unwrap_or_default(),
            expires_at: Micros(grant.expires_at.as_microsecond()),
            namespace,
            subject: subject(&object.spec.subject, grant),
            gives: match (object.spec.role, &object.spec.permissions) {
                (Some(role), _) => Gives::Role(role.as_str().to_owned()),
                (None, permissions) => Gives::Permissions(permissions.clone().unwrap_or_default()),
            },
        })
    }

    /// Its chain, as its status shows it.
    pub fn chain(&self) -> Chain<'_> {
        self.known.chain(&self.status.ledger, self.is_told(REMOVED))
    }

    fn is_told(&self, reason: &str) -> bool {
        self.status.recorded.as_ref().is_some_and(|told| told.reason == reason)
    }

    /// Enters a record that is now durable: from here on it is what the chain ends with.
    pub fn advance(&mut self, record: &Record) {
        let envelope = record.envelope();
        if envelope.kind == Kind::Grant {
            self.status.recorded = Some(Recorded { reason: envelope.reason.clone(), generation: envelope.generation });
        }
        self.status.observed_generation = chain::seen(record, self.status.observed_generation, self.known.generation);
        self.known.head = record.head();
    }

    /// What is to be told next, where the access should be `open`, and something `carries` it or all of it is there; none
    /// where all is told.
    pub fn due(&self, open: bool, carries: bool, is_complete: bool) -> Option<Draft> {
        if let Some(unseen) = chain::unseen(self.chain(), self.status.observed_generation) {
            return Some(unseen);
        }
        let told = self.status.recorded.as_ref();
        let is_of_now = told.is_some_and(|told| told.generation == self.known.generation);
        let of_spec = || self.known.actor.clone();
        let (reason, actor) = if self.is_told(REMOVED) {
            return None;
        } else if self.known.deleting {
            // A policy's stamp tells who changed a spec; who deletes, nobody notes.
            (!carries).then_some((REMOVED, Actor::Unknown))?
        } else if !open {
            let by = if is_of_now { Actor::Berth("expiry".to_owned()) } else { of_spec() };
            (!(carries || self.is_told(EXPIRED) && is_of_now)).then_some((EXPIRED, by))?
        } else if !carries && !is_complete {
            return None;
        } else if told.is_none() || self.is_told(EXPIRED) {
            (GRANTED, of_spec())
        } else {
            (!is_of_now).then(|| (CHANGED, of_spec()))?
        };
        Some(self.draft(reason, actor))
    }

    fn draft(&self, reason: &str, actor: Actor) -> Draft {
        let ledger::Subject { kind, namespace, name, display_name, email } = &self.subject;
        let what = match &self.gives {
            Gives::Role(role) => format!("role {role}"),
            Gives::Permissions(_) => "a permissions object".to_owned(),
        };
        let until = rfc3339(self.expires_at);
        let message = match reason {
            REMOVED => format!("{what} of {kind} {name} was taken with its grant; it was until {until}"),
            EXPIRED => format!("{what} of {kind} {name} ended; it was until {until}"),
            _ => format!("{what} for {kind} {name} until {until}"),
        };
        let details = json!({
            MESSAGE: message,
            "namespace": self.known.target.namespace,
            "name": self.known.target.name,
            "subject": {
                "kind": kind, "namespace": namespace, "name": name, "displayName": display_name, "email": email,
            },
            "gives": self.gives,
            "expiresAt": until,
            "grantedBy": self.known.actor,
        });
        self.known.draft(Kind::Grant, reason, actor, reason == REMOVED, details)
    }

    /// The present as it is once the chain ends with `head`, where `told` is what was told last.
    pub fn snapshot(&self, told: &str, head: Head, seal: Seal) -> Snapshot {
        let grant = ledger::Grant {
            namespace: self.namespace.clone(),
            subject: self.subject.clone(),
            gives: self.gives.clone(),
            expires_at: self.expires_at,
            granted_by: self.known.actor.clone(),
            access: match told {
                REMOVED => Access::Removed,
                EXPIRED => Access::Expired,
                _ => Access::Given,
            },
        };
        self.known.snapshot(head, seal, Present::Grant(grant))
    }
}

fn subject(subject: &access_grant::Subject, grant: &Grant) -> ledger::Subject {
    let access_grant::Subject { kind, name, namespace: _, display_name, email } = subject;
    ledger::Subject {
        kind: kind.as_str().to_owned(),
        // A service account without one is of the grant's namespace.
        namespace: grant.subject.namespace.clone(),
        name: name.clone(),
        display_name: display_name.clone(),
        email: email.clone(),
    }
}

fn rfc3339(at: Micros) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| String::new(), |at| at.to_string())
}
