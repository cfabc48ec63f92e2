//! A cache of one kind that is never older than our own last write.
//!
//! A watch tells of a write some milliseconds after the API server has answered it. A pass that began in between would
//! see the object as it was before, and do everything again or draw the wrong conclusion. So what the API server
//! returned is kept until the watch has caught up with it.
//!
//! Owns: choosing the newer of the two. Must never: talk to the API server.

use std::{
    collections::{HashMap, VecDeque},
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

use crate::broken::{self, Variant};

/// How many deletions are remembered: an answer to a write is late by milliseconds.
const GONE: usize = 256;

/// What we wrote and the watch has not told of yet.
struct Written<K: Resource<DynamicType = ()>> {
    objects: HashMap<ObjectRef<K>, Arc<K>>,
    /// What a write of ours has ended, with the versions that it had last.
    ended: HashMap<ObjectRef<K>, u64>,
    /// The last deletions that the watch told of, with the versions that they made: an answer that comes after its
    /// object's end must not bring it back.
    gone: VecDeque<(ObjectRef<K>, u64)>,
}

impl<K: Resource<DynamicType = ()>> Default for Written<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), ended: HashMap::new(), gone: VecDeque::new() }
    }
}

impl<K: Resource<DynamicType = ()>> Written<K> {
    /// Whether an object of that name is one that we have ended. A later one of the same name has a higher version.
    fn has_ended(&self, key: &ObjectRef<K>, object: &K) -> bool {
        self.ended.get(key).is_some_and(|last| version(object) <= *last)
    }

    /// Whether the watch has told, not long ago, that an object of that name is gone which was not older.
    fn is_gone(&self, key: &ObjectRef<K>, object: &K) -> bool {
        self.gone.iter().any(|(gone, at)| gone == key && *at >= version(object))
    }

    /// Forgets what was written of an object up to that version.
    fn forget(&mut self, key: &ObjectRef<K>, upto: u64) {
        if self.objects.get(key).is_some_and(|ours| version(&**ours) <= upto) {
            self.objects.remove(key);
        }
    }
}

/// Objects of one kind, by reference.
pub struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    written: Arc<Mutex<Written<K>>>,
    left: Arc<Mutex<HashMap<ObjectRef<K>, u64>>>,
    complete: Arc<watch::Sender<bool>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            written: Arc::clone(&self.written),
            left: Arc::clone(&self.left),
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
        Self { store, written: Arc::default(), left: Arc::default(), complete: Arc::new(watch::Sender::new(false)) }
    }

    /// The newest that is known of an object.
    pub fn get(&self, key: &ObjectRef<K>) -> Option<Arc<K>> {
        self.newest_of(&self.written(), key)
    }

    /// Under the lock that [`Self::heard`] takes after the store has its event: what was written is never forgotten between
    /// two looks, of which the first saw the store without it.
    fn newest_of(&self, written: &Written<K>, key: &ObjectRef<K>) -> Option<Arc<K>> {
        let watched = self.store.get(key);
        let newest = match (watched, written.objects.get(key).cloned()) {
            (Some(watched), Some(written)) if version(&*written) <= version(&*watched) => Some(watched),
            (watched @ Some(_), _) if broken::is(Variant::StaleCacheTrusted) => watched,
            (watched, None) => watched,
            (_, written) => written,
        };
        newest.filter(|newest| !written.has_ended(key, newest))
    }

    /// The newest that is known of an object that a pass was given: the watch may be behind our own last write, and what we
    /// wrote is not. None if that write was its end, or if the watch has told of its end since.
    pub fn newest(&self, given: &K) -> Option<Arc<K>> {
        let key = ObjectRef::from_obj(given);
        let written = self.written();
        let is_over = || written.has_ended(&key, given) || written.is_gone(&key, given);
        self.newest_of(&written, &key).or_else(|| (!is_over()).then(|| Arc::new(given.clone())))
    }

    /// Everything that the watch has told of, by a condition. For rare questions: it looks at every object.
    pub fn filter(&self, condition: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.store.state_filter(condition)
    }

    /// What the watch has told of and what was written since.
    pub fn everything(&self) -> Vec<Arc<K>> {
        let written = self.written();
        let mut all = self.store.state();
        if !written.ended.is_empty() {
            all.retain(|watched| !written.has_ended(&ObjectRef::from_obj(&**watched), watched));
        }
        all.extend(
            written.objects.iter().filter(|(key, _)| self.store.get(key).is_none()).map(|(_, ours)| Arc::clone(ours)),
        );
        all
    }

    /// Keeps what the API server returned for a write, unless the watch has told already that the object is gone.
    pub fn wrote(&self, object: K) -> Arc<K> {
        let object = Arc::new(object);
        let key = ObjectRef::from_obj(&*object);
        let mut written = self.written();
        if !written.is_gone(&key, &object) {
            written.objects.insert(key, Arc::clone(&object));
        }
        object
    }

    /// Keeps what the API server returned when we took our finalizer off: the end of the object, if nobody else holds it.
    pub fn released(&self, object: K) {
        let metadata = object.meta();
        let is_held = metadata.finalizers.as_ref().is_some_and(|others| !others.is_empty());
        if metadata.deletion_timestamp.is_none() || is_held {
            self.wrote(object);
            return;
        }
        let key = ObjectRef::from_obj(&object);
        let mut written = self.written();
        written.forget(&key, version(&object));
        // Of what the watch holds no more it has told the end; of the rest it will, and that takes this away.
        if self.store.get(&key).is_some() {
            written.ended.insert(key, version(&object));
        }
    }

    /// Forgets what the watch has caught up with. Call it for every event, after the store has taken it in.
    pub fn heard(&self, event: &Event<K>) {
        match event {
            Event::Apply(object) => self.written().forget(&ObjectRef::from_obj(object), version(object)),
            // The store shows a list only once it is complete.
            Event::InitApply(_) => {}
            Event::Delete(object) => {
                let key = ObjectRef::from_obj(object);
                locked(&self.left).remove(&key);
                let mut written = self.written();
                // Late, it tells nothing of what has the name since.
                written.forget(&key, version(object));
                if written.ended.get(&key).is_some_and(|last| *last <= version(object)) {
                    written.ended.remove(&key);
                }
                if written.gone.len() == GONE {
                    written.gone.pop_front();
                }
                written.gone.push_back((key, version(object)));
            }
            Event::Init if !broken::is(Variant::AbsenceFromIncompleteList) => {}
            // What a complete list does not hold is gone, whatever we wrote before it was made; what we write while it
            // is being made comes as an event afterwards, and costs one more look at worst.
            Event::Init | Event::InitDone => {
                let mut written = self.written();
                written.objects.clear();
                written.ended.clear();
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

    /// Remembers how an object's fields were after our last write of it, by fingerprint.
    pub fn left(&self, key: ObjectRef<K>, fields: u64) {
        locked(&self.left).insert(key, fields);
    }

    /// How an object's fields were after our last write of it, as far as this process knows.
    pub fn as_left(&self, key: &ObjectRef<K>) -> Option<u64> {
        locked(&self.left).get(key).copied()
    }

    fn written(&self) -> MutexGuard<'_, Written<K>> {
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
    use jiff::Timestamp;
    use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::Time};
    use kube_runtime::reflector::store;

    use super::*;

    fn namespace(version: &str) -> Namespace {
        let mut object = Namespace::default();
        object.metadata.name = Some("a".to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    /// A cache, and the watch that fills it.
    fn watched() -> (Cache<Namespace>, impl FnMut(Event<Namespace>)) {
        let (reader, mut writer) = store();
        let cache = Cache::new(reader);
        let filled = cache.clone();
        let tell = move |event| {
            writer.apply_watcher_event(&event);
            filled.heard(&event);
        };
        (cache, tell)
    }

    #[tokio::test]
    async fn everybody_who_waits_for_the_first_list_is_woken() {
        let (cache, tell) = watched();
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.ready().await })
            })
            .collect();
        tokio::task::yield_now().await;
        [Event::Init, Event::InitApply(namespace("1")), Event::InitDone].into_iter().for_each(tell);
        for waiter in waiting {
            tokio::time::timeout(std::time::Duration::from_secs(5), waiter).await.unwrap().unwrap();
        }
    }

    #[test]
    fn a_list_that_has_only_begun_says_of_nothing_that_it_is_absent() {
        let (cache, mut tell) = watched();
        tell(Event::Init);
        assert!(!*cache.complete.borrow(), "an incomplete list lets a pass begin");
        tell(Event::InitDone);
        cache.wrote(namespace("5"));
        tell(Event::Init);
        assert!(cache.get(&ObjectRef::new("a")).is_some(), "an incomplete list says that it is gone");
        tell(Event::InitDone);
        assert!(cache.get(&ObjectRef::new("a")).is_none(), "a complete one may");
    }

    #[test]
    fn an_own_write_is_seen_before_the_watch_tells_of_it_and_never_after() {
        let (cache, mut tell) = watched();
        let key = ObjectRef::new("a");
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
        cache.wrote(namespace("7"));
        assert!(cache.get(&key).is_none(), "an answer that is late brings nothing back");
        cache.wrote(namespace("9"));
        assert!(cache.get(&key).is_some(), "made anew");
    }

    fn deleted(version: &str, finalizer: Option<&str>) -> Namespace {
        let mut object = namespace(version);
        object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        object.metadata.finalizers = finalizer.map(|finalizer| vec![finalizer.to_owned()]);
        object
    }

    #[test]
    fn what_a_write_of_ours_has_ended_is_gone_before_the_watch_tells_of_it() {
        let (cache, mut tell) = watched();
        let key = ObjectRef::new("a");
        let held = deleted("5", Some("ours"));
        tell(Event::Apply(held.clone()));
        assert!(cache.newest(&held).is_some());
        // The API server stores no version of it without finalizers: the answer has the one that it deleted.
        cache.released(deleted("5", None));
        assert_eq!((cache.get(&key), cache.newest(&held), cache.everything()), (None, None, vec![]));
        tell(Event::Apply(held.clone()));
        assert_eq!((cache.get(&key), cache.newest(&held)), (None, None), "heard late");
        tell(Event::Apply(namespace("7")));
        assert!(cache.get(&key).is_some(), "another one of that name");
        tell(Event::Delete(namespace("8")));
        cache.released(deleted("8", None));
        assert!(cache.written().ended.is_empty(), "nothing is left of what the watch has told");
        assert_eq!(cache.newest(&held), None, "a pass that was given it before");
        assert!(cache.newest(&namespace("9")).is_some());
    }

    #[test]
    fn what_is_heard_late_takes_nothing_away_that_was_written_since() {
        let (cache, mut tell) = watched();
        let key = ObjectRef::new("a");
        let shown = || cache.get(&key).and_then(|object| object.metadata.resource_version.clone());
        tell(Event::Apply(namespace("4")));
        cache.wrote(namespace("5"));
        tell(Event::Init);
        tell(Event::InitApply(namespace("5")));
        assert_eq!(shown().as_deref(), Some("5"), "the store has 4 until the list is complete");
        tell(Event::InitDone);
        cache.wrote(namespace("8"));
        tell(Event::Delete(namespace("7")));
        assert_eq!(shown().as_deref(), Some("8"), "made anew, and written, before the end of the old one was heard");
        cache.released(deleted("5", None));
        assert_eq!(shown().as_deref(), Some("8"));
    }

    #[test]
    fn what_somebody_else_holds_is_there_without_our_finalizer() {
        let (cache, mut tell) = watched();
        tell(Event::Apply(deleted("5", Some("ours"))));
        cache.released(deleted("6", Some("theirs")));
        assert_eq!(cache.get(&ObjectRef::new("a")).unwrap().metadata.finalizers, Some(vec!["theirs".to_owned()]));
    }
}
