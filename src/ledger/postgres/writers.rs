//! `ledger_writers`: what this replica was told is durable, so that a database that lost it is found out (rule 5).
//!
//! Owns: the count and the running digest, moved by compare-and-set in every batch.
//! Must never: move without having been what this process remembers; repair anything.

use sqlx::{PgConnection, PgPool};

use super::{bounds::within, failure::Failure};
use crate::ledger::{error::LedgerError, hash::Hash};

/// How far a writer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Records that were added and acknowledged.
    pub(super) acknowledged: u64,
    /// SHA-256 of (digest before, hashes of the records that the last batch added, in its order); zeros at first.
    pub(super) digest: Hash,
}

impl Mark {
    const START: Self = Self { acknowledged: 0, digest: Hash::GENESIS };

    /// The mark after a live batch that added these records. One that added none leaves it as it was.
    pub(super) fn after(self, added: &[Hash]) -> Self {
        if added.is_empty() { self } else { self.beyond(added) }
    }

    /// The mark after a batch of an import, which moves also where everything was there already: what comes later in the
    /// import relies on it.
    pub(super) fn beyond(self, added: &[Hash]) -> Self {
        let mut bytes = Vec::with_capacity(32 * (added.len() + 1));
        bytes.extend_from_slice(self.digest.as_bytes());
        for hash in added {
            bytes.extend_from_slice(hash.as_bytes());
        }
        Self { acknowledged: self.acknowledged + added.len() as u64, digest: Hash::of(&bytes) }
    }
}

/// Makes the writer known, and reads how far it got.
pub(super) async fn register(pool: &PgPool, writer: &str) -> Result<Mark, Failure> {
    within("registering this writer", async {
        sqlx::query("INSERT INTO berth.ledger_writers (writer, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(writer)
            .bind(Mark::START.digest.as_bytes())
            .execute(pool)
            .await?;
        Ok(())
    })
    .await?;
    Ok(read_settled(pool, writer).await?.unwrap_or(Mark::START))
}

/// What the database knows of the writer, once no transaction of his is under way: one whose COMMIT is still on its
/// way holds the row, and this waits for it.
pub(super) async fn read_settled(pool: &PgPool, writer: &str) -> Result<Option<Mark>, Failure> {
    let row: Option<(i64, [u8; 32])> = within("reading this writer's mark", async {
        sqlx::query_as("SELECT acknowledged, digest FROM berth.ledger_writers WHERE writer = $1 FOR UPDATE")
            .bind(writer)
            .fetch_optional(pool)
            .await
    })
    .await?;
    Ok(row.map(|(acknowledged, digest)| Mark {
        acknowledged: acknowledged.cast_unsigned(),
        digest: Hash::from_bytes(digest),
    }))
}

/// Moves the mark inside the batch's transaction; also one that stays where it is, for the comparison.
pub(super) async fn advance(
    connection: &mut PgConnection,
    writer: &str,
    before: Mark,
    after: Mark,
) -> Result<(), Failure> {
    const DOING: &str = "moving this writer's mark";
    let moved = sqlx::query(
        "UPDATE berth.ledger_writers SET acknowledged = $4, digest = $5, moved_at = now()
         WHERE writer = $1 AND acknowledged = $2 AND digest = $3",
    )
    .bind(writer)
    .bind(before.acknowledged.cast_signed())
    .bind(before.digest.as_bytes())
    .bind(after.acknowledged.cast_signed())
    .bind(after.digest.as_bytes())
    .execute(&mut *connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?
    .rows_affected();
    if moved == 1 {
        return Ok(());
    }
    let found: Option<i64> = sqlx::query_scalar("SELECT acknowledged FROM berth.ledger_writers WHERE writer = $1")
        .bind(writer)
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new(DOING, error))?;
    Err(Failure::All(rewound(writer, before, found.unwrap_or(0).cast_unsigned())))
}

/// The database does not know what this process was told.
pub(super) fn rewound(writer: &str, known: Mark, found: u64) -> LedgerError {
    LedgerError::Rewound { writer: writer.to_owned(), acknowledged: known.acknowledged, found }
}
