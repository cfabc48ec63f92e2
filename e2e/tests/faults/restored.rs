//! Rows 7 and 16: the database, or the API server, is restored to a copy of some minutes ago, while the operator works on.
//!
//! Owns: that what was lost had been acknowledged. Must never: restore before that is certain.

use std::time::Duration;

use berth_e2e::{
    database::{count, hops, line},
    faults::etcd::Snapshot,
    objects::Tenant,
    outage::Backup,
    scenario::{is_ready, uid},
};
use serde_json::json;

use crate::life::{NAME, theatre, timed};

/// Lives before, after the copy, and after it was restored, each.
const LIVES: u64 = 5;

#[test]
fn a_database_that_lost_its_last_minutes_gets_them_back_from_the_tail() {
    let Some(t) = theatre("restored") else { return };
    let process = t.stand.start(NAME).unwrap();
    // One that goes on over both.
    let witness = t.s.apply(&Tenant::named("witness").simulated().with("drainSeconds", 0)).unwrap();
    t.until("witness", |object| is_ready(object, "Running"));
    let mut lives: Vec<_> = (0..LIVES).map(|n| t.live(&format!("before-{n}"))).collect();
    lives.iter().for_each(|object| t.until_told(object));
    let copy = Backup::take().unwrap();
    lives.extend((0..LIVES).map(|n| t.live(&format!("lost-{n}"))));
    t.s.change("witness", &json!({"replicas": 2})).unwrap();
    t.until("witness", |object| is_ready(object, "Running") && object["status"]["replicas"] == 2);
    lives.iter().for_each(|object| t.until_told(object));
    let known = hops(uid(&witness)).unwrap();
    copy.restore().unwrap();
    let lost = lives.last().map(|object| uid(object).to_owned()).unwrap();
    // Under load: it works on, whether or not it has found out.
    let (_, took) = timed(|| lives.extend((0..LIVES).map(|n| t.live(&format!("after-{n}")))));
    t.s.admin
        .wait_for("what was lost is back", Duration::from_secs(120), |_| Ok((!hops(&lost)?.is_empty()).then_some(())))
        .unwrap();
    for object in &lives {
        t.until_told(object);
        t.shows_the_story(object);
    }
    assert_eq!(hops(uid(&witness)).unwrap(), known, "of an object to which nothing happened since");
    let metrics = process.get("/metrics").unwrap();
    let rewinds = metrics.lines().find_map(|line| line.strip_prefix("berth_ledger_rewinds_total "));
    assert!(rewinds.is_some_and(|count| count != "0"), "nobody found out: {rewinds:?}");
    let invented = "SELECT count(*) FROM berth.container_status_history
                    WHERE kind IN ('lost', 'resolution', 'unobserved') AND uid = ANY (string_to_array(:'uids', ',')::uuid[])";
    let uids = lives.iter().map(uid).collect::<Vec<_>>().join(",");
    assert_eq!(count(invented, &[("uids", &uids)]).unwrap(), 0, "the tail had everything");
    t.settled();
    t.report(7, u64::try_from(lives.len()).unwrap(), 1, took).print().unwrap();
}

#[test]
fn an_api_server_that_is_restored_gets_both_its_branches_kept_and_named() {
    let Some(t) = theatre("older") else { return };
    let process = t.stand.start(NAME).unwrap();
    let make = |name: &str| {
        let object = t.s.apply(&Tenant::named(name).simulated().with("drainSeconds", 0)).unwrap();
        t.until(name, |object| is_ready(object, "Running"));
        object
    };
    let (changed, ended, untouched) = (make("changed"), make("ended"), make("untouched"));
    let before = [&changed, &ended, &untouched].map(|object| hops(uid(object)).unwrap());
    let copy = Snapshot::take().unwrap();
    t.s.change("changed", &json!({"desiredState": "Stopped"})).unwrap();
    t.until("changed", |object| is_ready(object, "Stopped"));
    t.s.user.run(&["delete", "tc", "ended", "--wait=false"]).unwrap();
    t.until_gone("ended");
    t.until_told(&ended);
    let unheard_of = t.live("unheard-of");
    t.until_told(&unheard_of);
    let known = [&changed, &ended].map(|object| hops(uid(object)).unwrap());
    let (_process, took) = timed(|| {
        copy.restore().unwrap();
        // Whatever works for the API server begins anew after a restore, as etcd's documentation says; so does Berth.
        process.kill().unwrap();
        t.stand.free_lease().unwrap();
        let process = t.stand.start(NAME).unwrap();
        for name in ["changed", "ended", "untouched"] {
            t.until(name, |object| is_ready(object, "Running"));
        }
        process
    });
    // Berth goes on as the API server now says, on top of what it had said: nothing of either is forgotten.
    for (object, known) in [&changed, &ended].into_iter().zip(&known) {
        let rewound = |_: &berth_e2e::kubectl::Kubectl| {
            let now = hops(uid(object))?;
            let named = now.iter().any(|hop| hop.ends_with(" ApiRewound"));
            Ok((named && now.starts_with(known) && line(uid(object))? == now).then_some(()))
        };
        t.s.admin.wait_for("the rewind is in the chain", Duration::from_secs(60), rewound).unwrap();
    }
    assert_eq!(hops(uid(&untouched)).unwrap(), before[2], "of an object to which nothing happened since the copy");
    t.shows_the_story(&unheard_of);
    t.s.user.run(&["delete", "tc", "--all", "--wait=false"]).unwrap();
    for (name, object) in [("changed", &changed), ("ended", &ended), ("untouched", &untouched)] {
        t.until_gone(name);
        t.until_told(object);
    }
    t.shows_the_story(&untouched);
    t.settled();
    t.report(16, 4, 1, took).print().unwrap();
}
