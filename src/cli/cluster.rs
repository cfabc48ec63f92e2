//! What the cluster shows of its objects' chains and carries for them: statuses and tombstones, read for `berth verify`.
//!
//! Must never: write.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::ListParams};
use uuid::Uuid;

use super::{Failure, asking};
use crate::{
    api::{AccessGrant, Deployment, TenantContainer, TenantQuota},
    chain::{self, Chained},
    ledger::{ChainId, Head, Record, Shown, Stored, StoredHead, verify::Carried},
    tombstone::{self, Stone},
};

/// Objects in one answer of the API server.
const PAGE: u32 = 500;

/// Reads them all. A status that cannot be read is a note: the object itself says what is wrong with it.
pub(super) async fn shown(namespace: &str) -> Result<Shown, Failure> {
    let client = Client::try_default().await.map_err(asking("connecting"))?;
    let system = Api::<Namespace>::all(client.clone()).get("kube-system").await.map_err(asking("its identity"))?;
    let cluster: Uuid = system.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).unwrap_or_default();
    let mut shown = Shown { cluster: Some(cluster), ..Shown::default() };
    take_all::<TenantContainer>(&mut shown, cluster, &client).await.map_err(asking("TenantContainers"))?;
    take_all::<AccessGrant>(&mut shown, cluster, &client).await.map_err(asking("AccessGrants"))?;
    take_all::<Deployment>(&mut shown, cluster, &client).await.map_err(asking("Deployments"))?;
    take_all::<TenantQuota>(&mut shown, cluster, &client).await.map_err(asking("TenantQuotas"))?;
    let stones = tombstone::all(&client, namespace).await;
    for map in stones.map_err(|error| Failure::Cluster { doing: "tombstones", why: error.to_string() })? {
        match Stone::decode(&map) {
            Ok(stone) => {
                let (chain, place) = (ChainId { cluster: stone.target.cluster, uid: stone.target.uid }, stone.name());
                shown.there.insert(chain);
                carry(&mut shown, chain, stone.terminal, stone.records, &format!("tombstone {place}"));
            }
            Err(error) => {
                // Whose it is, nobody knows.
                shown.cluster = None;
                shown.notes.push(error.to_string());
            }
        }
    }
    Ok(shown)
}

/// All objects of one kind; none where the cluster does not know it.
async fn take_all<K: Chained>(shown: &mut Shown, cluster: Uuid, client: &Client) -> Result<(), kube::Error> {
    let objects: Api<K> = Api::all(client.clone());
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = match objects.list(&page).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            list => list?,
        };
        for object in &list.items {
            take(shown, cluster, object);
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}

fn take<K: Chained>(shown: &mut Shown, cluster: Uuid, object: &K) {
    let metadata = object.meta();
    let Some(uid) = metadata.uid.as_deref().and_then(|uid| uid.parse().ok()) else { return };
    let chain = ChainId { cluster, uid };
    shown.there.insert(chain);
    let Some(status) = object.status() else { return };
    let (namespace, name) = (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref());
    let about = format!("{} {namespace}/{}", K::kind(&()), name.unwrap_or_default());
    let ledger = K::ledger(status);
    match chain::head(ledger) {
        Ok(head) => {
            shown.heads.push(StoredHead { chain, head });
            let (records, unreadable) = chain::read(ledger);
            carry(shown, chain, head, records, &format!("status of {about}"));
            shown.notes.extend(unreadable.map(|why| format!("status.ledger.pending of {about}: {why}")));
        }
        Err((field, value)) => {
            shown.notes.push(format!("{about}: status.{field} is \"{value}\", which Berth cannot have written"));
        }
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
