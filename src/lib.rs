//! Berth.

pub mod ledger;
