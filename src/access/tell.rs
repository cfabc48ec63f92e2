//! A grant as what is told of it and shown: access waits for nothing here, and its records follow.
//!
//! Owns: how what was seen becomes records and a status, and who hears of it. Must never: touch a RoleBinding, or decide what
//! there is to tell.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Resource;
use tracing::{info, warn};

use super::{
    context::Context,
    plan::Grant,
    record,
    status::{self, Standing},
};
use crate::{
    api::{AccessGrant, LedgerStatus, access_grant::AccessGrantStatus},
    chain::{Account, Chain, Kept, Untold, event},
    ledger::{Draft, Head, Kind, Record, Seal, Snapshot},
};

/// How the access was seen to stand, once what could be done was done.
pub(super) struct Seen {
    /// Whether it should be there.
    pub(super) open: bool,
    /// The RoleBindings that carry it.
    pub(super) carriers: Vec<String>,
    /// What that comes to.
    pub(super) standing: Standing,
    /// When that was so.
    pub(super) now: Timestamp,
}

/// One grant on its way into the ledger.
pub(super) struct Tale<'a> {
    pub(super) context: &'a Context,
    pub(super) grant: &'a Grant,
    pub(super) account: record::Account,
    pub(super) seen: Seen,
}

impl Account for Tale<'_> {
    type Object = AccessGrant;
    /// What nobody saw, given, changed or ended, removed.
    const MAX_RECORDS: usize = 4;

    fn chain(&self) -> Chain<'_> {
        self.account.chain()
    }

    fn status(&self) -> &AccessGrantStatus {
        &self.account.status
    }

    fn ledger(&mut self) -> &mut LedgerStatus {
        &mut self.account.status.ledger
    }

    fn due(&self) -> Option<Draft> {
        let Seen { open, carriers, standing, now: _ } = &self.seen;
        self.account.due(*open, !carriers.is_empty(), *standing == Standing::Active)
    }

    fn snapshot(&self, draft: Option<&Draft>, head: Head, seal: Seal) -> Snapshot {
        let told = self.account.status.recorded.as_ref().map_or("", |told| told.reason.as_str());
        let told = draft.filter(|draft| draft.kind == Kind::Grant).map_or(told, |draft| draft.reason.as_str());
        self.account.snapshot(told, head, seal)
    }

    fn has_present(&self) -> bool {
        self.account.status.recorded.is_some()
    }

    fn advance(&mut self, record: &Record) {
        self.account.advance(record);
    }

    fn shown(&self, kept: Kept<'_>, untold: Option<Untold<'_>>) -> AccessGrantStatus {
        let Seen { carriers, standing, now, .. } = &self.seen;
        let instead = untold.map(Standing::untold);
        let standing = instead.as_ref().unwrap_or(standing);
        let mut shown = status::of(&self.account.status, self.grant, standing, carriers.clone(), kept, *now);
        if untold.is_some() {
            // Else the next pass would not know that there was something which nobody saw.
            shown.observed_generation = self.account.status.observed_generation;
        }
        shown
    }

    fn is_worth(&self, before: Option<&AccessGrantStatus>, shown: &AccessGrantStatus) -> bool {
        before != Some(shown)
    }

    fn wrote(&mut self, object: AccessGrant, shown: AccessGrantStatus) -> Arc<AccessGrant> {
        let object = self.context.grants.wrote(object);
        self.announce(&object, &shown);
        self.account.status = shown;
        object
    }

    fn released(&mut self, object: AccessGrant) {
        self.context.grants.released(object);
    }

    fn may_go(&self) -> bool {
        self.seen.carriers.is_empty()
    }
}

impl Tale<'_> {
    /// One line in the log and one Event, where the phase or its reason is another than before.
    fn announce(&self, object: &AccessGrant, after: &AccessGrantStatus) {
        let before = &self.account.status;
        let ready = |status: &AccessGrantStatus| {
            status.conditions.first().map(|condition| (condition.reason.clone(), condition.message.clone()))
        };
        let Some((reason, message)) = ready(after) else { return };
        if (&before.phase, ready(before).map(|(reason, _)| reason)) == (&after.phase, Some(reason.clone())) {
            return;
        }
        let grant = self.grant;
        let warning = matches!(self.seen.standing, Standing::Stuck { .. } | Standing::Overdue(_));
        let phase = after.phase.as_deref().unwrap_or_default();
        if warning {
            warn!(uid = %grant.uid, namespace = %grant.namespace, name = %grant.name, phase, reason, "access: {message}");
        } else {
            info!(uid = %grant.uid, namespace = %grant.namespace, name = %grant.name, phase, reason, "access");
        }
        event::publish(&self.context.recorder, object.object_ref(&()), warning, &reason, &message);
    }
}
