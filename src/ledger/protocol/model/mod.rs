//! The protocol's model: every interleaving of leaders and faults over one object.
//!
//! The leaders take their decisions from [`super::rules`], the functions that the real ledger
//! calls. The model only carries the steps out, each write as atomic as the place it goes to
//! makes it: a status write, a database transaction, an fsync. A leader first reads the status,
//! then the database, then acts, with anything in between; two leaders never know of each other.

#![allow(clippy::unwrap_used, reason = "test code")]

mod broken;
mod decide;
mod properties;
mod steps;
mod tests;
mod world;

use broken::BrokenRule;
use stateright::{Model, Property};
use world::{Api, Db, Faults, Id, Kind, LEADERS, Leader, Record, Set, State, Wrongs};

/// Bounds of one exploration.
#[derive(Clone, Copy, Debug)]
struct Config {
    name: &'static str,
    leaders: usize,
    /// Records that each leader appends of its own accord.
    appends: usize,
    /// Slots for pending records in the status.
    slots: usize,
    /// Whether the user may delete the object.
    deletion: bool,
    /// Whether commits reach the spool's tail later, so that a crash may lose them there.
    lazy_tail: bool,
    faults: Faults,
    /// Steps that have been taken when the exploration begins.
    after: &'static [Action],
    broken: Option<BrokenRule>,
}

/// One atomic step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    UserDeletes,
    Observe(usize),
    ReadDatabase(usize),
    RereadStatus(usize),
    Commit(usize, Kind),
    CommitUnanswered(usize, Kind),
    CommitRefused(usize, Kind),
    LateCommitLands(usize),
    Spool(usize, Kind),
    SpoolFails(usize, Kind),
    Adopt(usize, Id),
    CommitApiRewound(usize, Id),
    ApiRewoundUnanswered(usize, Id),
    ImportPending(usize, Set),
    HeadFollowsStatus(usize, Id),
    Show(usize),
    ClearPending(usize),
    NoteMark(usize),
    CloseHead(usize),
    WriteTombstone(usize),
    ReleaseFinalizer(usize),
    TailSyncs(usize),
    Replay(usize),
    HeadGoesOn,
    TombstoneStep(usize, Id),
    MarkedHead(usize),
    Crash(usize),
    VolumeLost(usize),
    CutOff(usize),
    Reconnected(usize),
    DatabaseBackup,
    DatabaseRestored,
    ApiServerBackup,
    ApiServerRestored,
}

impl Model for Config {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut leaders = [Leader::default(); LEADERS];
        for (leader, epoch) in leaders.iter_mut().take(self.leaders).zip(1..) {
            leader.epoch = epoch;
        }
        let start = State {
            records: [Record::default(); _],
            api: Api { alive: true, deleting: false, head: Id::ROOT, pending: Set::default(), tombstones: [None; 2] },
            db: Db::default(),
            leaders,
            api_backup: None,
            db_backup: None,
            left: self.faults,
            epochs: u8::try_from(self.leaders).unwrap(),
            shown: Set::default(),
            taken: Set::default(),
            torn: Set::default(),
            unmarked: Set::default(),
            api_restored: false,
            db_restored: false,
            exhausted: false,
            wrongs: Wrongs::default(),
        };
        vec![self.after.iter().fold(start, |state, step| {
            let mut possible = Vec::new();
            self.actions(&state, &mut possible);
            assert!(possible.contains(step), "{step:?} is not among {possible:?}");
            self.next_state(&state, *step).unwrap()
        })]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.helpful_actions(state, actions);
        self.new_work(state, actions);
        self.fault_actions(state, actions);
        if state.head_may_go_on() {
            actions.push(Action::HeadGoesOn);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.apply(&mut next, action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Config>> {
        properties::INVARIANTS.iter().map(|invariant| Property::always(invariant.name, invariant.holds)).collect()
    }
}
