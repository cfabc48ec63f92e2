//! An Event about an object: for people who look now. The ledger keeps what counts, so nobody waits for one, and one that is
//! lost is not worth a second try.
//!
//! Owns: its form. Must never: decide what is worth one, or fail a pass.

use k8s_openapi::api::core::v1::ObjectReference;
use kube_runtime::events::{Event, EventType, Recorder};
use tracing::{debug, warn};

use crate::ledger::{Hash, visible};

/// The longest note, in bytes (events.k8s.io/v1).
const MAX_NOTE: usize = 1_024;

/// Publishes one. `reason` is a CamelCase word, `message` a sentence.
pub fn publish(recorder: &Recorder, about: ObjectReference, warning: bool, reason: &str, message: &str) {
    let mut note = visible(message, MAX_NOTE);
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        // Events that agree in all but their notes count as one, with the first one's note: a second wave that is through
        // would be told as the first. So the action, which nobody reads, tells notes apart.
        action: format!("Reconcile-{}", &Hash::of(note.as_bytes()).to_string()[..8]),
        note: Some(note),
        secondary: None,
    };
    let recorder = recorder.clone();
    tokio::spawn(async move {
        match recorder.publish(&event, &about).await {
            Ok(()) => {}
            // In a namespace that is going nothing is made any more, Events neither.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                debug!(error = %status, reason = event.reason, "an Event was not taken");
            }
            Err(error) => warn!(error = %error, reason = event.reason, "an Event was not written"),
        }
    });
}
