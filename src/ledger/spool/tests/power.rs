//! Power cuts: what was not synced is gone, names as well as bytes (row 8 of the fault matrix).

use std::collections::BTreeMap;

use super::*;

/// The bytes of a file that were synced.
type Synced = Arc<Mutex<Vec<u8>>>;

/// What a power cut at this moment would leave.
#[derive(Default)]
struct Names {
    /// Files under the names that everybody sees.
    seen: BTreeMap<PathBuf, Synced>,
    /// Files under the names that last.
    lasting: BTreeMap<PathBuf, Synced>,
}

/// The system's disk, which remembers what of it would be there after a power cut.
#[derive(Clone, Default)]
struct Forgetting {
    os: Os,
    names: Arc<Mutex<Names>>,
}

struct ForgettingFile {
    file: Box<dyn Append>,
    cached: Vec<u8>,
    synced: Synced,
}

impl Disk for Forgetting {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        let (file, synced) = (self.os.create(path)?, Synced::default());
        self.names.lock().unwrap().seen.insert(path.to_owned(), Arc::clone(&synced));
        Ok(Box::new(ForgettingFile { file, cached: vec![], synced }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.os.rename(from, to)?;
        let mut names = self.names.lock().unwrap();
        if let Some(file) = names.seen.remove(from) {
            names.seen.insert(to.to_owned(), file);
        }
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.os.remove(path)?;
        self.names.lock().unwrap().seen.remove(path);
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.os.sync_dir(dir)?;
        let mut names = self.names.lock().unwrap();
        let Names { seen, lasting } = &mut *names;
        let is_in = |path: &Path| path.parent() == Some(dir);
        lasting.retain(|path, _| !is_in(path));
        lasting
            .extend(seen.iter().filter(|(path, _)| is_in(path)).map(|(path, file)| (path.clone(), Arc::clone(file))));
        Ok(())
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.os.make_dir(path)
    }
}

impl Append for ForgettingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.cached.extend_from_slice(bytes);
        self.file.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.synced.lock().unwrap().append(&mut self.cached);
        Ok(())
    }
}

impl Forgetting {
    /// The hashes that a spool would hold which the power is cut from now.
    fn after_a_power_cut(&self, spool: &Path) -> Vec<crate::ledger::Hash> {
        let after = dir();
        fs::create_dir(after.path().join(scan::JOURNAL)).unwrap();
        for (path, synced) in &self.names.lock().unwrap().lasting {
            let to = after.path().join(path.strip_prefix(spool).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, &*synced.lock().unwrap()).unwrap();
        }
        all(after.path()).into_iter().map(|stored| stored.hash).collect()
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_cut() {
    let (dir, disk) = (dir(), Forgetting::default());
    let mut sample = Sample::new(1);
    let mut acknowledged = vec![];
    for life in 0..3 {
        let spool = Spool::open_on(Arc::new(disk.clone()), Arc::default(), dir.path(), "berth-0", SHORT).unwrap();
        assert_eq!(disk.after_a_power_cut(dir.path()), acknowledged, "lost by a power cut, opened {life} times before");
        for _ in 0..12 {
            let entry = sample.step();
            assert_eq!(spool.submit(entry.clone()).await.unwrap(), DURABLE);
            acknowledged.push(record(&entry).hash());
            assert_eq!(disk.after_a_power_cut(dir.path()), acknowledged, "lost by a power cut, acknowledged before");
        }
        spool.close().await.unwrap();
    }
    assert!(segment_files(dir.path()).len() > 3, "the journal was rotated");
}
