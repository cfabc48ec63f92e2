//! The PodDisruptionBudget: a drained node takes one replica at a time, and a replica that is broken anyway never blocks it.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{super::validate::Tenant, metadata, selector};
use crate::tenant::names;

/// Builds it.
pub fn build(tenant: &Tenant) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(tenant, names::main(&tenant.target.name)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(selector(tenant)), ..LabelSelector::default() }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
