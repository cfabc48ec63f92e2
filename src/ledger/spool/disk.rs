//! The one place of the spool that writes: files, directories, and the syncs that make them last.
//!
//! Owns: permissions (files 0600, directories 0700), the order "write, sync, rename, sync the directory", and
//! the count of syncs. Must never: know what is written, or try a failed sync again: after a failed sync the
//! kernel may have dropped the pages and call the next sync a success.
//!
//! [`Disk`] is a trait so that tests can put a failing disk in its place.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::broken::{self, Variant};

/// How often the spool synced, and what for.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    /// fdatasync of journal segments after entries were appended.
    pub(super) journal: AtomicU64,
    /// All others: new files, renames, directories.
    pub(super) other: AtomicU64,
}

/// What the spool asks of a disk.
pub(super) trait Disk: Send + Sync + 'static {
    /// Makes a new file that did not exist, for its owner alone.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>>;
    /// Gives a synced file its final name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder last.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory for its owner alone, and its name last; nothing to do where it exists.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// The size of the volume that a folder stands on, in bytes; none where that is not known.
    fn volume(&self, _dir: &Path) -> Option<u64> {
        None
    }
}

/// A file that only grows.
pub(super) trait Append: Send {
    /// Appends all of `bytes`.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything appended so far last.
    fn sync(&mut self) -> io::Result<()>;
    /// Counts the syncs of this file as the journal's from now on.
    fn count_as_journal(&mut self) {}
}

/// The operating system's files.
#[derive(Clone, Debug, Default)]
pub(super) struct Os {
    syncs: Arc<Syncs>,
}

impl Os {
    pub(super) fn new(syncs: Arc<Syncs>) -> Self {
        Self { syncs }
    }
}

impl Disk for Os {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(OsFile { file, syncs: Arc::clone(&self.syncs), journal: false }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.syncs.other.fetch_add(1, Ordering::Relaxed);
        File::open(dir)?.sync_all()
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        DirBuilder::new().mode(0o700).create(path)?;
        self.sync_dir(&parent(path))
    }

    fn volume(&self, dir: &Path) -> Option<u64> {
        let volume = rustix::fs::statvfs(dir).ok()?;
        // Some file systems without a size of their own say 0.
        Some(volume.f_blocks.saturating_mul(volume.f_frsize)).filter(|&bytes| bytes > 0)
    }
}

struct OsFile {
    file: File,
    syncs: Arc<Syncs>,
    journal: bool,
}

impl Append for OsFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let count = if self.journal { &self.syncs.journal } else { &self.syncs.other };
        count.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn count_as_journal(&mut self) {
        self.journal = true;
    }
}

/// Writes a whole file so that its name means either the old content or the new, never half of one. The new one
/// lasts once its folder is synced.
pub(super) fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    drop(create_draft(disk, &draft, content)?);
    disk.rename(&draft, path)
}

/// Gives a synced file its final name, and makes the name last.
pub(super) fn publish(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.rename(from, to)?;
    if broken::is(Variant::DirectoryFsyncSkipped) {
        return Ok(());
    }
    disk.sync_dir(&parent(to))
}

/// As [`replace`], lasting.
pub(super) fn write_whole(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    replace(disk, path, content)?;
    disk.sync_dir(&parent(path))
}

/// The name that a file has until it is whole.
pub(super) fn draft_of(path: &Path) -> PathBuf {
    let directory = parent(path);
    directory.join("_new")
}

/// Writes and syncs `content` under the draft's name; what an earlier crash left there is thrown away.
pub(super) fn create_draft(disk: &dyn Disk, draft: &Path, content: &[u8]) -> io::Result<Box<dyn Append>> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(draft)?;
    file.append(content)?;
    file.sync()?;
    Ok(file)
}

fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}
