//! Is the database well? Asked at the start, and while the breaker is open.
//!
//! Owns: what counts as well: it answers, soon, takes writes, and has the schema that this release writes.
//! Must never: write.

use std::time::Duration;

use sea_orm::DatabaseConnection;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{bounds, failure::Failure, schema};
use crate::ledger::error::LedgerError;

const DOING: &str = "probing";

/// How long a probe of the writer's may take: a database that needs longer to say good day is not back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a server answers these options. By a connection of its own: a pool answers a refused one with a time-out that
/// names no cause.
pub(super) async fn reach(options: &PgConnectOptions) -> Result<(), LedgerError> {
    let probe = async {
        let connection = PgConnection::connect_with(options).await?;
        connection.close().await
    };
    bounds::within("connecting", probe).await.map_err(|failure| failure.into_error("connecting"))
}

/// Whether that server also takes writes.
pub(super) async fn writable(options: &PgConnectOptions) -> Result<(), LedgerError> {
    let probe = async {
        let mut connection = PgConnection::connect_with(options).await?;
        let found: (bool, bool) =
            sqlx::query_as("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean")
                .persistent(false)
                .fetch_one(&mut connection)
                .await?;
        connection.close().await?;
        Ok(found)
    };
    let (standby, read_only) = match tokio::time::timeout(PATIENCE, probe).await {
        Ok(answer) => answer.map_err(|error| Failure::new(DOING, error).into_error(DOING))?,
        Err(_) => return Err(LedgerError::TimedOut { doing: DOING, seconds: PATIENCE.as_secs() }),
    };
    let message = match (standby, read_only) {
        (true, _) => "it is a standby",
        (false, true) => "its transactions are read-only by default",
        (false, false) => return Ok(()),
    };
    Err(LedgerError::ReadOnly { doing: DOING, message: message.to_owned() })
}

/// Whether it has the schema.
pub(super) async fn schema(db: &DatabaseConnection) -> Result<(), LedgerError> {
    match tokio::time::timeout(PATIENCE, schema::check(db)).await {
        Ok(answer) => answer,
        Err(_) => Err(LedgerError::TimedOut { doing: DOING, seconds: PATIENCE.as_secs() }),
    }
}
