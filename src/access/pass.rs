//! One pass over one grant: its RoleBindings are made what the plan says, then what was seen is told and shown (`tell`).
//!
//! Owns: the order, and every write to a RoleBinding. Must never: decide what should be; touch a RoleBinding that is not the grant's own;
//! show that access is gone before the API server has said so.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::Status,
};
use kube_runtime::reflector::ObjectRef;
use serde_json::json;
use tracing::warn;

use super::{
    context::{Context, Done, PassError},
    names,
    plan::{self, Effect, Grant, Plan},
    record::Account,
    status::Standing,
    tell::{Seen, Tale},
};
use crate::{
    api::AccessGrant,
    chain::{self, ChainError, Telling},
    ledger::Micros,
};

/// How soon a grant is looked at again that is not as desired: what stands in its way may be nothing that Berth watches.
const AGAIN: Duration = Duration::from_secs(10);

/// Brings one grant a pass further.
pub async fn pass(context: &Context, object: &AccessGrant) -> Result<Done, PassError> {
    let Some(object) = context.grants.newest(object) else {
        return Ok(Done { look_again: AGAIN, ..Done::default() });
    };
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let seen = (context.namespace)(namespace);
    let grant = plan::read(&object, seen.as_ref().is_some_and(|namespace| namespace.is_terminating))?;
    let now = (context.clock)();
    let bindings: Api<RoleBinding> = Api::namespaced(context.client.clone(), &grant.namespace);
    let mut pass = Pass { context, grant: &grant, bindings, there: BTreeMap::new(), writes: 0, stuck: None };
    let plan = pass.observe(&object, now).await?;
    let object = if plan.open { pass.hold(object).await? } else { object };
    for effect in &plan.effects {
        pass.carry_out(effect).await?;
    }
    let standing = pass.standing(&plan);
    let carriers = pass.there.values().filter(|binding| pass.counts(binding)).map(|binding| binding.name_any());
    let carriers: Vec<String> = carriers.collect();
    let is_settled = matches!(standing, Standing::Active | Standing::Expired);
    let look_again = if is_settled { plan.look_again } else { plan.look_again.min(AGAIN) };
    let mut done = Done { writes: pass.writes, look_again, ..Done::default() };
    let Some(namespace) = seen else {
        // Its event is on its way; the access is as it should be, and what there is to tell comes after.
        done.look_again = AGAIN;
        return Ok(done);
    };
    if is_let_go(&object) {
        // Without the finalizer there is nothing to end: it was never told of, or its end was.
        return Ok(done);
    }
    let account = Account::read(&object, &grant, context.cluster, namespace.row).map_err(ChainError::from)?;
    let seen = Seen { open: plan.open, carriers, standing, now };
    let telling = Telling {
        keeper: context.keeper(),
        cluster: context.cluster,
        epoch: &context.epoch,
        now: Micros(now.as_microsecond()),
    };
    let said = Box::pin(chain::tell(telling, object, Tale { context, grant: &grant, account, seen })).await?;
    done.writes += said.writes;
    done.records += said.records;
    done.look_again = said.look_again.map_or(done.look_again, |wait| done.look_again.min(wait));
    match said.refused {
        None => Ok(done),
        Some(error) => Err(ChainError::from(error).into()),
    }
}

/// Whether an object that is being deleted is not held any more, as far as Berth is concerned.
fn is_let_go(object: &AccessGrant) -> bool {
    object.metadata.deletion_timestamp.is_some() && !chain::is_held(object)
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
    /// Without the finalizer a grant would be gone before its end is recorded. The API server adds it at creation where the
    /// chart's policy is; here it is added where the policy is not, before anything is given.
    async fn hold(&mut self, object: Arc<AccessGrant>) -> Result<Arc<AccessGrant>, PassError> {
        if chain::is_held(&*object) {
            return Ok(object);
        }
        let held = chain::hold(&self.context.client, &*object).await.map_err(ChainError::from)?;
        self.writes += 1;
        Ok(self.context.grants.wrote(held))
    }

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
        let told =
            matches!(object.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Expired" | "Deleted"));
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
            return match (carriers.is_empty(), self.grant.deleting) {
                (true, false) => Standing::Expired,
                (true, true) => Standing::Removed,
                (false, _) => Standing::Overdue(carriers),
            };
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
