//! End-to-end harness: what the tests against a running cluster share.

pub mod cluster;
pub mod kubectl;
