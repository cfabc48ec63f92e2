//! The rules as tables.

use super::*;
use rstest::rstest;

fn link(sequence: u64, hash: char) -> Link<char> {
    Link { sequence, hash }
}

fn row(at: Link<char>, made_on: Head<char>, line: Line) -> DatabaseHead<char> {
    DatabaseHead { link: at, made_on, terminal: false, line }
}

const A1: Link<char> = Link { sequence: 1, hash: 'a' };
const B2: Link<char> = Link { sequence: 2, hash: 'b' };
const C3: Link<char> = Link { sequence: 3, hash: 'c' };
/// Another record on `A1`.
const X2: Link<char> = Link { sequence: 2, hash: 'x' };

fn elsewhere(head: Head<char>, shown: Link<char>, shown_stored: bool) -> Relation<char> {
    Relation::Elsewhere { head, shown, shown_stored }
}

#[rstest]
#[case::no_record_anywhere(None, None, Relation::Same)]
#[case::same(Some(B2), Some(row(B2, Some(A1), Line::PassesShown)), Relation::Same)]
#[case::database_empty(Some(A1), None, elsewhere(None, A1, true))]
#[case::first_record(
    None, Some(row(A1, None, Line::PassesShown)),
    Relation::OneAhead { head: A1, terminal: false })]
#[case::one_ahead(
    Some(A1), Some(row(B2, Some(A1), Line::PassesShown)),
    Relation::OneAhead { head: B2, terminal: false })]
#[case::api_rewound_made_over_the_shown_head(
    Some(A1), Some(row(link(9, 'r'), Some(A1), Line::PassesShown)),
    Relation::OneAhead { head: link(9, 'r'), terminal: false })]
#[case::two_ahead(
    Some(A1), Some(row(C3, Some(B2), Line::PassesShown)), Relation::FurtherAhead { head: C3 })]
#[case::two_ahead_of_nothing(
    None, Some(row(B2, Some(A1), Line::PassesShown)), Relation::FurtherAhead { head: B2 })]
#[case::ahead_over_a_gap(
    Some(A1), Some(row(C3, Some(B2), Line::Gap)), Relation::FurtherAhead { head: C3 })]
#[case::ahead_on_another_branch(Some(X2), Some(row(C3, Some(B2), Line::MissesShown)), elsewhere(Some(C3), X2, true))]
#[case::behind(Some(C3), Some(row(B2, Some(A1), Line::MissesShown)), elsewhere(Some(B2), C3, true))]
#[case::loser(Some(B2), Some(row(X2, Some(A1), Line::MissesShown)), elsewhere(Some(X2), B2, true))]
#[case::behind_a_gap(Some(C3), Some(row(B2, Some(A1), Line::Gap)), elsewhere(Some(B2), C3, true))]
fn heads_relate(
    #[case] shown: Head<char>,
    #[case] database: Option<DatabaseHead<char>>,
    #[case] expected: Relation<char>,
) {
    assert_eq!(relate(&shown, database.as_ref(), true), expected);
}

const CACHED: StatusRead = StatusRead::Cached;
const QUORUM: StatusRead = StatusRead::QuorumAfterDatabase;

fn ahead(terminal: bool) -> Relation<char> {
    Relation::OneAhead { head: B2, terminal }
}

#[rstest]
#[case::same(Relation::Same, &[], false, CACHED, Step::Append)]
#[case::one_ahead(ahead(false), &[], false, CACHED, Step::Adopt(B2))]
#[case::ending_of_a_deleted_object(ahead(true), &[], true, CACHED, Step::Adopt(B2))]
#[case::ending_of_a_living_object(ahead(true), &[], false, CACHED, Step::RereadStatus)]
#[case::ending_of_a_restored_object(ahead(true), &[], false, QUORUM, Step::ApiRewound { on: B2 })]
#[case::further_ahead(Relation::FurtherAhead { head: C3 }, &[], false, CACHED, Step::RereadStatus)]
#[case::rewound(
    Relation::FurtherAhead { head: C3 }, &[], false, QUORUM, Step::ApiRewound { on: C3 })]
#[case::pending_first(
    elsewhere(Some(X2), B2, false), &[B2], false, QUORUM, Step::ImportPending(vec![B2]))]
#[case::not_confirmed(elsewhere(Some(X2), B2, true), &[], false, CACHED, Step::RereadStatus)]
#[case::follows(
    elsewhere(Some(X2), B2, true), &[], false, QUORUM,
    Step::HeadFollowsStatus { from: Some(X2), to: B2 })]
#[case::beside_the_gap(elsewhere(Some(A1), C3, false), &[], false, CACHED, Step::AppendToSpool)]
fn steps_with_a_database(
    #[case] relation: Relation<char>,
    #[case] missing: &[Link<char>],
    #[case] deleting: bool,
    #[case] status: StatusRead,
    #[case] expected: Step<char>,
) {
    let view = View {
        deleting,
        slots_left: 1,
        status,
        database: Database::Answered(Reading { relation, missing: missing.to_vec() }),
    };
    assert_eq!(next_step(&view), expected);
}

#[rstest]
#[case(1, Step::AppendToSpool)]
#[case(0, Step::Full)]
fn steps_without_a_database(#[case] slots_left: usize, #[case] expected: Step<char>) {
    let view = View { deleting: false, slots_left, status: CACHED, database: Database::Unreachable };
    assert_eq!(next_step(&view), expected);
}

#[rstest]
#[case(Certain::Database, 0, Showing::Show)]
#[case(Certain::Database, 1, Showing::Show)]
#[case(Certain::Spool, 1, Showing::ShowCarried)]
#[case(Certain::Nowhere, 1, Showing::ShowCarried)]
#[case(Certain::Spool, 0, Showing::NotShown)]
#[case(Certain::Nowhere, 0, Showing::NotShown)]
fn records_are_durable_before_they_are_visible(
    #[case] certain: Certain,
    #[case] slots_left: usize,
    #[case] expected: Showing,
) {
    assert_eq!(after_append(certain, slots_left), expected);
}

#[rstest]
#[case(ShowAnswer::Written, AfterShow::Shown)]
#[case(ShowAnswer::TestFailed, AfterShow::Superseded)]
#[case(ShowAnswer::NotFound, AfterShow::Superseded)]
#[case(ShowAnswer::Unknown, AfterShow::RereadStatus)]
fn the_api_server_decides(#[case] answer: ShowAnswer, #[case] expected: AfterShow) {
    assert_eq!(after_show(answer), expected);
}

#[test]
fn only_an_ending_tests_the_deletion() {
    assert_eq!(show_tests(true), ShowTests::HeadAndDeletion);
    assert_eq!(show_tests(false), ShowTests::Head);
}

fn answered(relation: Relation<char>, missing: &[Link<char>]) -> Database<char> {
    Database::Answered(Reading { relation, missing: missing.to_vec() })
}

#[rstest]
#[case::none(&[], Database::Unreachable, PendingStep::Nothing)]
#[case::unreachable(&[B2], Database::Unreachable, PendingStep::Keep)]
#[case::missing(&[A1, B2], answered(Relation::Same, &[B2]), PendingStep::Keep)]
#[case::stored(&[A1, B2], answered(Relation::Same, &[]), PendingStep::Clear)]
fn pending_records_stay_until_they_are_stored(
    #[case] pending: &[Link<char>],
    #[case] database: Database<char>,
    #[case] expected: PendingStep,
) {
    assert_eq!(may_clear_pending(pending, &database), expected);
}

#[rstest]
#[case::mark_first(Mark::NotNoted, Tombstone::Complete, Database::Unreachable, true, Release::NoteMark)]
#[case::buried(Mark::Noted, Tombstone::Complete, Database::Unreachable, false, Release::Now)]
#[case::down(
    Mark::Noted, Tombstone::Absent, Database::Unreachable, false,
    Release::WriteTombstone(vec![B2, C3]))]
#[case::close_first(
    Mark::Noted, Tombstone::Absent, answered(Relation::Same, &[]), false, Release::CloseHead)]
#[case::closed(Mark::Noted, Tombstone::Absent, answered(Relation::Same, &[]), true, Release::Now)]
#[case::pending_missing(
    Mark::Noted, Tombstone::Absent, answered(Relation::Same, &[B2]), true,
    Release::WriteTombstone(vec![B2, C3]))]
#[case::head_elsewhere(
    Mark::Noted, Tombstone::Absent, answered(elsewhere(Some(X2), C3, true), &[]), true,
    Release::WriteTombstone(vec![B2, C3]))]
#[case::spool_broken(
    Mark::Impossible, Tombstone::Absent, answered(Relation::Same, &[]), true,
    Release::WriteTombstone(vec![B2, C3]))]
#[case::spool_broken_and_buried(
    Mark::Impossible, Tombstone::Complete, answered(Relation::Same, &[]), false, Release::Now)]
fn finalizers_wait_for_the_ending_to_be_safe_and_for_nothing_else(
    #[case] mark: Mark,
    #[case] tombstone: Tombstone,
    #[case] database: Database<char>,
    #[case] closed: bool,
    #[case] expected: Release<char>,
) {
    let deletion = Deletion { terminal: C3, pending: vec![B2], database, closed, mark, tombstone };
    assert_eq!(may_release_finalizer(&deletion), expected);
}

fn marked(head: Head<char>, closed: Option<u64>, descent: Descent) -> MarkedHead<char> {
    MarkedHead { terminal: C3, epoch: 5, object: ObjectSeen::Gone, stored: true, head, closed, descent }
}

const D4: Link<char> = Link { sequence: 4, hash: 'd' };

#[rstest]
#[case::rewound(marked(Some(A1), None, Descent::HeadPrecedes), MarkedStep::Close { from: Some(A1) })]
#[case::rewound_to_nothing(marked(None, None, Descent::HeadPrecedes), MarkedStep::Close { from: None })]
#[case::open_at_the_ending(marked(Some(C3), None, Descent::HeadFollows), MarkedStep::Close { from: Some(C3) })]
#[case::closed_at_the_ending(marked(Some(C3), Some(1), Descent::HeadFollows), MarkedStep::Stands)]
#[case::record_nobody_showed(marked(Some(D4), None, Descent::HeadFollows), MarkedStep::Close { from: Some(D4) })]
#[case::earlier_ending_of_a_later_epoch(
    marked(Some(B2), Some(9), Descent::HeadPrecedes), MarkedStep::Close { from: Some(B2) })]
#[case::ended_again_later(marked(Some(D4), Some(1), Descent::HeadFollows), MarkedStep::Stands)]
#[case::other_ending_of_a_later_epoch(marked(Some(X2), Some(6), Descent::Apart), MarkedStep::Stands)]
#[case::other_ending_of_an_earlier_epoch(
    marked(Some(X2), Some(4), Descent::Apart), MarkedStep::Close { from: Some(X2) })]
#[case::not_stored(
    MarkedHead { stored: false, ..marked(Some(A1), None, Descent::HeadPrecedes) }, MarkedStep::Import)]
#[case::alive(
    MarkedHead { object: ObjectSeen::CameBack, ..marked(Some(A1), None, Descent::HeadPrecedes) },
    MarkedStep::NotGone)]
#[case::not_in_an_incomplete_list(
    MarkedHead { object: ObjectSeen::Unknown, ..marked(Some(A1), None, Descent::HeadPrecedes) },
    MarkedStep::NotGone)]
fn marked_endings_become_the_head_again(#[case] marked: MarkedHead<char>, #[case] expected: MarkedStep<char>) {
    assert_eq!(marked_head_repair(&marked), expected);
}

#[rstest]
#[case::unreachable(marked(Some(C3), Some(5), Descent::HeadFollows), None, Mark::Noted, TombstoneStep::Keep)]
#[case::import_first(
    marked(Some(A1), None, Descent::HeadPrecedes), Some(vec![C3]), Mark::NotNoted, TombstoneStep::Import(vec![C3]))]
#[case::then_mark(marked(Some(A1), None, Descent::HeadPrecedes), Some(vec![]), Mark::NotNoted, TombstoneStep::NoteMark)]
#[case::then_close(
    marked(Some(A1), None, Descent::HeadPrecedes), Some(vec![]), Mark::Noted,
    TombstoneStep::Close { from: Some(A1) })]
#[case::then_remove(marked(Some(C3), Some(5), Descent::HeadFollows), Some(vec![]), Mark::Noted, TombstoneStep::Remove)]
#[case::spool_broken(
    marked(Some(C3), Some(5), Descent::HeadFollows), Some(vec![]), Mark::Impossible, TombstoneStep::Keep)]
#[case::bytes_elsewhere(
    MarkedHead { stored: false, ..marked(Some(A1), None, Descent::HeadPrecedes) }, Some(vec![]), Mark::Noted,
    TombstoneStep::Keep)]
#[case::not_gone_yet(
    MarkedHead { object: ObjectSeen::Present, ..marked(Some(C3), None, Descent::HeadFollows) }, Some(vec![]),
    Mark::Noted, TombstoneStep::Keep)]
#[case::came_back(
    MarkedHead { object: ObjectSeen::CameBack, ..marked(Some(A1), None, Descent::HeadPrecedes) }, Some(vec![]),
    Mark::NotNoted, TombstoneStep::Remove)]
fn tombstones_stay_until_their_ending_is_safe(
    #[case] marked: MarkedHead<char>,
    #[case] missing: Option<Vec<Link<char>>>,
    #[case] mark: Mark,
    #[case] expected: TombstoneStep<char>,
) {
    assert_eq!(may_remove_tombstone(&marked, missing.as_deref(), mark), expected);
}

#[rstest]
#[case(true, true, GapStep::Fill)]
#[case(true, false, GapStep::Fill)]
#[case(false, false, GapStep::Wait)]
#[case(false, true, GapStep::NameLost)]
fn a_record_is_lost_only_when_nobody_is_left_who_could_have_it(
    #[case] carried: bool,
    #[case] spools_exhausted: bool,
    #[case] expected: GapStep,
) {
    let gap = Gap { carried, spools_exhausted };
    assert_eq!(may_name_lost(gap), expected);
}
