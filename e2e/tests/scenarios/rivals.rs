//! One live service for each (tenantOrg, user, serviceName).

use berth_e2e::{
    kubectl::Kubectl,
    objects::{Tenant, message, reason},
    scenario::uid,
};

use crate::scenario;

#[test]
fn a_second_service_of_the_same_name_waits_until_the_first_is_gone() {
    let Some(s) = scenario("rivals") else { return };
    let first = s.run(&Tenant::named("first").with("serviceName", "shared")).unwrap();
    let elsewhere = s.neighbour("too").unwrap();
    let second = s.apply_as(&elsewhere, &Tenant::named("second").with("serviceName", "shared")).unwrap();
    let stalled =
        s.until_in(&elsewhere, "second", "stalled", |object| reason(object, "Stalled") == "Duplicate").unwrap();
    let said = message(&stalled, "Stalled");
    assert!(said.contains(&format!("{}/first", s.namespace)), "{said}");
    assert_eq!(stalled["status"]["phase"], serde_json::Value::Null, "it has no history yet");
    assert_eq!(elsewhere.run(&["get", "statefulsets", "--output=name"]).unwrap(), "");
    // A third that goes again leaves nothing behind.
    s.apply_as(&elsewhere, &Tenant::named("third").with("serviceName", "shared")).unwrap();
    elsewhere.run(&["delete", "tc", "third", "--timeout=60s"]).unwrap();

    s.delete("first").unwrap();
    s.until_in(&elsewhere, "second", "running", |object| berth_e2e::scenario::is_ready(object, "Running")).unwrap();
    for object in [&first, &second] {
        assert!(s.is_one_line(uid(object)).unwrap());
    }
    let live = s
        .column(
            "SELECT name FROM berth.tenant_containers WHERE tenant_org_id = :'org' AND NOT deleted",
            &[("org", &s.namespace)],
        )
        .unwrap();
    assert_eq!(live, ["second"]);
    Kubectl::admin().run(&["delete", "namespace", &format!("{}-too", s.namespace), "--timeout=90s"]).unwrap();
}
