//! The present of each TenantContainer.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(schema_name = "berth", table_name = "tenant_containers")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_org_id: String,
    pub user_id: String,
    pub service_name: String,
    pub namespace_id: Uuid,
    pub namespace: String,
    pub name: String,
    pub replicas: i32,
    pub cpu: i64,
    pub memory: i64,
    pub disk: i64,
    pub gpu_count: i32,
    pub dimension: Option<i32>,
    pub vector_count: Option<i64>,
    pub status: Option<String>,
    pub created_at: DateTimeUtc,
    pub sync_time: DateTimeUtc,
    pub deleted: bool,
    #[sea_orm(column_type = "JsonBinary")]
    pub spec: Json,
    pub generation: i64,
    pub sequence: i64,
    pub epoch: i64,
    pub head: Vec<u8>,
    pub observed_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
