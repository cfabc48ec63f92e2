//! Which TenantContainers a Deployment selects, and which Deployment has them where two do.
//!
//! Owns: those decisions. Must never: ask anybody; namespaces and objects come in as arguments.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use crate::api::{Deployment, TenantContainer, deployment};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What a Deployment selects by.
pub struct Reach<'a> {
    home: &'a str,
    namespaces: Option<Selector>,
    objects: Selector,
}

/// A selector that can be asked; none where it is not one, which the schema refuses.
pub fn selector(selector: &deployment::Selector) -> Option<Selector> {
    LabelSelector::from(selector).try_into().ok()
}

impl<'a> Reach<'a> {
    /// How far `object` reaches; none where its selectors are not such.
    pub fn of(object: &'a Deployment) -> Option<Self> {
        let namespaces = match &object.spec.namespace_selector {
            Some(other) => Some(selector(other)?),
            None => None,
        };
        Some(Self {
            home: object.metadata.namespace.as_deref()?,
            namespaces,
            objects: selector(&object.spec.selector)?,
        })
    }

    /// Whether it selects `tenant`, in a namespace with these labels.
    pub fn selects(&self, tenant: &TenantContainer, namespace: impl FnOnce(&str) -> Option<Labels>) -> bool {
        let Some(place) = tenant.metadata.namespace.as_deref() else { return false };
        let empty = Labels::new();
        self.objects.matches(tenant.metadata.labels.as_ref().unwrap_or(&empty))
            && match &self.namespaces {
                None => place == self.home,
                Some(selector) => namespace(place).is_some_and(|labels| selector.matches(&labels)),
            }
    }
}

/// Another Deployment has a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The target, as `namespace/name`.
    pub target: String,
    /// Who has it, as `namespace/name`.
    pub first: String,
}

/// Who stands in the way of `object`, if anybody does: an older Deployment that selects one of its targets and is not itself
/// refused. `all` are the Deployments there are, `tenants` the TenantContainers.
pub fn conflict(
    object: &Deployment,
    all: &[Arc<Deployment>],
    tenants: &[Arc<TenantContainer>],
    namespace: impl Fn(&str) -> Option<Labels>,
) -> Option<Conflict> {
    // One that is being deleted does nothing any more, whatever holds it.
    let stands = |other: &&Arc<Deployment>| other.metadata.deletion_timestamp.is_none() && age(other) < age(object);
    let mut older: Vec<_> = all.iter().filter(stands).map(|other| &**other).collect();
    older.sort_by_key(|other| age(other));
    older.push(object);
    let mut owners: HashMap<&str, &Deployment> = HashMap::new();
    for one in older {
        let Some(reach) = Reach::of(one) else { continue };
        let selected: Vec<_> = tenants.iter().filter(|tenant| reach.selects(tenant, &namespace)).collect();
        let taken = selected.iter().find_map(|tenant| {
            let first = owners.get(tenant.metadata.uid.as_deref()?)?;
            Some(Conflict { target: full_name(&tenant.metadata), first: full_name(&first.metadata) })
        });
        match taken {
            Some(conflict) if std::ptr::eq(one, object) => return Some(conflict),
            Some(_) => {}
            None => owners.extend(selected.iter().filter_map(|tenant| Some((tenant.metadata.uid.as_deref()?, one)))),
        }
    }
    None
}

/// Who came first; of two at the same second, one, always the same.
fn age(object: &Deployment) -> (Option<jiff::Timestamp>, Option<&str>) {
    let metadata = &object.metadata;
    (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.uid.as_deref())
}

fn full_name(metadata: &kube::api::ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}
