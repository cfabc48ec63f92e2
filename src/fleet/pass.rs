//! One pass over one rollout: targets get what the plan says, then the status says what was seen.
//!
//! Owns: the order, and every write to a target. Must never: decide who gets what; write a release over a target that is not as it
//! was seen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
    core::Status,
};
use kube_runtime::reflector::ObjectRef;
use serde_json::json;
use tracing::info;

use super::{
    context::{Context, Done, PassError},
    names,
    outcome::outcomes,
    plan::{self, Course, Effect, Sight},
    record::{Account, Seen},
    rollout,
    select::{self, Conflict, Labels, Reach},
    status,
    target::{self, Target},
    tell::Tale,
};
use crate::{
    api::{Deployment, TenantContainer},
    chain::{self, ChainError, Telling},
};

/// How often a rollout is looked at when nothing happens: a safety net, which writes nothing.
const RESYNC: Duration = Duration::from_secs(600);
/// How soon one is looked at again where something was left to do: a target had changed since it was seen.
const AGAIN: Duration = Duration::from_millis(500);
/// How soon where the API server refused something: what stands in the way may be nothing that Berth watches.
const REFUSED: Duration = Duration::from_secs(15);
/// Writes to targets at once.
const CONCURRENCY: usize = 8;

/// Brings one rollout a pass further.
pub async fn pass(context: &Context, object: &Deployment) -> Result<Done, PassError> {
    let rested = Done { look_again: RESYNC, ..Done::default() };
    let Some(object) = context.rollouts.newest(object) else { return Ok(rested) };
    let is_deleted = object.metadata.deletion_timestamp.is_some();
    if is_deleted && !chain::is_held(&*object) {
        return Ok(rested);
    }
    let rollout = rollout::read(&object)?;
    let mut done = Done::default();
    // Without the finalizer a rollout would be gone before its end is recorded. The API server adds it at creation.
    let object = if chain::is_held(&*object) {
        object
    } else {
        done.writes += 1;
        context.rollouts.wrote(chain::hold(&context.client, &*object).await.map_err(ChainError::from)?)
    };
    let (mut targets, mut conflict) = observe(context, &object);
    let now = (context.clock)();
    let none = BTreeMap::new();
    let sight = Sight { rollout: &rollout, targets: &targets, conflict: conflict.as_ref(), refused: &none, now };
    let mut plan = plan::plan(sight);
    if is_deleted {
        // What targets have, they keep.
        plan.effects.clear();
    }
    let changes = !plan.effects.is_empty();
    let carried_out = carry_out(context, std::mem::take(&mut plan.effects)).await;
    if changes {
        (targets, conflict) = observe(context, &object);
    }
    done.writes += carried_out.writes;
    let refused = &carried_out.refused;
    let sight = Sight { rollout: &rollout, targets: &targets, conflict: conflict.as_ref(), refused, now };
    if changes {
        // Again, from what the API server returned: the status says what is, not what was meant.
        plan = plan::plan(sight);
    }
    let before = object.status.clone().unwrap_or_default();
    let shown = status::of(&before, &sight, &plan);
    // Between what was done and the status that shows it: no status is shown before its record is durable.
    let account = Account::read(&object, &rollout, context.cluster).map_err(ChainError::from)?;
    let is_back = plan.course != Course::Forward;
    let seen = Seen { shown, outcomes: outcomes(&sight, &plan), is_back, now };
    let telling = Telling { keeper: context.keeper(), cluster: context.cluster, epoch: &context.epoch, now };
    let tale = Tale { context, rollout: &rollout, account, seen };
    // Boxed: it is much of a pass.
    let said = Box::pin(chain::tell(telling, Arc::clone(&object), tale)).await?;
    done.writes += said.writes;
    done.records += said.records;
    if said.records > 0 {
        context.present.wrote(&rollout.uid, now);
    }
    if let Some(error) = carried_out.failed {
        return Err(error);
    }
    let wait = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or(0)) + Duration::from_millis(1);
    done.look_again = [
        plan.look_again.map(|at| wait(at.0 - now.0)),
        // What was not worth a write, or a word to the ledger, is so by then.
        context.calm.left(&rollout.uid, now).filter(|_| said.writes == 0).map(wait),
        context.present.left(&rollout.uid, now).map(wait),
        said.more.then_some(AGAIN),
        said.look_again,
        (!plan.effects.is_empty()).then_some(AGAIN),
        (!refused.is_empty()).then_some(REFUSED),
        Some(RESYNC),
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(RESYNC);
    match said.refused {
        None => Ok(done),
        Some(source) => Err(PassError::Untold { source, look_again: plan.look_again.map(|at| wait(at.0 - now.0)) }),
    }
}

/// The targets as they are known now, in the order of namespace and name, and who else has one.
fn observe(context: &Context, object: &Deployment) -> (Vec<Target>, Option<Conflict>) {
    let labels = |name: &str| -> Option<Labels> {
        Some(context.namespaces.get(&ObjectRef::new(name))?.metadata.labels.clone().unwrap_or_default())
    };
    let Some(reach) = Reach::of(object) else { return (vec![], None) };
    let tenants = context.tenants.filter(|_| true);
    // Newer than the watch, where we wrote; none where that was the end.
    let read = |tenant: &Arc<TenantContainer>| context.tenants.newest(tenant).and_then(|newest| target::read(&newest));
    let mut targets: Vec<Target> =
        tenants.iter().filter(|tenant| reach.selects(tenant, labels)).filter_map(read).collect();
    targets.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let conflict = select::conflict(object, &context.rollouts.filter(|_| true), &tenants, labels);
    (targets, conflict)
}

/// What came of the writes.
#[derive(Default)]
struct CarriedOut {
    writes: u32,
    /// What the API server does not take, by the uid of the target.
    refused: BTreeMap<String, String>,
    /// What kept a write from being answered at all.
    failed: Option<PassError>,
}

async fn carry_out(context: &Context, effects: Vec<Effect>) -> CarriedOut {
    let writes = effects.into_iter().map(|effect| async move {
        let outcome = give(context, &effect).await;
        (effect, outcome)
    });
    let outcomes: Vec<_> = stream::iter(writes).buffer_unordered(CONCURRENCY).collect().await;
    let mut done = CarriedOut::default();
    for (effect, outcome) in outcomes {
        let Effect { namespace, name, uid, release, .. } = effect;
        match outcome {
            Ok(object) => {
                done.writes += 1;
                context.tenants.wrote(object);
                let (step, revision) = (release.rollout.step, release.rollout.revision);
                info!(%uid, %namespace, %name, ?step, revision, image = release.image, "a target was given a release");
            }
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                done.refused.insert(uid, status.message.clone());
            }
            // Changed or gone since it was seen: it is seen anew.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => {
                let subject = format!("{namespace}/{name}");
                done.failed = Some(PassError::Release { subject, source: Box::new(source) });
            }
        }
    }
    done
}

/// Writes one release, by server-side apply under a field manager of its own. The version makes it this very object as it was
/// seen, or none: no target is given anything twice, by whomever it was given it the first time.
async fn give(context: &Context, effect: &Effect) -> Result<TenantContainer, kube::Error> {
    let manifest = json!({
        "apiVersion": TenantContainer::api_version(&()), "kind": TenantContainer::kind(&()),
        "metadata": {"name": effect.name, "uid": effect.uid, "resourceVersion": effect.resource_version},
        "spec": {"release": effect.release},
    });
    let how = PatchParams::apply(names::RELEASE_MANAGER).force();
    let api: Api<TenantContainer> = Api::namespaced(context.client.clone(), &effect.namespace);
    api.patch(&effect.name, &how, &Patch::Apply(&manifest)).await
}

/// Whether the API server says that it will not take it, rather than that it could not.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 422)
}
