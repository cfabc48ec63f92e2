//! What follows where the ledger did not take a record because its chain ends elsewhere than the status says. The rules
//! are the ledger's (`ledger::protocol`), the very functions that its model explores; here they get what was seen.
//!
//! Owns: turning an answer of the ledger into the protocol's words, and the fresh read that it may ask for.
//! Must never: decide.

use kube::{Api, Client};

use super::{context::PassError, show::ShowError, validate::Tenant};
use crate::{
    api::TenantContainer,
    ledger::{
        Hash, Head, LedgerError, Record,
        protocol::{Database, Link, Reading, Relation, StatusRead, Step, View, next_step},
    },
    lifecycle::{Goal, State},
};

/// The records that a status can carry (docs/ledger.md, "Homes").
const SLOTS: usize = 32;

/// The ledger has `record` where another one was to be: whether that is the one to show.
pub(super) async fn one_ahead(client: &Client, tenant: &Tenant, record: Record) -> Result<Record, PassError> {
    let terminal = record.envelope().to == Some(State::Deleted);
    let relation = Relation::OneAhead { head: link(record.head()), terminal };
    match resolve(client, tenant, relation).await? {
        Step::Adopt(_) => Ok(record),
        _ => Err(parted(tenant, record.head().sequence)),
    }
}

/// The ledger's chain ends at `head`: what to say of it.
pub(super) async fn elsewhere(client: &Client, tenant: &Tenant, head: Head, shown_is_ancestor: bool) -> PassError {
    let relation = if shown_is_ancestor {
        Relation::FurtherAhead { head: link(head) }
    } else {
        // Whether the ledger has the shown record at all is not in its answer; a fresh read comes first in any case.
        let end = (head != Head::GENESIS).then(|| link(head));
        Relation::Elsewhere { head: end, shown: link(tenant.shown.head), shown_stored: true }
    };
    match resolve(client, tenant, relation).await {
        // Rewound or restored: how both branches are kept comes with the outage work; until then nothing is shown.
        Ok(_) => parted(tenant, head.sequence),
        Err(error) => error,
    }
}

async fn resolve(client: &Client, tenant: &Tenant, relation: Relation<Hash>) -> Result<Step<Hash>, PassError> {
    let mut view = View {
        deleting: tenant.goal == Goal::Deleted,
        slots_left: SLOTS.saturating_sub(tenant.shown.status.ledger.pending.len()),
        status: StatusRead::Cached,
        database: Database::Answered(Reading { relation, missing: vec![] }),
    };
    let step = next_step(&view);
    if step != Step::RereadStatus {
        return Ok(step);
    }
    if !shows_still(client, tenant).await? {
        return Err(ShowError::Overtaken(tenant.target.to_string()).into());
    }
    view.status = StatusRead::QuorumAfterDatabase;
    Ok(next_step(&view))
}

/// Whether the object, read anew from the API server, still shows the head that this pass began with.
async fn shows_still(client: &Client, tenant: &Tenant) -> Result<bool, PassError> {
    let api: Api<TenantContainer> = Api::namespaced(client.clone(), &tenant.target.namespace);
    let now = api
        .get_opt(&tenant.target.name)
        .await
        .map_err(|source| ShowError::Api { subject: tenant.target.to_string(), source: Box::new(source) })?;
    let same_object = |object: &TenantContainer| object.metadata.uid.as_deref() == Some(&tenant.target.uid.to_string());
    let head =
        |object: &TenantContainer| object.status.as_ref().map_or(String::new(), |status| status.ledger.head.clone());
    Ok(now.is_some_and(|object| same_object(&object) && head(&object) == tenant.shown.status.ledger.head))
}

fn parted(tenant: &Tenant, ledger: u64) -> PassError {
    LedgerError::Parted { subject: tenant.target.to_string(), ledger, shown: tenant.shown.head.sequence }.into()
}

fn link(head: Head) -> Link<Hash> {
    Link { sequence: head.sequence, hash: head.hash }
}
