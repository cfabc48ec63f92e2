//! A cache of one kind that is never older than our own last write.
//!
//! A watch tells of a write some milliseconds after the API server has answered it. A pass that began in between would
//! see the object as it was before, and do everything again or draw the wrong conclusion. So what the API server
//! returned is kept until the watch has caught up with it.
//!
//! Owns: choosing the newer of the two. Must never: talk to the API server.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::Resource;
use kube_runtime::{
    reflector::{ObjectRef, Store},
    watcher::Event,
};
use tokio::sync::watch;

/// Objects of one kind, by reference.
pub struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    written: Arc<Mutex<HashMap<ObjectRef<K>, Arc<K>>>>,
    tolerated: Arc<Mutex<HashMap<ObjectRef<K>, u64>>>,
    complete: Arc<watch::Sender<bool>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            written: Arc::clone(&self.written),
            tolerated: Arc::clone(&self.tolerated),
            complete: Arc::clone(&self.complete),
        }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + 'static> Cache<K>
where
    ObjectRef<K>: Hash + Eq,
{
    /// A cache over what a watch fills.
    pub fn new(store: Store<K>) -> Self {
        Self {
            store,
            written: Arc::default(),
            tolerated: Arc::default(),
            complete: Arc::new(watch::Sender::new(false)),
        }
    }

    /// The newest that is known of an object.
    pub fn get(&self, key: &ObjectRef<K>) -> Option<Arc<K>> {
        let watched = self.store.get(key);
        let written = self.written().get(key).cloned();
        match (watched, written) {
            (Some(watched), Some(written)) if version(&*written) <= version(&*watched) => Some(watched),
            (watched, None) => watched,
            (_, written) => written,
        }
    }

    /// Everything that the watch has told of, by a condition. For rare questions: it looks at every object.
    pub fn filter(&self, condition: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.store.state_filter(condition)
    }

    /// Keeps what the API server returned for a write.
    pub fn wrote(&self, object: K) -> Arc<K> {
        let object = Arc::new(object);
        self.written().insert(ObjectRef::from_obj(&*object), Arc::clone(&object));
        object
    }

    /// Forgets what the watch has caught up with. Call it for every event, after the store has taken it in.
    pub fn heard(&self, event: &Event<K>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let mut written = self.written();
                let key = ObjectRef::from_obj(object);
                if written.get(&key).is_some_and(|ours| version(&**ours) <= version(object)) {
                    written.remove(&key);
                }
            }
            Event::Delete(object) => {
                let key = ObjectRef::from_obj(object);
                self.written().remove(&key);
                locked(&self.tolerated).remove(&key);
            }
            Event::Init => {}
            // What a complete list does not hold is gone, whatever we wrote before it was made; what we write while it
            // is being made comes as an event afterwards, and costs one more look at worst.
            Event::InitDone => {
                self.written().clear();
                self.complete.send_replace(true);
            }
        }
    }

    /// Waits until the first complete list has arrived. Not the store's own way to wait (kube 5): that wakes only the one
    /// who asked last, and every pass asks.
    pub async fn ready(&self) {
        // The sender lives as long as this cache does: there is no other end to the wait.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// How many objects the watch has told of.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether the watch has told of none.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    /// Remembers an edit by somebody else that is still there after our last write: it sets fields that we do not, and
    /// is no reason to write again.
    pub fn tolerate(&self, key: ObjectRef<K>, edit: u64) {
        locked(&self.tolerated).insert(key, edit);
    }

    /// Whether this edit is one that our last write left standing.
    pub fn tolerates(&self, key: &ObjectRef<K>, edit: u64) -> bool {
        locked(&self.tolerated).get(key) == Some(&edit)
    }

    fn written(&self) -> MutexGuard<'_, HashMap<ObjectRef<K>, Arc<K>>> {
        locked(&self.written)
    }
}

/// A panic elsewhere leaves the map whole: every change to it is one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resource versions of one kind are ordered numbers (KEP-5504).
fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use kube_runtime::reflector::store;

    use super::*;

    fn namespace(version: &str) -> Namespace {
        let mut object = Namespace::default();
        object.metadata.name = Some("a".to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    #[tokio::test]
    async fn everybody_who_waits_for_the_first_list_is_woken() {
        let (reader, mut writer) = store();
        let cache = Cache::<Namespace>::new(reader);
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.ready().await })
            })
            .collect();
        tokio::task::yield_now().await;
        for event in [Event::Init, Event::InitApply(namespace("1")), Event::InitDone] {
            writer.apply_watcher_event(&event);
            cache.heard(&event);
        }
        for waiter in waiting {
            tokio::time::timeout(std::time::Duration::from_secs(5), waiter).await.unwrap().unwrap();
        }
    }

    #[test]
    fn an_own_write_is_seen_before_the_watch_tells_of_it_and_never_after() {
        let (reader, mut writer) = store();
        let cache = Cache::new(reader);
        let key = ObjectRef::new("a");
        let mut tell = |event: Event<Namespace>| {
            writer.apply_watcher_event(&event);
            cache.heard(&event);
        };
        tell(Event::Apply(namespace("1")));
        cache.wrote(namespace("5"));
        assert_eq!(cache.get(&key).unwrap().metadata.resource_version.as_deref(), Some("5"));
        tell(Event::Apply(namespace("4")));
        assert_eq!(
            cache.get(&key).unwrap().metadata.resource_version.as_deref(),
            Some("5"),
            "still older than our write"
        );
        tell(Event::Apply(namespace("6")));
        assert_eq!(cache.get(&key).unwrap().metadata.resource_version.as_deref(), Some("6"));
        cache.wrote(namespace("7"));
        tell(Event::Delete(namespace("8")));
        assert!(cache.get(&key).is_none(), "deleted by somebody else");
    }
}
