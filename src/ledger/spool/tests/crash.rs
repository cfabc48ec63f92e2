//! Killed processes and torn ends.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

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
            .args(["--exact", "ledger::spool::tests::crash::child_that_appends_until_it_is_killed", "--nocapture"])
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

const BESIDE: &str = "BERTH_TEST_SPOOL_CHILD_BESIDE";

/// So little that the child rotates, trims and thins all the time.
const TINY: Limits =
    Limits { segment_bytes: 4 << 10, tail_age: Duration::ZERO, tail_bytes: 16 << 10, most_bytes: 64 << 10 };

/// Not a test: as above, beside a database that takes everything, sooner or later, and says so.
#[test]
fn child_that_replays_until_it_is_killed() {
    let Some(dir) = std::env::var_os(BESIDE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let spool = open_with(Path::new(&dir), TINY);
        let seed = u128::from(std::process::id()) << 8;
        let writers = (1..=4).map(|n| {
            let spool = spool.clone();
            tokio::spawn(async move {
                let mut sample = Sample::new(seed + n);
                for round in 0.. {
                    let entry = sample.step();
                    assert_eq!(spool.keep(entry.clone()).await.unwrap(), DURABLE);
                    println!("ACK {}", record(&entry).hash());
                    drop(spool.keep(sample.usage(round)).await);
                    spool.keep_later(vec![sample.operation(seed + 100 * n + u128::try_from(round).unwrap())]);
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        loop {
            spool.behind().await;
            let stretch = spool.after(spool.progress().acknowledged, 5).await.unwrap();
            for entry in stretch.entries.iter().filter(|entry| !matches!(entry, Entry::Usage(_))) {
                println!("DB {}", record(entry).hash());
            }
            spool.acknowledge(stretch.up_to);
            assert!(writers.iter().all(|writer| !writer.is_finished()));
        }
    });
}

#[tokio::test]
async fn kill_9_beside_a_database_loses_nothing_that_only_the_journal_had() {
    let dir = dir();
    let (mut acknowledged, mut stored) = (vec![], std::collections::BTreeSet::new());
    let mut trimmed = 1;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::spool::tests::crash::child_that_replays_until_it_is_killed", "--nocapture"])
            .env(BESIDE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        let mut take = |line: &str| {
            // A cut line was not read by anyone.
            let hash = |word: &str| line.split(word).nth(1).filter(|hash| hash.len() == 64).map(ToOwned::to_owned);
            acknowledged.extend(hash("ACK "));
            stored.extend(hash("DB "));
        };
        while seen < 200 + 90 * round {
            take(&lines.next().expect("the child ended by itself").unwrap());
            seen += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(|line| take(&line));

        let spool = open_with(dir.path(), TINY);
        assert_eq!(spool.health().damages.iter().filter(|damage| !damage.is_tail()).count(), 0, "round {round}");
        let Progress { first, acknowledged: number, last } = spool.progress();
        assert!(first >= trimmed && number >= first - 1 && last >= number, "round {round}");
        trimmed = first;
        let replayed = spool.after(number, usize::MAX).await.unwrap();
        assert_eq!(replayed.up_to, last);
        let has: std::collections::BTreeSet<_> = replayed
            .entries
            .iter()
            .filter(|entry| !matches!(entry, Entry::Usage(_)))
            .map(|entry| record(entry).hash().to_string())
            .collect();
        for hash in &acknowledged {
            assert!(stored.contains(hash) || has.contains(hash), "round {round}: {hash}");
        }
        spool.close().await.unwrap();
    }
    println!("{} acknowledged, {} of them replayed, the journal begins at {trimmed}", acknowledged.len(), stored.len());
    assert!(trimmed > 1 && !stored.is_empty());
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
