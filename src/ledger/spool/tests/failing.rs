//! A failing disk (row 8 of the fault matrix).

use std::sync::atomic::AtomicI64;

use super::*;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Nothing can be made, written or renamed.
    Writes,
    /// Nothing can be synced.
    Syncs,
    /// Neither.
    All,
}

/// Works `left` times, then fails `fails` times, then works again.
#[derive(Clone)]
struct Failing {
    os: Os,
    left: Arc<AtomicI64>,
    fails: Arc<AtomicI64>,
    what: What,
    /// The system's number of the error.
    error: i32,
    /// Writes half of the bytes before it fails to write, all of them before it fails to sync.
    short: bool,
}

impl Failing {
    /// A disk that works until its `left` is set; then it fails so many times.
    fn new(what: What, error: i32, short: bool, fails: i64) -> Self {
        let (left, fails) = (Arc::new(AtomicI64::new(i64::MAX)), Arc::new(AtomicI64::new(fails)));
        Self { os: Os::default(), left, fails, what, error, short }
    }

    fn check(&self, what: What) -> io::Result<()> {
        let hit = self.what == What::All || self.what == what;
        if hit && self.left.fetch_sub(1, Ordering::SeqCst) <= 0 && self.fails.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(io::Error::from_raw_os_error(self.error));
        }
        Ok(())
    }
}

/// What is not synced is not on the disk, and may go with a failed sync: the next one succeeds without it.
struct FailingFile {
    disk: Failing,
    file: Box<dyn Append>,
    cached: Vec<u8>,
}

impl Disk for Failing {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        self.check(What::Writes)?;
        Ok(Box::new(FailingFile { disk: self.clone(), file: self.os.create(path)?, cached: vec![] }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(What::Writes)?;
        self.os.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(What::Writes)?;
        self.os.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(What::Syncs)?;
        self.os.sync_dir(dir)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.os.make_dir(path)
    }
}

impl Append for FailingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let done = self.disk.check(What::Writes);
        if done.is_ok() {
            self.cached.extend_from_slice(bytes);
        } else if self.disk.short {
            self.cached.extend_from_slice(&bytes[..bytes.len() / 2]);
        }
        done
    }
    fn sync(&mut self) -> io::Result<()> {
        let cached = std::mem::take(&mut self.cached);
        let done = self.disk.check(What::Syncs);
        if done.is_ok() || self.disk.short {
            self.file.append(&cached)?;
        }
        done.and_then(|()| self.file.sync())
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// Keeps entries on a disk that fails at the `left`th try for `fails` tries, and looks at what is there at the end.
/// Answers with how often the journal was poisoned.
async fn survives(what: What, error: i32, short: bool, left: i64, fails: i64, home: bool) -> u64 {
    let case = format!("{what:?}, error {error}, short {short}, at {left} for {fails}, home {home}");
    let dir = dir();
    let disk = Failing::new(what, error, short, fails);
    let limits = Limits { segment_bytes: 6 << 10, ..SHORT };
    let spool = Spool::open_on(Arc::new(disk.clone()), Arc::default(), dir.path(), "berth-0", limits).unwrap();
    disk.left.store(left, Ordering::SeqCst);
    let mut sample = Sample::new(1);
    let mut acknowledged = vec![];
    let (mut failures, mut after_failure) = (0, 0);
    while acknowledged.len() < 15 || (failures > 0 && after_failure < 8) {
        let entry = sample.step();
        let hash = record(&entry).hash();
        loop {
            let done = if home { spool.submit(entry.clone()).await } else { spool.keep(entry.clone()).await };
            match done {
                Ok(outcome) => {
                    assert_eq!(outcome, DURABLE, "{case}");
                    acknowledged.push(hash);
                    after_failure += usize::from(failures > 0);
                    break;
                }
                Err(error) => {
                    failures += 1;
                    assert_eq!(error.reason(), "SpoolFailed", "{case}");
                    assert!(spool.health().poisonings > 0 && failures < 1000, "{case}");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    // Beside a database nobody has to send it again.
                    if !home {
                        break;
                    }
                }
            }
        }
    }
    tally::tell(1, failures, acknowledged.len());
    let health = spool.health();
    assert!(health.poisoned.is_none(), "{case}");
    assert_eq!(health.poisonings > 0, failures > 0, "{case}");
    assert_eq!(spool.progress().last, acknowledged.len() as u64, "{case}");
    if !home {
        let replayed = spool.after(0, 1000).await.unwrap().entries;
        assert_eq!(replayed.iter().map(|entry| record(entry).hash()).collect::<Vec<_>>(), acknowledged, "{case}");
    }
    spool.close().await.unwrap();

    let spool = open_small(dir.path());
    assert_eq!(spool.health().damages, [], "{case}");
    spool.close().await.unwrap();
    let stored: Vec<_> = all(dir.path()).into_iter().map(|stored| stored.hash).collect();
    assert_eq!(stored, acknowledged, "{case}: what was acknowledged is there once, and nothing else");
    health.poisonings
}

#[tokio::test]
async fn a_disk_that_works_again_is_taken_to_although_nobody_asks() {
    let dir = dir();
    let disk = Failing::new(What::All, ENOSPC, true, i64::MAX);
    let spool = Spool::open_on(Arc::new(disk.clone()), Arc::default(), dir.path(), "berth-0", SHORT).unwrap();
    disk.left.store(0, Ordering::SeqCst);
    spool.keep(Sample::new(1).step()).await.unwrap_err();
    assert!(spool.health().poisoned.is_some());
    disk.fails.store(0, Ordering::SeqCst);
    let well = async {
        while spool.health().poisoned.is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), well).await.expect("it waits for somebody to ask");
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_fails_once_loses_nothing_and_the_journal_goes_on() {
    let mut poisonings = 0;
    for left in 0..24 {
        for home in [true, false] {
            poisonings += survives(What::Writes, EIO, false, left, 1, home).await;
            poisonings += survives(What::Syncs, EIO, false, left, 1, home).await;
            poisonings += survives(What::Syncs, EIO, true, left, 1, home).await;
            poisonings += survives(What::Writes, EIO, true, left, 1, home).await;
        }
    }
    println!("{poisonings} segments poisoned");
    assert!(poisonings > 30, "{poisonings}");
}

#[tokio::test]
async fn a_disk_that_is_full_or_read_only_for_a_while_loses_nothing_and_the_journal_goes_on() {
    for left in 0..12 {
        for home in [true, false] {
            // The old segment, the bytes behind it, the new one: each may be what is refused.
            for fails in [2, 3, 5, 8] {
                survives(What::Writes, ENOSPC, true, left, fails, home).await;
                survives(What::All, EROFS, false, left, fails, home).await;
            }
        }
    }
}

#[tokio::test]
async fn everyone_who_waits_gets_the_error_and_the_tail_says_what_it_lost() {
    let dir = dir();
    let disk = Failing::new(What::All, EIO, false, i64::MAX);
    let spool = Spool::open_on(Arc::new(disk.clone()), Arc::default(), dir.path(), "berth-0", SHORT).unwrap();
    let mut sample = Sample::new(1);
    spool.keep(sample.step()).await.unwrap();
    disk.left.store(0, Ordering::SeqCst);
    let answers = futures::future::join_all((2..50).map(|n| spool.keep(Sample::new(n).step()))).await;
    assert!(answers.iter().all(Result::is_err), "called durable by a disk that fails: {answers:?}");
    // It waits for the disk, and what does not fit is counted.
    let big = vec![sample.step(); 500];
    let mut sent = 0;
    while spool.health().tail_dropped == 0 {
        spool.keep_later(big.clone());
        sent += 500;
    }
    assert!(spool.health().poisoned.is_some());
    disk.fails.store(0, Ordering::SeqCst);
    // Nobody asks for anything: the tail is reason enough to go on.
    while spool.health().poisoned.is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    spool.keep(sample.step()).await.unwrap();
    spool.close().await.unwrap();
    assert_eq!(spool.progress().last + spool.health().tail_dropped, sent + 2);
}

#[tokio::test]
async fn a_journal_that_cannot_be_trimmed_or_noted_is_written_all_the_same() {
    let dir = dir();
    let disk = Failing::new(What::Writes, EROFS, false, 0);
    let limits = Limits { tail_bytes: 0, ..SHORT };
    let spool = Spool::open_on(Arc::new(disk.clone()), Arc::default(), dir.path(), "berth-0", limits).unwrap();
    let mut sample = Sample::new(1);
    for _ in 0..20 {
        spool.keep(sample.step()).await.unwrap();
    }
    disk.fails.store(6, Ordering::SeqCst);
    disk.left.store(0, Ordering::SeqCst);
    spool.acknowledge(20);
    while disk.fails.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(spool.health().poisonings, 0);
    while scan::segments(dir.path()).unwrap().len() > 1 || progress::read(dir.path()).unwrap() != Some(20) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    spool.keep(sample.step()).await.unwrap();
    spool.close().await.unwrap();
    let spool = open_with(dir.path(), limits);
    assert_eq!((spool.progress().last, spool.health().damages), (21, vec![]));
    spool.close().await.unwrap();
}
