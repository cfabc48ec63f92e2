//! Keeps a record, and brings ledger and status into agreement where they may differ.
//!
//! Owns: the order of those steps (docs/ledger.md, rules 1 to 3). Must never: write a status.

use tracing::warn;

use super::{
    Chain, ChainError, Chained, Keeper, carried,
    disagree::{self, Way},
    record,
};
use crate::{
    broken::{self, Variant},
    ledger::{
        Draft, Entry, Head, Kind, Ledger, LedgerError, Outcome, Record, Seal, Snapshot, link,
        protocol::{Database, PendingStep, Showing, after_append, may_clear_pending},
    },
    lifecycle::State,
};

/// How often it is asked which way the next record goes: import, follow, aside, and once more where something moved.
const MAX_WAYS: usize = 6;

/// A record that may be shown.
#[derive(Debug)]
pub struct Entered {
    /// The record.
    pub record: Record,
    /// The status has to carry it.
    pub carried: bool,
    /// The ledger has it from one that could not show it, or made it to name what happened to the chain.
    pub before: bool,
    /// How many entries were added for it.
    pub entries: u32,
    /// The ledger took it behind what was seen to be shown, with so many of its rewinds known: see [`super::Told::shows`].
    pub taken: Option<u64>,
}

impl Entered {
    /// One that the ledger has already, or that names what happened to the chain, with so many entries added for it.
    fn before(record: Record, entries: u32) -> Self {
        Self { record, carried: false, before: true, entries, taken: None }
    }
}

/// Makes a record durable. What comes back is the record to show: ours, or the one that the ledger had already. `present` makes
/// the object's snapshot for a state and an end of its chain.
pub async fn keep<K: Chained>(
    keeper: Keeper<'_>,
    chain: Chain<'_>,
    mut draft: Draft,
    seal: Seal,
    present: impl Fn(Option<State>, Head) -> Snapshot,
) -> Result<Entered, ChainError> {
    let (ledger, target) = (keeper.ledger, chain.target);
    let slots_left = carried::slots_left(chain.shown);
    if slots_left == 0 && !ledger.is_up() {
        return Err(disagree::full(target).into());
    }
    let mut aside = false;
    for _ in 0..MAX_WAYS {
        let state = draft.to.or(chain.state);
        let record = draft.clone().seal(seal, chain.head);
        let snapshot = present(state, record.head());
        let entry = Entry::Chained { record: record.clone(), snapshot: Box::new(snapshot.clone()) };
        let rewinds = *ledger.rewinds().borrow();
        let outcome = if aside { ledger.set_aside(entry).await } else { ledger.submit(entry).await };
        let mut taken = None;
        let showing = match outcome? {
            Outcome::Durable(_) => {
                // Behind what was seen, which may be old: a status that shows something else by now is found out by the write.
                keeper.told.parts(target.uid);
                taken = Some(rewinds);
                Showing::Show
            }
            Outcome::Adopt(_) if broken::is(Variant::AdoptedHeadNotShown) => Showing::Show,
            Outcome::Away(certain) => after_append(certain, slots_left),
            Outcome::Adopt(_) | Outcome::Elsewhere { .. } => {
                let now = |head| present(chain.state, head);
                match Box::pin(disagree::resolve::<K>(keeper, chain, seal, now)).await? {
                    Way::Show(record) => {
                        return Ok(Entered::before(*record, 0));
                    }
                    Way::Append { superseded: Some(head) } => draft = record::superseded(chain, head),
                    Way::Append { superseded: None } => {}
                    Way::Aside => aside = true,
                }
                continue;
            }
        };
        keeper.told.note(&snapshot);
        let carried = match showing {
            Showing::Show => false,
            Showing::ShowCarried => true,
            Showing::NotShown => return Err(disagree::full(target).into()),
        };
        return Ok(Entered { record, carried, before: draft.kind == Kind::Resolution, entries: 1, taken });
    }
    Err(ChainError::Endless(target.to_string()))
}

/// Whether ledger and status may differ, and how many rewinds of the ledger are known if so: while nobody has seen them agree
/// ([`is_open`]), and while its status says that something is not synced (`is_unsynced`). Otherwise the next record finds it out.
pub fn doubt(keeper: Keeper<'_>, chain: Chain<'_>, is_unsynced: bool) -> Option<u64> {
    let doubtful = is_open(keeper, chain) || is_begun(chain) && (!chain.shown.pending.is_empty() || is_unsynced);
    (doubtful && keeper.ledger.is_current()).then(|| *keeper.ledger.rewinds().borrow())
}

/// Whether this process has not seen yet that ledger and status agree: at the first sight of an object, after a rewind of the
/// ledger or of the API server, and until the ledger has answered.
pub(super) fn is_open(keeper: Keeper<'_>, chain: Chain<'_>) -> bool {
    let rewinds = *keeper.ledger.rewinds().borrow();
    is_begun(chain) && !keeper.told.agrees(chain.target.uid, rewinds, chain.head.sequence)
}

/// What follows an ending is [`super::let_go`]'s, and nothing is recorded behind it.
fn is_begun(chain: Chain<'_>) -> bool {
    chain.head != Head::GENESIS && chain.state != Some(State::Deleted)
}

/// What came of [`agree`].
#[derive(Debug)]
pub enum Agreed {
    /// The ledger has everything that is shown.
    Seen,
    /// It has this record in front, which is to be shown.
    Show(Box<Entered>),
    /// Not now, and this is why.
    Not(LedgerError),
    /// It cannot be said now.
    Unsaid {
        /// How many entries were added.
        entries: u32,
    },
}

/// Brings the ledger and what is shown together, where they may differ ([`doubt`], with what it answered).
pub async fn agree<K: Chained>(
    keeper: Keeper<'_>,
    chain: Chain<'_>,
    rewinds: u64,
    seal: Seal,
    present: impl Fn(Option<State>, Head) -> Snapshot,
) -> Result<Agreed, ChainError> {
    let now = |head| present(chain.state, head);
    match Box::pin(disagree::resolve::<K>(keeper, chain, seal, now)).await {
        Ok(Way::Show(record)) => Ok(Agreed::Show(Box::new(Entered::before(*record, 0)))),
        Ok(Way::Append { superseded: Some(head) }) => {
            let record = record::superseded(chain, head).seal(seal, chain.head);
            let entry = Entry::Chained { record: record.clone(), snapshot: Box::new(now(record.head())) };
            Ok(match keeper.ledger.submit(entry).await {
                Ok(Outcome::Durable(_)) => Agreed::Show(Box::new(Entered::before(record, 1))),
                // The chain is right without it; whoever disagrees next names what it finds.
                Ok(Outcome::Away(_) | Outcome::Adopt(_) | Outcome::Elsewhere { .. }) => Agreed::Unsaid { entries: 1 },
                Err(error) => Agreed::Not(error),
            })
        }
        Ok(Way::Append { superseded: None }) => {
            keeper.told.agreed(chain.target.uid, rewinds, chain.head.sequence);
            Ok(Agreed::Seen)
        }
        Ok(Way::Aside) | Err(ChainError::Ledger(LedgerError::Full { .. })) => Ok(Agreed::Unsaid { entries: 0 }),
        Err(ChainError::Ledger(error)) => Ok(Agreed::Not(error)),
        Err(other) => Err(other),
    }
}

/// Whether what the status carries may go from it, because the database has all of it (rules 2 and 3). The next write shows that.
pub async fn is_cleared(ledger: &Ledger, chain: Chain<'_>) -> bool {
    let target = chain.target;
    if chain.shown.pending.is_empty() {
        return false;
    }
    let (records, unreadable) = carried::read(chain.shown);
    if let Some(why) = unreadable {
        warn!(uid = %target.uid, why, "status.ledger.pending cannot be read and is left as it is");
        return false;
    }
    let links: Vec<_> = records.iter().map(|record| link(record.head())).collect();
    // Once to find out what is missing, once to see that it is there.
    for _ in 0..2 {
        let database = match ledger.compare(target, chain.head, &records).await {
            Ok(compared) => compared.database,
            Err(error) => {
                warn!(uid = %target.uid, error = error.explain(), "pending records stay");
                return false;
            }
        };
        match (may_clear_pending(&links, &database), database) {
            (PendingStep::Clear, _) => {
                for record in &records {
                    ledger.vouch(target, record);
                }
                return true;
            }
            (PendingStep::Keep, _) if broken::is(Variant::PendingClearedBeforeCommit) => return true,
            (PendingStep::Keep, Database::Answered(reading)) => {
                let missing = |record: &&Record| reading.missing.contains(&link(record.head()));
                let missing: Vec<Record> = records.iter().filter(missing).cloned().collect();
                if !matches!(ledger.bring(target, &missing).await, Ok(true)) {
                    return false;
                }
            }
            (PendingStep::Keep | PendingStep::Nothing, _) => return false,
        }
    }
    false
}
