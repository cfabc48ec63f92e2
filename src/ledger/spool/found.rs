//! Damage that is met while the journal is read for replay: it came after the spool was opened.
//!
//! Owns: what of a segment counts as damage then, and that each damaged place is said and counted once, however often
//! it is read. Must never: write; take for damage what is not durable yet, or what was trimmed meanwhile.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    frame::{self, Carries, Frame, Met},
    scan::{self, Damage, DamageKind, Scanned, Segment},
};

/// What one reading met.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) damages: Vec<Damage>,
    /// The bytes that nobody can read: to be kept aside before their segment may go.
    pub(super) unread: Vec<Unread>,
}

/// Bytes of a segment that are no entry.
#[derive(Debug)]
pub(super) struct Unread {
    /// The first number of the segment, which is its name.
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

impl Found {
    pub(super) fn is_empty(&self) -> bool {
        self.damages.is_empty()
    }

    /// Takes what is damaged in a segment, before which `following` is the next one. Numbers behind `last` are just
    /// being written.
    pub(super) fn in_segment(&mut self, dir: &Path, segment: &Segment, following: Option<u64>, last: u64) {
        let mut scanned = Scanned { damages: vec![], next: segment.first };
        scan::scan_segment(segment, false, &mut scanned, &mut |_, _| Ok(()));
        self.damages.extend(scanned.damages.into_iter().filter(|damage| damage.number <= last));
        let behind = following.unwrap_or(u64::MAX).min(last.saturating_add(1));
        self.missing(dir, following.unwrap_or(segment.first), scanned.next..behind);
        for met in segment.walk() {
            if let Met::Damage { bytes, number, .. } = met
                && number <= last
                && !bytes.is_empty()
            {
                let (offset, bytes) = (bytes.start as u64, segment.bytes[bytes].to_vec());
                self.unread.push(Unread { segment: segment.first, offset, bytes });
            }
        }
    }

    /// Takes that these numbers are gone with their bytes, before the segment `following`.
    pub(super) fn missing(&mut self, dir: &Path, following: u64, numbers: std::ops::Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        let kind = DamageKind::Missing(numbers.end - numbers.start);
        let file = scan::segment_path(dir, following);
        self.damages.push(Damage { file, offset: 0, bytes: 0, number: numbers.start, kind });
    }

    /// Takes a whole frame whose payload is no entry.
    pub(super) fn payload(&mut self, dir: &Path, segment: u64, offset: u64, frame: &Frame<'_>, why: String) {
        let mut bytes = vec![];
        frame::write_frame(&mut bytes, Carries::Entry, frame.number, frame.payload);
        self.damages.push(Damage {
            file: scan::segment_path(dir, segment),
            offset,
            bytes: bytes.len() as u64,
            number: frame.number,
            kind: DamageKind::Payload(why),
        });
        self.unread.push(Unread { segment, offset, bytes });
    }

    /// Without what was trimmed while it was read: the journal begins with the number `first` now.
    pub(super) fn without_trimmed(mut self, first: u64) -> Self {
        self.damages.retain(|damage| match damage.kind {
            DamageKind::Missing(count) => damage.number.saturating_add(count) > first,
            _ => true,
        });
        self
    }
}

/// Everything that is known to be damaged.
#[derive(Debug)]
pub(super) struct Known(Mutex<Vec<Damage>>);

impl Known {
    /// Begins with what opening found.
    pub(super) fn new(damages: Vec<Damage>) -> Self {
        Self(Mutex::new(damages))
    }

    pub(super) fn all(&self) -> Vec<Damage> {
        self.damages().clone()
    }

    /// Says and counts what is new.
    pub(super) fn add(&self, found: &[Damage]) {
        let mut known = self.damages();
        for damage in found {
            if !known.iter().any(|known| is_same_place(known, damage)) {
                tracing::warn!(%damage, "the spool's journal was damaged while it was open; what is whole is replayed");
                known.push(damage.clone());
            }
        }
    }

    fn damages(&self) -> MutexGuard<'_, Vec<Damage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By the first entry that is lost there, for the place itself moves: a segment that is written anew has a jump in its
/// numbers where the bytes were. The numbers of a torn end are given out again, so that one is like no other.
fn is_same_place(one: &Damage, other: &Damage) -> bool {
    let sort = |kind: &DamageKind| match kind {
        DamageKind::Frames(Some(_)) | DamageKind::Missing(_) => 0,
        DamageKind::Header => 1,
        DamageKind::Payload(_) => 2,
        DamageKind::Repeated => 3,
        DamageKind::Tail => 4,
        // How many entries were there, only the numbers that are missing behind it tell.
        DamageKind::Frames(None) => 5,
    };
    let place = |damage: &Damage| (damage.number, sort(&damage.kind));
    !one.is_tail() && place(one) == place(other) && one.file == other.file
}
