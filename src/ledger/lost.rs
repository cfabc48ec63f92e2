//! The record of a loss that no chain tells of: operations, samples, presents, and the records of objects that are gone
//! (rule 6). Where a chain goes on, a `lost` record in it says what it has lost (`chain/record`).
//!
//! Owns: the words of that record, and its identity: whoever finds the same loss, and however often, tells of the same
//! operation, which stands once. Must never: do I/O; call lost what a home is known to have.

use std::ops::RangeInclusive;

use serde_json::json;
use uuid::Uuid;

use super::{
    entry::{Entry, OperationOutcome, Target},
    postgres::StoredSpool,
    record::{Actor, Draft, Head, Kind, Micros, Seal},
    spool::{Damage, DamageKind},
};

/// The reason of every such record.
const REASON: &str = "EntriesLost";
/// The kind of what is lost from.
const SPOOL: &str = "Spool";
/// The most characters of a name in the audit.
const MAX_NAME: usize = 253;

/// What a spool has lost, of what no other home is known to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// The replica's name as a writer.
    writer: String,
    /// Which of its volumes.
    volume: Uuid,
    how: How,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    /// Its volume was declared gone. The database lacks the entries up to what the replica told of; none where it lacks
    /// nothing of that. What came after that word, nobody knows.
    VolumeGone(Option<RangeInclusive<u64>>),
    /// Bytes of its journal are damaged, or missing.
    JournalDamaged { numbers: RangeInclusive<u64>, place: String },
    /// The database was restored to a state before what the tail begins with.
    DatabaseRestored(RangeInclusive<u64>),
}

impl How {
    /// Its word in the audit, its word in the operation's id, and the numbers.
    fn parts(&self) -> (&'static str, &'static str, Option<&RangeInclusive<u64>>) {
        match self {
            Self::VolumeGone(numbers) => ("VolumeGone", "gone", numbers.as_ref()),
            Self::JournalDamaged { numbers, .. } => ("JournalDamaged", "damaged", Some(numbers)),
            Self::DatabaseRestored(numbers) => ("DatabaseRestored", "restored", Some(numbers)),
        }
    }
}

impl Loss {
    /// Of a volume that was declared gone: unless it was read to its end before, so that the database has everything. What an
    /// older release told of, which knows no ids, may have been read by it, too.
    pub(super) fn of_volume(spool: &StoredSpool) -> Option<Self> {
        let volume = spool.volume?;
        if !spool.is_gone_for_good() || (spool.read && spool.acknowledged >= spool.last) {
            return None;
        }
        let lacks = spool.acknowledged < spool.last;
        let how = How::VolumeGone(lacks.then(|| spool.acknowledged + 1..=spool.last));
        Some(Self::of(spool.replica(), volume, how))
    }

    /// Of a journal that is read from behind one number up to another. What is only torn was never acknowledged.
    pub(super) fn in_journal(writer: &str, volume: Uuid, damages: &[Damage], behind: u64, up_to: u64) -> Vec<Self> {
        let of = |damage: &Damage| {
            let numbers = numbers(damage)?;
            let is_met = *numbers.end() > behind && *numbers.start() <= up_to;
            let place = format!("{} at offset {}", damage.file.file_name()?.to_string_lossy(), damage.offset);
            is_met.then(|| Self::of(writer, volume, How::JournalDamaged { numbers, place }))
        };
        damages.iter().filter_map(of).collect()
    }

    /// Of a database that was restored: it says that it has the entries up to `said`, and the tail begins with `first`.
    pub(super) fn of_tail(writer: &str, volume: Uuid, said: u64, first: u64) -> Option<Self> {
        let lacks = said + 1..=first.saturating_sub(1);
        (!lacks.is_empty()).then(|| Self::of(writer, volume, How::DatabaseRestored(lacks)))
    }

    fn of(writer: &str, volume: Uuid, how: How) -> Self {
        Self { writer: writer.to_owned(), volume, how }
    }

    /// Which operation tells of it: always the same.
    pub(super) fn id(&self) -> Uuid {
        let (_, how, numbers) = self.how.parts();
        let numbers = numbers.map_or_else(String::new, |numbers| format!("{}-{}", numbers.start(), numbers.end()));
        Uuid::new_v5(&self.cluster(), format!("spool/{}/{how}/{numbers}", self.volume).as_bytes())
    }

    /// That of the replica's name, which begins with it.
    fn cluster(&self) -> Uuid {
        self.writer.split('/').next().and_then(|cluster| cluster.parse().ok()).unwrap_or_default()
    }

    /// In words.
    pub(super) fn message(&self) -> String {
        let spool = format!("{} (volume {})", self.writer, self.volume);
        let entries = |numbers: &RangeInclusive<u64>| match numbers.end() - numbers.start() {
            0 => format!("entry {}", numbers.start()),
            more => format!("{} entries, numbers {} to {},", more + 1, numbers.start(), numbers.end()),
        };
        match &self.how {
            How::VolumeGone(None) => format!(
                "the volume of the spool {spool} was declared gone; what it took after it was last heard of is lost with it"
            ),
            How::VolumeGone(Some(numbers)) => format!(
                "the volume of the spool {spool} was declared gone, and with it {} which the database had not got from it, \
                 and what it took after it was last heard of",
                entries(numbers)
            ),
            How::JournalDamaged { numbers, place } => format!(
                "{} of the spool {spool} cannot be read: {place} is damaged; the bytes, where there are any, are kept aside",
                entries(numbers)
            ),
            How::DatabaseRestored(numbers) => format!(
                "the database was restored, and may lack {} of the spool {spool}, whose tail has them no more",
                entries(numbers)
            ),
        }
    }

    /// The entry that tells of it, made `at` this moment.
    pub(super) fn entry(&self, at: Micros) -> Entry {
        let (how, _, numbers) = self.how.parts();
        let numbers = numbers.map(|numbers| json!({"first": numbers.start(), "last": numbers.end()}));
        let id = self.id();
        let draft = Draft {
            kind: Kind::OperationFinish,
            uid: id,
            from: None,
            to: None,
            reason: REASON.to_owned(),
            actor: Actor::Berth("ledger".to_owned()),
            generation: 0,
            operation: Some(id),
            details: json!({"message": self.message(), "volume": self.volume, "how": how, "entries": numbers}),
        };
        let target = Target {
            cluster: self.cluster(),
            // A spool has no uid of its own.
            uid: id,
            kind: SPOOL.to_owned(),
            namespace: String::new(),
            name: self.writer.chars().take(MAX_NAME).collect(),
        };
        let record = draft.seal(Seal { cluster: target.cluster, epoch: 0, at }, Head::GENESIS);
        Entry::Operation { record, target, outcome: Some(OperationOutcome { succeeded: false, duration_ms: 0 }) }
    }
}

/// Which entries are lost in a damaged place. Where it cannot be told how many there were, the numbers that are missing behind
/// it say so.
fn numbers(damage: &Damage) -> Option<RangeInclusive<u64>> {
    let count = match damage.kind {
        DamageKind::Frames(Some(count)) | DamageKind::Missing(count) => count,
        DamageKind::Payload(_) => 1,
        DamageKind::Frames(None) | DamageKind::Header | DamageKind::Tail | DamageKind::Repeated => 0,
    };
    (count > 0).then(|| damage.number..=damage.number.saturating_add(count - 1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WRITER: &str = "00000000-0000-0000-0000-00000000000c/berth-0";
    const VOLUME: Uuid = Uuid::from_u128(5);

    fn gone(last: u64, acknowledged: u64, read: bool) -> StoredSpool {
        let writer = WRITER.to_owned();
        StoredSpool {
            writer,
            volume: Some(VOLUME),
            last,
            acknowledged,
            silent_for: Duration::from_secs(600),
            gone: true,
            read,
        }
    }

    fn damage(number: u64, kind: DamageKind) -> Damage {
        Damage { file: "/spool/_journal/00000000000000000001.seg".into(), offset: 96, bytes: 40, number, kind }
    }

    #[test]
    fn a_volume_that_was_read_to_its_end_has_lost_nothing_and_any_other_has() {
        assert_eq!(Loss::of_volume(&gone(9, 9, true)), None);
        assert_eq!(Loss::of_volume(&StoredSpool { gone: false, ..gone(9, 4, false) }), None, "it may be found");
        assert_eq!(Loss::of_volume(&StoredSpool { volume: None, ..gone(9, 4, false) }), None, "of an older release");
        let told_of = StoredSpool { silent_for: Duration::from_secs(5), ..gone(9, 4, false) };
        assert_eq!(Loss::of_volume(&told_of), None, "its replica may work");
        let (silent, behind) =
            (Loss::of_volume(&gone(9, 9, false)).unwrap(), Loss::of_volume(&gone(9, 4, true)).unwrap());
        assert_eq!((silent.how.clone(), behind.how.clone()), (How::VolumeGone(None), How::VolumeGone(Some(5..=9))));
        let left = StoredSpool { writer: format!("{WRITER}/until-20261201T000000"), ..gone(9, 4, false) };
        let left = Loss::of_volume(&left).unwrap();
        assert_eq!((left.writer.as_str(), left.cluster()), (WRITER, Uuid::from_u128(12)));
        assert_eq!(left.id(), behind.id(), "the same volume, whatever its name by now");
        let other = StoredSpool { volume: Some(Uuid::from_u128(6)), ..gone(9, 4, false) };
        assert_ne!(Loss::of_volume(&other).unwrap().id(), behind.id());
        assert!(left.message().contains("5 entries, numbers 5 to 9,"), "{}", left.message());
    }

    #[test]
    fn damage_counts_where_it_is_met_and_a_torn_end_never() {
        let damages = [
            damage(3, DamageKind::Frames(Some(2))),
            damage(7, DamageKind::Payload("no JSON".to_owned())),
            damage(8, DamageKind::Frames(None)),
            damage(9, DamageKind::Header),
            damage(9, DamageKind::Tail),
        ];
        let met = |behind, up_to| -> Vec<_> {
            Loss::in_journal(WRITER, VOLUME, &damages, behind, up_to).into_iter().map(|loss| loss.how).collect()
        };
        let place = "00000000000000000001.seg at offset 96".to_owned();
        let frames = How::JournalDamaged { numbers: 3..=4, place: place.clone() };
        let payload = How::JournalDamaged { numbers: 7..=7, place };
        assert_eq!(met(0, 9), [frames.clone(), payload.clone()]);
        assert_eq!(met(3, 6), [frames], "its second entry is behind 3");
        assert_eq!(met(4, 9), [payload]);
        // Once it is cut out, the same numbers are missing at another place: it is the same loss.
        let again = Loss::in_journal(WRITER, VOLUME, &[damage(3, DamageKind::Missing(2))], 0, 9);
        assert_eq!(again[0].id(), Loss::in_journal(WRITER, VOLUME, &damages, 0, 9)[0].id());
    }

    #[test]
    fn a_tail_that_begins_where_the_database_ends_has_everything() {
        assert_eq!(Loss::of_tail(WRITER, VOLUME, 0, 1), None);
        assert_eq!(Loss::of_tail(WRITER, VOLUME, 9, 10), None);
        assert_eq!(Loss::of_tail(WRITER, VOLUME, 20, 10), None);
        assert_eq!(Loss::of_tail(WRITER, VOLUME, 7, 10).unwrap().how, How::DatabaseRestored(8..=9));
    }

    #[test]
    fn it_is_told_once_whoever_tells_it_and_whenever() {
        let loss = Loss::of_tail(WRITER, VOLUME, 7, 10).unwrap();
        let told = |at| match loss.entry(Micros(at)) {
            Entry::Operation { record, target, outcome } => (record, target, outcome.map(|outcome| outcome.succeeded)),
            other => panic!("{other:?}"),
        };
        let ((first, target, succeeded), (second, ..)) = (told(5), told(6));
        assert_eq!(first.envelope().operation, second.envelope().operation);
        assert_eq!((target.kind.as_str(), target.name.as_str(), succeeded), ("Spool", WRITER, Some(false)));
        assert_eq!(first.envelope().cluster, Uuid::from_u128(12));
        let details = first.details().unwrap();
        assert!(details.contains("\"entries\":{\"first\":8,\"last\":9}"), "{details}");
        let nameless = Loss::of_tail("berth-0", VOLUME, 0, 3).unwrap();
        assert_eq!(nameless.cluster(), Uuid::nil(), "a name that says no cluster");
    }
}
