//! What the cluster shows of its objects' chains and carries for them: statuses and tombstones, read for `berth verify`.
//!
//! Must never: write.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::ListParams};
use uuid::Uuid;

use super::Failure;
use crate::{
    api::TenantContainer,
    chain,
    ledger::{ChainId, Head, Record, Shown, Stored, StoredHead, verify::Carried},
    tenant::validate,
    tombstone::{self, Stone},
};

/// TenantContainers in one answer of the API server.
const PAGE: u32 = 500;

/// Reads them all. A status that cannot be read is a note: the object itself says what is wrong with it.
pub(super) async fn shown(namespace: &str) -> Result<Shown, Failure> {
    let failed = |doing| move |error: kube::Error| Failure::Cluster { doing, why: error.to_string() };
    let client = Client::try_default().await.map_err(failed("connecting"))?;
    let system = Api::<Namespace>::all(client.clone()).get("kube-system").await.map_err(failed("its identity"))?;
    let cluster: Uuid = system.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).unwrap_or_default();
    let mut shown = Shown::default();
    let tenants: Api<TenantContainer> = Api::all(client.clone());
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = tenants.list(&page).await.map_err(failed("TenantContainers"))?;
        for object in &list.items {
            take(&mut shown, cluster, object);
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    let stones = tombstone::all(&client, namespace).await;
    for map in stones.map_err(|error| Failure::Cluster { doing: "tombstones", why: error.to_string() })? {
        match Stone::decode(&map) {
            Ok(stone) => {
                let (chain, place) = (ChainId { cluster: stone.target.cluster, uid: stone.target.uid }, stone.name());
                carry(&mut shown, chain, stone.terminal, stone.records, &format!("tombstone {place}"));
            }
            Err(error) => shown.notes.push(error.to_string()),
        }
    }
    Ok(shown)
}

fn take(shown: &mut Shown, cluster: Uuid, object: &TenantContainer) {
    let Ok(target) = validate::identify(object, cluster) else { return };
    let chain = ChainId { cluster, uid: target.uid };
    match validate::shown(object.status.as_ref()) {
        Ok(status) => {
            shown.heads.push(StoredHead { chain, head: status.head });
            let (records, unreadable) = chain::read(&status.status.ledger);
            carry(shown, chain, status.head, records, &format!("status of {target}"));
            shown.notes.extend(unreadable.map(|why| format!("status.ledger.pending of {target}: {why}")));
        }
        Err(refusal) => shown.notes.push(format!("{target}: {refusal}")),
    }
}

fn carry(shown: &mut Shown, chain: ChainId, head: Head, records: Vec<Record>, place: &str) {
    if records.is_empty() {
        return;
    }
    let stored = |record: Record| Stored {
        chain,
        sequence: record.envelope().seq,
        bytes: record.bytes().to_owned(),
        hash: record.hash(),
        details: record.details().map(ToOwned::to_owned),
        place: place.to_owned(),
    };
    let carried = shown.carried.entry(chain).or_insert_with(|| Carried { head, records: vec![] });
    carried.records.extend(records.into_iter().map(stored));
}
