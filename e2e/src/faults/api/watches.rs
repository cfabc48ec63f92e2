//! Events of watches: one line of JSON each, which can be held, swallowed, or come in another order.
//!
//! Owns: the order in which a client sees them. Must never: lose one that it was not told to swallow.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::{WatchAct, rules};
use crate::faults::lock;

/// Wakes whoever follows a watch when something was said about watches.
pub(super) type Said = watch::Receiver<usize>;

/// What was said about watches, and who is to be told.
pub(super) struct Watches {
    /// Paths whose events are held.
    held_paths: Mutex<Vec<String>>,
    /// Paths whose next events are swallowed, and how many still.
    dropped: Mutex<Vec<(String, u64)>>,
    /// What was done so far, by number; each watch follows from where it began.
    acts: Mutex<Vec<(String, WatchAct)>>,
    said: watch::Sender<usize>,
    held: AtomicU64,
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            held_paths: Mutex::default(),
            dropped: Mutex::default(),
            acts: Mutex::default(),
            said: watch::Sender::new(0),
            held: AtomicU64::new(0),
        }
    }
}

impl Watches {
    pub(super) fn act(&self, path: &str, act: WatchAct) {
        match act {
            WatchAct::Hold => lock(&self.held_paths).push(path.to_owned()),
            WatchAct::Release => lock(&self.held_paths).retain(|held| held != path),
            WatchAct::Drop(count) => lock(&self.dropped).push((path.to_owned(), count)),
            WatchAct::Reorder | WatchAct::Gone | WatchAct::End => {}
        }
        let count = {
            let mut acts = lock(&self.acts);
            acts.push((path.to_owned(), act));
            acts.len()
        };
        self.said.send_replace(count);
    }

    pub(super) fn fair(&self) {
        lock(&self.dropped).clear();
        let paths = std::mem::take(&mut *lock(&self.held_paths));
        for path in paths {
            self.act(&path, WatchAct::Release);
        }
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// A watch that hears of everything that is said from now on.
    pub(super) fn open(self: &Arc<Self>, path: &str) -> (Watch, Said) {
        let said = self.said.subscribe();
        let seen = *said.borrow();
        let holding = lock(&self.held_paths).iter().any(|held| path.contains(held.as_str()));
        let watch = Watch {
            all: Arc::clone(self),
            path: path.to_owned(),
            buffer: BytesMut::new(),
            holding,
            kept: VecDeque::new(),
            reorder: false,
            seen,
        };
        (watch, said)
    }

    fn swallows(&self, path: &str) -> bool {
        let mut dropped = lock(&self.dropped);
        let Some(place) = dropped.iter().position(|(part, _)| path.contains(part.as_str())) else { return false };
        if let Some((_, left)) = dropped.get_mut(place) {
            *left = left.saturating_sub(1);
        }
        dropped.retain(|(_, left)| *left > 0);
        true
    }
}

/// What a watch is to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Pass these on.
    Pass(Vec<Bytes>),
    /// Pass these on, and end.
    End(Vec<Bytes>),
}

/// One watch.
pub(super) struct Watch {
    all: Arc<Watches>,
    path: String,
    buffer: BytesMut,
    holding: bool,
    kept: VecDeque<Bytes>,
    reorder: bool,
    seen: usize,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.count(self.kept.len(), 0);
    }
}

impl Watch {
    /// The API server has sent these bytes. What was said before they came holds for them.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Next {
        match self.said() {
            Next::Pass(mut passed) => {
                passed.extend(self.take(bytes));
                Next::Pass(passed)
            }
            ended @ Next::End(_) => ended,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        self.buffer.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end + 1).freeze();
            // Bookmarks and errors are about the watch, not about an object.
            let is_event = [b"\"ADDED\"".as_slice(), b"\"MODIFIED\"", b"\"DELETED\""]
                .iter()
                .any(|kind| line.windows(kind.len()).take(40).any(|part| part == *kind));
            if is_event && self.all.swallows(&self.path) {
                continue;
            }
            if self.holding || (self.reorder && is_event) {
                self.keep(line);
            } else {
                passed.push(line);
            }
            if self.reorder && !self.holding && self.kept.len() == 2 {
                passed.extend(self.let_go());
            }
        }
        passed
    }

    /// Something was said about watches.
    pub(super) fn said(&mut self) -> Next {
        let acts: Vec<WatchAct> = {
            let all = lock(&self.all.acts);
            let new = all.get(self.seen..).unwrap_or_default();
            self.seen = all.len();
            new.iter().filter(|(path, _)| self.path.contains(path.as_str())).map(|(_, act)| *act).collect()
        };
        let mut passed = Vec::new();
        for act in acts {
            match act {
                WatchAct::Hold => self.holding = true,
                WatchAct::Release => {
                    self.holding = false;
                    if !self.reorder || self.kept.len() >= 2 {
                        passed.extend(self.let_go());
                    }
                }
                WatchAct::Reorder => self.reorder = true,
                WatchAct::Drop(_) => {}
                WatchAct::Gone => {
                    let event = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", rules::failure(410, None));
                    passed.push(Bytes::from(event));
                    return Next::End(passed);
                }
                WatchAct::End => return Next::End(passed),
            }
        }
        Next::Pass(passed)
    }

    fn keep(&mut self, line: Bytes) {
        self.kept.push_back(line);
        self.count(0, 1);
    }

    /// Everything that was kept; the last two the other way round, if so told.
    fn let_go(&mut self) -> Vec<Bytes> {
        let mut lines: Vec<Bytes> = std::mem::take(&mut self.kept).into();
        self.count(lines.len(), 0);
        let length = lines.len();
        if std::mem::take(&mut self.reorder) && length >= 2 {
            lines.swap(length - 2, length - 1);
        }
        lines
    }

    fn count(&self, less: usize, more: u64) {
        self.all.held.fetch_sub(u64::try_from(less).unwrap_or(0), Ordering::SeqCst);
        self.all.held.fetch_add(more, Ordering::SeqCst);
    }
}
