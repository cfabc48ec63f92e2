//! A quota as what is told of it and shown. It is told after a round, and never in one: whoever asks for room waits for no
//! record (docs/ledger.md, rule 4).
//!
//! Owns: when a quota is told of, and its `status.ledger` and `status.recorded`. Must never: touch what is reserved.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client};

use super::record;
use crate::{
    api::{LedgerStatus, TenantQuota, tenant_quota::TenantQuotaStatus},
    chain::{self, Account, Calm, Chain, ChainError, Chained, Kept, Said, Telling, Untold},
    ledger::{Draft, Head, Record, Seal, Snapshot},
};

impl Chained for TenantQuota {
    type Status = TenantQuotaStatus;
    /// The desk writes the rest, by a compare-and-set of its own.
    const OWNED: &'static [&'static str] = &["ledger", "recorded"];

    fn api(client: Client, _: &str) -> Api<Self> {
        Api::all(client)
    }

    fn status(&self) -> Option<&TenantQuotaStatus> {
        self.status.as_ref()
    }

    fn ledger(status: &TenantQuotaStatus) -> &LedgerStatus {
        &status.ledger
    }

    fn conditions(status: &TenantQuotaStatus) -> &[Condition] {
        &status.conditions
    }
}

/// What this process remembers of what it told.
pub struct Pace {
    /// Of the present.
    pub present: Calm,
    /// Of whether somebody waits.
    pub waiting: Calm,
}

impl Default for Pace {
    fn default() -> Self {
        Self { present: Calm::of_present(), waiting: Calm::of_turns() }
    }
}

struct Tale<'a> {
    account: record::Account,
    uid: String,
    pace: &'a Pace,
    wrote: &'a (dyn Fn(TenantQuota) -> Arc<TenantQuota> + Send + Sync),
    released: &'a (dyn Fn(TenantQuota) + Send + Sync),
    now: crate::ledger::Micros,
}

/// Tells what is due of a quota, and lets it go once its end is told. `wrote` takes what the API server returned,
/// and `released` what it returned last, when the finalizer went.
pub async fn tell(
    telling: Telling<'_>,
    object: Arc<TenantQuota>,
    pace: &Pace,
    wrote: &(dyn Fn(TenantQuota) -> Arc<TenantQuota> + Send + Sync),
    released: &(dyn Fn(TenantQuota) + Send + Sync),
) -> Result<Said, ChainError> {
    let mut writes = 0;
    let object = match (chain::is_held(&*object), object.metadata.deletion_timestamp.is_some()) {
        (true, _) => object,
        (false, true) => return Ok(Said::default()),
        // Else it would be gone before its end is recorded. The API server adds it at creation.
        (false, false) => {
            writes += 1;
            wrote(chain::hold(telling.keeper.client, &*object).await?)
        }
    };
    let account = record::Account::read(&object, telling.cluster)?;
    let uid = account.known.target.uid.to_string();
    let tale = Tale { account, uid: uid.clone(), pace, wrote, released, now: telling.now };
    let mut said = Box::pin(chain::tell(telling, object, tale)).await?;
    if said.records > 0 {
        pace.present.wrote(&uid, telling.now);
    }
    said.writes += writes;
    match said.refused.take() {
        None => Ok(said),
        Some(error) => Err(error.into()),
    }
}

impl Account for Tale<'_> {
    type Object = TenantQuota;
    /// What nobody saw, the limits, and whether somebody waits.
    const MAX_RECORDS: usize = 3;

    fn chain(&self) -> Chain<'_> {
        self.account.chain()
    }

    fn status(&self) -> &TenantQuotaStatus {
        &self.account.status
    }

    fn ledger(&mut self) -> &mut LedgerStatus {
        &mut self.account.status.ledger
    }

    fn due(&self) -> Option<Draft> {
        self.account.due(self.pace.waiting.left(&self.uid, self.now).is_none())
    }

    fn snapshot(&self, draft: Option<&Draft>, head: Head, seal: Seal) -> Snapshot {
        self.account.snapshot(draft, head, seal)
    }

    fn has_present(&self) -> bool {
        self.account.status.recorded.is_some() && self.pace.present.left(&self.uid, self.now).is_none()
    }

    fn advance(&mut self, record: &Record) {
        if matches!(record.envelope().reason.as_str(), record::EXHAUSTED | record::RELIEVED) {
            self.pace.waiting.wrote(&self.uid, self.now);
        }
        self.account.advance(record);
    }

    fn shown(&self, kept: Kept<'_>, _: Option<Untold<'_>>) -> TenantQuotaStatus {
        let mut shown = self.account.status.clone();
        shown.ledger.backend = kept.backend(shown.ledger.backend.as_ref());
        shown
    }

    fn is_worth(&self, before: Option<&TenantQuotaStatus>, shown: &TenantQuotaStatus) -> bool {
        before.is_none_or(|before| (&before.ledger, &before.recorded) != (&shown.ledger, &shown.recorded))
    }

    fn wrote(&mut self, object: TenantQuota, shown: TenantQuotaStatus) -> Arc<TenantQuota> {
        self.account.status = shown;
        (self.wrote)(object)
    }

    fn released(&mut self, object: TenantQuota) {
        (self.released)(object);
    }

    fn may_go(&self) -> bool {
        true
    }
}
