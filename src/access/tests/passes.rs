use std::time::Duration;

use kube_runtime::watcher::Event;
use serde_json::json;

use super::{
    NOON, UID,
    world::{BINDING, GRANT, NAME, World},
};
use crate::{
    access::{self, Done},
    api::AccessGrant,
};

#[tokio::test]
async fn access_is_given_shown_and_then_left_alone() {
    let mut world = World::new().await;
    let done = world.pass().await.unwrap();
    assert_eq!(done, Done { writes: 2, records: 1, look_again: Duration::from_millis(60_001) });
    assert_eq!(world.server.requests(), [format!("GET {NAME}"), format!("PATCH {NAME}"), "PATCH status".to_owned()]);
    assert_eq!(world.shown(), "Active True Bound");
    let binding = world.server.get(BINDING).unwrap();
    assert_eq!(binding["roleRef"]["name"], "berth-grant-operator");
    assert_eq!(binding["subjects"][0]["name"], "alice@acme.example");
    assert_eq!(binding["metadata"]["ownerReferences"][0]["uid"], UID);
    assert_eq!(world.server.get(GRANT).unwrap()["status"]["bindings"], json!([NAME]));
    assert_eq!(world.pass().await.unwrap().writes, 0, "quiet when nothing happens");
    assert_eq!(world.server.requests(), [""; 0]);
}

#[tokio::test]
async fn access_is_gone_at_its_end_and_shown_to_be_gone_only_then() {
    let mut world = World::new().await;
    world.settle().await;
    world.now_is(NOON);
    world.server.refuse(500, "not now");
    world.pass().await.unwrap_err();
    assert_eq!(world.shown(), "Active True Bound", "nothing is shown that is not so");
    world.server.refuse_nothing();
    world.settle().await;
    assert_eq!(world.server.get(BINDING), None);
    assert_eq!(world.shown(), "Expired True Expired");
    world.server.requests();
    assert_eq!(world.pass().await.unwrap().writes, 0);
    assert_eq!(world.server.requests(), [""; 0]);
}

#[tokio::test]
async fn a_binding_that_no_watch_shows_goes_as_well() {
    let mut world = World::new().await;
    world.settle().await;
    // Somebody took the label by which Berth watches: it is not in the cache.
    let binding = world.server.get(BINDING).unwrap();
    world.now_is(NOON);
    world.server.remove(BINDING);
    world.watch();
    world.server.put(BINDING, binding);
    let object: AccessGrant = serde_json::from_value(world.server.get(GRANT).unwrap()).unwrap();
    access::pass(&world.context, &object).await.unwrap();
    assert_eq!(world.server.get(BINDING), None);
    assert_eq!(world.shown(), "Expired True Expired");
}

#[tokio::test]
async fn a_longer_term_opens_it_again_and_a_shorter_one_ends_it() {
    let mut world = World::new().await;
    let change = |world: &World, expires_at: &str, generation: i64| {
        let mut object = world.server.get(GRANT).unwrap();
        object["spec"]["expiresAt"] = json!(expires_at);
        object["metadata"]["generation"] = json!(generation);
        world.server.put(GRANT, object);
    };
    world.now_is(NOON);
    world.settle().await;
    assert_eq!(world.shown(), "Expired True Expired");
    change(&world, "2030-01-01T13:00:00Z", 2);
    world.settle().await;
    assert_eq!(world.shown(), "Active True Bound");
    change(&world, "2030-01-01T11:00:00Z", 3);
    world.settle().await;
    assert_eq!((world.shown(), world.server.bindings()), ("Expired True Expired".to_owned(), vec![]));
    assert_eq!(world.server.get(GRANT).unwrap()["status"]["observedGeneration"], 3);
}

#[tokio::test]
async fn a_namesake_is_left_alone_and_named() {
    let mut world = World::new().await;
    let theirs = json!({
        "metadata": {"name": NAME, "namespace": "acme", "uid": "theirs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    });
    world.server.put(BINDING, theirs);
    let kept = world.server.get(BINDING);
    world.settle().await;
    assert_eq!(world.shown(), "Pending False ForeignObject");
    world.now_is(NOON);
    world.settle().await;
    assert_eq!(world.shown(), "Expired True Expired");
    assert_eq!(world.server.get(BINDING), kept, "it was touched");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_said_and_tried_again_soon() {
    let mut world = World::new().await;
    world.server.refuse(403, "berth may not bind berth-grant-operator");
    let done = world.pass().await.unwrap();
    assert_eq!(done.look_again, Duration::from_secs(10));
    assert_eq!(world.shown(), "Pending False BindingRefused");
    world.server.refuse_nothing();
    world.settle().await;
    assert_eq!(world.shown(), "Active True Bound");
}

#[tokio::test]
async fn a_finalizer_that_holds_a_binding_holds_nobodys_access() {
    let mut world = World::new().await;
    world.settle().await;
    let mut binding = world.server.get(BINDING).unwrap();
    binding["metadata"]["finalizers"] = json!(["example.com/mine"]);
    world.server.put(BINDING, binding);
    world.now_is(NOON);
    world.pass().await.unwrap();
    assert_eq!(world.shown(), "Overdue False BindingsLeft");
    world.settle().await;
    assert_eq!(world.server.get(BINDING).unwrap()["subjects"], json!([]));
    assert_eq!(world.shown(), "Expired True Expired");
}

#[tokio::test]
async fn a_binding_that_was_cut_off_goes_with_its_grant() {
    let mut world = World::new().await;
    world.settle().await;
    let mut binding = world.server.get(BINDING).unwrap();
    binding["metadata"]["ownerReferences"] = json!([]);
    world.server.put(BINDING, binding);
    world.watch();
    assert_eq!(access::sweep(&world.context).await.unwrap(), 0, "its grant is there");
    for event in [Event::Init, Event::InitDone] {
        world.grants.apply_watcher_event(&event);
        world.context.grants.heard(&event);
    }
    assert_eq!(access::sweep(&world.context).await.unwrap(), 1);
    assert_eq!(world.server.get(BINDING), None);
}
