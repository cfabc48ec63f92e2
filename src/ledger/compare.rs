//! From what a home says about one object to the protocol's words (`protocol::rules`). Pure.
//!
//! Must never: decide what follows.

use super::{
    hash::Hash,
    postgres::{Facts, FactsHead},
    protocol::{Database, DatabaseHead, Link, Reading, relate},
    record::{Head, Record},
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

/// A record's place, in the protocol's words.
pub fn link(head: Head) -> Link<Hash> {
    Link { sequence: head.sequence, hash: head.hash }
}

/// The end of a chain, in the protocol's words.
pub fn shown_link(head: Head) -> Option<Link<Hash>> {
    (head != Head::GENESIS).then(|| link(head))
}

/// And back.
pub fn head(link: &Link<Hash>) -> Head {
    Head { sequence: link.sequence, hash: link.hash }
}
