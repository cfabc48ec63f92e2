//! Asks the rules on behalf of a leader, and breaks them where a test wants them broken.

use super::super::rules::{
    Certain, Database, DatabaseHead, Deletion, Descent, Head, Line, Link, Mark, MarkedHead, MarkedStep, ObjectSeen,
    PendingStep, Reading, Relation, Release, Showing, StatusRead, Step, Tombstone, TombstoneStep, View, after_append,
    marked_head_repair, may_clear_pending, may_release_finalizer, may_remove_tombstone, next_step, relate,
};
use super::Config;
use super::broken::BrokenRule;
use super::world::{DbSeen, Id, Kind, Seen, Set, State, Stone};

fn link(state: &State, id: Id) -> Link<Id> {
    Link { sequence: state.sequence(id), hash: id }
}

fn head(state: &State, id: Id) -> Head<Id> {
    (id != Id::ROOT).then(|| link(state, id))
}

fn links(state: &State, set: Set) -> Vec<Link<Id>> {
    set.ids().map(|id| link(state, id)).collect()
}

pub(super) fn set(links: &[Link<Id>]) -> Set {
    links.iter().fold(Set::default(), |all, link| all.and(Set::of(link.hash)))
}

impl Config {
    pub(super) fn breaks(&self, rule: BrokenRule) -> bool {
        self.broken == Some(rule)
    }

    fn database(&self, state: &State, seen: &Seen) -> Database<Id> {
        let DbSeen::Answered { head: at, stored, line, .. } = seen.db else {
            return Database::Unreachable;
        };
        let record = state.record(at);
        let row = (at != Id::ROOT).then(|| DatabaseHead {
            link: link(state, at),
            made_on: head(state, record.made_on),
            terminal: record.kind == Kind::Terminal,
            line: match line.into() {
                Line::Gap if self.breaks(BrokenRule::GapCountsAsBranch) => Line::MissesShown,
                line => line,
            },
        });
        let mut stored_head = stored.has(seen.head);
        if self.breaks(BrokenRule::HeadFollowsUnstored) {
            stored_head = true;
        }
        Database::Answered(Reading {
            relation: relate(&head(state, seen.head), row.as_ref(), stored_head),
            missing: links(state, seen.pending.without(stored)),
        })
    }

    fn slots_left(&self, seen: &Seen) -> usize {
        self.slots.saturating_sub(seen.pending.len())
    }

    pub(super) fn next_step(&self, state: &State, seen: &Seen) -> Step<Id> {
        let mut view = View {
            deleting: seen.deleting,
            slots_left: self.slots_left(seen),
            status: if seen.confirmed || self.breaks(BrokenRule::NoQuorumReread) {
                StatusRead::QuorumAfterDatabase
            } else {
                StatusRead::Cached
            },
            database: self.database(state, seen),
        };
        if self.breaks(BrokenRule::TerminalAdoptedByLiving) {
            view.deleting = true;
        }
        if self.breaks(BrokenRule::SlotAddedWhenFull) || self.breaks(BrokenRule::ShownUncarriedWhenFull) {
            view.slots_left = view.slots_left.max(1);
        }
        if let Database::Answered(reading) = &mut view.database {
            match reading.relation.clone() {
                Relation::OneAhead { head, .. } if self.breaks(BrokenRule::NoAdoption) => {
                    reading.relation = Relation::FurtherAhead { head };
                }
                Relation::FurtherAhead { head: at } if self.breaks(BrokenRule::RewindFollowed) => {
                    if let Some(shown) = head(state, seen.head) {
                        reading.relation = Relation::Elsewhere { head: Some(at), shown, shown_stored: true };
                    }
                }
                Relation::Elsewhere { head: Some(at), .. }
                    if self.breaks(BrokenRule::EpochDecides)
                        && state.record(at.hash).epoch > state.record(seen.head).epoch =>
                {
                    return Step::Adopt(at);
                }
                _ => {}
            }
        }
        match next_step(&view) {
            Step::HeadFollowsStatus { .. } if self.breaks(BrokenRule::HeadNeverFollows) => Step::Full,
            Step::HeadFollowsStatus { from: Some(at), .. }
                if self.breaks(BrokenRule::LoserKeepsHead) && !state.descends(seen.head, at.hash) =>
            {
                Step::Full
            }
            step => step,
        }
    }

    pub(super) fn showing(&self, certain: Certain, seen: &Seen) -> Showing {
        let full = self.slots_left(seen) == 0;
        match after_append(certain, self.slots_left(seen)) {
            Showing::ShowCarried if self.breaks(BrokenRule::NoPendingInStatus) => Showing::Show,
            Showing::NotShown if full && self.breaks(BrokenRule::SlotAddedWhenFull) => Showing::ShowCarried,
            Showing::NotShown if full && self.breaks(BrokenRule::ShownUncarriedWhenFull) => Showing::Show,
            showing => showing,
        }
    }

    pub(super) fn may_clear_pending(&self, state: &State, seen: &Seen) -> bool {
        let mut database = self.database(state, seen);
        if let (true, Database::Answered(reading)) = (self.breaks(BrokenRule::PendingClearedEarly), &mut database) {
            reading.missing.clear();
        }
        may_clear_pending(&links(state, seen.pending), &database) == PendingStep::Clear
    }

    pub(super) fn release(&self, state: &State, leader: usize, seen: &Seen) -> Release<Id> {
        let complete = state
            .api
            .tombstones
            .iter()
            .flatten()
            .any(|stone| stone.terminal == seen.head && seen.pending.within(stone.records));
        let deletion = Deletion {
            terminal: link(state, seen.head),
            pending: links(state, seen.pending),
            database: self.database(state, seen),
            closed: matches!(seen.db, DbSeen::Answered { head, closed: true, .. } if head == seen.head),
            mark: match state.leaders[leader].mark {
                Some((terminal, _)) if terminal == seen.head => Mark::Noted,
                _ if self.breaks(BrokenRule::NoMark) => Mark::Noted,
                _ => Mark::NotNoted,
            },
            tombstone: if complete { Tombstone::Complete } else { Tombstone::Absent },
        };
        match may_release_finalizer(&deletion) {
            Release::WriteTombstone(_) if self.breaks(BrokenRule::NoTombstone) => Release::Now,
            Release::CloseHead if self.breaks(BrokenRule::ReleasedUnclosed) => Release::Now,
            release => release,
        }
    }

    fn marked(&self, state: &State, terminal: Id, epoch: u8) -> MarkedHead<Id> {
        MarkedHead {
            terminal: link(state, terminal),
            epoch: epoch.into(),
            object: if state.api.alive && !self.breaks(BrokenRule::MarkMovesLiving) {
                if state.api.head == terminal { ObjectSeen::Present } else { ObjectSeen::CameBack }
            } else {
                ObjectSeen::Gone
            },
            stored: state.db.records.has(terminal),
            head: head(state, state.db.head),
            closed: state.db.closed.map(u64::from),
            descent: if state.descends(state.db.head, terminal) {
                Descent::HeadFollows
            } else if state.descends(terminal, state.db.head) && !self.breaks(BrokenRule::EpochDecidesOverDescent) {
                Descent::HeadPrecedes
            } else {
                Descent::Apart
            },
        }
    }

    pub(super) fn marked_head(&self, state: &State, leader: usize) -> MarkedStep<Id> {
        match state.leaders[leader].mark {
            Some((terminal, epoch)) => marked_head_repair(&self.marked(state, terminal, epoch)),
            None => MarkedStep::Stands,
        }
    }

    pub(super) fn tombstone(&self, state: &State, leader: usize, stone: Stone) -> TombstoneStep<Id> {
        let at = &state.leaders[leader];
        let marked = self.marked(state, stone.terminal, stone.epoch);
        let mark = match at.mark {
            Some((terminal, _)) if terminal == stone.terminal => Mark::Noted,
            _ if self.breaks(BrokenRule::TombstoneRemovedUncopied) => Mark::Noted,
            _ => Mark::NotNoted,
        };
        let missing = links(state, stone.records.without(state.db.records));
        if self.breaks(BrokenRule::TombstoneRemovedEarly) {
            return TombstoneStep::Remove;
        }
        may_remove_tombstone(&marked, (!at.cut_off).then_some(&missing[..]), mark)
    }
}
