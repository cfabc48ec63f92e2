//! The spool of each replica, as it was last heard of.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(schema_name = "berth", table_name = "ledger_spools")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub writer: String,
    pub last_entry: i64,
    pub acknowledged: i64,
    pub registered_at: DateTimeUtc,
    pub seen_at: DateTimeUtc,
    pub gone_at: Option<DateTimeUtc>,
    pub volume: Option<Uuid>,
    pub read_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
