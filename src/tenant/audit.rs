//! Tells the audit that a request began, and what came of it.
//!
//! A pass whose status write fails tells the same again, perhaps in other words. The first account stands, and whoever
//! tells another one gets it back: what is shown is what the audit says.
//!
//! Owns: those two entries. Must never: decide what a request is, or whether it is over.

use tracing::warn;

use super::{record, requests, validate::Tenant};
use crate::{
    api::tenant_container::OperationStatus,
    chain,
    ledger::{Entry, Ledger, LedgerError, Outcome, Record, Seal},
};

/// Notes `request`; the one before it, if it is not over, is superseded. Answers with the request as the audit has it.
pub(super) async fn start(
    ledger: &Ledger,
    tenant: &Tenant,
    request: OperationStatus,
    seal: Seal,
) -> Result<OperationStatus, LedgerError> {
    let before = tenant.shown.status.operation.as_ref();
    if let Some(unfinished) = before.filter(|operation| operation.result.is_none()) {
        let at = Seal { at: tenant.request.at, ..seal };
        tell(ledger, record::operation_finished(tenant, unfinished, requests::SUPERSEDED, at)).await?;
    }
    Ok(match tell(ledger, record::operation_started(tenant, &request, seal)).await? {
        Some(told) => requests::as_told(&told, request),
        None => request,
    })
}

/// Notes what came of `request`; answers with the request as the audit has it.
pub(super) async fn finish(
    ledger: &Ledger,
    tenant: &Tenant,
    request: &OperationStatus,
    result: &str,
    seal: Seal,
) -> Result<OperationStatus, LedgerError> {
    let told = tell(ledger, record::operation_finished(tenant, request, result, seal)).await?;
    let standing = told.and_then(|told| chain::detail(&told, record::RESULT)).unwrap_or_else(|| result.to_owned());
    Ok(OperationStatus { result: Some(standing), ..request.clone() })
}

/// The account that stands, if it is another one. An entry that went into the quarantine, or whose standing account
/// somebody has damaged, is for people to look at, and keeps no service from going on.
async fn tell(ledger: &Ledger, entry: Entry) -> Result<Option<Record>, LedgerError> {
    match ledger.submit(entry).await {
        Ok(Outcome::Adopt(told)) => Ok(Some(*told)),
        Ok(Outcome::Durable(_) | Outcome::Away(_) | Outcome::Elsewhere { .. }) => Ok(None),
        Err(error @ (LedgerError::Quarantined { .. } | LedgerError::Damaged { .. })) => {
            warn!(reason = error.reason(), error = error.explain(), "a request is not in the audit as it was told");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
