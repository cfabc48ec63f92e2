//! Checks that each phase of an operation was told once.
//!
//! Must never: hold more than one record. So they come by cluster, operation and phase.

use uuid::Uuid;

use super::report::{Fault, Report, Violation};
use crate::ledger::{
    hash::Hash,
    record::{Kind, Record},
    view::ChainId,
};

/// The last record, and whether the next one tells the same phase.
#[derive(Default)]
pub(in crate::ledger) struct Once {
    last: Option<(Phase, Hash)>,
}

/// What identifies an operation's record: cluster, operation and phase.
pub(in crate::ledger) type Phase = (Uuid, Option<Uuid>, Kind);

/// That of a record.
pub(in crate::ledger) fn phase(record: &Record) -> Phase {
    let envelope = record.envelope();
    (envelope.cluster, envelope.operation, envelope.kind)
}

impl Once {
    /// Takes the next record.
    pub(in crate::ledger) fn take(&mut self, record: &Record, place: String, report: &mut Report) {
        let (cluster, operation, kind) = phase(record);
        match self.last {
            Some((known, first)) if known == phase(record) => report.violated(Violation {
                chain: ChainId { cluster, uid: record.envelope().uid },
                sequence: record.envelope().seq,
                fault: Fault::ToldTwice { operation, phase: kind, first, again: record.hash() },
                place,
            }),
            _ => self.last = Some((phase(record), record.hash())),
        }
    }
}
