//! The write path, broken on purpose in twenty ways, one at a time: the tests have to notice each (`make variants`,
//! docs/ledger.md, "The gate is tested, too").
//!
//! Owns: which variant is on. Each is asked for at one place, where it does the wrong thing. Without the feature `broken`
//! the question is a constant, so that neither the variants nor the environment variable exist in a release; with it,
//! nothing optimised compiles.
//! Must never: be a default feature, or part of an image.

#[cfg(all(feature = "broken", not(debug_assertions)))]
compile_error!("the feature `broken` loses records on purpose: it is for tests, and never for a release");

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The spool answers after it has written, and never syncs the journal.
    FsyncSkipped,
    /// A new segment gets its name, and the folder is not synced.
    DirectoryFsyncSkipped,
    /// Whoever waits for the database is answered while its COMMIT is on its way.
    AcknowledgedBeforeCommit,
    /// Replay begins one entry behind the first that the database lacks.
    ReplayFromWrongOffset,
    /// A record becomes the head of its chain whatever the head was.
    HeadMovedWithoutCompare,
    /// What a full journal cannot take is dropped, and called durable.
    DroppedWhenFull,
    /// Two entries change places in the database's queue.
    WritesSwapped,
    /// Another account of an operation's phase stands in the database, and nobody is told.
    ConflictHidesAnotherHash,
    /// The finalizer goes before what the status carries has another home.
    ReleasedBeforeDurable,
    /// Pending records go from the status while the database lacks them.
    PendingClearedBeforeCommit,
    /// A tombstone goes while the database lacks what it carries.
    TombstoneRemovedEarly,
    /// What the database did not take in time goes to the spool with a new time, as another record.
    ReencodedOnRetry,
    /// The ledger had another record already, and the own one is shown.
    AdoptedHeadNotShown,
    /// What the watch told of last is believed, also where an own write is newer.
    StaleCacheTrusted,
    /// The spool could not write, and says that it did.
    ErrorCountedAsSuccess,
    /// One row that PostgreSQL refuses takes the whole batch with it.
    BadBatchThrownAway,
    /// Age and length alone decide what goes from the journal, whatever the database has of it.
    TailCutByTimeOnly,
    /// A record of a later epoch is taken, whatever stands in its place.
    EpochDecides,
    /// A list that has only begun says what is gone.
    AbsenceFromIncompleteList,
    /// A frame whose checksum does not fit is read as if it did.
    TornRecordTakenAsWhole,
}

/// Whether this variant is on.
#[cfg(not(feature = "broken"))]
pub const fn is(_: Variant) -> bool {
    false
}

/// Whether this variant is on: the one that the environment variable `BERTH_BROKEN` named when this was first asked.
#[cfg(feature = "broken")]
pub fn is(variant: Variant) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Variant>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(chosen) == Some(variant)
}

#[cfg(feature = "broken")]
#[expect(clippy::panic, reason = "a name that is none would break nothing, and look like a test that notices nothing")]
fn chosen() -> Option<Variant> {
    use Variant::*;
    const ALL: [Variant; 20] = [
        FsyncSkipped,
        DirectoryFsyncSkipped,
        AcknowledgedBeforeCommit,
        ReplayFromWrongOffset,
        HeadMovedWithoutCompare,
        DroppedWhenFull,
        WritesSwapped,
        ConflictHidesAnotherHash,
        ReleasedBeforeDurable,
        PendingClearedBeforeCommit,
        TombstoneRemovedEarly,
        ReencodedOnRetry,
        AdoptedHeadNotShown,
        StaleCacheTrusted,
        ErrorCountedAsSuccess,
        BadBatchThrownAway,
        TailCutByTimeOnly,
        EpochDecides,
        AbsenceFromIncompleteList,
        TornRecordTakenAsWhole,
    ];
    let name = std::env::var("BERTH_BROKEN").ok().filter(|name| !name.is_empty())?;
    let variant = ALL.into_iter().find(|variant| format!("{variant:?}") == name);
    Some(variant.unwrap_or_else(|| panic!("BERTH_BROKEN={name} names no variant")))
}
