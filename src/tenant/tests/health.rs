//! What of a pod's report counts.

use serde_json::json;

use super::objects::{manifest, validated};
use crate::{
    ledger::Micros,
    tenant::{health::awaits_files, view::PodView},
};

#[test]
fn the_kubelet_is_asked_about_replicas_with_files_that_get_no_sandbox_and_about_no_other() {
    let tenant = |volume: serde_json::Value| {
        let mut manifest = manifest();
        manifest["spec"]["volumes"] = json!([volume]);
        validated(&manifest).unwrap()
    };
    let files = tenant(json!({"name": "f", "mountPath": "/f", "secret": {"name": "s"}}));
    let scratch = tenant(json!({"name": "f", "mountPath": "/f", "emptyDir": {}}));
    let pod = |sandbox: &str, waiting: &str| -> PodView {
        serde_json::from_value(json!({
            "metadata": {"name": "search-0"},
            "status": {
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"},
                    {"type": "PodReadyToStartContainers", "status": sandbox},
                ],
                "containerStatuses": [{"state": {"waiting": {"reason": waiting}}}],
            },
        }))
        .unwrap()
    };
    let stuck = pod("False", "ContainerCreating");
    let due = "2026-01-01T00:00:13Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
    assert_eq!(awaits_files(&files, &stuck), Some(Micros(due)));
    assert_eq!(awaits_files(&scratch, &stuck), None);
    assert_eq!(awaits_files(&files, &pod("True", "ContainerCreating")), None, "it pulls its image");
    assert_eq!(awaits_files(&files, &pod("False", "CrashLoopBackOff")), None);
}
