//! The ledger's one narrow door: the rest of Berth knows nothing else of it.
//!
//! Owns: which home an entry goes to, and that no entry which contradicts itself comes in.
//! Must never: name a table or a file.

use std::{path::PathBuf, sync::Arc};

use uuid::Uuid;

use super::{
    entry::{Backend, Entry, KnownHead, Outcome},
    error::LedgerError,
    hash::Hash,
    postgres,
    record::Record,
    spool::{self, Spool},
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
}

/// An open ledger. Clones share it.
#[derive(Clone, Debug)]
pub struct Ledger {
    home: Home,
}

/// How the home in use is, for metrics.
#[derive(Clone, Debug)]
pub enum Health<'a> {
    /// The database.
    Database {
        /// What its writer did.
        counters: &'a postgres::Counters,
        /// Entries that wait for a batch.
        waiting: usize,
    },
    /// The spool.
    Spool(spool::Health),
}

#[derive(Clone, Debug)]
enum Home {
    Database(Arc<postgres::Home>),
    Spool(Spool),
}

impl Ledger {
    /// Opens it: with a database, checks its schema, makes its months ahead and registers this writer.
    pub async fn open(config: &Config) -> Result<Self, LedgerError> {
        let home = match &config.database {
            Some(source) => Home::Database(Arc::new(postgres::Home::open(source, &config.writer).await?)),
            None => {
                let (dir, writer) = (config.spool.clone(), config.writer.clone());
                // Opening reads the whole journal.
                let opened = tokio::task::spawn_blocking(move || Spool::open(&dir, &writer)).await;
                Home::Spool(opened.map_err(|_| LedgerError::Closed)??)
            }
        };
        Ok(Self { home })
    }

    /// Keeps an entry. `Ok(Durable)` means: it may be shown. Entries of one object come one after the other.
    pub async fn submit(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        check(&entry)?;
        match &self.home {
            Home::Database(home) => home.submit(entry).await,
            Home::Spool(spool) => spool.submit(entry).await,
        }
    }

    /// The end of one chain; none where it has no record yet.
    pub async fn head(&self, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
        match &self.home {
            Home::Database(home) => home.head(cluster, uid).await,
            Home::Spool(spool) => spool.head(cluster, uid).await,
        }
    }

    /// The largest epoch that wrote into a chain of this cluster; 0 where none did.
    pub async fn largest_epoch(&self, cluster: Uuid) -> Result<u64, LedgerError> {
        match &self.home {
            Home::Database(home) => home.largest_epoch(cluster).await,
            Home::Spool(spool) => spool.largest_epoch(cluster).await,
        }
    }

    /// Where entries become durable at the moment.
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
            Home::Database(home) => Health::Database { counters: home.counters(), waiting: home.waiting() },
            Home::Spool(spool) => Health::Spool(spool.health()),
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
