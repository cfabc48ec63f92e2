//! A valid ledger is clean; with any single thing changed it is not.

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    ledger::{
        Envelope, Hash, Kind, Record,
        samples::{CLUSTER, Sample, record},
    },
    lifecycle::State,
};

#[derive(Clone)]
struct Ledger {
    records: Vec<Stored>,
    heads: Vec<StoredHead>,
    shown: Vec<StoredHead>,
}

impl Ledger {
    fn verify(&self) -> Report {
        let mut verifier = Verifier::new(self.heads.clone()).with_shown(self.shown.clone());
        self.records.iter().cloned().for_each(|stored| verifier.take(stored));
        verifier.finish()
    }

    fn faults(&self) -> Vec<&'static str> {
        self.verify().violations.iter().map(|violation| violation.fault.word()).collect()
    }
}

fn stored(record: &Record) -> Stored {
    let envelope = record.envelope();
    Stored {
        chain: ChainId { cluster: envelope.cluster, uid: envelope.uid },
        sequence: envelope.seq,
        bytes: record.bytes().to_owned(),
        hash: record.hash(),
        details: record.details().map(ToOwned::to_owned),
        place: format!("sample {}", envelope.seq),
    }
}

fn end(sample: &Sample) -> StoredHead {
    StoredHead { chain: ChainId { cluster: CLUSTER, uid: sample.uid }, head: sample.head }
}

fn ledger(chains: u128, length: usize) -> Ledger {
    let mut ledger = Ledger { records: vec![], heads: vec![], shown: vec![] };
    for number in 1..=chains {
        let mut sample = Sample::new(number);
        for step in 0..length {
            if step + 1 == length {
                ledger.shown.push(end(&sample));
            }
            ledger.records.push(stored(record(&sample.step())));
        }
        ledger.heads.push(end(&sample));
    }
    ledger
}

/// The last of one chain of `length` records, resealed from `change`d fields behind what was before it.
fn with_last(length: usize, change: impl FnOnce(&mut crate::ledger::Draft)) -> Ledger {
    let mut ledger = ledger(1, length);
    let mut sample = Sample::new(1);
    for _ in 1..length {
        sample.step();
    }
    let mut draft = sample.draft(Kind::Transition, Some(State::Running));
    change(&mut draft);
    let last = draft.seal(sample.seal(), sample.head);
    sample.take(last.clone());
    ledger.records[length - 1] = stored(&last);
    ledger.heads[0] = end(&sample);
    ledger
}

#[test]
fn a_valid_ledger_is_clean() {
    let report = ledger(7, 30).verify();
    assert!(report.is_clean(), "{:?}", report.violations);
    assert_eq!((report.records, report.chains, report.superseded_count), (210, 7, 0));
    assert!(Verifier::new([]).finish().is_clean());
}

#[test]
fn a_loser_of_the_race_is_named_and_is_no_violation() {
    let mut ledger = ledger(1, 5);
    let mut sample = Sample::new(1);
    (0..3).for_each(|_| drop(sample.step()));
    sample.epoch = 6;
    let loser = stored(record(&sample.step_to(State::Failed)));
    ledger.records.insert(4, loser.clone());
    let report = ledger.verify();
    assert!(report.is_clean(), "{:?}", report.violations);
    assert_eq!(report.superseded, [Superseded { chain: loser.chain, head: Head { sequence: 4, hash: loser.hash } }]);
    ledger.shown[0].head = report.superseded[0].head;
    assert_eq!(ledger.faults(), ["shown-superseded"]);
}

#[test]
fn states_follow_from_each_other_by_the_table() {
    assert_eq!(with_last(3, |_| {}).faults(), [""; 0]);
    assert_eq!(with_last(3, |draft| draft.from = Some(State::Paused)).faults(), ["from-differs"]);
    assert_eq!(with_last(3, |draft| draft.to = Some(State::Deleted)).faults(), ["no-such-transition"]);
    assert_eq!(with_last(3, |draft| draft.to = None).faults(), ["no-state"]);
    assert_eq!(with_last(1, |draft| draft.from = Some(State::Pending)).faults(), ["from-differs"]);
    let unobserved = |to| {
        with_last(3, |draft| {
            draft.kind = Kind::Unobserved;
            draft.to = Some(to);
        })
    };
    assert_eq!(unobserved(State::Stopped).faults(), [""; 0]);
    let rollout = |to| {
        with_last(3, |draft| {
            draft.kind = Kind::Rollout;
            draft.to = to;
        })
    };
    let grant = |length, to| {
        with_last(length, |draft| {
            draft.kind = Kind::Grant;
            draft.to = to;
        })
    };
    // A life without states ends as deleted, and no other way; one with states not by such a record.
    assert_eq!(grant(1, None).faults(), [""; 0]);
    assert_eq!(grant(1, Some(State::Deleted)).faults(), [""; 0]);
    assert_eq!(grant(1, Some(State::Running)).faults(), ["no-such-transition"]);
    assert_eq!(grant(3, Some(State::Deleted)).faults(), ["no-such-transition"]);
    assert_eq!(rollout(None).faults(), [""; 0]);
    assert_eq!(rollout(Some(State::Stopped)).faults(), ["no-such-transition"]);
}

/// A chain that has ended, and one record behind that, which finds `from` and leaves `to`.
fn behind_the_end(kind: Kind, from: Option<State>, to: Option<State>) -> Ledger {
    let mut sample = Sample::new(1);
    let ends = [State::Pending, State::Stopped, State::Deleted];
    let mut records = ends.map(|to| stored(record(&sample.step_to(to)))).to_vec();
    let mut draft = sample.draft(kind, to);
    draft.from = from;
    records.push(stored(record(&sample.take(draft.seal(sample.seal(), sample.head)))));
    Ledger { records, heads: vec![end(&sample)], shown: vec![] }
}

#[test]
fn behind_an_ending_comes_only_what_says_where_the_chain_goes_on() {
    let deleted = Some(State::Deleted);
    for (kind, from, to) in [
        (Kind::Transition, deleted, Some(State::Pending)),
        (Kind::Unobserved, deleted, deleted),
        (Kind::Unobserved, deleted, None),
        (Kind::Rollout, None, None),
        (Kind::Quota, deleted, None),
        (Kind::Grant, None, deleted),
    ] {
        assert_eq!(behind_the_end(kind, from, to).faults(), ["follows-the-end"], "{kind:?} {from:?} {to:?}");
    }
    for kind in [Kind::Resolution, Kind::Lost, Kind::Import, Kind::Checkpoint] {
        assert_eq!(behind_the_end(kind, deleted, Some(State::Running)).faults(), [""; 0], "{kind:?}");
    }
}

#[test]
fn a_gap_is_a_violation_unless_a_record_names_it() {
    for (kind, faults) in [(Kind::Lost, &[][..]), (Kind::Import, &[]), (Kind::Transition, &["predecessor-missing"])] {
        let mut sample = Sample::new(1);
        let first = stored(record(&sample.step()));
        (0..3).for_each(|_| drop(sample.step()));
        let draft = sample.draft(kind, Some(State::Running));
        let next = stored(record(&sample.take(draft.seal(sample.seal(), sample.head))));
        let last = stored(record(&sample.step_to(State::Paused)));
        let ledger = Ledger { records: vec![first, next, last], heads: vec![end(&sample)], shown: vec![] };
        assert_eq!(ledger.faults(), faults, "{kind:?}");
        assert_eq!(ledger.verify().named_gaps, u64::from(faults.is_empty()));
    }
}

#[test]
fn clocks_and_epochs_that_go_back_are_told_and_are_no_violation() {
    let mut sample = Sample::new(1);
    let mut records = vec![stored(record(&sample.step()))];
    (sample.epoch, sample.created_at) = (3, 5);
    records.push(stored(record(&sample.step())));
    let report = Ledger { records, heads: vec![end(&sample)], shown: vec![] }.verify();
    assert!(report.is_clean());
    assert_eq!((report.epochs_back, report.clocks_back), (1, 1));
}

#[test]
fn a_record_of_which_only_the_envelope_survived_is_counted() {
    let mut ledger = ledger(1, 3);
    ledger.records[1].details = None;
    let report = ledger.verify();
    assert!(report.is_clean());
    assert_eq!(report.details_missing, 1);
}

#[test]
fn ends_are_checked_against_the_records() {
    let mut behind = ledger(1, 4);
    behind.heads[0].head = Head { sequence: 3, hash: behind.records[2].hash };
    assert_eq!(behind.faults(), ["head-behind"]);
    let growing = |later: &[StoredHead]| {
        let mut verifier = Verifier::new(behind.heads.clone()).still_growing();
        behind.records.iter().cloned().for_each(|stored| verifier.take(stored));
        verifier.finish_with(later.to_vec())
    };
    let moved = StoredHead { head: Head { sequence: 4, hash: behind.records[3].hash }, ..behind.heads[0] };
    assert!(growing(&[moved]).is_clean(), "it came after the heads were read");
    let stayed = growing(&behind.heads);
    assert_eq!(stayed.violations[0].fault.word(), "head-behind", "the head did not move with the record");

    let mut shown = ledger(1, 4);
    shown.shown[0].head = Head { sequence: 2, hash: shown.records[1].hash };
    assert_eq!(shown.faults(), ["shown-behind"]);
    shown.shown[0].head = Head { sequence: 4, hash: Hash::of(b"never kept") };
    assert_eq!(shown.faults(), ["shown-unknown"]);

    let ledger = ledger(1, 4);
    let mut claims = vec![StoredHead { head: Head { sequence: 1, hash: ledger.records[0].hash }, ..ledger.heads[0] }];
    let verify = |claims: &[StoredHead]| {
        let mut verifier = Verifier::new(ledger.heads.clone()).with_claims(claims.to_vec());
        ledger.records.iter().cloned().for_each(|stored| verifier.take(stored));
        verifier.finish()
    };
    assert!(verify(&claims).is_clean(), "a state file may be old");
    claims[0].head.sequence = 2;
    assert_eq!(verify(&claims).violations[0].fault.word(), "claim-unknown");
}

/// A chain that has stopped, and how it goes on under an epoch; with the head where it had stopped, and at its end.
fn stopped_and(then: &[State], epoch: u64) -> (Vec<Stored>, StoredHead, StoredHead) {
    let mut sample = Sample::new(1);
    let mut records = [State::Pending, State::Stopped].map(|to| stored(record(&sample.step_to(to)))).to_vec();
    let before = end(&sample);
    sample.epoch = epoch;
    records.extend(then.iter().map(|to| stored(record(&sample.step_to(*to)))));
    (records, before, end(&sample))
}

/// What is found of a chain whose head was `first`, and is `later` once these records are read, with what its object shows; of
/// a cluster that was asked, where it is `known` whether anybody is left there.
fn growing(
    first: Option<StoredHead>,
    records: &[Stored],
    later: Option<StoredHead>,
    (shown, known): (Option<StoredHead>, Option<bool>),
) -> (Vec<&'static str>, u64) {
    let mut records = records.to_vec();
    records.sort_by_key(|stored| (stored.sequence, stored.hash.to_string()));
    let chain = records[0].chain;
    let there = known.filter(|known| *known).map(|_| chain).into_iter().collect();
    let mut verifier = Verifier::new(first).still_growing().with_shown(shown);
    verifier = verifier.with_cluster(known.map(|_| chain.cluster), there);
    records.into_iter().for_each(|stored| verifier.take(stored));
    let report = verifier.finish_with(later);
    (report.violations.iter().map(|violation| violation.fault.word()).collect(), report.open_ends)
}

#[test]
fn a_head_comes_as_far_as_imports_move_it_and_what_is_beyond_is_counted() {
    const NOBODY_WAS_ASKED: (Option<StoredHead>, Option<bool>) = (None, None);
    // An ending waits for whoever knows that it was shown.
    let (records, before, after) = stopped_and(&[State::Deleted], 1);
    assert_eq!(growing(Some(before), &records, Some(after), NOBODY_WAS_ASKED), (vec![], 0));
    assert_eq!(growing(Some(before), &records, Some(before), NOBODY_WAS_ASKED), (vec![], 1));
    assert_eq!(growing(Some(before), &records, Some(before), (Some(before), Some(true))), (vec![], 1));
    let nobody_is_left = growing(Some(before), &records, Some(before), (None, Some(false)));
    assert_eq!(nobody_is_left, (vec!["head-behind"], 0));
    // Anything else moves the head,
    let (records, before, after) = stopped_and(&[State::Pending], 1);
    assert_eq!(growing(Some(before), &records, Some(before), NOBODY_WAS_ASKED), (vec!["head-behind"], 0));
    assert_eq!(growing(None, &records, None, NOBODY_WAS_ASKED), (vec!["head-behind"], 0), "it began meanwhile");
    assert_eq!(growing(None, &records, Some(after), NOBODY_WAS_ASKED), (vec![], 0));
    // but where it claims a place with another: by their hashes the one comes first, or the other.
    let others: [&[State]; 3] = [&[State::Pending], &[State::Deleted], &[State::Pending, State::Running]];
    for (epoch, other) in (2..10).flat_map(|epoch| others.map(|other| (epoch, other))) {
        let (mut rival, _, won) = stopped_and(other, epoch);
        let both = [records.as_slice(), &rival.split_off(2)].concat();
        assert_eq!(growing(Some(before), &both, Some(before), NOBODY_WAS_ASKED), (vec![], 1));
        assert_eq!(growing(None, &both, Some(before), NOBODY_WAS_ASKED), (vec![], 1), "it began meanwhile");
        assert_eq!(growing(Some(before), &both, Some(won), NOBODY_WAS_ASKED), (vec![], 0));
        // What is shown is the line, however far it came.
        assert_eq!(growing(Some(before), &both, Some(before), (Some(won), None)), (vec![], 1));
    }
}

#[test]
fn what_follows_an_ending_waits_as_the_ending_does() {
    let mut sample = Sample::new(1);
    let to = [State::Pending, State::Stopped, State::Deleted];
    let mut records = to.map(|to| stored(record(&sample.step_to(to)))).to_vec();
    let ended = end(&sample);
    let mut draft = sample.draft(Kind::Resolution, Some(State::Running));
    draft.from = Some(State::Deleted);
    records.push(stored(record(&sample.take(draft.seal(sample.seal(), sample.head)))));
    assert_eq!(growing(Some(ended), &records, Some(ended), (None, None)), (vec![], 1));
}

#[test]
fn violations_are_kept_within_bounds_and_all_counted() {
    let mut ledger = ledger(40, 30);
    ledger.records.iter_mut().for_each(|stored| stored.hash = Hash::of(b"x"));
    let report = ledger.verify();
    assert_eq!(report.violations.len(), KEPT);
    assert!(report.violation_count > 1200);
}

/// One change to one field of one envelope, to something else.
fn alter(envelope: &mut Value, field: &str) {
    let other = match (field, &envelope[field]) {
        ("from" | "to", Value::String(state)) if state == "running" => json!("paused"),
        ("from" | "to", _) => json!("running"),
        ("kind", _) => json!("quota"),
        ("actor", _) => json!("user:mallory"),
        ("operation", _) => json!(Uuid::from_u128(5)),
        ("cluster" | "uid", _) => json!(Uuid::from_u128(99)),
        ("prev" | "details", _) => json!(Hash::of(b"other")),
        ("v", _) => json!(0),
        (_, Value::Number(number)) => json!(number.as_i64().unwrap() + 1),
        (_, Value::String(text)) => json!(format!("{text}x")),
        other => panic!("{other:?}"),
    };
    envelope[field] = other;
}

#[derive(Clone, Debug)]
enum Mutation {
    Drop(usize),
    Duplicate(usize),
    Swap(usize, usize),
    Field { at: usize, field: &'static str, rehash: bool },
    Details(usize),
    Hash(usize),
    Sequence(usize),
    Uid(usize),
    HeadSequence(usize),
    HeadHash(usize),
    DropHead(usize),
    DropChain(usize),
    ExchangeHashes(usize, usize),
}

const FIELDS: [&str; 15] = [
    "v",
    "kind",
    "cluster",
    "uid",
    "seq",
    "epoch",
    "at",
    "from",
    "to",
    "reason",
    "actor",
    "generation",
    "operation",
    "prev",
    "details",
];

impl Mutation {
    /// Whether anything changed.
    fn apply(&self, ledger: &mut Ledger, length: usize) -> bool {
        let records = &mut ledger.records;
        let len = records.len();
        match *self {
            Self::Drop(at) => drop(records.remove(at % len)),
            Self::Duplicate(at) => records.insert(at % len, records[at % len].clone()),
            Self::Swap(a, b) => {
                records.swap(a % len, b % len);
                return a % len != b % len;
            }
            Self::Field { at, field, rehash } => {
                let stored = &mut records[at % len];
                let mut envelope = serde_json::from_str(&stored.bytes).unwrap();
                alter(&mut envelope, field);
                stored.bytes = envelope.to_string();
                if rehash {
                    stored.hash = Hash::of(stored.bytes.as_bytes());
                    // A forger changes the columns as well.
                    let envelope: Envelope = serde_json::from_str(&stored.bytes).unwrap();
                    stored.sequence = envelope.seq;
                }
            }
            Self::Details(at) => records[at % len].details = Some(r#"{"message":"forged"}"#.to_owned()),
            Self::Hash(at) => records[at % len].hash = Hash::of(b"forged"),
            Self::Sequence(at) => records[at % len].sequence += 1,
            Self::Uid(at) => records[at % len].chain.uid = Uuid::from_u128(77),
            Self::HeadSequence(at) => {
                let heads = ledger.heads.len();
                ledger.heads[at % heads].head.sequence += 1;
            }
            Self::HeadHash(at) => {
                let heads = ledger.heads.len();
                ledger.heads[at % heads].head.hash = Hash::of(b"forged");
            }
            Self::DropHead(at) => drop(ledger.heads.remove(at % ledger.heads.len())),
            Self::DropChain(at) => {
                let chain = at % ledger.heads.len();
                records.drain(chain * length..(chain + 1) * length);
            }
            Self::ExchangeHashes(a, b) => {
                let (a, b) = (a % len, b % len);
                (records[a].hash, records[b].hash) = (records[b].hash, records[a].hash);
                return a != b;
            }
        }
        true
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = 0usize..1000;
    prop_oneof![
        at.clone().prop_map(Mutation::Drop),
        at.clone().prop_map(Mutation::Duplicate),
        (at.clone(), at.clone()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        (at.clone(), prop::sample::select(&FIELDS[..]), any::<bool>())
            .prop_map(|(at, field, rehash)| Mutation::Field { at, field, rehash }),
        at.clone().prop_map(Mutation::Details),
        at.clone().prop_map(Mutation::Hash),
        at.clone().prop_map(Mutation::Sequence),
        at.clone().prop_map(Mutation::Uid),
        at.clone().prop_map(Mutation::HeadSequence),
        at.clone().prop_map(Mutation::HeadHash),
        at.clone().prop_map(Mutation::DropHead),
        at.clone().prop_map(Mutation::DropChain),
        (at.clone(), at).prop_map(|(a, b)| Mutation::ExchangeHashes(a, b)),
    ]
}

#[test]
fn every_field_of_every_record_is_guarded() {
    let valid = ledger(2, 6);
    for at in 0..valid.records.len() {
        for field in FIELDS {
            for rehash in [false, true] {
                let mut mutated = valid.clone();
                Mutation::Field { at, field, rehash }.apply(&mut mutated, 6);
                assert!(!mutated.verify().is_clean(), "record {at}, {field}, rehashed: {rehash}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_single_mutation_of_a_valid_ledger_is_found(
        chains in 1u128..4, length in 1usize..9, mutation in mutation(),
    ) {
        let mut ledger = ledger(chains, length);
        prop_assert!(ledger.verify().is_clean());
        if mutation.apply(&mut ledger, length) {
            prop_assert!(!ledger.verify().is_clean(), "{:?} was not found", mutation);
        }
    }
}
