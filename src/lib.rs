//! Berth runs one containerised service per tenant on Kubernetes and keeps a permanent ledger of it in PostgreSQL.
//!
//! The rooms, and the one direction in which they know each other (docs/architecture.md):
//! `api` ← `lifecycle` ← `tenant` → `chain` → `tombstone` → `ledger`; `api` ← `quota` ← `tenant`; `access`, `fleet` → `chain`; `operator` and `cli`
//! know all, nobody knows them.
//! `broken` is for tests of the tests, and empty in a release.

// A test's pass, with a whole world inside, is a future nested deeper than 128 where it is optimised (`make model-deep`).
#![cfg_attr(test, recursion_limit = "256")]

pub mod access;
pub mod api;
pub mod broken;
pub mod chain;
pub mod cli;
pub mod fleet;
pub mod ledger;
pub mod lifecycle;
pub mod operator;
pub mod quota;
#[cfg(test)]
mod tally;
pub mod tenant;
pub mod tombstone;
