//! The ledger's microseconds as PostgreSQL's `timestamptz`, without loss on the way.

use sea_orm::prelude::DateTimeUtc;
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef},
};

use crate::ledger::record::Micros;

/// 2000-01-01T00:00:00Z, from which PostgreSQL counts, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A moment on its way to or from the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamptz(pub(super) Micros);

impl From<Micros> for Timestamptz {
    fn from(at: Micros) -> Self {
        Self(at)
    }
}

impl Type<Postgres> for Timestamptz {
    fn type_info() -> PgTypeInfo {
        <DateTimeUtc as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Timestamptz {
    fn array_type_info() -> PgTypeInfo {
        <DateTimeUtc as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Timestamptz {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // What lies outside of its range, PostgreSQL refuses.
        Encode::<Postgres>::encode_by_ref(&self.0.0.saturating_sub(POSTGRES_EPOCH), buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Timestamptz {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let since = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Self(Micros(since.saturating_add(POSTGRES_EPOCH))))
    }
}

/// The same for SeaORM's entities.
pub(super) fn micros(at: DateTimeUtc) -> Micros {
    Micros(at.timestamp_micros())
}
