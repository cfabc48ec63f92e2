//! What stands between the last record of an object and the release of its finalizer (rules 4, 5 and 6).
//!
//! The order is the protocol's ([`may_release_finalizer`]): note on the own spool that the ending was shown; close the chain
//! where the database is there, or write a tombstone where it is not; then let go.
//!
//! Owns: doing those steps. Must never: decide them, or wait for a database.

use std::time::Instant;

use tracing::{debug, info};

use super::{Chain, ChainError, Chained, Keeper, carried, show};
use crate::{
    broken::{self, Variant},
    ledger::{
        Entry, Micros, Record, ShownMark, head, link,
        protocol::{Database, Deletion, Mark, Release, Tombstone, may_release_finalizer},
    },
    tombstone::{self, Stone},
};

/// The most steps: mark, close, tombstone, release, and one more where the database goes away in between.
const STEPS: usize = 6;

/// What letting an object go came to.
#[derive(Debug)]
pub struct LetGo<K> {
    /// A tombstone was written.
    is_buried: bool,
    /// The object without its finalizer; none where it was off before.
    pub released: Option<K>,
}

impl<K> LetGo<K> {
    /// Requests to the API server that wrote.
    pub const fn writes(&self) -> u32 {
        self.is_buried as u32 + self.released.is_some() as u32
    }
}

/// Sees to it that everything which goes with the object has another home, and takes its finalizer off. `last` is the last
/// record, if the pass that ends here has shown it.
pub async fn let_go<K: Chained>(
    keeper: Keeper<'_>,
    chain: Chain<'_>,
    object: &K,
    last: Option<&Record>,
    epoch: u64,
    now: Micros,
) -> Result<LetGo<K>, ChainError> {
    let began = Instant::now();
    let is_buried =
        !broken::is(Variant::ReleasedBeforeDurable) && Box::pin(settle(keeper, chain, last, epoch, now)).await?;
    let released = show::release(keeper.client, chain.target, object).await?;
    debug!(uid = %chain.target.uid, ledger_us = began.elapsed().as_micros(), is_buried, "let go");
    keeper.told.forget(chain.target.uid);
    Ok(LetGo { is_buried, released })
}

/// Whether a tombstone had to be written.
async fn settle(
    Keeper { client, home, ledger, told: _, tombstones }: Keeper<'_>,
    Chain { target, head: terminal, shown, .. }: Chain<'_>,
    last: Option<&Record>,
    epoch: u64,
    now: Micros,
) -> Result<bool, ChainError> {
    let pending = carried::readable(target, shown)?;
    // Its bytes are at hand if this pass made it, or if the status carries it.
    let mut records = pending.clone();
    records
        .extend(last.filter(|last| last.head() == terminal && !pending.iter().any(|p| p.head() == terminal)).cloned());
    let mut deletion = Deletion {
        terminal: link(terminal),
        pending: pending.iter().map(|record| link(record.head())).collect(),
        database: Database::Unreachable,
        closed: false,
        mark: match ledger.mark_of(target) {
            Some(mark) if mark.terminal == terminal => Mark::Noted,
            _ => Mark::NotNoted,
        },
        tombstone: Tombstone::Absent,
    };
    let mut asked = false;
    for _ in 0..STEPS {
        if deletion.mark != Mark::NotNoted && !asked {
            let compared = ledger.compare(target, terminal, &pending).await?;
            (deletion.database, deletion.closed, asked) = (compared.database, compared.closed, true);
        }
        match may_release_finalizer(&deletion) {
            Release::NoteMark => {
                let mark = ShownMark { target: target.clone(), terminal, epoch, at: now };
                let copy = |record: &Record| Entry::Carried { record: record.clone(), target: target.clone() };
                deletion.mark = ledger.note_shown(mark, records.iter().map(copy).collect()).await;
            }
            Release::CloseHead => match ledger.close_head(target, terminal, epoch).await? {
                Some(true) => deletion.closed = true,
                // It moved since it was read: read again.
                Some(false) => asked = false,
                None => deletion.database = Database::Unreachable,
            },
            Release::WriteTombstone(links) => {
                let carried = |record: &&Record| links.iter().any(|link| head(link) == record.head());
                let records: Vec<Record> = records.iter().filter(carried).cloned().collect();
                let stone = Stone { target: target.clone(), terminal, epoch, records };
                let written = tombstone::write(client, home, &stone).await;
                // It may be there also where its answer was lost, and stays where the finalizer is refused.
                tombstones.send_modify(|times| *times += 1);
                written?;
                info!(uid = %target.uid, records = stone.records.len(), tombstone = stone.name(),
                    "the database is away: a tombstone carries the last records of this object");
                deletion.tombstone = Tombstone::Complete;
            }
            Release::Now => return Ok(deletion.tombstone == Tombstone::Complete),
        }
    }
    Err(ChainError::Endless(target.to_string()))
}
