//! Reading the ledger, whichever home it is in.
//!
//! Owns: the questions of the reading commands, one arm for each home. Must never: write; interpret an answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::Pin,
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::{
    error::LedgerError,
    postgres,
    record::Record,
    spool::{self, read},
    verify::{Carried, Fault, Once, Report, Verifier, Violation},
    view::{ChainId, Found, Moment, Stored, StoredHead},
};

/// A home to read from.
#[derive(Clone, Debug)]
pub enum Reader {
    /// The database.
    Database(postgres::Reader),
    /// A spool's folder: live, or a copy.
    Spool(PathBuf),
}

/// An answer, and what could not be read while it was looked for.
#[derive(Clone, Debug)]
pub struct Reading<T> {
    /// The answer.
    pub value: T,
    /// What is damaged, in words.
    pub damages: Vec<String>,
}

/// The result of a verification.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// What the records prove.
    pub report: Report,
    /// Records that stand alone, each checked against its own digests.
    pub standalone: u64,
    /// What the home could not read: as bad as a violation.
    pub damages: Vec<String>,
    /// What is worth knowing, and in order.
    pub notes: Vec<String>,
}

impl Verified {
    /// Whether everything was read and every rule held.
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.damages.is_empty()
    }
}

/// What a cluster shows of its objects' chains, and carries for them.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Which cluster it is, where all of its objects and tombstones could be read.
    pub cluster: Option<Uuid>,
    /// The chains of those.
    pub there: BTreeSet<ChainId>,
    /// The end that each object's status shows.
    pub heads: Vec<StoredHead>,
    /// Records in statuses and tombstones.
    pub carried: BTreeMap<ChainId, Carried>,
    /// What could not be read, in words.
    pub notes: Vec<String>,
}

/// Rows one after the other.
pub type Rows<'a, T> = Pin<Box<dyn Stream<Item = Result<T, LedgerError>> + Send + 'a>>;

impl Reader {
    /// Every record of every object that had this name: life after life, each by its sequence.
    pub async fn timeline(&self, namespace: &str, name: &str) -> Result<Reading<Vec<Moment>>, LedgerError> {
        match self {
            Self::Database(db) => Ok(db.timeline(None, namespace, name).await?.into()),
            Self::Spool(dir) => Ok(read::timeline(dir, namespace, name)?.into()),
        }
    }

    /// The services that this user has or had under this name: the living first, then the youngest.
    pub async fn find(&self, user: &str, service_name: &str) -> Result<Reading<Vec<Found>>, LedgerError> {
        match self {
            Self::Database(db) => Ok(db.find(user, service_name).await?.into()),
            Self::Spool(dir) => Ok(read::find(dir, user, service_name)?.into()),
        }
    }

    /// Every chained record, ordered by cluster, uid and sequence.
    pub async fn chains(&self) -> Result<Rows<'_, Stored>, LedgerError> {
        match self {
            Self::Database(db) => Ok(db.chains()),
            Self::Spool(dir) => Ok(Box::pin(stream::iter(read::chains(dir)?.value))),
        }
    }

    /// The end of every chain.
    pub async fn heads(&self) -> Result<Vec<StoredHead>, LedgerError> {
        match self {
            Self::Database(db) => db.heads().try_collect().await,
            Self::Spool(dir) => Ok(read::heads(dir)?.value),
        }
    }

    /// Proves what can be proven from this home alone.
    pub async fn verify(&self) -> Result<Verified, LedgerError> {
        self.verify_with(async || Ok::<_, LedgerError>(Shown::default())).await
    }

    /// Proves what can be proven from this home and what the cluster shows. In a ledger that is written meanwhile, `shown`
    /// has to be read after the heads and before the records: so it is asked for at that moment.
    pub async fn verify_with<E: From<LedgerError>>(
        &self,
        shown: impl AsyncFnOnce() -> Result<Shown, E>,
    ) -> Result<Verified, E> {
        let heads: Vec<_> = match self {
            Self::Database(db) => db.heads().try_collect().await?,
            Self::Spool(_) => vec![],
        };
        let shown = shown().await?;
        Ok(self.verify_from(heads, shown).await?)
    }

    async fn verify_from(&self, heads: Vec<StoredHead>, shown: Shown) -> Result<Verified, LedgerError> {
        match self {
            Self::Database(db) => {
                let mut verified = Verified { notes: shown.notes, ..Verified::default() };
                let verifier = Verifier::new(heads)
                    .still_growing()
                    .with_shown(shown.heads)
                    .with_carried(shown.carried)
                    .with_cluster(shown.cluster, shown.there);
                let verifier = verified.take(verifier, db.chains()).await?;
                let later: Vec<_> = db.heads().try_collect().await?;
                verified.report = verifier.finish_with(later);
                verified.take_audit(db.audit()).await?;
                verified.take_quarantine(db.quarantine()).await?;
                Ok(verified)
            }
            Self::Spool(dir) if read::is_beside(dir) => {
                let read::Answer { value: tail, damages } = read::tail(dir)?;
                let (ends, damages): (Vec<_>, Vec<_>) = damages.into_iter().partition(spool::Damage::is_tail);
                let mut verified =
                    Verified { standalone: tail.standalone, damages: words(&damages), ..Verified::default() };
                verified.notes.push(format!(
                    "{} stands beside a database and is not the whole ledger: each record was checked for itself, chains \
                     are proven in the database",
                    dir.display()
                ));
                verified.notes.extend(words(&ends));
                let read::Tail { records, chains, details_missing, standalone: _ } = tail;
                verified.report = Report { records, chains, details_missing, ..Report::default() };
                Ok(verified)
            }
            Self::Spool(dir) => {
                // The files first: they follow the journal, so that none can be ahead of what is read then.
                let claims = read::claims(dir)?;
                let read::Answer { value: mut chains, damages } = read::chains(dir)?;
                let (tails, damages): (Vec<_>, Vec<_>) = damages.into_iter().partition(spool::Damage::is_tail);
                let verifier = Verifier::new(chains.heads()?)
                    .with_claims(claims.heads)
                    .with_shown(shown.heads)
                    .with_carried(shown.carried);
                let mut verified = Verified {
                    standalone: chains.standalone(),
                    damages: words(&damages),
                    notes: [words(&tails), shown.notes].concat(),
                    ..Verified::default()
                };
                verified.notes.extend(claims.unreadable.iter().map(|(path, why)| {
                    format!("{} is no state file of ours ({why}); it is made again at the next start", path.display())
                }));
                let told_again = chains.told_again()?;
                let verifier = verified.take(verifier, Box::pin(stream::iter(chains))).await?;
                verified.report = verifier.finish();
                let mut once = Once::default();
                for (record, place) in told_again {
                    once.take(&record, place, &mut verified.report);
                }
                Ok(verified)
            }
        }
    }
}

impl Verified {
    /// Takes all records. One that cannot be read is a damage in its place; the rest follows.
    async fn take(&mut self, mut verifier: Verifier, mut rows: Rows<'_, Stored>) -> Result<Verifier, LedgerError> {
        while let Some(row) = rows.next().await {
            match row {
                Ok(stored) => verifier.take(stored),
                Err(error @ LedgerError::Damaged { .. }) => self.damages.push(error.explain()),
                Err(error) => return Err(error),
            }
        }
        Ok(verifier)
    }
}

impl Verified {
    /// Takes the records that stand alone: each is checked against its own digests, and tells what no other tells.
    async fn take_audit(&mut self, mut rows: Rows<'_, postgres::StoredOperation>) -> Result<(), LedgerError> {
        let mut once = Once::default();
        while let Some(row) = rows.next().await {
            self.standalone += 1;
            if let Ok(stored) = &row {
                once.take(&stored.record, "berth.operation_logs".to_owned(), &mut self.report);
            }
            let wrong = match row {
                Ok(stored) if stored.record.hash() != stored.hash => {
                    Some(format!("hashes to {}, but {} is kept with it", stored.record.hash(), stored.hash))
                        .map(|why| format!("operation {:?}: {why}", stored.record.envelope().operation))
                }
                Ok(stored) => Record::read(stored.record.bytes(), stored.record.details().map(ToOwned::to_owned))
                    .err()
                    .map(|why| format!("operation {:?}: {why}", stored.record.envelope().operation)),
                Err(error @ LedgerError::Damaged { .. }) => Some(error.explain()),
                Err(error) => return Err(error),
            };
            self.damages.extend(wrong);
        }
        Ok(())
    }

    /// Takes what PostgreSQL refused and nobody has looked at: it has not arrived.
    async fn take_quarantine(&mut self, mut rows: Rows<'_, postgres::StoredRefusal>) -> Result<(), LedgerError> {
        while let Some(row) = rows.next().await {
            let postgres::StoredRefusal { chain, sequence, what, error } = row?;
            let fault = Fault::Quarantined { what, error };
            self.report.violated(Violation { chain, sequence, fault, place: "berth.ledger_quarantine".to_owned() });
        }
        Ok(())
    }
}

impl<T> From<T> for Reading<T> {
    fn from(value: T) -> Self {
        Self { value, damages: vec![] }
    }
}

fn words(damages: &[spool::Damage]) -> Vec<String> {
    damages.iter().map(ToString::to_string).collect()
}

impl<T> From<read::Answer<T>> for Reading<T> {
    fn from(answer: read::Answer<T>) -> Self {
        let damages: Vec<_> = answer.damages.into_iter().filter(|damage| !damage.is_tail()).collect();
        Self { value: answer.value, damages: words(&damages) }
    }
}
