//! The records of the chains.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(schema_name = "berth", table_name = "container_status_history")]
pub struct Model {
    pub v: i16,
    pub kind: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub sequence: i64,
    pub epoch: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub at: DateTimeUtc,
    pub from_state: Option<String>,
    pub to_state: Option<String>,
    pub reason: String,
    pub actor: String,
    pub generation: i64,
    pub operation_id: Option<Uuid>,
    pub prev: Vec<u8>,
    pub details_hash: Vec<u8>,
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: Vec<u8>,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub details: Option<Json>,
    pub object_kind: String,
    pub namespace: String,
    pub name: String,
    pub recorded_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
