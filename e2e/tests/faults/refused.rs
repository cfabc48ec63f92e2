//! Row 2: the API server refuses writes, or the connection breaks, once and ten times in a row.
//!
//! Owns: that each answer meets writes of five kinds, each of a service of its own, so that all wait at the same time.
//! Must never: let a refusal of one service's write pass for slowness of another's.

use std::time::{Duration, Instant};

use berth_e2e::{
    faults::api::{Act, Rule},
    kubectl::Kubectl,
    objects::Tenant,
    scenario::is_ready,
};
use serde_json::{Value, json};

use crate::life::{NAME, Theatre, theatre, timed};

const ANSWERS: [(&str, Act); 5] = [
    ("conflict", Act::Answer { code: 409, retry_after: None }),
    ("later", Act::Answer { code: 429, retry_after: Some(1) }),
    ("error", Act::Answer { code: 500, retry_after: None }),
    ("timeout", Act::Answer { code: 504, retry_after: None }),
    ("reset", Act::CutBefore),
];
const WRITES: [(&str, &str, &str); 5] = [
    ("status", "PATCH", "tenantcontainers/{}/status?"),
    ("finalizer", "PATCH", "tenantcontainers/{}?"),
    ("apply", "PATCH", "/statefulsets/{}?"),
    ("service", "PATCH", "/services/{}?"),
    ("delete", "DELETE", "/statefulsets/{}?"),
];
/// Ten refusals in a row make the operator wait for up to a minute between the last of them.
const PATIENCE: Duration = Duration::from_secs(420);

/// Until all services of the namespace are so.
fn until_all(t: &Theatre, what: &str, count: usize, condition: impl Fn(&Value) -> bool) {
    let all = |admin: &Kubectl| {
        let list = admin.json(&["get", "tc"])?;
        let list = list["items"].as_array().into_iter().flatten();
        Ok((list.filter(|object| condition(object)).count() == count).then_some(()))
    };
    t.s.admin.wait_for(what, PATIENCE, all).unwrap();
}

#[test]
fn a_write_that_is_refused_once_or_ten_times_is_made_all_the_same() {
    let Some(t) = theatre("refused") else { return };
    let _process = t.stand.start(NAME).unwrap();
    let mut names = Vec::new();
    for (answer, act) in ANSWERS {
        for (write, method, path) in WRITES {
            for times in [1, 10] {
                let name = format!("{answer}-{write}-{times}");
                t.stand.api.rule(Rule::once(method, &path.replace("{}", &name), act).times(times));
                names.push(name);
            }
        }
    }
    let services: Vec<Value> =
        names.iter().map(|name| Tenant::named(name).simulated().with("drainSeconds", 0).of(&t.s.namespace)).collect();
    let began = Instant::now();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": services}).to_string();
    let made = t.s.user.feed_json(&["apply", "--filename", "-"], &list).unwrap();
    // Whoever comes now, beside fifty whose writes are refused, is served as ever.
    let (neighbour, took) = timed(|| t.live("neighbour"));
    t.until_told(&neighbour);
    t.is_the_story(&neighbour);
    until_all(&t, "all Running", names.len(), |object| is_ready(object, "Running"));
    let stop = json!({"spec": {"desiredState": "Stopped"}}).to_string();
    let mut arguments = vec!["patch", "tc", "--type=merge", "--patch", &stop];
    arguments.extend(names.iter().map(String::as_str));
    t.s.user.run(&arguments).unwrap();
    until_all(&t, "all Stopped", names.len(), |object| is_ready(object, "Stopped"));
    t.s.user.run(&["delete", "tc", "--all", "--wait=false"]).unwrap();
    until_all(&t, "all gone", 0, |_| true);
    eprintln!(
        "{} services lived through it in {} s, a neighbour in {} ms",
        names.len(),
        began.elapsed().as_secs(),
        took.as_millis()
    );
    for object in made["items"].as_array().unwrap() {
        t.until_told(object);
        t.shows_the_story(object);
    }
    assert_eq!(t.stand.api.waiting(), 0, "each refusal came true");
    let struck = t.stand.api.counts().faults;
    t.settled();
    let lives = u64::try_from(names.len()).unwrap();
    t.report(2, lives, struck, took).print().unwrap();
}
