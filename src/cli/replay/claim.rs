//! `berth replay pvc/NAME`: the spool on a claim, read by a pod beside the database.
//!
//! Owns: that pod, from its making to its end. Must never: mount a claim that somebody else has open; take an end that was
//! another call's for this one's; delete a pod that still works.

use std::{io::Write, time::Duration};

use futures::AsyncBufReadExt;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, LogParams, PostParams, Preconditions},
};

use super::{
    super::{Failure, Verdict, asking, table},
    pod::{self, Standing},
};

/// The StatefulSets that the chart makes.
const OURS: &str = "app.kubernetes.io/name=berth";
/// How often the pod is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row without an answer before this gives up, and leaves the pod to itself.
const PATIENCE: u32 = 60;

/// Runs `berth replay` where the claim is, and prints what it says.
pub(super) async fn replay(namespace: &str, claim: &str, gone: bool, out: &mut dyn Write) -> Result<Verdict, Failure> {
    let client = Client::try_default().await.map_err(asking("connecting"))?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    if claims.get_opt(claim).await.map_err(asking("the claim"))?.is_none() {
        return Err(Failure::Usage(format!("there is no claim {claim} in {namespace} (--namespace)")));
    }
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let sets = sets.list(&ListParams::default().labels(OURS)).await.map_err(asking("StatefulSets"))?;
    let wanted = pod::replaying(claim, gone, &sets.items).ok_or_else(|| {
        Failure::Usage(format!(
            "{claim} is the spool of no Berth that is installed in {namespace}; if it was uninstalled, install it again: it \
             brings what is there by itself"
        ))
    })?;
    if !pod::has_database(&wanted) {
        return Err(Failure::Usage(format!(
            "the Berth of {claim} has no database: its ledger is that spool, and comes into a database by itself on the day that \
             one is configured"
        )));
    }
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let name = wanted.metadata.name.clone().unwrap_or_default();
    for other in pods.list(&ListParams::default()).await.map_err(asking("pods"))? {
        if other.metadata.name.as_deref() != Some(&name) && pod::has_open(&other, claim) {
            return Err(Failure::Usage(in_use(&other, claim)));
        }
    }
    let uid = begin(&pods, &name, &wanted).await?;
    let verdict = follow(&pods, &name, &uid, out).await?;
    if let Err(error) = delete(&pods, &name, uid).await {
        eprintln!("the pod {name} has ended and could not be deleted: {error}");
    }
    verdict
}

/// Deletes this very pod; one of its name that came after it stays.
async fn delete(pods: &Api<Pod>, name: &str, uid: String) -> Result<(), kube::Error> {
    let this_one = Preconditions { uid: Some(uid), resource_version: None };
    let delete = DeleteParams { preconditions: Some(this_one), ..DeleteParams::background() };
    match pods.delete(name, &delete).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        done => done.map(drop),
    }
}

fn in_use(other: &Pod, claim: &str) -> String {
    let phase = other.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let phase = if other.metadata.deletion_timestamp.is_some() { "being deleted" } else { phase };
    let other = other.metadata.name.as_deref().unwrap_or_default();
    format!(
        "{claim} is in use by the pod {other} ({phase}). A replica that works brings what is there by itself. For one that does \
         not come back: scale its StatefulSet down, and where its node is gone, `kubectl delete pod {other} --force`"
    )
}

/// Makes the pod; answers its uid. One that does the same is followed if it still works; one that has ended was another
/// call's, and makes room.
async fn begin(pods: &Api<Pod>, name: &str, wanted: &Pod) -> Result<String, Failure> {
    for _ in 0..PATIENCE {
        let Some(other) = pods.get_opt(name).await.map_err(asking("its pod"))? else {
            match pods.create(&PostParams::default(), wanted).await {
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                made => return made.map(|made| uid(&made)).map_err(asking("making its pod")),
            }
        };
        if other.metadata.deletion_timestamp.is_none() {
            if !Standing::of(&other).is_over() {
                if !pod::does_the_same(&other, wanted) {
                    return Err(Failure::Usage(format!(
                        "the pod {name} replays that claim, with another image or another word on --gone: wait for its end, \
                         or delete it"
                    )));
                }
                eprintln!("the pod {name} replays that claim already");
                return Ok(uid(&other));
            }
            delete(pods, name, uid(&other)).await.map_err(asking("deleting a pod that has ended"))?;
        }
        tokio::time::sleep(LOOK).await;
    }
    let why = "of another call does not go away; if its node is gone, delete it with --force".to_owned();
    Err(Failure::Pod { pod: name.to_owned(), why })
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// Says what the pod waits for, prints what it says, and answers how it ended. An error where that could not be found out: the
/// pod goes on then.
async fn follow(
    pods: &Api<Pod>,
    name: &str,
    of: &str,
    out: &mut dyn Write,
) -> Result<Result<Verdict, Failure>, Failure> {
    let failure = |why: String| Failure::Pod { pod: name.to_owned(), why };
    let (mut told, mut printed) = (String::new(), 0);
    let (mut missed, mut unread) = (0, 0);
    loop {
        let pod = match pods.get_opt(name).await {
            Ok(Some(pod)) if uid(&pod) == of => pod,
            Ok(_) => {
                let why = "was deleted by somebody else; how it ended is not known: call it again, nothing comes twice";
                return Err(failure(why.to_owned()));
            }
            Err(error) => {
                missed += 1;
                if missed == PATIENCE {
                    return Err(failure(format!("goes on by itself, but cannot be followed: {error}")));
                }
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        missed = 0;
        match Standing::of(&pod) {
            Standing::Waits(why) => {
                if why != told {
                    eprintln!("the pod {name} waits: {}", table::safe(&why));
                    told = why;
                }
            }
            Standing::Runs => drop(print(pods, name, true, &mut printed, out).await?),
            Standing::Ended(code) => {
                if !print(pods, name, false, &mut printed, out).await? {
                    unread += 1;
                    if unread == PATIENCE {
                        return Err(failure(format!(
                            "has ended with exit code {code}, and its log cannot be read; it stays"
                        )));
                    }
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                return Ok(match code {
                    0 => Ok(Verdict::Well),
                    1 => Ok(Verdict::NotSo),
                    code => Err(failure(format!(
                        "ended with exit code {code}, for the reason above; what it had not brought is still there"
                    ))),
                });
            }
            Standing::Refused(why) => return Ok(Err(failure(format!("never began: {why}")))),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Prints the lines of its log that were not printed yet; false where it could not be read to its end. It is read again with
/// the next look then.
async fn print(
    pods: &Api<Pod>,
    name: &str,
    follow: bool,
    printed: &mut usize,
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let Ok(log) = pods.log_stream(name, &LogParams { follow, ..LogParams::default() }).await else { return Ok(false) };
    let mut log = std::pin::pin!(log);
    let (mut line, mut at) = (vec![], 0);
    loop {
        match log.read_until(b'\n', &mut line).await {
            Ok(0) => return Ok(true),
            Ok(_) => at += 1,
            Err(_) => return Ok(false),
        }
        if at > *printed {
            writeln!(out, "{}", table::safe(String::from_utf8_lossy(&line).trim_end()))?;
            out.flush()?;
            *printed = at;
        }
        line.clear();
    }
}
