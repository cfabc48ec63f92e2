//! What follows from endings that were shown, once the database is there: tombstones go, heads are put back.
//!
//! The steps are the protocol's ([`may_remove_tombstone`], [`marked_head_repair`]); here they get what was seen.
//! Must never: decide, or take a tombstone away that somebody has changed since it was read.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Stone, TombstoneError, all, remove};
use crate::{
    api,
    broken::{self, Variant},
    ledger::{
        Entry, Hash, Head, Ledger, LedgerError, Micros, Record, ShownMark, Target, head, link,
        protocol::{
            Database, Mark, MarkedHead, MarkedStep, ObjectSeen, TombstoneStep, marked_head_repair, may_remove_tombstone,
        },
    },
};

/// Tombstones that are looked at side by side. One by one they wait for the API server, the database and the disk in turn, some
/// ten a second on a busy machine, and an outage can leave thousands. But hardly more than there are connections for their
/// questions: on a slow database each would be late for want of one, as sixteen were.
const SIDE_BY_SIDE: usize = 4;

/// The most steps between a tombstone and its removal: import, mark, close, remove, and one more where something moved.
const STEPS: usize = 6;

/// A step that could not be taken; the next round tries again.
#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Tombstone(#[from] TombstoneError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the object of a tombstone could not be read")]
    Object(#[source] Box<kube::Error>),
}

/// Looks at every tombstone in `namespace`; answers with how many are left.
pub async fn settle(
    client: &Client,
    namespace: &str,
    cluster: Uuid,
    ledger: &Ledger,
    now: Micros,
) -> Result<usize, TombstoneError> {
    let maps = all(client, namespace).await?;
    let mut stones: BTreeMap<Uuid, Vec<(&ConfigMap, Stone)>> = BTreeMap::new();
    for map in &maps {
        match Stone::decode(map) {
            Ok(stone) => stones.entry(stone.target.uid).or_default().push((map, stone)),
            Err(error) => warn!(%error, "a tombstone cannot be read"),
        }
    }
    // Those of one object in turn: each notes its own ending.
    let settled = stream::iter(stones.values())
        .map(async |stones| {
            let mut settled = 0;
            for (map, stone) in stones {
                let buried = bury(client, namespace, cluster, ledger, map, stone, now).await;
                settled += usize::from(is_settled(stone, buried));
            }
            settled
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .fold(0, async |all, some| all + some)
        .await;
    Ok(maps.len() - settled)
}

/// Whether nothing is left of a tombstone. What stands in the way is in the log.
fn is_settled(stone: &Stone, buried: Result<bool, SettleError>) -> bool {
    let name = stone.name();
    match buried {
        Ok(true) => {
            info!(name, uid = %stone.target.uid, records = stone.records.len(), "a tombstone is settled");
            true
        }
        Ok(false) => false,
        Err(error) => {
            warn!(name, error = &error as &dyn std::error::Error, "a tombstone stays until the next look");
            false
        }
    }
}

/// Whether the tombstone could be removed.
async fn bury(
    client: &Client,
    namespace: &str,
    cluster: Uuid,
    ledger: &Ledger,
    map: &ConfigMap,
    stone: &Stone,
    now: Micros,
) -> Result<bool, SettleError> {
    let Stone { target, terminal, epoch, records } = stone;
    for _ in 0..STEPS {
        let Some((marked, missing)) = seen(client, cluster, ledger, target, *terminal, *epoch, records).await? else {
            return Ok(false);
        };
        let mark = match ledger.mark_of(target) {
            Some(mark) if mark.terminal == *terminal => Mark::Noted,
            _ => Mark::NotNoted,
        };
        match may_remove_tombstone(&marked, Some(&missing), mark) {
            TombstoneStep::Keep => return Ok(false),
            TombstoneStep::Import(links) if !broken::is(Variant::TombstoneRemovedEarly) => {
                let wanted = |record: &&Record| links.iter().any(|link| head(link) == record.head());
                let there: Vec<Record> = records.iter().filter(wanted).cloned().collect();
                if there.is_empty() || !ledger.bring(target, &there).await? {
                    return Ok(false);
                }
            }
            TombstoneStep::NoteMark => {
                let mark = ShownMark { target: target.clone(), terminal: *terminal, epoch: *epoch, at: now };
                let copy = |record: &Record| Entry::Carried { record: record.clone(), target: target.clone() };
                if ledger.note_shown(mark, records.iter().map(copy).collect()).await != Mark::Noted {
                    return Ok(false);
                }
            }
            TombstoneStep::Close { from } => {
                if ledger.put_head(target, from.as_ref().map(head), *terminal, *epoch).await?.is_none() {
                    return Ok(false);
                }
            }
            TombstoneStep::Import(_) | TombstoneStep::Remove => {
                remove(client, namespace, map).await?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// After the database was rewound: puts the ends of the chains of objects that are gone back to the endings that this
/// replica has noted. Answers whether all of them were seen.
pub async fn repair(client: &Client, cluster: Uuid, ledger: &Ledger) -> bool {
    let mut all = true;
    for mark in ledger.marks() {
        let ShownMark { target, terminal, epoch, at: _ } = &mark;
        let done = async {
            // Most of them stand, and the database alone says so.
            match ledger.ending(target, *terminal).await? {
                None => return Ok(false),
                Some(ending) if ending.closed_epoch.is_some() && ending.head == Some(*terminal) => return Ok(true),
                Some(_) => {}
            }
            let Some((marked, _)) = seen(client, cluster, ledger, target, *terminal, *epoch, &[]).await? else {
                return Ok(false);
            };
            if let MarkedStep::Close { from } = marked_head_repair(&marked) {
                let put = ledger.put_head(target, from.as_ref().map(head), *terminal, *epoch).await?;
                info!(uid = %target.uid, ?put, "the end of a chain is put back to the ending that was shown");
            }
            Ok::<_, SettleError>(true)
        };
        match done.await {
            Ok(seen) => all &= seen,
            Err(error) => {
                all = false;
                debug!(uid = %target.uid, error = &error as &dyn std::error::Error, "an ending is looked at again later");
            }
        }
    }
    all
}

/// What is known of the ending `terminal`, and which of `records` the database lacks. None: it does not answer.
async fn seen(
    client: &Client,
    cluster: Uuid,
    ledger: &Ledger,
    target: &Target,
    terminal: Head,
    epoch: u64,
    records: &[Record],
) -> Result<Option<(MarkedHead<Hash>, Vec<crate::ledger::protocol::Link<Hash>>)>, SettleError> {
    let Some(ending) = ledger.ending(target, terminal).await? else { return Ok(None) };
    let Database::Answered(reading) = ledger.compare(target, terminal, records).await?.database else {
        return Ok(None);
    };
    let marked = MarkedHead {
        terminal: link(terminal),
        epoch,
        object: look(client, cluster, target, terminal).await?,
        stored: ending.stored,
        head: ending.head.map(link),
        closed: ending.closed_epoch,
        descent: ending.descent,
    };
    Ok(Some((marked, reading.missing)))
}

/// By a quorum read of that very object.
async fn look(client: &Client, cluster: Uuid, target: &Target, terminal: Head) -> Result<ObjectSeen, SettleError> {
    if target.cluster != cluster {
        return Ok(ObjectSeen::Unknown);
    }
    // Whatever kind it is: nothing of it is needed but what its status shows.
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(api::GROUP, api::VERSION, &target.kind));
    let api: Api<DynamicObject> = match target.namespace.as_str() {
        "" => Api::all_with(client.clone(), &kind),
        namespace => Api::namespaced_with(client.clone(), namespace, &kind),
    };
    let object = api.get_opt(&target.name).await.map_err(|source| SettleError::Object(Box::new(source)))?;
    let same = object.filter(|object| object.metadata.uid.as_deref() == Some(&target.uid.to_string()));
    Ok(match same {
        None => ObjectSeen::Gone,
        Some(object) => match object.data["status"]["ledger"]["head"].as_str() {
            Some(head) if head == terminal.hash.to_string() => ObjectSeen::Present,
            _ => ObjectSeen::CameBack,
        },
    })
}
