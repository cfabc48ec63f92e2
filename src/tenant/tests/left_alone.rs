//! `berth.dev/reconcile: disabled`.

use serde_json::{Value, json};

use super::objects::{OBJECT, SERVICE, World};
use crate::lifecycle::State;

fn reconcile(world: &World, value: Option<&str>) {
    world.server.change(OBJECT, |object| object["metadata"]["annotations"]["berth.dev/reconcile"] = json!(value));
    if value.is_none() {
        world.server.change(OBJECT, |object| {
            object["metadata"]["annotations"].as_object_mut().unwrap().remove("berth.dev/reconcile");
        });
    }
}

#[test]
fn an_object_that_is_to_be_left_alone_is_and_says_so_once() {
    let mut world = World::new();
    world.run();
    reconcile(&world, Some("disabled"));
    let writes = world.server.writes().len();
    world.pass();
    assert_eq!(world.server.writes()[writes..], [format!("PATCH {OBJECT}/status")]);
    for name in ["Ready", "Reconciling", "Stalled"] {
        assert_eq!(world.condition(name).1, "ReconcileDisabled", "{name}");
    }
    assert_eq!((world.condition("Ready").0, world.condition("Reconciling").0), ("Unknown".into(), "False".into()));
    assert_eq!(world.condition("Available").0, "True");
    assert_eq!(world.object()["status"]["phase"], "Running", "what was shown stays");
    // Neither a change of the spec nor one of a child is answered.
    world.edit(|spec| spec["desiredState"] = json!("Stopped"));
    world.server.change(SERVICE, |service| service["spec"]["selector"] = json!({}));
    for _ in 0..3 {
        world.later(600);
        world.pass();
    }
    assert_eq!(world.server.writes().len(), writes + 1);
    assert_eq!(world.object()["status"]["observedGeneration"], 1, "nobody has looked at the new one");
    reconcile(&world, None);
    world.run();
    assert_eq!(world.states()[2..], [State::Paused, State::Stopped]);
    assert_eq!(world.condition("Ready"), ("True".into(), "Stopped".into()));
}

#[test]
fn an_object_that_is_left_alone_from_the_beginning_has_no_children_and_still_its_finalizer() {
    let mut world = World::new();
    world.server.change(OBJECT, |object| object["metadata"]["finalizers"] = json!([]));
    reconcile(&world, Some("disabled"));
    world.run();
    assert_eq!((world.stateful_set(), world.states()), (None, vec![]));
    assert_eq!(world.object()["metadata"]["finalizers"], json!(["berth.dev/ledger"]));
    assert_eq!(world.object()["status"]["phase"], Value::Null);
}

#[test]
fn a_deletion_goes_on_whatever_the_annotation_says() {
    let mut world = World::new();
    world.run();
    reconcile(&world, Some("disabled"));
    world.pass();
    world.delete();
    world.run();
    assert_eq!(world.states()[2..], [State::Paused, State::Stopped, State::Deleted]);
    assert_eq!(world.server.get(OBJECT), None);
}

#[test]
fn another_value_disables_nothing() {
    let mut world = World::new();
    reconcile(&world, Some("enabled"));
    world.run();
    assert_eq!(world.condition("Ready").0, "True");
}
