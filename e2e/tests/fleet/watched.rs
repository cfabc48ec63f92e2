//! What a watch beside Berth sees of a rollout.
//!
//! Owns: counting. Must never: ask Berth.

use std::{collections::BTreeMap, time::Duration};

use berth_e2e::{
    kubectl::{Error, Kubectl},
    objects::{condition, is_current},
};
use serde_json::Value;

/// What was seen until everybody had the release, and worked with it or failed.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) events: usize,
    /// The most targets that were not seen to serve at one moment.
    pub(crate) most_out: usize,
    /// Who they were.
    pub(crate) worst: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
struct Seen {
    out: bool,
    released: bool,
    stalled: bool,
}

impl Watched {
    /// Events of one kind come in the order of what happened: after each, all that is known is how it was at one moment.
    pub(crate) fn follow(admin: &Kubectl, count: usize, bad: usize, within: Duration) -> Result<Self, Error> {
        let mut all: BTreeMap<String, Seen> = BTreeMap::new();
        let mut watched = Self::default();
        admin.watch(&["get", "tc", "--selector=fleet=one"], within, |object: &Value| {
            let name = object["metadata"]["name"].as_str()?;
            let served =
                is_current(object) && condition(object, "Available") == "True" && condition(object, "Ready") == "True";
            let seen = Seen {
                out: !served,
                released: !object["spec"]["release"].is_null(),
                stalled: is_current(object) && condition(object, "Stalled") == "True",
            };
            all.insert(name.to_owned(), seen);
            watched.events += 1;
            let out = || all.iter().filter(|(_, seen)| seen.out).map(|(name, _)| name.clone());
            // The first list comes object by object: until then, nobody knows how many there are.
            if all.len() == count && out().count() > watched.most_out {
                watched.worst = out().collect();
                watched.most_out = watched.worst.len();
            }
            let released = all.values().filter(|seen| seen.released).count();
            let over = released == count
                && all.values().filter(|seen| seen.out).count() == bad
                && all.values().filter(|seen| seen.stalled).count() == bad;
            over.then_some(())
        })?;
        Ok(watched)
    }
}
