//! AccessGrants while the database is away: access ends on time, and what there is to tell arrives afterwards, once.
//!
//! Owns: one life of a grant. Must never: ask Berth whether somebody may do something; that is the API server's word.

use std::time::{Duration, Instant};

use berth_e2e::{
    database::{column, count, hops, is_one_line},
    faults::database::Weather,
    judges::tombstones,
    kubectl::Kubectl,
    objects::condition,
    scenario::uid,
};
use serde_json::{Value, json};

use crate::life::{NAME, Theatre, theatre};

const PATIENCE: Duration = Duration::from_secs(60);
/// How soon after its moment access has to be gone.
const ON_TIME: Duration = Duration::from_secs(5);

/// That many seconds from now, as a manifest writes it.
fn from_now(seconds: u32) -> String {
    let moment = format!("now() AT TIME ZONE 'utc' + interval '{seconds} seconds'");
    column(&format!("SELECT to_char({moment}, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"), &[]).unwrap().remove(0)
}

fn until(t: &Theatre, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let look = |admin: &Kubectl| Ok(Some(admin.json(&["get", "ag", name])?).filter(|object| is_so(object)));
    t.s.admin.wait_for(what, PATIENCE, look).unwrap()
}

fn until_may(t: &Theatre, user: &str, may: bool) {
    let user = t.s.admin.as_user(user);
    user.wait_for("the effect of the grant", PATIENCE, |user| {
        let answer = user.run(&["auth", "can-i", "update", "tenantcontainers.berth.dev"]);
        Ok((answer.is_ok() == may).then_some(()))
    })
    .unwrap();
}

/// Until the database has all of it, and nothing else has to carry it: the end of the chain follows then, too.
fn until_told(t: &Theatre, object: &Value, story: &[&str]) {
    let told = |_: &Kubectl| {
        let waits = tombstones()?.iter().any(|name| name.contains(uid(object)));
        Ok((hops(uid(object))? == story && !waits).then_some(()))
    };
    t.s.admin
        .wait_for("its story is in the database", PATIENCE, told)
        .unwrap_or_else(|error| panic!("{error}: {:?}", hops(uid(object))));
}

#[test]
fn access_ends_on_time_without_the_database_and_its_records_arrive_once() {
    let Some(t) = theatre("grants") else { return };
    let process = t.stand.start(NAME).unwrap();
    let grant = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "AccessGrant",
        "metadata": {"name": "on-call", "namespace": t.s.namespace},
        "spec": {
            "subject": {"kind": "User", "name": "zoe@acme.example", "displayName": "Zoe"},
            "role": "operator", "expiresAt": from_now(3600),
        },
    });
    let object = t.s.admin.feed_json(&["create", "--filename", "-"], &grant.to_string()).unwrap();
    until(&t, "on-call", "the access is there", |object| {
        object["status"]["phase"] == "Active" && condition(object, "LedgerSynced") == "True"
    });
    until_may(&t, "zoe@acme.example", true);
    let active = "SELECT count(*) FROM berth.active_user_roles
                  WHERE username = 'zoe@acme.example' AND full_name = 'Zoe' AND role = 'operator' AND namespace = :'ns'";
    assert_eq!(count(active, &[("ns", &t.s.namespace)]).unwrap(), 1);

    t.stand.database.set(Weather::Refuse);
    let end = from_now(4);
    let sooner = json!({"spec": {"expiresAt": end}}).to_string();
    t.s.admin.run(&["patch", "ag", "on-call", "--type=merge", "--patch", &sooner]).unwrap();
    let patched = Instant::now();
    let ended = until(&t, "on-call", "the end is shown", |object| object["status"]["phase"] == "Expired");
    assert!(patched.elapsed() < Duration::from_secs(4) + ON_TIME, "{:?}", patched.elapsed());
    assert_eq!(condition(&ended, "LedgerSynced"), "False", "{:#}", ended["status"]["conditions"]);
    assert_eq!(ended["status"]["ledger"]["pending"].as_array().unwrap().len(), 2, "changed, and ended");
    until_may(&t, "zoe@acme.example", false);
    t.s.admin.run(&["delete", "ag", "on-call", "--wait=false"]).unwrap();
    t.s.admin.run(&["wait", "--for=delete", "ag/on-call", "--timeout=60s"]).unwrap();
    assert!(tombstones().unwrap().iter().any(|name| name.contains(uid(&object))), "its last records have no home");
    assert_eq!(hops(uid(&object)).unwrap(), ["> Granted"]);

    // Whoever comes after a kill finds all of it.
    process.kill().unwrap();
    t.stand.free_lease().unwrap();
    t.stand.database.fair();
    let _process = t.stand.start(NAME).unwrap();
    until_told(&t, &object, &["> Granted", "> Changed", "> Expired", ">deleted Removed"]);
    assert!(is_one_line(uid(&object)).unwrap());
    t.settled();
    let removed = "SELECT count(*) FROM berth.user_roles WHERE id = :'uid' AND deleted AND access = 'removed'";
    assert_eq!(count(removed, &[("uid", uid(&object))]).unwrap(), 1);
}
