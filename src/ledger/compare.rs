//! From what a home says about one object to the protocol's words (`protocol::rules`). Pure.
//!
//! Must never: decide what follows.

use serde::Deserialize;

use super::{
    hash::Hash,
    postgres::{Facts, FactsHead},
    protocol::{Database, DatabaseHead, Link, Reading, relate},
    record::{Head, Kind, Record},
};

/// What a home says about one object, beside what its status shows.
#[derive(Clone, Debug)]
pub struct Compared {
    /// In the protocol's words.
    pub database: Database<Hash>,
    /// The record that its chain ends with there, where it is stored.
    pub end: Option<Record>,
    /// Whether that end is known to be an ending that was shown.
    pub closed: bool,
}

impl Compared {
    /// The database did not answer.
    pub(super) const UNREACHABLE: Self = Self { database: Database::Unreachable, end: None, closed: false };

    pub(super) fn of(facts: Facts, shown: Head, pending: &[Record]) -> Self {
        let Facts { head, stored, shown_stored } = facts;
        let row = head.as_ref().map(|FactsHead { head, made_on, terminal, line, record: _, closed_epoch: _ }| {
            DatabaseHead { link: link(*head), made_on: made_on.map(link), terminal: *terminal, line: *line }
        });
        let missing = pending.iter().map(Record::head).filter(|head| !stored.contains(head)).map(link).collect();
        let relation = relate(&shown_link(shown), row.as_ref(), shown_stored);
        let closed = head.as_ref().is_some_and(|head| head.closed_epoch.is_some());
        Self {
            database: Database::Answered(Reading { relation, missing }),
            end: head.and_then(|head| head.record),
            closed,
        }
    }
}

/// What a record was made to replace: the one before it, or, of an `api-rewound` record, the shown head that it names.
pub(super) fn made_on(record: &Record) -> Option<Head> {
    let envelope = record.envelope();
    if envelope.kind == Kind::Resolution
        && let Some(details) = record.details()
        && let Ok(Named { made_on: Some(head) }) = serde_json::from_str(details)
    {
        return Some(head).filter(|head| *head != Head::GENESIS);
    }
    (envelope.seq > 1).then(|| Head { sequence: envelope.seq - 1, hash: envelope.prev })
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "madeOn")]
    made_on: Option<Head>,
}

/// A record's place, in the protocol's words.
pub fn link(head: Head) -> Link<Hash> {
    Link { sequence: head.sequence, hash: head.hash }
}

/// The end of a chain, in the protocol's words.
pub(super) fn shown_link(head: Head) -> Option<Link<Hash>> {
    (head != Head::GENESIS).then(|| link(head))
}

/// And back.
pub fn head(link: &Link<Hash>) -> Head {
    Head { sequence: link.sequence, hash: link.hash }
}
