//! What can happen next in a state, and what it does.

use super::super::rules::{
    AfterShow, Certain, ConflictWith, MarkedStep, Release, ShowAnswer, ShowTests, Showing, Step, TombstoneStep,
    after_show, on_conflict, show_tests,
};
use super::broken::BrokenRule;
use super::decide::set;
use super::world::{DbSeen, Id, InFlight, Kind, Seen, Set, State, Stone};
use super::{Action, Config};

fn id(link: &super::super::rules::Link<Id>) -> Id {
    link.hash
}

impl Config {
    /// Everything that brings the ledger closer to rest. When none of it is left, and nobody
    /// appends and nothing fails, the ledger has settled.
    pub(super) fn helpful_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..self.leaders {
            let leader = &state.leaders[at];
            if leader.cut_off {
                actions.push(Action::Reconnected(at));
            }
            if !leader.unsynced.is_empty() {
                actions.push(Action::TailSyncs(at));
            }
            if !leader.cut_off && !leader.spool.within(state.db.records) && !self.breaks(BrokenRule::NoReplay) {
                actions.push(Action::Replay(at));
            }
            for stone in state.api.tombstones.iter().flatten() {
                if self.tombstone(state, at, *stone) != TombstoneStep::Keep {
                    actions.push(Action::TombstoneStep(at, stone.terminal));
                }
            }
            if !leader.cut_off && matches!(self.marked_head(state, at), MarkedStep::Close { .. }) {
                actions.push(Action::MarkedHead(at));
            }
            if leader.showing.is_some() {
                actions.push(Action::Show(at));
                continue;
            }
            let Some(seen) = leader.seen else {
                if state.api.alive {
                    actions.push(Action::Observe(at));
                }
                continue;
            };
            if self.stale(state, at, &seen) {
                actions.push(Action::Observe(at));
            }
            if seen.db == DbSeen::NotRead {
                actions.push(Action::ReadDatabase(at));
                continue;
            }
            if !seen.pending.is_empty() && self.may_clear_pending(state, &seen) {
                actions.push(Action::ClearPending(at));
            }
            if state.record(seen.head).kind == Kind::Terminal {
                actions.push(match self.release(state, at, &seen) {
                    Release::NoteMark => Action::NoteMark(at),
                    Release::CloseHead => Action::CloseHead(at),
                    Release::WriteTombstone(_) => Action::WriteTombstone(at),
                    Release::Now => Action::ReleaseFinalizer(at),
                });
                continue;
            }
            match self.next_step(state, &seen) {
                Step::Append | Step::AppendToSpool | Step::Full => {}
                Step::Adopt(record) => actions.push(Action::Adopt(at, id(&record))),
                Step::ApiRewound { on } => actions.push(Action::CommitApiRewound(at, id(&on))),
                Step::RereadStatus => actions.push(Action::RereadStatus(at)),
                Step::ImportPending(missing) => {
                    actions.push(Action::ImportPending(at, set(&missing)));
                }
                Step::HeadFollowsStatus { from, .. } => {
                    let from = from.as_ref().map_or(Id::ROOT, id);
                    actions.push(Action::HeadFollowsStatus(at, from));
                }
            }
        }
    }

    fn stale(&self, state: &State, at: usize, seen: &Seen) -> bool {
        let Some(status) = state.read_status() else {
            return true;
        };
        (status.head, status.pending, status.deleting) != (seen.head, seen.pending, seen.deleting)
            || (seen.db != DbSeen::NotRead && seen.db != state.read_db(at, seen.head, seen.pending))
    }

    /// Appends, and the user's deletion.
    pub(super) fn new_work(&self, state: &State, actions: &mut Vec<Action>) {
        if self.deletion && state.api.alive && !state.api.deleting {
            actions.push(Action::UserDeletes);
        }
        for at in 0..self.leaders {
            let leader = &state.leaders[at];
            let appended = state.appended(at);
            let Some(seen) = leader.seen else { continue };
            if leader.showing.is_some()
                || seen.db == DbSeen::NotRead
                || appended >= self.appends
                || state.record(seen.head).kind == Kind::Terminal
            {
                continue;
            }
            let step = self.next_step(state, &seen);
            let mut kinds = vec![Kind::Transition];
            if seen.deleting {
                kinds.push(Kind::Terminal);
                if appended + 1 == self.appends {
                    kinds.remove(0);
                }
            }
            for kind in kinds {
                match step {
                    Step::Append => {
                        if leader.cut_off {
                            actions.push(Action::CommitRefused(at, kind));
                        } else {
                            actions.push(Action::Commit(at, kind));
                            if state.left.slow_commits > 0 {
                                actions.push(Action::CommitUnanswered(at, kind));
                            }
                        }
                    }
                    Step::AppendToSpool => {
                        actions.push(Action::Spool(at, kind));
                        if state.left.spool_errors > 0 {
                            actions.push(Action::SpoolFails(at, kind));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// What the ledger has to survive.
    pub(super) fn fault_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let left = &state.left;
        for at in 0..self.leaders {
            let leader = &state.leaders[at];
            if left.cuts > 0 && !leader.cut_off {
                actions.push(Action::CutOff(at));
            }
            // A crash with nothing in hand changes nothing but what was only read.
            if left.crashes > 0 && (leader.showing.is_some() || !leader.unsynced.is_empty()) {
                actions.push(Action::Crash(at));
            }
            if left.lost_volumes > 0 && (!leader.spool.is_empty() || leader.mark.is_some()) {
                actions.push(Action::VolumeLost(at));
            }
            if leader.late.is_some() {
                actions.push(Action::LateCommitLands(at));
            }
            if left.slow_commits > 0
                && leader.showing.is_none()
                && let Some(seen) = leader.seen
                && seen.db != DbSeen::NotRead
                && !leader.cut_off
                && let Step::ApiRewound { on } = self.next_step(state, &seen)
            {
                actions.push(Action::ApiRewoundUnanswered(at, on.hash));
            }
        }
        if left.db_restores > 0 {
            match state.db_backup {
                None => actions.push(Action::DatabaseBackup),
                Some(backup) if backup != state.db => actions.push(Action::DatabaseRestored),
                Some(_) => {}
            }
        }
        if left.api_restores > 0 {
            match state.api_backup {
                None if state.api.alive => actions.push(Action::ApiServerBackup),
                Some(backup) if backup != state.api => actions.push(Action::ApiServerRestored),
                None | Some(_) => {}
            }
        }
    }

    pub(super) fn apply(&self, s: &mut State, action: Action) {
        match action {
            Action::UserDeletes => s.api.deleting = true,
            Action::Observe(at) => s.leaders[at].seen = s.read_status(),
            Action::ReadDatabase(at) => {
                if let Some(mut seen) = s.leaders[at].seen {
                    seen.db = s.read_db(at, seen.head, seen.pending);
                    seen.confirmed = self.breaks(BrokenRule::RereadBeforeDatabase);
                    s.leaders[at].seen = Some(seen);
                }
            }
            Action::RereadStatus(at) => self.reread(s, at),
            Action::Commit(at, kind) => self.commit(s, at, kind),
            Action::CommitUnanswered(at, kind) => {
                s.left.slow_commits -= 1;
                self.spooled(s, at, kind, true, Certain::Spool);
            }
            Action::CommitRefused(at, kind) | Action::Spool(at, kind) => {
                self.spooled(s, at, kind, false, Certain::Spool);
            }
            Action::SpoolFails(at, kind) => {
                s.left.spool_errors -= 1;
                self.spooled(s, at, kind, false, Certain::Nowhere);
            }
            Action::LateCommitLands(at) => {
                if let Some(record) = s.leaders[at].late.take() {
                    self.insert(s, record, s.record(record).prev);
                }
            }
            Action::Adopt(at, record) => {
                let on = s.leaders[at].seen.map_or(Id::ROOT, |seen| seen.head);
                self.keep(s, at, Set::of(record));
                s.leaders[at].showing = Some(InFlight { record, on, carried: false });
            }
            Action::CommitApiRewound(at, on) => self.commit_api_rewound(s, at, on, true),
            Action::ApiRewoundUnanswered(at, on) => {
                s.left.slow_commits -= 1;
                self.commit_api_rewound(s, at, on, false);
            }
            Action::ImportPending(at, records) => {
                if !s.leaders[at].cut_off {
                    s.db.records = s.db.records.and(records);
                    self.keep(s, at, records);
                }
                s.leaders[at].seen = None;
            }
            Action::HeadFollowsStatus(at, from) => {
                let Some(Seen { head: to, overtaken, .. }) = s.leaders[at].seen.take() else {
                    return;
                };
                let stored = s.db.records.has(to) || self.breaks(BrokenRule::HeadFollowsUnstored);
                if !s.leaders[at].cut_off
                    && (s.db.head == from || self.breaks(BrokenRule::HeadFollowsUncompared))
                    && stored
                {
                    s.move_head(to, None, overtaken);
                    s.head_goes_on();
                }
            }
            Action::Show(at) => self.show(s, at),
            Action::ClearPending(at) => {
                if let Some(seen) = s.leaders[at].seen.take()
                    && s.api.alive
                    && (s.api.head, s.api.pending) == (seen.head, seen.pending)
                {
                    s.api.pending = Set::default();
                    if !self.breaks(BrokenRule::ClearedUncopied) {
                        self.keep(s, at, seen.pending);
                    }
                }
            }
            Action::NoteMark(at) => {
                if let Some(seen) = s.leaders[at].seen {
                    let mut bytes = self.bytes(s, at, &seen);
                    if !self.breaks(BrokenRule::MarkedWithoutPending) {
                        bytes = bytes.and(seen.pending);
                    }
                    self.note(s, at, seen.head, bytes, s.leaders[at].epoch);
                }
            }
            Action::CloseHead(at) => {
                let epoch = s.leaders[at].epoch;
                if let Some(seen) = s.leaders[at].seen.take()
                    && !s.leaders[at].cut_off
                    && s.db.head == seen.head
                {
                    s.db.closed = Some(epoch);
                }
            }
            Action::WriteTombstone(at) => {
                if let Some(seen) = s.leaders[at].seen {
                    s.bury(
                        Stone {
                            terminal: seen.head,
                            records: seen.pending.and(self.bytes(s, at, &seen)),
                            epoch: s.leaders[at].epoch,
                        },
                        self.breaks(BrokenRule::TombstoneOverwritten),
                    );
                }
            }
            Action::ReleaseFinalizer(at) => {
                if let Some(seen) = s.leaders[at].seen.take()
                    && s.api.alive
                    && s.api.deleting
                    && (s.api.head == seen.head || self.breaks(BrokenRule::ReleaseWithoutTest))
                {
                    s.wrongs.released_unfinished |= s.record(s.api.head).kind != Kind::Terminal;
                    s.api.alive = false;
                }
            }
            Action::TailSyncs(at) => {
                let leader = &mut s.leaders[at];
                leader.spool = leader.spool.and(leader.unsynced);
                leader.unsynced = Set::default();
            }
            Action::Replay(at) => s.db.records = s.db.records.and(s.leaders[at].spool),
            Action::HeadGoesOn => s.head_goes_on(),
            Action::TombstoneStep(at, terminal) => self.tombstone_step(s, at, terminal),
            Action::MarkedHead(at) => {
                if let (MarkedStep::Close { .. }, Some((terminal, epoch))) =
                    (self.marked_head(s, at), s.leaders[at].mark)
                {
                    s.move_head(terminal, Some(epoch), false);
                }
            }
            Action::Crash(at) => {
                s.left.crashes -= 1;
                s.epochs += 1;
                let leader = &mut s.leaders[at];
                leader.seen = None;
                leader.showing = None;
                s.torn = s.torn.and(leader.unsynced);
                leader.unsynced = Set::default();
                leader.epoch = s.epochs;
            }
            Action::VolumeLost(at) => {
                s.left.lost_volumes -= 1;
                let stored = s.db.records.and(s.taken);
                s.torn = s.torn.and(s.leaders[at].spool.common(stored));
                if let Some((terminal, _)) = s.leaders[at].mark.take()
                    && !s.api.alive
                    && !s.api.tombstones.iter().flatten().any(|t| t.terminal == terminal)
                {
                    s.unmarked = s.unmarked.and(Set::of(terminal));
                }
                s.leaders[at].spool = Set::default();
            }
            Action::CutOff(at) => {
                s.left.cuts -= 1;
                s.leaders[at].cut_off = true;
            }
            Action::Reconnected(at) => s.leaders[at].cut_off = false,
            Action::DatabaseBackup => s.db_backup = Some(s.db),
            Action::DatabaseRestored => {
                if let Some(backup) = s.db_backup.take() {
                    s.left.db_restores -= 1;
                    s.taken = s.taken.and(s.db.records.without(backup.records));
                    s.db = backup;
                    s.db_restored = true;
                    for leader in &mut s.leaders {
                        leader.late = None;
                    }
                }
            }
            Action::ApiServerBackup => s.api_backup = Some(s.api),
            Action::ApiServerRestored => {
                if let Some(backup) = s.api_backup.take() {
                    s.left.api_restores -= 1;
                    let before = s.carried();
                    s.api = backup;
                    s.taken = s.taken.and(before.without(s.carried()));
                    s.api_restored = true;
                    for seen in s.leaders.iter_mut().filter_map(|l| l.seen.as_mut()) {
                        seen.overtaken = seen.confirmed;
                    }
                }
            }
        }
    }

    /// Keeps records in the own tail: everything that a leader commits, imports or adopts.
    fn keep(&self, s: &mut State, at: usize, records: Set) {
        let leader = &mut s.leaders[at];
        if self.lazy_tail {
            leader.unsynced = leader.unsynced.and(records.without(leader.spool));
        } else {
            leader.spool = leader.spool.and(records);
        }
    }

    /// Fsyncs the tail with a mark at its end.
    fn note(&self, s: &mut State, at: usize, terminal: Id, bytes: Set, epoch: u8) {
        let leader = &mut s.leaders[at];
        leader.spool = leader.spool.and(leader.unsynced).and(bytes);
        leader.unsynced = Set::default();
        leader.mark = Some((terminal, epoch));
    }

    /// The shown terminal record, if its bytes are within reach: the status has only its link.
    fn bytes(&self, s: &State, at: usize, seen: &Seen) -> Set {
        let leader = &s.leaders[at];
        let stored = match seen.db {
            DbSeen::Answered { stored, .. } => stored,
            DbSeen::NotRead | DbSeen::Unreachable => Set::default(),
        };
        Set::of(seen.head).common(seen.pending.and(leader.spool).and(leader.unsynced).and(stored))
    }

    fn reread(&self, s: &mut State, at: usize) {
        let Some(seen) = s.leaders[at].seen else {
            return;
        };
        s.leaders[at].seen = s.read_status().map(|now| {
            let same = (now.head, now.pending, now.deleting) == (seen.head, seen.pending, seen.deleting);
            if same { Seen { confirmed: true, ..seen } } else { now }
        });
    }

    /// The batch's transaction: the record, and the head row by compare-and-set.
    fn insert(&self, s: &mut State, record: Id, expected: Id) -> bool {
        if s.db.head != expected && !self.breaks(BrokenRule::NoDatabaseCompareAndSet) {
            return false;
        }
        s.db.records = s.db.records.and(Set::of(record));
        s.move_head(record, None, false);
        true
    }

    fn lost_race(&self, s: &mut State, at: usize, with: ConflictWith) {
        let _ = on_conflict(with);
        s.leaders[at].seen = None;
        s.leaders[at].showing = None;
    }

    fn commit(&self, s: &mut State, at: usize, kind: Kind) {
        let Some(seen) = s.leaders[at].seen else {
            return;
        };
        if s.db.head != seen.head && !self.breaks(BrokenRule::NoDatabaseCompareAndSet) {
            return self.lost_race(s, at, ConflictWith::DatabaseHead);
        }
        let Some(record) = s.make(at, kind, seen.head, seen.head) else {
            return;
        };
        self.insert(s, record, seen.head);
        self.keep(s, at, Set::of(record));
        self.try_show(s, at, record, &seen, Certain::Database);
    }

    fn spooled(&self, s: &mut State, at: usize, kind: Kind, late: bool, certain: Certain) {
        let Some(seen) = s.leaders[at].seen else {
            return;
        };
        let Some(record) = s.make(at, kind, seen.head, seen.head) else {
            return;
        };
        if certain == Certain::Spool && !self.breaks(BrokenRule::ShownBeforeDurable) {
            let leader = &mut s.leaders[at];
            leader.spool = leader.spool.and(leader.unsynced).and(Set::of(record));
            leader.unsynced = Set::default();
        }
        if certain == Certain::Nowhere {
            s.torn = s.torn.and(Set::of(record));
        }
        if late {
            s.leaders[at].late = Some(record);
        }
        self.try_show(s, at, record, &seen, certain);
    }

    fn try_show(&self, s: &mut State, at: usize, record: Id, seen: &Seen, certain: Certain) {
        let showing =
            if self.breaks(BrokenRule::ShownBeforeDurable) { Showing::Show } else { self.showing(certain, seen) };
        let carried = match showing {
            Showing::Show => false,
            Showing::ShowCarried => true,
            Showing::NotShown => {
                s.leaders[at].seen = None;
                return;
            }
        };
        s.leaders[at].showing = Some(InFlight { record, on: seen.head, carried });
    }

    fn commit_api_rewound(&self, s: &mut State, at: usize, on: Id, answered: bool) {
        let Some(seen) = s.leaders[at].seen else {
            return;
        };
        if s.leaders[at].cut_off || s.db.head != on {
            return self.lost_race(s, at, ConflictWith::DatabaseHead);
        }
        s.wrongs.rewind_invented |= !s.api_restored;
        let Some(record) = s.make(at, Kind::ApiRewound, on, seen.head) else {
            return;
        };
        self.insert(s, record, on);
        self.keep(s, at, Set::of(record));
        if answered {
            self.try_show(s, at, record, &seen, Certain::Database);
        } else {
            s.leaders[at].seen = None;
        }
    }

    /// The status write, and then a fresh observation, as after a lost answer.
    fn show(&self, s: &mut State, at: usize) {
        let Some(showing) = s.leaders[at].showing.take() else {
            return;
        };
        s.leaders[at].seen = None;
        let record = s.record(showing.record);
        let same_head = s.api.head == showing.on || self.breaks(BrokenRule::NoStatusCompareAndSet);
        let tested = match show_tests(record.kind == Kind::Terminal) {
            ShowTests::HeadAndDeletion
                if !self.breaks(BrokenRule::DeletionNotTested) && !self.breaks(BrokenRule::TerminalAdoptedByLiving) =>
            {
                same_head && s.api.deleting
            }
            ShowTests::Head | ShowTests::HeadAndDeletion => same_head,
        };
        let answer = match (s.api.alive, tested) {
            (false, _) => ShowAnswer::NotFound,
            (true, false) => ShowAnswer::TestFailed,
            (true, true) => ShowAnswer::Written,
        };
        if after_show(answer) != AfterShow::Shown {
            return;
        }
        let rewound = record.kind == Kind::ApiRewound;
        s.wrongs.line_broken |= record.made_on != s.api.head || (!rewound && record.prev != s.api.head);
        s.wrongs.terminal_followed |= s.record(s.api.head).kind == Kind::Terminal && !rewound;
        s.wrongs.living_object_closed |= record.kind == Kind::Terminal && !s.api.deleting;
        s.api.head = showing.record;
        if showing.carried {
            s.api.pending = s.api.pending.and(Set::of(showing.record));
        }
        s.shown = s.shown.and(Set::of(showing.record));
    }

    fn tombstone_step(&self, s: &mut State, at: usize, terminal: Id) {
        let stones = s.api.tombstones;
        let Some(stone) = stones.into_iter().flatten().find(|s| s.terminal == terminal) else {
            return;
        };
        match self.tombstone(s, at, stone) {
            TombstoneStep::Keep => {}
            TombstoneStep::Import(missing) => {
                s.db.records = s.db.records.and(set(&missing));
                self.keep(s, at, set(&missing));
            }
            TombstoneStep::NoteMark => {
                self.note(s, at, stone.terminal, stone.records, stone.epoch);
            }
            TombstoneStep::Close { .. } => {
                s.move_head(stone.terminal, Some(stone.epoch), false);
            }
            TombstoneStep::Remove => {
                s.api.tombstones = stones.map(|s| s.filter(|s| s.terminal != terminal));
                s.api.tombstones.sort();
            }
        }
    }
}
