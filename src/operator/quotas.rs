//! The controller of TenantQuotas: when a round over an organisation is held, and who is told of it.
//!
//! Owns: the watch over quotas, and what else brings a round about. Must never: decide who gets what.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, future, stream};
use kube::{Api, Client, ResourceExt, api::ListParams};
use kube_runtime::{
    Controller,
    controller::{self, Action},
    reflector::{ObjectRef, store::Writer},
    watcher::Event,
};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{Worker, dice, explain, fence, metrics::controller::TENANT_QUOTA as CONTROLLER, retry::Retries, watch};
use crate::{
    api::{TenantContainer, TenantQuota},
    chain::{ChainError, Keeper, Said, ShowError, Telling, Told},
    quota::{self, Pace, QuotaError, desk::Place},
    tenant::{Quotas, Tenants},
};

/// Rounds at once, each over another organisation.
const CONCURRENCY: u16 = 4;
/// How often a round is held where somebody waits: what frees room is told by watches, and one that was interrupted tells
/// of nothing. It writes nothing if nothing has changed.
const WAITING: Duration = Duration::from_secs(15);
/// How long to wait before it is asked again whether there is such a kind.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// Who is told to hold a round.
pub(super) type Bell = mpsc::UnboundedSender<ObjectRef<TenantQuota>>;

/// What the controller stands on.
pub(super) struct Around {
    pub(super) watching: Client,
    pub(super) writer: Writer<TenantQuota>,
    pub(super) rung: mpsc::UnboundedReceiver<ObjectRef<TenantQuota>>,
    pub(super) worker: Arc<Worker>,
}

struct Rounds {
    worker: Arc<Worker>,
    retries: Retries<ObjectRef<TenantQuota>>,
    /// What the ledger was told of quotas.
    told: Told,
    pace: Pace,
}

/// Why a round, or what there is to tell of its quota, has to come again.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    /// The round.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// Its record. What is reserved does not wait for that.
    #[error("what has become of the quota is not recorded yet")]
    Chain(#[from] ChainError),
}

/// Works until it is dropped.
pub(super) async fn run(around: Around) {
    let Around { watching, writer, rung, worker } = around;
    let store = writer.as_reader();
    let quotas = worker.context.quotas.clone();
    let is_there = without_definition(watching.clone(), quotas.clone());
    let main = {
        let worker = Arc::clone(&worker);
        watch::objects(Api::all(watching), quotas.clone(), writer, |_| {}).inspect(move |quota| {
            if quotas.get(&ObjectRef::from_obj(&**quota)).is_none() {
                worker.context.desk.dissolve(&quota.name_any());
            }
        })
    };
    let told = Told::default();
    let doubtful = watch::doubtful(&worker.context.ledger, told.clone(), worker.context.quotas.clone());
    let triggers = stream::select_all([received(rung).boxed(), doubtful.boxed()]);
    let rounds = Arc::new(Rounds { worker, retries: Retries::default(), told, pace: Pace::default() });
    let work = Controller::for_shared_stream(main, store)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(triggers)
        .run(Rounds::reconcile, Rounds::on_error, rounds)
        .for_each(|result| {
            if let Err(error) = result {
                debug!(%error, "round");
            }
            future::ready(())
        });
    let (work, is_there) = (pin!(work), pin!(is_there));
    future::join(work, is_there).await;
}

/// Services that were told to wait and may ask again.
pub(super) fn woken(places: mpsc::UnboundedReceiver<Place>) -> impl Stream<Item = ObjectRef<TenantContainer>> + Send {
    received(places).map(|(namespace, name)| ObjectRef::new(&name).within(&namespace))
}

/// A service has changed: if it is gone, what it had is free, and so is its place among those who wait.
pub(super) fn left(bell: &Bell, tenants: &Tenants, tenant: &TenantContainer) {
    let now = tenants.get(&ObjectRef::from_obj(tenant));
    if now.is_none_or(|now| now.uid() != tenant.uid()) {
        // Nobody hears it where nobody leads any more.
        let _ = bell.send(ObjectRef::new(&TenantQuota::name_for(&tenant.spec.tenant_org)));
    }
}

/// A child has changed whose service is gone: a disk that outlived it, say.
pub(super) fn orphaned(bell: &Bell, quotas: &Quotas, tenants: &Tenants, about: &ObjectRef<TenantContainer>) {
    if tenants.get(about).is_some() {
        return;
    }
    let holds = |quota: &TenantQuota| {
        let reservations = quota.status.iter().flat_map(|status| &status.reservations);
        reservations.into_iter().any(|one| one.name == about.name && Some(&one.namespace) == about.namespace.as_ref())
    };
    for quota in quotas.filter(holds) {
        let _ = bell.send(ObjectRef::from_obj(&*quota));
    }
}

fn received<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

/// Passes wait until the quotas are read. Where the kind is not defined there are none to wait for.
async fn without_definition(client: Client, quotas: Quotas) {
    let all: Api<TenantQuota> = Api::all(client);
    loop {
        match all.list(&ListParams::default().limit(1)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                warn!("TenantQuota is not defined in this cluster: no organisation is limited");
                return quotas.heard(&Event::InitDone);
            }
            Ok(_) => return,
            // The watch says so as well, and goes on trying.
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

impl Rounds {
    async fn reconcile(object: Arc<TenantQuota>, rounds: Arc<Self>) -> Result<Action, RoundError> {
        let worker = &rounds.worker;
        // Absence counts only after a complete list, and who is older than whom as well.
        worker.synced().await;
        let began = Instant::now();
        worker.metrics.began(CONTROLLER);
        let outcome = Box::pin(rounds.round(&object)).await;
        let result = outcome.as_ref().map(|said| (said.writes, said.records)).map_err(reason);
        worker.metrics.ended(CONTROLLER, began.elapsed(), result);
        outcome?;
        let about = ObjectRef::from_obj(&*object);
        rounds.retries.succeeded(&about);
        let newest = worker.context.quotas.get(&about);
        let waiting = newest.and_then(|quota| Some(quota.status.as_ref()?.waiting)).unwrap_or(0);
        let now = (worker.context.clock)();
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let told = [rounds.pace.present.left(uid, now), rounds.pace.waiting.left(uid, now)];
        let told = told.into_iter().flatten().map(|left| Duration::from_micros(left.unsigned_abs() + 1_000));
        let round = if waiting > 0 { WAITING } else { super::RESYNC };
        Ok(Action::requeue(told.fold(round, Duration::min)))
    }

    /// A round, and after it what there is to tell.
    async fn round(&self, object: &TenantQuota) -> Result<Said, RoundError> {
        let context = &self.worker.context;
        let writes = context.desk.round(context, &object.spec.tenant_org).await?;
        if writes > 0 {
            info!(quota = object.name_any(), "a round was held: reservations, or who waits, have changed");
        }
        let Some(newest) = context.quotas.get(&ObjectRef::from_obj(object)) else {
            return Ok(Said { writes, ..Said::default() });
        };
        let telling = Telling {
            keeper: Keeper { told: &self.told, ..context.keeper() },
            cluster: context.cluster,
            epoch: &context.epoch,
            now: (context.clock)(),
        };
        let wrote = |quota| context.quotas.wrote(quota);
        let released = |quota| context.quotas.released(quota);
        let said = quota::tell(telling, newest, &self.pace, &wrote, &released).await?;
        Ok(Said { writes: said.writes + writes, ..said })
    }

    fn on_error(object: Arc<TenantQuota>, error: &RoundError, rounds: Arc<Self>) -> Action {
        let wait = rounds.retries.failed(ObjectRef::from_obj(&*object), dice(), None);
        let (quota, reason, why) = (object.name_any(), reason(error), explain(error));
        let is_ordinary = matches!(
            error,
            RoundError::Quota(QuotaError::Overtaken(_) | QuotaError::NotLeader)
                | RoundError::Chain(
                    ChainError::NotLeader | ChainError::Show(ShowError::Overtaken(_) | ShowError::Gone(_))
                )
        );
        if is_ordinary || fence::is_fenced(error) {
            debug!(quota, reason, error = why, ?wait, "a round again");
        } else {
            warn!(quota, reason, error = why, ?wait, "a round failed; trying again");
        }
        Action::requeue(wait)
    }
}

/// One CamelCase word: metric label.
const fn reason(error: &RoundError) -> &'static str {
    match error {
        RoundError::Quota(QuotaError::Overtaken(_)) => "Overtaken",
        RoundError::Quota(QuotaError::NotLeader) => "NotLeader",
        RoundError::Quota(QuotaError::Api { .. }) => "QuotaNotAsked",
        RoundError::Chain(error) => error.reason(),
    }
}
