//! The readable state files: one JSON file per container, for people and for programs that only read files.
//!
//! Owns: their content and when they are written. Must never: be waited for, or be read as the truth: each is
//! made from the journal after the journal is durable, and made again where it is behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    disk::{self, Disk},
    index::{Index, Recent, Sheet, StateFile},
    scan,
    written::{Kept, Written},
};
use crate::{
    ledger::{
        entry::Entry,
        error::LedgerError,
        hash::Hash,
        record::{Head, Micros},
        snapshot::{Service, Snapshot},
    },
    lifecycle::State,
};

/// How long to wait before a file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The content of a state file.
#[derive(Debug, Serialize)]
struct Sheeted<'a> {
    format: u8,
    deleted: bool,
    status: Option<State>,
    sync_time: String,
    ledger: Ledger,
    transitions: &'a [Recent],
    container: &'a Snapshot<Service>,
}

/// Where the file stands in the ledger.
#[derive(Debug, Serialize, Deserialize)]
struct Ledger {
    /// The entry that it was made from.
    entry: u64,
    sequence: u64,
    head: Hash,
    epoch: u64,
}

#[derive(Deserialize)]
struct Stamp {
    ledger: Ledger,
}

/// What a state file says about its chain, for verification: object and head.
#[derive(Deserialize)]
struct Claim {
    ledger: Ledger,
    container: ClaimedContainer,
}

#[derive(Deserialize)]
struct ClaimedContainer {
    target: crate::ledger::entry::Target,
}

/// The chain and head that the state file at `path` names.
pub(super) fn claim(path: &Path) -> Result<(crate::ledger::entry::Target, Head), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let claim: Claim = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Ok((claim.container.target, Head { sequence: claim.ledger.sequence, hash: claim.ledger.head }))
}

/// The files that are behind, and the thread that writes them.
pub(super) struct StateFiles {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    index: Arc<RwLock<Index>>,
    behind: Mutex<Behind>,
    changed: Condvar,
}

#[derive(Default)]
struct Behind {
    files: BTreeSet<StateFile>,
    closing: bool,
}

impl StateFiles {
    /// All files are taken as behind at first: those that are not cost one read each.
    pub(super) fn new(dir: &Path, disk: Arc<dyn Disk>, index: Arc<RwLock<Index>>) -> Self {
        let files = index.read().unwrap_or_else(PoisonError::into_inner).files().cloned().collect();
        let behind = Mutex::new(Behind { files, closing: false });
        Self { dir: dir.to_owned(), disk, index, behind, changed: Condvar::new() }
    }

    /// Says that these files are behind. Bounded by the number of containers.
    pub(super) fn mark(&self, files: impl IntoIterator<Item = StateFile>) {
        self.behind().files.extend(files);
        self.changed.notify_one();
    }

    /// How many files are behind.
    pub(super) fn behind_count(&self) -> usize {
        self.behind().files.len()
    }

    /// Lets [`Self::run`] end once it has written what is behind.
    pub(super) fn finish(&self) {
        self.behind().closing = true;
        self.changed.notify_one();
    }

    /// The thread's work.
    pub(super) fn run(&self) {
        loop {
            let (files, closing) = self.wait();
            let failed = self.write_all(files);
            if closing {
                return;
            }
            if !failed.is_empty() {
                let mut behind = self.behind();
                behind.files.extend(failed);
                drop(self.changed.wait_timeout(behind, RETRY));
            }
        }
    }

    /// Writes the files, and syncs each of their folders once; answers with those that have to be tried again.
    fn write_all(&self, files: BTreeSet<StateFile>) -> Vec<StateFile> {
        let mut failed = vec![];
        let mut folders = BTreeSet::new();
        for file in files {
            match self.write(&file) {
                Ok(Some(folder)) => drop(folders.insert(folder)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(folder = file.0, file = file.1, error = error.explain(), "state file not written");
                    failed.push(file);
                }
            }
        }
        for folder in folders {
            if let Err(error) = self.disk.sync_dir(&folder) {
                // A name that a power cut takes away is made again at the next start.
                tracing::warn!(folder = %folder.display(), %error, "folder of state files not synced");
            }
        }
        failed
    }

    fn wait(&self) -> (BTreeSet<StateFile>, bool) {
        let behind = self.behind();
        let mut behind = self
            .changed
            .wait_while(behind, |behind| behind.files.is_empty() && !behind.closing)
            .unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut behind.files), behind.closing)
    }

    fn behind(&self) -> std::sync::MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one file where it is behind; answers with the folder that has to be synced then.
    fn write(&self, file: &StateFile) -> Result<Option<PathBuf>, LedgerError> {
        let Some(sheet) = self.index.read().unwrap_or_else(PoisonError::into_inner).sheet(file) else {
            return Ok(None);
        };
        let folder = self.dir.join(&file.0);
        let path = folder.join(&file.1);
        if is_current(&path, &sheet) {
            return Ok(None);
        }
        let payload = scan::payload_at(&self.dir, sheet.place)?;
        let damaged = |why: String| LedgerError::Damaged { place: format!("entry {}", sheet.place.number), why };
        let snapshot = match Written::decode(&payload).map_err(|error| damaged(error.to_string()))? {
            Kept::Entry(Entry::Chained { snapshot, .. } | Entry::Present(snapshot)) => snapshot,
            Kept::Entry(Entry::Operation { .. } | Entry::Carried { .. } | Entry::Usage(_)) | Kept::Mark(_) => {
                return Err(damaged("it holds no snapshot".to_owned()));
            }
        };
        let snapshot = snapshot.into_service().ok_or_else(|| damaged("its object is no TenantContainer".to_owned()))?;
        let content = content(&sheet, snapshot).map_err(|error| damaged(error.to_string()))?;
        self.disk.make_dir(&folder).map_err(|error| LedgerError::spool(&folder, error))?;
        disk::replace(&*self.disk, &path, &content).map_err(|error| LedgerError::spool(&path, error))?;
        Ok(Some(folder))
    }
}

fn is_current(path: &Path, sheet: &Sheet) -> bool {
    let stamp = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok());
    // By hash as well: the numbers of a torn end are given out again.
    let head = head(sheet);
    stamp.is_some_and(|Stamp { ledger }| {
        ledger.entry == sheet.place.number && (ledger.sequence, ledger.head) == (head.sequence, head.hash)
    })
}

fn head(sheet: &Sheet) -> Head {
    sheet.end.map_or(Head::GENESIS, |end| end.known.head)
}

fn content(sheet: &Sheet, mut snapshot: Snapshot<Service>) -> Result<Vec<u8>, serde_json::Error> {
    let known = sheet.end.map(|end| end.known);
    let status = known.and_then(|known| known.state).or(snapshot.present.state);
    let head = head(sheet);
    snapshot.present.state = status;
    snapshot.head = head;
    let last = sheet.recent.last().map_or(snapshot.observed_at, |last| last.at.max(snapshot.observed_at));
    let sheeted = Sheeted {
        format: 1,
        deleted: status == Some(State::Deleted),
        status,
        sync_time: rfc3339(last),
        ledger: Ledger {
            entry: sheet.place.number,
            sequence: head.sequence,
            head: head.hash,
            epoch: known.map_or(snapshot.epoch, |known| known.epoch),
        },
        transitions: &sheet.recent,
        container: &snapshot,
    };
    let mut content = serde_json::to_vec_pretty(&sheeted)?;
    content.push(b'\n');
    Ok(content)
}

fn rfc3339(at: Micros) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| format!("{} µs", at.0), |at| format!("{at:.6}"))
}
