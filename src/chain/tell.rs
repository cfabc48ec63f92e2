//! What a pass tells the ledger of one object, and shows: each record durable before it is shown, one after the other.
//!
//! For kinds whose objects wait for nothing here: what there should be was done before (docs/ledger.md, rule 4), and the
//! records follow.
//!
//! Owns: the order of records and status writes. Must never: decide what there is to tell, or what a status says.

use std::{sync::Arc, time::Duration};

use tracing::info;
use uuid::Uuid;

use super::{Agreed, Chain, ChainError, Chained, Entered, Keeper, Kept, agree, doubt, is_cleared, keep, let_go, show};
use crate::{
    api::LedgerStatus,
    ledger::{
        Backend, Draft, Entry, Head, LedgerError, Micros, Record, Seal, Snapshot,
        protocol::{ShowTests, show_tests},
    },
    lifecycle::State,
};

/// The status of an account's object.
pub type StatusOf<A> = <<A as Account>::Object as Chained>::Status;

/// One object as its chain tells of it.
pub trait Account: Send + Sync {
    /// Its kind.
    type Object: Chained + Send + Sync;
    /// The most records that one pass makes. What is left comes with the next.
    const MAX_RECORDS: usize;

    /// Its chain, as its status shows it.
    fn chain(&self) -> Chain<'_>;
    /// Its status as it was shown last, and has moved on by records since.
    fn status(&self) -> &StatusOf<Self>;
    /// What that says of the chain.
    fn ledger(&mut self) -> &mut LedgerStatus;
    /// What is to be told next; none where all is told.
    fn due(&self) -> Option<Draft>;
    /// The present as it is once the chain ends with `head`, by a record that says `draft`, or as it was told last.
    fn snapshot(&self, draft: Option<&Draft>, head: Head, seal: Seal) -> Snapshot;
    /// Whether the ledger is to have the present also without a record.
    fn has_present(&self) -> bool;
    /// Enters a record that is durable: from here on it is what the chain ends with.
    fn advance(&mut self, record: &Record);
    /// The status to show; where something is `untold` yet, without what follows from it.
    fn shown(&self, kept: Kept<'_>, untold: Option<Untold<'_>>) -> StatusOf<Self>;
    /// Whether that is worth a write over the status of the object as it was read.
    fn is_worth(&self, before: Option<&StatusOf<Self>>, shown: &StatusOf<Self>) -> bool;
    /// Takes what the API server returned, and the status that was written.
    fn wrote(&mut self, object: Self::Object, shown: StatusOf<Self>) -> Arc<Self::Object>;
    /// Takes what the API server returned when the finalizer went.
    fn released(&mut self, object: Self::Object);
    /// Whether the object may go once its last record is shown.
    fn may_go(&self) -> bool;
}

/// Why how an object stands is not shown.
#[derive(Clone, Copy, Debug)]
pub enum Untold<'a> {
    /// Another record comes first.
    Ahead,
    /// The ledger does not take it.
    Refused(&'a LedgerError),
}

impl Untold<'_> {
    /// Reason and message of conditions, and whether it will not go on by itself.
    pub fn words(self) -> (&'static str, String, bool) {
        match self {
            Self::Ahead => {
                let message = "the ledger had this already; what follows from it comes next".to_owned();
                ("LedgerAhead", message, false)
            }
            Self::Refused(error) => {
                let message = "how it stands is not shown until the ledger has it".to_owned();
                (error.reason(), message, matches!(error, LedgerError::Full { .. }))
            }
        }
    }
}

/// Who tells, and when.
#[derive(Clone, Copy)]
pub struct Telling<'a> {
    /// What chains are kept and shown with.
    pub keeper: Keeper<'a>,
    /// The cluster.
    pub cluster: Uuid,
    /// The epoch of the leadership under which this process may write now; none after its local deadline.
    pub epoch: &'a (dyn Fn() -> Option<u64> + Send + Sync),
    /// When what is told was seen.
    pub now: Micros,
}

/// What telling came to.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Requests to the API server that wrote.
    pub writes: u32,
    /// Records that were kept.
    pub records: u32,
    /// Not all is told yet: the next pass goes on.
    pub more: bool,
    /// When to look again for the ledger's sake, if nothing happens before.
    pub look_again: Option<Duration>,
    /// Why the ledger did not take what there was to be told: that is not shown, and is to be tried again.
    pub refused: Option<LedgerError>,
}

/// Tells all that is due of `account`, whose object was read as `object`, and shows it.
pub async fn tell<A: Account>(telling: Telling<'_>, object: Arc<A::Object>, account: A) -> Result<Said, ChainError> {
    Teller { telling, object, account, said: Said::default(), last: None }.run().await
}

struct Teller<'a, A: Account> {
    telling: Telling<'a>,
    object: Arc<A::Object>,
    account: A,
    said: Said,
    /// The last record that was shown.
    last: Option<Record>,
}

impl<A: Account> Teller<'_, A> {
    async fn run(mut self) -> Result<Said, ChainError> {
        let keeper = self.telling.keeper;
        let mut unsaid = None;
        // Boxed, as all that is rare.
        let agreed = Box::pin(self.agree(&mut unsaid)).await?;
        let mut kept: Result<Option<Backend>, LedgerError> = Ok(None);
        for _ in 0..A::MAX_RECORDS {
            let Some(draft) = self.account.due() else { break };
            let seal = self.seal()?;
            let of_draft = draft.clone();
            let present = |_, head| self.account.snapshot(Some(&of_draft), head, seal);
            match keep::<A::Object>(keeper, self.account.chain(), draft, seal, present).await {
                Ok(entered) => {
                    self.show(entered).await?;
                    kept = Ok(Some(keeper.ledger.backend()));
                }
                Err(ChainError::Ledger(error)) => {
                    kept = Err(error);
                    break;
                }
                Err(other) => return Err(other),
            }
        }
        if self.account.chain().state == Some(State::Deleted) && self.account.may_go() {
            return self.let_go().await;
        }
        self.settle(agreed, kept, unsaid).await
    }

    fn seal(&self) -> Result<Seal, ChainError> {
        let epoch = (self.telling.epoch)().ok_or(ChainError::NotLeader)?;
        Ok(Seal { cluster: self.telling.cluster, epoch, at: self.telling.now })
    }

    /// Brings the ledger and what is shown together, where they may differ; whether the ledger has everything that is shown.
    async fn agree(&mut self, unsaid: &mut Option<LedgerError>) -> Result<bool, ChainError> {
        let keeper = self.telling.keeper;
        let is_unsynced = super::is_unsynced(A::Object::conditions(self.account.status()));
        let Some(rewinds) = doubt(keeper, self.account.chain(), is_unsynced) else { return Ok(false) };
        if is_cleared(keeper.ledger, self.account.chain()).await {
            self.account.ledger().pending.clear();
        }
        let seal = self.seal()?;
        let present = |_, head| self.account.snapshot(None, head, seal);
        match agree::<A::Object>(keeper, self.account.chain(), rewinds, seal, present).await? {
            Agreed::Show(entered) => self.show(*entered).await?,
            Agreed::Seen => return Ok(true),
            Agreed::Unsaid { entries } => self.said.records += entries,
            Agreed::Not(error) => *unsaid = Some(error),
        }
        Ok(false)
    }

    /// Shows a durable record.
    async fn show(&mut self, entered: Entered) -> Result<(), ChainError> {
        let Entered { record, carried, before: _, entries, taken } = entered;
        self.said.records += entries;
        let shown = self.account.ledger();
        if carried {
            shown.pending.push(record.bytes().to_owned());
        }
        shown.sequence = i64::try_from(record.envelope().seq).unwrap_or(i64::MAX);
        shown.head = record.hash().to_string();
        let is_carried = !shown.pending.is_empty();
        self.account.advance(&record);
        let ledger = self.telling.keeper.ledger;
        let trouble = ledger.trouble();
        let kept = if is_carried { Kept::Away(trouble.as_ref()) } else { Kept::In(ledger.backend()) };
        // Of two records in one pass, the first shows what it says itself: the rest is not durable yet.
        let shown = self.account.shown(kept, self.account.due().is_some().then_some(Untold::Ahead));
        self.write(shown, show_tests(record.envelope().to == Some(State::Deleted))).await?;
        let target = self.account.chain().target;
        self.telling.keeper.told.shows(target.uid, record.head(), taken);
        info!(uid = %target.uid, kind = target.kind, namespace = target.namespace, name = target.name,
            reason = %record.envelope().reason, sequence = record.envelope().seq, "recorded");
        self.last = Some(record);
        Ok(())
    }

    /// Nothing is left to be told, or nothing more now: shows what else has changed, and tells the ledger of a changed present.
    async fn settle(
        mut self,
        agreed: bool,
        kept: Result<Option<Backend>, LedgerError>,
        unsaid: Option<LedgerError>,
    ) -> Result<Said, ChainError> {
        let Keeper { ledger, told, .. } = self.telling.keeper;
        let mut error = kept.as_ref().err().cloned();
        self.said.more = self.account.due().is_some();
        if error.is_none() && !self.said.more && self.account.has_present() {
            let snapshot = self.account.snapshot(None, self.account.chain().head, self.seal()?);
            if told.is_news(&snapshot) {
                match ledger.submit(Entry::Present(Box::new(snapshot.clone()))).await {
                    Ok(_) => {
                        self.said.records += 1;
                        told.note(&snapshot);
                    }
                    Err(failed) => error = Some(failed),
                }
            }
        }
        let trouble = ledger.trouble();
        let was_unsynced = super::is_unsynced(A::Object::conditions(self.account.status()));
        let home = ledger.backend();
        let shown = A::Object::ledger(self.account.status());
        let kept = match (&error, kept) {
            (Some(error), _) => Kept::Not(error),
            _ if !shown.pending.is_empty() => Kept::Away(trouble.as_ref()),
            (None, Ok(Some(home))) => Kept::In(home),
            _ if unsaid.is_some() => Kept::AsBefore,
            _ if agreed && shown.backend.is_some() || was_unsynced => Kept::In(home),
            _ => Kept::AsBefore,
        };
        // What is not durable is not shown, in conditions no more than in the phase.
        let untold = match &error {
            _ if !self.said.more => None,
            Some(error) => Some(Untold::Refused(error)),
            None => Some(Untold::Ahead),
        };
        let shown = self.account.shown(kept, untold);
        if self.account.is_worth(self.object.status(), &shown) {
            self.write(shown, ShowTests::Head).await?;
        }
        let conditions = A::Object::conditions(self.account.status());
        self.said.look_again = super::look_again(self.telling.keeper, self.account.chain(), conditions);
        self.said.refused = error.or(unsaid);
        Ok(self.said)
    }

    /// The last record is shown: the finalizer goes, once all has another home.
    async fn let_go(mut self) -> Result<Said, ChainError> {
        let seal = self.seal()?;
        let (keeper, chain) = (self.telling.keeper, self.account.chain());
        let parted = let_go(keeper, chain, &*self.object, self.last.as_ref(), seal.epoch, seal.at).await?;
        self.said.writes += parted.writes();
        if let Some(released) = parted.released {
            self.account.released(released);
        }
        Ok(self.said)
    }

    async fn write(&mut self, shown: StatusOf<A>, tests: ShowTests) -> Result<(), ChainError> {
        let written =
            show(self.telling.keeper.client, self.account.chain().target, &*self.object, tests, &shown).await?;
        self.said.writes += 1;
        self.object = self.account.wrote(written, shown);
        Ok(())
    }
}
