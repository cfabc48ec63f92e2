//! How many entries of an import go into one transaction.
//!
//! What is new waits for that transaction before it gets its turn, and has less than half a second in all. So a transaction
//! has as many entries as this database takes in a tenth of a second: the more the fewer syncs and head moves for each.
//!
//! Owns: that number. Must never: read a clock.

use std::time::Duration;

/// What a transaction should take.
const TARGET: Duration = Duration::from_millis(100);
/// The fewest entries; a database that needs longer for so few is slow whatever is done.
const LEAST: usize = 250;
/// The most.
const MOST: usize = 4_000;

/// See the module's comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(1_000)
    }
}

impl Pace {
    /// Entries of the next transaction, at most.
    pub(super) fn entries(self) -> usize {
        self.0
    }

    /// The last transaction had so many entries and took so long. At most twice or half as many are next.
    pub(super) fn learn(&mut self, entries: usize, took: Duration) {
        let fit = (entries as f64 * TARGET.as_secs_f64() / took.as_secs_f64().max(1e-6)) as usize;
        // A short one, at the end of an import, says nothing of a long one unless it was slow.
        if entries == self.0 || fit < self.0 {
            self.0 = fit.clamp(self.0 / 2, self.0 * 2).clamp(LEAST, MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(transactions: impl IntoIterator<Item = (Option<usize>, u64)>) -> usize {
        let mut pace = Pace::default();
        for (entries, millis) in transactions {
            pace.learn(entries.unwrap_or(pace.entries()), Duration::from_millis(millis));
        }
        pace.entries()
    }

    #[test]
    fn a_transaction_takes_a_tenth_of_a_second() {
        assert_eq!(after([]), 1_000);
        assert_eq!(after([(None, 50)]), 2_000);
        assert_eq!(after([(None, 10), (None, 10), (None, 10)]), MOST, "but never more than fit into memory");
        assert_eq!(after([(None, 125)]), 800);
        assert_eq!(after([(None, 5_000), (None, 5_000), (None, 5_000)]), LEAST);
        assert_eq!(after([(Some(10), 1)]), 1_000, "the end of an import proves nothing");
        assert_eq!(after([(Some(500), 200)]), 500, "unless it was slow");
    }
}
