//! A new segment after a failed write or sync, without a restart.
//!
//! Owns: what becomes of the segment that failed. Must never: sync it again, or keep of it anything that was not
//! acknowledged: those who waited for that were told that it failed, and its numbers are given out again.

use std::path::Path;

use super::{
    disk::Disk,
    frame::{self, Carries, Met},
    open::{self, Active},
    scan::Segment,
    shelf::Sealed,
};
use crate::ledger::error::LedgerError;

/// What goes on after a failure.
pub(super) struct Recovered {
    /// What had been acknowledged of the segment that failed, in a file of its own; none where that is nothing.
    pub(super) sealed: Option<Sealed>,
    /// A new segment.
    pub(super) active: Active,
}

/// Writes the acknowledged frames of `failed` into a fresh file that replaces it, keeps the bytes behind them aside,
/// and starts a new segment. An error leaves everything to the next try.
pub(super) fn recover(disk: &dyn Disk, dir: &Path, name: &str, failed: &Active) -> Result<Recovered, LedgerError> {
    let (_, next, usage) = failed.sound;
    let mut segment = Segment::read(dir, failed.first)?;
    let mut bytes = frame::segment_header(name, failed.first);
    let empty = bytes.len();
    let mut end = segment.header.as_ref().map_or(0, |header| header.length);
    // By their numbers, and not by the size that was synced: an earlier try may have written the file anew.
    for met in segment.walk() {
        match met {
            Met::Entry { position, number, payload } if number < next => {
                frame::write_frame(&mut bytes, Carries::Entry, number, payload);
                end = position + frame::FRAME_HEADER + payload.len();
            }
            Met::Thinned { position, number, count } if number < next => {
                frame::write_thinned(&mut bytes, number, count);
                end = position + frame::THINNED;
            }
            Met::Entry { .. } | Met::Thinned { .. } | Met::Seal | Met::Damage { .. } => {}
        }
    }
    let behind = end..segment.bytes.len();
    let is_seal = frame::read_frame(&segment.bytes, end)
        .is_some_and(|frame| frame.carries == Carries::Seal && frame.size() == behind.len());
    if !is_seal {
        open::keep_bytes_aside(disk, dir, failed.first, end as u64, &segment.bytes[behind])?;
    }
    segment.bytes.truncate(end);
    open::keep_aside(disk, dir, &segment)?;
    let mut sealed = None;
    if bytes.len() > empty {
        frame::write_frame(&mut bytes, Carries::Seal, next, &[]);
        drop(open::place_segment(disk, dir, failed.first, &bytes, next)?);
        sealed = Some(Sealed::new(failed.first, next.saturating_sub(1), bytes.len() as u64, usage));
    }
    Ok(Recovered { sealed, active: open::start_segment(disk, dir, name, next)? })
}
