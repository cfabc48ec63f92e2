//! What stands between the last record of an object and the release of its finalizer (rules 4, 5 and 6).
//!
//! The order is the protocol's ([`may_release_finalizer`]): note on the own spool that the ending was shown; close the chain
//! where the database is there, or write a tombstone where it is not; then let go.
//!
//! Owns: doing those steps. Must never: decide them, or wait for a database.

use tracing::info;

use super::{
    carried,
    context::{Context, PassError},
    validate::Tenant,
};
use crate::{
    ledger::{
        Entry, LedgerError, Micros, Record, ShownMark, head, link,
        protocol::{Database, Deletion, Mark, Release, Tombstone, may_release_finalizer},
    },
    tombstone::{self, Stone},
};

/// The most steps: mark, close, tombstone, release, and one more where the database goes away in between.
const STEPS: usize = 6;

/// Sees to it that everything which goes with the object has another home. After this the finalizer may go. Answers
/// whether a tombstone was written.
pub(super) async fn settle(
    context: &Context,
    tenant: &Tenant,
    last: Option<&Record>,
    epoch: u64,
    now: Micros,
) -> Result<bool, PassError> {
    let terminal = tenant.shown.head;
    let (pending, unreadable) = carried::read(&tenant.shown.status);
    if let Some(why) = unreadable {
        let place = format!("status.ledger.pending of {}", tenant.target);
        return Err(LedgerError::Damaged { place, why }.into());
    }
    // Its bytes are at hand if this pass made it, or if the status carries it.
    let mut records = pending.clone();
    records
        .extend(last.filter(|last| last.head() == terminal && !pending.iter().any(|p| p.head() == terminal)).cloned());
    let mut deletion = Deletion {
        terminal: link(terminal),
        pending: pending.iter().map(|record| link(record.head())).collect(),
        database: Database::Unreachable,
        closed: false,
        mark: match context.ledger.mark_of(&tenant.target) {
            Some(mark) if mark.terminal == terminal => Mark::Noted,
            _ => Mark::NotNoted,
        },
        tombstone: Tombstone::Absent,
    };
    let mut asked = false;
    for _ in 0..STEPS {
        if deletion.mark != Mark::NotNoted && !asked {
            let compared = context.ledger.compare(&tenant.target, terminal, &pending).await?;
            (deletion.database, deletion.closed, asked) = (compared.database, compared.closed, true);
        }
        match may_release_finalizer(&deletion) {
            Release::NoteMark => {
                let mark = ShownMark { target: tenant.target.clone(), terminal, epoch, at: now };
                let copy = |record: &Record| Entry::Carried { record: record.clone(), target: tenant.target.clone() };
                deletion.mark = context.ledger.note_shown(mark, records.iter().map(copy).collect()).await;
            }
            Release::CloseHead => match context.ledger.close_head(&tenant.target, terminal, epoch).await? {
                Some(true) => deletion.closed = true,
                // It moved since it was read: read again.
                Some(false) => asked = false,
                None => deletion.database = Database::Unreachable,
            },
            Release::WriteTombstone(links) => {
                let carried = |record: &&Record| links.iter().any(|link| head(link) == record.head());
                let records: Vec<Record> = records.iter().filter(carried).cloned().collect();
                let stone = Stone { target: tenant.target.clone(), terminal, epoch, records };
                tombstone::write(&context.client, &context.home, &stone).await?;
                info!(uid = %tenant.target.uid, records = stone.records.len(), tombstone = stone.name(),
                    "the database is away: a tombstone carries the last records of this object");
                deletion.tombstone = Tombstone::Complete;
            }
            Release::Now => return Ok(deletion.tombstone == Tombstone::Complete),
        }
    }
    Err(PassError::Endless(tenant.target.to_string()))
}
