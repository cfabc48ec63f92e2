//! Brings into the database what this replica's spool holds and the database does not, in order, and for ever.
//!
//! Owns: the task, its progress, and that a rewind of the database is answered with the whole tail (rule 5).
//! Must never: hold up what is new (the database's writer takes new entries first), or take anything from the spool that
//! is not certain to be in the database.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    beside::Shared,
    error::LedgerError,
    postgres,
    spool::{self, Spool},
};

/// Entries in one import.
const STRETCH: usize = 1000;
/// How often progress is said, while there is some.
const SAY: Duration = Duration::from_secs(5);
/// How often the database is told how far this spool is.
const NOTE: Duration = Duration::from_secs(10);
/// How soon an import that failed is tried again, if the database seems to be there.
const AGAIN: Duration = Duration::from_millis(500);

/// Works until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let Some(spool) = shared.shelf.opened().await else { return };
    let mut rewinds = shared.remote.rewinds();
    let mut standing = shared.remote.standing();
    let (mut noted, mut told) = (None, false);
    loop {
        shared.up().await;
        if rewinds.has_changed().unwrap_or(false) {
            rewinds.mark_unchanged();
            warn!("the database has lost what it had acknowledged; everything in the spool's tail is sent again");
            spool.rewind();
        }
        let before = shared.counters.replayed.load(Ordering::Relaxed);
        if !replay(&shared, &spool).await {
            told = false;
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        if noted.is_none_or(|at: Instant| at.elapsed() >= NOTE) {
            let progress = spool.progress();
            if let Err(error) = shared.remote.note_spool(progress.last, progress.acknowledged).await {
                tracing::debug!(reason = error.reason(), "how far this spool is could not be noted");
            }
            noted = Some(Instant::now());
        }
        if !told || shared.counters.replayed.load(Ordering::Relaxed) > before {
            shared.news.send_modify(|times| *times += 1);
            told = true;
        }
        tokio::select! {
            () = spool.behind() => {}
            _ = rewinds.changed() => { rewinds.mark_changed(); }
            changed = standing.changed() => {
                if changed.is_err() {
                    return;
                }
                told = told && shared.remote.is_up();
            }
            () = tokio::time::sleep(NOTE) => {}
        }
    }
}

/// Until the database has everything; false if it went away before.
async fn replay(shared: &Shared, spool: &Spool) -> bool {
    let mut run: Option<Run> = None;
    loop {
        let progress = spool.progress();
        let left = progress.last.saturating_sub(progress.acknowledged);
        shared.counters.behind.store(left, Ordering::Relaxed);
        if left == 0 {
            if let Some(run) = run {
                run.over();
            }
            return true;
        }
        let run = run.get_or_insert_with(|| Run::new(left));
        let stretch = match spool.after(progress.acknowledged, STRETCH).await {
            Ok(stretch) => stretch,
            Err(error) => {
                warn!(reason = error.reason(), error = error.explain(), "the spool cannot be read; trying again");
                return false;
            }
        };
        let entries = stretch.entries.len() as u64;
        if entries > 0
            && let Err(error) = shared.remote.import(stretch.entries).await
        {
            warn!(reason = error.reason(), error = error.explain(), left, "replay stops until the database takes it");
            return false;
        }
        spool.acknowledge(stretch.up_to);
        shared.counters.replayed.fetch_add(entries, Ordering::Relaxed);
        run.done(entries, left.saturating_sub(entries));
    }
}

/// What [`once`] came to.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Whose spool it is.
    pub writer: String,
    /// Entries that were read.
    pub entries: u64,
    /// Those that were new to the database.
    pub added: u64,
    /// Those that PostgreSQL refused; they are in the quarantine.
    pub quarantined: u64,
    /// What could not be read, in words.
    pub damages: Vec<String>,
}

/// Brings everything that the spool in `dir` holds into the database, as the replica that it belongs to; and, if it is
/// `gone`, declares that nothing more is expected from it.
pub async fn once(source: &postgres::Source, dir: &Path, gone: bool) -> Result<Replayed, LedgerError> {
    let folder = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let writer = spool::read::writer(&folder)?;
        Spool::open(&folder, &writer).map(|spool| (spool, writer))
    });
    let (spool, writer) = opened.await.map_err(|_| LedgerError::Closed)??;
    // Its own name would be taken for a writer that comes back: this process writes under another one.
    let home = postgres::Home::open(source, &format!("{writer}/replay")).await?;
    let damages = spool.health().damages.iter().filter(|damage| !damage.is_tail()).map(ToString::to_string).collect();
    let mut replayed = Replayed { writer: writer.clone(), entries: 0, added: 0, quarantined: 0, damages };
    let mut at = spool.progress().first.saturating_sub(1);
    while at < spool.progress().last {
        let stretch = spool.after(at, STRETCH).await?;
        replayed.entries += stretch.entries.len() as u64;
        if !stretch.entries.is_empty() {
            let imported = home.import(stretch.entries).await?;
            replayed.added += imported.added;
            replayed.quarantined += imported.quarantined;
        }
        at = stretch.up_to;
    }
    spool.acknowledge(at);
    home.settle_spool(&writer, at, gone).await?;
    home.close().await;
    spool.close().await?;
    Ok(replayed)
}

/// One stretch of time in which there was something to replay.
struct Run {
    began: Instant,
    said: Instant,
    entries: u64,
}

impl Run {
    fn new(left: u64) -> Self {
        if left > STRETCH as u64 {
            info!(left, "replaying the spool into the database");
        }
        Self { began: Instant::now(), said: Instant::now(), entries: 0 }
    }

    fn done(&mut self, entries: u64, left: u64) {
        self.entries += entries;
        if self.said.elapsed() >= SAY {
            self.said = Instant::now();
            let rate = self.rate();
            info!(left, per_second = rate, seconds_to_go = left / rate.max(1), "replaying the spool");
        }
    }

    fn rate(&self) -> u64 {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.entries.saturating_mul(1000) / millis
    }

    fn over(self) {
        if self.entries > 0 {
            info!(entries = self.entries, per_second = self.rate(), "the database has everything that was on the spool");
        }
    }
}
