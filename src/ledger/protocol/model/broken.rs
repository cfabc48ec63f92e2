//! Rules broken on purpose: each has to end in a counterexample by the invariant it names.

/// One deliberately broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum BrokenRule {
    /// A record whose commit is not certain is shown without being carried in the status.
    NoPendingInStatus,
    /// Pending records go before the database has them.
    PendingClearedEarly,
    /// The finalizer is released with the database down and no tombstone.
    NoTombstone,
    /// The status write does not test the head.
    NoStatusCompareAndSet,
    /// The head row moves without being compared.
    NoDatabaseCompareAndSet,
    /// A database head one ahead is not adopted.
    NoAdoption,
    /// The finalizer is released without a mark in the tail.
    NoMark,
    /// A tombstone goes before the database has acknowledged its records.
    TombstoneRemovedEarly,
    /// A tombstone goes without a marked copy in the remover's tail.
    TombstoneRemovedUncopied,
    /// A rewound API server is concluded from a cached status.
    NoQuorumReread,
    /// The quorum read happens before the database is read, and counts as confirmation.
    RereadBeforeDatabase,
    /// The head of the later epoch wins over the shown one.
    EpochDecides,
    /// A record is shown before it is anywhere.
    ShownBeforeDurable,
    /// With all slots full, records are shown all the same, one slot too many.
    SlotAddedWhenFull,
    /// With all slots full, records are shown without being carried.
    ShownUncarriedWhenFull,
    /// A terminal record one ahead is adopted although nobody deletes the object.
    TerminalAdoptedByLiving,
    /// The head row follows the status to a record that is not stored.
    HeadFollowsUnstored,
    /// The head row never follows the status.
    HeadNeverFollows,
    /// The head row follows the status only if it is behind it, never from another branch.
    LoserKeepsHead,
    /// Spools are never replayed.
    NoReplay,
    /// A mark moves the head of an object that exists.
    MarkMovesLiving,
    /// The finalizer goes without testing the shown head.
    ReleaseWithoutTest,
    /// A gap in the database's line counts as another branch.
    GapCountsAsBranch,
    /// A status behind the database is followed, not recorded as a rewind.
    RewindFollowed,
    /// The status write of a terminal record does not test that the object is being deleted.
    DeletionNotTested,
    /// Pending records are cleared without a copy in the own tail.
    ClearedUncopied,
    /// A tombstone is named by its object alone, and overwritten by another leader's.
    TombstoneOverwritten,
    /// The head row follows the status without being compared.
    HeadFollowsUncompared,
    /// The finalizer is released without a tombstone on a head row that is not closed.
    ReleasedUnclosed,
    /// Between two endings the epoch decides, even if the one was made after the other.
    EpochDecidesOverDescent,
    /// The mark is noted without copying the pending records to the own tail.
    MarkedWithoutPending,
}
