//! Which services a Deployment selects, and whose they are where two do.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use super::world::World;
use crate::{
    api::{Deployment, TenantContainer},
    fleet::select::{Labels, Reach, conflict},
};

fn rollout(name: &str, created: u8, selector: serde_json::Value) -> Arc<Deployment> {
    let mut object = json!({
        "metadata": {
            "name": name, "namespace": "acme", "uid": name, "creationTimestamp": format!("2030-01-01T00:00:{created:02}Z"),
        },
        "spec": {"release": {"image": "engine:2"}},
    });
    for (key, value) in selector.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

fn tenants(count: usize) -> Vec<Arc<TenantContainer>> {
    World::new(count, json!({})).services.iter().map(|service| Arc::new(service.read())).collect()
}

fn namespaces(name: &str) -> Option<Labels> {
    let org = match name {
        "acme" | "acme-2" => "acme",
        "globex" => "globex",
        _ => return None,
    };
    Some(BTreeMap::from([("org".to_owned(), org.to_owned())]))
}

#[test]
fn without_a_selector_of_namespaces_a_rollout_stays_at_home() {
    let here = tenants(1).remove(0);
    let mut there = (*here).clone();
    there.metadata.namespace = Some("acme-2".to_owned());
    let mut elsewhere = there.clone();
    elsewhere.metadata.namespace = Some("globex".to_owned());
    let selects = |spec| {
        let object = rollout("r", 0, spec);
        let reach = Reach::of(&object).unwrap();
        [&*here, &there, &elsewhere].map(|tenant| reach.selects(tenant, namespaces))
    };
    assert_eq!(selects(json!({"selector": {}})), [true, false, false]);
    assert_eq!(selects(json!({"selector": {"matchLabels": {"n": "1"}}})), [false, false, false]);
    let acme = json!({"matchExpressions": [{"key": "org", "operator": "In", "values": ["acme"]}]});
    assert_eq!(selects(json!({"selector": {}, "namespaceSelector": acme})), [true, true, false]);
}

#[test]
fn of_two_that_select_one_service_the_older_has_it_and_one_that_is_refused_stands_in_nobodys_way() {
    let tenants = tenants(3);
    let of = |numbers: &[&str]| json!({"selector": {"matchExpressions": [{"key": "n", "operator": "In", "values": numbers}]}});
    let first = rollout("first", 1, of(&["0"]));
    let second = rollout("second", 2, of(&["0", "1"]));
    let third = rollout("third", 3, of(&["1", "2"]));
    let all = [third.clone(), first.clone(), second.clone()];
    assert_eq!(conflict(&first, &all, &tenants, namespaces), None);
    let refused = conflict(&second, &all, &tenants, namespaces).unwrap();
    assert_eq!((refused.target.as_str(), refused.first.as_str()), ("acme/s000", "acme/first"));
    assert_eq!(conflict(&third, &all, &tenants, namespaces), None, "the second has nothing");
    let all = [second.clone(), third.clone()];
    assert_eq!(conflict(&second, &all, &tenants, namespaces), None, "the first is gone");
    assert_eq!(conflict(&third, &all, &tenants, namespaces).unwrap().first, "acme/second");
}
