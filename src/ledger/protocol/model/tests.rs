//! The explorations.

use super::world::Faults;
use super::{Config, properties};
use stateright::{Checker, Model};
use std::time::Instant;

const PLAIN: Config = Config {
    name: "plain",
    leaders: 2,
    appends: 1,
    slots: 2,
    deletion: true,
    lazy_tail: false,
    faults: Faults {
        crashes: 0,
        cuts: 0,
        slow_commits: 0,
        spool_errors: 0,
        lost_volumes: 0,
        db_restores: 0,
        api_restores: 0,
    },
    broken: None,
};

fn explore(config: Config) {
    let started = Instant::now();
    let bound: usize = std::env::var("BOUND").ok().and_then(|b| b.parse().ok()).unwrap_or(300_000);
    let checker = config.checker().threads(2).target_state_count(bound).spawn_bfs().join();
    println!(
        "{}: {} states unique of {}, depth {}, {:.1?}",
        config.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed()
    );
    for (name, path) in checker.discoveries() {
        println!("  {name}: {:?}", path.into_actions());
    }
    let _ = properties::INVARIANTS;
}

#[test]
fn scratch() {
    let f = PLAIN.faults;
    for (name, appends, faults) in [
        ("apirestore", 1, Faults { cuts: 1, api_restores: 1, ..f }),
        ("apirestore2", 2, Faults { api_restores: 1, ..f }),
        ("apislow", 1, Faults { slow_commits:1, api_restores: 1, ..f }),
        ("dbslow", 1, Faults { slow_commits:1, db_restores: 1, ..f }),
        ("both", 1, Faults { db_restores:1, api_restores: 1, ..f }),
        ("slow", 1, Faults { slow_commits: 1, cuts: 1, ..f }),
    ] {
        explore(Config { name, appends, faults, ..PLAIN });
    }
}
