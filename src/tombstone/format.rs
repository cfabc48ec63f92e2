//! A tombstone as a ConfigMap, and back.
//!
//! Owns: its name, its keys (docs/ledger.md, "Tombstones"). Must never: do I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::ledger::{Head, Record, Target};

/// The label that all tombstones carry.
pub const LABEL: &str = "berth.dev/tombstone";

/// What is kept of an object that is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Stone {
    /// The object.
    pub target: Target,
    /// Its ending: a terminal record that was shown.
    pub terminal: Head,
    /// The epoch under which this was written.
    pub epoch: u64,
    /// What its status carried, the ending too if its bytes were at hand.
    pub records: Vec<Record>,
}

/// A ConfigMap with the label that is no tombstone.
#[derive(Debug, thiserror::Error)]
#[error("ConfigMap {name} is no tombstone of Berth's ({why}); it is left alone: look at it, and remove the label")]
pub struct Unreadable {
    name: String,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct Carried {
    record: String,
    details: Option<String>,
}

impl Stone {
    /// By uid *and* ending: a leader that a restore has overtaken must not overwrite another ending.
    pub fn name(&self) -> String {
        format!("berth-tombstone-{}-{}", self.target.uid, &self.terminal.hash.to_string()[..12])
    }

    /// With the records of `other`, a tombstone of the same ending.
    pub(super) fn with(&self, other: Self) -> Self {
        let mut whole = self.clone();
        let lacking =
            other.records.into_iter().filter(|record| !self.records.iter().any(|ours| ours.hash() == record.hash()));
        whole.records.extend(lacking);
        whole.records.sort_by_key(|record| record.envelope().seq);
        whole.epoch = whole.epoch.max(other.epoch);
        whole
    }

    pub(super) fn encode(&self) -> ConfigMap {
        let carried = |record: &Record| Carried {
            record: record.bytes().to_owned(),
            details: record.details().map(ToOwned::to_owned),
        };
        let records: Vec<Carried> = self.records.iter().map(carried).collect();
        // Strings and numbers only: neither can fail to become JSON.
        let data = BTreeMap::from([
            ("terminal".to_owned(), self.terminal.hash.to_string()),
            ("sequence".to_owned(), self.terminal.sequence.to_string()),
            ("epoch".to_owned(), self.epoch.to_string()),
            ("target".to_owned(), serde_json::to_string(&self.target).unwrap_or_default()),
            ("records".to_owned(), serde_json::to_string(&records).unwrap_or_default()),
        ]);
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name()),
                labels: Some(BTreeMap::from([
                    (LABEL.to_owned(), "true".to_owned()),
                    ("app.kubernetes.io/managed-by".to_owned(), "berth".to_owned()),
                ])),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        }
    }

    /// Reads one.
    pub fn decode(map: &ConfigMap) -> Result<Self, Unreadable> {
        let bad = |why: String| Unreadable { name: map.metadata.name.clone().unwrap_or_default(), why };
        let data = map.data.as_ref().ok_or_else(|| bad("it has no data".to_owned()))?;
        let key = |name: &str| data.get(name).map(String::as_str).ok_or_else(|| bad(format!("it lacks {name}")));
        let number = |name: &str| key(name)?.parse::<u64>().map_err(|error| bad(format!("{name}: {error}")));
        let carried: Vec<Carried> =
            serde_json::from_str(key("records")?).map_err(|error| bad(format!("records: {error}")))?;
        let read =
            |carried: Carried| Record::read(&carried.record, carried.details).map_err(|error| bad(error.to_string()));
        let stone = Self {
            target: serde_json::from_str(key("target")?).map_err(|error| bad(format!("target: {error}")))?,
            terminal: Head {
                sequence: number("sequence")?,
                hash: key("terminal")?.parse().map_err(|_| bad("terminal is no hash".to_owned()))?,
            },
            epoch: number("epoch")?,
            records: carried.into_iter().map(read).collect::<Result<_, _>>()?,
        };
        let foreign = |record: &&Record| {
            (record.envelope().cluster, record.envelope().uid) != (stone.target.cluster, stone.target.uid)
        };
        match stone.records.iter().find(foreign) {
            Some(record) => Err(bad(format!("it has a record of {}", record.envelope().uid))),
            None => Ok(stone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::samples::{self, Sample},
        lifecycle::State,
    };

    fn stone(records: usize) -> Stone {
        let mut sample = Sample::new(1);
        let mut all: Vec<Record> = (0..records).map(|_| samples::record(&sample.step()).clone()).collect();
        all.push(samples::record(&sample.step_to(State::Deleted)).clone());
        let terminal = all.last().unwrap().head();
        Stone { target: sample.snapshot().target, terminal, epoch: 9, records: all }
    }

    #[test]
    fn a_tombstone_reads_back_as_it_was() {
        let stone = stone(4);
        assert_eq!(Stone::decode(&stone.encode()).unwrap(), stone);
        assert!(stone.name().len() <= 253 && stone.name().starts_with("berth-tombstone-"));
    }

    #[test]
    fn what_is_there_already_loses_nothing() {
        let whole = stone(4);
        let few = Stone { records: whole.records[3..].to_vec(), epoch: 3, ..whole.clone() };
        assert_eq!(few.with(whole.clone()), whole);
        assert_eq!(whole.with(few), whole);
    }

    #[test]
    fn what_is_no_tombstone_is_named() {
        let mut map = stone(1).encode();
        map.data.as_mut().unwrap().insert("records".to_owned(), "[{\"record\": \"{}\", \"details\": null}]".to_owned());
        let error = Stone::decode(&map).unwrap_err().to_string();
        assert!(error.contains("berth-tombstone-") && error.contains("no tombstone"), "{error}");
        map.data = None;
        assert!(Stone::decode(&map).is_err());
    }
}
