//! Verification: proves from the records alone that the ledger's rules held (docs/ledger.md, "Verification").
//!
//! Owns: the checks and their names. Must never: do I/O; trust what a home says about a record. It takes
//! records as a home keeps them, chain by chain, and holds one chain at a time.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use self::chain::{Chain, Ends, Grown};
use super::{
    record::Head,
    view::{ChainId, Stored, StoredHead},
};

mod chain;
mod once;
mod report;
#[cfg(test)]
mod tests;

pub(in crate::ledger) use once::{Once, phase};
pub use report::{Fault, KEPT, Report, Superseded, Violation};

/// Takes a ledger, record by record.
///
/// The ends come first (100 bytes for each chain), then the records, ordered by cluster, uid and sequence.
///
/// In a ledger that is written meanwhile, read the heads, then the records, then the heads again: every head of
/// the first reading is found in its chain, and where records follow it, the second reading must have moved at
/// least as far as an import moves heads ([`Verifier::still_growing`], [`Verifier::finish_with`]). What follows beyond is
/// counted ([`Report::open_ends`]), unless whoever decides on it is known not to be there any more
/// ([`Verifier::with_cluster`]).
#[derive(Default)]
pub struct Verifier {
    heads: BTreeMap<ChainId, Head>,
    shown: BTreeMap<ChainId, Head>,
    claims: BTreeMap<ChainId, Head>,
    carried: BTreeMap<ChainId, Carried>,
    growing: bool,
    cluster: Option<Uuid>,
    /// Objects and tombstones that the cluster has.
    there: BTreeSet<ChainId>,
    /// Chains that went on behind their head while they were read, and how far.
    grown: BTreeMap<ChainId, Grown>,
    last: Option<ChainId>,
    chain: Option<Chain>,
    report: Report,
}

/// Records of one chain that a status or a tombstone carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The end of the chain with them.
    pub head: Head,
    /// The records, in any order; the home may have some of them by now.
    pub records: Vec<Stored>,
}

impl Verifier {
    /// With the heads as the home keeps them.
    pub fn new(heads: impl IntoIterator<Item = StoredHead>) -> Self {
        Self { heads: by_chain(heads), ..Self::default() }
    }

    /// With what the objects' status shows (`status.ledger`): at most one record behind its chain.
    #[must_use]
    pub fn with_shown(mut self, shown: impl IntoIterator<Item = StoredHead>) -> Self {
        self.shown = by_chain(shown);
        self
    }

    /// With what statuses and tombstones carry: such a record counts as if the home had it already (rules 2 and 6).
    #[must_use]
    pub fn with_carried(mut self, carried: BTreeMap<ChainId, Carried>) -> Self {
        self.carried = carried;
        self
    }

    /// With all objects and tombstones that there are in a cluster: where neither is left that decides on what follows the head
    /// of a chain of that cluster, it is a violation. (An operator whose database was rewound puts such a head back by what
    /// its spool's tail remembers; until then it is one, too.)
    #[must_use]
    pub fn with_cluster(mut self, cluster: Option<Uuid>, there: BTreeSet<ChainId>) -> Self {
        (self.cluster, self.there) = (cluster, there);
        self
    }

    /// With what the readable state files say: a record of their chain, however old.
    #[must_use]
    pub fn with_claims(mut self, claims: impl IntoIterator<Item = StoredHead>) -> Self {
        self.claims = by_chain(claims);
        self
    }

    /// Takes records behind a head as ones that came after the heads were read; [`Self::finish_with`] decides.
    #[must_use]
    pub fn still_growing(mut self) -> Self {
        self.growing = true;
        self
    }

    /// Takes the next record.
    pub fn take(&mut self, stored: Stored) {
        let id = stored.chain;
        if self.chain.as_ref().is_none_or(|chain| chain.id != id) {
            self.finish_chain();
            if self.last.is_some_and(|last| id <= last) {
                let (sequence, place) = (stored.sequence, stored.place.clone());
                self.report.violated(Violation { chain: id, sequence, fault: Fault::OutOfOrder, place });
            }
            self.last = Some(id);
            self.chain = Some(Chain::new(id));
        }
        if let Some(chain) = &mut self.chain {
            chain.take(stored, &mut self.report);
        }
    }

    /// What was found, once every record was taken.
    pub fn finish(self) -> Report {
        self.finish_with([])
    }

    /// As [`Self::finish`], in a ledger that was written meanwhile: `later` are the heads as they are now.
    pub fn finish_with(mut self, later: impl IntoIterator<Item = StoredHead>) -> Report {
        self.finish_chain();
        // Chains of which the home has nothing yet.
        while let Some(&id) = self.carried.keys().next() {
            self.chain = Some(Chain::new(id));
            self.finish_chain();
        }
        let later = by_chain(later);
        let Self { heads, shown, claims, grown, cluster, there, mut report, .. } = self;
        for (chain, Grown { head, sure, goes_on }) in grown {
            let reached = later.get(&chain).map_or(0, |later| later.sequence);
            let is_left_alone = cluster == Some(chain.cluster) && !there.contains(&chain);
            if reached < sure || (reached == sure && goes_on && is_left_alone) {
                let fault = Fault::HeadBehind;
                report.violated(Violation { chain, sequence: head.sequence, fault, place: String::new() });
            } else if reached == sure && goes_on {
                report.open_ends += 1;
            }
        }
        let mut without = |chain: ChainId, head: Head, fault: fn(Head) -> Fault| {
            if head != Head::GENESIS {
                let violation = Violation { chain, sequence: head.sequence, fault: fault(head), place: String::new() };
                report.violated(violation);
            }
        };
        heads.into_iter().for_each(|(chain, head)| without(chain, head, Fault::HeadUnknown));
        shown.into_iter().for_each(|(chain, head)| without(chain, head, Fault::ShownUnknown));
        claims.into_iter().for_each(|(chain, head)| without(chain, head, Fault::ClaimUnknown));
        report
    }

    fn finish_chain(&mut self) {
        let Some(mut chain) = self.chain.take() else { return };
        let id = chain.id;
        let mut head = self.heads.remove(&id);
        if self.growing
            && let Some(grown) = chain.grown(head, self.shown.get(&id).copied())
        {
            head = Some(grown.head);
            self.grown.insert(id, grown);
        }
        if let Some(carried) = self.carried.remove(&id)
            && chain.carry(carried.records, &mut self.report)
        {
            head = Some(carried.head);
        }
        let (shown, claim) = (self.shown.remove(&id), self.claims.remove(&id));
        let ends = Ends { head, shown, claim, is_open: self.growing };
        chain.finish(ends, &mut self.report);
    }
}

fn by_chain(heads: impl IntoIterator<Item = StoredHead>) -> BTreeMap<ChainId, Head> {
    heads.into_iter().map(|stored| (stored.chain, stored.head)).collect()
}
