//! `berth replay pvc/NAME`: the spool on a claim, read by a pod beside the database.
//!
//! Owns: that pod, from its making to its end. Must never: mount a claim that somebody else has open; run another image, or
//! talk to another database, than the operator whose claim it is.

use std::{io::Write, pin::pin};

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{
        ContainerState, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume, VolumeMount,
    },
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, LogParams, ObjectMeta, PostParams},
};
use kube_runtime::watcher::watch_object;

use super::{Failure, Verdict, table};

/// The StatefulSets that the chart makes.
const OURS: &str = "app.kubernetes.io/name=berth";

fn failed(doing: &'static str) -> impl Fn(kube::Error) -> Failure {
    move |error| Failure::Cluster { doing, why: error.to_string() }
}

/// Runs `berth replay` where the claim is, and prints what it says.
pub(super) async fn replay(namespace: &str, claim: &str, gone: bool, out: &mut dyn Write) -> Result<Verdict, Failure> {
    let client = Client::try_default().await.map_err(failed("connecting"))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        if claims.get_opt(claim).await.map_err(failed("the claim"))?.is_none() {
            return Err(Failure::Usage(format!("there is no claim {claim} in {namespace} (--namespace)")));
        }
        let sets: Api<StatefulSet> = Api::namespaced(client, namespace);
        let sets = sets.list(&ListParams::default().labels(OURS)).await.map_err(failed("StatefulSets"))?;
        pod(claim, gone, &sets.items).ok_or_else(|| {
            Failure::Usage(format!(
                "{claim} is the spool of no Berth that is installed in {namespace}; if it was uninstalled, install it again: \
                 it brings what is there by itself"
            ))
        })?
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    for other in pods.list(&ListParams::default()).await.map_err(failed("pods"))? {
        let user = other.metadata.name.clone().unwrap_or_default();
        if user != name && has_open(&other, claim) {
            return Err(Failure::Usage(format!(
                "{claim} is in use by the pod {user}, which brings what is there by itself; if that replica will not come back, \
                 scale its StatefulSet down first"
            )));
        }
    }
    match pods.create(&PostParams::default(), &pod).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let other = pods.get(&name).await.map_err(failed("its pod"))?;
            if arguments(&other) != arguments(&pod) {
                return Err(Failure::Usage(format!(
                    "the pod {name} replays that claim already, and was not told the same about --gone: delete it first"
                )));
            }
            eprintln!("the pod {name} replays that claim already");
        }
        Err(error) => return Err(failed("making its pod")(error)),
    }
    let verdict = follow(&pods, &name, out).await;
    pods.delete(&name, &DeleteParams::background()).await.map_err(failed("deleting its pod"))?;
    verdict
}

/// Says what the pod waits for, prints what it says, and answers how it ended.
async fn follow(pods: &Api<Pod>, name: &str, out: &mut dyn Write) -> Result<Verdict, Failure> {
    let lost = |error: kube_runtime::watcher::Error| Failure::Cluster { doing: "its pod", why: error.to_string() };
    let vanished = || Failure::Cluster { doing: "its pod", why: format!("the pod {name} was deleted") };
    let mut events = pin!(watch_object(pods.clone(), name));
    let (mut told, mut read) = (String::new(), false);
    while let Some(pod) = events.try_next().await.map_err(lost)? {
        let pod = pod.ok_or_else(vanished)?;
        match standing(&pod) {
            Standing::Waiting(why) => {
                if why != told {
                    eprintln!("the pod {name} waits: {}", table::safe(&why));
                    told = why;
                }
            }
            Standing::Runs | Standing::Ended(_) if !read => {
                let log = LogParams { follow: true, ..LogParams::default() };
                let log = pods.log_stream(name, &log).await.map_err(failed("the log of its pod"))?;
                let mut lines = log.lines();
                while let Some(line) = lines.try_next().await? {
                    writeln!(out, "{}", table::safe(&line))?;
                    out.flush()?;
                }
                read = true;
                if let Standing::Ended(code) = standing(&pod) {
                    return verdict(code);
                }
            }
            Standing::Runs => {}
            Standing::Ended(code) => return verdict(code),
        }
    }
    Err(vanished())
}

fn verdict(code: i32) -> Result<Verdict, Failure> {
    match code {
        0 => Ok(Verdict::Well),
        1 => Ok(Verdict::NotSo),
        code => {
            Err(Failure::Cluster { doing: "the replay", why: format!("it ended with exit code {code}, as said above") })
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Waiting(String),
    Runs,
    Ended(i32),
}

fn standing(pod: &Pod) -> Standing {
    let status = pod.status.as_ref();
    let container = status.and_then(|status| status.container_statuses.as_ref()?.first()?.state.as_ref());
    match container {
        Some(ContainerState { terminated: Some(ended), .. }) => return Standing::Ended(ended.exit_code),
        Some(ContainerState { running: Some(_), .. }) => return Standing::Runs,
        _ => {}
    }
    let waiting = container.and_then(|state| state.waiting.as_ref());
    let why = waiting.map(|waiting| [waiting.reason.as_deref(), waiting.message.as_deref()]).or_else(|| {
        let conditions = status?.conditions.as_ref()?;
        let unmet = conditions.iter().find(|condition| condition.status == "False")?;
        Some([unmet.reason.as_deref(), unmet.message.as_deref()])
    });
    let words: Vec<&str> = why.into_iter().flatten().flatten().collect();
    Standing::Waiting(if words.is_empty() { "for a node".to_owned() } else { words.join(": ") })
}

/// Whether a pod that has not ended mounts the claim.
fn has_open(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let mounts = |volume: &Volume| volume.persistent_volume_claim.as_ref().is_some_and(|it| it.claim_name == claim);
    !matches!(phase, Some("Succeeded" | "Failed")) && volumes.is_some_and(|volumes| volumes.iter().any(mounts))
}

fn arguments(pod: &Pod) -> Option<&Vec<String>> {
    pod.spec.as_ref()?.containers.first()?.args.as_ref()
}

/// The pod that replays the claim: the operator's own, but that it does nothing else. None where no set has this claim.
fn pod(claim: &str, gone: bool, sets: &[StatefulSet]) -> Option<Pod> {
    sets.iter().find_map(|set| {
        let spec = &set.spec;
        let volume = spec.volume_claim_templates.iter().flatten().find_map(|template| {
            let volume = template.metadata.name.as_deref()?;
            let ordinal = claim.strip_prefix(&format!("{volume}-{}-", set.metadata.name.as_deref()?))?;
            ordinal.bytes().all(|byte| byte.is_ascii_digit()).then_some(volume)
        })?;
        let template = spec.template.spec.clone()?;
        Some(Pod {
            metadata: ObjectMeta {
                name: Some(format!("berth-replay-{claim}")),
                // Not the labels of its replicas, which a Service selects.
                labels: Some([("app.kubernetes.io/name".to_owned(), "berth-replay".to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(replaying(template, volume, claim, gone)?),
            status: None,
        })
    })
}

fn replaying(mut spec: PodSpec, volume: &str, claim: &str, gone: bool) -> Option<PodSpec> {
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
        let pod = to_value(pod("spool-berth-12", true, &[set()]).unwrap()).unwrap();
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
        for claim in ["data-berth-0", "spool-berth-x", "spool-other-0", "spool-berth"] {
            assert!(pod(claim, false, &[set()]).is_none(), "{claim}");
        }
    }

    #[test]
    fn what_a_pod_waits_for_is_said() {
        let of = |status: Value| standing(&from_value(json!({"metadata": {}, "status": status})).unwrap());
        let container = |state: Value| {
            of(json!({"containerStatuses": [{
            "name": "berth", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}))
        };
        assert_eq!(of(json!({})), Standing::Waiting("for a node".to_owned()));
        let unschedulable = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}]});
        assert_eq!(of(unschedulable), Standing::Waiting("Unschedulable: no node".to_owned()));
        assert_eq!(
            container(json!({"waiting": {"reason": "ContainerCreating"}})),
            Standing::Waiting("ContainerCreating".to_owned())
        );
        assert_eq!(container(json!({"running": {}})), Standing::Runs);
        assert_eq!(container(json!({"terminated": {"exitCode": 2}})), Standing::Ended(2));
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
