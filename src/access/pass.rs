//! One pass over one grant: its RoleBindings are made what the plan says, then its status says what was seen.
//!
//! Owns: the order, and every write. Must never: decide what should be; touch a RoleBinding that is not the grant's own;
//! show that access is gone before the API server has said so.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::Status,
};
use kube_runtime::{
    events::{Event, EventType},
    reflector::ObjectRef,
};
use serde_json::json;
use tracing::{debug, info, warn};

use super::{
    context::{Context, Done, PassError},
    names,
    plan::{self, Effect, Grant, Plan},
    status::{self, Standing},
};
use crate::{
    api::{AccessGrant, access_grant::AccessGrantStatus},
    ledger::visible,
};

/// How soon a grant is looked at again that is not as desired: what stands in its way may be nothing that Berth watches.
const AGAIN: Duration = Duration::from_secs(10);

/// Brings one grant a pass further.
pub async fn pass(context: &Context, object: &AccessGrant) -> Result<Done, PassError> {
    // The cache may be behind our own last write; what we wrote is not.
    let object = context.grants.get(&ObjectRef::from_obj(object)).unwrap_or_else(|| Arc::new(object.clone()));
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let grant = plan::read(&object, (context.is_terminating)(namespace))?;
    let now = (context.clock)();
    let bindings: Api<RoleBinding> = Api::namespaced(context.client.clone(), &grant.namespace);
    let mut pass = Pass { context, grant: &grant, bindings, there: BTreeMap::new(), writes: 0, stuck: None };
    let plan = pass.observe(&object, now).await?;
    for effect in &plan.effects {
        pass.carry_out(effect).await?;
    }
    let standing = pass.standing(&plan);
    let carriers = pass.there.values().filter(|binding| pass.counts(binding)).map(|binding| binding.name_any());
    let before = object.status.clone().unwrap_or_default();
    let shown = status::of(&before, &grant, &standing, carriers.collect(), now);
    let is_settled = matches!(standing, Standing::Active | Standing::Expired);
    let look_again = if is_settled { plan.look_again } else { plan.look_again.min(AGAIN) };
    let mut done = Done { writes: pass.writes, look_again };
    if shown != before && !grant.deleting {
        let written = show(context, &grant, &object, &shown).await?;
        context.grants.wrote(written);
        done.writes += 1;
        tell(context, &grant, &object, &before, &shown, &standing);
    }
    Ok(done)
}

/// Deletes RoleBindings that were cut off from their grant, where that is gone: nothing else would end what they give.
/// Answers how many.
pub async fn sweep(context: &Context) -> Result<u32, PassError> {
    let all = context.bindings.filter(|_| true);
    let strays = plan::strays(&all, |uid| {
        let of_uid = |grant: &AccessGrant| grant.metadata.uid.as_deref() == Some(uid);
        !context.grants.filter(of_uid).is_empty()
    });
    let mut gone = 0;
    for stray in strays {
        let namespace = stray.namespace().unwrap_or_default();
        let bindings: Api<RoleBinding> = Api::namespaced(context.client.clone(), &namespace);
        let uid = stray.metadata.uid.clone().unwrap_or_default();
        let name = stray.name_any();
        warn!(%namespace, %name, "a RoleBinding outlived its grant, cut off from it; it is deleted");
        match bindings.delete(&name, &this_one(uid)).await {
            Ok(_) => gone += 1,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => return Err(error("delete", &namespace, &name, source)),
        }
    }
    Ok(gone)
}

struct Pass<'a> {
    context: &'a Context,
    grant: &'a Grant,
    bindings: Api<RoleBinding>,
    /// The RoleBindings that are there, by name, as far as this pass knows.
    there: BTreeMap<String, Arc<RoleBinding>>,
    writes: u32,
    /// What keeps one from being written.
    stuck: Option<(&'static str, String)>,
}

impl Pass<'_> {
    /// What is there, and what follows. The cache knows all that bear our label; that nothing is left of a grant which has
    /// ended, the API server itself has to say.
    async fn observe(&mut self, object: &AccessGrant, now: jiff::Timestamp) -> Result<Plan, PassError> {
        let grant = self.grant;
        let near = |binding: &RoleBinding| binding.metadata.namespace.as_ref() == Some(&grant.namespace);
        let mut observed = self.context.bindings.filter(near);
        // Newer than the watch, where we wrote.
        for binding in &mut observed {
            if let Some(newest) = self.context.bindings.get(&ObjectRef::from_obj(&**binding)) {
                *binding = newest;
            }
        }
        let mut plan = plan::plan(grant, &observed, now);
        let told = object.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Expired");
        if !plan.open && !told {
            let listed = self.bindings.list(&ListParams::default()).await;
            let listed = listed.map_err(|source| error("list", &grant.namespace, "*", source))?;
            observed = listed.items.into_iter().map(Arc::new).collect();
            plan = plan::plan(grant, &observed, now);
        }
        let ours = observed.into_iter().filter(|binding| plan::is_ours(binding, &grant.uid));
        self.there = ours.map(|binding| (binding.name_any(), binding)).collect();
        Ok(plan)
    }

    async fn carry_out(&mut self, effect: &Effect) -> Result<(), PassError> {
        match effect {
            Effect::Apply { wanted, known: Some(uid) } => self.apply(wanted, Some(uid)).await,
            Effect::Apply { wanted, known: None } => {
                let name = wanted.name_any();
                // Not ours, or not there, or not yet in the cache: a read tells, and costs a tenth of a write.
                let found = self.bindings.get_opt(&name).await;
                match found.map_err(|source| error("get", &self.grant.namespace, &name, source))? {
                    None => self.apply(wanted, None).await,
                    Some(other) if !plan::is_ours(&other, &self.grant.uid) => {
                        self.stuck = Some(foreign(&name));
                        Ok(())
                    }
                    // It comes again once it is gone.
                    Some(other) if other.metadata.deletion_timestamp.is_some() => Ok(()),
                    Some(other) if other.role_ref != wanted.role_ref => {
                        self.delete(&name, other.metadata.uid.unwrap_or_default()).await
                    }
                    Some(other) => self.apply(wanted, other.metadata.uid.as_ref()).await,
                }
            }
            Effect::Delete { name, uid } => self.delete(name, uid.clone()).await,
            Effect::Empty { wanted, uid } => self.apply(wanted, Some(uid)).await,
        }
    }

    async fn apply(&mut self, wanted: &RoleBinding, uid: Option<&String>) -> Result<(), PassError> {
        let name = wanted.name_any();
        let mut manifest = json!({
            "apiVersion": RoleBinding::api_version(&()), "kind": RoleBinding::kind(&()),
            "metadata": wanted.metadata, "roleRef": wanted.role_ref, "subjects": wanted.subjects,
        });
        // The uid makes it this very object or none: a namesake that came in between is not touched.
        if let Some(uid) = uid {
            manifest["metadata"]["uid"] = json!(uid);
        }
        let mut how = PatchParams::apply(names::FIELD_MANAGER);
        how.force = uid.is_some();
        match self.bindings.patch(&name, &how, &Patch::Apply(&manifest)).await {
            Ok(binding) => {
                self.writes += 1;
                self.there.insert(name, self.context.bindings.wrote(binding));
                Ok(())
            }
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                let message = format!("the API server refused RoleBinding {name}: {}", status.message);
                self.stuck = Some(("BindingRefused", message));
                Ok(())
            }
            Err(source) => Err(error("apply", &self.grant.namespace, &name, source)),
        }
    }

    async fn delete(&mut self, name: &str, uid: String) -> Result<(), PassError> {
        match self.bindings.delete(name, &this_one(uid)).await {
            // It is there until a finalizer of somebody's lets it go.
            Ok(either) => {
                self.writes += 1;
                match either.left().filter(is_held) {
                    Some(left) => self.there.insert(name.to_owned(), self.context.bindings.wrote(left)),
                    None => self.there.remove(name),
                };
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.there.remove(name);
                Ok(())
            }
            Err(source) => Err(error("delete", &self.grant.namespace, name, source)),
        }
    }

    /// Whether a RoleBinding carries what the grant gives.
    fn counts(&self, binding: &RoleBinding) -> bool {
        plan::gives_something(binding)
    }

    fn standing(&self, plan: &Plan) -> Standing {
        let carriers: Vec<String> =
            self.there.values().filter(|binding| self.counts(binding)).map(|binding| binding.name_any()).collect();
        if !plan.open {
            return if carriers.is_empty() { Standing::Expired } else { Standing::Overdue(carriers) };
        }
        if self.grant.namespace_terminating {
            return Standing::NamespaceTerminating;
        }
        if let Some((reason, message)) = self.stuck.clone().or_else(|| plan.foreign.first().map(|name| foreign(name))) {
            return Standing::Stuck { reason, message };
        }
        let wanted = plan::wanted(self.grant);
        let all = wanted.iter().all(|one| carriers.contains(&one.name_any()));
        if all && carriers.len() == wanted.len() { Standing::Active } else { Standing::OnTheWay }
    }
}

fn this_one(uid: String) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
        ..DeleteParams::background()
    }
}

fn is_held(binding: &RoleBinding) -> bool {
    binding.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty())
}

fn foreign(name: &str) -> (&'static str, String) {
    let message =
        format!("RoleBinding {name} exists and is not this grant's; it is left alone: delete it, or rename the grant");
    ("ForeignObject", message)
}

/// Answers that another try will not change soon: forbidden (a right that Berth lacks, a policy, a quota), invalid, or
/// somebody else's field.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 422) || (status.code == 409 && status.message.contains("conflict with"))
}

fn error(verb: &'static str, namespace: &str, name: &str, source: kube::Error) -> PassError {
    PassError::Binding { verb, subject: format!("{namespace}/{name}"), source: Box::new(source) }
}

/// Writes the status, if the grant is still as it was read.
async fn show(
    context: &Context,
    grant: &Grant,
    object: &AccessGrant,
    status: &AccessGrantStatus,
) -> Result<AccessGrant, PassError> {
    let subject = format!("{}/{}", grant.namespace, grant.name);
    let operations = json!([
        {"op": "test", "path": "/metadata/uid", "value": grant.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": object.metadata.resource_version},
        {"op": "add", "path": "/status", "value": status},
    ]);
    let failed = |source| PassError::Status { subject: subject.clone(), source: Box::new(source) };
    let patch = serde_json::from_value(operations).map(Patch::<()>::Json);
    let patch = patch.map_err(|source| failed(kube::Error::SerdeError(source)))?;
    let how = PatchParams { field_manager: Some(names::STATUS_MANAGER.to_owned()), ..PatchParams::default() };
    let grants: Api<AccessGrant> = Api::namespaced(context.client.clone(), &grant.namespace);
    grants.patch_status(&grant.name, &how, &patch).await.map_err(|source| match &source {
        // 422 is how a failed `test` is answered; what the schema refuses comes as 422 as well, and names a field.
        kube::Error::Api(status)
            if status.code == 409 || (status.code == 422 && !status.message.contains("is invalid")) =>
        {
            PassError::Overtaken(subject.clone())
        }
        kube::Error::Api(status) if status.code == 404 => PassError::Gone(subject.clone()),
        _ => failed(source),
    })
}

/// One line in the log and one Event, where the phase or its reason is another than before.
fn tell(
    context: &Context,
    grant: &Grant,
    object: &AccessGrant,
    before: &AccessGrantStatus,
    after: &AccessGrantStatus,
    standing: &Standing,
) {
    let reason_of = |status: &AccessGrantStatus| status.conditions.first().map(|condition| condition.reason.clone());
    if (&before.phase, reason_of(before)) == (&after.phase, reason_of(after)) {
        return;
    }
    let (reason, message) = standing.words(grant);
    let warning = matches!(standing, Standing::Stuck { .. } | Standing::Overdue(_));
    let phase = after.phase.as_deref().unwrap_or_default();
    if warning {
        warn!(uid = %grant.uid, namespace = %grant.namespace, name = %grant.name, phase, reason, "access: {message}");
    } else {
        info!(uid = %grant.uid, namespace = %grant.namespace, name = %grant.name, phase, reason, "access");
    }
    // Events are for people who look now: nobody waits for one, and one that is lost is not worth a second try.
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(visible(&message, 1_000)),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let (recorder, about) = (context.recorder.clone(), object.object_ref(&()));
    tokio::spawn(async move {
        if let Err(error) = recorder.publish(&event, &about).await {
            debug!(%error, reason = event.reason, "an Event was not taken");
        }
    });
}
