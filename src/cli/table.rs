//! Printing for people and for programs, with nothing in it that a terminal obeys.

use std::io::{self, Write};

use serde::Serialize;

use super::Failure;
use crate::ledger::{Micros, visible};

/// The widest cell, in characters; only the last column is never cut.
const WIDEST: usize = 48;

/// Text with every control character made visible.
pub(super) fn safe(text: &str) -> String {
    visible(text, usize::MAX)
}

/// Prints `rows` under `head`, in columns.
pub(super) fn print<const N: usize>(
    out: &mut dyn Write,
    head: [&str; N],
    rows: &[[String; N]],
) -> Result<(), io::Error> {
    let mut widths = head.map(|title| title.chars().count());
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| {
            let mut at = 0;
            row.each_ref().map(|cell| {
                at += 1;
                visible(cell, if at == N { usize::MAX } else { WIDEST })
            })
        })
        .collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut line = |cells: &[&str; N]| {
        let text: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", text.join("  ").trim_end())
    };
    line(&head)?;
    rows.iter().try_for_each(|row| line(&row.each_ref().map(String::as_str)))
}

/// Prints `value` as JSON. What JSON lets through and terminals obey (C1 controls, marks that reorder text) is
/// escaped as well; to a JSON reader that is the same text.
pub(super) fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)?;
    for line in text.lines() {
        // All of them are within strings here, and none is beyond U+FFFF: `\uXXXX` is JSON's own escape.
        writeln!(out, "{}", visible(line, usize::MAX))?;
    }
    Ok(())
}

/// A moment, to the microsecond.
pub(super) fn moment(at: Micros) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| format!("{} µs", at.0), |at| format!("{at:.6}"))
}

/// A duration that people can take in: two units at most.
pub(super) fn duration(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    let text = match seconds {
        0 => format!("{}ms", micros / 1000),
        1..60 => format!("{}.{}s", seconds, micros / 100_000 % 10),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let evil = "a\u{1b}[2J\nb\u{9b}31m\u{202e}";
        let mut out = vec![];
        print(&mut out, ["A", "B"], &[[evil.to_owned(), evil.to_owned()]]).unwrap();
        json(&mut out, &serde_json::json!({"text": evil})).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
        let json = text.lines().skip(2).collect::<Vec<_>>().join("\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["text"], evil, "the text is unchanged");
    }

    #[test]
    fn durations_are_readable() {
        let texts = [0, 12_000, 1_250_000, 61_000_000, 3_700_000_000, 90_000_000_000, -2_000_000].map(duration);
        assert_eq!(texts, ["0ms", "12ms", "1.2s", "1m1s", "1h1m", "1d1h", "-2.0s"]);
    }
}
