//! What goes from the journal, and what never does (rule 6).

use super::*;

/// Waits until the writer has done what it was nudged for, and its upkeep.
async fn upkeep(spool: &Spool) {
    for _ in 0..20 {
        spool.inner.shared.nudge.notify_one();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn on_disk(dir: &Path) -> u64 {
    segment_files(dir).iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

#[tokio::test]
async fn nothing_goes_that_the_database_lacks_however_old_and_long_the_journal_is() {
    let dir = dir();
    let limits = Limits { tail_age: Duration::ZERO, tail_bytes: 0, most_bytes: 0, ..SHORT };
    let spool = open_with(dir.path(), limits);
    let mut sample = Sample::new(1);
    for _ in 0..60 {
        spool.keep(sample.step()).await.unwrap();
    }
    spool.keep(sample.operation(1)).await.unwrap();
    upkeep(&spool).await;
    assert_eq!(spool.progress().last, 61, "dropped by a full journal");
    assert_eq!(spool.progress().first, 1, "gone, and the database lacks it");
    assert!(spool.keep(sample.usage(1)).await.is_err(), "but no sample is taken");
    let segments = scan::segments(dir.path()).unwrap();
    // All but the last entry of the third segment.
    spool.acknowledge(segments[3] - 2);
    upkeep(&spool).await;
    assert_eq!(scan::segments(dir.path()).unwrap(), segments[2..]);
    assert_eq!(spool.progress().first, segments[2]);
    spool.acknowledge(61);
    upkeep(&spool).await;
    assert_eq!(scan::segments(dir.path()).unwrap().len(), 1, "only the one that is written");
    assert_eq!(spool.health().bytes, on_disk(dir.path()));
    assert_eq!(spool.health().usage_refused, 1);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_journal_that_is_the_only_home_keeps_everything() {
    let dir = dir();
    let limits = Limits { tail_age: Duration::ZERO, tail_bytes: 0, most_bytes: 0, ..SHORT };
    let spool = open_with(dir.path(), limits);
    fill(&spool, 2, 20).await;
    upkeep(&spool).await;
    spool.close().await.unwrap();
    // Nor does one that stood beside a database once, while nobody uses it so.
    fs::write(dir.path().join(scan::ACKNOWLEDGED), "{\"acknowledged\":40}").unwrap();
    let spool = open_with(dir.path(), limits);
    upkeep(&spool).await;
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 40, last: 40 });
    spool.close().await.unwrap();
    assert_eq!(all(dir.path()).len(), 40);
}

#[tokio::test]
async fn the_tail_is_kept_for_its_time_and_within_its_bytes() {
    let dir = dir();
    let limits = Limits { tail_bytes: 40 << 10, ..SHORT };
    let spool = open_with(dir.path(), limits);
    let mut sample = Sample::new(1);
    for _ in 0..100 {
        spool.keep_later(vec![sample.step()]);
        spool.keep(sample.usage(1)).await.unwrap();
        spool.acknowledge(u64::MAX);
    }
    upkeep(&spool).await;
    let bytes = on_disk(dir.path());
    assert!((32 << 10..52 << 10).contains(&bytes), "{bytes}");
    assert!(spool.progress().first > 1);
    spool.close().await.unwrap();
    let spool = open_with(dir.path(), Limits { tail_age: Duration::from_millis(300), ..limits });
    spool.keep_later(vec![sample.step()]);
    upkeep(&spool).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    upkeep(&spool).await;
    assert_eq!(scan::segments(dir.path()).unwrap().len(), 1, "without being asked");
    spool.close().await.unwrap();
}

#[tokio::test]
async fn what_was_trimmed_is_forgotten_and_its_state_file_stays() {
    let dir = dir();
    let limits = Limits { tail_bytes: 0, ..SHORT };
    let spool = open_with(dir.path(), limits);
    let (mut old, mut young) = (Sample::new(1), Sample::new(2));
    spool.keep(old.step()).await.unwrap();
    spool.keep(old.operation(9)).await.unwrap();
    let mark = ShownMark { target: old.target(), terminal: old.head, epoch: 7, at: Micros(1) };
    spool.note_mark(mark.clone()).await.unwrap();
    for _ in 0..20 {
        spool.keep(young.step()).await.unwrap();
    }
    assert_eq!(spool.health().objects, 2);
    while spool.health().state_files_behind > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    spool.acknowledge(u64::MAX);
    upkeep(&spool).await;
    let first = spool.progress().first;
    assert!(first > 3, "{first}");
    assert_eq!(spool.head(CLUSTER, old.uid).await.unwrap(), None);
    assert_eq!(spool.head(CLUSTER, young.uid).await.unwrap().map(|known| known.head), Some(young.head));
    assert_eq!((spool.mark_of(CLUSTER, old.uid), spool.marks()), (None, vec![]), "a mark lives as long as its segment");
    assert_eq!(spool.health().objects, 1);
    assert_eq!(spool.after(0, 1000).await.unwrap().entries.len() as u64, 24 - first, "what is left");
    // As new: the account that was told is not looked for where it is no more.
    let other = Sample { epoch: 8, ..old.clone() };
    assert_eq!(spool.keep(other.operation(9)).await.unwrap(), DURABLE);
    assert_eq!(spool.keep(old.step()).await.unwrap(), DURABLE);
    spool.close().await.unwrap();

    let spool = open_with(dir.path(), limits);
    assert_eq!((spool.progress().first, spool.health().damages), (first, vec![]), "it begins with a later number");
    spool.close().await.unwrap();
    assert!(dir.path().join("team/tenant_user1_vectors.json").exists());
    let reader = crate::ledger::Reader::Spool(dir.path().to_owned());
    assert!(reader.verify().await.unwrap().is_clean());
}

/// Notes what is removed, and which folders are synced.
struct Noting(Os, Mutex<Vec<PathBuf>>);

impl Disk for Noting {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        self.0.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.1.lock().unwrap().push(path.to_owned());
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.1.lock().unwrap().push(dir.to_owned());
        self.0.sync_dir(dir)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.0.make_dir(path)
    }
}

#[tokio::test]
async fn no_power_cut_leaves_a_hole_in_the_journal_where_a_later_segment_went_first() {
    let dir = dir();
    let disk = Arc::new(Noting(Os::default(), Mutex::default()));
    let limits = Limits { tail_bytes: 0, ..SHORT };
    let spool = Spool::open_on(Arc::clone(&disk) as _, Arc::default(), dir.path(), "berth-0", limits).unwrap();
    let mut sample = Sample::new(1);
    for _ in 0..40 {
        spool.keep(sample.step()).await.unwrap();
    }
    let segments = segment_files(dir.path());
    spool.acknowledge(40);
    spool.close().await.unwrap();
    let journal = dir.path().join(scan::JOURNAL);
    let mut noted = disk.1.lock().unwrap().clone();
    noted.retain(|path| path.starts_with(&journal));
    let first = noted.iter().position(|path| *path == segments[0]).unwrap();
    let removed: Vec<_> = segments[..segments.len() - 1].iter().flat_map(|gone| [gone, &journal]).collect();
    assert!(removed.len() > 6);
    assert_eq!(noted[first..].iter().collect::<Vec<_>>()[..removed.len()], removed[..]);
}

fn samples(entries: &[Entry]) -> Vec<i64> {
    entries.iter().filter_map(|entry| if let Entry::Usage(usage) = entry { Some(usage.value) } else { None }).collect()
}

async fn everything(spool: &Spool) -> Vec<Entry> {
    let Progress { first, last, .. } = spool.progress();
    let mut number = first - 1;
    let mut entries = vec![];
    while number < last {
        let stretch = spool.after(number, 50).await.unwrap();
        assert!(stretch.up_to > number);
        entries.extend(stretch.entries);
        number = stretch.up_to;
    }
    entries
}

#[tokio::test]
async fn samples_are_thinned_when_the_journal_is_full_and_nothing_else_is() {
    let dir = dir();
    let limits = Limits { most_bytes: 150 << 10, ..SHORT };
    let spool = open_with(dir.path(), limits);
    let mut sample = Sample::new(1);
    let (mut told, mut refused, mut kept) = (vec![], 0, 0);
    for n in 0..700 {
        match spool.keep(sample.usage(n)).await {
            Ok(_) => kept += 1,
            Err(error) => {
                assert!(error.explain().contains("no sample of usage is taken"), "{}", error.explain());
                refused += 1;
            }
        }
        if n % 10 == 0 {
            let entry = if n % 20 == 0 { sample.step() } else { sample.operation(n.unsigned_abs().into()) };
            assert_eq!(spool.keep(entry.clone()).await.unwrap(), DURABLE, "however full");
            told.push(entry);
        }
    }
    upkeep(&spool).await;
    let health = spool.health();
    assert!(health.bytes <= limits.most_bytes && health.bytes == on_disk(dir.path()), "{health:?}");
    assert!(health.usage_thinned > 50, "{health:?}");
    assert_eq!(health.usage_refused, refused);
    let entries = everything(&spool).await;
    let left = samples(&entries);
    assert_eq!(left.len() as u64 + health.usage_thinned, kept, "each is there or counted");
    assert!(left.is_sorted() && left.len() > 100, "{}", left.len());
    let others: Vec<_> = entries.into_iter().filter(|entry| !matches!(entry, Entry::Usage(_))).collect();
    assert_eq!(certain(&others), certain(&told));
    spool.close().await.unwrap();

    let spool = open_with(dir.path(), limits);
    assert_eq!(spool.health().damages, [], "a jump is no damage where samples were thinned");
    assert_eq!(spool.progress().last, kept + told.len() as u64, "the numbers are what they were");
    assert_eq!(samples(&everything(&spool).await), left);
    spool.close().await.unwrap();
    assert!(crate::ledger::Reader::Spool(dir.path().to_owned()).verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn replay_that_is_overtaken_by_thinning_misses_nothing_that_stays() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    let mut told = vec![];
    for n in 0..40 {
        spool.keep(sample.usage(n)).await.unwrap();
        let entry = sample.step();
        spool.keep(entry.clone()).await.unwrap();
        told.push(entry);
    }
    let mut number = 0;
    let mut entries = vec![];
    while number < spool.progress().last {
        let stretch = spool.after(number, 3).await.unwrap();
        entries.extend(stretch.entries);
        number = stretch.up_to;
        // The segment that is being read, as the writer does it.
        let firsts = scan::segments(dir.path()).unwrap();
        let first = firsts[firsts.partition_point(|&first| first <= number).saturating_sub(1)];
        if first != *firsts.last().unwrap() {
            let segment = scan::Segment::read(dir.path(), first).unwrap();
            let thinned = thin::thin(&segment, "berth-0");
            drop(open::place_segment(&Os::default(), dir.path(), first, &thinned.bytes, 0).unwrap());
        }
    }
    entries.retain(|entry| !matches!(entry, Entry::Usage(_)));
    assert_eq!(certain(&entries), certain(&told));
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_state_file_is_written_from_a_segment_that_was_thinned() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    for n in 0..6 {
        spool.keep(sample.usage(n)).await.unwrap();
    }
    spool.keep(sample.step()).await.unwrap();
    let operation = sample.operation(3);
    spool.keep(operation.clone()).await.unwrap();
    let segment = scan::Segment::read(dir.path(), 1).unwrap();
    let thinned = thin::thin(&segment, "berth-0");
    assert_eq!((thinned.removed, thinned.left), (3, 3));
    fs::write(scan::segment_path(dir.path(), 1), &thinned.bytes).unwrap();
    let told_again = Sample { epoch: 8, ..sample.clone() }.operation(3);
    assert_eq!(spool.keep(told_again).await.unwrap(), Outcome::Adopt(Box::new(record(&operation).clone())));
    // Again and again: runs become one frame, and one sample stays.
    let mut segment = segment;
    for left in [3, 2, 1, 1] {
        let thinned = thin::thin(&segment, "berth-0");
        assert_eq!(thinned.left, left);
        segment = scan::Segment::parse(segment.path, 1, thinned.bytes).unwrap();
    }
    let met: Vec<_> = segment
        .walk()
        .map(|met| match met {
            frame::Met::Entry { number, .. } => (number, 1),
            frame::Met::Thinned { number, count, .. } => (number, count),
            frame::Met::Seal | frame::Met::Damage { .. } => (0, 0),
        })
        .collect();
    assert_eq!(met, [(1, 1), (2, 5), (7, 1), (8, 1)]);
    spool.close().await.unwrap();
}
