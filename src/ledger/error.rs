//! Why the ledger could not do what it was asked: one enum for both homes.
//!
//! Owns: the words for failures, and the static reason that is metric label, Event and condition reason at once.
//! Must never: hold a password or a URL with one; decide what a caller does next.

use std::{error::Error, io, path::PathBuf, sync::Arc};

/// What failed underneath, shared by everybody who waited for the same write.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// The ledger did not do what it was asked.
///
/// Cloneable, because one failed commit answers many waiters. [`Self::explain`] gives the whole chain of causes.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The database is away, overloaded, or cut the connection. The same entry may be sent again.
    #[error("the ledger's database was not available while {doing}; sending the same entry again is safe")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What the driver or the server said.
        source: Cause,
    },
    /// It was not reached yet: the process has just started.
    #[error("the ledger's home is being opened")]
    Connecting,
    /// Nobody can take another record of this object: neither home does, and its status has no slot left.
    #[error(
        "the database is away and the status of {subject} already carries {slots} records; its service is looked after as before, but no further state is shown until the database is back"
    )]
    Full {
        /// The object.
        subject: String,
        /// The slots that a status has.
        slots: usize,
    },
    /// No answer in time. Whether it was written is unknown; the same entry may be sent again.
    #[error(
        "the ledger's database gave no answer within {} while {doing}; sending the same entry again is safe",
        patience(*seconds)
    )]
    TimedOut {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited for; 0 where a caller's own budget, of less than a second, had passed.
        seconds: u64,
    },
    /// The server takes no writes: a standby, or a primary that somebody made read-only.
    #[error(
        "the ledger's database takes no writes while {doing} ({message}); point the URL at the primary, or end its \
         read-only mode"
    )]
    ReadOnly {
        /// What was being done.
        doing: &'static str,
        /// PostgreSQL's sentence, or what was found.
        message: String,
    },
    /// The server has no connection left for this client.
    #[error(
        "the ledger's database has no connection left for {doing} ({message}); raise max_connections or the role's \
         CONNECTION LIMIT, or find out who holds them"
    )]
    TooManyConnections {
        /// What was being done.
        doing: &'static str,
        /// PostgreSQL's sentence.
        message: String,
    },
    /// The server's disk is full.
    #[error("the disk of the ledger's database is full while {doing} ({message}); give it more room")]
    DiskFull {
        /// What was being done.
        doing: &'static str,
        /// PostgreSQL's sentence.
        message: String,
    },
    /// The server does not take this role and password, or this host.
    #[error(
        "the ledger's database does not accept the credentials while {doing} (SQLSTATE {sqlstate}: {message}); check \
         role and password in the URL, and pg_hba.conf; a corrected file is read again without a restart"
    )]
    CredentialsRefused {
        /// What was being done.
        doing: &'static str,
        /// PostgreSQL's five characters.
        sqlstate: String,
        /// PostgreSQL's sentence.
        message: String,
    },
    /// No protected connection to the server came to be.
    #[error(
        "TLS with the ledger's database failed ({why}); sslrootcert in the URL must name the authority that signed the \
         server's certificate, which must be for the host in the URL"
    )]
    TlsFailed {
        /// What did not fit.
        why: String,
    },
    /// The server refuses this client (missing right, unknown database): somebody must change something.
    #[error(
        "the ledger's database refused {doing} (SQLSTATE {sqlstate}: {message}); check the role, its rights and the URL"
    )]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// PostgreSQL's five characters.
        sqlstate: String,
        /// PostgreSQL's sentence.
        message: String,
    },
    /// The schema lacks what this release writes.
    #[error("the ledger's schema is at {found}, this release needs {needed}: run `berth migrate`")]
    SchemaTooOld {
        /// The version of the schema; 0 where there is none.
        found: u32,
        /// The version that this release needs.
        needed: u32,
    },
    /// PostgreSQL refused this entry's rows; it was put into `berth.ledger_quarantine`.
    #[error(
        "the ledger's database refused the rows of {subject} ({message}); they are kept in berth.ledger_quarantine, where somebody must look at them"
    )]
    Quarantined {
        /// The object, by uid.
        subject: String,
        /// PostgreSQL's sentence.
        message: String,
    },
    /// The database no longer has what it acknowledged to this writer: it was restored or failed over (rule 5).
    #[error(
        "the ledger's database has lost entries that it acknowledged to {writer}: {acknowledged} were, it knows of {found}; was it restored or failed over?"
    )]
    Rewound {
        /// This replica's name.
        writer: String,
        /// How many entries were acknowledged.
        acknowledged: u64,
        /// How many the database knows of.
        found: u64,
    },
    /// The database was rewound while an import was under way, and may have lost its first part.
    #[error("the ledger's database was restored or failed over while an import was under way; the import comes again")]
    Overtaken,
    /// The entry contradicts itself; sending it again will not help.
    #[error("the entry about {subject} cannot be kept: {why}")]
    Malformed {
        /// The object, by uid.
        subject: String,
        /// What is wrong with it.
        why: String,
    },
    /// A store holds something that is not what was written there.
    #[error("{place} holds something that the ledger did not write: {why}; run `berth verify`")]
    Damaged {
        /// Table and key, or file and offset.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The chain in the ledger and the status have parted (rules 3 and 5).
    #[error(
        "the ledger's chain of {subject} ends at {ledger}, its status shows {shown}; see docs/operations.md, \"Status and ledger disagree\""
    )]
    Parted {
        /// The object.
        subject: String,
        /// Sequence of the ledger's last record; 0 where it has none.
        ledger: u64,
        /// Sequence of the record that is shown.
        shown: u64,
    },
    /// The configuration cannot be used.
    #[error("the ledger's configuration cannot be used: {why}")]
    Configuration {
        /// What is wrong, and what to do about it.
        why: String,
    },
    /// The spool's disk failed.
    #[error("the spool at {} failed; check the volume's space, rights and health", path.display())]
    Spool {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The ledger is closing and takes nothing more.
    #[error("the ledger is closed: this process is going down")]
    Closed,
}

impl LedgerError {
    /// One CamelCase word: metric label, Event reason and condition reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "DatabaseUnavailable",
            Self::Connecting => "LedgerConnecting",
            Self::Full { .. } => "LedgerFull",
            Self::TimedOut { .. } => "DatabaseTimedOut",
            Self::ReadOnly { .. } => "DatabaseReadOnly",
            Self::TooManyConnections { .. } => "DatabaseTooManyConnections",
            Self::DiskFull { .. } => "DatabaseDiskFull",
            Self::CredentialsRefused { .. } => "DatabaseCredentialsRefused",
            Self::TlsFailed { .. } => "DatabaseTlsFailed",
            Self::Refused { .. } => "DatabaseRefused",
            Self::SchemaTooOld { .. } => "SchemaTooOld",
            Self::Quarantined { .. } => "LedgerQuarantined",
            Self::Rewound { .. } | Self::Overtaken => "LedgerRewound",
            Self::Malformed { .. } => "LedgerMalformed",
            Self::Damaged { .. } => "LedgerDamaged",
            Self::Parted { .. } => "LedgerParted",
            Self::Configuration { .. } => "LedgerMisconfigured",
            Self::Spool { .. } => "SpoolFailed",
            Self::Closed => "LedgerClosed",
        }
    }

    /// Whether the database itself failed, for all entries alike; the others concern one entry, or no database.
    pub const fn is_about_the_database(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::TimedOut { .. }
            | Self::ReadOnly { .. }
            | Self::TooManyConnections { .. }
            | Self::DiskFull { .. }
            | Self::CredentialsRefused { .. }
            | Self::TlsFailed { .. }
            | Self::Refused { .. }
            | Self::SchemaTooOld { .. }
            | Self::Rewound { .. }
            | Self::Connecting
            | Self::Configuration { .. } => true,
            Self::Quarantined { .. }
            | Self::Overtaken
            | Self::Full { .. }
            | Self::Malformed { .. }
            | Self::Damaged { .. }
            | Self::Parted { .. }
            | Self::Spool { .. }
            | Self::Closed => false,
        }
    }

    /// Whether the spool's disk failed for want of room.
    pub(super) fn wants_room(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Spool { source, .. } if full.contains(&source.kind()))
    }

    /// The message with all its causes, in one line.
    pub fn explain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(inner) = cause {
            // Some errors repeat their cause in their own words.
            let said = inner.to_string();
            if !text.ends_with(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = inner.source();
        }
        text
    }

    /// A failed call to the system below the spool, at `path`.
    pub fn spool(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Spool { path: path.into(), source: Arc::new(source) }
    }
}

fn patience(seconds: u64) -> String {
    if seconds == 0 { "the caller's budget".to_owned() } else { format!("{seconds} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_failed_underneath() {
        let error = LedgerError::spool("/spool/journal", io::Error::other("no space left"));
        assert_eq!(
            error.explain(),
            "the spool at /spool/journal failed; check the volume's space, rights and health: no space left"
        );
        assert_eq!(error.reason(), "SpoolFailed");
    }
}
