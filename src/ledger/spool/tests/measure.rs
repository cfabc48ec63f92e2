//! Measurements; run with `--ignored --nocapture`.

use super::*;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, proves nothing"]
async fn measure_an_outage_and_its_replay() {
    const RECORDS: usize = 100_352;
    let dir = dir();
    let spool = Spool::open(dir.path(), "berth-0").unwrap();
    let before = spool.health().journal_syncs;
    let start = std::time::Instant::now();
    let tasks = (0..256).map(|n| {
        let spool = spool.clone();
        tokio::spawn(async move {
            let mut sample = Sample::new(n);
            for _ in 0..RECORDS / 256 {
                spool.keep(sample.step()).await.unwrap();
            }
        })
    });
    futures::future::join_all(tasks.collect::<Vec<_>>()).await;
    let (took, syncs) = (start.elapsed(), spool.health().journal_syncs - before);
    let each = syncs as f64 / RECORDS as f64;
    println!("{RECORDS} kept in {took:?}: {syncs} syncs, {each:.4} for each record, {} bytes", spool.health().bytes);
    for most in [100, 1000] {
        let (start, mut number, mut entries) = (std::time::Instant::now(), 0, 0);
        while number < spool.progress().last {
            let stretch = spool.after(number, most).await.unwrap();
            (number, entries) = (stretch.up_to, entries + stretch.entries.len());
        }
        assert_eq!(entries, RECORDS);
        let rate = RECORDS as f64 / start.elapsed().as_secs_f64();
        println!("replayed by {most}: {:?}, {rate:.0} records a second", start.elapsed());
    }
    let (start, mut sample) = (std::time::Instant::now(), Sample::new(1));
    let mut called = Duration::ZERO;
    for _ in 0..100 {
        let entries: Vec<_> = (0..100).map(|_| sample.step()).collect();
        let call = std::time::Instant::now();
        spool.keep_later(entries);
        called += call.elapsed();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while spool.progress().last < RECORDS as u64 + 10_000 - spool.health().tail_dropped {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let dropped = spool.health().tail_dropped;
    println!(
        "a tail of 10000, {dropped} dropped: {:?} for each call of 100, all in {:?}",
        called / 100,
        start.elapsed()
    );
    spool.close().await.unwrap();
}
