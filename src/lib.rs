//! Berth runs one containerised service per tenant on Kubernetes and keeps a permanent ledger of it in PostgreSQL.
//!
//! The rooms, and the one direction in which they know each other (docs/architecture.md):
//! `api` ← `lifecycle` ← `tenant` → `ledger`; `operator` and `cli` know all, nobody knows them.

pub mod cli;
pub mod ledger;
pub mod lifecycle;
