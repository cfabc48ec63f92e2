//! Row 1: the process is killed before, at and after writes of each kind, and another one goes on.
//!
//! Owns: which write it is killed at. Must never: kill at a moment that it has not seen come.

use std::{thread, time::Duration};

use berth_e2e::{
    audit,
    faults::{
        api::{Act, Rule},
        database::Weather,
        operator::Process,
        wait_until,
    },
    objects::Tenant,
    scenario::is_ready,
};
use serde_json::{Value, json};

use crate::life::{NAME, Theatre, made_and_removed, theatre, timed};

/// How long a write may be waited for.
const COMES: Duration = Duration::from_secs(120);

/// A kind of write; `{}` is the service's name. How many of them a life has at least.
struct Write {
    method: &'static str,
    path: &'static str,
    of_a_life: u64,
}

const fn write(method: &'static str, path: &'static str, of_a_life: u64) -> Write {
    Write { method, path, of_a_life }
}

const WRITES: [Write; 14] = [
    write("PATCH", "tenantcontainers/{}/status?", 4),
    write("PATCH", "tenantcontainers/{}?", 1),
    write("PATCH", "/statefulsets/{}?", 2),
    write("PATCH", "/services/{}", 2),
    write("PATCH", "/serviceaccounts/{}?", 1),
    write("PATCH", "/poddisruptionbudgets/{}?", 1),
    write("DELETE", "/statefulsets/{}?", 1),
    write("DELETE", "/services/{}", 2),
    write("DELETE", "/serviceaccounts/{}?", 1),
    write("DELETE", "/poddisruptionbudgets/{}?", 1),
    write("POST", "/events?", 1),
    write("POST", "berth-system/configmaps?", 1),
    write("DELETE", "berth-system/configmaps/", 1),
    write("PUT", "/leases/", 2),
];

/// When it is killed, seen from the write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The API server never sees it.
    Before,
    /// While the API server works on it.
    At,
    /// The API server has done it, and nobody was told.
    After,
}

const FIVE: [Moment; 5] = [Moment::Before, Moment::After, Moment::At, Moment::Before, Moment::After];

/// Waits for the write, kills the process there, and starts another.
fn kill(t: &Theatre, process: Process, moment: Moment, stalled: u64) -> Process {
    assert!(t.stand.api.until_struck(COMES), "the write never came");
    if moment == Moment::After {
        assert!(wait_until(COMES, || t.stand.api.counts().stalled > stalled), "the write was never done");
    }
    process.kill().unwrap();
    t.stand.api.fair();
    t.stand.free_lease().unwrap();
    t.stand.start(NAME).unwrap()
}

/// A life without the database at its end, so that its last records go into a tombstone; it comes back behind `gone`.
fn live_into_a_tombstone(t: &Theatre, name: &str, process_may_wait_for_it: bool) -> Value {
    let object = t.s.apply(&Tenant::named(name).simulated().with("drainSeconds", 0)).unwrap();
    t.until(name, |object| is_ready(object, "Running"));
    t.s.change(name, &json!({"desiredState": "Stopped"})).unwrap();
    t.until(name, |object| is_ready(object, "Stopped"));
    t.stand.database.set(Weather::Refuse);
    t.s.user.run(&["delete", "tc", name, "--wait=false"]).unwrap();
    if process_may_wait_for_it {
        t.until_gone(name);
        t.stand.database.fair();
    } else {
        assert!(t.stand.api.until_struck(COMES), "the write never came");
        t.stand.database.fair();
        t.until_gone(name);
    }
    object
}

#[test]
fn a_process_that_is_killed_at_any_write_is_followed_by_one_that_goes_on() {
    let Some(t) = theatre("killed") else { return };
    let mut process = t.stand.start(NAME).unwrap();
    let reference = t.reference();
    assert_eq!(reference.len(), 8, "{reference:?}");
    let (mut lives, mut longest) = (0, Duration::ZERO);
    for (kind, write) in WRITES.iter().enumerate() {
        for (place, moment) in (0..).zip(FIVE) {
            let name = format!("life-{kind}-{place}");
            let act = match moment {
                Moment::Before => Act::Stall,
                Moment::At => Act::Delay(Duration::ZERO),
                Moment::After => Act::StallAfter,
            };
            let mark = audit::mark().unwrap();
            let stalled = t.stand.api.counts().stalled;
            let rule = Rule::once(write.method, &write.path.replace("{}", &name), act);
            t.stand.api.rule(rule.nth(1 + place % write.of_a_life));
            let ((object, next), took) = timed(|| {
                thread::scope(|scope| {
                    let killer = scope.spawn(|| kill(&t, process, moment, stalled));
                    let object = if write.path.contains("configmaps") {
                        live_into_a_tombstone(&t, &name, write.method == "DELETE")
                    } else {
                        t.live(&name)
                    };
                    (object, killer.join().unwrap())
                })
            });
            process = next;
            longest = longest.max(took);
            lives += 1;
            t.until_told(&object);
            t.is_the_story(&object);
            let all = made_and_removed(mark, &name);
            // Of what is done while its client is gone, the audit log tells as of a request that failed (504): so there may be
            // fewer, never more. That all were there, the life itself has shown.
            let never_more = all.iter().all(|(what, count)| reference.get(what) >= Some(count));
            assert!(never_more, "{} {} {moment:?}: {all:?}, not {reference:?}", write.method, write.path);
        }
    }
    t.settled();
    t.report(1, lives, lives, longest).print().unwrap();
}
