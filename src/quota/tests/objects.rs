//! Builders.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    api::TenantQuota,
    ledger::Micros,
    quota::{Amounts, Demand, Dimension},
};

pub(super) const ORG: &str = "acme";

/// A quota as the API server returns it, never looked at.
pub(super) fn quota(limits: Value) -> TenantQuota {
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "TenantQuota",
        "metadata": {"name": ORG, "uid": Uuid::from_u128(7), "generation": 1, "resourceVersion": "1"},
        "spec": {"tenantOrg": ORG, "limits": limits},
        "status": {"observedGeneration": -1},
    }))
    .unwrap()
}

/// Who asks, made at this second.
pub(super) fn demand(uid: u128, created: i64, need: Amounts) -> Demand {
    let (uid, name) = (Uuid::from_u128(uid), format!("s-{uid}"));
    Demand { uid, namespace: ORG.to_owned(), name, created: Micros(created * 1_000_000), need }
}

/// A service of so many replicas and so much CPU in all, in cores.
pub(super) fn need(replicas: i64, cpu: i64) -> Amounts {
    Amounts::by(|dimension| match dimension {
        Dimension::Containers => 1,
        Dimension::Replicas => replicas,
        Dimension::Cpu => cpu * 1000,
        _ => 0,
    })
}
