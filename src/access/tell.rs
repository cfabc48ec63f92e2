//! What a pass tells the ledger of a grant, and shows: each record durable before it is shown.
//!
//! Access waits for nothing here: what there should be was written before (docs/ledger.md, rule 4), and the record follows.
//!
//! Owns: the order of records and status writes. Must never: touch a RoleBinding, or decide what there is to tell.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Resource;
use kube_runtime::events::{Event, EventType};
use tracing::{debug, info, warn};

use super::{
    context::{Context, Done, PassError},
    plan::Grant,
    record::Account,
    status::{self, Standing},
};
use crate::{
    api::{AccessGrant, access_grant::AccessGrantStatus},
    chain::{self, Agreed, ChainError, Entered, Kept},
    ledger::{
        Backend, Draft, Entry, Head, Kind, LedgerError, Micros, Record, Seal, Snapshot,
        protocol::{ShowTests, show_tests},
        visible,
    },
    lifecycle::State,
};

/// The most records that one pass makes: what nobody saw, given, changed or ended, removed.
const MAX_RECORDS: usize = 4;

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
pub(super) struct Teller<'a> {
    pub(super) context: &'a Context,
    pub(super) grant: &'a Grant,
    pub(super) object: Arc<AccessGrant>,
    pub(super) account: Account,
    pub(super) seen: Seen,
    pub(super) done: Done,
    /// The last record that was shown.
    pub(super) last: Option<Record>,
}

impl Teller<'_> {
    pub(super) async fn run(mut self) -> Result<Done, PassError> {
        let mut unsaid = None;
        // Boxed, as all that is rare.
        let agreed = Box::pin(self.agree(&mut unsaid)).await?;
        let mut kept: Result<Option<Backend>, LedgerError> = Ok(None);
        for _ in 0..MAX_RECORDS {
            let Some(draft) = self.due() else { break };
            let seal = self.seal()?;
            let told = if draft.kind == Kind::Grant { draft.reason.clone() } else { self.told().to_owned() };
            let present = |_, head| self.account.snapshot(&told, head, seal.epoch, seal.at);
            let keeper = self.context.keeper();
            match chain::keep::<AccessGrant>(keeper, self.account.chain(), draft, seal, present).await {
                Ok(entered) => {
                    self.show(entered).await?;
                    kept = Ok(Some(self.context.ledger.backend()));
                }
                Err(ChainError::Ledger(error)) => {
                    kept = Err(error);
                    break;
                }
                Err(other) => return Err(other.into()),
            }
        }
        if self.account.chain().state == Some(State::Deleted) && self.seen.carriers.is_empty() {
            return self.let_go().await;
        }
        self.settle(agreed, kept, unsaid).await
    }

    /// What is still to be told.
    fn due(&self) -> Option<Draft> {
        let Seen { open, carriers, standing, now: _ } = &self.seen;
        self.account.due(*open, !carriers.is_empty(), *standing == Standing::Active)
    }

    fn seal(&self) -> Result<Seal, PassError> {
        let epoch = (self.context.epoch)().ok_or(PassError::NotLeader)?;
        Ok(Seal { cluster: self.context.cluster, epoch, at: Micros(self.seen.now.as_microsecond()) })
    }

    /// Brings the ledger and what is shown together, where they may differ; whether the ledger has everything that is shown.
    async fn agree(&mut self, unsaid: &mut Option<LedgerError>) -> Result<bool, PassError> {
        let keeper = self.context.keeper();
        let is_unsynced = chain::is_unsynced(&self.account.status.conditions);
        let Some(rewinds) = chain::doubt(keeper, self.account.chain(), is_unsynced) else { return Ok(false) };
        if chain::is_cleared(keeper.ledger, self.account.chain()).await {
            self.account.status.ledger.pending.clear();
        }
        let seal = self.seal()?;
        let present = |_, head| self.present(head, seal);
        match chain::agree::<AccessGrant>(keeper, self.account.chain(), rewinds, seal, present).await? {
            Agreed::Show(entered) => self.show(*entered).await?,
            Agreed::Seen => return Ok(true),
            Agreed::Unsaid { entries } => self.done.records += entries,
            Agreed::Not(error) => *unsaid = Some(error),
        }
        Ok(false)
    }

    /// The reason of what was told last.
    fn told(&self) -> &str {
        self.account.status.recorded.as_ref().map_or("", |told| told.reason.as_str())
    }

    /// The present as it was told last.
    fn present(&self, head: Head, seal: Seal) -> Snapshot {
        self.account.snapshot(self.told(), head, seal.epoch, seal.at)
    }

    /// Shows a durable record.
    async fn show(&mut self, entered: Entered) -> Result<(), PassError> {
        let Entered { record, carried, before: _, entries, taken } = entered;
        self.done.records += entries;
        if carried {
            self.account.status.ledger.pending.push(record.bytes().to_owned());
        }
        self.account.advance(&record);
        let trouble = self.context.ledger.trouble();
        let kept = if self.account.status.ledger.pending.is_empty() {
            Kept::In(self.context.ledger.backend())
        } else {
            Kept::Away(trouble.as_ref())
        };
        // Of two records in one pass, the first shows what it says itself: the rest is not durable yet.
        let shown = self.status(kept, self.due().is_some().then(Standing::ledger_ahead));
        self.write(shown, show_tests(record.envelope().to == Some(State::Deleted))).await?;
        self.context.told.shows(self.account.target.uid, record.head(), taken);
        info!(uid = %self.grant.uid, namespace = %self.grant.namespace, name = %self.grant.name,
            reason = %record.envelope().reason, sequence = record.envelope().seq, "access recorded");
        self.last = Some(record);
        Ok(())
    }

    /// Nothing is left to be told: shows what else has changed, and tells the ledger of a changed present.
    async fn settle(
        mut self,
        agreed: bool,
        kept: Result<Option<Backend>, LedgerError>,
        unsaid: Option<LedgerError>,
    ) -> Result<Done, PassError> {
        let mut error = kept.as_ref().err().cloned();
        if error.is_none() && self.account.status.recorded.is_some() {
            let seal = self.seal()?;
            let snapshot = self.present(self.account.head, seal);
            if self.context.told.is_news(&snapshot) {
                match self.context.ledger.submit(Entry::Present(Box::new(snapshot.clone()))).await {
                    Ok(_) => {
                        self.done.records += 1;
                        self.context.told.note(&snapshot);
                    }
                    Err(failed) => error = Some(failed),
                }
            }
        }
        let trouble = self.context.ledger.trouble();
        let was_unsynced = chain::is_unsynced(&self.account.status.conditions);
        let home = self.context.ledger.backend();
        let kept = match (&error, kept) {
            (Some(error), _) => Kept::Not(error),
            _ if !self.account.status.ledger.pending.is_empty() => Kept::Away(trouble.as_ref()),
            (None, Ok(Some(home))) => Kept::In(home),
            _ if unsaid.is_some() => Kept::AsBefore,
            _ if agreed && self.account.status.ledger.backend.is_some() || was_unsynced => Kept::In(home),
            _ => Kept::AsBefore,
        };
        // What is not durable is not shown, in conditions no more than in the phase.
        let untold = error.as_ref().filter(|_| self.due().is_some()).map(Standing::untold);
        let mut shown = self.status(kept, untold);
        if error.is_some() && self.due().is_some() {
            // Else the next pass would not know that there was something which nobody saw.
            shown.observed_generation = self.account.status.observed_generation;
        }
        if Some(&shown) != self.object.status.as_ref() {
            self.write(shown, ShowTests::Head).await?;
        }
        match error.or(unsaid) {
            None => Ok(self.done),
            Some(error) => Err(ChainError::from(error).into()),
        }
    }

    /// The last record is shown and the access is gone: the finalizer goes, once all has another home.
    async fn let_go(mut self) -> Result<Done, PassError> {
        let seal = self.seal()?;
        let (keeper, chain) = (self.context.keeper(), self.account.chain());
        let is_buried = chain::let_go(keeper, chain, &*self.object, self.last.as_ref(), seal.epoch, seal.at).await?;
        self.done.writes += 1 + u32::from(is_buried);
        if is_buried {
            self.context.tombstones.send_modify(|times| *times += 1);
        }
        Ok(self.done)
    }

    /// The status, with this instead of what was seen where that may not be shown yet.
    fn status(&self, kept: Kept<'_>, instead: Option<Standing>) -> AccessGrantStatus {
        let Seen { carriers, standing, now, .. } = &self.seen;
        status::of(&self.account.status, self.grant, instead.as_ref().unwrap_or(standing), carriers.clone(), kept, *now)
    }

    async fn write(&mut self, shown: AccessGrantStatus, tests: ShowTests) -> Result<(), PassError> {
        let written = chain::show(&self.context.client, &self.account.target, &*self.object, tests, &shown).await;
        let written = written.map_err(ChainError::from)?;
        self.done.writes += 1;
        let before = self.object.status.clone().unwrap_or_default();
        self.object = self.context.grants.wrote(written);
        self.announce(&before, &shown);
        self.account.status = shown;
        Ok(())
    }

    /// One line in the log and one Event, where the phase or its reason is another than before.
    fn announce(&self, before: &AccessGrantStatus, after: &AccessGrantStatus) {
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
        // Events are for people who look now: nobody waits for one, and one that is lost is not worth a second try.
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason,
            note: Some(visible(&message, 1_000)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let (recorder, about) = (self.context.recorder.clone(), self.object.object_ref(&()));
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                debug!(%error, reason = event.reason, "an Event was not taken");
            }
        });
    }
}
