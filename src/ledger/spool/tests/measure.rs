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
