//! Reads a journal from its first segment to its last: every whole entry, and every damage by its place.
//!
//! Owns: the folder's layout and the order of segments. Must never: write, hold a lock, or stop at damage;
//! it works on a live spool, on a copy, and on a broken one. One segment is in memory at a time.

use std::{
    fmt, fs, io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    frame::{self, BadHeader, Met, SegmentHeader},
    index::Place,
};
use crate::ledger::error::LedgerError;

/// The journal's folder within the spool.
pub(super) const JOURNAL: &str = "_journal";
/// Where bytes go that are cut off or skipped.
pub(super) const ASIDE: &str = "_aside";
/// The file that a writer locks.
pub(super) const LOCK: &str = "_lock";
/// The file with the volume's id.
pub(super) const VOLUME: &str = "_volume";
/// The file that says how much of the journal the database has.
pub(super) const ACKNOWLEDGED: &str = "_acknowledged";

/// Something in the journal that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The number of the first entry that is missing or unreadable there.
    pub number: u64,
    /// What is wrong.
    pub kind: DamageKind,
}

/// What is wrong at the place of a [`Damage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The segment's header; its frames are read all the same.
    Header,
    /// Bytes that are no whole frame; so many entries were there, if that can be told.
    Frames(Option<u64>),
    /// The unfinished end of the last segment: an append that was never acknowledged, or a damaged end.
    Tail,
    /// Numbers jump: so many entries are gone with their bytes, or a whole segment is.
    Missing(u64),
    /// Numbers go back: a segment that does not belong here.
    Repeated,
    /// A whole frame whose payload is no entry.
    Payload(String),
}

impl Damage {
    /// Whether it is what every crash in the middle of an append leaves behind.
    pub fn is_tail(&self) -> bool {
        self.kind == DamageKind::Tail
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes, number, kind } = self;
        write!(f, "{} at offset {offset}: ", file.display())?;
        match kind {
            DamageKind::Header => f.write_str("the segment's header is damaged"),
            DamageKind::Frames(Some(n)) => {
                write!(f, "{bytes} damaged bytes, in which {n} entries from number {number} on are lost")
            }
            DamageKind::Frames(None) => write!(f, "{bytes} damaged bytes where entry {number} should be"),
            DamageKind::Tail => write!(f, "an unfinished end of {bytes} bytes, where entry {number} would be"),
            DamageKind::Missing(n) => write!(f, "{n} entries from number {number} on are missing"),
            DamageKind::Repeated => write!(f, "its numbers begin again at {number}"),
            DamageKind::Payload(why) => write!(f, "entry {number} is whole, but cannot be read: {why}"),
        }
    }
}

/// The file name of the segment that begins with number `first`.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}.seg")
}

/// The path of that segment.
pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(JOURNAL).join(segment_name(first))
}

/// The first numbers of all segments of the spool `dir`, in order.
pub(super) fn segments(dir: &Path) -> Result<Vec<u64>, LedgerError> {
    let journal = dir.join(JOURNAL);
    let failed = |error| LedgerError::spool(&journal, error);
    let mut found = vec![];
    for file in fs::read_dir(&journal).map_err(failed)? {
        let name = file.map_err(failed)?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(".seg")).and_then(|digits| digits.parse().ok());
        found.extend(first.filter(|&first| name.to_str() == Some(&segment_name(first))));
    }
    found.sort_unstable();
    Ok(found)
}

/// One segment, read.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// From its name; the header's copy must agree.
    pub(super) first: u64,
    /// None where it is damaged.
    pub(super) header: Option<SegmentHeader>,
    pub(super) bytes: Vec<u8>,
}

impl Segment {
    /// Reads a segment. A missing one reads as empty: the reader of a live spool may meet that.
    pub(super) fn read(dir: &Path, first: u64) -> Result<Self, LedgerError> {
        let path = segment_path(dir, first);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
            Err(error) => return Err(LedgerError::spool(path, error)),
        };
        Self::parse(path, first, bytes)
    }

    pub(super) fn parse(path: PathBuf, first: u64, bytes: Vec<u8>) -> Result<Self, LedgerError> {
        let header = match frame::read_segment_header(&bytes) {
            Ok(header) => Some(header).filter(|header| header.first == first),
            Err(BadHeader::Damaged) => None,
            Err(BadHeader::Unknown(format)) => {
                return Err(LedgerError::Configuration {
                    why: format!(
                        "{} has journal format {format}, this release reads {}: use a newer release",
                        path.display(),
                        frame::FORMAT
                    ),
                });
            }
        };
        Ok(Self { path, first, header, bytes })
    }

    /// Walks over its frames. Behind a damaged header, the first whole frame is searched for.
    pub(super) fn walk(&self) -> frame::Walk<'_> {
        frame::walk(&self.bytes, self.header.as_ref().map_or(0, |header| header.length), self.first)
    }

    fn damage(&self, bytes: Range<usize>, number: u64, kind: DamageKind) -> Damage {
        Damage { file: self.path.clone(), offset: bytes.start as u64, bytes: bytes.len() as u64, number, kind }
    }
}

/// Gets every whole frame's place and payload, and may say what is wrong with the payload.
pub(super) type Visit<'a> = dyn FnMut(Place, &[u8]) -> Result<(), String> + 'a;

/// What a scan found besides the entries.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Everything that is not as it was written.
    pub(super) damages: Vec<Damage>,
    /// The number that the next entry gets.
    pub(super) next: u64,
}

/// Scans the journal of the spool `dir`.
pub(super) fn scan(dir: &Path, visit: &mut Visit<'_>) -> Result<Scanned, LedgerError> {
    let firsts = segments(dir)?;
    let mut scanned = Scanned { damages: vec![], next: firsts.first().copied().unwrap_or(1) };
    for &first in &firsts {
        let segment = Segment::read(dir, first)?;
        let last = Some(&first) == firsts.last();
        scan_segment(&segment, last, &mut scanned, visit);
    }
    Ok(scanned)
}

/// Scans one segment that follows what `scanned` has seen.
pub(super) fn scan_segment(segment: &Segment, last: bool, scanned: &mut Scanned, visit: &mut Visit<'_>) {
    let first = segment.first;
    if first > scanned.next {
        let missing = DamageKind::Missing(first - scanned.next);
        scanned.damages.push(segment.damage(0..0, scanned.next, missing));
    } else if first < scanned.next {
        scanned.damages.push(segment.damage(0..0, first, DamageKind::Repeated));
    }
    scanned.next = scanned.next.max(first);
    if segment.header.is_none() && !segment.bytes.is_empty() {
        scanned.damages.push(segment.damage(0..0, first, DamageKind::Header));
    }
    for met in segment.walk() {
        match met {
            Met::Entry { position, number, payload } => {
                let place = Place { segment: first, position: position as u64, number };
                if let Err(why) = visit(place, payload) {
                    let bytes = position..position + frame::FRAME_HEADER + payload.len();
                    scanned.damages.push(segment.damage(bytes, number, DamageKind::Payload(why)));
                }
                scanned.next = scanned.next.max(number.saturating_add(1));
            }
            Met::Thinned { number, count, .. } => scanned.next = scanned.next.max(number.saturating_add(count)),
            Met::Seal => {}
            Met::Damage { bytes, number, missing: None } if last => {
                scanned.damages.push(segment.damage(bytes, number, DamageKind::Tail));
            }
            Met::Damage { bytes, number, missing: Some(missing) } if bytes.is_empty() => {
                scanned.damages.push(segment.damage(bytes, number, DamageKind::Missing(missing)));
            }
            Met::Damage { bytes, number, missing } => {
                // Bytes before the first frame belong to the header, which is named already.
                if !(segment.header.is_none() && bytes.start == 0 && missing == Some(0)) {
                    scanned.damages.push(segment.damage(bytes, number, DamageKind::Frames(missing)));
                }
            }
        }
    }
}

/// The payload of the frame at `place`.
pub(super) fn payload_at(dir: &Path, place: Place) -> Result<Vec<u8>, LedgerError> {
    let path = segment_path(dir, place.segment);
    let file = fs::File::open(&path).map_err(|error| LedgerError::spool(&path, error))?;
    payload_in(&file, &path, place)
}

/// As [`payload_at`], from the open segment.
pub(super) fn payload_in(file: &fs::File, path: &Path, place: Place) -> Result<Vec<u8>, LedgerError> {
    let failed = |error| LedgerError::spool(path, error);
    let mut header = [0; frame::FRAME_HEADER];
    let read = |bytes: &mut [u8]| match file.read_exact_at(bytes, place.position) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true).map_err(failed),
    };
    if !read(&mut header)? {
        return payload_moved(path, place);
    }
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let mut bytes = vec![0; frame::FRAME_HEADER + length.min(frame::MAX_PAYLOAD)];
    if !read(&mut bytes)? {
        return payload_moved(path, place);
    }
    match frame::read_frame(&bytes, 0) {
        Some(frame) if frame.number == place.number => Ok(frame.payload.to_vec()),
        _ => payload_moved(path, place),
    }
}

/// Thinning moves what is behind the samples that go, so a place may be from before.
fn payload_moved(path: &Path, place: Place) -> Result<Vec<u8>, LedgerError> {
    let bytes = fs::read(path).map_err(|error| LedgerError::spool(path, error))?;
    let segment = Segment::parse(path.to_owned(), place.segment, bytes)?;
    let entry = segment.walk().find_map(|met| match met {
        Met::Entry { number, payload, .. } if number == place.number => Some(payload.to_vec()),
        _ => None,
    });
    entry.ok_or_else(|| LedgerError::Damaged {
        place: format!("{} at offset {}", path.display(), place.position),
        why: format!("entry {} was whole there and is no more", place.number),
    })
}
