//! The way to the database: URL, TLS, time-outs, pool.
//!
//! Owns: what a URL may say, and that no password leaves this file (a [`Source`] prints without it, and it is set on
//! sqlx's options, which nobody prints; SeaORM's own options print their URL, so they are not used).
//! Must never: fall back to a connection without TLS, except to this very machine.

use std::{fmt, io, net::IpAddr, path::PathBuf, time::Duration};

use sea_orm::{DatabaseConnection, SqlxPostgresConnector};
use sqlx::{
    ConnectOptions, Executor,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use super::{bounds::CALL, failure::Failure, probe};
use crate::ledger::{error::LedgerError, hash::Hash};

/// The most connections of a process that reads. A database serves many processes.
const READING: u32 = 4;

/// How long a connection that is given back may take to answer before it is cut.
const RELEASE: Duration = Duration::from_secs(2);

/// Where the database's URL comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// The URL itself (from `DATABASE_URL`).
    Url(String),
    /// A mounted file that holds the URL, as Kubernetes mounts a Secret.
    File(PathBuf),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => f.write_str("Url(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Source {
    fn url(&self) -> Result<String, LedgerError> {
        match self {
            Self::Url(url) => Ok(url.trim().to_owned()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| LedgerError::Configuration {
                    why: format!("the file {} with the database's URL cannot be read ({error})", path.display()),
                })?;
                Ok(text.trim().to_owned())
            }
        }
    }
}

/// A small pool behind SeaORM's connection, to a server that answers; `name` is seen in `pg_stat_activity`.
pub async fn connect(source: &Source, name: &str) -> Result<DatabaseConnection, LedgerError> {
    let options = options(source, name)?;
    warn_of(&options);
    probe::reach(&options).await?;
    Ok(pool(options, Plans::Generic, READING))
}

/// How PostgreSQL plans what it is asked again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plans {
    /// As it thinks best.
    Own,
    /// Without looking at the values. Who reads a table page by page needs that: where all rows are of one cluster, PostgreSQL
    /// expects a single row behind `(cluster_id, …) > (…)`, and reads and sorts the whole rest of the table for each page.
    Generic,
}

/// A pool of at most so many connections, which connects once it is asked.
pub(super) fn pool(options: PgConnectOptions, plans: Plans, connections: u32) -> DatabaseConnection {
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CALL)
        .idle_timeout(Duration::from_secs(10 * 60))
        .max_lifetime(Duration::from_secs(30 * 60))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if plans == Plans::Generic {
                    connection.execute("SET plan_cache_mode = force_generic_plan").await?;
                }
                Ok(())
            })
        })
        // A call that timed out gives its connection back in the middle of an answer that may never come. The pool would
        // wait for it without end, and be short of a connection: four such calls, and nothing goes any more.
        //
        // And one that is given up while its BEGIN is on its way leaves a transaction that sqlx does not know of: what the
        // connection is used for next would be answered, hold its locks, and never be committed. ROLLBACK alone would warn in
        // the server's log each time, so one is begun for it; in one that is open BEGIN does no more than
        // warn, in a failed one it fails, and the connection is cut. So it is where a RELEASE was given up which the server
        // had: sqlx goes back to a savepoint that is no more.
        .after_release(|connection, _| {
            Box::pin(async move {
                match tokio::time::timeout(RELEASE, connection.execute("BEGIN; ROLLBACK")).await {
                    Ok(answered) => answered.map(|_| true),
                    Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                }
            })
        })
        .connect_lazy_with(options);
    SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
}

/// What a source says at one moment.
#[derive(Clone)]
pub(super) struct Configured {
    pub(super) options: PgConnectOptions,
    /// A digest of the URL and of the files that it names: another one means that something was rotated.
    pub(super) seen: Hash,
}

/// Reads the source, and the certificates that its URL names.
pub(super) fn configured(source: &Source, name: &str) -> Result<Configured, LedgerError> {
    let url = source.url()?;
    let mut seen = url.as_bytes().to_vec();
    for path in files(&url) {
        // A file that is missing is a state like any other; connecting will say so.
        seen.extend_from_slice(Hash::of(&std::fs::read(path).unwrap_or_default()).as_bytes());
    }
    Ok(Configured { options: options_of(&url, name)?, seen: Hash::of(&seen) })
}

/// The files that a URL names: root certificate, client certificate and its key.
fn files(url: &str) -> Vec<PathBuf> {
    const NAMES: [&str; 7] = ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];
    let Some((_, query)) = url.split_once('?') else { return vec![] };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| NAMES.contains(key)).map(|(_, value)| decoded(value).into()).collect()
}

/// A value of a URL's query: `%2F` is `/`, `+` is a space.
fn decoded(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut text = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| value.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                text.push(byte);
                at += 3;
            }
            None => {
                text.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn options(source: &Source, name: &str) -> Result<PgConnectOptions, LedgerError> {
    options_of(&source.url()?, name)
}

fn options_of(url: &str, name: &str) -> Result<PgConnectOptions, LedgerError> {
    let parsed: PgConnectOptions =
        url.parse().map_err(|error| Failure::new("reading the URL", error).into_error("reading the URL"))?;
    let mode = tls(url, &parsed)?;
    Ok(parsed
        .ssl_mode(mode)
        .application_name(name)
        // Shorter than our own, so that the server's answer comes first and says what waited for what. The last one frees
        // the locks of a batch whose connection went silent.
        .options([
            ("timezone", "UTC"),
            ("statement_timeout", "9s"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "10s"),
            // Many rows of few columns: compiling a statement took 2 s where running it takes 15 ms.
            ("jit", "off"),
        ])
        .disable_statement_logging())
}

/// Verified TLS, unless the URL says otherwise; none only where the bytes stay on this machine.
fn tls(url: &str, options: &PgConnectOptions) -> Result<PgSslMode, LedgerError> {
    let host = options.get_host();
    if options.get_socket().is_some() || host.starts_with('/') {
        return Ok(PgSslMode::Disable);
    }
    let said = url.split_once('?').is_some_and(|(_, query)| {
        query.split('&').any(|pair| matches!(pair.split('=').next(), Some("sslmode" | "ssl-mode")))
    });
    match options.get_ssl_mode() {
        _ if !said => Ok(PgSslMode::VerifyFull),
        PgSslMode::VerifyFull => Ok(PgSslMode::VerifyFull),
        mode @ (PgSslMode::VerifyCa | PgSslMode::Require) => Ok(mode),
        _ if is_this_machine(host) => Ok(PgSslMode::Disable),
        mode => Err(LedgerError::Configuration {
            why: format!(
                "sslmode={} would send the ledger and the password to {host} unprotected; that is allowed only to a \
                 Unix socket or to this machine: use sslmode=verify-full (the default)",
                format!("{mode:?}").to_lowercase()
            ),
        }),
    }
}

/// Says what a way lacks, once it is gone: the source is read every few seconds, and most often says what it said before.
pub(super) fn warn_of(options: &PgConnectOptions) {
    let host = options.get_host();
    match options.get_ssl_mode() {
        PgSslMode::VerifyFull => {}
        mode @ (PgSslMode::VerifyCa | PgSslMode::Require) => {
            tracing::warn!(host, sslmode = ?mode, "the identity of the ledger's database is not verified");
        }
        _ => tracing::warn!(host, "the ledger's database is reached without TLS"),
    }
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> Result<PgSslMode, String> {
        options(&Source::Url(url.to_owned()), "test")
            .map(|options| options.get_ssl_mode())
            .map_err(|error| error.explain())
    }

    #[test]
    fn tls_is_verified_unless_the_url_says_otherwise() {
        let verified = |url| assert!(matches!(mode(url), Ok(PgSslMode::VerifyFull)), "{url}");
        verified("postgres://u:p@db.example/berth");
        verified("postgres://u:p@127.0.0.1/berth");
        verified("postgres://u:p@db.example/berth?sslmode=verify-full");
        assert!(matches!(mode("postgres://u:p@db.example/berth?sslmode=require"), Ok(PgSslMode::Require)));
    }

    #[test]
    fn without_tls_only_this_machine_is_reached() {
        for url in ["postgres://u@127.0.0.1/b?sslmode=disable", "postgres://u@localhost/b?sslmode=prefer"] {
            assert!(matches!(mode(url), Ok(PgSslMode::Disable)), "{url}");
        }
        for url in [
            "postgres://u:secret@db.example/b?sslmode=disable",
            "postgres://u:secret@10.0.0.7/b?ssl-mode=prefer",
            "postgres://u:secret@10.0.0.7/b?application_name=x&sslmode=allow",
        ] {
            let error = mode(url).unwrap_err();
            assert!(error.contains("unprotected") && error.contains("sslmode=verify-full"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_rotated_url_or_certificate_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (url, root) = (folder.path().join("url"), folder.path().join("root ca.pem"));
        let seen = || configured(&Source::File(url.clone()), "test").unwrap().seen;
        let name = root.display().to_string().replace('/', "%2F").replace(' ', "+");
        std::fs::write(&url, format!("postgres://u:old@db.example/b?sslrootcert={name}")).unwrap();
        let first = seen();
        assert_eq!(seen(), first);
        std::fs::write(&root, "one").unwrap();
        let second = seen();
        assert_ne!(second, first);
        std::fs::write(&root, "two").unwrap();
        let third = seen();
        assert_ne!(third, second);
        std::fs::write(&url, format!("postgres://u:new@db.example/b?sslrootcert={name}\n")).unwrap();
        assert_ne!(seen(), third);
    }

    #[test]
    fn no_password_in_debug_or_errors() {
        let source = Source::Url("postgres://u:hunter2@db.example:99999999/b?sslmode=oops".to_owned());
        assert!(!format!("{source:?}").contains("hunter2"));
        assert!(!options(&source, "test").unwrap_err().explain().contains("hunter2"));
    }
}
