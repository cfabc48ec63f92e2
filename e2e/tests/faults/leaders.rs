//! Row 12: a leader stands still past its Lease while another writes, and goes on; the Lease is deleted under it; its clock
//! is an hour off, either way.
//!
//! Owns: two processes over one cluster. Must never: let a round pass in which the other one has not written.

use std::time::Duration;

use berth_e2e::{
    faults::{
        api::{Act, Rule},
        clock::Clock,
        operator::LEASE,
        wait_until,
    },
    install::{self, NAMESPACE},
    kubectl::Kubectl,
    objects::Tenant,
    scenario::is_ready,
};
use serde_json::json;

use crate::life::{HOUR, NAME, OTHER, theatre};

/// The Lease's fifteen seconds, on a busy machine.
const TAKEN: Duration = Duration::from_secs(90);
const ROUNDS: u64 = 5;

#[test]
fn a_leader_that_stood_still_leaves_one_line() {
    let Some(t) = theatre("frozen") else { return };
    let mut leader = (NAME, t.stand.start(NAME).unwrap());
    assert!(wait_until(TAKEN, || t.stand.leader().is_ok_and(|name| name.starts_with(NAME))));
    let mut other = (OTHER, t.stand.start_unready(OTHER).unwrap());
    let mut lives = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("frozen-{round}");
        let object = t.s.apply(&Tenant::named(&name).simulated().with("drainSeconds", 0)).unwrap();
        t.until(&name, |object| is_ready(object, "Running"));
        // In the middle of a change: it stands still with a status write under way, done or not.
        let act = if round % 2 == 0 { Act::Stall } else { Act::StallAfter };
        let path = format!("tenantcontainers/{name}/status?");
        t.stand.api.rule(Rule::once("PATCH", &path, act));
        t.s.change(&name, &json!({"desiredState": "Stopped"})).unwrap();
        assert!(t.stand.api.until_struck(TAKEN));
        leader.1.signal("STOP").unwrap();
        let taken_over = || {
            // Whoever leads no more ends, and is started again, as by its pod.
            if !other.1.runs() {
                other.1 = t.stand.start_unready(other.0).unwrap();
            }
            t.stand.leader().is_ok_and(|holder| holder.starts_with(other.0))
        };
        assert!(wait_until(TAKEN, taken_over), "nobody took over");
        t.until(&name, |object| is_ready(object, "Stopped"));
        let late = t.live(&format!("late-{round}"));
        // What the first one had sent arrives only now, and it does not know yet that it leads no more.
        t.stand.api.fair();
        leader.1.signal("CONT").unwrap();
        t.s.user.run(&["delete", "tc", &name, "--wait=false"]).unwrap();
        t.until_gone(&name);
        lives.extend([object, late]);
        std::mem::swap(&mut leader, &mut other);
    }
    for round in 0..ROUNDS {
        // The one before was deleted, too: whoever leads makes it anew with its next renewal, which a life may come before.
        let berth = Kubectl::admin().in_namespace(NAMESPACE);
        let delete = |berth: &Kubectl| berth.run(&["delete", "lease", LEASE]).map(Some);
        berth.wait_for("the Lease, to be deleted", TAKEN, delete).unwrap();
        lives.push(t.live(&format!("deleted-{round}")));
    }
    for object in &lives {
        t.until_told(object);
        t.is_the_story(object);
    }
    // What a replica kept on its spool as it lost the lead, it brings itself once its pod has started it again.
    for (name, process) in [&mut leader, &mut other] {
        if !process.runs() {
            *process = t.stand.start_unready(name).unwrap();
        }
    }
    t.settled();
    let runs = u64::try_from(lives.len()).unwrap();
    t.report(12, runs, 2 * ROUNDS, t.longest_wait()).print().unwrap();
}

#[test]
fn a_leader_whose_clock_is_an_hour_off_leaves_one_line() {
    let Some(t) = theatre("clock") else { return };
    let clock = Clock::new().unwrap();
    let leads = |name: &str| wait_until(TAKEN, || t.stand.leader().is_ok_and(|leader| leader.starts_with(name)));
    let mut lives = Vec::new();
    let witness = t.s.apply(&Tenant::named("witness").simulated().with("drainSeconds", 0)).unwrap();
    for (round, hours) in (0..ROUNDS).zip([1, -1].into_iter().cycle()) {
        // It begins right, and its clock is moved while it leads; one whose clock is right waits beside it.
        clock.is_off_by(0).unwrap();
        let odd = t.stand.start_other(NAME, &install::program().unwrap(), &clock.environment()).unwrap();
        assert!(leads(NAME));
        let mut right = t.stand.start_unready(OTHER).unwrap();
        lives.push(t.live(&format!("right-{round}")));
        clock.is_off_by(hours * HOUR).unwrap();
        lives.push(t.live(&format!("moved-{round}")));
        let leader = t.stand.leader().unwrap();
        assert!(leader.starts_with(NAME), "taken from a leader whose clock was {hours} h off: {leader}");
        // And with a change under way, the other one goes on where it ended.
        let name = format!("left-{round}");
        let object = t.s.apply(&Tenant::named(&name).simulated().with("drainSeconds", 0)).unwrap();
        t.until(&name, |object| is_ready(object, "Running"));
        t.stand.api.rule(Rule::once("PATCH", &format!("tenantcontainers/{name}/status?"), Act::StallAfter));
        t.s.change(&name, &json!({"desiredState": "Stopped"})).unwrap();
        assert!(t.stand.api.until_struck(TAKEN));
        odd.kill().unwrap();
        t.stand.api.fair();
        assert!(leads(OTHER), "nobody took over from a leader whose clock was {hours} h off");
        t.until(&name, |object| is_ready(object, "Stopped"));
        t.s.change("witness", &json!({"replicas": 1 + round % 2})).unwrap();
        t.until("witness", |object| is_ready(object, "Running"));
        t.s.user.run(&["delete", "tc", &name, "--wait=false"]).unwrap();
        t.until_gone(&name);
        lives.push(object);
        assert!(right.runs());
        right.kill().unwrap();
        t.stand.free_lease().unwrap();
    }
    let _right = t.stand.start(NAME).unwrap();
    // The other brings what its spool has, too.
    let _waits = t.stand.start_unready(OTHER).unwrap();
    t.s.user.run(&["delete", "tc", "witness", "--wait=false"]).unwrap();
    t.until_gone("witness");
    lives.push(witness);
    for object in &lives {
        t.until_told(object);
        t.is_the_story(object);
    }
    t.settled();
    let runs = u64::try_from(lives.len()).unwrap();
    t.report(12, runs, 3 * ROUNDS, t.longest_wait()).print().unwrap();
}
