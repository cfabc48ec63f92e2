//! The controller of AccessGrants: its watches, and the clock that no grant outlives.
//!
//! Owns: when a pass over a grant happens. Must never: decide what a grant gives, or keep anything else waiting: where the
//! definition of AccessGrants is missing, everything else works.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Api, Client, Resource};
use kube_runtime::{
    Controller,
    controller::{self, Action},
    events::{Recorder, Reporter},
    reflector::ObjectRef,
};
use tokio::{sync::watch as signal, time::MissedTickBehavior};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    dice, explain, fence,
    leader::Leadership,
    metrics::{Metrics, controller::ACCESS_GRANT as CONTROLLER},
    retry::Retries,
    watch,
};
use crate::{
    access::{self, Bindings, Context, Grants, NamespaceSeen, PassError, names, plan},
    api::AccessGrant,
    chain::{ChainError, ShowError, Told},
    ledger::{Ledger, Namespace},
    tenant::{cache::Cache, view::NamespaceView},
};

/// Passes at once: there are few. Access waits for no ledger; what is told of it does, for a moment.
const CONCURRENCY: u16 = 4;
/// How often the clock on the wall is read. Whatever becomes of timers (a clock that was set, a machine that slept, a pass
/// that failed and waits), an end is noticed so soon: within the 5 s that are promised, with one failed try.
const TICK: Duration = Duration::from_secs(2);
/// How many ticks pass between two looks for what was cut off from its grant: only who went round the policies leaves any.
const TICKS_TO_SWEEP: u32 = 15;

/// What the controller stands on.
pub(super) struct Around {
    pub(super) watching: Client,
    pub(super) writing: Client,
    pub(super) namespaces: Cache<NamespaceView>,
    pub(super) pod: String,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cluster: Uuid,
    pub(super) home: String,
    pub(super) tombstones: signal::Sender<u64>,
    pub(super) ledger: Ledger,
    pub(super) leadership: Leadership,
}

struct Worker {
    context: Context,
    metrics: Arc<Metrics>,
    retries: Retries<ObjectRef<AccessGrant>>,
    namespaces: Cache<NamespaceView>,
}

/// Works until it is dropped.
pub(super) async fn run(around: Around) {
    let Around { watching, writing, namespaces, pod, metrics, cluster, home, tombstones, ledger, leadership } = around;
    let (grants, grants_writer) = watch::cache();
    let (bindings, bindings_writer) = watch::cache();
    let store = grants_writer.as_reader();
    let main = watch::objects(Api::all(watching.clone()), grants.clone(), grants_writer, |_| {});
    let owners = owners(Api::all(watching.clone()), bindings.clone(), bindings_writer);
    let reporter = Reporter { controller: "berth.dev/accessgrant".into(), instance: Some(pod) };
    let seen = namespaces.clone();
    let doubtful = watch::doubtful(&ledger, grants.clone());
    let worker = Arc::new(Worker {
        context: Context {
            recorder: Recorder::new(writing.clone(), reporter),
            client: writing,
            grants,
            bindings,
            namespace: Box::new(move |name| namespace(&seen, name)),
            cluster,
            home,
            tombstones,
            ledger,
            told: Told::default(),
            epoch: Box::new(move || leadership.epoch()),
            clock: Box::new(Timestamp::now),
        },
        metrics,
        retries: Retries::default(),
        namespaces,
    });
    let triggers = stream::select_all([owners.boxed(), ended(Arc::clone(&worker)).boxed(), doubtful.boxed()]);
    let sweeping = Arc::clone(&worker).sweep();
    let counted = Counted(Arc::clone(&worker.metrics));
    let work = Controller::for_shared_stream(main, store)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(triggers)
        .run(Worker::reconcile, Worker::on_error, worker)
        .for_each(|result| {
            if let Err(error) = result {
                debug!(%error, "pass over a grant");
            }
            future::ready(())
        });
    let (work, sweeping) = (pin!(work), pin!(sweeping));
    future::select(work, sweeping).await;
    drop(counted);
}

fn namespace(seen: &Cache<NamespaceView>, name: &str) -> Option<NamespaceSeen> {
    let metadata = &seen.get(&ObjectRef::new(name))?.metadata;
    let labels = metadata.labels.clone().unwrap_or_default();
    let row = Namespace { uid: metadata.uid.as_deref()?.parse().ok()?, name: name.to_owned(), labels };
    Some(NamespaceSeen { row, is_terminating: metadata.deletion_timestamp.is_some() })
}

/// Who does not lead counts nothing: somebody else does.
struct Counted(Arc<Metrics>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.overdue(0);
    }
}

/// Watches RoleBindings of Berth's; yields whose each changed one is.
fn owners(
    api: Api<RoleBinding>,
    cache: Bindings,
    writer: kube_runtime::reflector::store::Writer<RoleBinding>,
) -> impl Stream<Item = ObjectRef<AccessGrant>> + Send {
    let all = cache.clone();
    watch::follow(api, watch::children(), cache, writer).flat_map(move |touched| {
        stream::iter(touched.objects(&all).iter().filter_map(|binding| owner(binding)).collect::<Vec<_>>())
    })
}

fn owner(binding: &RoleBinding) -> Option<ObjectRef<AccessGrant>> {
    let metadata = binding.meta();
    let name = metadata.labels.as_ref()?.get(names::ACCESS_GRANT)?;
    Some(ObjectRef::new(name).within(metadata.namespace.as_deref()?))
}

/// At every tick, the grants that have ended and are not shown to have, by the clock on the wall.
fn ended(worker: Arc<Worker>) -> impl Stream<Item = ObjectRef<AccessGrant>> + Send {
    stream::unfold(ticks(TICK), |mut ticks| async move {
        ticks.tick().await;
        Some(((), ticks))
    })
    .flat_map(move |()| {
        let Context { grants, bindings, clock, .. } = &worker.context;
        let now = clock();
        let past = grants.filter(|grant| grant.spec.expires_at.0 <= now || grant.metadata.deletion_timestamp.is_some());
        worker.metrics.overdue(overdue(&past, bindings, now));
        let open = past.into_iter().filter(|grant| !is_shown_to_have_ended(grants, grant));
        stream::iter(open.map(|grant| ObjectRef::from_obj(&*grant)).collect::<Vec<_>>())
    })
}

fn is_shown_to_have_ended(grants: &Grants, grant: &AccessGrant) -> bool {
    let newest = grants.get(&ObjectRef::from_obj(grant));
    let status = newest.as_ref().and_then(|grant| grant.status.as_ref());
    // Of a grant that is being deleted, nothing but its own absence is the end.
    grant.metadata.deletion_timestamp.is_none()
        && status.is_some_and(|status| status.phase.as_deref() == Some("Expired"))
}

fn overdue(past: &[Arc<AccessGrant>], bindings: &Bindings, now: Timestamp) -> usize {
    if past.is_empty() {
        return 0;
    }
    let all = bindings.filter(|_| true);
    past.iter().filter(|grant| plan::is_overdue(grant, &all, now)).count()
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Whether a pass that ended so is the ordinary course of things: read again, and it is right; or somebody else leads.
fn is_ordinary(error: &PassError) -> bool {
    use PassError::{Chain, NotLeader};
    matches!(error, Chain(ChainError::Show(ShowError::Overtaken(_) | ShowError::Gone(_))) | NotLeader)
        || fence::is_fenced(error)
}

impl Worker {
    /// Until every cache has its first complete list: absence counts only then.
    async fn synced(&self) {
        let Context { grants, bindings, .. } = &self.context;
        future::join_all([grants.ready().boxed(), bindings.ready().boxed(), self.namespaces.ready().boxed()]).await;
    }

    async fn reconcile(object: Arc<AccessGrant>, worker: Arc<Self>) -> Result<Action, PassError> {
        worker.synced().await;
        let began = Instant::now();
        worker.metrics.began(CONTROLLER);
        let outcome = Box::pin(access::pass(&worker.context, &object)).await;
        let result = outcome.as_ref().map(|done| (done.writes, done.records)).map_err(PassError::reason);
        worker.metrics.ended(CONTROLLER, began.elapsed(), result);
        let done = outcome?;
        worker.retries.succeeded(&ObjectRef::from_obj(&*object));
        Ok(Action::requeue(done.look_again))
    }

    fn on_error(object: Arc<AccessGrant>, error: &PassError, worker: Arc<Self>) -> Action {
        let wait = worker.retries.failed(ObjectRef::from_obj(&*object), dice());
        let (uid, namespace, name) =
            (object.metadata.uid.as_deref(), object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
        let (reason, why) = (error.reason(), explain(error));
        if is_ordinary(error) {
            debug!(uid, namespace, name, reason, error = why, ?wait, "a grant again");
        } else {
            warn!(uid, namespace, name, reason, error = why, ?wait, "a pass over a grant failed; trying again");
        }
        Action::requeue(wait)
    }

    /// Looks for what was cut off from its grant.
    async fn sweep(self: Arc<Self>) {
        self.synced().await;
        info!(access_grants = self.context.grants.len(), "grants are read; working");
        let mut ticks = ticks(TICK * TICKS_TO_SWEEP);
        loop {
            ticks.tick().await;
            if let Err(error) = access::sweep(&self.context).await {
                warn!(reason = error.reason(), error = explain(&error), "a RoleBinding that outlived its grant stays");
            }
        }
    }
}
