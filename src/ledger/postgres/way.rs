//! The way to the database that is in use: one pool for what is written in batches and one for what is asked, replaced when
//! their configuration was rotated or they broke.
//!
//! Owns: which pools are the current ones, and when those before may go. Must never: print its options; keep a pool whose
//! URL, password or certificates are others by now.

use std::{
    fmt,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use sea_orm::DatabaseConnection;
use sqlx::{PgPool, postgres::PgConnectOptions};

use super::{
    bounds::CALL,
    connect::{self, Configured, Source},
};
use crate::ledger::error::LedgerError;

/// Connections for batches: one is in use, the other takes its place while that one is given back in the middle of an answer.
const WRITING: u32 = 2;
/// Connections for questions. However many wait for one, a batch does not: on a slow database it would be late, and the breaker
/// would cut all of them off.
const ASKING: u32 = 3;

/// The way, and where its configuration comes from.
pub(super) struct Way {
    source: Source,
    name: String,
    current: RwLock<Current>,
}

struct Current {
    pools: Pools,
    configured: Configured,
}

/// Each has connections of its own.
#[derive(Clone)]
pub(super) struct Pools {
    writing: DatabaseConnection,
    asking: DatabaseConnection,
}

impl Pools {
    fn new(options: &PgConnectOptions) -> Self {
        let of = |connections| connect::pool(options.clone(), connect::Plans::Own, connections);
        Self { writing: of(WRITING), asking: of(ASKING) }
    }

    /// Says good-bye on all of them.
    pub(super) async fn close(&self) {
        tokio::join!(
            self.writing.get_postgres_connection_pool().close(),
            self.asking.get_postgres_connection_pool().close()
        );
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("source", &self.source).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Way {
    /// Reads the configuration; connects nowhere yet.
    pub(super) fn new(source: &Source, name: &str) -> Result<Self, LedgerError> {
        let configured = connect::configured(source, name)?;
        connect::warn_of(&configured.options);
        let pools = Pools::new(&configured.options);
        Ok(Self { source: source.clone(), name: name.to_owned(), current: RwLock::new(Current { pools, configured }) })
    }

    pub(super) fn pools(&self) -> Pools {
        self.current.read().unwrap_or_else(PoisonError::into_inner).pools.clone()
    }

    /// The connection for one question; ask again for the next.
    pub(super) fn asking(&self) -> DatabaseConnection {
        self.pools().asking
    }

    pub(super) fn asking_pool(&self) -> PgPool {
        self.asking().get_postgres_connection_pool().clone()
    }

    /// The connection for one piece of the writer's work.
    pub(super) fn writing(&self) -> DatabaseConnection {
        self.pools().writing
    }

    pub(super) fn writing_pool(&self) -> PgPool {
        self.writing().get_postgres_connection_pool().clone()
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        self.current.read().unwrap_or_else(PoisonError::into_inner).configured.options.clone()
    }

    /// What the source says now, where that is not what is in use.
    pub(super) fn rotated(&self) -> Result<Option<Configured>, LedgerError> {
        let now = connect::configured(&self.source, &self.name)?;
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Ok((now.seen != current.configured.seen).then_some(now))
    }

    /// Goes another way from now on. What is under way in the old pool gets the time of a call to end.
    pub(super) fn turn(&self, configured: Configured) {
        connect::warn_of(&configured.options);
        retire(self.replace(configured), CALL);
    }

    /// The same way through a new pool: the old one's connections may be dead without knowing, and would be tried first.
    pub(super) fn renew(&self) {
        let configured = self.current.read().unwrap_or_else(PoisonError::into_inner).configured.clone();
        retire(self.replace(configured), Duration::ZERO);
    }

    fn replace(&self, configured: Configured) -> Pools {
        let pools = Pools::new(&configured.options);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, Current { pools, configured }).pools
    }
}

fn retire(old: Pools, after: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        // A connection that is silent would say good-bye for ever; then it is dropped.
        let _ = tokio::time::timeout(CALL, old.close()).await;
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_way_without_tls_is_warned_of_once_however_often_it_is_looked_at() {
        let said = Said::default();
        let writer = said.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let source = Source::Url("postgres://u@127.0.0.1/b?sslmode=disable".to_owned());
            let way = Way::new(&source, "test").unwrap();
            for _ in 0..3 {
                assert!(way.rotated().unwrap().is_none());
            }
        });
        let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("without TLS").count(), 1, "{text}");
    }
}
