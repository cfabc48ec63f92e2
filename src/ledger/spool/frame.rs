//! A segment's bytes: its header, its frames, and how whole frames are found again behind damage.
//!
//! Owns: the byte format (docs/ledger.md, "The journal, byte by byte"). Must never: do I/O or know what a
//! payload means; it must not panic on any bytes whatever.
//!
//! All integers are little-endian. A frame is found by four bytes of which two never occur in UTF-8, so no
//! payload can look like one.

use std::ops::Range;

use crc::{CRC_32_ISCSI, Crc, Table};

use crate::broken::{self, Variant};

/// CRC-32C (Castagnoli), as iSCSI and ext4 use it.
const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// The first bytes of a segment.
pub(super) const SEGMENT_MAGIC: &[u8; 8] = b"BERTHSPL";
/// The version of this format.
pub(super) const FORMAT: u16 = 1;
/// The first bytes of a frame. 0xFE and 0xFF occur in no UTF-8 text.
pub(super) const FRAME_MAGIC: &[u8; 4] = b"\xffBR\xfe";
/// Bytes of a frame before its payload.
pub(super) const FRAME_HEADER: usize = 24;
/// Bytes of a whole frame that stands for thinned samples.
pub(super) const THINNED: usize = FRAME_HEADER + 8;
/// The longest payload. Kubernetes refuses objects above 1.5 MiB, of which a payload carries the spec once.
pub(super) const MAX_PAYLOAD: usize = 8 << 20;
/// The longest writer name, in bytes.
pub(super) const MAX_WRITER: usize = 253;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// One entry of the ledger.
    Entry = 1,
    /// Nothing: the segment was ended on purpose, and nothing follows.
    Seal = 2,
    /// How many usage samples, in a row, stood here and were thinned away (rule 6): eight bytes.
    Thinned = 3,
}

/// A whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) carries: Carries,
    /// The entry's place in the journal, from 1; a seal has the number that the next entry will get.
    pub(super) number: u64,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the whole frame.
    pub(super) const fn size(&self) -> usize {
        FRAME_HEADER + self.payload.len()
    }

    /// How many numbers it stands for. None where its payload contradicts what it carries.
    pub(super) fn numbers(&self) -> Option<u64> {
        match self.carries {
            Carries::Entry => Some(1),
            Carries::Seal => Some(0),
            Carries::Thinned => {
                let count = u64::from_le_bytes(self.payload.try_into().ok()?);
                // The number behind it has to exist.
                (count > 0 && self.number.checked_add(count).is_some()).then_some(count)
            }
        }
    }
}

/// The header of a segment that has to be written.
pub(super) fn segment_header(writer: &str, first: u64) -> Vec<u8> {
    let name = &writer.as_bytes()[..writer.len().min(MAX_WRITER)];
    let length = 22 + name.len() + 4;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(SEGMENT_MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(length as u16).to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(name);
    let crc = CRC32C.checksum(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) writer: String,
    pub(super) first: u64,
    pub(super) length: usize,
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Not the bytes of a header.
    Damaged,
    /// The header of a format that this release does not know.
    Unknown(u16),
}

/// Reads a segment's header.
pub(super) fn read_segment_header(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
    let read = || {
        let length = usize::from(u16::from_le_bytes(array(bytes, 10)?));
        let crc = u32::from_le_bytes(array(bytes, length.checked_sub(4)?)?);
        let covered = bytes.get(..length - 4)?;
        if bytes.get(..8)? != SEGMENT_MAGIC || CRC32C.checksum(covered) != crc {
            return None;
        }
        let format = u16::from_le_bytes(array(bytes, 8)?);
        let first = u64::from_le_bytes(array(bytes, 12)?);
        let name = usize::from(u16::from_le_bytes(array(bytes, 20)?));
        let writer = String::from_utf8(covered.get(22..22 + name)?.to_vec()).ok()?;
        Some((format, SegmentHeader { writer, first, length }))
    };
    match read() {
        Some((FORMAT, header)) => Ok(header),
        Some((format, _)) => Err(BadHeader::Unknown(format)),
        None => Err(BadHeader::Damaged),
    }
}

/// Appends a frame to `into`. The caller has seen to it that the payload is at most [`MAX_PAYLOAD`].
pub(super) fn write_frame(into: &mut Vec<u8>, carries: Carries, number: u64, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let start = into.len();
    into.extend_from_slice(FRAME_MAGIC);
    into.extend_from_slice(&[carries as u8, 0, 0, 0]);
    into.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    into.extend_from_slice(&number.to_le_bytes());
    let mut digest = CRC32C.digest();
    digest.update(&into[start..]);
    digest.update(payload);
    into.extend_from_slice(&digest.finalize().to_le_bytes());
    into.extend_from_slice(payload);
}

/// Appends the frame that stands for `count` samples from `number` on.
pub(super) fn write_thinned(into: &mut Vec<u8>, number: u64, count: u64) {
    write_frame(into, Carries::Thinned, number, &count.to_le_bytes());
}

/// The whole frame at `position`, if there is one.
pub(super) fn read_frame(bytes: &[u8], position: usize) -> Option<Frame<'_>> {
    read_frame_numbered(bytes, position, 0..=u64::MAX)
}

/// As [`read_frame`], refusing other numbers before the checksum is computed.
fn read_frame_numbered(bytes: &[u8], position: usize, numbers: std::ops::RangeInclusive<u64>) -> Option<Frame<'_>> {
    let header = bytes.get(position..position.checked_add(FRAME_HEADER)?)?;
    if &header[..4] != FRAME_MAGIC || header[5..8] != [0, 0, 0] {
        return None;
    }
    let carries = match header[4] {
        1 => Carries::Entry,
        2 => Carries::Seal,
        3 => Carries::Thinned,
        _ => return None,
    };
    let length = u32::from_le_bytes(array(header, 8)?) as usize;
    let number = u64::from_le_bytes(array(header, 12)?);
    if length > MAX_PAYLOAD || !numbers.contains(&number) {
        return None;
    }
    let start = position + FRAME_HEADER;
    let payload = bytes.get(start..start.checked_add(length)?)?;
    let mut digest = CRC32C.digest();
    digest.update(&header[..20]);
    digest.update(payload);
    let frame = Frame { carries, number, payload };
    let fits =
        digest.finalize() == u32::from_le_bytes(array(header, 20)?) || broken::is(Variant::TornRecordTakenAsWhole);
    (fits && frame.numbers().is_some()).then_some(frame)
}

/// What a walk over a segment's bytes meets, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Met<'a> {
    /// A whole entry.
    Entry {
        /// Where its frame begins.
        position: usize,
        /// Its place in the journal.
        number: u64,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// Samples stood here, and were thinned away.
    Thinned {
        /// Where the frame begins that says so.
        position: usize,
        /// The number of the first.
        number: u64,
        /// How many.
        count: u64,
    },
    /// The end on purpose.
    Seal,
    /// Bytes that are no whole frame.
    Damage {
        /// Where they are; empty if whole frames stand on both sides of missing ones.
        bytes: Range<usize>,
        /// The number that the first missing entry had.
        number: u64,
        /// How many numbers are missing here; unknown at the end of a segment.
        missing: Option<u64>,
    },
}

/// Walks the frames between `from` and the end of `bytes`; `expected` is the first number there.
pub(super) fn walk(bytes: &[u8], from: usize, expected: u64) -> Walk<'_> {
    Walk { bytes, position: from, expected, sealed: false }
}

/// See [`walk`].
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    position: usize,
    expected: u64,
    sealed: bool,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Met<'a>;

    fn next(&mut self) -> Option<Met<'a>> {
        if self.position >= self.bytes.len() {
            return None;
        }
        if self.sealed {
            return Some(self.rest_is_damage());
        }
        match read_frame(self.bytes, self.position) {
            Some(frame) if frame.number == self.expected => Some(self.take(frame)),
            _ => Some(self.skip()),
        }
    }
}

impl<'a> Walk<'a> {
    fn take(&mut self, frame: Frame<'a>) -> Met<'a> {
        let position = self.position;
        self.position += frame.size();
        let count = frame.numbers().unwrap_or(1);
        match frame.carries {
            Carries::Seal => {
                self.sealed = true;
                Met::Seal
            }
            Carries::Entry => {
                self.expected = frame.number.saturating_add(1);
                Met::Entry { position, number: frame.number, payload: frame.payload }
            }
            Carries::Thinned => {
                self.expected = frame.number.saturating_add(count);
                Met::Thinned { position, number: frame.number, count }
            }
        }
    }

    /// Goes to the next whole frame that can stand there. Where damaged bytes were cut out earlier, the numbers
    /// jump without a byte in between.
    fn skip(&mut self) -> Met<'a> {
        let start = self.position;
        for position in start..self.bytes.len() {
            if self.bytes.get(position..position + 4) != Some(FRAME_MAGIC.as_slice()) {
                continue;
            }
            let Some(frame) = read_frame_numbered(self.bytes, position, self.expected..=u64::MAX) else { continue };
            let number = self.expected;
            self.position = position;
            self.expected = frame.number;
            return Met::Damage { bytes: start..position, number, missing: Some(frame.number - number) };
        }
        self.rest_is_damage()
    }

    fn rest_is_damage(&mut self) -> Met<'a> {
        let start = self.position;
        self.position = self.bytes.len();
        Met::Damage { bytes: start..self.bytes.len(), number: self.expected, missing: None }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
