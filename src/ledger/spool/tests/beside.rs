//! The spool beside a database: outages, tail, marks, replay.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use super::*;

fn mark(sample: &Sample, epoch: u64) -> ShownMark {
    ShownMark { target: sample.target(), terminal: sample.head, epoch, at: Micros(5) }
}

/// Everything that is to be replayed, piece by piece, as a replayer asks for it.
async fn replay(spool: &Spool, most: usize) -> Vec<Entry> {
    let mut entries = vec![];
    let mut number = spool.progress().acknowledged;
    while number < spool.progress().last {
        let stretch = spool.after(number, most).await.unwrap();
        assert!(stretch.up_to > number, "the replayer gets on");
        assert!(stretch.entries.len() <= most);
        entries.extend(stretch.entries);
        number = stretch.up_to;
    }
    entries
}

async fn settled(spool: &Spool) {
    while spool.health().unacknowledged > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 5 s: {what}");
}

#[tokio::test]
async fn an_outage_is_kept_whoever_else_wrote_and_comes_out_in_order() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    let mut told = vec![];
    for n in 0..40 {
        // Every third record is written by another leader, elsewhere.
        let entry = if n % 4 == 3 { sample.carried() } else { sample.step() };
        if n % 3 != 0 {
            assert_eq!(spool.keep(entry.clone()).await.unwrap(), DURABLE);
            told.push(entry);
        }
    }
    let others = [Entry::Present(Box::new(sample.snapshot())), sample.operation(9), sample.usage(1)];
    for entry in others {
        assert_eq!(spool.keep(entry.clone()).await.unwrap(), DURABLE);
        told.push(entry);
    }
    let progress = Progress { first: 1, acknowledged: 0, last: told.len() as u64 };
    assert_eq!(spool.progress(), progress);
    for most in [1, 7, 1000] {
        assert_eq!(certain(&replay(&spool, most).await), certain(&told));
    }
    spool.close().await.unwrap();

    let spool = open_small(dir.path());
    assert_eq!((spool.progress(), spool.health().damages), (progress, vec![]));
    assert_eq!(certain(&replay(&spool, 7).await), certain(&told));
    assert_eq!(spool.health().unacknowledged, told.len() as u64);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn an_operation_that_was_told_in_the_outage_is_adopted() {
    let dir = dir();
    let spool = open_small(dir.path());
    let sample = Sample::new(1);
    let (start, finish) = (sample.operation(9), sample.finish(9));
    let other = Sample { epoch: 8, ..sample.clone() };
    // In the tail and not synced yet, in one group, and in the journal.
    spool.keep_later(vec![start.clone()]);
    let (again, otherwise, first) =
        tokio::join!(spool.keep(start.clone()), spool.keep(other.operation(9)), spool.keep(finish.clone()));
    let adopt = |entry: &Entry| Outcome::Adopt(Box::new(record(entry).clone()));
    assert_eq!((again.unwrap(), otherwise.unwrap(), first.unwrap()), (DURABLE, adopt(&start), DURABLE));
    assert_eq!(spool.keep(other.finish(9)).await.unwrap(), adopt(&finish));
    assert_eq!(spool.progress().last, 2, "each is there once");
    spool.close().await.unwrap();
    let spool = open_small(dir.path());
    assert_eq!(spool.keep(other.operation(9)).await.unwrap(), adopt(&start));
    spool.close().await.unwrap();
}

#[tokio::test]
async fn the_tail_is_synced_within_a_second_and_needs_no_replay() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    let start = std::time::Instant::now();
    spool.keep_later((0..5).map(|_| sample.step()).collect());
    eventually("the tail is durable", || spool.progress().last == 5).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 5, last: 5 });
    // Behind something that the database lacks, it waits for that, and is replayed with it.
    spool.keep(sample.step()).await.unwrap();
    spool.keep_later(vec![sample.step()]);
    spool.keep(sample.step()).await.unwrap();
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 5, last: 8 });
    assert_eq!(replay(&spool, 10).await.len(), 3);
    spool.acknowledge(8);
    spool.keep_later(vec![sample.step()]);
    spool.close().await.unwrap();
    assert_eq!(spool.health().tail_dropped, 0);
    let spool = open_small(dir.path());
    assert_eq!(
        spool.progress(),
        Progress { first: 1, acknowledged: 9, last: 9 },
        "also what came right before the end"
    );
    spool.close().await.unwrap();
}

#[tokio::test]
async fn marks_outlive_a_restart_and_are_not_replayed() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    sample.step();
    spool.note_mark(mark(&sample, 7)).await.unwrap();
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 1, last: 1 }, "nobody has to bring it anywhere");
    let entry = sample.step();
    spool.keep(entry.clone()).await.unwrap();
    let last = mark(&sample, 8);
    spool.note_mark(last.clone()).await.unwrap();
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 1, last: 3 });
    spool.close().await.unwrap();

    let spool = open_small(dir.path());
    assert_eq!(spool.mark_of(CLUSTER, sample.uid), Some(last.clone()));
    assert_eq!(spool.mark_of(CLUSTER, Uuid::from_u128(2)), None);
    assert_eq!(spool.marks(), [last]);
    assert_eq!(spool.largest_epoch(CLUSTER).await.unwrap(), 8);
    assert_eq!(spool.after(1, 10).await.unwrap(), Stretch { entries: vec![entry], up_to: 3 });
    spool.close().await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_is_remembered_and_forgetting_it_only_costs_work() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    for _ in 0..20 {
        spool.keep(sample.step()).await.unwrap();
    }
    spool.acknowledge(12);
    spool.acknowledge(7);
    spool.close().await.unwrap();
    let file = dir.path().join(scan::ACKNOWLEDGED);
    assert_eq!(fs::read_to_string(&file).unwrap(), "{\"acknowledged\":12}\n");
    let spool = open_small(dir.path());
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 12, last: 20 });
    spool.close().await.unwrap();
    for (content, acknowledged) in [(Some("{\"ack"), 0), (None, 0), (Some("{\"acknowledged\":12}"), 12)] {
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let spool = open_small(dir.path());
        assert_eq!(spool.progress(), Progress { first: 1, acknowledged, last: 20 });
        spool.close().await.unwrap();
    }
}

#[tokio::test]
async fn entries_that_get_the_numbers_of_a_lost_end_are_replayed() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    spool.keep(sample.step()).await.unwrap();
    spool.close().await.unwrap();
    fs::write(dir.path().join(scan::ACKNOWLEDGED), "{\"acknowledged\":5}").unwrap();
    // Killed before anything else could be written: what is on the disk at this moment is what counts.
    let spool = open_small(dir.path());
    assert_eq!(progress::read(dir.path()).unwrap(), Some(1));
    for _ in 0..6 {
        spool.keep(sample.step()).await.unwrap();
    }
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 1, last: 7 });
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_journal_that_was_the_only_home_is_replayed_from_its_beginning() {
    let dir = dir();
    let spool = open_small(dir.path());
    fill(&spool, 3, 10).await;
    assert!(!read::is_beside(dir.path()));
    spool.close().await.unwrap();
    assert!(!read::is_beside(dir.path()), "nobody asked it to stand beside a database");
    let spool = open_small(dir.path());
    spool.behind().await;
    assert_eq!(spool.progress(), Progress { first: 1, acknowledged: 0, last: 30 });
    assert_eq!(replay(&spool, 4).await.len(), 30);
    spool.acknowledge(30);
    spool.close().await.unwrap();
    assert!(read::is_beside(dir.path()));
}

#[tokio::test]
async fn a_database_that_lost_something_gets_everything_again_also_after_a_crash() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    for _ in 0..10 {
        spool.keep(sample.step()).await.unwrap();
    }
    spool.acknowledge(10);
    eventually("it is noted", || progress::read(dir.path()).unwrap() == Some(10)).await;
    spool.rewind();
    let stretch = spool.after(spool.progress().acknowledged, 100).await.unwrap();
    assert_eq!((stretch.entries.len(), stretch.up_to), (10, 10));
    assert_eq!(progress::read(dir.path()).unwrap(), Some(0), "noted before the database gets anything");
    spool.close().await.unwrap();
}

/// Stops behind the next rename to `_acknowledged`, says so, and goes on when it is told to.
struct Held {
    disk: Os,
    next: AtomicBool,
    reached: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Disk for Held {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        self.disk.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        if to.ends_with(scan::ACKNOWLEDGED) && self.next.swap(false, Ordering::AcqRel) {
            let _ = self.reached.send(());
            let _ = self.go_on.lock().unwrap().recv();
        }
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.make_dir(path)
    }
}

#[tokio::test]
async fn a_rewind_that_comes_while_the_opposite_is_noted_waits_for_that() {
    let dir = dir();
    let ((reached, has_reached), (may, go_on)) = (mpsc::channel(), mpsc::channel());
    let disk = Arc::new(Held { disk: Os::default(), next: AtomicBool::new(false), reached, go_on: Mutex::new(go_on) });
    let spool =
        Spool::open_on(Arc::clone(&disk) as _, Arc::default(), dir.path(), "berth-0", Limits::default()).unwrap();
    let mut sample = Sample::new(1);
    for _ in 0..10 {
        spool.keep(sample.step()).await.unwrap();
    }
    disk.next.store(true, Ordering::Release);
    spool.acknowledge(10);
    has_reached.recv().unwrap();
    assert_eq!(
        progress::read(dir.path()).unwrap(),
        Some(10),
        "the file has its name, and its writer does not know yet"
    );
    spool.rewind();
    let mut after = Box::pin(spool.after(0, 100));
    // It gets nothing until the file says that it is still to be replayed; how long that is looked at does not matter.
    let early = tokio::time::timeout(Duration::from_millis(100), &mut after).await;
    assert!(early.is_err(), "a crash now would forget that they are still to be replayed");
    may.send(()).unwrap();
    assert_eq!(after.await.unwrap().entries.len(), 10);
    assert_eq!(progress::read(dir.path()).unwrap(), Some(0));
    spool.close().await.unwrap();
}

#[tokio::test]
async fn the_replayer_is_woken() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    let waits = tokio::spawn({
        let spool = spool.clone();
        async move { spool.behind().await }
    });
    spool.keep_later(vec![sample.step()]);
    spool.note_mark(mark(&sample, 7)).await.unwrap();
    assert!(!waits.is_finished(), "there is nothing to replay");
    spool.keep(sample.step()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), waits).await.unwrap().unwrap();
    spool.acknowledge(3);
    settled(&spool).await;
    spool.close().await.unwrap();
}

#[tokio::test]
async fn replay_goes_around_damage_and_never_past_a_whole_entry() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    let mut told = vec![];
    for n in 0..60 {
        let entry = sample.step();
        spool.keep(entry.clone()).await.unwrap();
        told.push(entry);
        if n % 9 == 0 {
            spool.note_mark(mark(&sample, 7)).await.unwrap();
        }
    }
    spool.close().await.unwrap();
    let files = segment_files(dir.path());
    // One frame of one segment, the header of another; a whole one is gone.
    let broken = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    broken(&files[2], 3000);
    broken(&files[4], 3);
    fs::remove_file(&files[6]).unwrap();
    let spool = open_small(dir.path());
    let damages = spool.health().damages;
    let lost: u64 = damages
        .iter()
        .map(|damage| match damage.kind {
            DamageKind::Frames(Some(lost)) | DamageKind::Missing(lost) => lost,
            _ => 0,
        })
        .sum();
    for most in [1, 5, 1000] {
        let replayed = certain(&replay(&spool, most).await);
        assert!(replayed.iter().all(|entry| certain(&told).contains(entry)));
        assert!(replayed.len() as u64 >= 60 - lost && replayed.len() < 60, "{} of 60, {lost} lost", replayed.len());
        assert_eq!(spool.after(spool.progress().last, 5).await.unwrap().entries, []);
    }
    spool.close().await.unwrap();
}

#[tokio::test]
async fn an_entry_longer_than_what_is_read_at_once_is_replayed() {
    let dir = dir();
    let spool = Spool::open(dir.path(), "berth-0").unwrap();
    let mut told = vec![];
    for n in 0..6 {
        let mut sample = Sample::new(n);
        let Entry::Chained { record, mut snapshot } = sample.step() else { panic!() };
        if n % 2 == 1 {
            snapshot.service().spec = serde_json::json!({"note": "x".repeat(if n == 3 { 7 << 20 } else { 300 << 10 })});
        }
        let entry = Entry::Chained { record, snapshot };
        spool.keep(entry.clone()).await.unwrap();
        told.push(entry);
    }
    for most in [1, 2, 100] {
        assert!(replay(&spool, most).await == told, "by {most}");
    }
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_tail_is_verified_record_by_record_and_read_like_any_journal() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    sample.step();
    for n in 0..12 {
        let entry = if n == 5 { sample.carried() } else { sample.step() };
        if n % 4 != 0 {
            spool.keep(entry.clone()).await.unwrap();
            spool.keep_later(vec![entry]);
        }
    }
    spool.keep(sample.operation(4)).await.unwrap();
    spool.keep(sample.usage(1)).await.unwrap();
    spool.note_mark(mark(&sample, 7)).await.unwrap();
    spool.close().await.unwrap();
    let reader = crate::ledger::Reader::Spool(dir.path().to_owned());
    let verified = reader.verify().await.unwrap();
    assert!(verified.is_clean(), "{verified:?}");
    assert_eq!((verified.report.records, verified.report.chains, verified.standalone), (9, 1, 1));
    assert!(verified.notes[0].contains("stands beside a database"), "{:?}", verified.notes);
    let moments = read::timeline(dir.path(), "team", "user1").unwrap();
    assert_eq!((moments.value.len(), moments.damages.len()), (9, 0), "each once, also the one without a snapshot");
    let found = read::find(dir.path(), "user1", "vectors").unwrap().value;
    assert_eq!((found.len(), found[0].snapshot.head), (1, sample.head));
    assert_eq!(read::heads(dir.path()).unwrap().value[0].head, sample.head);
    assert!(read::chains(dir.path()).unwrap().value.all(|stored| stored.is_ok()));

    let file = &segment_files(dir.path())[0];
    let mut bytes = fs::read(file).unwrap();
    bytes[700] ^= 1;
    fs::write(file, bytes).unwrap();
    assert!(!reader.verify().await.unwrap().is_clean(), "damage is damage");
}
