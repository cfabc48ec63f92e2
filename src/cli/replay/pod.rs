//! The pod that replays a claim: what it is made of, and how it stands.
//!
//! Must never: ask a cluster; run another image, or talk to another database, than the operator whose claim it is.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ContainerState, PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume, VolumeMount},
};
use kube::api::ObjectMeta;

/// How a pod stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not begun; for what it waits.
    Waits(String),
    /// Its container runs.
    Runs,
    /// Its container has ended with a code.
    Ended(i32),
    /// It has ended without having begun; why.
    Refused(String),
}

impl Standing {
    pub(super) fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let container = status.and_then(|status| status.container_statuses.as_ref()?.first()?.state.as_ref());
        match container {
            Some(ContainerState { terminated: Some(ended), .. }) => return Self::Ended(ended.exit_code),
            Some(ContainerState { running: Some(_), .. }) => return Self::Runs,
            _ => {}
        }
        let words = |words: [Option<&String>; 2]| words.into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
        if let Some(status) = status.filter(|status| status.phase.as_deref() == Some("Failed")) {
            return Self::Refused(words([status.reason.as_ref(), status.message.as_ref()]));
        }
        let waiting = container.and_then(|state| state.waiting.as_ref());
        let why = waiting.map(|waiting| words([waiting.reason.as_ref(), waiting.message.as_ref()])).or_else(|| {
            let conditions = status?.conditions.as_ref()?;
            let unmet = conditions.iter().find(|condition| condition.status == "False")?;
            Some(words([unmet.reason.as_ref(), unmet.message.as_ref()]))
        });
        Self::Waits(why.filter(|why| !why.is_empty()).unwrap_or_else(|| "for a node".to_owned()))
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Refused(_))
    }
}

/// Whether a pod that has not ended mounts the claim.
pub(super) fn has_open(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let mounts = |volume: &Volume| volume.persistent_volume_claim.as_ref().is_some_and(|it| it.claim_name == claim);
    !matches!(phase, Some("Succeeded" | "Failed")) && volumes.is_some_and(|volumes| volumes.iter().any(mounts))
}

/// Whether it knows of a database: without one there is nowhere to bring a spool.
pub(super) fn has_database(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut names = containers.flat_map(|container| container.env.iter().flatten()).map(|one| one.name.as_str());
    names.any(|name| matches!(name, "DATABASE_URL" | "DATABASE_URL_FILE"))
}

/// Whether two pods do the same: the image, and what it is told.
pub(super) fn does_the_same(one: &Pod, other: &Pod) -> bool {
    let container = |pod: &Pod| {
        let container = pod.spec.as_ref()?.containers.first()?;
        Some((container.image.clone(), container.args.clone()))
    };
    container(one) == container(other)
}

/// The pod that replays the claim: the operator's own, but that it does nothing else. None where no set has this claim.
pub(super) fn replaying(claim: &str, gone: bool, sets: &[StatefulSet]) -> Option<Pod> {
    sets.iter().find_map(|set| {
        let volume = set.spec.volume_claim_templates.iter().flatten().find_map(|template| {
            let volume = template.metadata.name.as_deref()?;
            let ordinal = claim.strip_prefix(&format!("{volume}-{}-", set.metadata.name.as_deref()?))?;
            (!ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit())).then_some(volume)
        })?;
        Some(Pod {
            metadata: ObjectMeta {
                name: Some(format!("berth-replay-{claim}")),
                // Not the labels of its replicas, which a Service selects.
                labels: Some([("app.kubernetes.io/name".to_owned(), "berth-replay".to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(spec(set.spec.template.spec.clone()?, volume, claim, gone)?),
            status: None,
        })
    })
}

fn spec(mut spec: PodSpec, volume: &str, claim: &str, gone: bool) -> Option<PodSpec> {
    let mut container = spec.containers.into_iter().next()?;
    let is_spool = |mount: &&VolumeMount| mount.name == volume;
    let dir = container.volume_mounts.iter().flatten().find(is_spool)?.mount_path.clone();
    let mut args = vec!["replay".to_owned(), dir];
    args.extend(gone.then(|| "--gone".to_owned()));
    container.args = Some(args);
    container.ports = None;
    (container.startup_probe, container.liveness_probe, container.readiness_probe) = (None, None, None);
    spec.containers = vec![container];
    spec.restart_policy = Some("Never".to_owned());
    // It needs nothing of the cluster.
    (spec.service_account_name, spec.service_account) = (None, None);
    spec.automount_service_account_token = Some(false);
    spec.volumes.get_or_insert_default().push(Volume {
        name: volume.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    });
    Some(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    fn set() -> StatefulSet {
        from_value(json!({
            "metadata": {"name": "berth"},
            "spec": {
                "serviceName": "berth", "selector": {},
                "template": {"spec": {
                    "serviceAccountName": "berth", "automountServiceAccountToken": true, "securityContext": {"runAsUser": 65532},
                    "containers": [{
                        "name": "berth", "image": "berth:1", "args": ["run"], "ports": [{"containerPort": 8080}],
                        "livenessProbe": {"periodSeconds": 10},
                        "env": [{"name": "DATABASE_URL_FILE", "value": "/etc/berth/database/url"}],
                        "volumeMounts": [{"name": "spool", "mountPath": "/var/lib/berth/spool"}],
                    }],
                    "volumes": [{"name": "database", "secret": {"secretName": "ledger"}}],
                }},
                "volumeClaimTemplates": [{"metadata": {"name": "spool"}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn its_pod_is_the_operators_but_does_nothing_else() {
        let pod = replaying("spool-berth-12", true, &[set()]).unwrap();
        assert!(has_database(&pod) && !has_database(&Pod::default()));
        let pod = to_value(pod).unwrap();
        let spec = &pod["spec"];
        assert_eq!(spec["containers"][0]["args"], json!(["replay", "/var/lib/berth/spool", "--gone"]));
        assert_eq!(spec["containers"][0]["image"], "berth:1");
        assert_eq!(spec["containers"][0]["env"][0]["name"], "DATABASE_URL_FILE");
        assert_eq!(spec["securityContext"]["runAsUser"], 65532);
        assert_eq!(
            spec["volumes"][1],
            json!({"name": "spool", "persistentVolumeClaim": {"claimName": "spool-berth-12"}})
        );
        assert_eq!((&spec["restartPolicy"], &spec["automountServiceAccountToken"]), (&json!("Never"), &json!(false)));
        for absent in
            [&spec["serviceAccountName"], &spec["containers"][0]["ports"], &spec["containers"][0]["livenessProbe"]]
        {
            assert_eq!(absent, &Value::Null);
        }
    }

    #[test]
    fn a_claim_of_something_else_is_nobodys_spool() {
        for claim in ["data-berth-0", "spool-berth-x", "spool-berth-", "spool-other-0", "spool-berth"] {
            assert!(replaying(claim, false, &[set()]).is_none(), "{claim}");
        }
    }

    #[test]
    fn what_a_pod_waits_for_is_said() {
        let of = |status: Value| Standing::of(&from_value(json!({"metadata": {}, "status": status})).unwrap());
        let container = |state: Value| {
            of(json!({"containerStatuses": [{
            "name": "berth", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}))
        };
        assert_eq!(of(json!({})), Standing::Waits("for a node".to_owned()));
        let unschedulable = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}]});
        assert_eq!(of(unschedulable), Standing::Waits("Unschedulable: no node".to_owned()));
        assert_eq!(
            container(json!({"waiting": {"reason": "ContainerCreating"}})),
            Standing::Waits("ContainerCreating".to_owned())
        );
        assert_eq!(container(json!({"running": {}})), Standing::Runs);
        assert_eq!(container(json!({"terminated": {"exitCode": 2}})), Standing::Ended(2));
        // The kubelet would not have it, or it was evicted before it began.
        let evicted = of(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        assert_eq!(evicted, Standing::Refused("Evicted: low on memory".to_owned()));
    }

    #[test]
    fn who_has_ended_has_nothing_open() {
        let of = |phase: &str| {
            from_value::<Pod>(json!({"metadata": {}, "status": {"phase": phase}, "spec": {"containers": [],
            "volumes": [{"name": "spool", "persistentVolumeClaim": {"claimName": "spool-berth-0"}}]}}))
            .unwrap()
        };
        assert!(has_open(&of("Running"), "spool-berth-0") && has_open(&of("Pending"), "spool-berth-0"));
        assert!(!has_open(&of("Running"), "spool-berth-1") && !has_open(&of("Succeeded"), "spool-berth-0"));
    }
}
