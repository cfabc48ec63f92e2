//! From watches to work: fills a cache per kind, and says which TenantContainer each event is about.
//!
//! Owns: the streams. An event reaches the queue only after the cache holds what it tells, also after a complete list
//! was read anew (kube's own triggers come before the store has the list). Must never: decide anything.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use futures::{Stream, StreamExt, future, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{Api, Resource, core::DeserializeGuard};
use kube_runtime::{
    WatchStreamExt,
    reflector::{ObjectRef, Store, store::Writer},
    watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tracing::{error, warn};

use crate::{
    api::TenantContainer,
    chain::{Chained, SYNCED, Told},
    ledger::Ledger,
    tenant::{
        cache::Cache,
        names,
        rivals::Rivals,
        view::{NamespaceView, Project, View},
    },
};

/// A kind that can be watched and kept.
pub(super) trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}
impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Watched for K {}

/// How children are watched: only those that Berth made, decoded one page at a time.
pub(super) fn children() -> watcher::Config {
    watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::BERTH)).page_size(500)
}

/// A cache and the writer that fills it.
pub(super) fn cache<K: Watched>() -> (Cache<K>, Writer<K>)
where
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let writer = Writer::<K>::default();
    (Cache::new(writer.as_reader()), writer)
}

/// Watches children of one kind; yields whose each changed one is.
pub(super) fn owners<P: Project>(
    api: Api<View<P>>,
    cache: Cache<View<P>>,
    writer: Writer<View<P>>,
) -> impl Stream<Item = ObjectRef<TenantContainer>> + Send
where
    View<P>: Watched,
{
    let all = cache.clone();
    follow(api, children(), cache, writer).flat_map(move |touched| {
        stream::iter(touched.objects(&all).iter().filter_map(|view| owner(view)).collect::<Vec<_>>())
    })
}

fn owner<P>(view: &View<P>) -> Option<ObjectRef<TenantContainer>> {
    let name = view.label(names::TENANT_CONTAINER)?;
    Some(ObjectRef::new(name).within(view.metadata.namespace.as_deref()?))
}

/// Watches namespaces; yields every TenantContainer in one that changed.
pub(super) fn residents(
    api: Api<NamespaceView>,
    cache: Cache<NamespaceView>,
    writer: Writer<NamespaceView>,
    tenants: Store<TenantContainer>,
) -> impl Stream<Item = ObjectRef<TenantContainer>> + Send {
    follow(api, watcher::Config::default().page_size(500), cache, writer).flat_map(move |touched| {
        let residents = match touched {
            Touched::One(namespace) => {
                tenants.state_filter(|tenant| tenant.metadata.namespace == namespace.metadata.name)
            }
            Touched::Everything { gone: _ } => tenants.state(),
        };
        stream::iter(residents.into_iter().map(|tenant| ObjectRef::from_obj(&*tenant)).collect::<Vec<_>>())
    })
}

/// Whenever the ledger has news: every object whose status carries records, or says that some are not in their home, and every
/// one of which nobody knows whether ledger and status agree. At the first time, and after a rewind, that is all of them; later
/// it is those for which the ledger had no answer when it was asked.
pub(super) fn doubtful<K: Chained + Send + Sync + 'static>(
    ledger: &Ledger,
    told: Told,
    objects: Cache<K>,
) -> impl Stream<Item = ObjectRef<K>> + Send + use<K> {
    let rewinds = ledger.rewinds();
    let moved = stream::unfold(ledger.news(), |mut news| async move {
        // An end means that the ledger never has any.
        news.changed().await.ok()?;
        Some(((), news))
    });
    moved.flat_map(move |()| {
        let rewinds = *rewinds.borrow();
        let doubtful =
            objects.filter(|object| object.status().is_some_and(is_elsewhere::<K>) || told.doubts(object, rewinds));
        stream::iter(doubtful.into_iter().map(|object| ObjectRef::from_obj(&*object)).collect::<Vec<_>>())
    })
}

fn is_elsewhere<K: Chained>(status: &K::Status) -> bool {
    let unsynced = |condition: &Condition| {
        condition.type_ == SYNCED && (condition.status == "False" || condition.reason != "Database")
    };
    !K::ledger(status).pending.is_empty() || K::conditions(status).iter().any(unsynced)
}

/// Watches the TenantContainers themselves; yields each that changed.
pub(super) fn tenants(
    api: Api<DeserializeGuard<TenantContainer>>,
    cache: Cache<TenantContainer>,
    writer: Writer<TenantContainer>,
    rivals: Rivals,
) -> impl Stream<Item = Arc<TenantContainer>> + Send {
    objects(api, cache, writer, move |event| rivals.heard(event))
}

/// Watches objects that users write; yields each that changed. `first` hears of each event before the cache does, which
/// lets the passes begin.
pub(super) fn objects<K: Watched>(
    api: Api<DeserializeGuard<K>>,
    cache: Cache<K>,
    mut writer: Writer<K>,
    first: impl Fn(&Event<K>) + Send,
) -> impl Stream<Item = Arc<K>> + Send {
    let store = writer.as_reader();
    watcher(api, watcher::Config::default().page_size(500)).default_backoff().flat_map(move |event| {
        let touched = match event.map(readable) {
            Ok(Some(event)) => {
                // Before the cache, which lets the passes begin.
                first(&event);
                hear(event, &mut writer, &cache)
            }
            Ok(None) => None,
            Err(error) => {
                warn!(%error, kind = %K::kind(&()), "a watch was interrupted; it begins again");
                None
            }
        };
        stream::iter(match touched {
            None => vec![],
            Some(Touched::One(object)) => vec![Arc::new(object)],
            Some(Touched::Everything { gone: _ }) => store.state(),
        })
    })
}

/// An object that cannot be read (an older release wrote it, say) is left out and named; it keeps nobody else waiting.
fn readable<K: Watched>(event: Event<DeserializeGuard<K>>) -> Option<Event<K>> {
    let read = |DeserializeGuard(object): DeserializeGuard<K>| match object {
        Ok(mut object) => {
            trim(object.meta_mut());
            Some(object)
        }
        Err(invalid) => {
            let (namespace, name) = (&invalid.metadata.namespace, &invalid.metadata.name);
            error!(?namespace, ?name, error = invalid.error, "this {} cannot be read and is left alone", K::kind(&()));
            None
        }
    };
    Some(match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(object) => Event::InitApply(read(object)?),
        Event::Apply(object) => Event::Apply(read(object)?),
        Event::Delete(object) => Event::Delete(read(object)?),
    })
}

/// Of `managedFields`, which are longer than all the rest, only who wrote when is read.
fn trim(metadata: &mut ObjectMeta) {
    for entry in metadata.managed_fields.iter_mut().flatten() {
        entry.fields_v1 = None;
    }
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| names::is_ours(key));
    }
}

pub(super) enum Touched<K> {
    One(K),
    /// A complete list was read. No event tells of what was there before and is not in it.
    Everything {
        gone: Vec<Arc<K>>,
    },
}

impl<K: Watched> Touched<K>
where
    ObjectRef<K>: Hash + Eq,
{
    /// Those that it is about; `all` is what there is now.
    pub(super) fn objects(self, all: &Cache<K>) -> Vec<Arc<K>> {
        match self {
            Self::One(object) => vec![Arc::new(object)],
            Self::Everything { gone } => all.filter(|_| true).into_iter().chain(gone).collect(),
        }
    }
}

/// Takes an event into store and cache.
fn hear<K: Watched>(event: Event<K>, writer: &mut Writer<K>, cache: &Cache<K>) -> Option<Touched<K>>
where
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let before = if matches!(event, Event::InitDone) { cache.everything() } else { vec![] };
    writer.apply_watcher_event(&event);
    cache.heard(&event);
    match event {
        Event::Apply(object) | Event::Delete(object) => Some(Touched::One(object)),
        Event::InitDone => {
            let is_gone = |object: &Arc<K>| cache.get(&ObjectRef::from_obj(&**object)).is_none();
            Some(Touched::Everything { gone: before.into_iter().filter(is_gone).collect() })
        }
        Event::Init | Event::InitApply(_) => None,
    }
}

/// Watches children; yields what changed.
pub(super) fn follow<K: Watched>(
    api: Api<K>,
    config: watcher::Config,
    cache: Cache<K>,
    mut writer: Writer<K>,
) -> impl Stream<Item = Touched<K>> + Send
where
    K::DynamicType: Default + Eq + Hash + Clone,
{
    watcher(api, config).default_backoff().filter_map(move |event| {
        future::ready(match event {
            Ok(event) => hear(event, &mut writer, &cache),
            Err(error) => {
                warn!(%error, kind = %K::kind(&()), "a watch was interrupted; it begins again");
                None
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use k8s_openapi::api::core::v1::Namespace;
    use serde_json::json;

    use super::*;
    use crate::{
        api::TenantContainer,
        ledger::{
            Config, Hash, Head,
            samples::Sample,
            simulated::{Database, Weather},
        },
    };

    fn namespace(name: &str) -> Namespace {
        let mut object = Namespace::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.resource_version = Some("1".to_owned());
        object
    }

    #[test]
    fn what_went_while_a_watch_was_away_is_told_of_with_the_list_that_lacks_it() {
        let (cache, mut writer) = cache::<Namespace>();
        let mut tell = |event| hear(event, &mut writer, &cache);
        for event in [Event::Init, Event::InitApply(namespace("stays")), Event::InitApply(namespace("goes"))] {
            assert!(tell(event).is_none());
        }
        tell(Event::InitDone);
        // Written by this process, and gone before any watch told of it.
        cache.wrote(namespace("never-seen"));
        tell(Event::Init);
        tell(Event::InitApply(namespace("stays")));
        let Some(Touched::Everything { gone }) = tell(Event::InitDone) else { panic!("a list touches everything") };
        let mut gone: Vec<_> = gone.iter().filter_map(|object| object.metadata.name.as_deref()).collect();
        gone.sort_unstable();
        assert_eq!(gone, ["goes", "never-seen"]);
        let kept: Vec<_> = cache.everything().into_iter().filter_map(|object| object.metadata.name.clone()).collect();
        assert_eq!(kept, ["stays"]);
    }

    /// The database goes, the spool takes something of `other` meanwhile, and it comes back.
    async fn outage(database: &Database, ledger: &Ledger, other: &mut Sample) {
        database.set(Weather::Away);
        ledger.submit(other.step()).await.unwrap();
        assert!(!ledger.is_up());
        database.set(Weather::Fair);
    }

    #[tokio::test]
    async fn what_nobody_could_compare_with_the_ledger_is_woken_whenever_that_has_news() {
        let (database, spool) = (Database::default(), tempfile::tempdir().unwrap());
        let config = Config::new(None, spool.path().to_owned(), "test".to_owned());
        let ledger = Ledger::simulated(&database, &config).await;
        let uid = uuid::Uuid::from_u128(5);
        let shown = Head { sequence: 1, hash: Hash::of(b"shown") };
        let (cache, mut writer) = cache::<TenantContainer>();
        let object = json!({
            "metadata": {"name": "search", "namespace": "acme", "uid": uid.to_string()},
            "spec": {"tenantOrg": "acme", "user": "alice", "serviceName": "search", "image": "engine:1", "replicas": 1,
                "resources": {"cpu": "1", "memory": "1Gi"}, "ports": []},
            "status": {
                "observedGeneration": 1,
                "ledger": {"sequence": 1, "head": shown.hash.to_string(), "pending": []},
                "conditions": [{"type": SYNCED, "status": "True", "reason": "Database", "message": "",
                    "lastTransitionTime": "2026-11-24T00:00:00Z"}],
            },
        });
        for event in [Event::Init, Event::InitApply(serde_json::from_value(object).unwrap()), Event::InitDone] {
            hear(event, &mut writer, &cache);
        }
        let (told, mut news, mut other) = (Told::default(), ledger.news(), Sample::new(99));
        let mut woken = std::pin::pin!(doubtful(&ledger, told.clone(), cache));
        let mut next = async |what: &str| {
            let name = tokio::time::timeout(Duration::from_secs(30), woken.next()).await;
            assert_eq!(name.unwrap_or_else(|_| panic!("{what}: nobody is woken")).unwrap().name, "search");
        };
        // Its status says that all is well, so nothing else comes back to it. The first pass gets no answer.
        for what in ["for the first time", "once more"] {
            outage(&database, &ledger, &mut other).await;
            next(what).await;
        }
        told.shows(uid, shown, Some(*ledger.rewinds().borrow()));
        news.borrow_and_update();
        outage(&database, &ledger, &mut other).await;
        tokio::time::timeout(Duration::from_secs(30), news.changed()).await.unwrap().unwrap();
        assert!(woken.next().now_or_never().is_none(), "they were seen to agree");
        ledger.close().await;
    }
}
