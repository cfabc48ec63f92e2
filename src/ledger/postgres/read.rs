//! Reading: what people, `berth verify` and the protocol ask.
//!
//! Keyset pages, never OFFSET or a count over the history. Must never: write.

use std::{future::Future, pin::Pin};

use futures::{Stream, StreamExt, stream};
use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, NullOrdering},
};
use uuid::Uuid;

use super::{
    bounds::within_orm,
    connect::{Source, connect},
    entity::{
        container_status_history as history, ledger_heads as heads, ledger_writers, operation_logs, tenant_containers,
    },
    schema,
    stored::{Row, Stored, StoredHead, StoredOperation, StoredWriter, moment},
};
use crate::ledger::{
    entry::KnownHead,
    error::LedgerError,
    record::{Head, Micros},
};

/// Rows of a page: small enough for memory, large enough that the round trips do not count.
const PAGE: u64 = 1000;

/// The database, for reading only.
#[derive(Clone, Debug)]
pub struct Reader {
    db: DatabaseConnection,
}

/// Rows one after the other, fetched in pages. A row that is damaged is an error in its place; the rest follows. A page
/// that cannot be fetched is the last item.
pub type Rows<'a, T> = Pin<Box<dyn Stream<Item = Result<T, LedgerError>> + Send + 'a>>;

impl Reader {
    /// Connects, and checks that the schema is new enough.
    pub async fn connect(source: &Source) -> Result<Self, LedgerError> {
        let db = connect(source, "berth (reading)").await?;
        schema::check(&db).await?;
        Ok(Self { db })
    }

    /// Every record of every object that had this name, by time; in one cluster, or in all.
    pub async fn timeline(
        &self,
        cluster: Option<Uuid>,
        namespace: &str,
        name: &str,
    ) -> Result<Vec<Stored>, LedgerError> {
        let select = history::Entity::find()
            .filter(history::Column::Namespace.eq(namespace))
            .filter(history::Column::Name.eq(name))
            .filter(Condition::all().add_option(cluster.map(|cluster| history::Column::ClusterId.eq(cluster))))
            .order_by_asc(history::Column::At)
            .order_by_asc(history::Column::Uid)
            .order_by_asc(history::Column::Sequence);
        let rows = within_orm("reading a timeline", select.all(&self.db)).await?;
        rows.into_iter().map(Stored::try_from).collect()
    }

    /// The audit of one object, by time.
    pub async fn operations(&self, uid: Uuid) -> Result<Vec<StoredOperation>, LedgerError> {
        let select = operation_logs::Entity::find()
            .filter(operation_logs::Column::TargetUid.eq(uid))
            .order_by_asc(operation_logs::Column::At)
            .order_by_desc(operation_logs::Column::Phase);
        let rows = within_orm("reading the audit", select.all(&self.db)).await?;
        rows.into_iter().map(StoredOperation::try_from).collect()
    }

    /// The service of this user: the live row, else the one that was deleted last.
    pub async fn find(&self, user: &str, service: &str) -> Result<Option<Row>, LedgerError> {
        let select = tenant_containers::Entity::find()
            .filter(tenant_containers::Column::UserId.eq(user))
            .filter(tenant_containers::Column::ServiceName.eq(service))
            .order_by_asc(tenant_containers::Column::Deleted)
            .order_by_with_nulls(tenant_containers::Column::CreatedAt, Order::Desc, NullOrdering::Last)
            .limit(1);
        let row = within_orm("looking for a service", select.one(&self.db)).await?;
        row.map(Row::try_from).transpose()
    }

    /// Every record, by cluster, object and sequence: what `berth verify` walks. Read [`Self::heads`] first: then every
    /// head is found in its chain, also while records come in.
    pub fn chains(&self) -> Rows<'_, Stored> {
        pages(
            |row: &history::Model| (row.cluster_id, row.uid, row.sequence, row.hash.clone()),
            |after| {
                let behind = after.map(|(cluster, uid, sequence, hash): (Uuid, Uuid, i64, Vec<u8>)| {
                    // A comparison of rows, which the key's index answers; spelled out in ORs it would not.
                    Expr::cust_with_values(
                        "(cluster_id, uid, sequence, hash) > ($1, $2, $3, $4)",
                        [
                            sea_orm::Value::from(cluster),
                            sea_orm::Value::from(uid),
                            sea_orm::Value::from(sequence),
                            sea_orm::Value::from(hash),
                        ],
                    )
                });
                let select = history::Entity::find()
                    .filter(Condition::all().add_option(behind))
                    .order_by_asc(history::Column::ClusterId)
                    .order_by_asc(history::Column::Uid)
                    .order_by_asc(history::Column::Sequence)
                    .order_by_asc(history::Column::Hash)
                    .limit(PAGE);
                within_orm("reading the chains", select.all(&self.db))
            },
        )
    }

    /// Every head, by cluster and object.
    pub fn heads(&self) -> Rows<'_, StoredHead> {
        pages(
            |row: &heads::Model| (row.cluster_id, row.uid),
            |after| {
                let behind = after.map(|(cluster, uid): (Uuid, Uuid)| {
                    Expr::cust_with_values(
                        "(cluster_id, uid) > ($1, $2)",
                        [sea_orm::Value::from(cluster), sea_orm::Value::from(uid)],
                    )
                });
                let select = heads::Entity::find()
                    .filter(Condition::all().add_option(behind))
                    .order_by_asc(heads::Column::ClusterId)
                    .order_by_asc(heads::Column::Uid)
                    .limit(PAGE);
                within_orm("reading the heads", select.all(&self.db))
            },
        )
    }

    /// Every writer that ever was.
    pub async fn writers(&self) -> Result<Vec<StoredWriter>, LedgerError> {
        let select = ledger_writers::Entity::find().order_by_asc(ledger_writers::Column::Writer);
        let rows = within_orm("reading the writers", select.all(&self.db)).await?;
        rows.into_iter().map(StoredWriter::try_from).collect()
    }
}

/// The end of one chain.
pub(super) async fn head(db: &DatabaseConnection, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
    let row = within_orm("reading a head", heads::Entity::find_by_id((cluster, uid)).one(db)).await?;
    Ok(row.map(StoredHead::try_from).transpose()?.map(|stored| stored.known))
}

/// The largest epoch that wrote into a chain of this cluster; 0 where none did.
pub(super) async fn largest_epoch(db: &DatabaseConnection, cluster: Uuid) -> Result<u64, LedgerError> {
    let select =
        heads::Entity::find().filter(heads::Column::ClusterId.eq(cluster)).order_by_desc(heads::Column::Epoch).limit(1);
    let row = within_orm("reading the largest epoch", select.one(db)).await?;
    Ok(row.map(StoredHead::try_from).transpose()?.map_or(0, |stored| stored.known.epoch))
}

/// One record by its whole key, so that only its month is looked at.
pub(super) async fn record_at(
    db: &DatabaseConnection,
    cluster: Uuid,
    uid: Uuid,
    place: Head,
    at: Micros,
) -> Result<Option<Stored>, LedgerError> {
    let Some(at) = moment(at) else { return Ok(None) };
    // In the order of the entity's columns.
    let key = (cluster, uid, place.sequence.cast_signed(), at, place.hash.as_bytes().to_vec());
    let row = within_orm("reading a record", history::Entity::find_by_id(key).one(db)).await?;
    row.map(Stored::try_from).transpose()
}

/// A stream over pages: `fetch` gets the key of the last row seen.
fn pages<'a, M, K, T, F, P>(key: impl Fn(&M) -> K + Send + 'a, fetch: F) -> Rows<'a, T>
where
    M: Send + 'a,
    K: Send + 'a,
    T: TryFrom<M, Error = LedgerError> + Send + 'a,
    F: Fn(Option<K>) -> P + Send + 'a,
    P: Future<Output = Result<Vec<M>, LedgerError>> + Send + 'a,
{
    enum Next<K> {
        First,
        After(K),
        Done,
    }
    let steps = stream::unfold((Next::First, key, fetch), async |(next, key, fetch)| {
        let after = match next {
            Next::First => None,
            Next::After(last) => Some(last),
            Next::Done => return None,
        };
        let (items, next) = match fetch(after).await {
            Err(error) => (vec![Err(error)], Next::Done),
            Ok(rows) => {
                let next = match rows.last() {
                    Some(last) if rows.len() as u64 == PAGE => Next::After(key(last)),
                    _ => Next::Done,
                };
                (rows.into_iter().map(T::try_from).collect(), next)
            }
        };
        Some((stream::iter(items), (next, key, fetch)))
    });
    Box::pin(steps.flatten())
}
