//! The rules as pure, total functions: what was seen goes in, the one permitted step comes out.
//!
//! No I/O, no clock and no record contents here: a record is its [`Link`], a hash `H` and its
//! place in the chain. Every function says which of the seven rules it carries out. Steps that
//! change the database name the head they expect (`from`), steps that change the status name the
//! head they were made on: both writes are compare-and-set, and a failed comparison means
//! [`on_conflict`], never another try with the same view.

/// A record's place in its object's chain. Two records are the same record if their links are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link<H> {
    /// Contiguous from 1.
    pub sequence: u64,
    /// The hash over the record's envelope.
    pub hash: H,
}

/// The last record of a chain as one place knows it; `None` before the first record.
pub type Head<H> = Option<Link<H>>;

fn sequence<H>(head: &Head<H>) -> u64 {
    head.as_ref().map_or(0, |link| link.sequence)
}

/// What the database says about one chain, read in one snapshot after the status was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseHead<H> {
    /// The head row.
    pub link: Link<H>,
    /// The shown head that the head's record was made to replace: its `prev`, except for an
    /// `api-rewound` record, which names the shown head it was made over.
    pub made_on: Head<H>,
    /// Whether the head's record says `deleted`.
    pub terminal: bool,
    /// What a walk back along `prev` finds at the shown head's sequence.
    pub line: Line,
}

/// What the walk back from the database's head finds at the shown head's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// The shown head itself.
    PassesShown,
    /// Another record: the chain has branched at or below the shown head.
    MissesShown,
    /// A record on the way is not stored. Not knowing is no licence to go back.
    Gap,
}

/// How the database's head relates to the shown one. Made by [`relate`] only from facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation<H> {
    /// Both heads are the same record, or there is no record anywhere.
    Same,
    /// The database holds the one record that may run ahead of the status (rule 1).
    OneAhead {
        /// The database's head, made on the shown head.
        head: Link<H>,
        /// Whether it says `deleted`.
        terminal: bool,
    },
    /// The shown head lies two or more records behind the database's, or may for all we know.
    FurtherAhead {
        /// The database's head.
        head: Link<H>,
    },
    /// The database is behind the shown head, or on another branch.
    Elsewhere {
        /// The database's head; `None` if it has no chain.
        head: Head<H>,
        /// The shown head, which exists in this case.
        shown: Link<H>,
        /// Whether the shown head's record is stored, off the database's line.
        shown_stored: bool,
    },
}

/// Relates the database's head to the shown head (rule 3).
///
/// A gap on the way back counts as "the shown head may be an ancestor": an `api-rewound` record
/// too many costs nothing, a head moved back over shown records would (rules 3 and 5).
pub fn relate<H: Clone + Eq>(shown: &Head<H>, database: Option<&DatabaseHead<H>>, shown_stored: bool) -> Relation<H> {
    let (database, shown_link) = match (database, shown) {
        (None, None) => return Relation::Same,
        (None, Some(shown)) => {
            return Relation::Elsewhere { head: None, shown: shown.clone(), shown_stored };
        }
        (Some(database), shown) => (database, shown),
    };
    let head = database.link.clone();
    if shown_link.as_ref() == Some(&head) {
        return Relation::Same;
    }
    if database.made_on == *shown_link {
        return Relation::OneAhead { head, terminal: database.terminal };
    }
    match shown_link {
        None => Relation::FurtherAhead { head },
        Some(_) if head.sequence > sequence(shown_link) && database.line != Line::MissesShown => {
            Relation::FurtherAhead { head }
        }
        Some(shown) => Relation::Elsewhere { head: Some(head), shown: shown.clone(), shown_stored },
    }
}

/// How fresh the status in a [`View`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusRead {
    /// From a cache, or by any read that was made before the database was read.
    Cached,
    /// By a quorum read that *began after* the database had answered, and found the same status.
    /// The order matters: a status read first may have been overtaken by two records since.
    QuorumAfterDatabase,
}

/// What a writer knows of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database<H> {
    /// No answer within the budget, breaker open, or no database configured.
    Unreachable,
    /// It answered.
    Answered(Reading<H>),
}

/// One answer of the database about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<H> {
    /// How its head relates to the shown one.
    pub relation: Relation<H>,
    /// The pending records of the status that it does not hold.
    pub missing: Vec<Link<H>>,
}

/// What a writer that wants to append has seen. Status first, then the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<H> {
    /// Whether the object is marked for deletion (`metadata.deletionTimestamp`).
    pub deleting: bool,
    /// Free slots in `status.ledger.pending`.
    pub slots_left: usize,
    /// How fresh the status is.
    pub status: StatusRead,
    /// What the database says.
    pub database: Database<H>,
}

/// The one step that a writer may take next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<H> {
    /// Commit the record on the shown head, head row by compare-and-set; if the budget passes,
    /// the same bytes go to the spool. Then [`after_append`].
    Append,
    /// Fsync the record to the spool. Then [`after_append`].
    AppendToSpool,
    /// Nothing may be appended or shown: reconcile children, coalesce, report `LedgerFull`.
    Full,
    /// Show the record that the database already holds, and keep it in the own tail; make none.
    Adopt(Link<H>),
    /// Commit an `api-rewound` record on the database's head, naming the shown head, and show it.
    /// Only a certain commit may be shown: otherwise read again (it is adopted if it arrived).
    ApiRewound {
        /// The database's head, which the new record follows.
        on: Link<H>,
    },
    /// Read the status by quorum and decide again with [`StatusRead::QuorumAfterDatabase`].
    RereadStatus,
    /// Store these pending records, and keep them in the own tail like everything committed.
    ImportPending(Vec<Link<H>>),
    /// Move the head row to the shown head, in a transaction that finds that record stored; what
    /// leaves the line is named by a resolution record.
    HeadFollowsStatus {
        /// The head row expected.
        from: Head<H>,
        /// The shown head.
        to: Link<H>,
    },
}

/// Decides the next step of a writer whose object shows no terminal record (rules 1 to 5).
///
/// * Rule 2 and 4: without a database the spool and the status carry the record, at once.
/// * Rule 1 and 3: a head one ahead is adopted; a head elsewhere follows the status.
/// * Rule 5: a status behind the database was rewound, and that is recorded on top. A *terminal*
///   record one ahead of an object that nobody deletes is such a rewind too: adopting it would
///   delete an object that a restore has brought back.
pub fn next_step<H: Clone>(view: &View<H>) -> Step<H> {
    let reading = match &view.database {
        Database::Unreachable => return carried_append(view.slots_left),
        Database::Answered(reading) => reading,
    };
    let confirmed = view.status == StatusRead::QuorumAfterDatabase;
    match &reading.relation {
        Relation::Same => Step::Append,
        Relation::OneAhead { head, terminal } if !terminal || view.deleting => Step::Adopt(head.clone()),
        Relation::OneAhead { .. } | Relation::FurtherAhead { .. } if !confirmed => Step::RereadStatus,
        Relation::OneAhead { head, .. } | Relation::FurtherAhead { head } => Step::ApiRewound { on: head.clone() },
        Relation::Elsewhere { .. } if !reading.missing.is_empty() => Step::ImportPending(reading.missing.clone()),
        // The shown head is on no line of the database: its home is a spool that has not been
        // replayed yet. Waiting would block (rule 4), so the chain goes on beside the gap.
        Relation::Elsewhere { shown_stored: false, .. } => carried_append(view.slots_left),
        Relation::Elsewhere { .. } if !confirmed => Step::RereadStatus,
        Relation::Elsewhere { head, shown, .. } => Step::HeadFollowsStatus { from: head.clone(), to: shown.clone() },
    }
}

fn carried_append<H>(slots_left: usize) -> Step<H> {
    if slots_left == 0 { Step::Full } else { Step::AppendToSpool }
}

/// Where a new record is known to be after trying to make it durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certain {
    /// The database answered the commit within the budget.
    Database,
    /// Fsynced on the own spool; the database was not asked, or its answer is not known.
    Spool,
    /// The spool failed as well.
    Nowhere,
}

/// How a new record may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Showing {
    /// The status write moves the head; the record stays out of `pending`.
    Show,
    /// The same status write adds the record to `pending`.
    ShowCarried,
    /// Not at all: no slot is free. The record is durable or forgotten, but never visible.
    NotShown,
}

/// Decides how a record may be shown (rule 2). Only a certain commit needs no slot.
pub fn after_append(certain: Certain, slots_left: usize) -> Showing {
    match certain {
        Certain::Database => Showing::Show,
        Certain::Spool | Certain::Nowhere if slots_left == 0 => Showing::NotShown,
        Certain::Spool | Certain::Nowhere => Showing::ShowCarried,
    }
}

/// What the status write that shows a record has to test, beside being sent at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShowTests {
    /// The head is the one that the record was made on.
    Head,
    /// That, and the object still bears the deletion timestamp that the writer saw.
    HeadAndDeletion,
}

/// Decides what a status write tests (rules 1 and 5). A restore of the API server may bring back
/// the very head that a terminal record was made on, without the deletion: only the timestamp
/// tells the two apart. (A resource version cannot: a restore hands them out again.)
pub fn show_tests(terminal: bool) -> ShowTests {
    if terminal { ShowTests::HeadAndDeletion } else { ShowTests::Head }
}

/// The API server's answer to the status write that shows a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShowAnswer {
    /// Accepted.
    Written,
    /// A test failed: the head has moved, or the deletion is gone.
    TestFailed,
    /// The object is gone.
    NotFound,
    /// No answer: it may have been written.
    Unknown,
}

/// What follows a status write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterShow {
    /// The record is shown; the next plan starts from it.
    Shown,
    /// The record lost the race: it is kept, never shown by this writer, and superseded.
    Superseded,
    /// A quorum read tells whether the record is shown; the patch is not sent again.
    RereadStatus,
}

/// Decides what a status write's answer means (rule 1): the API server's word is the only one.
pub fn after_show(answer: ShowAnswer) -> AfterShow {
    match answer {
        ShowAnswer::Written => AfterShow::Shown,
        ShowAnswer::TestFailed | ShowAnswer::NotFound => AfterShow::Superseded,
        ShowAnswer::Unknown => AfterShow::RereadStatus,
    }
}

/// What a compare-and-set was lost against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConflictWith {
    /// The head row in the database.
    DatabaseHead,
    /// The head in the status, or the resource version.
    Status,
}

/// Decides what follows a lost compare-and-set (rules 1 and 3): the view is void, whole. Nothing
/// of it is used again, and no record of it is made again with the old `prev`.
pub fn on_conflict(with: ConflictWith) -> StatusRead {
    match with {
        ConflictWith::DatabaseHead | ConflictWith::Status => StatusRead::Cached,
    }
}

/// What may happen to the pending records of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingStep {
    /// There are none.
    Nothing,
    /// They stay: the database is unreachable, or lacks one of them.
    Keep,
    /// Keep them in the own tail, as everything that a writer commits or vouches for, then remove
    /// exactly what was read, in a status write that tests the head and `pending`. (The spool they
    /// were first written to may be lost by now, and the database may yet be rewound.)
    Clear,
}

/// Decides whether the pending records may go from the status (rules 2 and 3): only once the
/// database is known to hold every one of them.
pub fn may_clear_pending<H>(pending: &[Link<H>], database: &Database<H>) -> PendingStep {
    match database {
        _ if pending.is_empty() => PendingStep::Nothing,
        Database::Answered(reading) if reading.missing.is_empty() => PendingStep::Clear,
        Database::Answered(_) | Database::Unreachable => PendingStep::Keep,
    }
}

/// Whether the own tail notes, fsynced, that a terminal record was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// It does.
    Noted,
    /// Not yet.
    NotNoted,
    /// The spool cannot be written.
    Impossible,
}

/// What is known of the tombstone of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tombstone {
    /// There is none, or it lacks one of the records it has to hold.
    Absent,
    /// It holds the terminal record and all that are pending.
    Complete,
}

/// What a writer knows when an object that is being deleted shows a terminal record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion<H> {
    /// The shown head, which is the terminal record.
    pub terminal: Link<H>,
    /// The pending records in the status.
    pub pending: Vec<Link<H>>,
    /// What the database says.
    pub database: Database<H>,
    /// Whether the head row is closed: known to end in a terminal record that was shown.
    pub closed: bool,
    /// The mark in the own tail.
    pub mark: Mark,
    /// The tombstone.
    pub tombstone: Tombstone,
}

/// What stands between a shown terminal record and the release of the finalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release<H> {
    /// First copy the pending records and the terminal one to the own tail, then note there,
    /// fsynced, that it was shown: what the status carries goes with the object.
    NoteMark,
    /// First close the head row, by compare-and-set on the terminal record. If the database does
    /// not answer within the budget, decide again with [`Database::Unreachable`].
    CloseHead,
    /// First write these records into the tombstone, which is named by the object's uid *and* the
    /// terminal record: a leader that a restore has overtaken must not overwrite another ending.
    /// If it exists, add what it lacks. A terminal record whose bytes are out of reach (it was
    /// committed by another writer) goes in by its link alone.
    WriteTombstone(Vec<Link<H>>),
    /// Release it, in a write that tests the shown head.
    Now,
}

/// Decides how a finalizer is released (rules 4, 5 and 6): never by a timer, never waiting for
/// the database.
///
/// The mark comes first, so that a rewind of the database can be repaired when nothing else
/// remembers the object. Without a mark (the spool is broken) there is always a tombstone, and
/// whoever removes that one notes the mark.
pub fn may_release_finalizer<H: Clone + Eq>(deletion: &Deletion<H>) -> Release<H> {
    if deletion.mark == Mark::NotNoted {
        return Release::NoteMark;
    }
    if deletion.tombstone == Tombstone::Complete {
        return Release::Now;
    }
    match &deletion.database {
        Database::Answered(reading)
            if deletion.mark == Mark::Noted && reading.relation == Relation::Same && reading.missing.is_empty() =>
        {
            if deletion.closed {
                Release::Now
            } else {
                Release::CloseHead
            }
        }
        Database::Answered(_) | Database::Unreachable => {
            let mut records = deletion.pending.clone();
            if !records.contains(&deletion.terminal) {
                records.push(deletion.terminal.clone());
            }
            Release::WriteTombstone(records)
        }
    }
}

/// What is known of an object by its uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectSeen {
    /// It exists, and shows the terminal record in question.
    Present,
    /// It exists, and a quorum read that began after that terminal record was found in a tail or
    /// a tombstone shows another head: the API server was restored, the object has come back.
    CameBack,
    /// Absent from a complete list of a scope that this cluster owns (rule 7).
    Gone,
    /// Anything less.
    Unknown,
}

/// How the head row's record and a terminal record descend from each other, along `prev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Descent {
    /// The head is the terminal record, or descends from it.
    HeadFollows,
    /// The terminal record descends from the head.
    HeadPrecedes,
    /// Neither, or a gap hides it.
    Apart,
}

/// The head row of an object that may be gone, as seen from a terminal record that was shown: the
/// last one that the own tail has marked for this object, or the one that a tombstone ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedHead<H> {
    /// The terminal record that was shown.
    pub terminal: Link<H>,
    /// The epoch of the mark, or of the tombstone's writer.
    pub epoch: u64,
    /// What is known of the object.
    pub object: ObjectSeen,
    /// Whether the database holds the terminal record.
    pub stored: bool,
    /// The head row.
    pub head: Head<H>,
    /// The epoch under which the head row was closed, if it is.
    pub closed: Option<u64>,
    /// How the head row's record and the terminal one descend from each other.
    pub descent: Descent,
}

/// What a marked terminal record does to the head row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkedStep<H> {
    /// Nothing: the object is there, or may be.
    NotGone,
    /// Nothing: the head row is right, or another ending stands.
    Stands,
    /// Store the terminal record first, if its bytes are here; else a spool has yet to bring it.
    Import,
    /// Put the head row on the terminal record, and close it under the mark's epoch.
    Close {
        /// The head row expected.
        from: Head<H>,
    },
}

/// Decides whether a marked terminal record becomes the head again (rule 5), after the database
/// was rewound under an object that is gone.
///
/// A mark is a record that was *shown*; an open head is not known to be, so the mark wins whatever
/// the epochs. Between two endings that were both shown (the API server was restored in between)
/// the one that descends from the other stands; if neither knew of the other, the later epoch
/// decides, so that every order of repairs comes to the same end.
pub fn marked_head_repair<H: Eq + Clone>(marked: &MarkedHead<H>) -> MarkedStep<H> {
    if marked.object != ObjectSeen::Gone {
        return MarkedStep::NotGone;
    }
    let stands = marked.closed.is_some_and(|epoch| match marked.descent {
        Descent::HeadFollows => true,
        Descent::HeadPrecedes => false,
        Descent::Apart => epoch >= marked.epoch,
    });
    if stands {
        MarkedStep::Stands
    } else if marked.stored {
        MarkedStep::Close { from: marked.head.clone() }
    } else {
        MarkedStep::Import
    }
}

/// What stands between a tombstone and its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TombstoneStep<H> {
    /// It stays: the database is unreachable or lacks the terminal record, the tail cannot be
    /// written, or the object is not gone yet.
    Keep,
    /// First store these records, and keep them in the own tail like everything committed.
    Import(Vec<Link<H>>),
    /// First copy it to the own tail, fsynced, with the mark under the tombstone's epoch.
    NoteMark,
    /// First put the head row on the terminal record, and close it under the tombstone's epoch.
    Close {
        /// The head row expected.
        from: Head<H>,
    },
    /// Remove it, testing its resource version.
    Remove,
}

/// Decides whether a tombstone may go (rules 5 and 6): once the database holds all its records,
/// the remover's own tail holds a marked copy, and the head row is closed on its terminal record
/// or on another ending. Of an object that came back it goes as soon as its records are stored.
///
/// `missing` are the records in the tombstone that the database lacks, `None` if it did not answer.
pub fn may_remove_tombstone<H: Eq + Clone>(
    marked: &MarkedHead<H>,
    missing: Option<&[Link<H>]>,
    mark: Mark,
) -> TombstoneStep<H> {
    let Some(missing) = missing else {
        return TombstoneStep::Keep;
    };
    if !missing.is_empty() {
        return TombstoneStep::Import(missing.to_vec());
    }
    match (marked.object, mark) {
        (ObjectSeen::Present | ObjectSeen::Unknown, _) => return TombstoneStep::Keep,
        _ if !marked.stored => return TombstoneStep::Keep,
        (ObjectSeen::CameBack, _) => return TombstoneStep::Remove,
        (ObjectSeen::Gone, Mark::Impossible) => return TombstoneStep::Keep,
        (ObjectSeen::Gone, Mark::NotNoted) => return TombstoneStep::NoteMark,
        (ObjectSeen::Gone, Mark::Noted) => {}
    }
    match marked_head_repair(marked) {
        MarkedStep::NotGone | MarkedStep::Import => TombstoneStep::Keep,
        MarkedStep::Close { from } => TombstoneStep::Close { from },
        MarkedStep::Stands => TombstoneStep::Remove,
    }
}

/// A record that a chain refers to and the database does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// Whether the status or a tombstone carries it.
    pub carried: bool,
    /// Whether every registered spool was replayed to its last registered offset, or was declared
    /// gone by an administrator.
    pub spools_exhausted: bool,
}

/// What a gap calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapStep {
    /// It will be filled: import what is carried, replay what is spooled.
    Fill,
    /// A spool is out of reach: alert, go on, do not call anything lost.
    Wait,
    /// Append a `lost` record that names the gap.
    NameLost,
}

/// Decides when a record counts as lost (rules 5 and 6): when nobody is left who could have it.
pub fn may_name_lost(gap: Gap) -> GapStep {
    match gap {
        Gap { carried: true, .. } => GapStep::Fill,
        Gap { spools_exhausted: false, .. } => GapStep::Wait,
        Gap { .. } => GapStep::NameLost,
    }
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
