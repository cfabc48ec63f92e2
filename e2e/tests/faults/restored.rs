//! Row 7: the database is restored to a copy of some minutes ago, while the operator works on.
//!
//! Owns: that what was lost had been acknowledged. Must never: restore before that is certain.

use std::time::Duration;

use berth_e2e::{
    database::{count, hops},
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
        t.is_the_story(object);
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
