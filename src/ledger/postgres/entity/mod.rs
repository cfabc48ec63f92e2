//! SeaORM's entities: for all that is not hot. The hot statements are UNNEST batches, beside this folder.
//!
//! Must never: be used by a migration; decide anything.
#![allow(missing_docs, reason = "the columns are described in docs/data-model.md and by COMMENT ON in the migrations")]

pub mod container_images;
pub mod container_resource_usage;
pub mod container_status_history;
pub mod containers;
pub mod index_metadata;
pub mod ledger_heads;
pub mod ledger_quarantine;
pub mod ledger_spools;
pub mod ledger_writers;
pub mod namespaces;
pub mod operation_logs;
pub mod tenant_containers;
