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

impl Limits {
    /// The same on a volume of so many bytes, where they are less: what may go has to go before the volume is full. A
    /// fifth is left for segments that are written anew, for bytes that are kept aside, and for the state files.
    pub(super) fn within(self, volume: u64) -> Self {
        Self { tail_bytes: self.tail_bytes.min(volume / 4), most_bytes: self.most_bytes.min(volume / 5 * 4), ..self }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_stays_within_the_volume_that_it_stands_on() {
        let usual = Limits::default();
        let bytes = |volume: u64| {
            let Limits { tail_bytes, most_bytes, .. } = usual.within(volume);
            (tail_bytes, most_bytes)
        };
        assert_eq!(bytes(2 << 30), (512 << 20, (2 << 30) / 5 * 4), "the chart's usual volume");
        assert_eq!(bytes(4 << 30), (1 << 30, (4 << 30) / 5 * 4));
        for large in [5 << 30, 1 << 40, u64::MAX] {
            assert_eq!(usual.within(large), usual);
        }
        assert_eq!(bytes(0), (0, 0));
        let small = Limits { tail_bytes: 5, most_bytes: 6, ..usual };
        assert_eq!(small.within(2 << 30), small, "never more than asked for");
    }
}
