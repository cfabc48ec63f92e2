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
        Hash, Head, Outcome, Record,
        protocol::{Database, Link, Reading, Relation, StatusRead, Step, View, next_step},
    },
    lifecycle::{Goal, State},
};

/// The records that a status can carry (docs/ledger.md, "Homes").
const SLOTS: usize = 32;

/// The record to show instead of the one that was refused, or why none is shown.
pub(super) async fn resolve(client: &Client, tenant: &Tenant, answer: Outcome) -> Result<Option<Record>, PassError> {
    let (relation, ahead) = match answer {
        Outcome::Durable(_) => return Ok(None),
        Outcome::Adopt(record) => {
            let terminal = record.envelope().to == Some(State::Deleted);
            (Relation::OneAhead { head: link(record.head()), terminal }, Some(*record))
        }
        Outcome::Elsewhere { head, shown_is_ancestor: true } => (Relation::FurtherAhead { head: link(head) }, None),
        // Whether the ledger has the shown record at all is not in its answer; a fresh read comes first in any case.
        Outcome::Elsewhere { head, shown_is_ancestor: false } => (
            Relation::Elsewhere {
                head: (head != Head::GENESIS).then(|| link(head)),
                shown: link(tenant.shown.head),
                shown_stored: true,
            },
            None,
        ),
    };
    let ledger = match &relation {
        Relation::Same => tenant.shown.head.sequence,
        Relation::OneAhead { head, .. } | Relation::FurtherAhead { head } => head.sequence,
        Relation::Elsewhere { head, .. } => head.as_ref().map_or(0, |head| head.sequence),
    };
    let mut view = View {
        deleting: tenant.goal == Goal::Deleted,
        slots_left: SLOTS.saturating_sub(tenant.shown.status.ledger.pending.len()),
        status: StatusRead::Cached,
        database: Database::Answered(Reading { relation, missing: vec![] }),
    };
    if next_step(&view) == Step::RereadStatus {
        if !shows_still(client, tenant).await? {
            return Err(ShowError::Overtaken(subject(tenant)).into());
        }
        view.status = StatusRead::QuorumAfterDatabase;
    }
    match (next_step(&view), ahead) {
        (Step::Adopt(_), Some(record)) => Ok(Some(record)),
        // Rewound or restored: how both branches are kept comes with the outage work; until then nothing is shown.
        _ => Err(PassError::Parted { subject: subject(tenant), ledger, shown: tenant.shown.head.sequence }),
    }
}

/// Whether the object, read anew from the API server, still shows the head that this pass began with.
async fn shows_still(client: &Client, tenant: &Tenant) -> Result<bool, PassError> {
    let api: Api<TenantContainer> = Api::namespaced(client.clone(), &tenant.target.namespace);
    let now = api
        .get_opt(&tenant.target.name)
        .await
        .map_err(|source| ShowError::Api { subject: subject(tenant), source: Box::new(source) })?;
    let same_object = |object: &TenantContainer| object.metadata.uid.as_deref() == Some(&tenant.target.uid.to_string());
    let head =
        |object: &TenantContainer| object.status.as_ref().map_or(String::new(), |status| status.ledger.head.clone());
    Ok(now.is_some_and(|object| same_object(&object) && head(&object) == tenant.shown.status.ledger.head))
}

fn link(head: Head) -> Link<Hash> {
    Link { sequence: head.sequence, hash: head.hash }
}

fn subject(tenant: &Tenant) -> String {
    format!("{}/{}", tenant.target.namespace, tenant.target.name)
}
