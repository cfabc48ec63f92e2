//! What the status of every object that has a chain says of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The end of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerStatus {
    /// Number of the last record that was shown; 0 before the first.
    #[serde(default)]
    pub sequence: i64,
    /// Hash of that record (SHA-256, hexadecimal); empty before the first.
    #[serde(default)]
    pub head: String,
    /// Where it is durable: Database or Spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Records that the database does not have yet, in canonical form; at most 32.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub pending: Vec<String>,
}
