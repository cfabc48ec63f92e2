//! The months of the partitioned tables: made ahead at the start, and on demand within bounds.
//!
//! Owns: which months may exist. Must never: make one so far away that a broken clock fills the catalogue.

use std::collections::HashSet;

use jiff::{Timestamp, tz::TimeZone};
use sqlx::PgPool;

use super::{bounds::within, failure::Failure};
use crate::ledger::record::Micros;

/// The month from which on a ledger in files may hold records, however late it is brought: Berth is not older.
const FIRST: Month = Month(2026 * 12);
/// How many months behind this one a record's time may lie in any case.
const BEHIND: i32 = 24;
/// How many months ahead of this one are made at the start, and may be needed.
const AHEAD: i32 = 3;

/// A month, counted from year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Month(i32);

impl Month {
    /// The month of a moment; none outside of the years that a calendar knows.
    pub(super) fn of(at: Micros) -> Option<Self> {
        let date = Timestamp::from_microsecond(at.0).ok()?.to_zoned(TimeZone::UTC).date();
        Some(Self(i32::from(date.year()) * 12 + i32::from(date.month()) - 1))
    }

    fn now() -> Option<Self> {
        Self::of(Micros(Timestamp::now().as_microsecond()))
    }

    fn first_day(self) -> String {
        format!("{:04}-{:02}-01", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }

    /// The first and the last month that a record may lie in, when it is this one.
    fn near(self) -> (Self, Self) {
        (FIRST.min(Self(self.0 - BEHIND)), Self(self.0 + AHEAD))
    }

    /// Whether a record may lie in this month, when it is `now`.
    fn is_near(self, now: Self) -> bool {
        let (first, last) = now.near();
        (first..=last).contains(&self)
    }
}

/// The months that are known to exist.
#[derive(Debug, Default)]
pub(super) struct Months(HashSet<Month>);

impl Months {
    /// Makes this month and those ahead.
    pub(super) async fn ahead(pool: &PgPool) -> Result<Self, Failure> {
        let mut months = Self::default();
        if let Some(now) = Month::now() {
            months.make(pool, now, Month(now.0 + AHEAD)).await?;
        }
        Ok(months)
    }

    /// Whether this month is known to exist.
    pub(super) fn has(&self, month: Month) -> bool {
        self.0.contains(&month)
    }

    /// Forgets what exists: a record found its month gone.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Makes the months from the first to the last, where they are missing.
    pub(super) async fn make(&mut self, pool: &PgPool, first: Month, last: Month) -> Result<(), Failure> {
        let made: Vec<String> = within("making months of the history", async {
            sqlx::query_scalar("SELECT berth.make_partitions($1::text::date, $2::text::date)")
                .bind(first.first_day())
                .bind(last.first_day())
                .fetch_all(pool)
                .await
        })
        .await?;
        for partition in &made {
            tracing::info!(partition, "made a month of the ledger");
        }
        self.0.extend((first.0..=last.0).map(Month));
        Ok(())
    }
}

/// The month of a record with this time; or why it cannot be kept.
pub(super) fn admit(at: Micros) -> Result<Month, String> {
    let Some(now) = Month::now() else {
        return Err("this machine's clock tells no year that a calendar knows".to_owned());
    };
    Month::of(at).filter(|month| month.is_near(now)).ok_or_else(|| {
        let when = Timestamp::from_microsecond(at.0)
            .map_or_else(|_| format!("{} µs since 1970", at.0), |moment| moment.to_string());
        format!(
            "its time, {when}, lies before {}, or more than {AHEAD} months after this one; is a clock wrong?",
            now.near().0.first_day()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month(text: &str) -> Month {
        Month::of(Micros(text.parse::<Timestamp>().unwrap().as_microsecond())).unwrap()
    }

    #[test]
    fn months_are_those_of_utc() {
        assert_eq!(month("2026-11-30T23:59:59.999999Z").first_day(), "2026-11-01");
        assert_eq!(month("2026-12-01T00:00:00Z").first_day(), "2026-12-01");
        assert_eq!(month("1969-12-31T23:59:59Z").first_day(), "1969-12-01");
        assert_eq!(Month::of(Micros(i64::MAX)), None);
    }

    #[test]
    fn only_near_months_are_made() {
        let now = month("2026-11-24T00:00:00Z");
        for (text, near) in [
            ("2026-11-01T00:00:00Z", true),
            ("2027-02-28T00:00:00Z", true),
            ("2027-03-01T00:00:00Z", false),
            ("2024-11-01T00:00:00Z", true),
            ("2024-10-31T23:59:59Z", false),
        ] {
            assert_eq!(month(text).is_near(now), near, "{text}");
        }
    }

    /// A ledger that was in files from the first day on is brought in whole.
    #[test]
    fn no_honest_record_is_too_old() {
        let late = month("2036-11-24T00:00:00Z");
        assert!(month("2026-01-01T00:00:00Z").is_near(late) && !month("2025-12-31T23:59:59Z").is_near(late));
    }
}
