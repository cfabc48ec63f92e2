//! What is there: the children of one TenantContainer, as the caches hold them.
//!
//! Owns: finding children by name, and telling ours from others' by uid. Must never: ask the API server, or decide.

use std::{collections::BTreeMap, sync::Arc};

use kube::Resource;
use kube_runtime::reflector::ObjectRef;

use super::{
    cache::Cache,
    names,
    validate::Tenant,
    view::{
        BudgetView, ClaimView, NamespaceView, PodView, Project, ServiceAccountView, ServiceView, StatefulSetView, View,
    },
};

/// The caches that the children are read from.
#[derive(Clone)]
pub struct Caches {
    /// Namespaces.
    pub namespaces: Cache<NamespaceView>,
    /// StatefulSets.
    pub stateful_sets: Cache<StatefulSetView>,
    /// Pods.
    pub pods: Cache<PodView>,
    /// Claims.
    pub claims: Cache<ClaimView>,
    /// Services.
    pub services: Cache<ServiceView>,
    /// ServiceAccounts.
    pub service_accounts: Cache<ServiceAccountView>,
    /// PodDisruptionBudgets.
    pub budgets: Cache<BudgetView>,
}

/// The children of one TenantContainer.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The replicas' controller.
    pub stateful_set: Option<Arc<StatefulSetView>>,
    /// The Service that clients use.
    pub service: Option<Arc<ServiceView>>,
    /// The headless Service.
    pub headless: Option<Arc<ServiceView>>,
    /// The identity of the pods.
    pub service_account: Option<Arc<ServiceAccountView>>,
    /// The budget.
    pub budget: Option<Arc<BudgetView>>,
    /// Claims by ordinal; those of replicas that are no longer wanted too.
    pub claims: BTreeMap<i32, Arc<ClaimView>>,
    /// Pods by ordinal.
    pub pods: BTreeMap<i32, Arc<PodView>>,
    /// What the kubelet cannot mount since it does not exist, by ordinal; only of replicas that were asked about.
    pub missing_files: BTreeMap<i32, String>,
    /// Why the API server refused to change a replica's CPU, by ordinal; only of those that were to be changed.
    pub unresized: BTreeMap<i32, String>,
}

impl Caches {
    /// The children of `tenant`.
    pub fn observe(&self, tenant: &Tenant) -> Observed {
        let name = &tenant.target.name;
        let stateful_set = find(&self.stateful_sets, tenant, &names::main(name));
        let most =
            stateful_set.as_ref().map_or(0, |set| set.seen.replicas.max(set.seen.current)).max(tenant.spec.replicas);
        let by_ordinal = 0..most;
        Observed {
            service: find(&self.services, tenant, &names::main(name)),
            headless: find(&self.services, tenant, &names::headless(name)),
            service_account: find(&self.service_accounts, tenant, &names::main(name)),
            budget: find(&self.budgets, tenant, &names::main(name)),
            claims: by_ordinal
                .clone()
                .filter_map(|i| Some((i, find(&self.claims, tenant, &names::claim(name, i))?)))
                .collect(),
            pods: by_ordinal.filter_map(|i| Some((i, self.pod(tenant, &names::pod(name, i))?))).collect(),
            stateful_set,
            missing_files: BTreeMap::new(),
            unresized: BTreeMap::new(),
        }
    }

    /// Every claim that the cache knows of `tenant`, also those of replicas long gone.
    pub fn all_claims(&self, tenant: &Tenant) -> Vec<Arc<ClaimView>> {
        self.claims.filter(|claim| is_of(claim, tenant))
    }

    /// A pod is the StatefulSet's, not ours; the label says whose replica it is.
    fn pod(&self, tenant: &Tenant, name: &str) -> Option<Arc<PodView>> {
        let pod = self.pods.get(&ObjectRef::new(name).within(&tenant.target.namespace))?;
        (pod.label(names::OWNER_UID) == Some(&tenant.target.uid.to_string())).then_some(pod)
    }
}

fn find<P: Project>(cache: &Cache<View<P>>, tenant: &Tenant, name: &str) -> Option<Arc<View<P>>> {
    let child = cache.get(&ObjectRef::new(name).within(&tenant.target.namespace))?;
    is_of(&child, tenant).then_some(child)
}

/// Whether a child is this very tenant's: it owns it. A claim that somebody deleted under a running replica is made anew
/// by the StatefulSet controller, from our template: it bears our label and belongs to nobody yet.
pub fn is_of<P: Project>(child: &View<P>, tenant: &Tenant) -> bool {
    let uid = tenant.target.uid.to_string();
    match child.owner_uid() {
        Some(owner) => owner == uid,
        None => {
            P::Kind::kind(&()) == "PersistentVolumeClaim"
                && child.label(names::OWNER_UID) == Some(&uid)
                && child.metadata.namespace.as_ref() == Some(&tenant.target.namespace)
        }
    }
}
