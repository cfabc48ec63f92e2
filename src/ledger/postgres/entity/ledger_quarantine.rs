//! What PostgreSQL refused.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(schema_name = "berth", table_name = "ledger_quarantine")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub quarantined_at: DateTimeUtc,
    pub writer: String,
    pub cluster_id: Uuid,
    pub uid: Uuid,
    pub what: String,
    pub hash: Option<Vec<u8>>,
    pub sqlstate: Option<String>,
    pub error: String,
    pub entry: String,
    pub details: Option<String>,
    pub times: i32,
    pub resolved_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
