//! Makes the children what they should be: by server-side apply, and only what differs.
//!
//! "What differs" is told from the cache (the hash of what we built, kept on the child), never by asking the API server:
//! an apply that changes nothing costs it as much as one that does.
//!
//! Owns: the writes to children. Must never: touch an object that the TenantContainer does not own by uid; decide what
//! a child looks like.

use std::sync::Arc;

use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::Status,
};
use kube_runtime::reflector::ObjectRef;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    build::{Child, ChildKind},
    cache::Cache,
    health::Failure,
    names,
    observe::{Caches, Observed},
    validate::Tenant,
    view::{Project, View},
};

/// What came of applying the children.
#[derive(Debug, Default)]
pub struct Applied {
    /// Requests that wrote.
    pub writes: u32,
    /// What an answer or another's object stands in the way with; children after it were left alone.
    pub trouble: Option<Failure>,
}

/// The API server did not carry out a write, for a reason that may pass.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not {verb} {} {namespace}/{name}", kind.as_str())]
pub struct ChildError {
    verb: &'static str,
    kind: ChildKind,
    namespace: String,
    name: String,
    source: Box<kube::Error>,
}

/// Applies every child that differs, in order, and enters into `observed` what the API server returned.
pub async fn apply(
    client: &Client,
    caches: &Caches,
    tenant: &Tenant,
    children: &[Child],
    observed: &mut Observed,
) -> Result<Applied, ChildError> {
    let mut applied = Applied::default();
    for child in children {
        let name = &child.name;
        let hand = Hand { client, tenant, child };
        let outcome = match child.kind {
            ChildKind::ServiceAccount => hand.bring(&caches.service_accounts, &mut observed.service_account).await?,
            ChildKind::PodDisruptionBudget => hand.bring(&caches.budgets, &mut observed.budget).await?,
            ChildKind::StatefulSet => hand.bring(&caches.stateful_sets, &mut observed.stateful_set).await?,
            ChildKind::Service if *name == names::headless(&tenant.target.name) => {
                hand.bring(&caches.services, &mut observed.headless).await?
            }
            ChildKind::Service => hand.bring(&caches.services, &mut observed.service).await?,
            ChildKind::PersistentVolumeClaim => {
                let ordinal =
                    (0..tenant.spec.replicas).find(|ordinal| names::claim(&tenant.target.name, *ordinal) == *name);
                let mut claim = ordinal.and_then(|ordinal| observed.claims.get(&ordinal).cloned());
                let outcome = hand.bring(&caches.claims, &mut claim).await?;
                if let (Some(ordinal), Some(claim)) = (ordinal, claim) {
                    observed.claims.insert(ordinal, claim);
                }
                outcome
            }
        };
        match outcome {
            Brought::AsItWas => {}
            Brought::Written => applied.writes += 1,
            Brought::InTheWay(failure) => {
                applied.trouble = Some(failure);
                break;
            }
        }
    }
    Ok(applied)
}

enum Brought {
    AsItWas,
    Written,
    InTheWay(Failure),
}

/// One child in hand.
struct Hand<'a> {
    client: &'a Client,
    tenant: &'a Tenant,
    child: &'a Child,
}

impl Hand<'_> {
    async fn bring<P>(&self, cache: &Cache<View<P>>, slot: &mut Option<Arc<View<P>>>) -> Result<Brought, ChildError>
    where
        P: Project,
        View<P>: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned,
    {
        let api: Api<View<P>> = Api::namespaced(self.client.clone(), &self.tenant.target.namespace);
        let known = match slot.as_ref() {
            Some(view) if view.is_terminating() => return Ok(Brought::AsItWas),
            Some(view) if view.built_from() == Some(&self.child.built_from) && !self.is_edited(cache, view) => {
                return Ok(Brought::AsItWas);
            }
            Some(view) => Some(Arc::clone(view)),
            // Not ours, or not there, or not yet in the cache: a read tells, and costs a tenth of a write.
            None => match api.get_opt(&self.child.name).await.map_err(|source| self.error("get", source))? {
                None => None,
                Some(view) if view.owner_uid() == Some(&self.tenant.target.uid.to_string()) => Some(Arc::new(view)),
                Some(other) => return Ok(Brought::InTheWay(self.foreign(&other))),
            },
        };
        let mut manifest = self.child.manifest.clone();
        let mut how = PatchParams::apply(names::FIELD_MANAGER);
        if let Some(view) = &known {
            // The uid makes it this very object or none: a namesake that came in between is not touched.
            manifest["metadata"]["uid"] = json!(view.metadata.uid);
            how = how.force();
        }
        match api.patch(&self.child.name, &how, &Patch::Apply(&manifest)).await {
            Ok(view) => {
                if let Some(edit) = &view.edited {
                    cache.tolerate(ObjectRef::from_obj(&view), edit.fields);
                }
                *slot = Some(cache.wrote(view));
                Ok(Brought::Written)
            }
            Err(kube::Error::Api(status)) if is_refusal(&status) => Ok(Brought::InTheWay(self.refused(&status))),
            Err(source) => Err(self.error("apply", source)),
        }
    }

    fn is_edited<P>(&self, cache: &Cache<View<P>>, view: &View<P>) -> bool
    where
        P: Project,
        View<P>: Resource<DynamicType = ()>,
    {
        view.edited.as_ref().is_some_and(|edit| !cache.tolerates(&ObjectRef::from_obj(view), edit.fields))
    }

    fn foreign<P>(&self, other: &View<P>) -> Failure {
        let owner = other.metadata.owner_references.iter().flatten().next();
        let whose = owner.map_or("of nobody".to_owned(), |owner| format!("of {} {}", owner.kind, owner.name));
        Failure {
            reason: "ForeignObject",
            message: format!(
                "{} {} exists and is {whose}, not Berth's; it is left alone: rename or delete it, or give this object another name",
                self.child.kind.as_str(),
                self.child.name
            ),
        }
    }

    fn refused(&self, status: &Status) -> Failure {
        Failure {
            reason: "ChildRefused",
            message: format!(
                "the API server refused {} {}: {}",
                self.child.kind.as_str(),
                self.child.name,
                status.message
            ),
        }
    }

    fn error(&self, verb: &'static str, source: kube::Error) -> ChildError {
        ChildError {
            verb,
            kind: self.child.kind,
            namespace: self.tenant.target.namespace.clone(),
            name: self.child.name.clone(),
            source: Box::new(source),
        }
    }
}

/// Answers that another try will not change: invalid, forbidden (a quota, a policy), or somebody else's field.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 422) || (status.code == 409 && status.message.contains("conflict with"))
}

/// Deletes what is left of the children; `true` once nothing is.
pub async fn remove(
    client: &Client,
    caches: &Caches,
    tenant: &Tenant,
    observed: &Observed,
) -> Result<bool, ChildError> {
    let claims = caches.all_claims(tenant);
    let set = observed.stateful_set.as_deref();
    let mut left = !observed.pods.is_empty();
    left |= delete(client, tenant, ChildKind::StatefulSet, set).await?;
    left |= delete(client, tenant, ChildKind::Service, observed.service.as_deref()).await?;
    left |= delete(client, tenant, ChildKind::Service, observed.headless.as_deref()).await?;
    left |= delete(client, tenant, ChildKind::PodDisruptionBudget, observed.budget.as_deref()).await?;
    left |= delete(client, tenant, ChildKind::ServiceAccount, observed.service_account.as_deref()).await?;
    for claim in &claims {
        left |= delete(client, tenant, ChildKind::PersistentVolumeClaim, Some(claim)).await?;
    }
    Ok(!left)
}

/// Deletes `view` if it is there and not going already; `true` while it is there.
async fn delete<P>(
    client: &Client,
    tenant: &Tenant,
    kind: ChildKind,
    view: Option<&View<P>>,
) -> Result<bool, ChildError>
where
    P: Project,
    View<P>: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned,
{
    let Some(view) = view else { return Ok(false) };
    if view.is_terminating() {
        return Ok(true);
    }
    let name = view.metadata.name.clone().unwrap_or_default();
    let namespace = &tenant.target.namespace;
    let this_one = DeleteParams {
        preconditions: Some(Preconditions { uid: view.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::background()
    };
    let api: Api<View<P>> = Api::namespaced(client.clone(), namespace);
    match api.delete(&name, &this_one).await {
        Ok(_) => Ok(true),
        // Gone, or another of the same name by now: the cache will say so in a moment.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(true),
        Err(source) => {
            Err(ChildError { verb: "delete", kind, namespace: namespace.clone(), name, source: Box::new(source) })
        }
    }
}
