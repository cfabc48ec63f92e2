//! What PostgreSQL's errors mean to the ledger.
//!
//! Owns: the line between "this row is bad", "the database is away" and "somebody must change something".
//! Must never: repeat what was bound or a connection's URL.

use std::{error::Error, io, sync::Arc};

use sea_orm::{DbErr, RuntimeErr};

use crate::ledger::error::{Cause, LedgerError};

/// Why a statement or a transaction failed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// One of the rows is refused; without it, the others would be taken.
    Row(Refusal),
    /// No month for a record's time, although there was one: somebody took it away.
    NoPartition(Refusal),
    /// Two transactions stood in each other's way; trying again helps.
    Conflict(LedgerError),
    /// Everything else concerns all rows alike.
    All(LedgerError),
}

/// PostgreSQL's words about a row.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// Five characters; empty where Berth itself refuses.
    pub(super) sqlstate: String,
    /// A sentence, with the name of the constraint where there is one.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(doing: &'static str, error: sqlx::Error) -> Self {
        Self::shared(doing, Arc::new(error))
    }

    fn shared(doing: &'static str, error: Arc<sqlx::Error>) -> Self {
        let Some(database) = error.as_database_error() else {
            return Self::All(match &*error {
                sqlx::Error::Tls(cause) => tls(&**cause),
                // What rustls thinks of the server's certificate comes as this.
                sqlx::Error::Io(cause) if cause.kind() == io::ErrorKind::InvalidData => tls(cause),
                sqlx::Error::Configuration(cause) => LedgerError::Configuration { why: cause.to_string() },
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                    LedgerError::Damaged { place: doing.to_owned(), why: error.to_string() }
                }
                _ => LedgerError::Unavailable { doing, source: error },
            });
        };
        let sqlstate = database.code().unwrap_or_default().into_owned();
        let refusal = || Refusal { sqlstate: sqlstate.clone(), message: database.message().to_owned() };
        match sqlstate.get(..2).unwrap_or_default() {
            "23" if sqlstate == "23514" && database.constraint().is_none() => Self::NoPartition(refusal()),
            // Cardinality, data, integrity, and limits of a program (an index row too large).
            "21" | "22" | "23" | "54" => Self::Row(refusal()),
            "28" => {
                let Refusal { sqlstate, message } = refusal();
                Self::All(LedgerError::CredentialsRefused { doing, sqlstate, message })
            }
            _ if sqlstate == "25006" => Self::All(LedgerError::ReadOnly { doing, message: refusal().message }),
            _ if sqlstate == "53300" => {
                Self::All(LedgerError::TooManyConnections { doing, message: refusal().message })
            }
            _ if sqlstate == "53100" => Self::All(LedgerError::DiskFull { doing, message: refusal().message }),
            "40" => Self::Conflict(LedgerError::Unavailable { doing, source: error }),
            // Connection, state of the transaction, resources, not in the right state, intervention, system, cancelled by time-out.
            "08" | "25" | "53" | "55" | "57" | "58" | "XX" => {
                Self::All(LedgerError::Unavailable { doing, source: error })
            }
            _ => {
                let Refusal { sqlstate, message } = refusal();
                Self::All(LedgerError::Refused { doing, sqlstate, message })
            }
        }
    }

    /// For callers with nothing to bisect.
    pub(super) fn into_error(self, doing: &'static str) -> LedgerError {
        match self {
            Self::Row(Refusal { sqlstate, message }) | Self::NoPartition(Refusal { sqlstate, message }) => {
                LedgerError::Refused { doing, sqlstate, message }
            }
            Self::Conflict(error) | Self::All(error) => error,
        }
    }
}

fn tls(cause: &dyn Error) -> LedgerError {
    LedgerError::TlsFailed { why: cause.to_string() }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::All(error)
    }
}

/// The same for what comes through SeaORM.
pub(super) fn from_orm(doing: &'static str, error: DbErr) -> LedgerError {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => Failure::shared(doing, inner).into_error(doing),
        other => LedgerError::Unavailable { doing, source: Arc::new(other) as Cause },
    }
}
