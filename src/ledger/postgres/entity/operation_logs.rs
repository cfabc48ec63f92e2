//! The audit (without the column `search`, which only the database reads).

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(schema_name = "berth", table_name = "operation_logs")]
pub struct Model {
    pub v: i16,
    #[sea_orm(primary_key, auto_increment = false)]
    pub phase: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster_id: Uuid,
    pub target_uid: Uuid,
    pub epoch: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub at: DateTimeUtc,
    pub from_state: Option<String>,
    pub to_state: Option<String>,
    pub action: String,
    pub actor: String,
    pub generation: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation_id: Uuid,
    pub details_hash: Vec<u8>,
    pub hash: Vec<u8>,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub details: Option<Json>,
    pub target_kind: String,
    pub target_namespace: String,
    pub target_name: String,
    pub succeeded: Option<bool>,
    pub duration_ms: Option<i64>,
    pub recorded_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
