//! The ledger's one narrow door: the rest of Berth knows nothing else of it.
//!
//! Owns: which home an entry goes to, and that no entry which contradicts itself comes in.
//! Must never: name a table or a file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use uuid::Uuid;

use super::{
    beside::{self, Beside},
    compare::Compared,
    entry::{Backend, Entry, KnownHead, Outcome, Target},
    error::LedgerError,
    hash::Hash,
    postgres::{self, Ending},
    protocol::{Descent, Line, Mark},
    record::{Head, Record},
    remote::Remote,
    replay, shared,
    spool::{self, ShownMark, Spool},
};

/// Where the ledger lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database, where one is configured.
    pub database: Option<postgres::Source>,
    /// The folder of this replica's spool.
    pub spool: PathBuf,
    /// This replica's name, unlike that of any other writer into the same database: cluster and pod.
    pub writer: String,
    /// How long the database may take for an entry before the spool takes it.
    pub budget: Duration,
}

impl Config {
    /// With the ordinary budget.
    pub fn new(database: Option<postgres::Source>, spool: PathBuf, writer: String) -> Self {
        Self { database, spool, writer, budget: beside::BUDGET }
    }
}

/// An open ledger. Clones share it.
#[derive(Clone, Debug)]
pub struct Ledger {
    home: Home,
}

/// How the home in use is, for metrics.
#[derive(Clone, Debug)]
pub enum Health<'a> {
    /// The database, with the spool beside it.
    Database {
        /// What its writer did; none where it is simulated.
        writer: Option<(&'a postgres::Counters, usize)>,
        /// What was done beside it.
        beside: &'a shared::Counters,
        /// Why it takes nothing at the moment.
        trouble: Option<LedgerError>,
        /// The spool, where it could be opened.
        spool: Option<spool::Health>,
    },
    /// The spool.
    Spool(spool::Health),
}

#[derive(Clone, Debug)]
enum Home {
    Database(Arc<Beside>),
    Spool(Spool),
}

/// How long the start waits for a database, so that what is there from the first moment is used from the first moment.
const FIRST: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 3_000 });
/// How long the start waits for the spool's disk.
const SPOOL_FIRST: Duration = Duration::from_millis(if cfg!(test) { 20_000 } else { 3_000 });

impl Ledger {
    /// Opens it. A database that is away, or whose schema is too old, is looked for in the background; meanwhile the spool
    /// takes what there is. An error means that something has to be changed: the configuration, or the only home.
    pub async fn open(config: &Config) -> Result<Self, LedgerError> {
        let home = match &config.database {
            Some(source) => {
                let remote = Remote::Postgres(postgres::Home::start(source, &config.writer)?);
                return Ok(Self::beside(remote, config).await);
            }
            None => {
                let (dir, writer) = (config.spool.clone(), config.writer.clone());
                // Opening reads the whole journal.
                let opened = tokio::task::spawn_blocking(move || Spool::open(&dir, &writer)).await;
                let spool = opened.map_err(|_| LedgerError::Closed)??;
                name_losses(&spool, &config.writer).await;
                Home::Spool(spool)
            }
        };
        Ok(Self { home })
    }

    /// With a database in memory.
    #[cfg(test)]
    pub(crate) async fn simulated(database: &super::simulated::Database, config: &Config) -> Self {
        Self::beside(Remote::Simulated(database.clone()), config).await
    }

    async fn beside(remote: Remote, config: &Config) -> Self {
        let beside = Beside::start(remote, config.spool.clone(), config.writer.clone(), config.budget);
        // Until it is open there is no tail, and what a database loses then is lost (rule 5): it is worth a wait of its own.
        let tried = tokio::time::timeout(SPOOL_FIRST, beside.shared.shelf.tried()).await;
        if tried.is_err() {
            tracing::warn!("the spool's disk does not answer; until it does, the database's records have no copy");
        }
        if tokio::time::timeout(FIRST, beside.shared.up()).await.is_err() {
            tracing::warn!(
                reason = beside.trouble().map(|error| error.reason()),
                error = beside.trouble().map(|error| error.explain()),
                "the ledger's database is not there; records go to the spool and into the status until it is"
            );
        }
        Self { home: Home::Database(Arc::new(beside)) }
    }

    /// Keeps an entry. `Ok(Durable)` means: it may be shown; `Ok(Away)`: if the status carries it (rule 2). Entries of one
    /// object come one after the other.
    pub async fn submit(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        check(&entry)?;
        match &self.home {
            Home::Database(home) => home.submit(entry).await,
            Home::Spool(spool) => beside::or_nowhere(entry.is_chained(), spool.submit(entry).await),
        }
    }

    /// Keeps an entry beside what the database has, because the protocol says so: on the spool, and in the status.
    pub async fn set_aside(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        check(&entry)?;
        match &self.home {
            Home::Database(home) => home.set_aside(entry).await,
            Home::Spool(spool) => beside::or_nowhere(entry.is_chained(), spool.keep(entry).await),
        }
    }

    /// What the home in use says about an object, beside what its status shows and carries.
    pub async fn compare(&self, target: &Target, shown: Head, pending: &[Record]) -> Result<Compared, LedgerError> {
        let facts = match &self.home {
            Home::Database(home) => {
                let asked: Vec<Head> = pending.iter().map(Record::head).collect();
                home.ask(home.shared.remote.facts(target.cluster, target.uid, shown, &asked)).await?
            }
            Home::Spool(spool) => {
                let asked = pending.iter().map(Record::head).collect();
                Some(spool.facts(target.cluster, target.uid, shown, asked).await?)
            }
        };
        Ok(facts.map_or(Compared::UNREACHABLE, |facts| Compared::of(facts, shown, pending)))
    }

    /// Whether the database has everything that this replica's spool holds, so that what it lacks is somewhere else.
    pub fn is_current(&self) -> bool {
        match &self.home {
            Home::Database(home) => home.is_current(),
            Home::Spool(spool) => spool.health().poisoned.is_none(),
        }
    }

    /// Whether an entry would reach its home now, as far as is known.
    pub fn is_up(&self) -> bool {
        match &self.home {
            Home::Database(home) => home.shared.remote.is_up(),
            Home::Spool(spool) => spool.health().poisoned.is_none(),
        }
    }

    /// Brings records into the home that a status or a tombstone carried. False where it is not there.
    pub async fn bring(&self, target: &Target, records: &[Record]) -> Result<bool, LedgerError> {
        match &self.home {
            Home::Database(home) => home.bring(target, records).await,
            Home::Spool(spool) => {
                for record in records {
                    spool.keep(Entry::Carried { record: record.clone(), target: target.clone() }).await?;
                }
                Ok(true)
            }
        }
    }

    /// Keeps a copy of a record that was adopted in the own tail.
    pub fn vouch(&self, target: &Target, record: &Record) {
        if let Home::Database(home) = &self.home {
            let copy = Entry::Carried { record: record.clone(), target: target.clone() };
            home.shared.shelf.keep_later(home.shared.shelf.age(), vec![copy]);
        }
    }

    /// Moves the end of a chain to what is shown, if it is still at `from` and that record is stored. None: not there.
    pub async fn follow(&self, target: &Target, from: Option<Head>, to: Head) -> Result<Option<bool>, LedgerError> {
        match &self.home {
            Home::Database(home) => {
                home.ask(home.shared.remote.head_follows(target.cluster, target.uid, from, to)).await
            }
            // Its order is the chain's: what was kept last is the end.
            Home::Spool(spool) => {
                let end = spool.head(target.cluster, target.uid).await?;
                Ok(Some(end.is_some_and(|end| end.head == to)))
            }
        }
    }

    /// Notes that an ending was shown, after copies of what goes with the object (rules 5 and 6).
    pub async fn note_shown(&self, mark: ShownMark, copies: Vec<Entry>) -> Mark {
        match &self.home {
            Home::Database(home) => home.note_shown(mark, copies).await,
            Home::Spool(spool) => match spool.note_ending(mark).await {
                Ok(()) => Mark::Noted,
                Err(error) => {
                    tracing::warn!(reason = error.reason(), error = error.explain(), "an ending could not be noted");
                    Mark::Impossible
                }
            },
        }
    }

    /// The ending of an object that this replica has noted.
    pub fn mark_of(&self, target: &Target) -> Option<ShownMark> {
        match &self.home {
            Home::Database(home) => home.shared.shelf.get().ok()?.mark_of(target.cluster, target.uid),
            Home::Spool(spool) => spool.mark_of(target.cluster, target.uid),
        }
    }

    /// All endings that this replica has noted and still holds.
    pub fn marks(&self) -> Vec<ShownMark> {
        match &self.home {
            Home::Database(home) => home.shared.shelf.get().map(|spool| spool.marks()).unwrap_or_default(),
            Home::Spool(_) => vec![],
        }
    }

    /// Closes a chain that ends in a terminal record which is shown. None: the database is not there.
    pub async fn close_head(&self, target: &Target, terminal: Head, epoch: u64) -> Result<Option<bool>, LedgerError> {
        match &self.home {
            Home::Database(home) => {
                home.ask(home.shared.remote.close_head(target.cluster, target.uid, terminal, epoch)).await
            }
            Home::Spool(_) => Ok(Some(true)),
        }
    }

    /// How a chain's end and a terminal record that was shown stand to each other. None: the database is not there.
    pub async fn ending(&self, target: &Target, terminal: Head) -> Result<Option<Ending>, LedgerError> {
        match &self.home {
            Home::Database(home) => home.ask(home.shared.remote.ending(target.cluster, target.uid, terminal)).await,
            Home::Spool(spool) => {
                let facts = spool.facts(target.cluster, target.uid, terminal, vec![]).await?;
                let noted = spool.mark_of(target.cluster, target.uid).filter(|mark| mark.terminal == terminal);
                let line = facts.head.as_ref().map(|head| head.line);
                Ok(Some(Ending {
                    head: facts.head.map(|head| head.head),
                    closed_epoch: noted.map(|mark| mark.epoch),
                    stored: facts.shown_stored,
                    descent: if line == Some(Line::PassesShown) { Descent::HeadFollows } else { Descent::Apart },
                    gap: line == Some(Line::Gap),
                }))
            }
        }
    }

    /// Puts the end of a chain back on a terminal record that was shown, and closes it. None: the database is not there.
    pub async fn put_head(
        &self,
        target: &Target,
        from: Option<Head>,
        to: Head,
        epoch: u64,
    ) -> Result<Option<bool>, LedgerError> {
        match &self.home {
            Home::Database(home) => {
                home.ask(home.shared.remote.put_head(target.cluster, target.uid, from, to, epoch)).await
            }
            Home::Spool(_) => Ok(Some(true)),
        }
    }

    /// Whether nobody is left who could have what the home lacks (rule 6).
    pub async fn spools_exhausted(&self) -> bool {
        match &self.home {
            Home::Database(home) => home.spools_exhausted().await,
            Home::Spool(_) => true,
        }
    }

    /// Moves whenever what statuses and tombstones carry can be brought into the database.
    pub fn news(&self) -> watch::Receiver<u64> {
        match &self.home {
            Home::Database(home) => home.shared.news.subscribe(),
            // Nothing is ever carried: it never moves.
            Home::Spool(_) => watch::channel(0).1,
        }
    }

    /// Moves whenever the database was found to have lost what it had acknowledged (rule 5).
    pub fn rewinds(&self) -> watch::Receiver<u64> {
        match &self.home {
            Home::Database(home) => home.shared.remote.rewinds(),
            Home::Spool(_) => watch::channel(0).1,
        }
    }

    /// Why the database takes nothing at the moment; none while it does, and where there is none.
    pub fn trouble(&self) -> Option<LedgerError> {
        match &self.home {
            Home::Database(home) => home.trouble(),
            Home::Spool(spool) => spool.health().poisoned,
        }
    }

    /// The end of one chain; none where it has no record yet.
    pub async fn head(&self, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
        match &self.home {
            Home::Database(home) => home.shared.remote.head(cluster, uid).await,
            Home::Spool(spool) => spool.head(cluster, uid).await,
        }
    }

    /// The largest epoch that wrote into a chain of this cluster, as far as can be told; 0 where none did.
    pub async fn largest_epoch(&self, cluster: Uuid) -> Result<u64, LedgerError> {
        match &self.home {
            Home::Database(home) => {
                let database = home.ask(home.shared.remote.largest_epoch(cluster)).await?.unwrap_or(0);
                let spool = match home.shared.shelf.get() {
                    Ok(spool) => spool.largest_epoch(cluster).await?,
                    Err(_) => 0,
                };
                Ok(database.max(spool))
            }
            Home::Spool(spool) => spool.largest_epoch(cluster).await,
        }
    }

    /// Where entries are at home.
    pub fn backend(&self) -> Backend {
        match &self.home {
            Home::Database(_) => Backend::Database,
            Home::Spool(_) => Backend::Spool,
        }
    }

    /// Takes nothing more, keeps what waits, lets go.
    pub async fn close(self) {
        match &self.home {
            Home::Database(home) => home.close().await,
            Home::Spool(spool) => {
                if let Err(error) = spool.close().await {
                    tracing::error!(
                        error = error.explain(),
                        "the spool did not close; it is repaired at the next start"
                    );
                }
            }
        }
    }

    /// How its home is, and what it did so far.
    pub fn health(&self) -> Health<'_> {
        match &self.home {
            Home::Database(home) => Health::Database {
                writer: home.shared.remote.counters(),
                beside: &home.shared.counters,
                trouble: home.trouble(),
                spool: home.shared.shelf.get().ok().map(|spool| spool.health()),
            },
            Home::Spool(spool) => Health::Spool(spool.health()),
        }
    }
}

/// The journal is the only home: what is damaged in it is lost, and the audit in it says so. It is told at each start, and stands
/// once.
async fn name_losses(spool: &Spool, writer: &str) {
    for entry in replay::damaged(spool, writer, 0, spool.progress().last) {
        if let Err(error) = spool.submit(entry).await {
            tracing::warn!(
                reason = error.reason(),
                error = error.explain(),
                "a loss could not be told; it is at the next start"
            );
        }
    }
}

/// What no home could keep, whichever it is.
fn check(entry: &Entry) -> Result<(), LedgerError> {
    let (record, why) = match entry {
        Entry::Chained { record, snapshot } => {
            let envelope = record.envelope();
            let why = if !envelope.kind.is_chained() {
                "a record of this kind stands alone"
            } else if envelope.seq == 0 || (envelope.seq == 1) != (envelope.prev == Hash::GENESIS) {
                "its sequence and its predecessor do not fit: only the first record, 1, has none"
            } else if (snapshot.target.cluster, snapshot.target.uid) != (envelope.cluster, envelope.uid) {
                "its snapshot is of another object"
            } else {
                return numbers(record);
            };
            (record, why)
        }
        Entry::Operation { record, target, outcome: _ } => {
            let envelope = record.envelope();
            let why = if envelope.kind.is_chained() {
                "a record of this kind belongs into a chain"
            } else if envelope.operation.is_none() {
                "it has no operation id"
            } else if envelope.seq != 0 || envelope.prev != Hash::GENESIS {
                "it stands alone, but names a place in a chain"
            } else if (target.cluster, target.uid) != (envelope.cluster, envelope.uid) {
                "its target is another object"
            } else {
                return numbers(record);
            };
            (record, why)
        }
        Entry::Carried { record, target } => {
            let envelope = record.envelope();
            let why = if !envelope.kind.is_chained() {
                "a record of this kind stands alone"
            } else if (target.cluster, target.uid) != (envelope.cluster, envelope.uid) {
                "its target is another object"
            } else {
                return numbers(record);
            };
            (record, why)
        }
        Entry::Present(_) | Entry::Usage(_) => return Ok(()),
    };
    Err(LedgerError::Malformed { subject: record.envelope().uid.to_string(), why: why.to_owned() })
}

/// Numbers that every reader of JSON keeps, and that a signed column holds.
fn numbers(record: &Record) -> Result<(), LedgerError> {
    let limit = super::canonical::MAX_INTEGER.cast_unsigned();
    let envelope = record.envelope();
    if envelope.seq <= limit && envelope.epoch <= limit && envelope.generation.unsigned_abs() <= limit {
        return Ok(());
    }
    Err(LedgerError::Malformed { subject: envelope.uid.to_string(), why: "a number in it is beyond 2^53".to_owned() })
}
