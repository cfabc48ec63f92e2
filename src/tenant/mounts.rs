//! Which Secret or ConfigMap a replica waits for to be mounted. No field of a pod tells: the kubelet says so in an Event
//! only. So Events are asked for, of replicas that have had a node for a while and still no sandbox; of no other.
//!
//! Owns: that question. Must never: read a Secret or a ConfigMap; decide what follows; fail a pass.

use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, api::ListParams};
use tracing::debug;

use super::{health, observe::Observed, validate::Tenant, view::PodView};
use crate::ledger::Micros;

/// How many Events of one pod are read at most: the kubelet counts repetitions instead of writing new ones.
const MOST: u32 = 50;

/// Enters what the kubelet says into `observed`.
pub async fn ask(client: &Client, tenant: &Tenant, observed: &mut Observed, now: Micros) {
    let is_due = |pod: &PodView| health::awaits_files(tenant, pod).is_some_and(|due| due <= now);
    let due: Vec<(i32, String)> = observed
        .pods
        .iter()
        .filter(|(_, pod)| is_due(pod))
        .filter_map(|(ordinal, pod)| Some((*ordinal, pod.metadata.uid.clone()?)))
        .collect();
    for (ordinal, pod) in due {
        let events: Api<Event> = Api::namespaced(client.clone(), &tenant.target.namespace);
        let fields = format!("involvedObject.uid={pod},reason=FailedMount");
        match events.list(&ListParams::default().fields(&fields).limit(MOST)).await {
            Ok(list) => {
                let said = list.items.iter().filter_map(|event| event.message.as_deref());
                if let Some(missing) = said.filter_map(missing).next_back() {
                    observed.missing_files.insert(ordinal, missing.to_owned());
                }
            }
            // Without the right to read Events the pod shows as starting, which is true as well.
            Err(error) => debug!(%error, uid = %tenant.target.uid, "the kubelet's Events could not be read"),
        }
    }
}

/// What is missing, of a message such as `MountVolume.SetUp failed for volume "a" : secret "b" not found`. Everything
/// else that keeps a volume from being mounted may pass by itself.
fn missing(message: &str) -> Option<&str> {
    let (_, cause) = message.split_once(" : ")?;
    let names_one = cause.starts_with("secret \"") || cause.starts_with("configmap \"");
    (names_one && cause.ends_with(" not found")).then_some(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_exist_counts_as_missing() {
        for (message, expected) in [
            (
                r#"MountVolume.SetUp failed for volume "files" : secret "keys" not found"#,
                Some(r#"secret "keys" not found"#),
            ),
            (
                r#"MountVolume.SetUp failed for volume "files" : configmap "a" not found"#,
                Some(r#"configmap "a" not found"#),
            ),
            (r#"MountVolume.SetUp failed for volume "files" : failed to sync secret cache: timed out"#, None),
            ("Unable to attach or mount volumes: unmounted volumes=[data]: timed out waiting for the condition", None),
            (r#"MountVolume.SetUp failed for volume "x" : object "acme"/"keys" not registered"#, None),
        ] {
            assert_eq!(missing(message), expected);
        }
    }
}
