//! What the spool promises, on a real disk and on a failing one.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use proptest::prelude::*;

use super::{disk::Append, *};
use crate::{
    ledger::{
        Backend, Micros,
        samples::{CLUSTER, Sample, record},
    },
    lifecycle::State,
};

const DURABLE: Outcome = Outcome::Durable(Backend::Spool);

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Opens with segments so short that several exist.
fn open_small(dir: &Path) -> Spool {
    let syncs = Arc::new(Syncs::default());
    Spool::open_on(Arc::new(Os::new(Arc::clone(&syncs))), syncs, dir, "berth-0", 8 << 10).unwrap()
}

async fn fill(spool: &Spool, objects: u128, steps: usize) -> Vec<Sample> {
    let mut samples: Vec<_> = (1..=objects).map(Sample::new).collect();
    for _ in 0..steps {
        for sample in &mut samples {
            assert_eq!(spool.submit(sample.step()).await.unwrap(), DURABLE);
        }
    }
    samples
}

fn all(dir: &Path) -> Vec<crate::ledger::Stored> {
    read::chains(dir).unwrap().value.map(Result::unwrap).collect()
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    scan::segments(dir).unwrap().into_iter().map(|first| scan::segment_path(dir, first)).collect()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_closing_and_opening_again() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut samples = fill(&spool, 5, 20).await;
    let operation = samples[0].operation(9);
    assert_eq!(spool.submit(operation.clone()).await.unwrap(), DURABLE);
    spool.close().await.unwrap();
    assert!(matches!(spool.submit(operation.clone()).await, Err(LedgerError::Closed)));
    assert!(segment_files(dir.path()).len() > 3, "the journal was rotated");

    let spool = open_small(dir.path());
    assert!(spool.health().damages.is_empty(), "{:?}", spool.health());
    for sample in &mut samples {
        let known = spool.head(CLUSTER, sample.uid).await.unwrap().unwrap();
        assert_eq!((known.head, known.state, known.epoch), (sample.head, sample.state, 7));
        assert_eq!(spool.submit(sample.step()).await.unwrap(), DURABLE);
    }
    assert_eq!(spool.largest_epoch(CLUSTER).await.unwrap(), 7);
    assert_eq!(spool.submit(operation).await.unwrap(), DURABLE);
    spool.close().await.unwrap();
    let chains = read::chains(dir.path()).unwrap();
    assert_eq!(chains.value.standalone(), 1, "the operation that was sent twice is there once");
    assert_eq!(all(dir.path()).len(), 5 * 21);
}

#[tokio::test]
async fn the_chain_takes_only_what_follows_it() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut sample = Sample::new(1);
    let first = sample.step();
    let before = sample.clone();
    let second = sample.step();
    assert_eq!(
        spool.submit(second.clone()).await.unwrap(),
        Outcome::Elsewhere { head: Head::GENESIS, shown_is_ancestor: false },
        "a chain that the spool never saw"
    );
    for entry in [&first, &second, &second, &first] {
        assert_eq!(spool.submit(entry.clone()).await.unwrap(), DURABLE);
    }
    let mut rival = Sample { epoch: 8, ..before.clone() };
    let losing = rival.step();
    assert_eq!(spool.submit(losing).await.unwrap(), Outcome::Adopt(Box::new(record(&second).clone())));
    let beyond = rival.step();
    assert_eq!(
        spool.submit(beyond).await.unwrap(),
        Outcome::Elsewhere { head: sample.head, shown_is_ancestor: false },
        "made on a record that is not here"
    );
    let third = sample.step();
    assert_eq!(spool.submit(third).await.unwrap(), DURABLE);
    let mut restored = Sample { epoch: 9, ..before };
    assert_eq!(
        spool.submit(restored.step()).await.unwrap(),
        Outcome::Elsewhere { head: sample.head, shown_is_ancestor: true },
        "made on the first record, of three"
    );
    assert_eq!(spool.largest_epoch(CLUSTER).await.unwrap(), 7, "what was not taken leaves no trace");
    spool.close().await.unwrap();
}

#[tokio::test]
async fn the_first_account_of_an_operation_stands() {
    let dir = dir();
    let spool = open_small(dir.path());
    let sample = Sample::new(1);
    let (start, finish) = (sample.operation(9), sample.finish(9));
    // By a later leader, at the same moment and at another.
    let other_words = Sample { epoch: 8, ..sample.clone() };
    let later = Sample { epoch: 8, created_at: sample.created_at + 60_000_000, ..sample.clone() };
    let adopt = |entry: &Entry| Outcome::Adopt(Box::new(record(entry).clone()));
    // All in one batch: whoever comes first there, stands.
    let (first, second, again) =
        tokio::join!(spool.submit(start.clone()), spool.submit(other_words.operation(9)), spool.submit(start.clone()));
    assert_eq!((first.unwrap(), second.unwrap(), again.unwrap()), (DURABLE, adopt(&start), DURABLE));
    assert_eq!(spool.submit(finish.clone()).await.unwrap(), DURABLE, "the finish is a record of its own");
    let others = (100..10_100).map(|n| spool.submit(Sample::new(n).operation(n)));
    for answer in futures::future::join_all(others).await {
        assert_eq!(answer.unwrap(), DURABLE);
    }
    for told_again in [&later, &other_words] {
        assert_eq!(spool.submit(told_again.operation(9)).await.unwrap(), adopt(&start));
        assert_eq!(spool.submit(told_again.finish(9)).await.unwrap(), adopt(&finish));
    }
    spool.close().await.unwrap();

    let spool = open_small(dir.path());
    assert_eq!(spool.submit(start.clone()).await.unwrap(), DURABLE);
    assert_eq!(spool.submit(later.operation(9)).await.unwrap(), adopt(&start));
    assert_eq!(spool.submit(later.finish(9)).await.unwrap(), adopt(&finish));
    assert_eq!(spool.submit(later.operation(10)).await.unwrap(), DURABLE, "another operation of the same object");
    spool.close().await.unwrap();
    assert_eq!(read::chains(dir.path()).unwrap().value.standalone(), 10_003, "each is there once");
}

#[tokio::test]
async fn verification_names_two_accounts_of_one_phase() {
    let dir = dir();
    let spool = open_small(dir.path());
    let sample = Sample::new(1);
    let later = Sample { epoch: 8, ..sample.clone() };
    let told = [sample.operation(9), later.operation(9)];
    spool.submit(told[0].clone()).await.unwrap();
    spool.submit(sample.finish(9)).await.unwrap();
    // As many as are remembered, so that the spool takes the second account.
    for id in 10..18 {
        spool.submit(sample.operation(id)).await.unwrap();
    }
    let reader = crate::ledger::Reader::Spool(dir.path().to_owned());
    assert!(reader.verify().await.unwrap().is_clean());
    assert_eq!(spool.submit(told[1].clone()).await.unwrap(), DURABLE);
    spool.close().await.unwrap();
    let violations = reader.verify().await.unwrap().report.violations;
    assert_eq!(violations.len(), 1, "{violations:?}");
    let said = violations[0].to_string();
    let [first, again] = told.map(|entry| record(&entry).hash());
    let expected = format!("operation-start of operation {} is told twice", uuid::Uuid::from_u128(9));
    assert!(said.contains(&expected) && said.contains(&format!("{first} and by record {again}")), "{said}");
}

#[tokio::test]
async fn an_entry_that_contradicts_itself_is_refused() {
    let dir = dir();
    let spool = open_small(dir.path());
    let Entry::Chained { record, .. } = Sample::new(1).step() else { panic!() };
    let other = Box::new(Sample::new(2).snapshot());
    let answer = spool.submit(Entry::Chained { record, snapshot: other }).await;
    assert!(matches!(answer, Err(LedgerError::Malformed { .. })), "{answer:?}");
    let Entry::Operation { record, .. } = Sample::new(1).operation(1) else { panic!() };
    let answer = spool.submit(Entry::Chained { record, snapshot: Box::new(Sample::new(1).snapshot()) }).await;
    assert!(matches!(answer, Err(LedgerError::Malformed { .. })), "{answer:?}");
    spool.close().await.unwrap();
}

#[tokio::test]
async fn two_processes_never_share_a_spool() {
    let dir = dir();
    let spool = open_small(dir.path());
    let refused = Spool::open(dir.path(), "berth-1").map(drop).unwrap_err().to_string();
    assert!(refused.contains("is in use by process") && refused.contains("writer berth-0"), "{refused}");
    spool.close().await.unwrap();
    Spool::open(dir.path(), "berth-1").unwrap().close().await.unwrap();
}

/// Syncs no faster than a volume in the network.
struct Slow(Os);

struct SlowFile(Box<dyn Append>);

impl Disk for Slow {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        Ok(Box::new(SlowFile(self.0.create(path)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.0.make_dir(path)
    }
}

impl Append for SlowFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        std::thread::sleep(std::time::Duration::from_millis(10));
        self.0.sync()
    }
    fn count_as_journal(&mut self) {
        self.0.count_as_journal();
    }
}

async fn syncs_for_256(disk: impl FnOnce(Os) -> Arc<dyn Disk>) -> u64 {
    let dir = dir();
    let syncs = Arc::new(Syncs::default());
    let disk = disk(Os::new(Arc::clone(&syncs)));
    let spool = Spool::open_on(disk, syncs, dir.path(), "berth-0", SEGMENT_BYTES).unwrap();
    let before = spool.health().journal_syncs;
    let submits = (0..256).map(|n| {
        let spool = spool.clone();
        tokio::spawn(async move { spool.submit(Sample::new(n).step()).await.unwrap() })
    });
    for submit in submits.collect::<Vec<_>>() {
        assert_eq!(submit.await.unwrap(), DURABLE);
    }
    let syncs = spool.health().journal_syncs - before;
    spool.close().await.unwrap();
    syncs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_waiters_share_a_sync() {
    let here = syncs_for_256(|os| Arc::new(os)).await;
    let slow = syncs_for_256(|os| Arc::new(Slow(os))).await;
    println!("256 concurrent records: {here} syncs of the journal on this disk, {slow} where one takes 10 ms");
    assert!((1..256).contains(&here), "{here}");
    assert!((1..=32).contains(&slow), "{slow}");
}

#[tokio::test]
async fn nothing_is_acknowledged_without_a_sync_and_no_file_is_made_without_one_of_its_folder() {
    let dir = dir();
    let spool = Spool::open(&dir.path().join("spool"), "berth-0").unwrap();
    // Three new folders, each made last by its parent; a segment, and its name.
    assert_eq!((spool.health().journal_syncs, spool.health().other_syncs), (0, 3 + 2));
    let mut sample = Sample::new(1);
    for acknowledged in 1..=5 {
        assert_eq!(spool.submit(sample.step()).await.unwrap(), DURABLE);
        assert_eq!(spool.health().journal_syncs, acknowledged);
    }
    spool.close().await.unwrap();
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let dir = dir();
    let root = dir.path().join("spool");
    let spool = Spool::open(&root, "berth-0").unwrap();
    fill(&spool, 1, 2).await;
    spool.close().await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut files = vec![root.join(scan::LOCK), root.join("team/tenant_user1_vectors.json")];
    files.extend(segment_files(&root));
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    for folder in ["", "team", scan::JOURNAL, scan::ASIDE] {
        assert_eq!(mode(&root.join(folder)), 0o700, "{folder}");
    }
}

// The readable files.

fn state_file(dir: &Path, user: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(dir.join(format!("team/tenant_{user}_vectors.json"))).unwrap()).unwrap()
}

#[tokio::test]
async fn the_readable_file_shows_the_present_and_says_when_it_is_deleted() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut old = Sample::new(1);
    for to in [State::Pending, State::Running, State::Paused, State::Stopped] {
        spool.submit(old.step_to(to)).await.unwrap();
    }
    let mut present = old.snapshot();
    present.replicas = 5;
    present.observed_at = Micros(present.observed_at.0 + 1);
    spool.submit(Entry::Present(Box::new(present.clone()))).await.unwrap();
    present.replicas = 4;
    present.observed_at = Micros(present.observed_at.0 - 2);
    spool.submit(Entry::Present(Box::new(present))).await.unwrap();
    spool.close().await.unwrap();
    let file = state_file(dir.path(), "user1");
    assert_eq!((&file["status"], &file["deleted"]), (&"stopped".into(), &false.into()));
    assert_eq!(file["container"]["replicas"], 5, "an older present does not go back");
    assert_eq!(file["ledger"]["head"], old.head.hash.to_string());
    assert_eq!(file["transitions"].as_array().unwrap().len(), 4);

    let spool = open_small(dir.path());
    spool.submit(old.step_to(State::Deleted)).await.unwrap();
    // A late present of the object that is gone does not bring it back.
    let mut late = old.snapshot();
    late.observed_at = Micros(late.observed_at.0 + 10);
    late.state = Some(State::Stopped);
    spool.submit(Entry::Present(Box::new(late))).await.unwrap();
    spool.close().await.unwrap();
    let file = state_file(dir.path(), "user1");
    assert_eq!((&file["status"], &file["deleted"]), (&"deleted".into(), &true.into()));
    let found = read::find(dir.path(), "user1", "vectors").unwrap().value;
    assert_eq!((found.len(), found[0].snapshot.state), (1, Some(State::Deleted)));
}

#[tokio::test]
async fn a_live_container_is_preferred_over_a_deleted_one_of_its_name() {
    let dir = dir();
    let spool = open_small(dir.path());
    let mut old = Sample::new(1);
    let mut young = Sample { uid: Uuid::from_u128(2), created_at: old.created_at + 99, ..old.clone() };
    for to in [State::Pending, State::Stopped] {
        spool.submit(old.step_to(to)).await.unwrap();
    }
    spool.submit(young.step()).await.unwrap();
    // The old one's end comes late, and must not hide the young one.
    spool.submit(old.step_to(State::Deleted)).await.unwrap();
    spool.close().await.unwrap();
    let shown = |dir: &Path| state_file(dir, "user1")["container"]["target"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(shown(dir.path()), young.uid.to_string());
    let found = read::find(dir.path(), "user1", "vectors").unwrap().value;
    assert_eq!(found.iter().map(|f| f.snapshot.target.uid).collect::<Vec<_>>(), [young.uid, old.uid]);
    let lives: Vec<_> =
        read::timeline(dir.path(), "team", "user1").unwrap().value.into_iter().map(|m| m.target.uid).collect();
    assert_eq!(lives, [old.uid, old.uid, old.uid, young.uid]);

    // Lost or altered files are made again from the journal.
    fs::remove_file(dir.path().join("team/tenant_user1_vectors.json")).unwrap();
    open_small(dir.path()).close().await.unwrap();
    assert_eq!(shown(dir.path()), young.uid.to_string());
}

// Crashes.

const CHILD: &str = "BERTH_TEST_SPOOL_CHILD";

/// Not a test: the process that the next test kills. Prints each record that was acknowledged.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let spool = open_small(Path::new(&dir));
        let tasks = (1..=8).map(|n| {
            let spool = spool.clone();
            tokio::spawn(async move {
                let mut sample = Sample::new(n);
                if let Some(known) = spool.head(CLUSTER, sample.uid).await.unwrap() {
                    (sample.head, sample.state) = (known.head, known.state);
                }
                loop {
                    let entry = sample.step();
                    assert_eq!(spool.submit(entry.clone()).await.unwrap(), DURABLE);
                    let record = record(&entry);
                    println!("ACK {} {} {}", sample.uid, record.head().sequence, record.hash());
                }
            })
        });
        futures::future::join_all(tasks.collect::<Vec<_>>()).await;
    });
}

#[tokio::test]
async fn kill_9_in_the_midst_of_appends_loses_nothing_and_doubles_nothing() {
    let dir = dir();
    let mut acknowledged = vec![];
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::spool::tests::child_that_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 150 + 70 * round {
            let line = lines.next().expect("the child ended by itself").unwrap();
            if let Some(ack) = line.split("ACK ").nth(1) {
                acknowledged.push(ack.to_owned());
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had printed before it died was acknowledged as well; a cut line was not read by anyone.
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        acknowledged.extend(rest.iter().filter_map(|line| line.split("ACK ").nth(1)).map(ToOwned::to_owned));
        if acknowledged.last().is_some_and(|line| line.len() < 36 + 1 + 64) {
            acknowledged.pop();
        }
        let spool = open_small(dir.path());
        spool.close().await.unwrap();
        let stored = all(dir.path());
        let kept: Vec<_> = stored.iter().map(|s| format!("{} {} {}", s.chain.uid, s.sequence, s.hash)).collect();
        for ack in &acknowledged {
            assert_eq!(kept.iter().filter(|line| *line == ack).count(), 1, "round {round}: {ack}");
        }
        for pair in stored.windows(2).filter(|pair| pair[0].chain == pair[1].chain) {
            assert_eq!(pair[1].sequence, pair[0].sequence + 1, "round {round}: in order, once");
        }
    }
    println!("{} acknowledged records over 4 kills, all there once", acknowledged.len());
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_kept_aside_at_every_byte() {
    let source = dir();
    let spool = Spool::open(source.path(), "berth-0").unwrap();
    fill(&spool, 2, 3).await;
    spool.close().await.unwrap();
    let file = segment_files(source.path()).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let name = file.file_name().unwrap();
    let segment = scan::Segment::read(source.path(), 1).unwrap();
    let positions: Vec<_> = segment
        .walk()
        .filter_map(|met| if let frame::Met::Entry { position, .. } = met { Some(position) } else { None })
        .collect();
    let (last, end) = (*positions.last().unwrap(), whole.len() - frame::FRAME_HEADER);
    for cut in last..end {
        let torn = dir();
        fs::create_dir_all(torn.path().join(scan::JOURNAL)).unwrap();
        fs::write(torn.path().join(scan::JOURNAL).join(name), &whole[..cut]).unwrap();
        // Every byte is walked; the whole way through opening is taken at some of them.
        let segment = scan::Segment::read(torn.path(), 1).unwrap();
        let entries = segment.walk().filter(|met| matches!(met, frame::Met::Entry { .. })).count();
        assert_eq!(entries, positions.len() - 1, "cut at {cut}");
        if cut % 97 != 0 && cut > last + 2 && cut + 2 < end {
            continue;
        }
        let spool = open_small(torn.path());
        let damages = spool.health().damages;
        if cut == last {
            assert!(damages.is_empty(), "{damages:?}");
        } else {
            assert!(
                matches!(&damages[..], [damage] if damage.is_tail() && damage.offset == last as u64),
                "{damages:?}"
            );
            let aside: Vec<_> = fs::read_dir(torn.path().join(scan::ASIDE)).unwrap().collect();
            assert_eq!(fs::read(aside[0].as_ref().unwrap().path()).unwrap(), &whole[last..cut]);
        }
        let mut sample = Sample::new(2);
        sample.step();
        sample.step();
        assert_eq!(spool.head(CLUSTER, sample.uid).await.unwrap().unwrap().head, sample.head);
        assert_eq!(spool.submit(sample.step()).await.unwrap(), DURABLE);
        spool.close().await.unwrap();
        let spool = open_small(torn.path());
        assert!(spool.health().damages.is_empty(), "the end is in order again");
        assert_eq!(spool.head(CLUSTER, sample.uid).await.unwrap().unwrap().head, sample.head);
        spool.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_last_8_kib_costs_at_most_its_own_frame() {
    let source = dir();
    let spool = Spool::open(source.path(), "berth-0").unwrap();
    fill(&spool, 3, 4).await;
    spool.close().await.unwrap();
    let file = segment_files(source.path()).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let numbers = |bytes: &[u8]| -> Vec<(u64, usize, usize)> {
        let segment = scan::Segment::parse(file.clone(), 1, bytes.to_vec()).unwrap();
        segment
            .walk()
            .filter_map(|met| match met {
                frame::Met::Entry { position, number, payload } => {
                    Some((number, position, position + frame::FRAME_HEADER + payload.len()))
                }
                frame::Met::Seal | frame::Met::Damage { .. } => None,
            })
            .collect()
    };
    let before = numbers(&whole);
    assert_eq!(before.len(), 12);
    assert!(whole.len() > 8 << 10, "{}", whole.len());
    for at in whole.len() - (8 << 10)..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        let hit = |&(_, start, end): &(u64, usize, usize)| (start..end).contains(&at);
        let expected: Vec<_> = before.iter().filter(|frame| !hit(frame)).copied().collect();
        assert_eq!(numbers(&flipped), expected, "bit {} of byte {at}", at % 8);
    }
    // Through the whole way: opened, named, kept aside, written on.
    for hit in [4, 8] {
        let broken = dir();
        fs::create_dir_all(broken.path().join(scan::JOURNAL)).unwrap();
        let mut flipped = whole.clone();
        let (number, start, end) = before[hit];
        flipped[start + 100] ^= 4;
        fs::write(broken.path().join(scan::JOURNAL).join(file.file_name().unwrap()), &flipped).unwrap();
        let spool = open_small(broken.path());
        let damages = spool.health().damages;
        assert!(
            matches!(&damages[..], [d] if (d.number, d.offset, &d.kind) == (number, start as u64, &DamageKind::Frames(Some(1)))),
            "{damages:?}"
        );
        let aside: Vec<_> = fs::read_dir(broken.path().join(scan::ASIDE)).unwrap().collect();
        assert_eq!(fs::read(aside[0].as_ref().unwrap().path()).unwrap(), &flipped[start..end]);
        spool.close().await.unwrap();
        let spool = open_small(broken.path());
        let again = spool.health().damages;
        assert!(matches!(&again[..], [d] if d.number == number && d.kind == DamageKind::Missing(1)), "{again:?}");
        spool.close().await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_bytes_make_the_scan_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in 0usize..300) {
        let mut bytes = bytes;
        if magic + 4 <= bytes.len() {
            bytes[magic..magic + 4].copy_from_slice(frame::FRAME_MAGIC);
        }
        for first in [0, 1, u64::MAX] {
            if let Ok(segment) = scan::Segment::parse(PathBuf::from("x"), first, bytes.clone()) {
                let mut scanned = scan::Scanned::default();
                scan::scan_segment(&segment, true, &mut scanned, &mut |_, _| Ok(()));
            }
        }
    }
}

// A failing disk.

/// Fails when its countdown of writes and syncs is over, and works again once healed.
#[derive(Clone)]
struct Failing {
    os: Os,
    left: Arc<AtomicI64>,
    healed: Arc<AtomicBool>,
    /// Writes half of the bytes before it fails.
    short: bool,
}

impl Failing {
    fn check(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 && !self.healed.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }
}

struct FailingFile(Failing, Box<dyn Append>);

impl Disk for Failing {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        self.check()?;
        Ok(Box::new(FailingFile(self.clone(), self.os.create(path)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?;
        self.os.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check()?;
        self.os.sync_dir(dir)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.os.make_dir(path)
    }
}

impl Append for FailingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.0.check() {
            if self.0.short {
                self.1.append(&bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        self.1.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.check()?;
        self.1.sync()
    }
}

#[tokio::test]
async fn after_a_failed_write_or_sync_nothing_more_is_acknowledged() {
    for fails_at in 0..60 {
        let dir = dir();
        let disk = Failing {
            os: Os::default(),
            left: Arc::new(AtomicI64::new(fails_at)),
            healed: Arc::new(AtomicBool::new(false)),
            short: fails_at % 2 == 0,
        };
        let opened = Spool::open_on(Arc::new(disk.clone()), Arc::default(), dir.path(), "berth-0", 4 << 10);
        let Ok(spool) = opened else { continue };
        let mut sample = Sample::new(1);
        let mut acknowledged = sample.head;
        let mut failed = false;
        for _ in 0..30 {
            let entry = sample.step();
            match spool.submit(entry).await {
                Ok(outcome) => {
                    assert!(!failed, "acknowledged after a failure");
                    assert_eq!(outcome, DURABLE);
                    acknowledged = sample.head;
                }
                Err(error) => {
                    failed = true;
                    assert!(error.explain().contains("injected"), "{}", error.explain());
                    disk.healed.store(true, Ordering::SeqCst);
                }
            }
        }
        assert_eq!(spool.health().poisoned.is_some(), failed);
        let head = spool.head(CLUSTER, sample.uid).await.unwrap().map_or(Head::GENESIS, |known| known.head);
        assert_eq!(head, acknowledged, "the known head is the last one acknowledged");
        spool.close().await.unwrap();
        let spool = open_small(dir.path());
        let head = spool.head(CLUSTER, sample.uid).await.unwrap().map_or(Head::GENESIS, |known| known.head);
        assert!(head.sequence >= acknowledged.sequence, "failing at {fails_at}: nothing acknowledged is lost");
        spool.close().await.unwrap();
    }
}

/// Measures; run with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, proves nothing"]
async fn measure_syncs_size_and_verification() {
    let dir = dir();
    let spool = Spool::open(dir.path(), "berth-0").unwrap();
    let before = spool.health().journal_syncs;
    let start = std::time::Instant::now();
    let tasks = (0..256).map(|n| {
        let spool = spool.clone();
        tokio::spawn(async move {
            let mut sample = Sample::new(n);
            for _ in 0..80 {
                spool.submit(sample.step()).await.unwrap();
            }
        })
    });
    futures::future::join_all(tasks.collect::<Vec<_>>()).await;
    let took = start.elapsed();
    let (journal, other) = (spool.health().journal_syncs - before, spool.health().other_syncs);
    let closing = std::time::Instant::now();
    spool.close().await.unwrap();
    println!(
        "20480 records: {journal} syncs of the journal, {other} others so far, in {took:?}; closed in {:?}",
        closing.elapsed()
    );
    let bytes: u64 = segment_files(dir.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    println!("{} bytes of journal for each record", bytes / 20480);
    let opening = std::time::Instant::now();
    let spool = Spool::open(dir.path(), "berth-0").unwrap();
    println!("opened in {:?}", opening.elapsed());
    spool.close().await.unwrap();
    let verifying = std::time::Instant::now();
    let verified = crate::ledger::Reader::Spool(dir.path().to_owned()).verify().await.unwrap();
    assert!(verified.is_clean());
    println!("verified {} records in {:?}", verified.report.records, verifying.elapsed());
}
