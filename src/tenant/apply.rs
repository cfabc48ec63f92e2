//! Makes the children what they should be: by server-side apply, and only what differs.
//!
//! "What differs" is told from the cache (the hash of what we built, kept on the child), never by asking the API server:
//! an apply that changes nothing costs it as much as one that does.
//!
//! Owns: the writes to children. Must never: touch an object that the TenantContainer does not own by uid; decide what
//! a child looks like.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
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
    course::Children,
    disks::{self, Whose},
    health::{Failure, Severity, Trouble},
    names,
    observe::{Caches, Observed, is_of},
    validate::Tenant,
    view::{BudgetView, ClaimView, Project, ServiceAccountView, ServiceView, StatefulSetView, View},
};

/// What came of applying the children.
#[derive(Debug, Default)]
pub struct Applied {
    /// Requests that wrote.
    pub writes: u32,
    /// What stands in the way of one of them; the worst, if of several.
    pub trouble: Option<Trouble>,
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

/// Requests of one pass at once: a service has five children and a disk for each replica.
const AT_ONCE: usize = 8;

/// Applies every child that differs, and enters into `observed` what the API server returned.
///
/// What others refer to goes at once and side by side. Then the StatefulSet, unless its pods would lack their identity
/// or mount a disk that is not their tenant's; that a service stops, nothing keeps it from.
pub async fn apply(
    client: &Client,
    caches: &Caches,
    tenant: &Tenant,
    children: &Children,
    observed: &mut Observed,
) -> Result<Applied, ChildError> {
    let (sets, others): (Vec<_>, Vec<_>) = children.all.iter().partition(|child| child.kind == ChildKind::StatefulSet);
    let mut applied = Applied::default();
    for group in [others, sets] {
        // Boxed: the compiler cannot see that a stream of borrowing futures may move between threads (rust#102211).
        let mut hands = vec![];
        for child in group {
            let hand = Hand { client, tenant, child, make_missing: children.make_missing };
            hands.push(hand.bring(caches, observed).boxed());
        }
        let brought: Vec<_> = stream::iter(hands).buffered(AT_ONCE).collect().await;
        for outcome in brought {
            match outcome? {
                Brought::AsItWas => {}
                Brought::Written(seen) => {
                    applied.writes += 1;
                    seen.enter(observed);
                }
                Brought::InTheWay(trouble) => {
                    let worse = |known: &Trouble| known.severity >= trouble.severity;
                    applied.trouble = Some(applied.trouble.take().filter(worse).unwrap_or(trouble));
                }
            }
        }
        let kept_back = applied.trouble.as_ref().is_some_and(|trouble| trouble.severity == Severity::Replicas);
        if kept_back && children.shape.replicas > 0 {
            break;
        }
    }
    let spare = observed.claims.range(children.shape.replicas..).map(|(_, claim)| claim);
    applied.writes += free(client, caches, tenant, spare).await?;
    Ok(applied)
}

/// What became of one child.
enum Brought<S = Seen> {
    AsItWas,
    Written(S),
    InTheWay(Trouble),
}

/// A child as the API server returned it.
enum Seen {
    ServiceAccount(Arc<ServiceAccountView>),
    Service(Arc<ServiceView>),
    Headless(Arc<ServiceView>),
    Budget(Arc<BudgetView>),
    Claim(i32, Arc<ClaimView>),
    StatefulSet(Arc<StatefulSetView>),
}

impl Seen {
    fn enter(self, observed: &mut Observed) {
        match self {
            Self::ServiceAccount(view) => observed.service_account = Some(view),
            Self::Service(view) => observed.service = Some(view),
            Self::Headless(view) => observed.headless = Some(view),
            Self::Budget(view) => observed.budget = Some(view),
            Self::Claim(ordinal, view) => drop(observed.claims.insert(ordinal, view)),
            Self::StatefulSet(view) => observed.stateful_set = Some(view),
        }
    }
}

impl<S> Brought<S> {
    fn map<T>(self, seen: impl FnOnce(S) -> T) -> Brought<T> {
        match self {
            Self::AsItWas => Brought::AsItWas,
            Self::Written(view) => Brought::Written(seen(view)),
            Self::InTheWay(trouble) => Brought::InTheWay(trouble),
        }
    }
}

/// One child in hand.
struct Hand<'a> {
    client: &'a Client,
    tenant: &'a Tenant,
    child: &'a Child,
    make_missing: bool,
}

impl Hand<'_> {
    async fn bring(self, caches: &Caches, observed: &Observed) -> Result<Brought, ChildError> {
        let (child, name) = (self.child, &self.tenant.target.name);
        Ok(match child.kind {
            ChildKind::ServiceAccount => {
                self.write(&caches.service_accounts, observed.service_account.as_ref()).await?.map(Seen::ServiceAccount)
            }
            ChildKind::PodDisruptionBudget => {
                self.write(&caches.budgets, observed.budget.as_ref()).await?.map(Seen::Budget)
            }
            ChildKind::StatefulSet => {
                self.write(&caches.stateful_sets, observed.stateful_set.as_ref()).await?.map(Seen::StatefulSet)
            }
            ChildKind::Service if child.name == names::headless(name) => {
                self.write(&caches.services, observed.headless.as_ref()).await?.map(Seen::Headless)
            }
            ChildKind::Service => self.write(&caches.services, observed.service.as_ref()).await?.map(Seen::Service),
            ChildKind::PersistentVolumeClaim(ordinal) => {
                self.write(&caches.claims, observed.claims.get(&ordinal)).await?.map(|view| Seen::Claim(ordinal, view))
            }
        })
    }

    async fn write<P>(
        &self,
        cache: &Cache<View<P>>,
        known: Option<&Arc<View<P>>>,
    ) -> Result<Brought<Arc<View<P>>>, ChildError>
    where
        P: Project,
        View<P>: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        let api: Api<View<P>> = Api::namespaced(self.client.clone(), &self.tenant.target.namespace);
        let known = match known {
            Some(view) if view.is_terminating() => return Ok(Brought::AsItWas),
            Some(view) if view.built_from() == Some(&self.child.built_from) && !is_edited(cache, view) => {
                return Ok(Brought::AsItWas);
            }
            Some(view) => Some(Arc::clone(view)),
            None if !self.make_missing => return Ok(Brought::AsItWas),
            // Not ours, or not there, or not yet in the cache: a read tells, and costs a tenth of a write.
            None => match api.get_opt(&self.child.name).await.map_err(|source| self.error("get", source))? {
                None => None,
                Some(view) if is_of(&view, self.tenant) || self.is_given(&view) => Some(Arc::new(view)),
                Some(other) => return Ok(Brought::InTheWay(self.trouble(self.foreign(&other), true))),
            },
        };
        match self.put(&api, known.as_deref()).await {
            Ok(view) => {
                cache.left(ObjectRef::from_obj(&view), view.fields.print);
                Ok(Brought::Written(cache.wrote(view)))
            }
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                Ok(Brought::InTheWay(self.trouble(self.refused(&status), known.is_none())))
            }
            Err(source) => Err(self.error("apply", source)),
        }
    }

    /// Applies what Berth built. Where that is invalid together with what somebody has put into a list of ours (another port
    /// of the same name), the lists are made ours again first: applying alone takes nobody's entries away.
    async fn put<P>(&self, api: &Api<View<P>>, known: Option<&View<P>>) -> kube::Result<View<P>>
    where
        P: Project,
        View<P>: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let mut manifest = self.child.manifest();
        let mut how = PatchParams::apply(names::FIELD_MANAGER);
        let Some(view) = known else { return api.patch(&self.child.name, &how, &Patch::Apply(&manifest)).await };
        // The uid makes it this very object or none: a namesake that came in between is not touched.
        manifest["metadata"]["uid"] = json!(view.metadata.uid);
        how = how.force();
        let applied = api.patch(&self.child.name, &how, &Patch::Apply(&manifest)).await;
        let Err(kube::Error::Api(refused)) = applied else { return applied };
        if refused.code != 422 {
            return Err(kube::Error::Api(refused));
        }
        let mut whole = manifest.clone();
        whole["metadata"] = json!({"uid": view.metadata.uid});
        let merge = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(&self.child.name, &merge, &Patch::Merge(&whole)).await {
            Ok(_) => api.patch(&self.child.name, &how, &Patch::Apply(&manifest)).await,
            // Then it is what Berth built that is invalid, and that was said first.
            Err(kube::Error::Api(_)) => Err(kube::Error::Api(refused)),
            Err(source) => Err(source),
        }
    }

    fn trouble(&self, failure: Failure, missing: bool) -> Trouble {
        let severity = match (self.child.kind, missing) {
            (ChildKind::StatefulSet, _) => Severity::Replicas,
            (ChildKind::ServiceAccount | ChildKind::PersistentVolumeClaim(_), true) => Severity::Replicas,
            (_, true) => Severity::Missing,
            (_, false) => Severity::Unchanged,
        };
        Trouble { failure, severity }
    }

    fn is_disk(&self) -> bool {
        matches!(self.child.kind, ChildKind::PersistentVolumeClaim(_))
    }

    fn is_given<P>(&self, other: &View<P>) -> bool {
        self.is_disk() && disks::whose(other, self.tenant) == Whose::Given
    }

    fn foreign<P>(&self, other: &View<P>) -> Failure {
        let name = &self.child.name;
        let retained = match disks::whose(other, self.tenant) {
            Whose::Earlier if self.is_disk() => format!(
                "disk {name} was retained when an earlier service of this name was deleted; an administrator gives it to this one with: kubectl annotate pvc {name} -n {} {}={} (or deletes it)",
                self.tenant.target.namespace,
                names::ADOPT,
                self.tenant.target.uid
            ),
            Whose::Others(service) if self.is_disk() => {
                format!(
                    "disk {name} was retained from {service}, and is mounted by no other; give this object another name"
                )
            }
            _ => return self.stranger(other),
        };
        Failure { reason: "DiskRetained", message: retained }
    }

    fn stranger<P>(&self, other: &View<P>) -> Failure {
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

/// Whether somebody has changed fields since our last write. What was there before this process began is known only as far
/// as somebody else's name stands at a field.
fn is_edited<P>(cache: &Cache<View<P>>, view: &View<P>) -> bool
where
    P: Project,
    View<P>: Resource<DynamicType = ()>,
{
    let key = ObjectRef::from_obj(view);
    match cache.as_left(&key) {
        Some(print) => print != view.fields.print,
        None if view.fields.others => true,
        None => {
            cache.left(key, view.fields.print);
            false
        }
    }
}

/// Answers that another try will not change: invalid, forbidden (a quota, a policy), or somebody else's field.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 422) || (status.code == 409 && status.message.contains("conflict with"))
}

/// Frees the disks that are kept of an owner which they had before.
async fn free<'a>(
    client: &Client,
    caches: &Caches,
    tenant: &Tenant,
    claims: impl Iterator<Item = &'a Arc<ClaimView>>,
) -> Result<u32, ChildError> {
    let (mut writes, uid) = (0, tenant.target.uid.to_string());
    for claim in claims.filter(|claim| disks::is_bound(claim, tenant)) {
        let name = claim.metadata.name.clone().unwrap_or_default();
        let others: Vec<_> =
            claim.metadata.owner_references.iter().flatten().filter(|owner| owner.uid != uid).collect();
        let merge = json!({"metadata": {
            "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version, "ownerReferences": others,
        }});
        let how = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api: Api<ClaimView> = Api::namespaced(client.clone(), &tenant.target.namespace);
        match api.patch(&name, &how, &Patch::Merge(&merge)).await {
            Ok(view) => {
                writes += 1;
                caches.claims.left(ObjectRef::from_obj(&view), view.fields.print);
                caches.claims.wrote(view);
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => {
                let (kind, namespace) = (ChildKind::PersistentVolumeClaim(0), tenant.target.namespace.clone());
                return Err(ChildError { verb: "free", kind, namespace, name, source: Box::new(source) });
            }
        }
    }
    Ok(writes)
}

/// Deletes what is left of the children; `true` once nothing is. Disks that are kept are none of it.
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
    free(client, caches, tenant, claims.iter()).await?;
    for claim in claims.iter().filter(|_| !disks::are_kept(tenant)) {
        left |= delete(client, tenant, ChildKind::PersistentVolumeClaim(0), Some(claim)).await?;
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
    View<P>: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
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
        // Gone, whether or not the watch has told of it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(source) => {
            Err(ChildError { verb: "delete", kind, namespace: namespace.clone(), name, source: Box::new(source) })
        }
    }
}
