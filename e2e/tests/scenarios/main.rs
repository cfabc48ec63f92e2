//! What users keep, on a real cluster with real pods: each test is a story of one or a few TenantContainers.
//!
//! They install Berth on the cluster of `.local/env`: `make scenarios`, or, for one of them,
//! `. .local/env; BERTH_E2E=1 cargo test -p berth-e2e --test scenarios -- stop`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

mod children;
mod failures;
mod fleets;
mod installing;
mod life;
mod lifecycle;
mod quiet;
mod references;
mod rivals;
mod rollouts;

use std::sync::OnceLock;

use berth_e2e::{
    cluster,
    install::{self, Home},
    scenario::Scenario,
};

/// A scenario that shares Berth with others; none where there is no cluster.
fn scenario(name: &str) -> Option<Scenario> {
    ready(name).then(|| Scenario::begin(name).unwrap())
}

/// A scenario that has Berth for itself.
fn alone(name: &str) -> Option<Scenario> {
    ready(name).then(|| Scenario::alone(name).unwrap())
}

/// Installs Berth, once.
fn ready(name: &str) -> bool {
    static READY: OnceLock<()> = OnceLock::new();
    let wanted = cluster::wanted(name).unwrap_or_else(|missing| panic!("{missing}"));
    if wanted {
        READY.get_or_init(|| {
            install::images().unwrap();
            install::install(Home::Database, "info").unwrap();
        });
    }
    wanted
}
