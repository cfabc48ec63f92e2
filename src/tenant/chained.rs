//! A TenantContainer as an object whose status shows a chain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client};

use crate::{
    api::{LedgerStatus, TenantContainer, tenant_container::TenantContainerStatus},
    chain::Chained,
};

impl Chained for TenantContainer {
    type Status = TenantContainerStatus;

    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }

    fn status(&self) -> Option<&TenantContainerStatus> {
        self.status.as_ref()
    }

    fn ledger(status: &TenantContainerStatus) -> &LedgerStatus {
        &status.ledger
    }

    fn conditions(status: &TenantContainerStatus) -> &[Condition] {
        &status.conditions
    }
}
