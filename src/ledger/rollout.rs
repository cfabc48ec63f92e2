//! The present of a rollout: how far it, its waves and its targets are (table `deployment_status`).
//!
//! Owns: the words that its records and its snapshots have in common: what a record tells of them is, part by part, what the
//! table says. Must never: decide how far anything is.

use serde::{Deserialize, Serialize};

use super::record::{Actor, Micros};

/// A rollout of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rollout {
    /// Fingerprint of the release: each has rows of its own.
    pub revision: String,
    /// The image that is rolled out.
    pub image: String,
    /// Who asked for it as it stands.
    pub asked_by: Actor,
    /// Its object was deleted.
    pub removed: bool,
    /// Every target that there is, is among the parts: one that is not, and had come to no end, is gone.
    pub whole: bool,
    /// It, its waves and its targets.
    pub parts: Vec<Part>,
}

/// What a part is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The rollout itself.
    Rollout,
    /// One wave.
    Wave,
    /// One target.
    Target,
}

/// How far a rollout, a wave or a target is: one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// What it is about.
    pub scope: Scope,
    /// A wave's name, a target's uid; empty for the rollout itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The wave that a target is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
    /// A target's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// A target's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How far it is, or what came of it: the phase of a rollout or a wave; of a target one of docs/data-model.md.
    pub outcome: String,
    /// Why, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it began; of a target, when the release was in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Micros>,
    /// When it came to this outcome, if it is one that it may stay with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Micros>,
    /// How many targets; of a rollout or a wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Who approved a wave, where somebody had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

/// How many targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counts {
    /// In it.
    pub targets: i32,
    /// That have the release.
    pub released: i32,
    /// That have it and are past the gate.
    pub done: i32,
    /// That have it and failed.
    pub failed: i32,
}
