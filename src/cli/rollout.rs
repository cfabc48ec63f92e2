//! `berth rollout`: how far a rollout is, and the approval of a wave. (To pause one or to roll it back is one field:
//! `kubectl patch`.)

use std::{
    io::{self, IsTerminal, Write},
    pin::pin,
};

use futures::TryStreamExt;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use kube_runtime::watcher::watch_object;
use serde_json::json;

use super::{Failure, Verdict, asking, table};
use crate::api::{
    Deployment,
    deployment::{DeploymentStatus, WaveStatus},
};

/// Cells of the bar.
const WIDTH: usize = 30;
/// Field manager of an approval.
const MANAGER: &str = "berth-cli";

/// Arguments of `berth rollout`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Show how far a rollout is. Exit code 0 where it is complete or on its way, 1 where it stands and will not go on by itself.
    Status {
        #[command(flatten)]
        which: Which,
        /// Go on until it is complete, or stands.
        #[arg(short, long)]
        watch: bool,
    },
    /// Approve the wave that waits for it. You need the right to update deployments/approve.
    Approve {
        #[command(flatten)]
        which: Which,
        /// The wave; left out, the one that waits.
        #[arg(long)]
        wave: Option<String>,
    },
}

#[derive(clap::Args)]
struct Which {
    /// Name of the Deployment (of berth.dev).
    name: String,
    /// Its namespace; left out, that of the kubeconfig.
    #[arg(short, long)]
    namespace: Option<String>,
}

impl Which {
    async fn api(&self) -> Result<Api<Deployment>, Failure> {
        let client = Client::try_default().await.map_err(asking("connecting"))?;
        Ok(match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::default_namespaced(client),
        })
    }
}

pub(super) async fn run(args: &Args, out: &mut impl Write) -> Result<Verdict, Failure> {
    match &args.verb {
        Verb::Status { which, watch: false } => {
            let object = which.api().await?.get(&which.name).await.map_err(asking("the Deployment"))?;
            write!(out, "{}", show(&object))?;
            Ok(if stands(&object) { Verdict::NotSo } else { Verdict::Well })
        }
        Verb::Status { which, watch: true } => follow(&which.api().await?, &which.name, out).await,
        Verb::Approve { which, wave } => approve(&which.api().await?, &which.name, wave.as_deref(), out).await,
    }
}

/// One line that is drawn again and again on a terminal; elsewhere a line for each change.
async fn follow(api: &Api<Deployment>, name: &str, out: &mut impl Write) -> Result<Verdict, Failure> {
    let redraws = io::stdout().is_terminal();
    let mut events = pin!(watch_object(api.clone(), name));
    let mut last = String::new();
    let lost =
        |error: kube_runtime::watcher::Error| Failure::Cluster { doing: "the Deployment", why: error.to_string() };
    while let Some(object) = events.try_next().await.map_err(lost)? {
        let Some(object) = object else {
            return Err(Failure::Usage(format!("there is no Deployment {name} of berth.dev")));
        };
        let line = line(&object);
        if line != last {
            // The rest of a longer line before it is wiped.
            if redraws {
                write!(out, "\r{line}\u{1b}[K")?
            } else {
                writeln!(out, "{line}")?
            };
            out.flush()?;
            last = line;
        }
        if is_over(&object) {
            if redraws {
                writeln!(out)?;
            }
            write!(out, "{}", show(&object))?;
            return Ok(if stands(&object) { Verdict::NotSo } else { Verdict::Well });
        }
    }
    Err(Failure::Cluster { doing: "the Deployment", why: "the watch ended".to_owned() })
}

async fn approve(
    api: &Api<Deployment>,
    name: &str,
    wave: Option<&str>,
    out: &mut impl Write,
) -> Result<Verdict, Failure> {
    let object = api.get(name).await.map_err(asking("the Deployment"))?;
    let status = status(&object);
    let Some(revision) = status.revision.as_deref().filter(|_| is_current(&object)) else {
        return Err(Failure::Usage(format!("Berth has not looked at the newest spec of {name} yet; try again")));
    };
    let waits = status.waves.iter().find(|wave| wave.phase == "AwaitingApproval").map(|wave| wave.name.as_str());
    let Some(wave) = wave.or(waits) else {
        writeln!(out, "no wave of {name} waits for an approval")?;
        return Ok(Verdict::NotSo);
    };
    if !status.waves.iter().any(|known| known.name == wave) {
        return Err(Failure::Usage(format!("{name} has no wave {wave}")));
    }
    let approval = json!({"wave": wave, "revision": revision});
    let mut operations =
        vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": object.metadata.resource_version})];
    operations.push(if object.spec.approvals.is_empty() {
        json!({"op": "add", "path": "/spec/approvals", "value": [approval]})
    } else {
        json!({"op": "add", "path": "/spec/approvals/-", "value": approval})
    });
    let patch = Patch::<()>::Json(serde_json::from_value(operations.into())?);
    let how = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(name, &how, &patch).await.map_err(asking("the approval"))?;
    writeln!(out, "wave {} of {} is approved for revision {revision}", table::safe(wave), table::safe(name))?;
    Ok(Verdict::Well)
}

fn status(object: &Deployment) -> DeploymentStatus {
    object.status.clone().unwrap_or_default()
}

fn is_current(object: &Deployment) -> bool {
    status(object).observed_generation == object.meta().generation.unwrap_or_default()
}

fn is_true(object: &Deployment, name: &str) -> bool {
    status(object).conditions.iter().any(|condition| condition.type_ == name && condition.status == "True")
}

/// It will not go on by itself.
fn stands(object: &Deployment) -> bool {
    is_current(object) && is_true(object, "Stalled")
}

fn is_over(object: &Deployment) -> bool {
    stands(object) || is_current(object) && is_true(object, "Ready")
}

/// `████░░░░  12/40  wave 2 of 4 (few)  Progressing`.
fn line(object: &Deployment) -> String {
    let status = status(object);
    let DeploymentStatus { targets, done, rolled_back, failed, .. } = status;
    // A rollback draws how many have back what they had.
    let far = if rolled_back > 0 { rolled_back } else { done };
    let (far, all) = (usize::try_from(far).unwrap_or(0), usize::try_from(targets).unwrap_or(0));
    let filled = (far * WIDTH).checked_div(all).unwrap_or(0).min(WIDTH);
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(WIDTH - filled));
    let wave = status.wave.as_deref().unwrap_or("? of ?");
    let phase = if is_current(object) { status.phase.as_deref().unwrap_or("Unknown") } else { "not looked at yet" };
    let failed = if failed > 0 { format!("  {failed} failed") } else { String::new() };
    table::safe(&format!("{bar}  {far}/{all}  wave {wave}  {phase}{failed}"))
}

/// The line, why, each wave, and who failed.
fn show(object: &Deployment) -> String {
    let status = status(object);
    let mut text = format!("{}\n", line(object));
    if let Some(ready) = status.conditions.iter().find(|condition| condition.type_ == "Ready") {
        text.push_str(&format!("{}: {}\n", table::safe(&ready.reason), table::safe(&ready.message)));
    }
    let width = status.waves.iter().map(|wave| wave.name.chars().count()).max().unwrap_or(0);
    for WaveStatus { name, phase, targets, released, done, failed, approved_by } in &status.waves {
        let by = approved_by.as_ref().map(|by| format!(", approved by {by}")).unwrap_or_default();
        let wave = format!(
            "  {name:width$}  {phase:<16}  {done} past the gate, {released} released of {targets}, {failed} failed{by}"
        );
        text.push_str(&format!("{}\n", table::safe(&wave)));
    }
    for failure in &status.failures {
        let wrong = format!("  {}/{}: {}: {}", failure.namespace, failure.name, failure.reason, failure.message);
        text.push_str(&format!("{}\n", table::safe(&wrong)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(phase: &str, stalled: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "r", "generation": 1},
            "spec": {"selector": {}, "release": {"image": "engine:2"}},
            "status": {
                "observedGeneration": 1, "phase": phase, "targets": 40, "done": 12, "failed": 1, "wave": "2 of 4",
                "conditions": [
                    {"type": "Ready", "status": "False", "reason": "Why\u{1b}[2J", "message": "m", "lastTransitionTime": "2030-01-01T00:00:00Z"},
                    {"type": "Stalled", "status": stalled, "reason": "Why", "message": "m", "lastTransitionTime": "2030-01-01T00:00:00Z"},
                ],
                "waves": [{"name": "few", "phase": "Done", "targets": 4, "released": 4, "done": 3, "failed": 1}],
                "failures": [{"namespace": "acme", "name": "a", "reason": "CrashLoop", "message": "ended"}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_bar_says_how_far_it_is() {
        let bar = format!("{}{}", "█".repeat(9), "░".repeat(21));
        assert_eq!(line(&object("Progressing", "False")), format!("{bar}  12/40  wave 2 of 4  Progressing  1 failed"));
        let text = show(&object("Failed", "True"));
        assert!(text.contains("few  Done"), "{text}");
        assert!(text.contains("acme/a: CrashLoop: ended"), "{text}");
        assert!(!text.contains('\u{1b}'), "a terminal obeys it");
    }

    #[test]
    fn a_rollout_that_stands_is_not_well_and_one_under_way_is_not_over() {
        assert!(stands(&object("Failed", "True")) && is_over(&object("Failed", "True")));
        assert!(!stands(&object("Progressing", "False")) && !is_over(&object("Progressing", "False")));
        let mut unseen = object("Failed", "True");
        unseen.metadata.generation = Some(2);
        assert!(!stands(&unseen) && !is_over(&unseen), "that was about an older spec");
    }
}
