//! A volume without room (row 8 of the fault matrix): what gives way there, and what never does.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::ledger::Hash;

/// A volume of so many bytes for segments, and for what is kept aside.
#[derive(Clone)]
struct Small {
    os: Os,
    root: PathBuf,
    size: Arc<AtomicU64>,
}

impl Small {
    fn new(root: &Path, size: u64) -> Self {
        Self { os: Os::default(), root: root.to_owned(), size: Arc::new(AtomicU64::new(size)) }
    }

    fn used(&self) -> u64 {
        let folders =
            [scan::JOURNAL, scan::ASIDE].into_iter().filter_map(|folder| fs::read_dir(self.root.join(folder)).ok());
        folders.flatten().map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    fn open(&self, limits: Limits) -> Spool {
        self.try_open(limits).unwrap()
    }

    fn try_open(&self, limits: Limits) -> Result<Spool, LedgerError> {
        Spool::open_on(Arc::new(self.clone()), Arc::default(), &self.root, "berth-0", limits)
    }
}

struct SmallFile {
    disk: Small,
    file: Box<dyn Append>,
}

impl Disk for Small {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        let file = self.os.create(path)?;
        let counts = [scan::JOURNAL, scan::ASIDE].iter().any(|folder| path.starts_with(self.root.join(folder)));
        Ok(if counts { Box::new(SmallFile { disk: self.clone(), file }) } else { file })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.os.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.os.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.os.sync_dir(dir)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.os.make_dir(path)
    }
    fn volume(&self, _: &Path) -> Option<u64> {
        Some(self.size.load(Ordering::SeqCst))
    }
}

impl Append for SmallFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.disk.size.load(Ordering::SeqCst).saturating_sub(self.disk.used()) as usize;
        self.file.append(&bytes[..bytes.len().min(left)])?;
        if bytes.len() > left { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Tells the spool records until it refused `refusals` in a row, or took `most`: the hashes of those that it took, and how
/// often it refused one.
async fn tell(spool: &Spool, sample: &mut Sample, home: bool, refusals: usize, most: usize) -> (Vec<Hash>, usize) {
    let (mut taken, mut refused, mut in_a_row) = (vec![], 0, 0);
    while in_a_row < refusals && taken.len() < most {
        let mut next = sample.clone();
        let entry = next.step();
        let told = if home { spool.submit(entry.clone()).await } else { spool.keep(entry.clone()).await };
        match told {
            Ok(outcome) => {
                assert_eq!(outcome, DURABLE);
                taken.push(record(&entry).hash());
                (*sample, in_a_row) = (next, 0);
            }
            Err(error) => {
                assert_eq!(error.reason(), "SpoolFailed");
                (refused, in_a_row) = (refused + 1, in_a_row + 1);
                // It is not tried again in every moment.
                tokio::time::sleep(2 * writer::RETRY).await;
            }
        }
    }
    (taken, refused)
}

async fn behind(spool: &Spool, number: u64) -> Vec<Hash> {
    let entries = spool.after(number, 1000).await.unwrap().entries;
    entries.iter().map(|entry| record(entry).hash()).collect()
}

#[tokio::test]
async fn on_a_full_volume_an_outage_goes_on_in_the_place_of_what_the_database_has() {
    let dir = dir();
    let disk = Small::new(dir.path(), u64::MAX);
    let spool = disk.open(SHORT);
    let mut sample = Sample::new(1);
    tell(&spool, &mut sample, false, 1, 40).await;
    spool.acknowledge(40);
    spool.flush().await;
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 40, last: 40 });
    disk.size.store(disk.used() + 2048, Ordering::SeqCst);
    let (mut taken, refused) = tell(&spool, &mut sample, false, 2, 20).await;
    assert_eq!(taken.len(), 20, "the next record after a refusal is taken");
    assert!((1..5).contains(&refused), "{refused}");
    let first = spool.progress().first;
    assert!((2..=41).contains(&first), "{first}");
    assert_eq!((behind(&spool, 40).await, spool.health().damages), (taken.clone(), vec![]));

    // Until there is nothing left that the database has.
    taken.extend(tell(&spool, &mut sample, false, 3, 1000).await.0);
    assert!(spool.health().poisoned.is_some() && taken.len() < 1000);
    let Progress { first, acknowledged, last } = spool.progress();
    assert!(first <= 41, "gone, and the database lacks it: {first}");
    assert_eq!((acknowledged, last), (40, 40 + taken.len() as u64));
    assert_eq!(behind(&spool, 40).await, taken);
    // Once it is replayed, there is room again.
    spool.acknowledge(last);
    assert_eq!(tell(&spool, &mut sample, false, 20, 1).await.0.len(), 1);
    disk.size.store(u64::MAX, Ordering::SeqCst);
    spool.close().await.unwrap();
    let spool = open_small(dir.path());
    assert_eq!((spool.health().damages, spool.progress().last), (vec![], last + 1));
    spool.close().await.unwrap();
}

#[tokio::test]
async fn on_a_full_volume_nothing_goes_that_has_no_other_home() {
    for home in [true, false] {
        let dir = dir();
        let disk = Small::new(dir.path(), u64::MAX);
        let mut spool = disk.open(SHORT);
        let mut sample = Sample::new(1);
        let (mut taken, _) = tell(&spool, &mut sample, home, 1, 20).await;
        if home {
            // As if it had stood beside a database once.
            spool.close().await.unwrap();
            fs::write(dir.path().join(scan::ACKNOWLEDGED), "{\"acknowledged\":20}").unwrap();
            spool = disk.open(SHORT);
        }
        disk.size.store(disk.used() + 12_000, Ordering::SeqCst);
        let (more, refused) = tell(&spool, &mut sample, home, 5, 1000).await;
        assert!(refused >= 5 && spool.health().poisoned.is_some(), "home {home}");
        taken.extend(more);
        assert_eq!((spool.progress().first, spool.progress().last), (1, taken.len() as u64), "home {home}");
        assert_eq!(behind(&spool, 0).await, taken, "home {home}");
        disk.size.store(u64::MAX, Ordering::SeqCst);
        taken.extend(tell(&spool, &mut sample, home, 20, 1).await.0);
        spool.close().await.unwrap();
        let stored: Vec<_> = all(dir.path()).into_iter().map(|stored| stored.hash).collect();
        assert_eq!(stored.len(), taken.len(), "home {home}");
    }
}

#[tokio::test]
async fn the_limits_follow_from_the_volume() {
    let dir = dir();
    assert!(Os::default().volume(dir.path()).is_some_and(|bytes| bytes > 1 << 20));
    assert_eq!(Os::default().volume(&dir.path().join("none")), None);
    // A tail of 50 KiB at most, and no samples beyond 160 KiB.
    let disk = Small::new(dir.path(), 200 << 10);
    let spool = disk.open(SHORT);
    let mut sample = Sample::new(1);
    for _ in 0..8 {
        tell(&spool, &mut sample, false, 1, 20).await;
        spool.acknowledge(u64::MAX);
        spool.flush().await;
    }
    assert!((40 << 10..70 << 10).contains(&disk.used()), "{}", disk.used());
    assert_eq!(spool.keep(sample.usage(1)).await.unwrap(), DURABLE);
    while spool.health().bytes <= 165 << 10 {
        spool.keep(sample.step()).await.unwrap();
    }
    let refused = spool.keep(sample.usage(2)).await.unwrap_err().explain();
    assert!(refused.contains("more than 163840 bytes, so no sample of usage is taken"), "{refused}");
    assert_eq!(spool.health().poisonings, 0);
    spool.close().await.unwrap();
}

/// Its last segment is written anew at every start.
#[tokio::test]
async fn on_a_full_volume_a_spool_opens_in_the_place_of_what_the_database_has() {
    let dir = dir();
    let disk = Small::new(dir.path(), u64::MAX);
    let spool = disk.open(SHORT);
    let mut sample = Sample::new(1);
    tell(&spool, &mut sample, false, 1, 40).await;
    spool.acknowledge(23);
    let kept = behind(&spool, 23).await;
    spool.close().await.unwrap();
    disk.size.store(disk.used(), Ordering::SeqCst);
    let mut rounds = 0;
    let spool = loop {
        match disk.try_open(SHORT) {
            Ok(spool) => break spool,
            Err(error) => assert!(error.wants_room(), "{error}"),
        }
        assert!(open::make_room(&disk, dir.path(), "berth-0").unwrap(), "no room, and nothing that could go");
        rounds += 1;
    };
    assert!((1..3).contains(&rounds), "{rounds}");
    assert_eq!((behind(&spool, 23).await, spool.health().damages), (kept, vec![]));
    spool.close().await.unwrap();
    // Nothing of what only the spool has.
    while open::make_room(&disk, dir.path(), "berth-0").unwrap() {}
    let spool = disk.open(SHORT);
    assert!((2..=24).contains(&spool.progress().first), "{:?}", spool.progress());
    assert_eq!(behind(&spool, 23).await.len(), 17);
    spool.close().await.unwrap();
    // Whoever never stood beside a database keeps everything.
    fs::remove_file(dir.path().join(scan::ACKNOWLEDGED)).unwrap();
    assert!(!open::make_room(&disk, dir.path(), "berth-0").unwrap());
}
