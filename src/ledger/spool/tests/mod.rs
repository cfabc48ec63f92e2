//! What the spool promises, on a real disk and on a failing one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{disk::Append, *};
use crate::{
    ledger::{
        Backend, Micros,
        samples::{CLUSTER, Sample, record},
    },
    lifecycle::State,
    tally,
};

mod beside;
mod crash;
mod damage;
mod failing;
mod home;
mod measure;
mod power;
mod room;
mod state_files;
mod trim;

const DURABLE: Outcome = Outcome::Durable(Backend::Spool);

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Segments so short that several exist.
const SHORT: Limits =
    Limits { segment_bytes: 8 << 10, tail_age: Duration::from_secs(86_400), tail_bytes: 1 << 30, most_bytes: 4 << 30 };

fn open_with(dir: &Path, limits: Limits) -> Spool {
    Spool::open_with(dir, "berth-0", limits).unwrap()
}

fn open_small(dir: &Path) -> Spool {
    open_with(dir, SHORT)
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

/// What a replay brings of these for certain: a snapshot that a later one overwrites is left out.
fn certain(entries: &[Entry]) -> Vec<Entry> {
    let bare = |entry: &Entry| match entry {
        Entry::Chained { record, snapshot } => {
            Entry::Carried { record: record.clone(), target: snapshot.target.clone() }
        }
        entry => entry.clone(),
    };
    entries.iter().map(bare).collect()
}

fn all(dir: &Path) -> Vec<crate::ledger::Stored> {
    read::chains(dir).unwrap().value.map(Result::unwrap).collect()
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    scan::segments(dir).unwrap().into_iter().map(|first| scan::segment_path(dir, first)).collect()
}
