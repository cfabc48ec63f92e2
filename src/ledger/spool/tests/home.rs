//! The journal as the ledger's only home.

use std::os::unix::fs::PermissionsExt;

use super::*;

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

#[tokio::test]
async fn nothing_is_acknowledged_without_a_sync_and_no_file_is_made_without_one_of_its_folder() {
    let dir = dir();
    let spool = Spool::open(&dir.path().join("spool"), "berth-0").unwrap();
    // Three new folders, each made last by its parent; a segment and the volume's id, and their names.
    assert_eq!((spool.health().journal_syncs, spool.health().other_syncs), (0, 3 + 2 + 2));
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
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
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
        std::thread::sleep(std::time::Duration::from_millis(100));
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
    let spool = Spool::open_on(disk, syncs, dir.path(), "berth-0", Limits::default()).unwrap();
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
    println!("256 concurrent records: {here} syncs of the journal on this disk, {slow} where one takes 100 ms");
    assert!((1..256).contains(&here), "{here}");
    assert!((1..=32).contains(&slow), "{slow}");
}
