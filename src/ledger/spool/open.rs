//! Opens a spool: lock, scan, repair of the end, and a segment to append to.
//!
//! Owns: what a crash leaves behind is put in order here, before anything is appended. Must never: throw bytes
//! away; what is cut off is kept aside first.
//!
//! The last segment is written anew at every open, into a fresh file that replaces it: its whole frames, in
//! their order, synced. So nothing ever appends behind a torn end, and pages that a failed fsync of an earlier
//! life left in the cache as if they were written reach the disk before anyone believes them.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    disk::{self, Append, Disk},
    frame::{self, Carries, Met},
    index::{Index, Place},
    scan::{self, ASIDE, Damage, DamageKind, JOURNAL, LOCK, Scanned, Segment},
    written::Written,
};
use crate::ledger::error::LedgerError;

/// The segment that is appended to.
pub(super) struct Active {
    pub(super) first: u64,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn Append>,
    pub(super) size: u64,
    pub(super) next: u64,
}

/// A spool that is ready to be written.
pub(super) struct Opened {
    pub(super) lock: Lock,
    pub(super) active: Active,
    pub(super) index: Index,
    pub(super) damages: Vec<Damage>,
}

/// Opens the spool in `dir` for `writer`, whose segments end at `limit` bytes.
pub(super) fn open(disk: &dyn Disk, dir: &Path, writer: &str, limit: u64) -> Result<Opened, LedgerError> {
    if writer.is_empty() || writer.len() > frame::MAX_WRITER {
        let why = format!("the writer's name \"{writer}\" must have 1 to {} bytes", frame::MAX_WRITER);
        return Err(LedgerError::Configuration { why });
    }
    disk.make_dir(dir).map_err(|error| LedgerError::spool(dir, error))?;
    let lock = lock(dir, writer)?;
    for folder in [JOURNAL, ASIDE] {
        let folder = dir.join(folder);
        disk.make_dir(&folder).map_err(|error| LedgerError::spool(folder, error))?;
    }
    let mut index = Index::default();
    let firsts = scan::segments(dir)?;
    let mut scanned = Scanned { damages: vec![], next: firsts.first().copied().unwrap_or(1) };
    let mut active = None;
    for &first in &firsts {
        let segment = Segment::read(dir, first)?;
        let known = scanned.damages.len();
        if Some(&first) == firsts.last() {
            let mut after = Scanned { damages: vec![], next: scanned.next };
            scan::scan_segment(&segment, true, &mut scanned, &mut |_, _| Ok(()));
            keep_aside(disk, dir, &segment)?;
            active = carry(disk, dir, &segment, writer, limit)?;
            // Places have moved: the index is made from what stands there now.
            let carried = Segment::read(dir, first)?;
            scan::scan_segment(&carried, true, &mut after, &mut |place, payload| fold(&mut index, place, payload));
            let payloads = after.damages.into_iter().filter(|damage| matches!(damage.kind, DamageKind::Payload(_)));
            scanned.damages.extend(payloads);
            scanned.next = after.next;
        } else {
            scan::scan_segment(&segment, false, &mut scanned, &mut |place, payload| fold(&mut index, place, payload));
            if scanned.damages.len() > known {
                keep_aside(disk, dir, &segment)?;
            }
        }
    }
    let active = match active {
        Some(active) => active,
        None => start_segment(disk, dir, writer, scanned.next)?,
    };
    for damage in &scanned.damages {
        tracing::warn!(%damage, "the spool's journal is damaged; what is whole was read");
    }
    Ok(Opened { lock, active, index, damages: scanned.damages })
}

fn fold(index: &mut Index, place: Place, payload: &[u8]) -> Result<(), String> {
    let entry = Written::decode(payload).map_err(|error| error.to_string())?;
    index.apply(&entry, place);
    Ok(())
}

/// Starts the segment whose first entry will have the number `first`.
pub(super) fn start_segment(disk: &dyn Disk, dir: &Path, writer: &str, first: u64) -> Result<Active, LedgerError> {
    place_segment(disk, dir, first, &frame::segment_header(writer, first), first)
}

/// Puts a segment in its place, whole and synced, and leaves it open for appending.
fn place_segment(disk: &dyn Disk, dir: &Path, first: u64, bytes: &[u8], next: u64) -> Result<Active, LedgerError> {
    let path = scan::segment_path(dir, first);
    let draft = disk::draft_of(&path);
    let failed = |error| LedgerError::spool(&path, error);
    let mut file = disk::create_draft(disk, &draft, bytes).map_err(failed)?;
    disk::publish(disk, &draft, &path).map_err(failed)?;
    file.count_as_journal();
    Ok(Active { first, file, size: bytes.len() as u64, next, path })
}

/// Writes the last segment's whole frames anew. It is appended to if it is this writer's and has room; else
/// it is sealed.
fn carry(
    disk: &dyn Disk,
    dir: &Path,
    segment: &Segment,
    writer: &str,
    limit: u64,
) -> Result<Option<Active>, LedgerError> {
    let owner = segment.header.as_ref().map_or(writer, |header| &header.writer);
    let mut bytes = frame::segment_header(owner, segment.first);
    let empty = bytes.len();
    let mut next = segment.first;
    for met in segment.walk() {
        if let Met::Entry { number, payload, .. } = met {
            frame::write_frame(&mut bytes, Carries::Entry, number, payload);
            next = number.saturating_add(1);
        }
    }
    if bytes.len() == empty {
        // Nothing to keep; the new segment takes the same name.
        return Ok(None);
    }
    let goes_on = owner == writer && (bytes.len() as u64) < limit;
    if !goes_on {
        frame::write_frame(&mut bytes, Carries::Seal, next, &[]);
    }
    let active = place_segment(disk, dir, segment.first, &bytes, next)?;
    Ok(goes_on.then_some(active))
}

/// Keeps every run of bytes that is no whole frame in a file of its own, named after segment and offset.
fn keep_aside(disk: &dyn Disk, dir: &Path, segment: &Segment) -> Result<(), LedgerError> {
    for met in segment.walk() {
        let Met::Damage { bytes: range, .. } = met else { continue };
        let bytes = &segment.bytes[range.clone()];
        if bytes.is_empty() {
            continue;
        }
        // The same place may be torn again after the next crash: the bytes' digest tells them apart.
        let digest = crate::ledger::hash::Hash::of(bytes).to_string();
        let name = format!("{:020}-{}-{}.bytes", segment.first, range.start, &digest[..16]);
        let path = dir.join(ASIDE).join(name);
        if !path.exists() {
            disk::write_whole(disk, &path, bytes).map_err(|error| LedgerError::spool(&path, error))?;
        }
    }
    Ok(())
}

/// The spool is this process's for as long as this lives. The system lets go of it when the process ends,
/// however it ends.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file alone would leave it locked while a process that was just forked has a copy of it.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the spool could not be unlocked; the end of this process unlocks it");
        }
    }
}

fn lock(dir: &Path, writer: &str) -> Result<Lock, LedgerError> {
    let path = dir.join(LOCK);
    let failed = |error: io::Error| LedgerError::spool(&path, error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(300).read_to_string(&mut holder);
            let holder = crate::ledger::visible(holder.trim(), 300);
            return Err(LedgerError::Configuration {
                why: format!(
                    "the spool {} is in use by {}: two processes must never share one; give each its own",
                    dir.display(),
                    if holder.is_empty() { "another process" } else { &holder }
                ),
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let mut lock = Lock(file);
    // For people only; nobody decides by it.
    lock.0.set_len(0).and_then(|()| lock.0.rewind()).map_err(failed)?;
    write!(lock.0, "process {}, writer {writer}", std::process::id()).map_err(failed)?;
    Ok(lock)
}
