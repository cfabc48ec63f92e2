//! The controller of Deployments: its watch, and which rollouts an event about a service concerns.
//!
//! Owns: when a pass over a rollout happens. Must never: decide what a rollout does, or keep anything else waiting: where the
//! definition of Deployments is missing, everything else works.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, future, stream};
use jiff::Timestamp;
use kube::{Api, Client};
use kube_runtime::{
    events::{Recorder, Reporter},
    reflector::{ObjectRef, Store},
    watcher::Event,
};
use tokio::sync::{Notify, watch as signal};
use uuid::Uuid;

use super::{
    frame::{self, Passes, Turn},
    leader::Leadership,
    metrics::{Metrics, controller::DEPLOYMENT},
    watch,
};
use crate::{
    api::{Deployment, TenantContainer},
    chain::{Calm, ChainError, ShowError, Told},
    fleet::{self, Context, PassError, select::Reach},
    ledger::{Ledger, Micros},
    tenant::{cache::Cache, view::NamespaceView},
};

/// How long events about services are gathered before rollouts look at them: each looks at all of its targets.
const GATHER: Duration = Duration::from_millis(100);

/// What the controller stands on.
pub(super) struct Around {
    pub(super) watching: Client,
    pub(super) writing: Client,
    pub(super) tenants: Cache<TenantContainer>,
    pub(super) namespaces: Cache<NamespaceView>,
    pub(super) touched: Arc<Touched>,
    pub(super) pod: String,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cluster: Uuid,
    pub(super) home: String,
    pub(super) tombstones: signal::Sender<u64>,
    pub(super) ledger: Ledger,
    pub(super) leadership: Leadership,
}

/// Services of which something was heard since rollouts looked last.
#[derive(Default)]
pub(super) struct Touched {
    services: Mutex<Heard>,
    news: Notify,
}

#[derive(Default)]
struct Heard {
    services: HashSet<ObjectRef<TenantContainer>>,
    /// A rollout came, went or was changed: whether others may have their targets has to be asked anew.
    everything: bool,
}

impl Touched {
    /// An event about this service, or what it stands on, has arrived.
    pub(super) fn heard(&self, about: &ObjectRef<TenantContainer>) {
        self.locked().services.insert(about.clone());
        self.news.notify_one();
    }

    fn everything(&self) {
        self.locked().everything = true;
        self.news.notify_one();
    }

    async fn gathered(&self) -> Heard {
        self.news.notified().await;
        tokio::time::sleep(GATHER).await;
        std::mem::take(&mut *self.locked())
    }

    fn locked(&self) -> MutexGuard<'_, Heard> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works until it is dropped.
pub(super) async fn run(around: Around) {
    let Around { watching, writing, tenants, namespaces, touched, pod, metrics, .. } = around;
    let Around { cluster, home, tombstones, ledger, leadership, .. } = around;
    let (rollouts, writer) = watch::cache();
    let store = writer.as_reader();
    let main = {
        let (touched, known) = (Arc::clone(&touched), store.clone());
        watch::objects(Api::all(watching), rollouts.clone(), writer, move |event| {
            if changes_reach(event, &known) {
                touched.everything();
            }
        })
    };
    let reporter = Reporter { controller: "berth.dev/deployment".into(), instance: Some(pod) };
    let told = Told::default();
    let doubtful = watch::doubtful(&ledger, told.clone(), rollouts.clone());
    let fleet = Arc::new(Fleet(Context {
        recorder: Recorder::new(writing.clone(), reporter),
        client: writing,
        rollouts,
        tenants,
        namespaces,
        calm: Calm::of_status(),
        present: Calm::of_present(),
        cluster,
        home,
        tombstones,
        ledger,
        told,
        epoch: Box::new(move || leadership.epoch()),
        clock: Box::new(|| Micros(Timestamp::now().as_microsecond())),
    }));
    let triggers = stream::select_all([concerned(Arc::clone(&fleet), touched).boxed(), doubtful.boxed()]);
    frame::run(fleet, metrics, main, store, triggers).await;
}

/// Whether other rollouts may have targets, or lose them, by what has happened to this one.
fn changes_reach(event: &Event<Deployment>, known: &Store<Deployment>) -> bool {
    match event {
        Event::Apply(object) => {
            let before = known.get(&ObjectRef::from_obj(object));
            before.is_none_or(|before| before.metadata.generation != object.metadata.generation)
        }
        Event::Delete(_) | Event::InitDone => true,
        Event::Init | Event::InitApply(_) => false,
    }
}

/// Whenever something was heard of services: the rollouts that select one of them, or gave it what it has.
fn concerned(fleet: Arc<Fleet>, touched: Arc<Touched>) -> impl Stream<Item = ObjectRef<Deployment>> + Send {
    stream::unfold(touched, |touched| async move { Some((touched.gathered().await, touched)) }).flat_map(move |heard| {
        let Context { rollouts, tenants, namespaces, .. } = &fleet.0;
        let labels =
            |name: &str| Some(namespaces.get(&ObjectRef::new(name))?.metadata.labels.clone().unwrap_or_default());
        let services: Vec<_> = heard.services.iter().map(|about| tenants.get(about)).collect();
        let is_concerned = |rollout: &Deployment| {
            let reach = Reach::of(rollout);
            heard.everything
                || services.iter().any(|service| match service {
                    // Nobody knows whose it was.
                    None => true,
                    Some(service) => {
                        let release = service.spec.release.as_ref();
                        release.is_some_and(|release| Some(&release.rollout.uid) == rollout.metadata.uid.as_ref())
                            || reach.as_ref().is_some_and(|reach| reach.selects(service, labels))
                    }
                })
        };
        let found = rollouts.filter(is_concerned);
        stream::iter(found.into_iter().map(|rollout| ObjectRef::from_obj(&*rollout)).collect::<Vec<_>>())
    })
}

struct Fleet(Context);

impl Passes for Fleet {
    type Object = Deployment;
    type Failure = PassError;
    const CONTROLLER: &'static str = DEPLOYMENT;
    /// A rollout writes several targets at once by itself.
    const CONCURRENCY: u16 = 4;

    async fn synced(&self) {
        let Context { rollouts, tenants, namespaces, .. } = &self.0;
        future::join_all([rollouts.ready().boxed(), tenants.ready().boxed(), namespaces.ready().boxed()]).await;
    }

    async fn pass(&self, object: &Deployment) -> Result<Turn, PassError> {
        let fleet::Done { writes, records, look_again } = fleet::pass(&self.0, object).await?;
        Ok(Turn { writes, records, look_again })
    }

    fn reason(failure: &PassError) -> &'static str {
        failure.reason()
    }

    fn look_again(failure: &PassError) -> Option<Duration> {
        failure.look_again()
    }

    fn is_ordinary(failure: &PassError) -> bool {
        matches!(
            failure,
            PassError::Chain(ChainError::NotLeader | ChainError::Show(ShowError::Overtaken(_) | ShowError::Gone(_)))
        )
    }
}
