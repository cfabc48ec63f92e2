//! What the API server accepts, refuses and stamps: the schema with its CEL rules, and the chart with its policies.
//!
//! They write to the cluster of `.local/env`: `. .local/env; BERTH_E2E=1 cargo test -p berth-e2e --test schema`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

mod chart;
mod grants;
mod ground;
mod manifests;
mod policies;
mod quotas;
mod rollouts;
