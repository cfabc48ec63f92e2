//! The controller of AccessGrants: its watches, and the clock that no grant outlives.
//!
//! Owns: when a pass over a grant happens. Must never: decide what a grant gives, or keep anything else waiting: where the
//! definition of AccessGrants is missing, everything else works.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, Stream, StreamExt, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Api, Client, Resource};
use kube_runtime::{
    events::{Recorder, Reporter},
    reflector::ObjectRef,
};
use tokio::{sync::watch as signal, time::MissedTickBehavior};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    explain,
    frame::{self, Passes, Turn},
    leader::Leadership,
    metrics::{Metrics, controller::ACCESS_GRANT},
    watch,
};
use crate::{
    access::{self, Bindings, Context, Grants, NamespaceSeen, PassError, names, plan},
    api::AccessGrant,
    chain::{ChainError, ShowError, Told},
    ledger::{Ledger, Namespace},
    tenant::{cache::Cache, view::NamespaceView},
};

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
    let told = Told::default();
    let doubtful = watch::doubtful(&ledger, told.clone(), grants.clone());
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
            told,
            epoch: Box::new(move || leadership.epoch()),
            clock: Box::new(Timestamp::now),
        },
        metrics,
        namespaces,
    });
    let triggers = stream::select_all([owners.boxed(), ended(Arc::clone(&worker)).boxed(), doubtful.boxed()]);
    let sweeping = Arc::clone(&worker).sweep();
    let counted = Counted(Arc::clone(&worker.metrics));
    let metrics = Arc::clone(&worker.metrics);
    let work = frame::run(worker, metrics, main, store, triggers);
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

impl Passes for Worker {
    type Object = AccessGrant;
    type Failure = PassError;
    const CONTROLLER: &'static str = ACCESS_GRANT;
    /// There are few. Access waits for no ledger; what is told of it does, for a moment.
    const CONCURRENCY: u16 = 4;

    async fn synced(&self) {
        let Context { grants, bindings, .. } = &self.context;
        future::join_all([grants.ready().boxed(), bindings.ready().boxed(), self.namespaces.ready().boxed()]).await;
    }

    async fn pass(&self, object: &AccessGrant) -> Result<Turn, PassError> {
        let access::Done { writes, records, look_again } = access::pass(&self.context, object).await?;
        Ok(Turn { writes, records, look_again })
    }

    fn reason(failure: &PassError) -> &'static str {
        failure.reason()
    }

    fn is_ordinary(failure: &PassError) -> bool {
        matches!(
            failure,
            PassError::Chain(ChainError::NotLeader | ChainError::Show(ShowError::Overtaken(_) | ShowError::Gone(_)))
        )
    }
}

impl Worker {
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
