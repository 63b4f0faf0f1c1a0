//! Lists what `DROP SCHEMA ... CASCADE` would drop outside the schema.

use crate::domain::catalog::Dependent;
use crate::postgres::connection::session::Row;
use crate::postgres::connection::sql_file::filled;

/// The objects that are dropped.
pub(crate) enum Start<'a> {
    /// The schemas themselves.
    Schemas,
    /// Some relations in them, by oid.
    Relations(&'a [String]),
}

/// Returns the query for at most 100 objects outside the schemas with these oids that would be dropped
/// together with `start`, as rows for [`read`]. Extensions count as outside even where they are installed
/// in one of the schemas, because they belong to the whole database.
pub(crate) fn select(schemas: &[String], start: &Start<'_>) -> String {
    let schemas = schemas.join(", ");
    let start = match start {
        Start::Schemas => {
            format!(
                "SELECT 'pg_namespace'::regclass::oid, n.oid, 0 FROM pg_namespace n WHERE n.oid IN ({schemas})"
            )
        }
        Start::Relations(oids) => format!(
            "SELECT 'pg_class'::regclass::oid, c.oid, 0 FROM pg_class c WHERE c.oid IN ({})",
            oids.join(", ")
        ),
    };
    let values = [("{schemas}", schemas), ("{start}", start)];
    filled(include_str!("dependencies.sql"), &values)
}

/// Reads the rows of [`select`]; an object that another session has dropped meanwhile has no
/// description.
pub(crate) fn read(rows: &[Row]) -> Vec<Dependent> {
    let dependent = |row: &Row| {
        Some(Dependent {
            description: row.optional(0)?.to_owned(),
            extension: row.optional(1).map(str::to_owned),
        })
    };
    rows.iter().filter_map(dependent).collect()
}
