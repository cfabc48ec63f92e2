//! Replicas.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(schema_name = "berth", table_name = "containers")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_container_id: Uuid,
    pub namespace_id: Uuid,
    pub namespace: String,
    pub name: String,
    pub node: Option<String>,
    pub image: String,
    pub image_digest: String,
    pub cpu: i64,
    pub memory: i64,
    pub gpu_count: i32,
    pub status: String,
    pub reason: Option<String>,
    pub ready: bool,
    pub restarts: i32,
    pub started_at: Option<DateTimeUtc>,
    pub finished_at: Option<DateTimeUtc>,
    pub observed_at: DateTimeUtc,
    pub sync_time: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
