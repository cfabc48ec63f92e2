//! The invariants, each with the rule that it proves.

use super::Config;
use super::world::{Kind, Set, State};

/// A named property of every reachable state.
pub(super) struct Invariant {
    pub(super) name: &'static str,
    /// One line, as in the documentation.
    pub(super) meaning: &'static str,
    /// The rules it proves.
    pub(super) rules: &'static str,
    pub(super) holds: fn(&Config, &State) -> bool,
}

/// Every invariant. Those of the second half speak of states in which nothing helpful is left to
/// do (`tests::the_helpful_steps_come_to_an_end`).
pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "shown_records_have_a_home",
        meaning: "a shown record is in the database, on a spool or on the way to its tail, in the status or \
                  in a tombstone",
        rules: "2, 6",
        holds: |_, state| {
            let excused = excused(state);
            state.shown.within(state.homes().and(excused))
        },
    },
    Invariant {
        name: "unstored_records_are_carried",
        meaning: "a shown record that the database lacks is in the status or in a tombstone, \
                  unless a restore took it from there",
        rules: "2, 6",
        holds: |_, state| state.shown.within(state.carried().and(state.taken)),
    },
    Invariant {
        name: "nothing_shown_when_full",
        meaning: "the status never carries more records than it has slots",
        rules: "2",
        holds: |config, state| state.api.pending.len() <= config.slots,
    },
    Invariant {
        name: "shown_records_form_one_line",
        meaning: "every shown record was made on the record shown before it",
        rules: "1",
        holds: |_, state| !state.wrongs.line_broken,
    },
    Invariant {
        name: "nothing_follows_a_terminal_record",
        meaning: "after a shown terminal record only a rewind is shown",
        rules: "1",
        holds: |_, state| !state.wrongs.terminal_followed,
    },
    Invariant {
        name: "living_objects_are_not_closed",
        meaning: "a terminal record is shown only on an object that somebody deletes",
        rules: "3, 5",
        holds: |_, state| !state.wrongs.living_object_closed,
    },
    Invariant {
        name: "released_only_when_finished",
        meaning: "the finalizer goes only from an object that shows a terminal record",
        rules: "6",
        holds: |_, state| !state.wrongs.released_unfinished,
    },
    Invariant {
        name: "database_head_is_stored",
        meaning: "the head row names a record that the database holds",
        rules: "3",
        holds: |_, state| state.db.records.has(state.db.head),
    },
    Invariant {
        name: "database_head_never_goes_back",
        meaning: "the protocol never moves the head row from a record of the shown line to \
                  anything that does not follow it",
        rules: "3, 5",
        holds: |_, state| !state.wrongs.database_head_back,
    },
    Invariant {
        name: "rewinds_are_not_invented",
        meaning: "an `api-rewound` record is made only if the API server was restored",
        rules: "5",
        holds: |_, state| !state.wrongs.rewind_invented,
    },
    Invariant {
        name: "every_shown_record_reaches_the_database",
        meaning: "once settled, the database holds every record ever shown",
        rules: "3, 7",
        holds: |config, state| !settled(config, state) || state.shown.within(state.db.records.and(excused(state))),
    },
    Invariant {
        name: "head_agrees_after_settling",
        meaning: "once settled, the head row of an object that exists is its shown head",
        rules: "3, 7",
        holds: |config, state| {
            !state.api.alive
                || !settled(config, state)
                || state.db.head == state.api.head
                || lost(state).has_one(state.api.head)
        },
    },
    Invariant {
        name: "terminal_record_survives",
        meaning: "once settled, the head row of an object that is gone is its terminal record",
        rules: "5, 6",
        holds: |config, state| {
            if state.api.alive || !settled(config, state) {
                return true;
            }
            let head = state.db.head;
            let forgotten = state.db_restored && !state.unmarked.is_empty();
            let ending = state.record(head).kind == Kind::Terminal
                && state.shown.has(head)
                && !state.descends(state.api.head, head);
            head == state.api.head
                || (state.api_restored && ending)
                || forgotten
                || excused(state).has_one(state.api.head)
        },
    },
    Invariant {
        name: "nothing_is_carried_after_settling",
        meaning: "once settled, no record is pending in the status and no tombstone is left",
        rules: "6, 7",
        holds: |config, state| {
            if !settled(config, state) {
                return true;
            }
            let lost = lost(state);
            let mut stones = state.api.tombstones.iter().flatten();
            (!state.api.alive || state.api.pending.is_empty()) && stones.all(|stone| lost.has_one(stone.terminal))
        },
    },
];

impl Set {
    /// Membership in which the place before the first record does not count.
    fn has_one(self, id: super::world::Id) -> bool {
        id != super::world::Id::ROOT && self.has(id)
    }
}

/// Records of which two homes failed: a restore took the one, another fault tore the other.
fn excused(state: &State) -> Set {
    state.taken.common(state.torn)
}

/// Those of them that are in fact nowhere.
fn lost(state: &State) -> Set {
    excused(state).without(state.homes())
}

/// Whether nothing is left to do for anybody.
pub(super) fn settled(config: &Config, state: &State) -> bool {
    if state.exhausted {
        return false;
    }
    let busy = state
        .leaders
        .iter()
        .take(config.leaders)
        .any(|leader| leader.showing.is_some() || leader.cut_off || !leader.unsynced.is_empty());
    if busy {
        return false;
    }
    let mut actions = Vec::new();
    config.helpful_actions(state, &mut actions);
    actions.is_empty()
}
