//! The comment that marks the schema of a tenant whose creation has not finished.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::session::{Row, Session};

/// How the comment of such a schema starts.
const PREFIX: &str = "pricesync: create-tenant ";

/// The same while it is migrated; a random number follows.
pub(super) const UNFINISHED: &str = "pricesync: create-tenant has not finished";

/// The comment while the schema is dropped again.
pub(super) const BEING_DROPPED: &str =
    "pricesync: create-tenant failed, and its schema is being dropped";

/// How far a creation got that has not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The schema is empty, or migrated as its history says.
    Unfinished,
    /// A part of the schema may be gone.
    BeingDropped,
}

/// Returns the mark of a schema, if it exists and has one.
pub(super) async fn read(session: &Session, schema: &SchemaName) -> Result<Option<Mark>, Error> {
    let sql = format!(
        "SELECT pg_catalog.obj_description(n.oid, 'pg_namespace') = '{BEING_DROPPED}' \
         FROM pg_catalog.pg_namespace n WHERE n.nspname = {} AND {}",
        escape_literal(schema.as_str()),
        has_mark("n.oid")
    );
    let rows = session.rows(&sql).await?;
    let mark = |row: &Row| if row.is_true(0) { Mark::BeingDropped } else { Mark::Unfinished };
    Ok(rows.first().map(mark))
}

/// Returns the SQL condition that the schema with this oid has a mark.
pub(super) fn has_mark(oid: &str) -> String {
    format!(
        "coalesce(pg_catalog.starts_with(pg_catalog.obj_description({oid}, 'pg_namespace'), '{PREFIX}'), false)"
    )
}

/// Returns the statement that removes the mark.
pub(super) fn remove_mark(schema: &SchemaName) -> String {
    format!("COMMENT ON SCHEMA {} IS NULL; ", schema.quoted())
}

/// Returns the statement that sets the comment of a schema.
pub(super) fn comment(schema: &SchemaName, text: &str) -> String {
    format!("COMMENT ON SCHEMA {} IS {}; ", schema.quoted(), escape_literal(text))
}
