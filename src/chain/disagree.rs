//! What follows where the ledger did not take a record because its chain ends elsewhere than the status says. The rules
//! are the ledger's (`ledger::protocol`), the very functions that its model explores; here they get what was seen, and what
//! they answer is done.
//!
//! Owns: turning an answer of the ledger into the protocol's words, the fresh read that it may ask for, and the steps
//! before a record can be made. Must never: decide.

use tracing::{info, warn};

use super::{Chain, ChainError, Chained, Keeper, carried, record, show::ShowError};
use crate::ledger::{
    Entry, Head, Ledger, LedgerError, Outcome, Record, Seal, Snapshot, Target, head,
    protocol::{Database, Descent, Gap, GapStep, Link, StatusRead, Step, View, may_name_lost, next_step},
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
pub(super) async fn resolve<K: Chained>(
    keeper: Keeper<'_>,
    chain: Chain<'_>,
    seal: Seal,
    present: impl Fn(Head) -> Snapshot,
) -> Result<Way, ChainError> {
    let (ledger, target) = (keeper.ledger, chain.target);
    let pending = carried::readable(target, chain.shown)?;
    let slots_left = carried::slots_left(chain.shown);
    let (mut superseded, mut brought, mut end) = (None, false, None);
    for _ in 0..STEPS {
        let compared = ledger.compare(target, chain.head, &pending).await?;
        end = compared.end.as_ref().map(Record::head);
        let mut view = View {
            deleting: chain.deleting,
            slots_left,
            status: StatusRead::Cached,
            database: compared.database.clone(),
        };
        // What the database lacks is still on its way from this replica's spool, with its details; or it was brought and
        // refused, and is in the quarantine: then the chain goes on beside it.
        if (is_behind(ledger, &view) && slots_left > 0) || (brought && lacks_pending(&view)) {
            view.database = Database::Unreachable;
        }
        let mut step = next_step(&view);
        if step == Step::RereadStatus {
            if !shows_still::<K>(keeper, chain).await? {
                return Err(ShowError::Overtaken(target.to_string()).into());
            }
            view.status = StatusRead::QuorumAfterDatabase;
            step = next_step(&view);
        }
        match step {
            Step::Append => return Ok(Way::Append { superseded }),
            Step::AppendToSpool if is_lost(ledger, &view).await => {
                let lost = record::lost(chain).seal(seal, chain.head);
                if ledger.bring(target, std::slice::from_ref(&lost)).await? {
                    warn!(uid = %target.uid, sequence = chain.head.sequence,
                        "a shown record is in no home any more; the ledger says so from here on");
                    let from = compared.end.map(|record| record.head());
                    ledger.follow(target, from, lost.head()).await?;
                    return Ok(Way::Show(Box::new(lost)));
                }
                return Ok(Way::Aside);
            }
            Step::AppendToSpool => return Ok(Way::Aside),
            Step::Full => return Err(full(target).into()),
            Step::Adopt(link) => {
                let record = stored(target, compared.end, &link)?;
                ledger.vouch(target, &record);
                info!(uid = %target.uid, sequence = link.sequence, "the ledger was one record ahead; it is shown now");
                return Ok(Way::Show(Box::new(record)));
            }
            Step::ApiRewound { on } => {
                let end = stored(target, compared.end, &on)?;
                let rewound = record::api_rewound(chain, &end).seal(seal, end.head());
                let snapshot = Box::new(present(rewound.head()));
                let entry = Entry::Chained { record: rewound.clone(), snapshot };
                match ledger.submit(entry).await? {
                    Outcome::Durable(_) => {
                        warn!(uid = %target.uid, shown = chain.head.sequence, ledger = on.sequence,
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
                brought |= ledger.bring(target, &records).await?;
            }
            Step::HeadFollowsStatus { from, to } => {
                let (from, to) = (from.as_ref().map(head), head(&to));
                let Some(ending) = ledger.ending(target, to).await? else {
                    // What it would leave is named by whoever can tell: until then it stays.
                    return if slots_left == 0 { Err(full(target).into()) } else { Ok(Way::Aside) };
                };
                // A head that was only behind has lost nothing, and over a gap nobody can say.
                let apart = ending.descent == Descent::Apart && !ending.gap;
                // A lost answer may be a yes: where it was a no, this is asked once more.
                if ledger.follow(target, from, to).await? != Some(false) {
                    superseded = from.filter(|_| apart);
                }
            }
            // Asked again with a fresh read: there is no other answer to that.
            Step::RereadStatus => {}
        }
    }
    Err(parted(chain, end).into())
}

/// Whether the home lacks what is shown while this replica's spool still has something to bring.
fn is_behind<H>(ledger: &Ledger, view: &View<H>) -> bool {
    use crate::ledger::protocol::Relation;
    let Database::Answered(reading) = &view.database else { return false };
    let lacks = matches!(reading.relation, Relation::Elsewhere { shown_stored: false, .. });
    (lacks || !reading.missing.is_empty()) && !ledger.is_current()
}

fn lacks_pending<H>(view: &View<H>) -> bool {
    matches!(&view.database, Database::Answered(reading) if !reading.missing.is_empty())
}

/// Whether the shown record is nowhere any more (rule 6).
async fn is_lost<H>(ledger: &Ledger, view: &View<H>) -> bool {
    let Database::Answered(_) = &view.database else { return false };
    let gap = Gap { carried: false, spools_exhausted: ledger.spools_exhausted().await };
    may_name_lost(gap) == GapStep::NameLost
}

fn stored<H>(target: &Target, end: Option<Record>, link: &Link<H>) -> Result<Record, ChainError> {
    end.ok_or_else(|| {
        let place = format!("the ledger's chain of {target}");
        LedgerError::Damaged { place, why: format!("it ends in record {}, which is not stored", link.sequence) }.into()
    })
}

/// Whether the object, read anew from the API server, still shows the head that this pass began with.
async fn shows_still<K: Chained>(keeper: Keeper<'_>, chain: Chain<'_>) -> Result<bool, ShowError> {
    let target = chain.target;
    let now = K::api(keeper.client.clone(), &target.namespace)
        .get_opt(&target.name)
        .await
        .map_err(|source| ShowError::Api { subject: target.to_string(), source: Box::new(source) })?;
    let same_object = |object: &K| object.meta().uid.as_deref() == Some(&target.uid.to_string());
    let head = |object: &K| object.status().map_or(String::new(), |status| K::ledger(status).head.clone());
    Ok(now.is_some_and(|object| same_object(&object) && head(&object) == chain.shown.head))
}

/// Nobody can take another record.
pub(super) fn full(target: &Target) -> LedgerError {
    LedgerError::Full { subject: target.to_string(), slots: carried::SLOTS }
}

fn parted(chain: Chain<'_>, ledger: Option<Head>) -> LedgerError {
    let ledger = ledger.map_or(0, |head| head.sequence);
    LedgerError::Parted { subject: chain.target.to_string(), ledger, shown: chain.head.sequence }
}
