//! Brings into the database what this replica's spool holds and the database does not, in order, and for ever.
//!
//! Owns: the task, its progress, and that a rewind of the database is answered with the whole tail (rule 5).
//! Must never: hold up what is new (the database's writer takes new entries first), or take anything from the spool that
//! is not certain to be in the database.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    entry::Entry,
    error::LedgerError,
    lost::Loss,
    postgres::{self, Standing, StoredSpool},
    record::Micros,
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
            notes.rewound();
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

/// What the others were told of this spool last, and what was told of as lost.
#[derive(Default)]
struct Notes {
    /// When that was tried last.
    tried: Option<Instant>,
    told: Option<Progress>,
    /// The database has lost something since it was told.
    is_rewound: bool,
    /// The losses that the audit has, by their operations.
    losses: HashSet<Uuid>,
}

impl Notes {
    /// The database is older than it was: it may have forgotten everything that it was told.
    fn rewound(&mut self) {
        *self = Self { is_rewound: true, ..Self::default() };
    }

    /// Tells them again when it is time: also of a spool that takes long to be brought, or its replica would seem to be gone.
    async fn keep_up(&mut self, shared: &Shared, spool: &Spool) {
        if self.tried.is_some_and(|at| at.elapsed() < NOTE) {
            return;
        }
        // Seldom, and of all that the task awaits the largest.
        let noted = Box::pin(self.note(shared, spool)).await;
        self.tried = Some(Instant::now());
        if let Err(error) = noted {
            debug!(reason = error.reason(), "how far this spool is could not be noted");
        }
    }

    /// Tells the others how far this spool is, counts those of them that nobody tells of, and names what is lost for good.
    /// What the database says of this spool shows a rewind also where this replica writes nothing else, and after a restart.
    async fn note(&mut self, shared: &Shared, spool: &Spool) -> Result<(), LedgerError> {
        let spools = shared.remote.spools().await?;
        // A volume that this replica had left behind, and has again, is under another name.
        let is_own = |known: &&StoredSpool| known.is_of(&shared.writer, spool.volume());
        let own = spools.iter().filter(is_own).min_by_key(|known| known.writer != shared.writer);
        // Just after an outage, all of them have been silent for as long as it lasted.
        if own.is_some_and(|own| own.is_told_of()) {
            let silent = spools.iter().filter(|known| known.writer != shared.writer && known.is_out_of_reach());
            shared.counters.out_of_reach.store(silent.count() as u64, Ordering::Relaxed);
        }
        let said = own.map_or(0, |own| own.acknowledged);
        if self.told.is_some_and(|before| said < before.acknowledged) {
            let answered = shared.rewound().answered;
            rewound(shared, spool, answered).await;
            self.rewound();
        } else if self.told.is_none() && said < spool.progress().acknowledged {
            // It is told every ten seconds, so a little is sent twice.
            spool.rewind_to(said);
        }
        let progress @ Progress { first, acknowledged, last } = spool.progress();
        // After a start alone, what was told last may be as old as that, and segments may have gone since; but a database
        // that never heard of the replica is another one.
        if self.is_rewound || !spools.iter().any(|known| known.replica() == shared.writer) {
            let tail = Loss::of_tail(&shared.writer, spool.volume(), said, first);
            // Before the database is told what this spool has now: that is the last sign of it.
            self.tell(shared, tail).await?;
        }
        if shared.remote.note_spool(spool.volume(), last, acknowledged).await? {
            warn!(
                "the database knows of another volume of this replica, or of a longer spool: it was lost or replaced, and what only that had is not here"
            );
        }
        self.told = Some(progress);
        self.is_rewound = false;
        // One that is in use again under another name is not gone.
        let is_used = |gone: &StoredSpool| spools.iter().any(|known| !known.gone && known.volume == gone.volume);
        let losses: Vec<_> = spools.iter().filter(|gone| !is_used(gone)).filter_map(Loss::of_volume).collect();
        self.tell(shared, losses).await
    }

    /// Tells the audit of losses; each of them once, whichever replica tells of it, and how often.
    async fn tell(&mut self, shared: &Shared, losses: impl IntoIterator<Item = Loss>) -> Result<(), LedgerError> {
        for loss in losses {
            if self.losses.contains(&loss.id()) {
                continue;
            }
            let (age, entry) = (shared.shelf.age(), loss.entry(now()));
            // Else somebody has told of it before.
            if shared.remote.import(vec![entry.clone()]).await?.added > 0 {
                warn!(loss = loss.message(), "entries are lost; the audit tells of it");
                shared.shelf.keep_later(age, vec![entry]);
            }
            self.losses.insert(loss.id());
        }
        Ok(())
    }
}

fn now() -> Micros {
    Micros(Timestamp::now().as_microsecond())
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
        let stretch = with_losses(spool, &shared.writer, from, stretch);
        if !stretch.entries.is_empty() {
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

/// With the records that name what could not be read of it: the database gets them in the same import, before the spool is told
/// that it has everything up to there.
fn with_losses(spool: &Spool, writer: &str, behind: u64, mut stretch: Stretch) -> Stretch {
    stretch.entries.extend(damaged(spool, writer, behind, stretch.up_to));
    stretch
}

/// The entries that name what cannot be read of a spool, from behind one number up to another.
pub(super) fn damaged(spool: &Spool, writer: &str, behind: u64, up_to: u64) -> Vec<Entry> {
    let damages = spool.health().damages;
    let losses = Loss::in_journal(writer, spool.volume(), &damages, behind, up_to);
    losses.iter().map(|loss| loss.entry(now())).collect()
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
        Spool::open_beside(&folder, &writer).map(|spool| (spool, writer))
    });
    let (spool, writer) = opened.await.map_err(|_| LedgerError::Closed)??;
    // Its own name would be taken for a writer that comes back: this process writes under another one.
    let home = postgres::Home::open(source, &format!("{writer}/replay")).await?;
    let mut replayed = Replayed { writer: writer.clone(), entries: 0, added: 0, quarantined: 0, damages: vec![] };
    let Progress { first, acknowledged, last } = spool.progress();
    let mut at = first.saturating_sub(1);
    let mut run = Run::new(last.saturating_sub(at));
    while at < last {
        let stretch = spool.after(at, STRETCH).await?;
        let entries = stretch.entries.len() as u64;
        // What the database has already is not lost with the spool's copy of it.
        let stretch = with_losses(&spool, &writer, at.max(acknowledged), stretch);
        replayed.entries += entries;
        if !stretch.entries.is_empty() {
            let imported = home.import(stretch.entries).await?;
            replayed.added += imported.added;
            replayed.quarantined += imported.quarantined;
        }
        at = stretch.up_to;
        let pace = run.done(entries, last.saturating_sub(at));
        if run.is_time_to_say() {
            told(pace);
        }
    }
    let damages = spool.health().damages;
    replayed.damages = damages.iter().filter(|damage| !damage.is_tail()).map(ToString::to_string).collect();
    spool.acknowledge(at);
    home.settle_spool(&writer, spool.volume(), at, gone).await?;
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
