//! What a controller around passes does the same for every kind: waits for the caches, times and counts each pass, and tries
//! again what failed, later and later.
//!
//! Owns: that frame. Must never: know what a pass does.

use std::{
    error::Error,
    fmt::Debug,
    future::Future,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, future};
use kube::Resource;
use kube_runtime::{
    Controller,
    controller::{self, Action},
    reflector::{ObjectRef, Store},
};
use tracing::{debug, warn};

use super::{dice, explain, fence, metrics::Metrics, retry::Retries, watch::Watched};

/// Passes over the objects of one kind.
pub(super) trait Passes: Send + Sync + 'static {
    /// The kind.
    type Object: Watched;
    /// Why a pass can fail.
    type Failure: Error + Send + 'static;
    /// The label `controller` of its metrics.
    const CONTROLLER: &'static str;
    /// Passes at once.
    const CONCURRENCY: u16;

    /// Until every cache has its first complete list: absence counts only then.
    fn synced(&self) -> impl Future<Output = ()> + Send;
    /// One pass.
    fn pass(&self, object: &Self::Object) -> impl Future<Output = Result<Turn, Self::Failure>> + Send;
    /// One CamelCase word: metric label.
    fn reason(failure: &Self::Failure) -> &'static str;
    /// Whether that is the ordinary course of things: read again, and it is right.
    fn is_ordinary(failure: &Self::Failure) -> bool;
    /// When the object is to be looked at at the latest, whatever failed; none where that has no moment, or another one calls.
    fn look_again(_failure: &Self::Failure) -> Option<Duration> {
        None
    }
}

/// What a pass came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Requests to the API server that wrote.
    pub(super) writes: u32,
    /// Records that were kept.
    pub(super) records: u32,
    /// When to look again.
    pub(super) look_again: Duration,
}

struct Frame<P: Passes>
where
    ObjectRef<P::Object>: Hash + Eq,
{
    passes: Arc<P>,
    metrics: Arc<Metrics>,
    retries: Retries<ObjectRef<P::Object>>,
}

/// Works until it is dropped: a pass for each object that `main` yields, and for each that `triggers` names.
pub(super) async fn run<P: Passes>(
    passes: Arc<P>,
    metrics: Arc<Metrics>,
    main: impl Stream<Item = Arc<P::Object>> + Send + 'static,
    store: Store<P::Object>,
    triggers: impl Stream<Item = ObjectRef<P::Object>> + Send + 'static,
) where
    P::Object: Resource<DynamicType = ()> + Debug,
    ObjectRef<P::Object>: Hash + Eq,
{
    let frame = Arc::new(Frame { passes, metrics, retries: Retries::default() });
    Controller::for_shared_stream(main, store)
        .with_config(controller::Config::default().concurrency(P::CONCURRENCY))
        .reconcile_on(triggers)
        .run(Frame::reconcile, Frame::on_error, frame)
        .for_each(|result| {
            if let Err(error) = result {
                debug!(%error, controller = P::CONTROLLER, "pass");
            }
            future::ready(())
        })
        .await;
}

impl<P: Passes> Frame<P>
where
    ObjectRef<P::Object>: Hash + Eq,
{
    async fn reconcile(object: Arc<P::Object>, frame: Arc<Self>) -> Result<Action, P::Failure> {
        frame.passes.synced().await;
        let began = Instant::now();
        frame.metrics.began(P::CONTROLLER);
        let outcome = Box::pin(frame.passes.pass(&object)).await;
        let result = outcome.as_ref().map(|turn| (turn.writes, turn.records)).map_err(P::reason);
        frame.metrics.ended(P::CONTROLLER, began.elapsed(), result);
        let turn = outcome?;
        frame.retries.succeeded(&ObjectRef::from_obj(&*object));
        Ok(Action::requeue(turn.look_again))
    }

    fn on_error(object: Arc<P::Object>, failure: &P::Failure, frame: Arc<Self>) -> Action {
        let wait = frame.retries.failed(ObjectRef::from_obj(&*object), dice(), P::look_again(failure));
        let metadata = object.meta();
        let (uid, namespace, name) = (metadata.uid.as_deref(), metadata.namespace.as_deref(), metadata.name.as_deref());
        let (controller, reason, why) = (P::CONTROLLER, P::reason(failure), explain(failure));
        if P::is_ordinary(failure) || fence::is_fenced(failure) {
            debug!(controller, uid, namespace, name, reason, error = why, ?wait, "again");
        } else {
            warn!(controller, uid, namespace, name, reason, error = why, ?wait, "a pass failed; trying again");
        }
        Action::requeue(wait)
    }
}
