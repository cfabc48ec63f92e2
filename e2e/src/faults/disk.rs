//! A disk of its own for a spool: a file system in an image, which can be filled up and broken off.
//!
//! Owns: the image and its mount, which are gone when this is dropped. Must never: pretend; what the operator meets is
//! what the kernel's own ext4 answers on a full disk and on one whose device is gone (ENOSPC, short writes, EIO).

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

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
        // ext4 gives blocks back with the commit of its journal.
        fs::remove_file(self.filler())
            .and_then(|()| File::open(&self.at)?.sync_all())
            .map_err(|source| Error::Start { command: "freeing a disk".to_owned(), source })
    }

    /// Every request fails from now on, until [`mend`](Self::mend).
    pub fn pull_out(&self) -> Result<(), Error> {
        run(Command::new("python3").args(["-c", PULL_OUT]).arg(&self.at))
    }

    /// As a node that comes back: nobody may use the disk. What was not synced is not on it.
    pub fn mend(&self) -> Result<(), Error> {
        run(Command::new("umount").arg(&self.at))?;
        self.attach()
    }

    fn attach(&self) -> Result<(), Error> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.file()).arg(&self.at))
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

fn run(command: &mut Command) -> Result<(), Error> {
    kubectl::run(command, "").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: &Path, name: &str) -> io::Result<()> {
        let mut file = File::create(at.join(name))?;
        file.write_all(&[1; 64 << 10])?;
        file.sync_all()
    }

    #[test]
    fn a_disk_is_full_and_free_and_gone_and_back() {
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
        drop(disk);
        assert!(!at.join("a").exists(), "still mounted");
    }
}
