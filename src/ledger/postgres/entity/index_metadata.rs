//! Vector indexes.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(schema_name = "berth", table_name = "index_metadata")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_container_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub dimension: i32,
    pub metric: String,
    pub declared_count: Option<i64>,
    pub observed_count: Option<i64>,
    pub sync_time: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
