//! A Deployment as an object whose status shows a chain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client};

use crate::{
    api::{Deployment, LedgerStatus, deployment::DeploymentStatus},
    chain::Chained,
};

impl Chained for Deployment {
    type Status = DeploymentStatus;

    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }

    fn status(&self) -> Option<&DeploymentStatus> {
        self.status.as_ref()
    }

    fn ledger(status: &DeploymentStatus) -> &LedgerStatus {
        &status.ledger
    }

    fn conditions(status: &DeploymentStatus) -> &[Condition] {
        &status.conditions
    }
}
