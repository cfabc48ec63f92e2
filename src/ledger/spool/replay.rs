//! Reads the journal behind a number, for replay: in order, piece by piece, while it is written.
//!
//! Owns: where the last piece ended, so that the next begins there. Must never: hand out what is not durable; skip
//! a record. A cursor is only believed where the very frame that is expected stands: thinning moves frames.
//!
//! A snapshot is left out where the journal holds a later one of the same object, made further along its chain: the tables of
//! the present would be overwritten by that before long, and writing them is what a replay costs most.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{
    found::Found,
    frame::{self, Carries, Frame, Met},
    index::ChainId,
    progress::Progress,
    scan::{self, Segment},
    written::{Kept, Written},
};
use crate::ledger::{entry::Entry, error::LedgerError, snapshot::Snapshot};

/// A piece ends once it has this many bytes.
const PIECE: usize = 8 << 20;
/// How many bytes are read at once, where no frame is longer.
const CHUNK: usize = 256 << 10;
/// The longest frame.
const LONGEST: usize = frame::FRAME_HEADER + frame::MAX_PAYLOAD;

/// Durable entries in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// What there is to replay.
    pub entries: Vec<Entry>,
    /// Up to which number was looked. Marks, thinned samples and damage are passed over.
    pub up_to: u64,
}

/// Where the next piece begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    segment: u64,
    /// 0 where the segment's header is not read yet.
    position: u64,
    next: u64,
}

/// Where an object's latest snapshot stands in the journal, and at which sequence of its chain it was made.
pub(super) type Newest<'a> = &'a dyn Fn(ChainId) -> Option<(u64, u64)>;

/// At most `most` entries and a few MiB of what the journal holds behind `number`, and the damage on the way.
pub(super) fn stretch(
    dir: &Path,
    cursor: &mut Option<Cursor>,
    number: u64,
    Progress { first, last, .. }: Progress,
    most: usize,
    newest: Newest<'_>,
) -> Result<(Stretch, Found), LedgerError> {
    let next = number.saturating_add(1);
    let found = Found::default();
    let mut reading = Reading { dir, entries: vec![], bytes: 0, found, most: most.max(1), first, last, next, newest };
    let mut at = cursor.take().filter(|cursor| cursor.next == next);
    while reading.goes_on() {
        let here = match at.take() {
            Some(here) => here,
            None => match reading.locate()? {
                Some(here) => here,
                None => break,
            },
        };
        at = match reading.quickly(here)? {
            Some(there) => Some(there),
            None => {
                let there = reading.carefully(here.segment)?;
                if !reading.found.is_empty() && reading.next > next {
                    // So that the damaged bytes of a whole journal are never in memory together.
                    at = there;
                    break;
                }
                there
            }
        };
    }
    *cursor = at;
    let stretch = Stretch { entries: reading.entries, up_to: reading.next.saturating_sub(1).max(number) };
    Ok((stretch, reading.found))
}

struct Reading<'a> {
    dir: &'a Path,
    entries: Vec<Entry>,
    bytes: usize,
    found: Found,
    most: usize,
    first: u64,
    last: u64,
    next: u64,
    newest: Newest<'a>,
}

impl Reading<'_> {
    fn goes_on(&self) -> bool {
        self.next <= self.last && self.entries.len() < self.most && self.bytes < PIECE
    }

    /// The segment that holds the next number. Where everything up to a segment is gone, that segment is next.
    fn locate(&mut self) -> Result<Option<Cursor>, LedgerError> {
        let firsts = scan::segments(self.dir)?;
        let at = firsts.partition_point(|&first| first <= self.next);
        let Some(&segment) = firsts.get(at.saturating_sub(1)) else {
            self.next = self.last.saturating_add(1);
            self.found.missing(self.dir, self.first, self.first..self.next);
            return Ok(None);
        };
        if at == 0 {
            self.found.missing(self.dir, segment, self.first..segment);
        }
        self.next = self.next.max(segment);
        Ok(Some(Cursor { segment, position: 0, next: self.next }))
    }

    /// Takes frames from `here` as long as each is whole and the very next one. None where the first is not.
    fn quickly(&mut self, here: Cursor) -> Result<Option<Cursor>, LedgerError> {
        let path = scan::segment_path(self.dir, here.segment);
        let file = match File::open(&path) {
            Ok(file) => file,
            // Trimmed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerError::spool(path, error)),
        };
        let read = |most| read_at(&file, here.position, most).map_err(|error| LedgerError::spool(&path, error));
        let bytes = read(CHUNK)?;
        match self.take_from(&bytes, here) {
            // Perhaps it is a long one.
            None if bytes.len() == CHUNK => Ok(self.take_from(&read(LONGEST)?, here)),
            there => Ok(there),
        }
    }

    /// As [`Self::quickly`], from the bytes that stand there.
    fn take_from(&mut self, bytes: &[u8], here: Cursor) -> Option<Cursor> {
        let mut position = 0;
        // The number at `position`, which is behind `next` at the beginning of a segment.
        let mut number = here.next;
        if here.position == 0 {
            let header = frame::read_segment_header(bytes).ok().filter(|header| header.first == here.segment)?;
            (position, number) = (header.length, header.first);
        }
        let start = position;
        while self.goes_on()
            && let Some(frame) = frame::read_frame(bytes, position).filter(|frame| frame.number == number)
        {
            if frame.carries == Carries::Seal {
                return (number == self.next).then_some(Cursor { segment: number, position: 0, next: number });
            }
            let offset = here.position + position as u64;
            position += frame.size();
            number = number.saturating_add(frame.numbers().unwrap_or(1));
            if number > self.next {
                self.take(here.segment, offset, &frame, number);
            }
        }
        let moved = position > start || !self.goes_on();
        moved.then_some(Cursor { segment: here.segment, position: here.position + position as u64, next: number })
    }

    /// Reads the whole segment and takes what is whole behind damage too. What is not there, is passed over, and said.
    fn carefully(&mut self, segment: u64) -> Result<Option<Cursor>, LedgerError> {
        let segment = Segment::read(self.dir, segment)?;
        let following = scan::segments(self.dir)?.into_iter().find(|&first| first > segment.first);
        self.found.in_segment(self.dir, &segment, following, self.last);
        for met in segment.walk() {
            let (position, carries, number, payload, size, behind) = match met {
                Met::Entry { position, number, payload } => {
                    let size = frame::FRAME_HEADER + payload.len();
                    (position, Carries::Entry, number, payload, size, number.saturating_add(1))
                }
                Met::Thinned { position, number, count } => {
                    (position, Carries::Thinned, number, &[][..], frame::THINNED, number.saturating_add(count))
                }
                Met::Seal | Met::Damage { .. } => continue,
            };
            if behind <= self.next || number > self.last {
                continue;
            }
            self.take(segment.first, position as u64, &Frame { carries, number, payload }, behind);
            if !self.goes_on() {
                let position = (position + size) as u64;
                return Ok(Some(Cursor { segment: segment.first, position, next: self.next }));
            }
        }
        if self.next <= self.last {
            self.next = self.next.max(following.unwrap_or(self.last.saturating_add(1)));
        }
        Ok(None)
    }

    /// Takes a frame that stands at `offset`; the number behind it is `next`.
    fn take(&mut self, segment: u64, offset: u64, frame: &Frame<'_>, next: u64) {
        self.next = next;
        self.bytes += frame.size();
        if frame.carries != Carries::Entry {
            return;
        }
        match Written::decode(frame.payload) {
            Ok(Kept::Entry(entry)) => self.entries.extend(self.without_outdated(entry, frame.number)),
            Ok(Kept::Mark(_)) => {}
            Err(error) => self.found.payload(self.dir, segment, offset, frame, error.to_string()),
        }
    }

    /// Without a snapshot that the journal's later one overwrites.
    fn without_outdated(&self, entry: Entry, number: u64) -> Option<Entry> {
        let outdated = |snapshot: &Snapshot| {
            (self.newest)((snapshot.target.cluster, snapshot.target.uid))
                .is_some_and(|(newest, sequence)| newest > number && sequence > snapshot.head.sequence)
        };
        match entry {
            Entry::Chained { record, snapshot } if outdated(&snapshot) => {
                Some(Entry::Carried { record, target: snapshot.target })
            }
            Entry::Present(snapshot) if outdated(&snapshot) => None,
            entry => Some(entry),
        }
    }
}

fn read_at(file: &File, position: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut filled = 0;
    while filled < most {
        match file.read_at(&mut bytes[filled..], position + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{Sample, record};

    fn whole(last: u64) -> Progress {
        Progress { first: 1, acknowledged: 0, last }
    }

    #[test]
    fn a_cursor_that_thinning_has_moved_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(scan::JOURNAL)).unwrap();
        let mut sample = Sample::new(1);
        let mut bytes = frame::segment_header("berth-0", 1);
        let (mut positions, mut told) = (vec![], vec![]);
        for number in 1..=8 {
            let entry = sample.step();
            positions.push(bytes.len() as u64);
            let payload = Written::encode(Kept::Entry(entry.clone())).unwrap();
            frame::write_frame(&mut bytes, Carries::Entry, number, &payload);
            told.push(record(&entry).hash());
        }
        std::fs::write(scan::segment_path(dir.path(), 1), bytes).unwrap();
        for position in positions.iter().flat_map(|&position| [position, position + 1]) {
            let mut cursor = Some(Cursor { segment: 1, position, next: 3 });
            let (stretch, found) = stretch(dir.path(), &mut cursor, 2, whole(8), 4, &|_| None).unwrap();
            assert!(found.is_empty(), "{found:?}");
            let hashes: Vec<_> = stretch.entries.iter().map(|entry| record(entry).hash()).collect();
            assert_eq!((hashes, stretch.up_to), (told[2..6].to_vec(), 6));
            assert_eq!(cursor, Some(Cursor { segment: 1, position: positions[6], next: 7 }));
        }
    }

    #[test]
    fn a_snapshot_that_a_later_one_overwrites_is_left_out_and_its_record_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(scan::JOURNAL)).unwrap();
        let mut sample = Sample::new(1);
        let mut bytes = frame::segment_header("berth-0", 1);
        let mut told = vec![];
        for number in 1..=4 {
            let entry = sample.step();
            let payload = Written::encode(Kept::Entry(entry.clone())).unwrap();
            frame::write_frame(&mut bytes, Carries::Entry, number, &payload);
            told.push(record(&entry).clone());
        }
        std::fs::write(scan::segment_path(dir.path(), 1), bytes).unwrap();
        let read = |newest: Newest<'_>| stretch(dir.path(), &mut None, 0, whole(4), 10, newest).unwrap().0.entries;
        let with_snapshot = |entries: &[Entry]| -> Vec<bool> {
            entries.iter().map(|entry| matches!(entry, Entry::Chained { .. })).collect()
        };
        let latest = read(&|_| Some((4, told[3].envelope().seq)));
        assert_eq!(latest.iter().map(record).cloned().collect::<Vec<_>>(), told, "every record, with its details");
        assert_eq!(with_snapshot(&latest), [false, false, false, true]);
        // Two leaders made a record on the same head: which of them stands is not known here.
        let rival = read(&|_| Some((9, told[2].envelope().seq)));
        assert_eq!(with_snapshot(&rival), [false, false, true, true]);
    }
}
