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

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{
    error::LedgerError,
    postgres::{self, Standing, StoredSpool},
    shared::{Rewound, Shared},
    spool::{self, Progress, Spool, Stretch},
};
use crate::broken::{self, Variant};

/// Entries in one import; the spool ends it earlier, by bytes. The more, the more records of an object a head passes at once.
const STRETCH: usize = 16_000;
/// How often progress is said, while there is some.
const SAY: Duration = Duration::from_secs(5);
/// How often the database is told how far this spool is.
const NOTE: Duration = Duration::from_secs(10);
/// How soon an import that failed is tried again, if the database seems to be there.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 500 });

/// Works until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut rewinds = shared.remote.rewinds();
    let mut standing = shared.remote.standing();
    let Some(spool) = opened(&shared, &mut rewinds, &mut standing).await else { return };
    let (mut notes, mut told) = (Notes::default(), false);
    loop {
        shared.up().await;
        let seen = *rewinds.borrow_and_update();
        if seen != shared.rewound().answered {
            rewound(&shared, &spool, seen).await;
        }
        let before = shared.counters.replayed.load(Ordering::Relaxed);
        // Before what it has to bring, so that the others know of it.
        notes.keep_up(&shared, &spool).await;
        let all = replay(&shared, &spool, &mut notes).await;
        shared.counters.goes(None);
        if !all {
            told = false;
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        if !told || shared.counters.replayed.load(Ordering::Relaxed) > before {
            shared.news.send_modify(|times| *times += 1);
            told = true;
        }
        tokio::select! {
            () = spool.behind() => {}
            changed = rewinds.changed() => if changed.is_err() { return },
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

/// The spool, as soon as there is one. Until then there is nothing to replay, and what statuses carry can go as soon as the
/// database is there.
async fn opened(
    shared: &Shared,
    rewinds: &mut watch::Receiver<u64>,
    standing: &mut watch::Receiver<Standing>,
) -> Option<Spool> {
    loop {
        tokio::select! {
            spool = shared.shelf.opened() => return spool,
            changed = rewinds.changed() => {
                changed.ok()?;
                *shared.rewound() = Rewound { answered: *rewinds.borrow_and_update(), at: Some(Instant::now()) };
            }
            changed = standing.changed() => {
                changed.ok()?;
                if matches!(*standing.borrow_and_update(), Standing::Up) {
                    shared.news.send_modify(|times| *times += 1);
                }
            }
        }
    }
}

async fn rewound(shared: &Shared, spool: &Spool, seen: u64) {
    warn!("the database has lost what it had acknowledged; everything in the spool's tail is sent again");
    spool.rewind();
    // Only then is it certain what the tail has, and what nobody has.
    spool.flush().await;
    *shared.rewound() = Rewound { answered: seen, at: Some(Instant::now()) };
}

/// What the others were told of this spool last, and when.
#[derive(Default)]
struct Notes(Option<(Instant, Progress)>);

impl Notes {
    /// Tells them again when it is time: also of a spool that takes long to be brought, or its replica would seem to be gone.
    async fn keep_up(&mut self, shared: &Shared, spool: &Spool) {
        if self.0.is_some_and(|(at, _)| at.elapsed() < NOTE) {
            return;
        }
        match note(shared, spool, self.0.map(|(_, progress)| progress)).await {
            Ok(progress) => self.0 = Some((Instant::now(), progress)),
            Err(error) => debug!(reason = error.reason(), "how far this spool is could not be noted"),
        }
    }
}

/// Tells the others how far this spool is, and counts those of them that nobody tells of. What the database says of it
/// shows a rewind also where this replica writes nothing else, and after a restart.
async fn note(shared: &Shared, spool: &Spool, before: Option<Progress>) -> Result<Progress, LedgerError> {
    let spools = shared.remote.spools().await?;
    let known = spools.iter().find(|known| known.writer == shared.writer);
    // Just after an outage, all of them have been silent for as long as it lasted.
    if known.is_some_and(StoredSpool::is_told_of) {
        let silent = spools.iter().filter(|other| other.writer != shared.writer && other.is_out_of_reach());
        shared.counters.out_of_reach.store(silent.count() as u64, Ordering::Relaxed);
    }
    let said = known.map_or(0, |known| known.acknowledged);
    let progress = spool.progress();
    if known.is_some_and(|known| known.last > progress.last) {
        warn!(
            "the database knows of a longer spool of this replica: its volume was lost or replaced, and what only it had is not here"
        );
        shared.remote.leave_spool_behind().await?;
    }
    match before {
        Some(before) if said < before.acknowledged => {
            let answered = shared.rewound().answered;
            rewound(shared, spool, answered).await;
        }
        // It is told every ten seconds, so a little is sent twice.
        None if said < progress.acknowledged => spool.rewind_to(said),
        _ => {}
    }
    let progress = spool.progress();
    shared.remote.note_spool(progress.last, progress.acknowledged).await?;
    Ok(progress)
}

/// Until the database has everything; false if it went away before.
async fn replay(shared: &Shared, spool: &Spool, notes: &mut Notes) -> bool {
    let mut run: Option<Run> = None;
    // Read while the stretch before it was written: behind which number it begins.
    let mut ahead: Option<(u64, Stretch)> = None;
    loop {
        let progress = spool.progress();
        let left = progress.last.saturating_sub(progress.acknowledged);
        if left == 0 {
            if let Some(run) = run {
                run.over();
            }
            return true;
        }
        let run = run.get_or_insert_with(|| Run::new(left));
        let from = progress.acknowledged + u64::from(broken::is(Variant::ReplayFromWrongOffset));
        let read = match ahead.take().filter(|(behind, _)| *behind == from) {
            Some((_, stretch)) => Ok(stretch),
            None => spool.after(from, STRETCH).await,
        };
        let stretch = match read {
            Ok(stretch) => stretch,
            Err(error) => {
                warn!(reason = error.reason(), error = error.explain(), "the spool cannot be read; trying again");
                return false;
            }
        };
        let (entries, up_to) = (stretch.entries.len() as u64, stretch.up_to);
        if entries > 0 {
            let (imported, next) = tokio::join!(shared.remote.import(stretch.entries), spool.after(up_to, STRETCH));
            if let Err(error) = imported {
                warn!(
                    reason = error.reason(),
                    error = error.explain(),
                    left,
                    "replay stops until the database takes it"
                );
                return false;
            }
            // What could not be read is read again, and said then.
            ahead = next.ok().map(|next| (up_to, next));
        }
        spool.acknowledge(up_to);
        shared.counters.replayed.fetch_add(entries, Ordering::Relaxed);
        let pace = run.done(entries, left.saturating_sub(entries));
        shared.counters.goes(Some(pace));
        if run.is_time_to_say() {
            let Pace { left, per_second, seconds_to_go } = pace;
            info!(left, per_second, seconds_to_go, "replaying the spool");
        }
        notes.keep_up(shared, spool).await;
    }
}

/// How a replay goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Entries that are left.
    pub left: u64,
    /// Entries a second, on average since it began.
    pub per_second: u64,
    /// Seconds that are left at this pace.
    pub seconds_to_go: u64,
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
/// `gone`, declares that nothing more is expected from it. Every few seconds it says by `told` how it goes.
pub async fn once(
    source: &postgres::Source,
    dir: &Path,
    gone: bool,
    mut told: impl FnMut(Pace),
) -> Result<Replayed, LedgerError> {
    let folder = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let writer = spool::read::writer(&folder)?;
        Spool::open(&folder, &writer).map(|spool| (spool, writer))
    });
    let (spool, writer) = opened.await.map_err(|_| LedgerError::Closed)??;
    // Its own name would be taken for a writer that comes back: this process writes under another one.
    let home = postgres::Home::open(source, &format!("{writer}/replay")).await?;
    let mut replayed = Replayed { writer: writer.clone(), entries: 0, added: 0, quarantined: 0, damages: vec![] };
    let mut at = spool.progress().first.saturating_sub(1);
    let mut run = Run::new(spool.progress().last.saturating_sub(at));
    while at < spool.progress().last {
        let stretch = spool.after(at, STRETCH).await?;
        let entries = stretch.entries.len() as u64;
        replayed.entries += entries;
        if !stretch.entries.is_empty() {
            let imported = home.import(stretch.entries).await?;
            replayed.added += imported.added;
            replayed.quarantined += imported.quarantined;
        }
        at = stretch.up_to;
        let pace = run.done(entries, spool.progress().last.saturating_sub(at));
        if run.is_time_to_say() {
            told(pace);
        }
    }
    let damages = spool.health().damages;
    replayed.damages = damages.iter().filter(|damage| !damage.is_tail()).map(ToString::to_string).collect();
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

    /// Counts; answers how it goes.
    fn done(&mut self, entries: u64, left: u64) -> Pace {
        self.entries += entries;
        let per_second = self.rate();
        Pace { left, per_second, seconds_to_go: left / per_second.max(1) }
    }

    /// Whether that is worth saying again.
    fn is_time_to_say(&mut self) -> bool {
        let is_time = self.said.elapsed() >= SAY;
        if is_time {
            self.said = Instant::now();
        }
        is_time
    }

    fn rate(&self) -> u64 {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.entries.saturating_mul(1000) / millis
    }

    fn over(self) {
        if self.entries > 0 {
            info!(
                entries = self.entries,
                per_second = self.rate(),
                "the database has everything that was on the spool"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_what_was_done_a_second_and_what_is_left_at_that() {
        let mut run = Run::new(0);
        run.began = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let Pace { left, per_second, seconds_to_go } = run.done(1_000, 10_000);
        assert!(left == 10_000 && (400..=500).contains(&per_second), "{per_second}");
        assert_eq!(seconds_to_go, left / per_second);
        assert!(!run.is_time_to_say());
    }
}
