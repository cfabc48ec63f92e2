//! A segment without every second sample of usage.
//!
//! Owns: what of a segment's bytes stays (rule 6). Must never: do I/O; leave out anything but samples, or change
//! the number of what stays.

use super::{
    frame::{self, Carries, Met},
    scan::Segment,
    written::Brief,
};

/// The bytes of a thinned segment.
pub(super) struct Thinned {
    pub(super) bytes: Vec<u8>,
    /// How many samples were left out.
    pub(super) removed: u64,
    /// How many stay.
    pub(super) left: u64,
}

/// Thins a segment of the replica `writer`. Of samples that follow each other, the first, third, … stay; runs of those
/// that do not become one frame with their number. Frames that nobody can read stay as they are.
pub(super) fn thin(segment: &Segment, writer: &str) -> Thinned {
    let writer = segment.header.as_ref().map_or(writer, |header| &header.writer);
    let mut bytes = frame::segment_header(writer, segment.first);
    let (mut removed, mut left) = (0, 0);
    let mut next = segment.first;
    let mut run = Run::default();
    for met in segment.walk() {
        match met {
            Met::Entry { number, payload, .. } => {
                next = number.saturating_add(1);
                let is_usage = Brief::decode(payload).is_ok_and(|brief| brief.is_usage());
                if is_usage && removed < left {
                    removed += 1;
                    run.add(&mut bytes, number, 1);
                } else {
                    left += u64::from(is_usage);
                    run.end(&mut bytes);
                    frame::write_frame(&mut bytes, Carries::Entry, number, payload);
                }
            }
            Met::Thinned { number, count, .. } => {
                next = number.saturating_add(count);
                run.add(&mut bytes, number, count);
            }
            Met::Seal => {
                run.end(&mut bytes);
                frame::write_frame(&mut bytes, Carries::Seal, next, &[]);
            }
            Met::Damage { .. } => {}
        }
    }
    run.end(&mut bytes);
    Thinned { bytes, removed, left }
}

/// Samples in a row that are left out.
#[derive(Default)]
struct Run {
    first: u64,
    count: u64,
}

impl Run {
    fn add(&mut self, bytes: &mut Vec<u8>, number: u64, count: u64) {
        if self.first.checked_add(self.count) != Some(number) {
            self.end(bytes);
        }
        if self.count == 0 {
            self.first = number;
        }
        self.count = self.count.saturating_add(count);
    }

    fn end(&mut self, bytes: &mut Vec<u8>) {
        if self.count > 0 {
            frame::write_thinned(bytes, self.first, self.count);
            self.count = 0;
        }
    }
}
