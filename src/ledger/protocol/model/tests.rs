//! The explorations.

use super::broken::BrokenRule;
use super::properties::INVARIANTS;
use super::world::{Faults, Id, Kind, LEADERS, RECORDS, Set, State};
use super::{Action, Config};
use rstest::rstest;
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

/// Where the invariants are documented, from the crate's root.
const DOCS: &str = "docs/ledger.md";

const CALM: Faults =
    Faults { crashes: 0, cuts: 0, slow_commits: 0, spool_errors: 0, lost_volumes: 0, db_restores: 0, api_restores: 0 };

/// Two leaders, one record each, one object that may be deleted, and no fault.
const PLAIN: Config = Config {
    name: "plain",
    leaders: 2,
    appends: 1,
    slots: 2,
    deletion: true,
    lazy_tail: false,
    faults: CALM,
    after: &[],
    broken: None,
};

const TWO_EACH: Config = Config { name: "two records each", appends: 2, ..PLAIN };

const fn with(name: &'static str, base: Config, faults: Faults) -> Config {
    Config { name, faults, ..base }
}

/// Explores until the space or the bound is exhausted; `None` explores the whole space.
fn explore(config: Config, bound: Option<usize>) {
    let started = Instant::now();
    let mut checker = config.checker().threads(2);
    if let Some(bound) = bound {
        checker = checker.target_state_count(bound);
    }
    let checker = checker.spawn_bfs().join();
    report(&config, &checker, bound, started);
}

/// The same for interchangeable leaders: of states that differ only in the leaders' names one is
/// explored. Sound, because no step and no invariant depends on a name.
fn explore_symmetric(config: Config, bound: Option<usize>) {
    let started = Instant::now();
    let mut checker = config.checker().threads(2).symmetry_fn(representative);
    if let Some(bound) = bound {
        checker = checker.target_state_count(bound);
    }
    let checker = checker.spawn_dfs().join();
    report(&config, &checker, bound, started);
}

fn report(config: &Config, checker: &impl Checker<Config>, bound: Option<usize>, started: Instant) {
    let whole = bound.is_none_or(|bound| checker.state_count() < bound);
    println!(
        "{}: {} states ({}), {:.1?}",
        config.name,
        checker.unique_state_count(),
        if whole { "whole space" } else { "bounded" },
        started.elapsed()
    );
    let holes: Vec<_> = checker.discoveries().into_iter().map(|(name, path)| (name, path.into_actions())).collect();
    assert!(holes.is_empty(), "{}: {holes:#?}", config.name);
}

fn representative(state: &State) -> State {
    let used = state.leaders.iter().filter(|l| l.epoch > 0).count();
    const ORDERS: [[usize; LEADERS]; 6] = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    ORDERS
        .iter()
        .filter(|order| order[used..].iter().zip(used..).all(|(to, at)| *to == at))
        .map(|order| state.renamed(order))
        .min()
        .unwrap()
}

/// Small enough for every test run: whole spaces where no bound is given.
#[rstest]
#[case::no_fault(TWO_EACH, None)]
#[case::database_down(with("database down", PLAIN, Faults { cuts: 1, ..CALM }), None)]
#[case::database_down_and_back(
    Config { deletion: false, ..with("database down and back", PLAIN, Faults { cuts: 2, ..CALM }) },
    None)]
#[case::database_slow(
    with("database slow", PLAIN, Faults { slow_commits: 1, ..CALM }), None)]
#[case::crash(with("crash, database down", PLAIN, Faults { crashes: 1, cuts: 1, ..CALM }), None)]
#[case::volume_lost(
    with("volume lost, database down", PLAIN, Faults { lost_volumes: 1, cuts: 1, ..CALM }), None)]
#[case::spool_fails(
    with("spool fails", PLAIN, Faults { cuts: 1, spool_errors: 1, ..CALM }), None)]
#[case::full(
    Config { slots: 1, deletion: false, ..with("slots full", TWO_EACH, Faults { cuts: 1, ..CALM }) },
    None)]
#[case::database_restored(
    with("database restored", PLAIN, Faults { db_restores: 1, ..CALM }), None)]
#[case::lazy_tail(
    Config { lazy_tail: true,
        ..with("database restored, lazy tail", PLAIN, Faults { db_restores: 1, crashes: 1, ..CALM }) },
    Some(400_000))]
#[case::buried(BURIED, Some(400_000))]
#[case::api_server_restored(
    with("API server restored", PLAIN, Faults { api_restores: 1, ..CALM }), None)]
#[case::both_restored(
    with("both restored", PLAIN, Faults { db_restores: 1, api_restores: 1, ..CALM }),
    Some(400_000))]
#[case::gap(GAP, Some(400_000))]
#[case::late(LATE, Some(400_000))]
#[case::two_endings(TWO_ENDINGS, Some(400_000))]
#[case::three_leaders(
    Config { leaders: 3, deletion: false, ..with("three leaders", PLAIN, Faults { cuts: 1, ..CALM }) },
    Some(400_000))]
fn no_interleaving_breaks_an_invariant(#[case] config: Config, #[case] bound: Option<usize>) {
    explore(config, bound);
}

/// `make model-deep`: minutes, in a release build.
#[test]
#[ignore = "minutes: make model-deep"]
fn no_interleaving_breaks_an_invariant_deep() {
    let bound = std::env::var("MODEL_STATES").ok().and_then(|n| n.parse().ok());
    let bound = Some(bound.unwrap_or(20_000_000));
    let three = Config { leaders: 3, ..PLAIN };
    let lazy = Config { lazy_tail: true, ..PLAIN };
    for config in [
        with("deep: database down, two each", TWO_EACH, Faults { cuts: 1, ..CALM }),
        with("deep: slow, down", PLAIN, Faults { slow_commits: 2, cuts: 1, ..CALM }),
        with("deep: slow, two each", TWO_EACH, Faults { slow_commits: 1, ..CALM }),
        with(
            "deep: node lost, spool fails",
            PLAIN,
            Faults { crashes: 1, cuts: 2, lost_volumes: 1, spool_errors: 1, ..CALM },
        ),
        with("deep: database restored, slow", PLAIN, Faults { db_restores: 1, slow_commits: 1, ..CALM }),
        with("deep: database restored, down", PLAIN, Faults { db_restores: 1, cuts: 1, ..CALM }),
        with("deep: database restored, two each", TWO_EACH, Faults { db_restores: 1, ..CALM }),
        with("deep: database restored, lazy tail", lazy, Faults { db_restores: 1, crashes: 1, cuts: 1, ..CALM }),
        with(
            "deep: database restored, volume lost, down",
            PLAIN,
            Faults { db_restores: 1, lost_volumes: 1, cuts: 1, ..CALM },
        ),
        with("deep: API server restored, down", PLAIN, Faults { api_restores: 1, cuts: 1, ..CALM }),
        with("deep: API server restored, slow", PLAIN, Faults { api_restores: 1, slow_commits: 1, ..CALM }),
        with("deep: API server restored, two each", TWO_EACH, Faults { api_restores: 1, ..CALM }),
        with("deep: both restored, down", PLAIN, Faults { api_restores: 1, db_restores: 1, cuts: 1, ..CALM }),
        with("deep: three leaders, down", three, Faults { cuts: 1, ..CALM }),
        with("deep: three leaders, database restored", three, Faults { db_restores: 1, ..CALM }),
    ] {
        let only = std::env::var("MODEL_ONLY").unwrap_or_default();
        if !config.name.contains(&only) {
            continue;
        }
        // Canonical names cost more than they save with two leaders; with three they pay.
        if config.leaders == 2 {
            explore(config, bound);
        } else {
            explore_symmetric(config, bound);
        }
    }
}

/// A database restored to before `r0.1`, while its only spool is out of reach, has followed the
/// status to `r1.0`; then the API server is restored to `r0.0`: the line between has a gap.
const GAP: Config = Config {
    after: &[
        Action::Observe(0),
        Action::ReadDatabase(0),
        Action::Commit(0, Kind::Transition),
        Action::Show(0),
        Action::DatabaseBackup,
        Action::ApiServerBackup,
        Action::Observe(0),
        Action::ReadDatabase(0),
        Action::Commit(0, Kind::Transition),
        Action::Show(0),
        Action::CutOff(1),
        Action::Observe(1),
        Action::ReadDatabase(1),
        Action::Spool(1, Kind::Transition),
        Action::Show(1),
        Action::Reconnected(1),
        Action::CutOff(0),
        Action::DatabaseRestored,
        Action::Observe(1),
        Action::ReadDatabase(1),
        Action::ImportPending(1, Set(1 << RECORDS)),
        Action::Observe(1),
        Action::ReadDatabase(1),
        Action::RereadStatus(1),
        Action::HeadFollowsStatus(1, Id(1)),
        Action::ApiServerRestored,
    ],
    ..with("gap", TWO_EACH, Faults { cuts: 2, db_restores: 1, api_restores: 1, ..CALM })
};

/// An object deleted with the database down, whose writer's volume is lost at once.
const BURIED: Config = Config {
    after: &[
        Action::UserDeletes,
        Action::Observe(0),
        Action::CutOff(0),
        Action::ReadDatabase(0),
        Action::Spool(0, Kind::Terminal),
        Action::Show(0),
        Action::Observe(0),
        Action::ReadDatabase(0),
        Action::NoteMark(0),
        Action::WriteTombstone(0),
        Action::ReleaseFinalizer(0),
        Action::VolumeLost(0),
    ],
    ..with(
        "deleted with the database down, volume lost, database restored",
        PLAIN,
        Faults { cuts: 2, lost_volumes: 1, db_restores: 1, crashes: 1, ..CALM },
    )
};

/// A record that is shown from the spool, whose volume is lost before its late commit lands.
const LATE: Config = Config {
    after: &[
        Action::DatabaseBackup,
        Action::Observe(0),
        Action::ReadDatabase(0),
        Action::CommitUnanswered(0, Kind::Transition),
        Action::Show(0),
        Action::VolumeLost(0),
        Action::LateCommitLands(0),
    ],
    ..with(
        "late commit, volume lost, database restored",
        PLAIN,
        Faults { slow_commits: 1, lost_volumes: 1, db_restores: 1, ..CALM },
    )
};

/// One leader ends the object, a restore brings it back, the other ends it again with the
/// database down: the first still believes in its own ending.
const TWO_ENDINGS: Config = Config {
    after: &[
        Action::Observe(1),
        Action::ApiServerBackup,
        Action::UserDeletes,
        Action::Observe(0),
        Action::ReadDatabase(0),
        Action::Commit(0, Kind::Terminal),
        Action::Show(0),
        Action::Observe(0),
        Action::ReadDatabase(1),
        Action::ApiServerRestored,
        Action::RereadStatus(1),
        Action::CommitApiRewound(1, Id(1)),
        Action::ReadDatabase(0),
        Action::NoteMark(0),
        Action::Show(1),
        Action::UserDeletes,
        Action::Observe(1),
        Action::ReadDatabase(1),
        Action::CutOff(1),
        Action::CommitRefused(1, Kind::Terminal),
        Action::Show(1),
    ],
    ..with("two endings", PLAIN, Faults { cuts: 2, api_restores: 1, ..CALM })
};

const CUT_TWO: Config = with("broken", TWO_EACH, Faults { cuts: 1, ..CALM });
const CUT: Config = with("broken", PLAIN, Faults { cuts: 1, ..CALM });
const DB: Config = with("broken", PLAIN, Faults { db_restores: 1, ..CALM });
const API: Config = with("broken", PLAIN, Faults { api_restores: 1, ..CALM });
const API_TWO: Config = with("broken", TWO_EACH, Faults { api_restores: 1, ..CALM });
#[rstest]
#[case(BrokenRule::NoPendingInStatus, CUT, "unstored_records_are_carried")]
#[case(BrokenRule::PendingClearedEarly, CUT, "unstored_records_are_carried")]
#[case(BrokenRule::NoTombstone, CUT, "unstored_records_are_carried")]
#[case(BrokenRule::NoStatusCompareAndSet, PLAIN, "shown_records_form_one_line")]
#[case(BrokenRule::NoDatabaseCompareAndSet, CUT, "database_head_never_goes_back")]
#[case(BrokenRule::NoAdoption, PLAIN, "rewinds_are_not_invented")]
#[case(BrokenRule::NoMark, DB, "terminal_record_survives")]
#[case(BrokenRule::TombstoneRemovedEarly, CUT, "unstored_records_are_carried")]
#[case(BrokenRule::TombstoneRemovedUncopied, BURIED, "terminal_record_survives")]
#[case(BrokenRule::NoQuorumReread, TWO_EACH, "rewinds_are_not_invented")]
#[case(BrokenRule::RereadBeforeDatabase, TWO_EACH, "rewinds_are_not_invented")]
#[case(BrokenRule::EpochDecides, CUT, "shown_records_form_one_line")]
#[case(BrokenRule::ShownBeforeDurable, CUT, "shown_records_have_a_home")]
#[case(BrokenRule::SlotAddedWhenFull, Config { slots: 0, ..CUT }, "nothing_shown_when_full")]
#[case(BrokenRule::ShownUncarriedWhenFull, Config { slots: 0, ..CUT },
    "unstored_records_are_carried")]
#[case(BrokenRule::TerminalAdoptedByLiving, API, "living_objects_are_not_closed")]
#[case(BrokenRule::DeletionNotTested, API, "living_objects_are_not_closed")]
#[case(BrokenRule::HeadFollowsUnstored, DB, "database_head_is_stored")]
#[case(BrokenRule::HeadNeverFollows, CUT, "head_agrees_after_settling")]
#[case(BrokenRule::LoserKeepsHead, CUT, "head_agrees_after_settling")]
#[case(BrokenRule::NoReplay, DB, "every_shown_record_reaches_the_database")]
#[case(BrokenRule::MarkMovesLiving, API_TWO, "database_head_never_goes_back")]
#[case(BrokenRule::ReleaseWithoutTest, API, "released_only_when_finished")]
#[case(BrokenRule::RewindFollowed, API_TWO, "database_head_never_goes_back")]
#[case(BrokenRule::GapCountsAsBranch, GAP, "database_head_never_goes_back")]
#[case(BrokenRule::ClearedUncopied, LATE, "shown_records_have_a_home")]
#[case(BrokenRule::TombstoneOverwritten, TWO_ENDINGS, "unstored_records_are_carried")]
#[case(BrokenRule::HeadFollowsUncompared, CUT_TWO, "database_head_never_goes_back")]
#[case(BrokenRule::ReleasedUnclosed, API_TWO, "database_head_never_goes_back")]
#[case(BrokenRule::EpochDecidesOverDescent, TWO_ENDINGS, "terminal_record_survives")]
#[case(BrokenRule::MarkedWithoutPending, LATE, "shown_records_have_a_home")]
fn every_broken_rule_is_noticed(#[case] broken: BrokenRule, #[case] config: Config, #[case] invariant: &'static str) {
    let started = Instant::now();
    let config = Config { broken: Some(broken), ..config };
    let checker = config
        .checker()
        .threads(2)
        .target_state_count(5_000_000)
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([invariant])))
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let path = found.get(invariant).map(|path| path.clone().into_actions());
    println!(
        "{broken:?}: {} after {} states, {:.1?}: {path:?}",
        found.keys().copied().collect::<Vec<_>>().join(" "),
        checker.unique_state_count(),
        started.elapsed()
    );
    assert!(path.is_some(), "{broken:?} is not noticed by {invariant}");
}

/// The closing invariants speak of settled states. Here, that every state settles: the helpful
/// steps, in a fixed order and left alone, come to an end.
#[rstest]
#[case(with("settling: cut, crash", PLAIN, Faults { cuts: 1, crashes: 1, ..CALM }))]
#[case(with("settling: database restored", PLAIN, Faults { db_restores: 1, ..CALM }))]
#[case(with("settling: API server restored", PLAIN, Faults { api_restores: 1, ..CALM }))]
fn the_helpful_steps_come_to_an_end(#[case] config: Config) {
    let mut known: HashSet<State> = config.init_states().into_iter().collect();
    let mut frontier: Vec<State> = known.iter().copied().collect();
    let mut longest = 0;
    while let Some(state) = frontier.pop() {
        if known.len() < 60_000 {
            for next in config.next_states(&state) {
                if known.insert(next) {
                    frontier.push(next);
                }
            }
        }
        let (mut at, mut steps) = (state, 0);
        loop {
            let mut helpful: Vec<Action> = Vec::new();
            config.helpful_actions(&at, &mut helpful);
            let Some(next) = helpful.into_iter().find_map(|a| config.next_state(&at, a)) else {
                break;
            };
            (at, steps) = (next, steps + 1);
            assert!(steps < 200, "{}: {state:#?} does not settle", config.name);
        }
        longest = longest.max(steps);
    }
    println!("{}: {} states, at most {longest} steps", config.name, known.len());
}

#[test]
fn docs_and_code_name_the_same_invariants() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCS);
    let text = std::fs::read_to_string(&path).unwrap();
    let documented: BTreeSet<[String; 3]> = text
        .lines()
        .skip_while(|line| !line.starts_with("| invariant |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            [cells[0].trim_matches('`').to_owned(), cells[1].to_owned(), cells[2].to_owned()]
        })
        .collect();
    let coded: BTreeSet<[String; 3]> =
        INVARIANTS.iter().map(|i| [i.name, i.meaning, i.rules].map(str::to_owned)).collect();
    assert_eq!(documented, coded, "{DOCS}");
}
