//! End-to-end harness: what the tests against a running cluster share.

pub mod audit;
pub mod cluster;
pub mod database;
pub mod faults;
pub mod install;
pub mod judges;
pub mod kubectl;
pub mod objects;
pub mod outage;
mod promises;
pub mod quota;
pub mod scale;
pub mod scenario;
