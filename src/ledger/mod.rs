//! The ledger: what happened to every object, kept for good.

pub mod protocol;
