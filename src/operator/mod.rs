//! The running operator: leadership, watches, the controller, health and metrics, wired together.
//!
//! Owns: the order in which things start and stop. Must never: decide what happens to a service.

mod bury;
mod fence;
mod frame;
mod grants;
pub mod http;
pub mod leader;
pub mod metrics;
mod quotas;
mod retry;
mod rollouts;
mod share;
mod watch;

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, TryFutureExt, future};
use kube::{Api, Client, client::ClientBuilder};
use kube_runtime::{
    Controller,
    controller::{self, Action},
    events::{Recorder, Reporter},
    reflector::ObjectRef,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch as signal},
};
use tower::layer::layer_fn;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::{
    api::TenantContainer,
    chain::{ShowError, Told},
    ledger::{self, Ledger, Micros},
    quota::{Desk, QuotaError},
    tenant::{self, Context, PassError, observe::Caches, rivals::Rivals, view::NamespaceView},
};
use fence::Fence;
use http::Readiness;
use leader::{Candidate, Leadership, LeaseError};
use metrics::{Metrics, controller::TENANT_CONTAINER as CONTROLLER};
use retry::Retries;
use share::Shares;

/// Name of the Lease.
pub const LEASE: &str = "berth-leader";
/// Passes at once. Most of a pass is waiting for the API server, which takes 500 to 1,200 writes a second on two cores.
const CONCURRENCY: u16 = 16;
/// How long the API server has to answer a pass.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the API server has to answer about the Lease: short enough that a connection that died costs one try of
/// several, not the Lease.
const LEASE_ANSWER: Duration = Duration::from_secs(3);
/// How long the ledger has to keep what waits when this process stops.
const CLOSING: Duration = Duration::from_secs(5);
/// How often what nobody tells of is looked at: tombstones that another leader left.
const RESYNC: Duration = Duration::from_secs(600);
/// How long to wait before the ledger is opened again.
const REOPEN: Duration = Duration::from_secs(3);

/// How this replica runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the operator, where its Lease is.
    pub namespace: String,
    /// This replica's pod.
    pub pod: String,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
    /// The database, where one is configured.
    pub database: Option<ledger::postgres::Source>,
    /// The folder of this replica's spool.
    pub spool: std::path::PathBuf,
}

/// Why the operator could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No configuration for a cluster, or a bad one.
    #[error("no cluster to work in: run in a pod, or set KUBECONFIG")]
    Kubeconfig(#[from] kube::config::InferConfigError),
    /// The client could not be made.
    #[error("the cluster's configuration cannot be used")]
    Client(#[source] Box<kube::Error>),
    /// The cluster's identity could not be read.
    #[error("the uid of namespace kube-system, which names this cluster in the ledger, could not be read")]
    Cluster(#[source] Box<kube::Error>),
    /// It has none.
    #[error("namespace kube-system has no uid; this is not a Kubernetes API server")]
    NoClusterUid,
    /// The address is taken or not allowed.
    #[error("health and metrics cannot be served on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The Lease could not be worked with at all.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// Runs until `stop` turns true.
pub async fn run(config: Config, stop: signal::Receiver<bool>) -> Result<(), RunError> {
    let listen = |error| RunError::Listen(config.listen, error);
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let kubernetes = kube::Config::infer().await?;
    // Watches last; everything else is a question with an answer.
    let watching = Client::try_from(kubernetes.clone()).map_err(unusable)?;
    let asking = Client::try_from(impatient(kubernetes.clone(), LEASE_ANSWER)).map_err(unusable)?;
    let cluster = cluster_id(&asking).await?;
    let readiness = Readiness::default();
    let metrics = Arc::new(Metrics::default());
    readiness.wait_for("starting");
    let server = http::serve(listener, readiness.clone(), Arc::clone(&metrics), stopped(stop.clone()));
    let operator = Operator { config: config.clone(), kubernetes, watching, asking, cluster, readiness, metrics, stop };
    future::try_join(server.map_err(listen), operator.run()).await.map(drop)
}

fn unusable(error: kube::Error) -> RunError {
    RunError::Client(Box::new(error))
}

/// For a client whose every request is answered soon, or not at all. It tries nothing again by itself: who asked decides.
fn impatient(mut config: kube::Config, within: Duration) -> kube::Config {
    config.connect_timeout = Some(within);
    config.read_timeout = Some(within);
    config.write_timeout = Some(within);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    config
}

async fn stopped(mut stop: signal::Receiver<bool>) {
    // An error means that nobody can stop us any more but the end of the process.
    if stop.wait_for(|stop| *stop).await.is_err() {
        future::pending::<()>().await;
    }
}

async fn cluster_id(client: &Client) -> Result<Uuid, RunError> {
    let namespaces: Api<NamespaceView> = Api::all(client.clone());
    let system = namespaces.get("kube-system").await.map_err(|error| RunError::Cluster(Box::new(error)))?;
    system.metadata.uid.and_then(|uid| uid.parse().ok()).ok_or(RunError::NoClusterUid)
}

struct Operator {
    config: Config,
    kubernetes: kube::Config,
    watching: Client,
    asking: Client,
    cluster: Uuid,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    stop: signal::Receiver<bool>,
}

impl Operator {
    async fn run(self) -> Result<(), RunError> {
        let Some(ledger) = self.open_ledger().await else { return Ok(()) };
        self.metrics.watch(ledger.clone());
        // Two starts of one pod must not take each other's Lease for their own.
        let identity = format!("{}_{}", self.config.pod, Uuid::new_v4());
        let candidate = Candidate::new(self.asking.clone(), &self.config.namespace, LEASE, identity);
        while !*self.stop.borrow() {
            self.readiness.ready();
            let floor = ledger.largest_epoch(self.cluster).await.unwrap_or_else(|error| {
                warn!(
                    error = error.explain(),
                    "the largest epoch in the ledger is not known; the clock and the Lease decide"
                );
                0
            });
            let epoch = tokio::select! {
                epoch = candidate.acquire(floor) => match epoch {
                    Ok(epoch) => epoch,
                    Err(error) => {
                        warn!(error = explain(&error), "trying for the Lease again");
                        self.readiness.wait_for(error.to_string());
                        tokio::time::sleep(REOPEN).await;
                        continue;
                    }
                },
                () = stopped(self.stop.clone()) => break,
            };
            self.metrics.leads(true);
            self.lead(&candidate, epoch, ledger.clone()).await;
            self.metrics.leads(false);
        }
        // What was made under this term is kept before the next one begins.
        if tokio::time::timeout(CLOSING, ledger.close()).await.is_err() {
            warn!("the ledger did not close in time; what it had not kept yet comes again with the next leader");
        }
        candidate.resign().await;
        info!("stopped");
        Ok(())
    }

    /// Until it works: a configuration or a spool (where it is the only home) that cannot be used says so in `/readyz` and in the
    /// log. A database that is away keeps nobody waiting.
    async fn open_ledger(&self) -> Option<Ledger> {
        let config = ledger::Config::new(
            self.config.database.clone(),
            self.config.spool.clone(),
            format!("{}/{}", self.cluster, self.config.pod),
        );
        loop {
            match Ledger::open(&config).await {
                Ok(ledger) => return Some(ledger),
                Err(error) => {
                    error!(
                        reason = error.reason(),
                        error = error.explain(),
                        "the ledger cannot be opened; trying again"
                    );
                    self.readiness.wait_for(error.to_string());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(REOPEN) => {}
                () = stopped(self.stop.clone()) => return None,
            }
        }
    }

    /// Works until the Lease is lost or the process is told to stop.
    async fn lead(&self, candidate: &Candidate, epoch: u64, ledger: Ledger) {
        self.readiness.wait_for("reading what is in the cluster");
        let over = async {
            tokio::select! {
                () = candidate.hold(epoch) => {}
                () = stopped(self.stop.clone()) => {}
            }
        };
        let writing = match self.writing(candidate.leadership()) {
            Ok(client) => client,
            Err(error) => return error!(error = explain(&error), "no client for the passes; trying again"),
        };
        tokio::select! {
            // Boxed: as one type, everything that it waits for is more than the compiler follows.
            () = Box::pin(self.control(candidate.leadership(), writing, ledger)) => {
                error!("the controller ended by itself; starting it again");
            }
            () = over => {}
        }
    }

    /// The client of the passes: it writes only while this process leads.
    fn writing(&self, leadership: Leadership) -> Result<Client, RunError> {
        let fence = layer_fn(|service| Fence::new(service, leadership.clone()));
        let builder = ClientBuilder::try_from(impatient(self.kubernetes.clone(), ANSWER)).map_err(unusable)?;
        Ok(builder.with_layer(&fence).build())
    }

    async fn control(&self, leadership: Leadership, writing: Client, ledger: Ledger) {
        let client = &self.watching;
        let (tenants, tenants_writer) = watch::cache();
        let (namespaces, namespaces_writer) = watch::cache();
        let (stateful_sets, stateful_sets_writer) = watch::cache();
        let (pods, pods_writer) = watch::cache();
        let (claims, claims_writer) = watch::cache();
        let (services, services_writer) = watch::cache();
        let (service_accounts, service_accounts_writer) = watch::cache();
        let (budgets, budgets_writer) = watch::cache();
        let (quotas, quotas_writer) = watch::cache();
        let (desk, woken) = Desk::new();
        let (bell, rung) = mpsc::unbounded_channel();
        let rivals = Rivals::default();
        let store = tenants_writer.as_reader();
        let tombstones = signal::Sender::new(0);
        let granting = grants::Around {
            watching: client.clone(),
            writing: writing.clone(),
            namespaces: namespaces.clone(),
            pod: self.config.pod.clone(),
            metrics: Arc::clone(&self.metrics),
            cluster: self.cluster,
            home: self.config.namespace.clone(),
            tombstones: tombstones.clone(),
            ledger: ledger.clone(),
            leadership: leadership.clone(),
        };
        let touched = Arc::<rollouts::Touched>::default();
        let rolling = rollouts::Around {
            watching: client.clone(),
            writing: writing.clone(),
            tenants: tenants.clone(),
            namespaces: namespaces.clone(),
            touched: Arc::clone(&touched),
            pod: self.config.pod.clone(),
            metrics: Arc::clone(&self.metrics),
            cluster: self.cluster,
            home: self.config.namespace.clone(),
            tombstones: tombstones.clone(),
            ledger: ledger.clone(),
            leadership: leadership.clone(),
        };
        let caches = Caches { namespaces, stateful_sets, pods, claims, services, service_accounts, budgets };
        let told = Told::default();
        let shares = Arc::new(Shares::default());

        let children = futures::stream::select_all([
            watch::owners(Api::all(client.clone()), caches.stateful_sets.clone(), stateful_sets_writer).boxed(),
            watch::owners(Api::all(client.clone()), caches.pods.clone(), pods_writer).boxed(),
            watch::owners(Api::all(client.clone()), caches.claims.clone(), claims_writer).boxed(),
            watch::owners(Api::all(client.clone()), caches.services.clone(), services_writer).boxed(),
            watch::owners(Api::all(client.clone()), caches.service_accounts.clone(), service_accounts_writer).boxed(),
            watch::owners(Api::all(client.clone()), caches.budgets.clone(), budgets_writer).boxed(),
            watch::residents(Api::all(client.clone()), caches.namespaces.clone(), namespaces_writer, store.clone())
                .inspect({
                    let touched = Arc::clone(&touched);
                    move |about| touched.heard(about)
                })
                .boxed(),
            watch::doubtful(&ledger, told.clone(), tenants.clone()).boxed(),
            quotas::woken(woken).boxed(),
        ]);
        let children = {
            let (shares, bell, quotas, tenants) = (Arc::clone(&shares), bell.clone(), quotas.clone(), tenants.clone());
            children.inspect(move |about| {
                shares.heard(about, Instant::now());
                quotas::orphaned(&bell, &quotas, &tenants, about);
            })
        };
        let main = {
            let (shares, all) = (Arc::clone(&shares), tenants.clone());
            watch::tenants(Api::all(client.clone()), tenants.clone(), tenants_writer, rivals.clone()).inspect(
                move |tenant| {
                    let about = ObjectRef::from_obj(&**tenant);
                    touched.heard(&about);
                    shares.heard(&about, Instant::now());
                    quotas::left(&bell, &all, tenant);
                },
            )
        };

        let reporter =
            Reporter { controller: "berth.dev/tenantcontainer".into(), instance: Some(self.config.pod.clone()) };
        let worker = Arc::new(Worker {
            context: Context {
                recorder: Recorder::new(writing.clone(), reporter),
                client: writing,
                home: self.config.namespace.clone(),
                tombstones,
                cluster: self.cluster,
                tenants,
                caches,
                rivals,
                quotas,
                desk,
                ledger,
                epoch: Box::new(move || leadership.epoch()),
                clock: Box::new(|| Micros(jiff::Timestamp::now().as_microsecond())),
                told,
            },
            metrics: Arc::clone(&self.metrics),
            retries: Retries::default(),
            shares,
        });
        let synced = {
            let (worker, readiness) = (Arc::clone(&worker), self.readiness.clone());
            async move {
                worker.synced().await;
                info!(tenant_containers = worker.context.tenants.len(), "everything is read; working");
                readiness.ready();
                future::pending::<()>().await;
            }
        };
        let burying = bury::run(Arc::clone(&worker));
        let limiting =
            quotas::Around { watching: client.clone(), writer: quotas_writer, rung, worker: Arc::clone(&worker) };
        let work = Controller::for_shared_stream(main, store)
            .with_config(controller::Config::default().concurrency(CONCURRENCY))
            .reconcile_on(children)
            .run(Worker::reconcile, Worker::on_error, worker)
            .for_each(|result| {
                if let Err(error) = result {
                    debug!(%error, "pass");
                }
                future::ready(())
            });
        let (synced, work, burying) = (pin!(synced), pin!(work), pin!(burying));
        let (granting, limiting) = (pin!(grants::run(granting)), pin!(quotas::run(limiting)));
        let rolling = pin!(rollouts::run(rolling));
        let others = future::select(granting, future::select(limiting, rolling));
        future::select(future::select(synced, burying), future::select(work, others)).await;
    }
}

struct Worker {
    context: Context,
    metrics: Arc<Metrics>,
    retries: Retries<ObjectRef<TenantContainer>>,
    shares: Arc<Shares>,
}

impl Worker {
    /// Until every cache has its first complete list: absence counts only then.
    async fn synced(&self) {
        let caches = &self.context.caches;
        let all = future::join_all([
            caches.namespaces.ready().boxed(),
            caches.stateful_sets.ready().boxed(),
            caches.pods.ready().boxed(),
            caches.claims.ready().boxed(),
            caches.services.ready().boxed(),
            caches.service_accounts.ready().boxed(),
            caches.budgets.ready().boxed(),
            self.context.quotas.ready().boxed(),
            self.context.tenants.ready().boxed(),
        ]);
        all.await;
    }

    async fn reconcile(object: Arc<TenantContainer>, worker: Arc<Self>) -> Result<Action, PassError> {
        worker.synced().await;
        let about = ObjectRef::from_obj(&*object);
        let (started, event) = (Instant::now(), worker.shares.began(&about));
        worker.metrics.began(CONTROLLER);
        // Boxed: the controller moves this future about, and a pass is not small.
        let outcome = Box::pin(tenant::pass(&worker.context, &object)).await;
        let took = started.elapsed();
        let result = outcome.as_ref().map(|done| (done.writes, done.records)).map_err(PassError::reason);
        worker.metrics.ended(CONTROLLER, took, result);
        let share = worker.shares.ended(&about, event, Instant::now());
        // Objects that are gone are remembered until they are as many again as those that are there.
        let tenants = &worker.context.tenants;
        if worker.shares.len() > 2 * tenants.len() + 100 {
            worker.shares.retain(|about| tenants.get(about).is_some());
        }
        let done = outcome?;
        worker.retries.succeeded(&about);
        if done.writes + done.records > 0 {
            debug!(
                uid = object.metadata.uid.as_deref(),
                namespace = object.metadata.namespace.as_deref(),
                name = object.metadata.name.as_deref(),
                writes = done.writes,
                records = done.records,
                pass_us = took.as_micros(),
                share_us = share.as_micros(),
                "pass"
            );
        }
        Ok(Action::requeue(done.look_again))
    }

    fn on_error(object: Arc<TenantContainer>, error: &PassError, worker: Arc<Self>) -> Action {
        let about = ObjectRef::from_obj(&*object);
        let wait = worker.retries.failed(about, dice(), error.look_again());
        let (uid, namespace, name) =
            (object.metadata.uid.as_deref(), object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
        let (reason, why) = (error.reason(), explain(error));
        if is_ordinary(error) {
            debug!(uid, namespace, name, reason, error = why, ?wait, "again");
        } else {
            warn!(uid, namespace, name, reason, error = why, ?wait, "a pass failed; trying again");
        }
        Action::requeue(wait)
    }
}

/// Whether a pass that ended so is the ordinary course of things: read again, and it is right; or somebody else leads.
fn is_ordinary(error: &PassError) -> bool {
    matches!(
        error,
        PassError::Show(ShowError::Overtaken(_) | ShowError::Gone(_))
            | PassError::NotLeader
            | PassError::Quota(QuotaError::Overtaken(_) | QuotaError::NotLeader)
    ) || fence::is_fenced(error)
}

/// Uniform in 0..1, from the only source of randomness that is here anyway.
fn dice() -> f64 {
    f64::from(u32::try_from(Uuid::new_v4().as_u128() & 0xffff).unwrap_or(0)) / 65_536.0
}

/// An error with all its causes, in one line.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
