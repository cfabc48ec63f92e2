//! What the journal says of one chain, where it is the ledger's only home: for the protocol to compare with what is shown.
//!
//! Must never: write. Asked only where a chain and its status have parted, so it may read the whole journal.

use std::{collections::HashMap, path::Path};

use uuid::Uuid;

use super::{
    Spool,
    index::{ChainId, End},
    scan,
    written::{Brief, Kept, Written},
};
use crate::{
    ledger::{
        compare::made_on,
        entry::Entry,
        error::LedgerError,
        hash::Hash,
        postgres::{Facts, FactsHead},
        protocol::Line,
        record::{Envelope, Head},
    },
    lifecycle::State,
};

impl Spool {
    /// How the chain's end and the `shown` record stand to each other, and which of the records `asked` for are there.
    pub(in crate::ledger) async fn facts(
        &self,
        cluster: Uuid,
        uid: Uuid,
        shown: Head,
        asked: Vec<Head>,
    ) -> Result<Facts, LedgerError> {
        let chain = (cluster, uid);
        let Some(end) = self.index().end(chain).copied() else {
            return Ok(Facts { head: None, stored: vec![], shown_stored: shown == Head::GENESIS });
        };
        let dir = self.inner.dir.clone();
        let looked = tokio::task::spawn_blocking(move || look(&dir, chain, end, shown, &asked)).await;
        looked.map_err(|_| LedgerError::Closed)?
    }
}

fn look(dir: &Path, chain: ChainId, end: End, shown: Head, asked: &[Head]) -> Result<Facts, LedgerError> {
    let head = end.known.head;
    let payload = scan::payload_at(dir, end.place)?;
    let record = match Written::decode(&payload) {
        Ok(Kept::Entry(Entry::Chained { record, .. } | Entry::Carried { record, .. })) => Some(record),
        Ok(_) | Err(_) => None,
    };
    let prevs = prevs(dir, chain)?;
    let shown_stored = shown == Head::GENESIS || prevs.contains_key(&shown.hash);
    Ok(Facts {
        head: Some(FactsHead {
            head,
            made_on: record.as_ref().and_then(made_on),
            terminal: record.as_ref().is_some_and(|record| record.envelope().to == Some(State::Deleted)),
            line: line(&prevs, head, shown),
            closed_epoch: None,
            record,
        }),
        stored: asked.iter().copied().filter(|head| prevs.contains_key(&head.hash)).collect(),
        shown_stored,
    })
}

/// The way back from `head`: what it finds at the sequence of `shown`.
fn line(prevs: &HashMap<Hash, Hash>, head: Head, shown: Head) -> Line {
    let mut at = head;
    while at.sequence > shown.sequence {
        let Some(prev) = prevs.get(&at.hash) else { return Line::Gap };
        at = Head { sequence: at.sequence - 1, hash: *prev };
    }
    if at == shown { Line::PassesShown } else { Line::MissesShown }
}

/// Each record of the chain with the one before it.
fn prevs(dir: &Path, chain: ChainId) -> Result<HashMap<Hash, Hash>, LedgerError> {
    let mut prevs = HashMap::new();
    scan::scan(dir, &mut |_, payload| {
        let brief = Brief::decode(payload).map_err(|error| error.to_string())?;
        if let (true, Some(text), Some(hash)) = (brief.is_chained(), &brief.record, brief.hash) {
            let envelope: Envelope = serde_json::from_str(text).map_err(|error| error.to_string())?;
            if (envelope.cluster, envelope.uid) == chain {
                prevs.insert(hash, envelope.prev);
            }
        }
        Ok(())
    })?;
    Ok(prevs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{CLUSTER, Sample};

    #[tokio::test]
    async fn a_journal_tells_whether_what_is_shown_is_on_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), "test").unwrap();
        let mut sample = Sample::new(1);
        let shown = Head::GENESIS;
        let facts = spool.facts(CLUSTER, sample.uid, shown, vec![]).await.unwrap();
        assert!(facts.head.is_none() && facts.shown_stored);
        let mut heads = vec![];
        for _ in 0..4 {
            spool.submit(sample.step()).await.unwrap();
            heads.push(sample.head);
        }
        let ask = async |shown: Head| spool.facts(CLUSTER, sample.uid, shown, vec![]).await.unwrap();
        let facts = ask(heads[1]).await;
        let end = facts.head.unwrap();
        assert_eq!((end.head, end.made_on, end.line), (heads[3], Some(heads[2]), Line::PassesShown));
        assert!(facts.shown_stored);
        let foreign = ask(Head { sequence: 2, hash: Hash::of(b"another") }).await;
        assert_eq!((foreign.head.unwrap().line, foreign.shown_stored), (Line::MissesShown, false));
        assert_eq!(ask(Head::GENESIS).await.head.unwrap().line, Line::PassesShown);
        spool.close().await.unwrap();
    }
}
