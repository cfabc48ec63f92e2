//! The home's own door: open, submit, ask, close.

use std::sync::Arc;

use sea_orm::DatabaseConnection;
use tokio::{
    sync::{Mutex, Notify, mpsc, oneshot},
    task::JoinHandle,
};
use uuid::Uuid;

use super::{
    batch::Marks,
    bounds::{CALL, timed_out},
    connect::{Source, connect},
    partitions::Months,
    read, schema,
    writer::{Counters, QUEUE, Work, Writer},
    writers,
};
use crate::ledger::{
    entry::{Entry, KnownHead, Outcome},
    error::LedgerError,
};

/// A ledger in PostgreSQL, with the task that writes into it.
#[derive(Debug)]
pub struct Home {
    db: DatabaseConnection,
    queue: mpsc::Sender<Work>,
    closing: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

impl Home {
    /// Connects, refuses a schema that is too old, makes months ahead, and makes the writer known.
    pub async fn open(source: &Source, writer: &str) -> Result<Self, LedgerError> {
        let db = connect(source, writer).await?;
        schema::check(&db).await?;
        let pool = db.get_postgres_connection_pool();
        let months = Months::ahead(pool).await.map_err(|failure| failure.into_error("making months ahead"))?;
        let known =
            writers::register(pool, writer).await.map_err(|failure| failure.into_error("registering this writer"))?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (closing, counters) = (Arc::new(Notify::new()), Arc::new(Counters::default()));
        let writer = Writer {
            db: db.clone(),
            name: writer.to_owned(),
            months,
            marks: Marks { known, attempted: None },
            counters: Arc::clone(&counters),
            closing: Arc::clone(&closing),
        };
        let task = Mutex::new(Some(tokio::spawn(writer.run(waiting))));
        Ok(Self { db, queue, closing, task, counters })
    }

    /// Durable when this returns, or told why not. An entry whose answer did not come in time may still be written.
    pub async fn submit(&self, entry: Entry) -> Result<Outcome, LedgerError> {
        let (answer, waiter) = oneshot::channel();
        let answered = async {
            self.queue.send(Work { entry, answer }).await.map_err(|_| LedgerError::Closed)?;
            // The task drops a waiter only when it ends.
            waiter.await.map_err(|_| LedgerError::Closed)?
        };
        // Twice the time of a call: one for the batch before, one for its own.
        match tokio::time::timeout(2 * CALL, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(timed_out("waiting for a batch")),
        }
    }

    /// The end of one chain.
    pub async fn head(&self, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
        read::head(&self.db, cluster, uid).await
    }

    /// The largest epoch that wrote into a chain of this cluster; 0 where none did.
    pub async fn largest_epoch(&self, cluster: Uuid) -> Result<u64, LedgerError> {
        read::largest_epoch(&self.db, cluster).await
    }

    /// What the writer did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many entries wait for a batch, but for those that the writer has taken already.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Takes nothing more, writes what waits, and lets go of the connections.
    pub async fn close(&self) {
        self.closing.notify_one();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the ledger's writer ended badly");
        }
        self.db.get_postgres_connection_pool().close().await;
    }
}
