//! `roles`: the permissions objects that grants bring. The built-in ones are there from the start.

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};

use super::{super::failure::Failure, DOING, Of};
use crate::ledger::{
    canonical,
    hash::Hash,
    snapshot::{Gives, Grant},
};

/// Writes what is not there: a role is named after its content, so it never changes.
pub(super) async fn insert(connection: &mut PgConnection, grants: &[Of<'_, Grant>]) -> Result<(), Failure> {
    let rows: BTreeMap<String, _> = grants
        .iter()
        .filter_map(|of| match &of.present.gives {
            Gives::Role(_) => None,
            Gives::Permissions(permissions) => Some((name(&of.present.gives), Json(permissions))),
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let (names, permissions): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    sqlx::query(
        "INSERT INTO berth.roles (name, permissions)
         SELECT * FROM unnest($1::text[], $2::jsonb[]) ORDER BY 1
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(names)
    .bind(permissions)
    .execute(connection)
    .await
    .map_err(|error| Failure::new(DOING, error))?;
    Ok(())
}

/// The role of a grant.
pub(super) fn name(gives: &Gives) -> String {
    match gives {
        Gives::Role(name) => name.clone(),
        Gives::Permissions(permissions) => {
            let object = serde_json::to_value(permissions).unwrap_or_default();
            format!("permissions-{}", Hash::of(canonical::encode(&object).as_bytes()))
        }
    }
}
