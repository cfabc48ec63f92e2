//! Reading: what people, `berth verify` and the protocol ask.
//!
//! Keyset pages, never OFFSET or a count over the history. Must never: write.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    pin::Pin,
};

use futures::{Stream, StreamExt, stream};
use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    prelude::DateTimeUtc, sea_query::Expr,
};
use uuid::Uuid;

use super::{
    bounds::within_orm,
    connect::{Source, connect},
    entity::{
        container_status_history as history, containers, index_metadata, ledger_heads as heads,
        ledger_quarantine as quarantine, ledger_writers, namespaces, operation_logs, tenant_containers,
    },
    schema,
    stored::{HeadsRow, HistoryRow, StoredOperation, StoredRefusal, StoredWriter, moment, snapshot},
};
use crate::ledger::{
    entry::KnownHead,
    error::LedgerError,
    hash::Hash,
    record::{Head, Micros},
    view::{ChainId, Found, Moment, Stored, StoredHead},
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

    /// Every record of every object that had this name, life after life, each by its sequence; in one cluster, or in
    /// all.
    pub async fn timeline(
        &self,
        cluster: Option<Uuid>,
        namespace: &str,
        name: &str,
    ) -> Result<Vec<Moment>, LedgerError> {
        let select = history::Entity::find()
            .filter(history::Column::Namespace.eq(namespace))
            .filter(history::Column::Name.eq(name))
            .filter(Condition::all().add_option(cluster.map(|cluster| history::Column::ClusterId.eq(cluster))))
            .order_by_asc(history::Column::At);
        let rows = within_orm("reading a timeline", select.all(&self.db)).await?;
        // By the first moment of each life; within one, by place.
        let mut order: Vec<ChainId> = vec![];
        let mut lives: HashMap<ChainId, BTreeMap<(u64, Hash), HistoryRow>> = HashMap::new();
        for row in rows {
            let row = HistoryRow::try_from(row)?;
            let chain = ChainId { cluster: row.target.cluster, uid: row.target.uid };
            let life = lives.entry(chain).or_insert_with(|| {
                order.push(chain);
                BTreeMap::new()
            });
            life.insert((row.record.envelope().seq, row.hash), row);
        }
        let mut moments = vec![];
        for chain in order {
            let life = lives.remove(&chain).unwrap_or_default();
            let head = head(&self.db, chain.cluster, chain.uid).await?.map(|known| known.head);
            let line = line(&life, head);
            moments.extend(life.into_values().map(|HistoryRow { record, hash, target }| Moment {
                superseded: !line.contains(&hash),
                target,
                record,
            }));
        }
        Ok(moments)
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

    /// The services that this user has or had under this name: the living first, then the youngest.
    pub async fn find(&self, user: &str, service: &str) -> Result<Vec<Found>, LedgerError> {
        const DOING: &str = "looking for a service";
        let select = tenant_containers::Entity::find()
            .filter(tenant_containers::Column::UserId.eq(user))
            .filter(tenant_containers::Column::ServiceName.eq(service))
            .order_by_asc(tenant_containers::Column::Deleted)
            .order_by_desc(tenant_containers::Column::CreatedAt)
            .order_by_asc(tenant_containers::Column::Id);
        let mut found = vec![];
        for row in within_orm(DOING, select.all(&self.db)).await? {
            found.push(within_orm(DOING, self.parts(row)).await??);
        }
        Ok(found)
    }

    /// The row with its parts.
    async fn parts(&self, row: tenant_containers::Model) -> Result<Result<Found, LedgerError>, DbErr> {
        let (cluster, uid) = (row.cluster_id, row.id);
        let namespace = namespaces::Entity::find_by_id((cluster, row.namespace_id)).one(&self.db).await?;
        let indexes = index_metadata::Entity::find()
            .filter(index_metadata::Column::ClusterId.eq(cluster))
            .filter(index_metadata::Column::TenantContainerId.eq(uid))
            .order_by_asc(index_metadata::Column::Name)
            .all(&self.db)
            .await?;
        // Those of the last sight; what was gone by then kept the moment at which it was seen last.
        let replicas = containers::Entity::find()
            .filter(containers::Column::ClusterId.eq(cluster))
            .filter(containers::Column::TenantContainerId.eq(uid))
            .filter(containers::Column::ObservedAt.eq(row.observed_at))
            .order_by_asc(containers::Column::Name)
            .all(&self.db)
            .await?;
        let end = heads::Entity::find_by_id((cluster, uid)).one(&self.db).await?;
        let Some(namespace) = namespace else {
            return Ok(Err(LedgerError::Damaged {
                place: format!("berth.tenant_containers at {uid}"),
                why: "its namespace has no row".to_owned(),
            }));
        };
        Ok(found(row, namespace, indexes, replicas, end))
    }

    /// Every record, by cluster, object and sequence: what `berth verify` walks. Read [`Self::heads`] first: then every
    /// head is found in its chain, also while records come in.
    pub fn chains(&self) -> Rows<'_, Stored> {
        pages(
            |row: history::Model| HistoryRow::try_from(row).map(HistoryRow::unchecked),
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

    /// Every record of the audit, by cluster, operation and phase.
    pub fn audit(&self) -> Rows<'_, StoredOperation> {
        pages(
            StoredOperation::try_from,
            |row: &operation_logs::Model| (row.cluster_id, row.operation_id, row.phase.clone(), row.at),
            |after| {
                let behind = after.map(|(cluster, operation, phase, at): (Uuid, Uuid, String, DateTimeUtc)| {
                    Expr::cust_with_values(
                        "(cluster_id, operation_id, phase, at) > ($1, $2, $3, $4)",
                        [
                            sea_orm::Value::from(cluster),
                            sea_orm::Value::from(operation),
                            sea_orm::Value::from(phase),
                            sea_orm::Value::from(at),
                        ],
                    )
                });
                let select = operation_logs::Entity::find()
                    .filter(Condition::all().add_option(behind))
                    .order_by_asc(operation_logs::Column::ClusterId)
                    .order_by_asc(operation_logs::Column::OperationId)
                    .order_by_asc(operation_logs::Column::Phase)
                    .order_by_asc(operation_logs::Column::At)
                    .limit(PAGE);
                within_orm("reading the audit", select.all(&self.db))
            },
        )
    }

    /// Every head, by cluster and object.
    pub fn heads(&self) -> Rows<'_, StoredHead> {
        pages(
            |row: heads::Model| {
                let HeadsRow { chain, known, at: _, closed_epoch: _ } = row.try_into()?;
                Ok(StoredHead { chain, head: known.head })
            },
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

    /// What PostgreSQL refused and nobody has looked at, in the order in which it was.
    pub fn quarantine(&self) -> Rows<'_, StoredRefusal> {
        pages(
            |row: quarantine::Model| Ok(row.into()),
            |row: &quarantine::Model| row.id,
            |after| {
                let behind = after.map(|id: i64| quarantine::Column::Id.gt(id));
                let select = quarantine::Entity::find()
                    .filter(quarantine::Column::ResolvedAt.is_null())
                    .filter(Condition::all().add_option(behind))
                    .order_by_asc(quarantine::Column::Id)
                    .limit(PAGE);
                within_orm("reading the quarantine", select.all(&self.db))
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

fn found(
    row: tenant_containers::Model,
    namespace: namespaces::Model,
    indexes: Vec<index_metadata::Model>,
    replicas: Vec<containers::Model>,
    end: Option<heads::Model>,
) -> Result<Found, LedgerError> {
    let mut snapshot = snapshot(row, namespace, indexes, replicas)?;
    let mut since = snapshot.observed_at;
    // The chain knows better, where a snapshot was refused.
    if let Some(end) = end {
        let HeadsRow { chain: _, known, at, closed_epoch: _ } = end.try_into()?;
        (snapshot.head, snapshot.present.state, since) = (known.head, known.state.or(snapshot.present.state), at);
    }
    Ok(Found { snapshot, since })
}

/// The hashes on the way from the chain's end back to its first record; all others have lost.
fn line(life: &BTreeMap<(u64, Hash), HistoryRow>, head: Option<Head>) -> HashSet<Hash> {
    let mut line = HashSet::new();
    let mut next = head;
    while let Some(place) = next {
        line.insert(place.hash);
        next = life
            .get(&(place.sequence, place.hash))
            .and_then(|row| Some(Head { sequence: place.sequence.checked_sub(1)?, hash: row.record.envelope().prev }));
    }
    line
}

/// The end of one chain.
pub(super) async fn head(db: &DatabaseConnection, cluster: Uuid, uid: Uuid) -> Result<Option<KnownHead>, LedgerError> {
    let row = within_orm("reading a head", heads::Entity::find_by_id((cluster, uid)).one(db)).await?;
    Ok(row.map(HeadsRow::try_from).transpose()?.map(|row| row.known))
}

/// The largest epoch that wrote into a chain of this cluster; 0 where none did.
pub(super) async fn largest_epoch(db: &DatabaseConnection, cluster: Uuid) -> Result<u64, LedgerError> {
    let select =
        heads::Entity::find().filter(heads::Column::ClusterId.eq(cluster)).order_by_desc(heads::Column::Epoch).limit(1);
    let row = within_orm("reading the largest epoch", select.one(db)).await?;
    Ok(row.map(HeadsRow::try_from).transpose()?.map_or(0, |row| row.known.epoch))
}

/// One record by its whole key, so that only its month is looked at.
pub(super) async fn record_at(
    db: &DatabaseConnection,
    cluster: Uuid,
    uid: Uuid,
    place: Head,
    at: Micros,
) -> Result<Option<HistoryRow>, LedgerError> {
    let Some(at) = moment(at) else { return Ok(None) };
    // In the order of the entity's columns.
    let key = (cluster, uid, place.sequence.cast_signed(), at, place.hash.as_bytes().to_vec());
    let row = within_orm("reading a record", history::Entity::find_by_id(key).one(db)).await?;
    row.map(HistoryRow::try_from).transpose()
}

/// One record of the audit by its whole key, so that only its month is looked at.
pub(super) async fn operation_at(
    db: &DatabaseConnection,
    (cluster, operation, phase): (Uuid, Uuid, &str),
    at: Micros,
) -> Result<Option<StoredOperation>, LedgerError> {
    let Some(at) = moment(at) else { return Ok(None) };
    // In the order of the entity's columns.
    let key = (phase.to_owned(), cluster, at, operation);
    let row = within_orm("reading the audit", operation_logs::Entity::find_by_id(key).one(db)).await?;
    row.map(StoredOperation::try_from).transpose()
}

/// A stream over pages: `fetch` gets the key of the last row seen.
fn pages<'a, M, K, T, F, P>(
    into: impl Fn(M) -> Result<T, LedgerError> + Copy + Send + 'a,
    key: impl Fn(&M) -> K + Send + 'a,
    fetch: F,
) -> Rows<'a, T>
where
    M: Send + 'a,
    K: Send + 'a,
    T: Send + 'a,
    F: Fn(Option<K>) -> P + Send + 'a,
    P: Future<Output = Result<Vec<M>, LedgerError>> + Send + 'a,
{
    enum Next<K> {
        First,
        After(K),
        Done,
    }
    let steps = stream::unfold((Next::First, key, fetch), move |(next, key, fetch)| async move {
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
                (rows.into_iter().map(into).collect(), next)
            }
        };
        Some((stream::iter(items), (next, key, fetch)))
    });
    Box::pin(steps.flatten())
}
