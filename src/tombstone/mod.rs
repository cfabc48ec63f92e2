//! Tombstones: what carries the last records of an object that is deleted while the database is away.
//!
//! A finalizer never waits for the database. What its object's status carried, the ending included, goes into a ConfigMap in
//! Berth's own namespace first, and stays there until the database has all of it (docs/ledger.md, rules 5 and 6).
//!
//! Owns: that ConfigMap, from the moment it is written to its removal. Must never: decide when (`ledger::protocol` does), or
//! overwrite another ending.

mod format;
mod settle;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};

/// Tombstones in one answer of the API server.
const PAGE: u32 = 500;

pub use format::{LABEL, Stone, Unreadable};
pub use settle::{repair, settle};

/// A tombstone could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum TombstoneError {
    /// The API server did not do it.
    #[error("the tombstone {name} could not be {verb}")]
    Api {
        /// Its name.
        name: String,
        /// What was to be done.
        verb: &'static str,
        /// What the API server or the connection said.
        source: Box<kube::Error>,
    },
    /// Something else is there.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Writes a tombstone, or adds to the one that is there what it lacks.
pub async fn write(client: &Client, namespace: &str, stone: &Stone) -> Result<(), TombstoneError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let name = stone.name();
    let failed = |verb| {
        let name = name.clone();
        move |source| TombstoneError::Api { name, verb, source: Box::new(source) }
    };
    match api.create(&PostParams::default(), &stone.encode()).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(source) => return Err(failed("written")(source)),
    }
    // It has this very ending: it may lack a record that was not pending then, and loses none.
    let known = api.get(&name).await.map_err(failed("read"))?;
    // One that cannot be read may be a newer release's: what it has is not thrown away.
    let mut map = stone.with(Stone::decode(&known)?).encode();
    map.metadata.resource_version = known.metadata.resource_version;
    api.replace(&name, &PostParams::default(), &map).await.map(drop).map_err(failed("written"))
}

/// Every tombstone there is.
pub async fn all(client: &Client, namespace: &str) -> Result<Vec<ConfigMap>, TombstoneError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut all = vec![];
    let mut page = ListParams::default().labels(&format!("{LABEL}=true")).limit(PAGE);
    loop {
        let list = api.list(&page).await.map_err(|source| TombstoneError::Api {
            name: format!("list in {namespace}"),
            verb: "read",
            source: Box::new(source),
        })?;
        all.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Removes a tombstone as it was read.
async fn remove(client: &Client, namespace: &str, map: &ConfigMap) -> Result<(), TombstoneError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let name = map.metadata.name.clone().unwrap_or_default();
    let as_read =
        Preconditions { uid: map.metadata.uid.clone(), resource_version: map.metadata.resource_version.clone() };
    match api.delete(&name, &DeleteParams::default().preconditions(as_read)).await {
        Ok(_) => Ok(()),
        // Somebody was faster, or has added to it: it is looked at again.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => Err(TombstoneError::Api { name, verb: "removed", source: Box::new(source) }),
    }
}
