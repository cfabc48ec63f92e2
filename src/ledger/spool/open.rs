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

use uuid::Uuid;

use super::{
    disk::{self, Append, Disk},
    frame::{self, Carries, Met},
    index::{Index, Place},
    progress::{self, Progress},
    scan::{self, ASIDE, Damage, DamageKind, JOURNAL, LOCK, Scanned, Segment},
    shelf::{Sealed, Shelf},
    volume,
    written::{Kept, Written},
};
use crate::ledger::{entry::Entry, error::LedgerError};

/// The segment that is appended to.
pub(super) struct Active {
    pub(super) first: u64,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn Append>,
    pub(super) size: u64,
    pub(super) next: u64,
    /// How many samples of usage are in it.
    pub(super) usage: u64,
    /// What `size`, `next` and `usage` were at the last sync: behind that, nothing is certain.
    pub(super) sound: (u64, u64, u64),
}

impl Active {
    fn new(first: u64, path: PathBuf, file: Box<dyn Append>, size: u64, next: u64, usage: u64) -> Self {
        Self { first, path, file, size, next, usage, sound: (size, next, usage) }
    }

    /// Everything appended so far lasts.
    pub(super) fn synced(&mut self) {
        self.sound = (self.size, self.next, self.usage);
    }

    /// Counts only what lasts.
    pub(super) fn back_to_sound(&mut self) {
        (self.size, self.next, self.usage) = self.sound;
    }
}

/// A spool that is ready to be written.
pub(super) struct Opened {
    pub(super) lock: Lock,
    pub(super) active: Active,
    pub(super) index: Index,
    pub(super) damages: Vec<Damage>,
    pub(super) shelf: Shelf,
    pub(super) progress: Progress,
    /// What the file says of the progress; none where there is none.
    pub(super) said: Option<u64>,
    pub(super) volume: Uuid,
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
    let mut shelf = Shelf::default();
    for (at, &first) in firsts.iter().enumerate() {
        let segment = Segment::read(dir, first)?;
        let known = scanned.damages.len();
        let mut usage = 0;
        let mut fold = |place: Place, payload: &[u8]| fold(&mut index, &mut usage, place, payload);
        if Some(&first) == firsts.last() {
            let mut after = Scanned { damages: vec![], next: scanned.next };
            scan::scan_segment(&segment, true, &mut scanned, &mut |_, _| Ok(()));
            keep_aside(disk, dir, &segment)?;
            let carried = carry(disk, dir, &segment, writer, limit)?;
            // Places have moved: the index is made from what stands there now.
            let segment = Segment::read(dir, first)?;
            scan::scan_segment(&segment, true, &mut after, &mut fold);
            keep_payloads_aside(disk, dir, &segment, &after.damages)?;
            let payloads = after.damages.into_iter().filter(|damage| matches!(damage.kind, DamageKind::Payload(_)));
            scanned.damages.extend(payloads);
            scanned.next = after.next;
            match carried {
                Carried::Nothing => {}
                Carried::Open(open) => active = Some(Active { usage, ..open }),
                Carried::Sealed => {
                    let last = scanned.next.saturating_sub(1);
                    shelf.push(Sealed::new(first, last, segment.bytes.len() as u64, usage));
                }
            }
        } else {
            scan::scan_segment(&segment, false, &mut scanned, &mut fold);
            if scanned.damages.len() > known {
                keep_aside(disk, dir, &segment)?;
                keep_payloads_aside(disk, dir, &segment, &scanned.damages[known..])?;
            }
            let last = firsts.get(at + 1).map_or(first, |next| next.saturating_sub(1));
            shelf.push(Sealed::new(first, last, segment.bytes.len() as u64, usage));
        }
    }
    let said = progress::read(dir)?;
    let first = firsts.first().copied().unwrap_or(scanned.next);
    let progress = Progress::opened(first, scanned.next.saturating_sub(1), said);
    if said.is_some_and(|said| said > progress.acknowledged) {
        // Before anything gets a number that was acknowledged of something else.
        progress::write(disk, dir, progress.acknowledged)?;
    }
    let mut active = match active {
        Some(active) => active,
        None => start_segment(disk, dir, writer, scanned.next)?,
    };
    active.synced();
    for damage in &scanned.damages {
        tracing::warn!(%damage, "the spool's journal is damaged; what is whole was read");
    }
    Ok(Opened { lock, active, index, damages: scanned.damages, shelf, progress, said, volume: volume::id(disk, dir)? })
}

/// Makes room where a full volume keeps a spool from being opened that stands beside a database: what that has goes, the
/// oldest first, two segments at once. Whether there were any.
pub(super) fn make_room(disk: &dyn Disk, dir: &Path, writer: &str) -> Result<bool, LedgerError> {
    let _lock = lock(dir, writer)?;
    let Some(acknowledged) = progress::read(dir)? else { return Ok(false) };
    let firsts = scan::segments(dir)?;
    let journal = dir.join(JOURNAL);
    let failed = |error| LedgerError::spool(&journal, error);
    let mut any = false;
    for pair in firsts.windows(2).take(2).take_while(|pair| pair[1] <= acknowledged.saturating_add(1)) {
        // Each before the next, so that no power cut leaves a hole.
        disk.remove(&scan::segment_path(dir, pair[0])).and_then(|()| disk.sync_dir(&journal)).map_err(failed)?;
        any = true;
    }
    Ok(any)
}

fn fold(index: &mut Index, usage: &mut u64, place: Place, payload: &[u8]) -> Result<(), String> {
    let kept = Written::decode(payload).map_err(|error| error.to_string())?;
    *usage += u64::from(matches!(kept, Kept::Entry(Entry::Usage(_))));
    index.apply(&kept, place);
    Ok(())
}

/// Starts the segment whose first entry will have the number `first`.
pub(super) fn start_segment(disk: &dyn Disk, dir: &Path, writer: &str, first: u64) -> Result<Active, LedgerError> {
    place_segment(disk, dir, first, &frame::segment_header(writer, first), first)
}

/// Puts a segment in its place, whole and synced, and leaves it open for appending.
pub(super) fn place_segment(
    disk: &dyn Disk,
    dir: &Path,
    first: u64,
    bytes: &[u8],
    next: u64,
) -> Result<Active, LedgerError> {
    let path = scan::segment_path(dir, first);
    let draft = disk::draft_of(&path);
    let failed = |error| LedgerError::spool(&path, error);
    let mut file = disk::create_draft(disk, &draft, bytes).map_err(failed)?;
    disk::publish(disk, &draft, &path).map_err(failed)?;
    file.count_as_journal();
    Ok(Active::new(first, path, file, bytes.len() as u64, next, 0))
}

/// What became of the last segment.
enum Carried {
    /// It held nothing; the new segment takes its name.
    Nothing,
    /// It is appended to.
    Open(Active),
    /// Nothing follows in it.
    Sealed,
}

/// Writes the last segment's whole frames anew. It is appended to if it is this writer's and has room; else
/// it is sealed.
fn carry(disk: &dyn Disk, dir: &Path, segment: &Segment, writer: &str, limit: u64) -> Result<Carried, LedgerError> {
    let owner = segment.header.as_ref().map_or(writer, |header| &header.writer);
    let mut bytes = frame::segment_header(owner, segment.first);
    let empty = bytes.len();
    let mut next = segment.first;
    for met in segment.walk() {
        match met {
            Met::Entry { number, payload, .. } => {
                frame::write_frame(&mut bytes, Carries::Entry, number, payload);
                next = number.saturating_add(1);
            }
            Met::Thinned { number, count, .. } => {
                frame::write_thinned(&mut bytes, number, count);
                next = number.saturating_add(count);
            }
            Met::Seal | Met::Damage { .. } => {}
        }
    }
    if bytes.len() == empty {
        return Ok(Carried::Nothing);
    }
    let goes_on = owner == writer && (bytes.len() as u64) < limit;
    if !goes_on {
        frame::write_frame(&mut bytes, Carries::Seal, next, &[]);
    }
    let active = place_segment(disk, dir, segment.first, &bytes, next)?;
    Ok(if goes_on { Carried::Open(active) } else { Carried::Sealed })
}

/// Keeps every run of bytes that is no whole frame in a file of its own, named after segment and offset.
pub(super) fn keep_aside(disk: &dyn Disk, dir: &Path, segment: &Segment) -> Result<(), LedgerError> {
    for met in segment.walk() {
        if let Met::Damage { bytes, .. } = met {
            keep_bytes_aside(disk, dir, segment.first, bytes.start as u64, &segment.bytes[bytes])?;
        }
    }
    Ok(())
}

/// Keeps the whole frames that hold no entry: they stay where they are, and go with their segment.
fn keep_payloads_aside(disk: &dyn Disk, dir: &Path, segment: &Segment, damages: &[Damage]) -> Result<(), LedgerError> {
    for Damage { offset, bytes, kind, .. } in damages {
        let range = *offset as usize..offset.saturating_add(*bytes) as usize;
        if let (DamageKind::Payload(_), Some(bytes)) = (kind, segment.bytes.get(range)) {
            keep_bytes_aside(disk, dir, segment.first, *offset, bytes)?;
        }
    }
    Ok(())
}

/// Keeps these bytes of the segment `first`, which stand there at `offset`.
pub(super) fn keep_bytes_aside(
    disk: &dyn Disk,
    dir: &Path,
    first: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<(), LedgerError> {
    if bytes.is_empty() {
        return Ok(());
    }
    // The same place may be torn again after the next crash: the bytes' digest tells them apart.
    let digest = crate::ledger::hash::Hash::of(bytes).to_string();
    let name = format!("{first:020}-{offset}-{}.bytes", &digest[..16]);
    let path = dir.join(ASIDE).join(name);
    if !path.exists() {
        disk::write_whole(disk, &path, bytes).map_err(|error| LedgerError::spool(&path, error))?;
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
    // For people only; nobody decides by it, and a full disk may refuse it.
    let told = lock.0.set_len(0).and_then(|()| lock.0.rewind());
    if let Err(error) = told.and_then(|()| write!(lock.0, "process {}, writer {writer}", std::process::id())) {
        tracing::warn!(file = %path.display(), %error, "who has the spool open could not be written down");
    }
    Ok(lock)
}
