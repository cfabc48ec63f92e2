//! A rollout as what is told of it and shown: targets wait for nothing here, and its records follow.
//!
//! Owns: how what was seen becomes records and a status, and who hears of it. Must never: touch a target, or decide what there
//! is to tell.

use std::sync::Arc;

use kube::Resource;
use tracing::{info, warn};

use super::{
    context::Context,
    record::{self, Seen},
    rollout::Rollout,
    status::{self, News},
};
use crate::{
    api::{Deployment, LedgerStatus, deployment::DeploymentStatus},
    chain::{Account, Chain, Kept, Untold, event},
    ledger::{Draft, Head, Record, Seal, Snapshot},
};

/// One rollout on its way into the ledger.
pub(super) struct Tale<'a> {
    pub(super) context: &'a Context,
    pub(super) rollout: &'a Rollout,
    pub(super) account: record::Account,
    pub(super) seen: Seen,
}

impl Account for Tale<'_> {
    type Object = Deployment;
    /// What nobody saw and what turned, and some of the outcomes of many targets: what is left has to wait for nothing but the
    /// other rollouts.
    const MAX_RECORDS: usize = 8;

    fn chain(&self) -> Chain<'_> {
        self.account.chain()
    }

    fn status(&self) -> &DeploymentStatus {
        &self.account.status
    }

    fn ledger(&mut self) -> &mut LedgerStatus {
        &mut self.account.status.ledger
    }

    fn due(&self) -> Option<Draft> {
        self.account.due(&self.seen)
    }

    fn snapshot(&self, draft: Option<&Draft>, head: Head, seal: Seal) -> Snapshot {
        self.account.snapshot(&self.seen, draft, head, seal)
    }

    fn has_present(&self) -> bool {
        let is_calm = self.context.present.left(&self.rollout.uid, self.seen.now).is_none();
        self.account.status.recorded.is_some() && is_calm
    }

    fn advance(&mut self, record: &Record) {
        self.account.advance(&self.seen, record);
    }

    fn shown(&self, kept: Kept<'_>, untold: Option<Untold<'_>>) -> DeploymentStatus {
        let before = &self.account.status;
        let mut shown = match untold {
            None => self.seen.shown.clone(),
            Some(why) => status::untold(before, &self.seen.shown, why, self.seen.now),
        };
        shown.recorded.clone_from(&before.recorded);
        shown.ledger.clone_from(&before.ledger);
        shown.ledger.backend = kept.backend(before.ledger.backend.as_ref());
        let now = status::whole_second(self.seen.now);
        let synced = kept.condition(before.ledger.pending.len(), &before.conditions, self.rollout.generation, &now);
        shown.conditions.extend(synced);
        shown
    }

    fn is_worth(&self, before: Option<&DeploymentStatus>, shown: &DeploymentStatus) -> bool {
        let Some(before) = before else { return true };
        before != shown
            && (!status::is_mere_count(before, shown)
                || self.context.calm.left(&self.rollout.uid, self.seen.now).is_none())
    }

    fn wrote(&mut self, object: Deployment, shown: DeploymentStatus) -> Arc<Deployment> {
        let object = self.context.rollouts.wrote(object);
        self.context.calm.wrote(&self.rollout.uid, self.seen.now);
        announce(self.context, self.rollout, &object, status::news(&self.account.status, &shown));
        self.account.status = shown;
        object
    }

    fn released(&mut self, object: Deployment) {
        self.context.rollouts.released(object);
    }

    fn may_go(&self) -> bool {
        true
    }
}

/// A line in the log and an Event for each piece of news.
fn announce(context: &Context, rollout: &Rollout, object: &Deployment, news: Vec<News>) {
    let Rollout { namespace, name, uid, revision, .. } = rollout;
    for News { warning, reason, message } in news {
        if warning {
            warn!(%uid, %namespace, %name, revision, reason, "rollout: {message}");
        } else {
            info!(%uid, %namespace, %name, revision, reason, "rollout: {message}");
        }
        event::publish(&context.recorder, object.object_ref(&()), warning, &reason, &message);
    }
}
