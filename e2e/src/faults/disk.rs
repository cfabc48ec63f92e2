//! A disk of its own for a spool: a file system in an image, which can be filled up, slowed down and broken off.
//!
//! Owns: the image and its mount, which are gone when this is dropped. Must never: pretend; what the operator meets is
//! what the kernel's own ext4 answers on a full disk, on one whose device is gone and on one that it has made read-only
//! after an error (ENOSPC, short writes, EIO, EROFS).

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    stop_and_go::{Brakes, StopAndGo},
    wait_until,
};
use crate::kubectl::{self, Error};

/// `EXT4_IOC_SHUTDOWN` without flushing the journal: from then on every request fails, as when the device is pulled out.
const PULL_OUT: &str = "
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))
";

/// See the module's comment.
#[derive(Debug)]
pub struct Disk {
    image: TempDir,
    at: PathBuf,
}

impl Disk {
    /// A new one of so many MiB, mounted at a folder that is made where it is missing.
    pub fn mount(at: &Path, mebibytes: u64) -> Result<Self, Error> {
        let start = |source| Error::Start { command: "a disk for a spool".to_owned(), source };
        let image = TempDir::new().map_err(start)?;
        let file = File::create(image.path().join("disk")).map_err(start)?;
        file.set_len(mebibytes << 20).map_err(start)?;
        fs::create_dir_all(at).map_err(start)?;
        let disk = Self { image, at: at.to_owned() };
        run(Command::new("mkfs.ext4").arg("-q").arg(disk.file()))?;
        disk.attach()?;
        Ok(disk)
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> Result<(), Error> {
        let start = |source| Error::Start { command: "filling a disk".to_owned(), source };
        let mut filler = File::create(self.filler()).map_err(start)?;
        // The last bytes by small steps: a whole piece may not fit where half of it does.
        for size in [1 << 20, 4 << 10, 1] {
            let piece = vec![0; size];
            while match filler.write(&piece) {
                Ok(_) => true,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => false,
                Err(error) => return Err(start(error)),
            } {}
        }
        filler.sync_all().map_err(start)
    }

    /// There is room again.
    pub fn free(&self) -> Result<(), Error> {
        let start = |source| Error::Start { command: "freeing a disk".to_owned(), source };
        fs::remove_file(self.filler()).map_err(start)?;
        // ext4 gives blocks back some time after the commit of its journal.
        let probe = self.at.join("probe");
        let has_room = || {
            let commit = File::open(&self.at).and_then(|folder| folder.sync_all());
            commit.and_then(|()| fs::write(&probe, [1; 256 << 10])).is_ok()
        };
        let is_free = wait_until(Duration::from_secs(10), has_room);
        fs::remove_file(&probe).map_err(start)?;
        if is_free { Ok(()) } else { Err(start(io::Error::from(io::ErrorKind::StorageFull))) }
    }

    /// Every request fails from now on, until [`mend`](Self::mend).
    pub fn pull_out(&self) -> Result<(), Error> {
        run(Command::new("python3").args(["-c", PULL_OUT]).arg(&self.at))
    }

    /// The kernel meets an error on it, and takes no more writes until [`mend`](Self::mend): ext4's `errors=remount-ro`.
    pub fn remount_read_only(&self) -> Result<(), Error> {
        let device = kubectl::run(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.at), "")?;
        let trigger =
            Path::new("/sys/fs/ext4").join(device.trim().trim_start_matches("/dev/")).join("trigger_fs_error");
        fs::write(&trigger, "1").map_err(|source| Error::Start { command: trigger.display().to_string(), source })
    }

    /// Writes and syncs wait until it goes on, which it does for `work` of every `work` and `rest`, until what comes back is dropped.
    pub fn slow_down(&self, work: Duration, rest: Duration) -> Result<StopAndGo, Error> {
        StopAndGo::begin(Freezing(self.at.clone()), work, rest)
    }

    /// As a node that comes back: nobody may use the disk. What was not synced is not on it.
    pub fn mend(&self) -> Result<(), Error> {
        run(Command::new("umount").arg(&self.at))?;
        // 1: there was something to repair, and it is.
        run(Command::new("sh").args(["-c", "fsck.ext4 -p \"$1\" || [ $? -eq 1 ]", "fsck"]).arg(self.file()))?;
        self.attach()
    }

    fn attach(&self) -> Result<(), Error> {
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(self.file()).arg(&self.at))
    }

    fn file(&self) -> PathBuf {
        self.image.path().join("disk")
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process of the operator may outlive this by a moment.
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.at)) {
            eprintln!("{} is still mounted: {error}", self.at.display());
        }
    }
}

/// Brought to a standstill as for a snapshot of it: whoever writes waits.
struct Freezing(PathBuf);

impl Freezing {
    fn told(&self, flag: &str) -> Result<(), Error> {
        run(Command::new("fsfreeze").arg(flag).arg(&self.0))
    }
}

impl Brakes for Freezing {
    fn stop(&self) -> Result<(), Error> {
        self.told("--freeze")
    }

    fn go(&self) -> Result<(), Error> {
        self.told("--unfreeze")
    }
}

fn run(command: &mut Command) -> Result<(), Error> {
    kubectl::run(command, "").map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn write(at: &Path, name: &str) -> io::Result<()> {
        let mut file = File::create(at.join(name))?;
        file.write_all(&[1; 64 << 10])?;
        file.sync_all()
    }

    #[test]
    fn a_disk_is_full_and_free_and_gone_and_back_and_slow() {
        if kubectl::run(Command::new("id").arg("-u"), "").unwrap().trim() != "0" {
            eprintln!("not tried: mounting takes root");
            return;
        }
        if !Path::new("/dev/loop-control").exists() {
            eprintln!("not tried: this kernel has no loop devices");
            return;
        }
        let folder = TempDir::new().unwrap();
        let at = folder.path().join("spool");
        let disk = Disk::mount(&at, 16).unwrap();
        write(&at, "a").unwrap();
        disk.fill().unwrap();
        assert_eq!(write(&at, "b").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.free().unwrap();
        write(&at, "b").unwrap();
        disk.pull_out().unwrap();
        assert_eq!(write(&at, "c").unwrap_err().raw_os_error(), Some(5));
        disk.mend().unwrap();
        assert_eq!(fs::read(at.join("a")).unwrap(), [1; 64 << 10]);
        disk.remount_read_only().unwrap();
        assert_eq!(write(&at, "c").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        disk.mend().unwrap();
        let slow = disk.slow_down(Duration::from_millis(1), Duration::from_millis(300)).unwrap();
        let waited = || {
            let began = Instant::now();
            write(&at, "d").unwrap();
            began.elapsed() > Duration::from_millis(100)
        };
        assert!(wait_until(Duration::from_secs(30), waited), "no write ever waited");
        drop(slow);
        drop(disk);
        assert!(!at.join("a").exists(), "still mounted");
    }
}
