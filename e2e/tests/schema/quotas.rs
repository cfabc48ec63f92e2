//! Quotas on a real API server: who set one is stamped, and what is reserved is Berth's to say.

use serde_json::json;

use crate::ground::{delete_quota, ground, release};

const NAME: &str = "schema-quotas";

#[test]
fn who_set_a_quota_is_stamped_and_nobody_but_berth_says_what_is_reserved() {
    let Some(admin) = ground("quotas") else { return };
    let quinn = admin.as_user("quinn");
    let made = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "TenantQuota",
        "metadata": {"name": NAME, "annotations": {"berth.dev/actor": "somebody-else"}},
        "spec": {"tenantOrg": NAME, "limits": {"cpu": 10}}})
    .to_string();
    delete_quota(&admin, NAME);
    let quota = quinn.feed_json(&["create", "--filename", "-"], &made).unwrap();
    let stamp = |quota: &serde_json::Value| {
        let annotation = |name: &str| quota["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned();
        (annotation("berth.dev/actor"), annotation("berth.dev/actor-generation"))
    };
    assert_eq!(stamp(&quota), ("quinn".into(), "1".into()));
    assert_eq!(quota["metadata"]["finalizers"], json!(["berth.dev/ledger"]), "its end is recorded");
    assert_eq!(quota["status"]["ledger"]["head"], "", "for the first compare-and-set to test");
    assert_eq!(quota["status"]["observedGeneration"], -1, "kstatus does not take it for current");
    let lower = r#"{"spec": {"limits": {"cpu": 5}}}"#;
    let lowered = quinn.json(&["patch", "tq", NAME, "--type=merge", "--patch", lower]).unwrap();
    assert_eq!(stamp(&lowered), ("quinn".into(), "2".into()));

    let status = r#"{"status": {"epoch": 5, "reservations": []}}"#;
    let write = ["patch", "tq", NAME, "--subresource=status", "--type=merge", "--patch", status];
    for who in ["quinn", "mallory"] {
        let refused = admin.as_user(who).run(&write).unwrap_err();
        let expected = if who == "quinn" { "cannot patch resource" } else { "status is written by Berth alone" };
        assert!(refused.message().contains(expected), "{who}: {refused}");
    }
    let berth = admin.as_user("system:serviceaccount:berth-system:berth");
    berth.run(&write).unwrap();
    let table = quinn.run(&["get", "tq", NAME]).unwrap();
    for column in ["ORG", "CONTAINERS", "CPU", "MEMORY", "WAITING", "READY", "REASON"] {
        assert!(table.contains(column), "{table}");
    }
    // What Berth writes of its own account changes no limit.
    let raised = berth.run(&["patch", "tq", NAME, "--type=merge", "--patch", r#"{"spec": {"limits": {"cpu": 50}}}"#]);
    let refused = raised.unwrap_err();
    assert!(refused.message().contains("Berth itself must not change the spec of a TenantQuota"), "{refused}");
    quinn.run(&["delete", "tq", NAME, "--wait=false"]).unwrap();
    for who in ["quinn", "mallory"] {
        assert!(release(&admin.as_user(who), "tq", NAME).is_err(), "{who} lets it go");
    }
    delete_quota(&admin, NAME);
}
