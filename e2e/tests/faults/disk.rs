//! Rows 8 and 10: the spool's disk is full or gone while the database is away; then the status is full, and cannot be
//! written either.
//!
//! Owns: which home is there when. Must never: find a record by the operator's own word alone.

use std::{collections::BTreeSet, time::Duration};

use berth_e2e::{
    database::column,
    faults::{
        api::{Act, Rule},
        database::Weather,
        disk::Disk,
        operator::Process,
    },
    objects::{Tenant, condition, reason},
    scenario::{is_ready, uid},
};
use serde_json::{Value, json};

use crate::life::{NAME, SIZE, STORY, Theatre, theatre, timed};

/// More changes than a status has slots.
const CHANGES: usize = 40;

/// Sequence numbers of the records that a status carries.
fn carried(object: &Value) -> Vec<u64> {
    let pending = object["status"]["ledger"]["pending"].as_array();
    let sequence = |record: &Value| serde_json::from_str::<Value>(record.as_str()?).ok()?["seq"].as_u64();
    pending.into_iter().flatten().filter_map(sequence).collect()
}

/// A service's life, whose every shown state is in the one home that is left: in its status.
fn live_in_the_status(t: &Theatre, name: &str) -> Value {
    let object = t.s.apply(&Tenant::named(name).simulated().with("drainSeconds", 0)).unwrap();
    let all_in_it = |object: &Value| {
        let shown = object["status"]["ledger"]["sequence"].as_u64().unwrap();
        assert_eq!(carried(object), (1..=shown).collect::<Vec<_>>(), "shown, and in no home");
    };
    all_in_it(&t.until(name, |object| is_ready(object, "Running")));
    t.s.change(name, &json!({"desiredState": "Stopped"})).unwrap();
    all_in_it(&t.until(name, |object| is_ready(object, "Stopped")));
    t.s.user.run(&["delete", "tc", name, "--wait=false"]).unwrap();
    t.until_gone(name);
    object
}

#[test]
fn a_disk_that_is_full_or_gone_or_slow_while_the_database_is_away_loses_nothing() {
    let Some(t) = theatre("disk") else { return };
    let disk = Disk::mount(&t.stand.spool(NAME), SIZE).unwrap();
    let process = t.stand.start(NAME).unwrap();
    let mut lives = vec![t.live("healthy")];
    t.stand.database.set(Weather::Refuse);
    lives.push(t.live("on-the-spool"));
    disk.fill().unwrap();
    let (full, took_full) = timed(|| live_in_the_status(&t, "full"));
    lives.push(full);
    assert!(!t.stand.lines(NAME, "No space left").is_empty(), "a full disk is said to be one");
    disk.free().unwrap();
    // The same process takes to the disk again, without being told.
    t.s.admin
        .wait_for("the spool takes records again", Duration::from_secs(90), |_| {
            let metrics = process.get("/metrics").unwrap_or_default();
            Ok(metrics.lines().any(|line| line == "berth_spool_poisoned 0").then_some(()))
        })
        .unwrap();
    lives.push(t.live("free-again"));
    disk.pull_out().unwrap();
    let (gone, took_gone) = timed(|| live_in_the_status(&t, "gone"));
    lives.push(gone);
    let metrics = process.get("/metrics").unwrap();
    let poisonings = metrics.lines().find_map(|line| line.strip_prefix("berth_spool_poisonings_total "));
    assert!(poisonings.is_some_and(|count| count != "0"), "no alarm: {poisonings:?}");
    let repaired = |process: Process| {
        // As after a node's repair: what was acknowledged is on it.
        process.kill().unwrap();
        t.stand.free_lease().unwrap();
        disk.mend().unwrap();
        t.stand.start(NAME).unwrap()
    };
    let process = repaired(process);
    lives.push(t.live("mended"));
    disk.remount_read_only().unwrap();
    let (read_only, took_read_only) = timed(|| live_in_the_status(&t, "read-only"));
    lives.push(read_only);
    assert!(!t.stand.lines(NAME, "Read-only file system").is_empty(), "a read-only disk is said to be one");
    let process = repaired(process);
    lives.push(t.live("mended-again"));
    // Each sync waits for seconds: what it is too slow for is carried by the status, which waits for nothing.
    let slow = disk.slow_down(Duration::from_millis(200), Duration::from_secs(4)).unwrap();
    let (_, took_slow) = timed(|| lives.extend((0..5).map(|n| t.live(&format!("slow-{n}")))));
    drop(slow);
    lives.push(t.live("fast-again"));
    t.stand.database.fair();
    for object in &lives {
        t.until_told(object);
        t.shows_the_story(object);
    }
    t.settled();
    let longest = took_full.max(took_gone).max(took_read_only).max(took_slow / 5);
    t.report(8, u64::try_from(lives.len()).unwrap(), 4, longest).print().unwrap();
    drop(process);
}

/// The image of a service's pods, as the StatefulSet has it.
fn replicas(t: &Theatre, name: &str) -> Value {
    t.s.get("statefulset", name).unwrap()["spec"]["replicas"].clone()
}

#[test]
fn with_every_home_gone_nothing_is_shown_that_is_not_durable_and_children_are_looked_after() {
    const SERVICE: &str = "homeless";
    let Some(t) = theatre("homes") else { return };
    let disk = Disk::mount(&t.stand.spool(NAME), SIZE).unwrap();
    let process = t.stand.start(NAME).unwrap();
    let object = t.s.apply(&Tenant::named(SERVICE).simulated().with("drainSeconds", 0)).unwrap();
    t.until(SERVICE, |object| is_ready(object, "Running"));
    t.stand.database.set(Weather::Refuse);
    disk.pull_out().unwrap();
    let is_full = |object: &Value| condition(object, "Stalled") == "True" && reason(object, "Stalled") == "LedgerFull";
    let children = |count: usize| {
        t.s.change(SERVICE, &json!({"replicas": count})).unwrap();
        let stands = |_: &berth_e2e::kubectl::Kubectl| Ok((replicas(&t, SERVICE) == json!(count)).then_some(()));
        t.s.admin.wait_for("its replicas are as wanted", Duration::from_secs(120), stands).unwrap();
    };
    let mut changes = 0;
    while !is_full(&t.s.get("tc", SERVICE).unwrap()) {
        assert!(changes < CHANGES, "the status is never full");
        children(1 + changes % 3);
        changes += 1;
    }
    let full = t.s.get("tc", SERVICE).unwrap();
    let shown = full["status"]["ledger"]["sequence"].as_u64().unwrap();
    assert_eq!(carried(&full), (shown + 1 - 32..=shown).collect::<Vec<_>>(), "shown, and in no home");
    // And now the status cannot be written either.
    let path = format!("tenantcontainers/{SERVICE}/status?");
    let refused = Act::Answer { code: 500, retry_after: None };
    t.stand.api.rule(Rule::once("PATCH", &path, refused).times(100_000));
    let ((), took) = timed(|| {
        for count in [5, 4] {
            children(count);
        }
    });
    assert_eq!(t.s.get("tc", SERVICE).unwrap()["status"]["ledger"], full["status"]["ledger"], "shown, and in no home");
    let struck = t.stand.api.counts().faults;
    process.kill().unwrap();
    t.stand.free_lease().unwrap();
    disk.mend().unwrap();
    t.stand.api.fair();
    t.stand.database.fair();
    let _process = t.stand.start(NAME).unwrap();
    let ended = t.until(SERVICE, |object| is_ready(object, "Running") && carried(object).is_empty());
    t.s.user.run(&["delete", "tc", SERVICE, "--wait=false"]).unwrap();
    t.until_gone(SERVICE);
    t.until_told(&object);
    t.shows_the_story(&object);
    let stored =
        column("SELECT sequence FROM berth.container_status_history WHERE uid = :'uid'", &[("uid", uid(&object))]);
    let stored: BTreeSet<u64> = stored.unwrap().iter().map(|number| number.parse().unwrap()).collect();
    let last = ended["status"]["ledger"]["sequence"].as_u64().unwrap();
    assert!((1..=last).all(|sequence| stored.contains(&sequence)), "lost, of 1 to {last}: {stored:?}");
    t.settled();
    t.report(10, 1, struck + 2, took).print().unwrap();
    assert!(STORY.len() < stored.len());
}
