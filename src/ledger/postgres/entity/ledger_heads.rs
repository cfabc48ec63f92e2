//! The ends of the chains.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(schema_name = "berth", table_name = "ledger_heads")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub sequence: i64,
    pub epoch: i64,
    pub hash: Vec<u8>,
    pub prev: Vec<u8>,
    pub state: Option<String>,
    pub at: DateTimeUtc,
    pub moved_at: DateTimeUtc,
    pub closed_epoch: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
