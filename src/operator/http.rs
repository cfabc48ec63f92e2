//! What the kubelet and Prometheus ask: `/healthz`, `/readyz`, `/metrics`.
//!
//! Owns: those three. Alive means that the process answers; ready, that it leads with full caches or stands by for the
//! one that does. Must never: write, or tell anything about a tenant.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use super::metrics::Metrics;
use crate::ledger::LedgerError;

/// Whether this process is ready, and if not, why.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Not ready from now on, because of this.
    pub fn wait_for(&self, why: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
    }

    /// Ready from now on.
    pub fn ready(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn why_not(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

/// Serves until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .with_state(Shared { readiness, metrics });
    axum::serve(listener, routes).with_graceful_shutdown(stop).await
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    // Whoever installs a release without its migration is to see it; the work goes on all the same.
    let schema = shared.metrics.trouble().filter(|error| matches!(error, LedgerError::SchemaTooOld { .. }));
    match shared.readiness.why_not().or(schema.map(|error| error.to_string())) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn exposition(State(shared): State<Shared>) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let kind = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match shared.metrics.text() {
        Ok(text) => (StatusCode::OK, kind, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
    }
}
