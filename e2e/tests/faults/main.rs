//! The real operator behind proxies that break on command, before the real API server and PostgreSQL (docs/ledger.md,
//! "The fault matrix", the real level). Pods are on simulated nodes, so that a life takes two seconds. One after another,
//! inside the cluster's network namespace: `e2e/faults/behind`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

mod children;
mod database;
mod disk;
mod grants;
mod killed;
mod leaders;
mod life;
mod random;
mod refused;
mod restored;
mod versions;
mod watches;
