//! Row 5: the connection to the database is cut around every statement and COMMIT.
//!
//! Owns: that no statement is left out. Must never: count what did not come true.

use std::time::Duration;

use berth_e2e::{
    faults::database::{Ending, Fault, Moment, Unit, Weather},
    judges,
};

use crate::life::{NAME, theatre, timed};

/// How far apart the faults of one life are: each life begins one further on, so that after so many of them there is no
/// place in a life at which nothing was cut. Twice what it takes to come back: a life has to get somewhere between two cuts.
const STRIDE: u64 = 40;
/// More than a life has, whatever is done again: a hundred statements undisturbed, and a new connection after every cut. A
/// busy machine has come to more than three hundred.
const END: u64 = 800;

#[test]
fn every_statement_and_commit_is_cut_before_and_after() {
    let Some(t) = theatre("cut") else { return };
    let process = t.stand.start(NAME).unwrap();
    let before = t.stand.database.counts();
    let first = t.live("undisturbed");
    t.until_told(&first);
    t.is_the_story(&first);
    let after = t.stand.database.counts();
    let length = [after.statements - before.statements, after.commits - before.commits];
    eprintln!("a life has {} statements, {} COMMITs", length[0], length[1]);
    let (mut lives, mut struck, mut longest) = (0, 0, Duration::ZERO);
    for (unit, length) in [(Unit::Statement, length[0]), (Unit::Commit, length[1])] {
        for moment in [Moment::Before, Moment::After] {
            let stride = STRIDE.min(length.max(1));
            for shift in 1..=stride {
                let places = (shift..END).step_by(usize::try_from(stride).unwrap());
                let waiting = places.clone().count();
                for nth in places {
                    t.stand.database.inject(Fault { unit: unit.clone(), nth, moment, ending: Ending::Cut });
                }
                let name = format!("life-{lives}");
                let (object, took) = timed(|| t.live(&name));
                t.until_told(&object);
                let left = t.stand.database.waiting();
                assert!(left > 0, "the life was longer than {END}");
                struck += u64::try_from(waiting - left).unwrap();
                t.stand.database.fair();
                t.is_the_story(&object);
                longest = longest.max(took);
                lives += 1;
            }
        }
    }
    // The judges are judged: what only the spool of a stopped replica has, and nobody brings, is found missing.
    t.stand.database.set(Weather::Refuse);
    let object = t.live("spooled");
    process.kill().unwrap();
    t.stand.free_lease().unwrap();
    t.stand.database.fair();
    let said = judges::second_checker(&t.stand.spools().unwrap()).unwrap_err();
    assert!(said.message().contains("not-in-database"), "{said}");
    let _process = t.stand.start(NAME).unwrap();
    t.until_told(&object);
    t.settled();
    t.report(5, lives, struck, longest).print().unwrap();
}
