//! The schema `berth`: plain SQL, one purpose a file, in `sql/`.
//!
//! Migrations only expand: an older release goes on running on a newer schema, and what it no longer needs is taken
//! away a release later. They import nothing of the running code, so that they stay what they were.
//! Applied by `berth migrate`, in one transaction under an advisory lock; never by a replica at its start.

use sea_orm_migration::{
    async_trait::async_trait,
    prelude::{DbErr, MigrationName, MigrationTrait, MigratorTrait, SchemaManager},
    sea_orm::{
        ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, Statement, TransactionError,
        TransactionTrait,
    },
};

/// Name and statements of each migration, in order. The number at the start of the name is the schema's version.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_namespaces", include_str!("../sql/0001_namespaces.sql")),
    ("0002_tenant_containers", include_str!("../sql/0002_tenant_containers.sql")),
    ("0003_index_metadata", include_str!("../sql/0003_index_metadata.sql")),
    ("0004_container_images", include_str!("../sql/0004_container_images.sql")),
    ("0005_containers", include_str!("../sql/0005_containers.sql")),
    ("0006_ledger_heads", include_str!("../sql/0006_ledger_heads.sql")),
    ("0007_ledger_writers", include_str!("../sql/0007_ledger_writers.sql")),
    ("0008_ledger_quarantine", include_str!("../sql/0008_ledger_quarantine.sql")),
    ("0009_container_status_history", include_str!("../sql/0009_container_status_history.sql")),
    ("0010_operation_logs", include_str!("../sql/0010_operation_logs.sql")),
    ("0011_make_partitions", include_str!("../sql/0011_make_partitions.sql")),
    ("0012_duplicate_services", include_str!("../sql/0012_duplicate_services.sql")),
    ("0013_ledger_heads_closed", include_str!("../sql/0013_ledger_heads_closed.sql")),
    ("0014_ledger_spools", include_str!("../sql/0014_ledger_spools.sql")),
    ("0015_container_resource_usage", include_str!("../sql/0015_container_resource_usage.sql")),
    ("0016_make_partitions_of_usage", include_str!("../sql/0016_make_partitions_of_usage.sql")),
    ("0017_ledger_quarantine_of_usage", include_str!("../sql/0017_ledger_quarantine_of_usage.sql")),
    ("0018_users", include_str!("../sql/0018_users.sql")),
    ("0019_roles", include_str!("../sql/0019_roles.sql")),
    ("0020_user_roles", include_str!("../sql/0020_user_roles.sql")),
    ("0021_histories", include_str!("../sql/0021_histories.sql")),
    ("0022_deployment_status", include_str!("../sql/0022_deployment_status.sql")),
    ("0023_tenant_quota", include_str!("../sql/0023_tenant_quota.sql")),
    ("0024_ledger_spools_volume", include_str!("../sql/0024_ledger_spools_volume.sql")),
];

/// The version of the schema that this release needs: the number of its last migration.
pub const SCHEMA_VERSION: u32 = 24;

/// The advisory lock of `berth migrate`; an arbitrary number, the same in every release.
const LOCK: i64 = 7_305_000;

/// Brings the schema up to date and names what was applied; nothing where it already is, or is newer.
///
/// One transaction for all: a failed migration leaves the schema as it was. The lock is the transaction's own, so it
/// works behind a pooler and is let go whatever happens.
pub async fn migrate(db: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    db.transaction(|transaction| Box::pin(apply(transaction))).await.map_err(|error| match error {
        TransactionError::Connection(error) | TransactionError::Transaction(error) => error,
    })
}

async fn apply(transaction: &DatabaseTransaction) -> Result<Vec<String>, DbErr> {
    transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    let before = applied(transaction).await?;
    // Only now: a role that may not create schemas can still bring up to date one that was made for it.
    if !exists(transaction, "SELECT to_regnamespace('berth') IS NOT NULL").await? {
        transaction.execute_unprepared("CREATE SCHEMA berth").await?;
    }
    let missing = not_in(&before);
    if !missing.is_empty() && version_of(&before) <= SCHEMA_VERSION {
        // SeaORM looks for its table of applied migrations in the current schema.
        transaction.execute_unprepared("SET LOCAL search_path = berth").await?;
        Migrator::up(transaction, None).await?;
    }
    let after = applied(transaction).await?;
    Ok(after.into_iter().filter(|name| !before.contains(name)).collect())
}

/// The migrations that are still to be applied. Writes nothing, so it needs no right but to read.
pub async fn pending(db: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    Ok(not_in(&applied(db).await?))
}

/// The version of the schema in the database; 0 where there is none.
pub async fn version(db: &DatabaseConnection) -> Result<u32, DbErr> {
    Ok(version_of(&applied(db).await?))
}

fn not_in(applied: &[String]) -> Vec<String> {
    MIGRATIONS.iter().map(|&(name, _)| name.to_owned()).filter(|name| !applied.contains(name)).collect()
}

fn version_of(applied: &[String]) -> u32 {
    applied.iter().filter_map(|name| name.split('_').next()?.parse().ok()).max().unwrap_or(0)
}

async fn applied<C: ConnectionTrait>(db: &C) -> Result<Vec<String>, DbErr> {
    if !exists(db, "SELECT to_regclass('berth.seaql_migrations') IS NOT NULL").await? {
        return Ok(Vec::new());
    }
    let select =
        Statement::from_string(DbBackend::Postgres, "SELECT version FROM berth.seaql_migrations ORDER BY version");
    db.query_all_raw(select).await?.iter().map(|row| row.try_get_by_index(0)).collect()
}

async fn exists<C: ConnectionTrait>(db: &C, question: &'static str) -> Result<bool, DbErr> {
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, question)).await?;
    row.map_or(Ok(false), |row| row.try_get_by_index(0))
}

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        MIGRATIONS.iter().map(|&(name, sql)| Box::new(SqlFile { name, sql }) as Box<dyn MigrationTrait>).collect()
    }
}

struct SqlFile {
    name: &'static str,
    sql: &'static str,
}

impl MigrationName for SqlFile {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait]
impl MigrationTrait for SqlFile {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(self.sql).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps_up_to_the_version_that_this_release_needs() {
        for (index, (name, sql)) in MIGRATIONS.iter().enumerate() {
            assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name}");
            // A check that the same file adds again, wider, takes nothing away.
            let widened = |rest: &str| {
                rest.split([' ', ';']).next().is_some_and(|check| rest.contains(&format!("ADD CONSTRAINT {check}")))
            };
            for dropped in sql.split("DROP ").skip(1) {
                let check = dropped.strip_prefix("CONSTRAINT ");
                assert!(check.is_some_and(widened), "{name} takes something away");
            }
        }
        assert_eq!(version_of(&not_in(&[])), SCHEMA_VERSION);
    }
}
