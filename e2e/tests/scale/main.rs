//! Two hundred services on simulated nodes: `make scenarios`, or, on a cluster of `make up NODES=kwok:4`,
//! `. .local/env; BERTH_E2E=1 cargo test -p berth-e2e --test scale`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

use std::{collections::BTreeMap, thread, time::Duration};

use berth_e2e::{
    audit, cluster,
    install::{self, Home},
    scale,
    scenario::Scenario,
};

const COUNT: usize = 200;

#[test]
fn two_hundred_services_converge_with_a_chain_each_and_a_restart_writes_nothing() {
    if !cluster::wanted("scale").unwrap_or_else(|missing| panic!("{missing}")) {
        return;
    }
    assert!(scale::has_room(COUNT).unwrap(), "too few simulated nodes: make up NODES=kwok:4");
    install::images().unwrap();
    install::install(Home::Database, "info").unwrap();
    let s = Scenario::alone("scale").unwrap();
    let mark = audit::mark().unwrap();
    let took = scale::converge(&s, COUNT).unwrap();
    println!("{COUNT} services Running after {:.1} s", took.as_secs_f64());

    let org = [("ns", s.namespace.as_str())];
    let chains = s
        .rows(
            "WITH chain AS (
             SELECT uid, sequence, prev, hash, from_state, to_state,
                    row_number() OVER life AS place, lag(hash) OVER life AS before, lag(to_state) OVER life AS state
             FROM berth.container_status_history WHERE namespace = :'ns'
             WINDOW life AS (PARTITION BY uid ORDER BY sequence))
         SELECT count(DISTINCT uid), count(*),
                count(*) FILTER (WHERE sequence <> place OR from_state IS DISTINCT FROM state
                                 OR prev <> coalesce(before, decode(repeat('00', 32), 'hex')))
         FROM chain",
            &org,
        )
        .unwrap();
    let expected = [COUNT.to_string(), (2 * COUNT).to_string(), "0".to_owned()].to_vec();
    assert_eq!(chains, [expected], "chains, records, and records that continue no chain");
    // What is shown is what the ledger ends with.
    let heads = s
        .rows(
            "SELECT t.name, encode(h.hash, 'hex') FROM berth.tenant_containers t
         JOIN berth.ledger_heads h ON (h.cluster_id, h.uid) = (t.cluster_id, t.id)
         WHERE t.namespace = :'ns' AND t.status = 'running' AND t.head = h.hash AND NOT t.deleted",
            &org,
        )
        .unwrap();
    let heads: BTreeMap<String, String> = heads.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let objects = s.admin.json(&["get", "tc"]).unwrap();
    let shown: BTreeMap<String, String> = objects["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (text(&object["metadata"]["name"]), text(&object["status"]["ledger"]["head"]))
        })
        .collect();
    assert_eq!(shown, heads);
    s.verify().unwrap();

    settled(&s);
    let writes = audit::writes_since(mark).unwrap();
    let each = writes.len() as f64 / COUNT as f64;
    println!("{each:.1} writes for each service, Events included");

    let mark = audit::mark().unwrap();
    install::restart().unwrap();
    s.eventually("a pass over each", |_| Ok((scale::passes()? >= COUNT as u64).then_some(()))).unwrap();
    let writes = audit::writes_since(mark).unwrap();
    assert!(writes.is_empty(), "after a restart: {writes:#?}");
    if let Some((now, most)) = scale::memory().unwrap() {
        println!("the operator holds {now} MiB, {most} MiB at most");
    }
}

/// Waits until the last pass has ended.
fn settled(s: &Scenario) {
    s.until_synced().unwrap();
    s.eventually("five seconds without a write", |_| {
        let mark = audit::mark()?;
        thread::sleep(Duration::from_secs(5));
        Ok(audit::writes_since(mark)?.is_empty().then_some(()))
    })
    .unwrap();
}
