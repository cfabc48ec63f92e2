//! No write leaves this process while it does not lead: the client of the passes asks before every request that writes,
//! and waits for no answer beyond its term.
//!
//! Owns: that one gate. Must never: hold up a read; know what is written.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::Request;
use futures::future;
use kube::client::Body;
use tower::{BoxError, Service};

use super::leader::Leadership;

/// The answer to a write of a process that does not lead, or does not any more.
#[derive(Debug, thiserror::Error)]
#[error("this process is not, or not certainly, the leader: nothing is written")]
pub(super) struct Fenced;

/// A client's service behind the gate.
#[derive(Clone)]
pub(super) struct Fence<S> {
    behind: S,
    leadership: Leadership,
}

impl<S> Fence<S> {
    pub(super) fn new(behind: S, leadership: Leadership) -> Self {
        Self { behind, leadership }
    }
}

impl<S> Service<Request<Body>> for Fence<S>
where
    S: Service<Request<Body>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.behind.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method().is_safe() {
            let answer = self.behind.call(request);
            return Box::pin(async { answer.await.map_err(Into::into) });
        }
        let Some(end) = self.leadership.until() else { return Box::pin(future::err(Fenced.into())) };
        let answer = self.behind.call(request);
        Box::pin(async move {
            match tokio::time::timeout_at(end.into(), answer).await {
                Ok(answer) => answer.map_err(Into::into),
                // What was sent cannot be called back; whoever leads next finds it, or overwrites it.
                Err(_) => Err(Fenced.into()),
            }
        })
    }
}

/// Whether that is why `error` came about.
pub(super) fn is_fenced(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<Fenced>())
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::{Duration, Instant},
    };

    use axum::http::Response;
    use k8s_openapi::api::core::v1::ServiceAccount;
    use kube::{
        Api, Client,
        api::{ObjectMeta, PostParams},
    };

    use super::*;

    /// An API server that knows one answer, or none, and counts what reaches it.
    fn server(answers: bool, leadership: &Leadership) -> (Api<ServiceAccount>, Arc<AtomicU32>) {
        let reached = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&reached);
        let service = tower::service_fn(move |_: Request<Body>| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move {
                if !answers {
                    future::pending::<()>().await;
                }
                let account = ServiceAccount { metadata: named("a"), ..ServiceAccount::default() };
                Ok::<_, Infallible>(Response::new(Body::from(serde_json::to_vec(&account).unwrap())))
            }
        });
        (Api::namespaced(Client::new(Fence::new(service, leadership.clone()), "n"), "n"), reached)
    }

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
    }

    #[tokio::test]
    async fn only_a_leader_writes_and_everybody_reads() {
        let leadership = Leadership::default();
        let (api, reached) = server(true, &leadership);
        let account = ServiceAccount { metadata: named("a"), ..ServiceAccount::default() };
        let error = api.create(&PostParams::default(), &account).await.unwrap_err();
        assert!(is_fenced(&error), "{error}");
        assert_eq!(reached.load(Ordering::Relaxed), 0, "nothing left this process");
        api.get("a").await.unwrap();
        leadership.lead(1, Instant::now() + Duration::from_secs(60));
        api.create(&PostParams::default(), &account).await.unwrap();
        assert_eq!(reached.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn no_answer_is_waited_for_beyond_the_term() {
        let leadership = Leadership::default();
        let (api, _) = server(false, &leadership);
        leadership.lead(1, Instant::now() + Duration::from_millis(50));
        let account = ServiceAccount { metadata: named("a"), ..ServiceAccount::default() };
        let error = api.create(&PostParams::default(), &account).await.unwrap_err();
        assert!(is_fenced(&error), "{error}");
    }
}
