//! What follows where the ledger did not take a record because its chain ends elsewhere than the status says. The rules
//! are the ledger's (`ledger::protocol`), the very functions that its model explores; here they get what was seen, and what
//! they answer is done.
//!
//! Owns: turning an answer of the ledger into the protocol's words, the fresh read that it may ask for, and the steps
//! before a record can be made. Must never: decide.

use kube::{Api, Client};
use tracing::{info, warn};

use super::{
    carried,
    context::{Context, PassError},
    record,
    show::ShowError,
    validate::Tenant,
};
use crate::{
    api::TenantContainer,
    ledger::{
        Entry, Head, LedgerError, Outcome, Record, Seal, Snapshot, head,
        protocol::{Database, Descent, Gap, GapStep, Link, StatusRead, Step, View, may_name_lost, next_step},
    },
    lifecycle::Goal,
};

/// The most steps before a record can be made: import, follow, read again, and each once more where something moved.
const STEPS: usize = 8;

/// How a pass goes on.
#[derive(Debug)]
pub(super) enum Way {
    /// The next record follows what is shown, in the home.
    Append {
        /// What has left the chain for that: the next record names it.
        superseded: Option<Head>,
    },
    /// It follows what is shown, beside what the home has: on the spool, and in the status.
    Aside,
    /// This record is in the ledger already and is to be shown instead.
    Show(Box<Record>),
}

/// Asks the protocol, and does what it says, until a record can be made or one is there to be shown.
pub(super) async fn resolve(
    context: &Context,
    tenant: &Tenant,
    seal: Seal,
    present: impl Fn(Head) -> Snapshot,
) -> Result<Way, PassError> {
    let (pending, unreadable) = carried::read(&tenant.shown.status);
    if let Some(why) = unreadable {
        let place = format!("status.ledger.pending of {}", tenant.target);
        return Err(LedgerError::Damaged { place, why }.into());
    }
    let slots_left = carried::slots_left(&tenant.shown.status);
    let (mut superseded, mut brought, mut end) = (None, false, None);
    for _ in 0..STEPS {
        let compared = context.ledger.compare(&tenant.target, tenant.shown.head, &pending).await?;
        end = compared.end.as_ref().map(Record::head);
        let mut view = View {
            deleting: tenant.goal == Goal::Deleted,
            slots_left,
            status: StatusRead::Cached,
            database: compared.database.clone(),
        };
        // What the database lacks is still on its way from this replica's spool, with its details; or it was brought and
        // refused, and is in the quarantine: then the chain goes on beside it.
        if (is_behind(context, &view) && slots_left > 0) || (brought && lacks_pending(&view)) {
            view.database = Database::Unreachable;
        }
        let mut step = next_step(&view);
        if step == Step::RereadStatus {
            if !shows_still(&context.client, tenant).await? {
                return Err(ShowError::Overtaken(tenant.target.to_string()).into());
            }
            view.status = StatusRead::QuorumAfterDatabase;
            step = next_step(&view);
        }
        match step {
            Step::Append => return Ok(Way::Append { superseded }),
            Step::AppendToSpool if is_lost(context, &view).await => {
                let lost = record::lost(tenant).seal(seal, tenant.shown.head);
                if context.ledger.bring(&tenant.target, std::slice::from_ref(&lost)).await? {
                    warn!(uid = %tenant.target.uid, sequence = tenant.shown.head.sequence,
                        "a shown record is in no home any more; the ledger says so from here on");
                    let from = compared.end.map(|record| record.head());
                    context.ledger.follow(&tenant.target, from, lost.head()).await?;
                    return Ok(Way::Show(Box::new(lost)));
                }
                return Ok(Way::Aside);
            }
            Step::AppendToSpool => return Ok(Way::Aside),
            Step::Full => return Err(full(tenant).into()),
            Step::Adopt(link) => {
                let record = stored(tenant, compared.end, &link)?;
                context.ledger.vouch(&tenant.target, &record);
                info!(uid = %tenant.target.uid, sequence = link.sequence, "the ledger was one record ahead; it is shown now");
                return Ok(Way::Show(Box::new(record)));
            }
            Step::ApiRewound { on } => {
                let end = stored(tenant, compared.end, &on)?;
                let rewound = record::api_rewound(tenant, &end).seal(seal, end.head());
                let snapshot = Box::new(present(rewound.head()));
                let entry = Entry::Chained { record: rewound.clone(), snapshot };
                match context.ledger.submit(entry).await? {
                    Outcome::Durable(_) => {
                        warn!(uid = %tenant.target.uid, shown = tenant.shown.head.sequence, ledger = on.sequence,
                            "the API server shows an older state than the ledger has; both are kept");
                        return Ok(Way::Show(Box::new(rewound)));
                    }
                    // Only a certain commit may be shown; if it arrived, it is adopted.
                    Outcome::Away(_) | Outcome::Adopt(_) | Outcome::Elsewhere { .. } => {}
                }
            }
            Step::ImportPending(links) => {
                let wanted = |record: &&Record| links.iter().any(|link| head(link) == record.head());
                let records: Vec<Record> = pending.iter().filter(wanted).cloned().collect();
                brought |= context.ledger.bring(&tenant.target, &records).await?;
            }
            Step::HeadFollowsStatus { from, to } => {
                let (from, to) = (from.as_ref().map(head), head(&to));
                // A head that was only behind has lost nothing.
                let apart = context.ledger.ending(&tenant.target, to).await?;
                let apart = apart.is_some_and(|ending| ending.descent == Descent::Apart);
                if context.ledger.follow(&tenant.target, from, to).await? == Some(true) {
                    superseded = from.filter(|_| apart);
                }
            }
            // Asked again with a fresh read: there is no other answer to that.
            Step::RereadStatus => {}
        }
    }
    Err(parted(tenant, end).into())
}

/// Whether the home lacks what is shown while this replica's spool still has something to bring.
fn is_behind<H>(context: &Context, view: &View<H>) -> bool {
    use crate::ledger::protocol::Relation;
    let Database::Answered(reading) = &view.database else { return false };
    let lacks = matches!(reading.relation, Relation::Elsewhere { shown_stored: false, .. });
    (lacks || !reading.missing.is_empty()) && !context.ledger.is_current()
}

fn lacks_pending<H>(view: &View<H>) -> bool {
    matches!(&view.database, Database::Answered(reading) if !reading.missing.is_empty())
}

/// Whether the shown record is nowhere any more (rule 6).
async fn is_lost<H>(context: &Context, view: &View<H>) -> bool {
    let Database::Answered(_) = &view.database else { return false };
    let gap = Gap { carried: false, spools_exhausted: context.ledger.spools_exhausted().await };
    may_name_lost(gap) == GapStep::NameLost
}

fn stored<H>(tenant: &Tenant, end: Option<Record>, link: &Link<H>) -> Result<Record, PassError> {
    end.ok_or_else(|| {
        let place = format!("the ledger's chain of {}", tenant.target);
        LedgerError::Damaged { place, why: format!("it ends in record {}, which is not stored", link.sequence) }.into()
    })
}

/// Whether the object, read anew from the API server, still shows the head that this pass began with.
async fn shows_still(client: &Client, tenant: &Tenant) -> Result<bool, PassError> {
    let api: Api<TenantContainer> = Api::namespaced(client.clone(), &tenant.target.namespace);
    let now = api
        .get_opt(&tenant.target.name)
        .await
        .map_err(|source| ShowError::Api { subject: tenant.target.to_string(), source: Box::new(source) })?;
    let same_object = |object: &TenantContainer| object.metadata.uid.as_deref() == Some(&tenant.target.uid.to_string());
    let head =
        |object: &TenantContainer| object.status.as_ref().map_or(String::new(), |status| status.ledger.head.clone());
    Ok(now.is_some_and(|object| same_object(&object) && head(&object) == tenant.shown.status.ledger.head))
}

/// Nobody can take another record.
pub(super) fn full(tenant: &Tenant) -> LedgerError {
    LedgerError::Full { subject: tenant.target.to_string(), slots: carried::SLOTS }
}

fn parted(tenant: &Tenant, ledger: Option<Head>) -> LedgerError {
    let ledger = ledger.map_or(0, |head| head.sequence);
    LedgerError::Parted { subject: tenant.target.to_string(), ledger, shown: tenant.shown.head.sequence }
}
