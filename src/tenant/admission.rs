//! Where a pass asks the quota of its organisation: what a service needs and holds, and what becomes of a plan that it is
//! not admitted for.
//!
//! Owns: those, and what the desk stands on. Must never: decide who gets what (that is `quota`), or let anything that runs
//! be changed by a plan that waits.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, ResourceExt, api::ListParams, core::DeserializeGuard};
use kube_runtime::reflector::ObjectRef;
use uuid::Uuid;

use super::{
    build::{ChildKind, Shape},
    context::Context,
    course::{Children, Course, Wait},
    names,
    observe::{Observed, is_of},
    validate::{self, Surroundings, Tenant},
    view::ClaimView,
};
use crate::{
    api::{Quantity, TenantContainer, TenantQuota, tenant_quota::TenantQuotaStatus},
    chain::{ShowError, show_as_read},
    ledger::Micros,
    lifecycle::{Goal, State},
    quota::{Amounts, Answer, Demand, Dimension, Ground, Held, QuotaError, Reservations, desk::Left, status},
};

/// Reason of the conditions and of the Event of a service that waits for its quota.
pub(super) const QUOTA_EXCEEDED: &str = "QuotaExceeded";

/// The course that may be taken: the one that was planned, or, where the quota has no room for it, the one that leaves
/// replicas and disks as they are.
pub(super) async fn admit(
    context: &Context,
    tenant: &Tenant,
    observed: &Observed,
    course: Course,
) -> Result<Course, QuotaError> {
    let Course::Keep(children) = course else { return Ok(course) };
    let org = &tenant.spec.tenant_org;
    let Some(quota) = of_org(context, org) else { return Ok(Course::Keep(children)) };
    match tenant.goal {
        Goal::Running | Goal::Paused => Ok(match context.desk.ask(context, org, &demand(context, tenant)).await? {
            Answer::Admitted => Course::Keep(children),
            Answer::Waits(message) => Course::Keep(as_it_is(tenant, observed, children, message)),
        }),
        // What ends needs nothing new. While it drains it keeps what it has, whatever else its spec asks for by now.
        Goal::Stopped | Goal::Deleted => {
            context.desk.withdraw(context, org, tenant.target.uid).await?;
            let asks = Amounts::of(&tenant.spec, children.shape.replicas);
            let has = status::reservation(&quota, tenant.target.uid).unwrap_or(Amounts::ZERO);
            let is_more = children.shape.replicas > 0 && !has.covers(&asks);
            Ok(Course::Keep(if is_more {
                as_it_is(tenant, observed, children, "it has no room in its quota".to_owned())
            } else {
                children
            }))
        }
    }
}

/// Gives back what a service that has come to rest has reserved beyond what it holds: after a release, a scaling or a stop.
pub(super) async fn give_back(context: &Context, tenant: &Tenant, object: &TenantContainer) -> Result<u32, QuotaError> {
    if of_org(context, &tenant.spec.tenant_org).is_none() {
        return Ok(0);
    }
    let holds = match tenant.shown.state {
        Some(State::Running | State::Paused) => demand(context, tenant).need,
        Some(State::Stopped) => Amounts::of_disks(disks(context, tenant, |_| true)),
        _ => return Ok(0),
    };
    let is_newest = is_newest(context, tenant, object);
    context.desk.give_back(context, &tenant.spec.tenant_org, tenant.target.uid, holds, is_newest).await
}

/// Gives back what a service has reserved that waits for more, and of which nothing was made yet: an older one may wait for
/// just that, and then nobody would ever begin.
pub(super) async fn hand_back(context: &Context, tenant: &Tenant, object: &TenantContainer) -> Result<u32, QuotaError> {
    let sets: Api<StatefulSet> = Api::namespaced(context.client.clone(), &tenant.target.namespace);
    let has_nothing = async {
        let set = sets.get_metadata_opt(&names::main(&tenant.target.name)).await;
        let set = set.map_err(|source| error(&tenant.spec.tenant_org, "read", "a StatefulSet", source))?;
        Ok(set.is_none() && is_newest(context, tenant, object).await?)
    };
    let holds = Amounts::of_disks(disks(context, tenant, |_| true));
    context.desk.give_back(context, &tenant.spec.tenant_org, tenant.target.uid, holds, has_nothing).await
}

/// Whether the API server has the object as this pass has it.
async fn is_newest(context: &Context, tenant: &Tenant, object: &TenantContainer) -> Result<bool, QuotaError> {
    let objects: Api<TenantContainer> = Api::namespaced(context.client.clone(), &tenant.target.namespace);
    let now = objects.get_metadata_opt(&tenant.target.name).await;
    let now = now.map_err(|source| error(&tenant.spec.tenant_org, "read", &tenant.target.to_string(), source))?;
    Ok(now.is_some_and(|now| (now.uid(), now.resource_version()) == (object.uid(), object.resource_version())))
}

/// The quota of an organisation, if it has one.
fn of_org(context: &Context, tenant_org: &str) -> Option<Arc<TenantQuota>> {
    Ground::quota(context, &TenantQuota::name_for(tenant_org)).filter(|quota| quota.spec.tenant_org == tenant_org)
}

/// All that a service needs to be as asked for. Disks of replicas that were scaled away are still there.
fn demand(context: &Context, tenant: &Tenant) -> Demand {
    let need = Amounts::of(&tenant.spec, tenant.spec.replicas);
    let wanted =
        |name: &str| (0..tenant.spec.replicas).any(|ordinal| names::claim(&tenant.target.name, ordinal) == name);
    let spare = disks(context, tenant, |claim| !wanted(&claim.name_any()));
    Demand {
        uid: tenant.target.uid,
        namespace: tenant.target.namespace.clone(),
        name: tenant.target.name.clone(),
        created: tenant.created_at,
        need: need.plus(&Amounts::of_disks(spare)),
    }
}

/// Bytes of a service's disks, of those that meet a condition.
fn disks(context: &Context, tenant: &Tenant, condition: impl Fn(&ClaimView) -> bool) -> i64 {
    if tenant.spec.resources.disk.is_none() {
        return 0;
    }
    let all = context.caches.claims.everything().into_iter();
    size(all.filter(|claim| is_of(claim, tenant) && condition(claim)).map(|claim| claim.seen.requested.clone()))
}

fn size(requested: impl Iterator<Item = Option<String>>) -> i64 {
    let bytes = requested.filter_map(|text| Some(text?.parse::<Quantity>().ok()?.units()));
    bytes.fold(0, i64::saturating_add)
}

/// The course that writes no replica and no disk. A service that is to be out of its Service leaves it all the same.
fn as_it_is(tenant: &Tenant, observed: &Observed, planned: Children, message: String) -> Children {
    let set = observed.stateful_set.as_ref();
    let shape = Shape {
        replicas: set.map_or(0, |set| set.seen.replicas),
        // What comes back comes back as asked for.
        serving: planned.shape.serving && tenant.shown.state != Some(State::Paused),
    };
    let main = names::main(&tenant.target.name);
    let hides = |child: &super::build::Child| child.kind == ChildKind::Service && child.name == main;
    let all = planned.all.into_iter().filter(|child| !shape.serving && hides(child)).collect();
    let built_from = set.and_then(|set| set.built_from()).map(ToOwned::to_owned);
    Children { shape, all, make_missing: false, wait: Some(Wait { message, built_from }) }
}

impl Ground for Context {
    fn quota(&self, name: &str) -> Option<Arc<TenantQuota>> {
        self.quotas.get(&ObjectRef::new(name))
    }

    fn demands(&self, tenant_org: &str) -> Vec<Demand> {
        let quota = Ground::quota(self, &TenantQuota::name_for(tenant_org));
        let held = quota.and_then(|quota| status::reservations(&quota)).unwrap_or_default();
        let theirs = self.tenants.everything().into_iter().filter(|object| object.spec.tenant_org == tenant_org);
        theirs
            .filter_map(|object| {
                let object = self.tenants.get(&ObjectRef::from_obj(&*object))?;
                let uid = object.uid()?.parse().ok()?;
                let need = Amounts::of(&object.spec.effective(), object.spec.replicas);
                let has_all = |held: &Held| held.amounts.covers(&need);
                // Most have what they need: they are not looked at any closer.
                if object.spec.resources.disk.is_none() && held.get(&uid).is_some_and(has_all) {
                    return None;
                }
                let namespace = self.caches.namespaces.get(&ObjectRef::new(&object.namespace()?))?;
                let rival = self.rivals.reserve(&object).err();
                let around = Surroundings { cluster: self.cluster, namespace: &namespace, rival: rival.as_ref() };
                let tenant = validate::validate(&object, around).ok()?;
                let asks = matches!(tenant.goal, Goal::Running | Goal::Paused)
                    && !tenant.left_alone
                    && !tenant.namespace_terminating;
                asks.then(|| demand(self, &tenant))
            })
            .collect()
    }

    fn knows(&self, uid: Uuid, held: &Held) -> bool {
        let object = self.tenants.get(&ObjectRef::new(&held.name).within(&held.namespace));
        object.and_then(|object| object.uid()) == Some(uid.to_string())
    }

    fn term(&self) -> Option<(u64, Micros)> {
        Some(((self.epoch)()?, (self.clock)()))
    }

    async fn read(&self, name: &str) -> Result<Option<Arc<TenantQuota>>, QuotaError> {
        let quotas: Api<TenantQuota> = Api::all(self.client.clone());
        let quota = quotas.get_opt(name).await.map_err(|source| error(name, "read", "it", source))?;
        Ok(quota.map(|quota| self.quotas.wrote(quota)))
    }

    async fn write(&self, quota: &TenantQuota, status: &TenantQuotaStatus) -> Result<(), QuotaError> {
        let quotas: Api<TenantQuota> = Api::all(self.client.clone());
        match show_as_read(&quotas, quota, status).await {
            Ok(written) => {
                self.quotas.wrote(written);
                Ok(())
            }
            // One that is gone, or is another by now, is read again as well.
            Err(ShowError::Overtaken(_) | ShowError::Gone(_)) => Err(QuotaError::Overtaken(quota.name_any())),
            Err(ShowError::Api { subject: _, source }) => {
                Err(error(&quota.name_any(), "written", "its status", *source))
            }
        }
    }

    async fn count(&self, tenant_org: &str) -> Result<Reservations, QuotaError> {
        let label = |namespace: &str| {
            let namespace = self.caches.namespaces.get(&ObjectRef::new(namespace))?;
            namespace.metadata.labels.as_ref()?.get(names::TENANT_ORG).cloned()
        };
        count(&self.client, tenant_org, |namespace| label(namespace).as_deref() == Some(tenant_org)).await
    }

    async fn left(&self, uid: Uuid, held: &Held) -> Result<Left, QuotaError> {
        let failed = |source| error(&held.namespace, "read", &format!("{}/{}", held.namespace, held.name), source);
        let is_its = |owner: Option<&str>| owner == Some(&uid.to_string());
        let known = self.caches.claims.everything().into_iter().filter(|claim| is_its(claim.label(names::OWNER_UID)));
        let known = Amounts::of_disks(size(known.map(|claim| claim.seen.requested.clone())));
        if known == held.amounts && known != Amounts::ZERO {
            // Found out before, and nothing has changed.
            return Ok(Left::Everything);
        }
        let objects: Api<TenantContainer> = Api::namespaced(self.client.clone(), &held.namespace);
        let object = objects.get_metadata_opt(&held.name).await.map_err(failed)?;
        if object.and_then(|object| object.uid()) == Some(uid.to_string()) {
            return Ok(Left::Everything);
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &held.namespace);
        let its = ListParams::default().labels(&format!("{}={uid}", names::OWNER_UID));
        let claims = claims.list(&its).await.map_err(failed)?;
        Ok(Left::Disks(size(claims.items.into_iter().map(|claim| Some(storage(&claim)?.to_owned())))))
    }
}

/// What runs of an organisation, by its StatefulSets, its disks and what its services declare: the way back to reservations
/// that were lost, and the first count of a new quota. Whoever was admitted and has nothing yet asks again.
///
/// Labels are written by whoever may write the object: they count in a namespace that `is_theirs`, and for a service that is
/// known to be.
async fn count(
    client: &Client,
    tenant_org: &str,
    is_theirs: impl Fn(&str) -> bool,
) -> Result<Reservations, QuotaError> {
    let name = TenantQuota::name_for(tenant_org);
    let failed = |what: &'static str| {
        let name = name.clone();
        move |source| error(&name, "read", what, source)
    };
    let theirs = ListParams::default().labels(&format!(
        "{}={},{}={tenant_org}",
        names::MANAGED_BY,
        names::BERTH,
        names::TENANT_ORG
    ));
    let sets: Api<StatefulSet> = Api::all(client.clone());
    let sets = sets.list(&theirs).await.map_err(failed("the StatefulSets that run"))?.items;
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let claims = claims.list(&theirs).await.map_err(failed("the disks that there are"))?.items;
    // One that cannot be read keeps nobody from being counted.
    let objects: Api<DeserializeGuard<TenantContainer>> = Api::all(client.clone());
    let by_org = ListParams::default().fields(&format!("spec.tenantOrg={tenant_org}"));
    let objects = objects.list(&by_org).await.map_err(failed("the services that there are"))?.items;
    let objects = objects.into_iter().filter_map(|object| object.0.ok());
    // What has a history is theirs whatever became of its namespace since.
    let has_history =
        |object: &TenantContainer| object.status.as_ref().is_some_and(|status| status.ledger.sequence > 0);
    let counts =
        |object: &TenantContainer| has_history(object) || object.namespace().is_some_and(|name| is_theirs(&name));
    let objects = objects.filter(|object| counts(object));
    let objects: BTreeMap<_, _> = objects.filter_map(|object| Some((object.uid()?, object))).collect();
    let mut held = Reservations::new();
    let mut add = |metadata: &ObjectMeta, amounts: Amounts| {
        let labels = metadata.labels.as_ref();
        let label = |name: &str| labels.and_then(|labels| labels.get(name)).cloned();
        let Some(owner) = label(names::OWNER_UID) else { return };
        let Ok(uid) = owner.parse() else { return };
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let is_known = || objects.get(&owner).is_some_and(|object| object.namespace().as_ref() == Some(&namespace));
        if !is_theirs(&namespace) && !is_known() {
            return;
        }
        // What names no service was not made by Berth.
        let Some(name) = label(names::TENANT_CONTAINER).filter(|name| !name.is_empty()) else { return };
        let one = held.entry(uid).or_insert_with(|| Held { namespace, name, amounts: Amounts::ZERO });
        one.amounts = one.amounts.plus(&amounts);
    };
    for set in &sets {
        let owner = set.owner_references().iter().find(|owner| owner.controller == Some(true));
        let object = owner.and_then(|owner| objects.get(&owner.uid));
        add(&set.metadata, running(set, object));
    }
    for claim in &claims {
        let bytes = size(std::iter::once(storage(claim).map(ToOwned::to_owned)));
        add(&claim.metadata, Amounts::of_disks(bytes));
    }
    held.retain(|_, one| one.amounts != Amounts::ZERO);
    Ok(held)
}

/// What a StatefulSet's replicas have; its disks are claims of their own.
fn running(set: &StatefulSet, object: Option<&TenantContainer>) -> Amounts {
    let spec = &set.spec;
    let told = spec.replicas.unwrap_or(1);
    let replicas = i64::from(told.max(set.status.as_ref().map_or(0, |status| status.replicas)));
    let phase = object.and_then(|object| object.status.as_ref()?.phase.as_deref());
    if replicas == 0 && (object.is_none() || phase == Some(State::Stopped.phase())) {
        return Amounts::ZERO;
    }
    let container = spec.template.spec.as_ref().and_then(|pod| pod.containers.first());
    let limits = container.and_then(|container| container.resources.as_ref()?.limits.clone()).unwrap_or_default();
    let of = |name: &str| limits.get(name).and_then(|quantity| quantity.0.parse::<Quantity>().ok());
    let gpus = limits.iter().filter(|(name, _)| name.contains('/')).filter_map(|(_, quantity)| quantity.0.parse().ok());
    let gpus = gpus.map(|quantity: Quantity| quantity.units()).fold(0, i64::saturating_add);
    let vectors = object.map_or(0, |object| Amounts::of(&object.spec.effective(), 0).get(Dimension::Vectors));
    Amounts::by(|dimension| match dimension {
        Dimension::Containers => 1,
        Dimension::Replicas => replicas,
        Dimension::Cpu => of("cpu").map_or(0, |cpu| cpu.millis()).saturating_mul(replicas),
        Dimension::Memory => of("memory").map_or(0, |memory| memory.units()).saturating_mul(replicas),
        Dimension::Disk => 0,
        Dimension::Gpu => gpus.saturating_mul(replicas),
        Dimension::Vectors => vectors,
    })
}

fn storage(claim: &PersistentVolumeClaim) -> Option<&str> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    Some(&resources.requests.as_ref()?.get("storage")?.0)
}

fn error(quota: &str, verb: &'static str, what: &str, source: kube::Error) -> QuotaError {
    QuotaError::Api { quota: TenantQuota::name_for(quota), verb, what: what.to_owned(), source: Box::new(source) }
}
