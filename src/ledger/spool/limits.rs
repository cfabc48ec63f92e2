//! How much the spool keeps, and for how long.

use std::time::Duration;

/// The bounds of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A segment ends once it has this many bytes. The last one is read and written anew at every start.
    pub segment_bytes: u64,
    /// How long what the database has is kept beside it, counted from when that was known to this process.
    pub tail_age: Duration,
    /// How many bytes of it are kept at most.
    pub tail_bytes: u64,
    /// Beyond this many bytes, samples of usage give way. Nothing else does.
    pub most_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            tail_age: Duration::from_secs(24 * 60 * 60),
            tail_bytes: 1 << 30,
            most_bytes: 4 << 30,
        }
    }
}
