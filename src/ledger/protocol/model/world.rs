//! The model's world: one object, its status, the database, and leaders with their spools.
//!
//! A record is named by its writer and that writer's count, so that equal histories are equal
//! states and sets of records are bits.

use super::super::rules::Line;

/// Most leaders that a state has room for.
pub(super) const LEADERS: usize = 3;
/// Most records that one leader makes, `api-rewound` records included.
pub(super) const RECORDS: usize = 4;

/// A record, or (0) the place before the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Id(pub(super) u8);

impl Id {
    pub(super) const ROOT: Id = Id(0);

    pub(super) fn made_by(writer: usize, count: u8) -> Id {
        Id(1 + u8::try_from(writer * RECORDS).unwrap() + count)
    }

    pub(super) fn writer(self) -> usize {
        usize::from(self.0 - 1) / RECORDS
    }

    pub(super) fn count(self) -> usize {
        usize::from(self.0 - 1) % RECORDS
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Id::ROOT => f.write_str("root"),
            id => write!(f, "r{}.{}", id.writer(), id.count()),
        }
    }
}

/// A set of records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Set(pub(super) u16);

impl Set {
    pub(super) fn of(id: Id) -> Set {
        Set(if id == Id::ROOT { 0 } else { 1 << (id.0 - 1) })
    }

    /// The place before the first record is everywhere.
    pub(super) fn has(self, id: Id) -> bool {
        self.0 & Set::of(id).0 == Set::of(id).0
    }

    pub(super) fn and(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    pub(super) fn common(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    pub(super) fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    pub(super) fn within(self, other: Set) -> bool {
        self.without(other).is_empty()
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn ids(self) -> impl Iterator<Item = Id> {
        (1..=u8::try_from(LEADERS * RECORDS).unwrap()).map(Id).filter(move |id| self.has(*id))
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.ids()).finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) enum Kind {
    #[default]
    NotMade,
    Transition,
    Terminal,
    ApiRewound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) prev: Id,
    /// The shown head that it was made to replace; `prev`, except for `api-rewound`.
    pub(super) made_on: Id,
    pub(super) epoch: u8,
}

/// What the API server holds: the object with its status, and the tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Api {
    pub(super) alive: bool,
    pub(super) deleting: bool,
    pub(super) head: Id,
    pub(super) pending: Set,
    /// By their terminal record; one restore makes room for two endings.
    pub(super) tombstones: [Option<Stone>; 2],
}

/// A tombstone: the terminal record's link, and the records whose bytes it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Stone {
    pub(super) terminal: Id,
    pub(super) records: Set,
    pub(super) epoch: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Db {
    pub(super) head: Id,
    pub(super) closed: Option<u8>,
    pub(super) records: Set,
}

/// One leader: any number of them believe to be one at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Leader {
    pub(super) cut_off: bool,
    pub(super) epoch: u8,
    pub(super) made: u8,
    pub(super) seen: Option<Seen>,
    pub(super) showing: Option<InFlight>,
    /// A commit without an answer, which may land at any time.
    pub(super) late: Option<Id>,
    pub(super) spool: Set,
    /// Committed, and not in the spool's tail yet.
    pub(super) unsynced: Set,
    /// The terminal record last marked as shown, and the epoch of the marking.
    pub(super) mark: Option<(Id, u8)>,
}

/// What a leader has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) head: Id,
    pub(super) pending: Set,
    pub(super) deleting: bool,
    pub(super) confirmed: bool,
    /// The API server was restored after the status was confirmed.
    pub(super) overtaken: bool,
    pub(super) db: DbSeen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum DbSeen {
    NotRead,
    Unreachable,
    Answered {
        head: Id,
        closed: bool,
        /// Of the shown head and the pending records, those that are stored.
        stored: Set,
        line: LineSeen,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum LineSeen {
    Passes,
    Misses,
    Gap,
}

impl From<LineSeen> for Line {
    fn from(line: LineSeen) -> Line {
        match line {
            LineSeen::Passes => Line::PassesShown,
            LineSeen::Misses => Line::MissesShown,
            LineSeen::Gap => Line::Gap,
        }
    }
}

/// A status write on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InFlight {
    pub(super) record: Id,
    /// The head that the write tests.
    pub(super) on: Id,
    pub(super) carried: bool,
}

/// How often each fault may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Faults {
    pub(super) crashes: u8,
    pub(super) cuts: u8,
    pub(super) slow_commits: u8,
    pub(super) spool_errors: u8,
    pub(super) lost_volumes: u8,
    pub(super) db_restores: u8,
    pub(super) api_restores: u8,
}

/// What went wrong in a step, kept in the state so that properties see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Wrongs {
    pub(super) line_broken: bool,
    pub(super) terminal_followed: bool,
    pub(super) living_object_closed: bool,
    pub(super) database_head_back: bool,
    pub(super) rewind_invented: bool,
    pub(super) released_unfinished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct State {
    pub(super) records: [Record; LEADERS * RECORDS],
    pub(super) api: Api,
    pub(super) db: Db,
    pub(super) leaders: [Leader; LEADERS],
    pub(super) api_backup: Option<Api>,
    pub(super) db_backup: Option<Db>,
    pub(super) left: Faults,
    pub(super) epochs: u8,
    pub(super) shown: Set,
    /// Records that a restore has taken from the database, or from the status.
    pub(super) taken: Set,
    /// Records of which a fault destroyed a tail's copy while the database was their other home:
    /// if a restore takes them too, a `lost` record is all that can be promised (rule 6).
    pub(super) torn: Set,
    /// Terminal records of which a mark was destroyed when nothing else was left to make one from.
    pub(super) unmarked: Set,
    pub(super) api_restored: bool,
    pub(super) db_restored: bool,
    /// A leader ran out of record numbers: the closing check says nothing here.
    pub(super) exhausted: bool,
    pub(super) wrongs: Wrongs,
}

impl State {
    pub(super) fn record(&self, id: Id) -> Record {
        if id == Id::ROOT { Record::default() } else { self.records[usize::from(id.0) - 1] }
    }

    pub(super) fn sequence(&self, id: Id) -> u64 {
        self.line(id).count() as u64
    }

    /// The record and its ancestors, newest first.
    pub(super) fn line(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        let mut at = id;
        std::iter::from_fn(move || {
            let id = at;
            (id != Id::ROOT).then(|| {
                at = self.record(id).prev;
                id
            })
        })
    }

    /// Whether `older` is `newer` or one of its ancestors.
    pub(super) fn descends(&self, newer: Id, older: Id) -> bool {
        older == Id::ROOT || self.line(newer).any(|id| id == older)
    }

    /// Makes a record; `None` if the leader has no number left.
    pub(super) fn make(&mut self, leader: usize, kind: Kind, prev: Id, on: Id) -> Option<Id> {
        let count = self.leaders[leader].made;
        if usize::from(count) == RECORDS {
            self.exhausted = true;
            return None;
        }
        let id = Id::made_by(leader, count);
        self.leaders[leader].made += 1;
        self.records[usize::from(id.0) - 1] = Record { kind, prev, made_on: on, epoch: self.leaders[leader].epoch };
        Some(id)
    }

    /// How many records a leader made of its own accord.
    pub(super) fn appended(&self, leader: usize) -> usize {
        let first = leader * RECORDS;
        self.records[first..first + usize::from(self.leaders[leader].made)]
            .iter()
            .filter(|record| record.kind != Kind::ApiRewound)
            .count()
    }

    /// Moves the head row by the protocol, and notes if that was a step back over what is shown.
    pub(super) fn move_head(&mut self, to: Id, closed: Option<u8>, overtaken: bool) {
        let from = self.db.head;
        let current = if self.api.alive {
            self.descends(self.api.head, from) || self.descends(from, self.api.head)
        } else {
            from == self.api.head
        };
        // Of two endings that were both shown, and neither of which descends from the other,
        // either may stand.
        let ending = |id| self.record(id).kind == Kind::Terminal && self.shown.has(id);
        let endings = self.api_restored && ending(from) && ending(to) && !self.descends(from, to);
        if current && self.shown.has(from) && !self.descends(to, from) && !endings && !overtaken {
            self.wrongs.database_head_back = true;
        }
        self.db.head = to;
        self.db.closed = closed;
    }

    /// The stored record that an open head row may move on to by itself, as long as no two claim the same place.
    fn next_of_head(&self) -> Option<Id> {
        let mut next = self.db.records.ids().filter(|&id| self.record(id).prev == self.db.head);
        match (next.next(), next.next()) {
            (Some(only), None) if self.db.closed.is_none() && self.record(only).kind != Kind::Terminal => Some(only),
            _ => None,
        }
    }

    /// Whether something that was imported lies behind the head row, which an import moves in a later transaction than the
    /// one that stores; or never, where it stops in between.
    pub(super) fn head_may_go_on(&self) -> bool {
        self.next_of_head().is_some()
    }

    /// The head row moves on over stored records that follow it.
    pub(super) fn head_goes_on(&mut self) {
        while let Some(next) = self.next_of_head() {
            self.move_head(next, None, false);
        }
    }

    /// Writes a tombstone, or adds to the one of the same name.
    pub(super) fn bury(&mut self, stone: Stone, overwrite: bool) {
        let stones = &mut self.api.tombstones;
        if overwrite {
            *stones = [None, Some(stone)];
            return;
        }
        if let Some(old) = stones.iter_mut().flatten().find(|s| s.terminal == stone.terminal) {
            old.records = old.records.and(stone.records);
        } else if let Some(free) = stones.iter_mut().find(|s| s.is_none()) {
            *free = Some(stone);
            stones.sort();
        } else {
            self.exhausted = true;
        }
    }

    /// Every record that some durable place holds, or is about to be given by a living process
    /// that has it from the database.
    pub(super) fn homes(&self) -> Set {
        self.leaders.iter().fold(self.carried(), |homes, leader| homes.and(leader.spool).and(leader.unsynced))
    }

    /// Every record that the database or the API server holds.
    pub(super) fn carried(&self) -> Set {
        let stones = self.api.tombstones.iter().flatten();
        let stones = stones.fold(Set::default(), |all, stone| all.and(stone.records));
        let pending = if self.api.alive { self.api.pending } else { Set::default() };
        self.db.records.and(pending).and(stones)
    }

    /// What a leader reads from the database now.
    pub(super) fn read_db(&self, leader: usize, head: Id, pending: Set) -> DbSeen {
        if self.leaders[leader].cut_off {
            return DbSeen::Unreachable;
        }
        let target = self.sequence(head);
        let mut line = LineSeen::Misses;
        if head == Id::ROOT {
            line = LineSeen::Passes;
        } else {
            for id in self.line(self.db.head) {
                if self.sequence(id) == target {
                    if id == head {
                        line = LineSeen::Passes;
                    }
                    break;
                }
                if !self.db.records.has(id) {
                    line = LineSeen::Gap;
                    break;
                }
            }
        }
        DbSeen::Answered {
            head: self.db.head,
            closed: self.db.closed.is_some(),
            stored: self.db.records.common(pending.and(Set::of(head))),
            line,
        }
    }

    /// The status as a leader that reads it now sees it; `None` if the object is gone.
    pub(super) fn read_status(&self) -> Option<Seen> {
        self.api.alive.then_some(Seen {
            head: self.api.head,
            pending: self.api.pending,
            deleting: self.api.deleting,
            confirmed: false,
            overtaken: false,
            db: DbSeen::NotRead,
        })
    }

    /// Exchanges the leaders' names: `order[old] = new`.
    pub(super) fn renamed(&self, order: &[usize; LEADERS]) -> State {
        let id = |id: Id| match id {
            Id::ROOT => Id::ROOT,
            id => Id::made_by(order[id.writer()], u8::try_from(id.count()).unwrap()),
        };
        let set = |set: Set| set.ids().fold(Set::default(), |all, one| all.and(Set::of(id(one))));
        let api = |api: Api| Api {
            head: id(api.head),
            pending: set(api.pending),
            tombstones: {
                let mut stones = api.tombstones.map(|stone| {
                    stone.map(|stone| Stone { terminal: id(stone.terminal), records: set(stone.records), ..stone })
                });
                stones.sort();
                stones
            },
            ..api
        };
        let db = |db: Db| Db { head: id(db.head), records: set(db.records), ..db };
        let seen = |seen: Seen| Seen {
            head: id(seen.head),
            pending: set(seen.pending),
            db: match seen.db {
                DbSeen::NotRead => DbSeen::NotRead,
                DbSeen::Unreachable => DbSeen::Unreachable,
                DbSeen::Answered { head, closed, stored, line } => {
                    DbSeen::Answered { head: id(head), closed, stored: set(stored), line }
                }
            },
            ..seen
        };
        let mut renamed = State {
            api: api(self.api),
            db: db(self.db),
            api_backup: self.api_backup.map(api),
            db_backup: self.db_backup.map(db),
            shown: set(self.shown),
            taken: set(self.taken),
            torn: set(self.torn),
            unmarked: set(self.unmarked),
            ..*self
        };
        for (old, leader) in self.leaders.iter().enumerate() {
            renamed.leaders[order[old]] = Leader {
                seen: leader.seen.map(seen),
                showing: leader.showing.map(|showing| InFlight {
                    record: id(showing.record),
                    on: id(showing.on),
                    ..showing
                }),
                late: leader.late.map(id),
                spool: set(leader.spool),
                unsynced: set(leader.unsynced),
                mark: leader.mark.map(|(terminal, epoch)| (id(terminal), epoch)),
                ..*leader
            };
            for count in 0..RECORDS {
                let record = self.records[old * RECORDS + count];
                renamed.records[order[old] * RECORDS + count] =
                    Record { prev: id(record.prev), made_on: id(record.made_on), ..record };
            }
        }
        renamed
    }
}
