//! An AccessGrant as an object whose status shows a chain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client};

use crate::{
    api::{AccessGrant, LedgerStatus, access_grant::AccessGrantStatus},
    chain::Chained,
};

impl Chained for AccessGrant {
    type Status = AccessGrantStatus;

    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }

    fn status(&self) -> Option<&AccessGrantStatus> {
        self.status.as_ref()
    }

    fn ledger(status: &AccessGrantStatus) -> &LedgerStatus {
        &status.ledger
    }

    fn conditions(status: &AccessGrantStatus) -> &[Condition] {
        &status.conditions
    }
}
