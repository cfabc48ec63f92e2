//! The records that tell of a chain itself: that it was rewound, what has left it, what was lost.
//!
//! Owns: what they say, and the details that all records share. Must never: do I/O.

use serde_json::{Value, json};

use super::Chain;
use crate::{
    ledger::{Actor, Draft, Head, Kind, Record},
    lifecycle::State,
};

/// The draft that says what nobody saw: the object's generation has moved by more than the change that is worked on now, as
/// it does while no operator looks, or when changes come faster than passes (rule 7). `seen` is the generation that the status
/// answers to. None where all of it was seen.
pub fn unseen(chain: Chain<'_>, seen: i64) -> Option<Draft> {
    let begun = chain.head != Head::GENESIS && chain.state != Some(State::Deleted);
    let (first, last) = (seen + 1, chain.generation - 1);
    (begun && seen > 0 && first <= last).then(|| Draft {
        kind: Kind::Unobserved,
        uid: chain.target.uid,
        from: chain.state,
        to: chain.state,
        reason: "ChangesUnseen".to_owned(),
        actor: Actor::Unknown,
        generation: chain.generation,
        operation: None,
        details: json!({
            MESSAGE: match last - seen {
                1 => format!("one change was not seen: generation {last}"),
                count => format!("{count} changes were not seen: generations {first} to {last}"),
            },
            "unseen": last - seen,
        }),
    })
}

/// The generation that a status answers to once it shows `record`, which answered to `before`, of an object that is at
/// `generation`: what the record tells of, and no more. It may be one that the ledger had before, and the object have changed
/// since, or have been restored to what it was.
pub fn seen(record: &Record, before: i64, generation: i64) -> i64 {
    let envelope = record.envelope();
    let told = match envelope.kind {
        // What nobody saw is told; what is there now comes next.
        Kind::Unobserved => envelope.generation - 1,
        kind if kind.is_of_the_chain() => before,
        _ => envelope.generation,
    };
    before.max(told.min(generation))
}

/// The record on top of the ledger's `end`, where the API server shows an older state than the ledger has (rule 5). It names
/// the shown head that it was made over, so that a pass which could not show it finds it again.
pub(super) fn api_rewound(chain: Chain<'_>, end: &Record) -> Draft {
    let message = format!(
        "the API server shows record {}, the ledger has {}: the API server was restored; the service goes on from what it shows",
        chain.head.sequence,
        end.envelope().seq
    );
    resolution(chain, API_REWOUND, end.envelope().to, json!({MESSAGE: message, MADE_ON: chain.head}))
}

/// The record that names what has left the chain, because another record was shown in its place (rule 1).
pub(super) fn superseded(chain: Chain<'_>, head: Head) -> Draft {
    let message = format!("record {} ({}) was never shown; the chain goes on without it", head.sequence, head.hash);
    resolution(chain, "Superseded", chain.state, json!({MESSAGE: message, "superseded": head}))
}

/// The record that stands where something was that no home has any more (rule 6).
pub(super) fn lost(chain: Chain<'_>) -> Draft {
    let head = chain.head;
    let message = format!("record {} ({}) was shown, and no home has it any more", head.sequence, head.hash);
    let details = json!({MESSAGE: message, "lost": head});
    Draft { kind: Kind::Lost, ..resolution(chain, "RecordsLost", chain.state, details) }
}

/// Whether the record says nothing of how its object stands: it puts the chain right over what is shown. That the API server was
/// restored is news: what it shows was true at another time.
pub fn is_no_news(record: &Record) -> bool {
    let envelope = record.envelope();
    envelope.kind.is_of_the_chain() && envelope.reason != API_REWOUND
}

fn resolution(chain: Chain<'_>, reason: &str, from: Option<State>, details: Value) -> Draft {
    Draft {
        kind: Kind::Resolution,
        uid: chain.target.uid,
        from,
        to: chain.state,
        reason: reason.to_owned(),
        actor: Actor::Berth("ledger".to_owned()),
        generation: chain.generation,
        operation: None,
        details,
    }
}

/// The reason of a record that tells of a restored API server.
const API_REWOUND: &str = "ApiRewound";

/// The detail of an `api-rewound` record that says which shown head it was made over.
const MADE_ON: &str = "madeOn";

/// The detail of a transition that says it in a sentence.
pub const MESSAGE: &str = "message";
/// One of a record's details, where it is a string. Records that were read from the ledger may lack all of them.
pub fn detail(record: &Record, name: &str) -> Option<String> {
    let details: Value = serde_json::from_str(record.details()?).ok()?;
    Some(details.get(name)?.as_str()?.to_owned())
}
