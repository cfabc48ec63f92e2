//! `TenantQuota`: what each service of an organisation has reserved, who waits for room, and in which order they get it.
//!
//! The truth is the list of reservations in the quota's status, and it moves only by compare-and-set: whoever grants has
//! seen every other grant, however old their caches are (docs/decisions/0007).
//!
//! Owns: the accounting, the decision, and the order of what is asked and written. Must never: know a service's children,
//! or stop anything that runs.

pub mod admit;
pub mod amounts;
pub mod desk;
pub mod record;
pub mod status;
mod tell;

#[cfg(test)]
mod tests;

pub use admit::{Demand, Held, Reservations};
pub use amounts::{Amounts, Dimension};
pub use desk::{Answer, Desk, Ground, QuotaError};
pub use tell::{Pace, tell};
