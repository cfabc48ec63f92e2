//! Who asked for the spec as it stands.
//!
//! Owns: how the API server's stamp and its managed fields are read. Must never: take a stamp for a change that it does not
//! belong to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use super::MANAGER;
use crate::{
    api::{ACTOR_ANNOTATION, ACTOR_GENERATION_ANNOTATION, ROLLOUT_ACTOR_PREFIX},
    ledger::Actor,
};

/// How the cause of what a rollout asked for begins; its namespace and name follow.
pub const ROLLOUT: &str = "rollout ";

/// The API server's stamp if it belongs to this generation, else the last manager of the spec as a guess. A deletion, which
/// nothing can stamp, is a generation by itself: the stamp of the one before is that of the spec.
pub fn of(metadata: &ObjectMeta, generation: i64) -> Actor {
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
    let stamped = annotation(ACTOR_GENERATION_ANNOTATION).and_then(|stamp| stamp.parse::<i64>().ok());
    let is_of_spec =
        |stamp: i64| stamp == generation || metadata.deletion_timestamp.is_some() && stamp == generation - 1;
    match annotation(ACTOR_ANNOTATION) {
        Some(name) if stamped.is_some_and(is_of_spec) => match name.strip_prefix(ROLLOUT_ACTOR_PREFIX) {
            Some(rollout) => Actor::Berth(format!("{ROLLOUT}{rollout}")),
            None => Actor::User(name.clone()),
        },
        _ => last_change(metadata).and_then(|entry| entry.manager.clone()).map_or(Actor::Unknown, Actor::Guess),
    }
}

/// The last change of the object that was not Berth's own.
pub fn last_change(metadata: &ObjectMeta) -> Option<&ManagedFieldsEntry> {
    let theirs =
        metadata.managed_fields.iter().flatten().filter(|entry| {
            entry.subresource.as_deref() != Some("status") && entry.manager.as_deref() != Some(MANAGER)
        });
    theirs.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
}
