//! What is remembered of runs.

use std::time::Duration;

use super::diagnostics::server_error;
use super::pool::Database;
use crate::domain::schema_name::SchemaName;
use crate::service::event::ServerError;

/// Returns the schemas whose last run failed, `public` perhaps among them; none where nothing
/// has been remembered yet.
///
/// # Errors
///
/// What the server or the system said.
pub async fn failed_schemas(database: &Database) -> Result<Vec<SchemaName>, ServerError> {
    let session = database.session(Duration::ZERO).await?;
    let sql = "SELECT schema_name FROM pricesync.schema_failure ORDER BY 1";
    match session.read(sql).await {
        Ok(rows) => Ok(rows
            .iter()
            .filter_map(|row| match row.get(0)? {
                "public" => Some(SchemaName::public()),
                name => SchemaName::parse(name).ok(),
            })
            .collect()),
        Err(error) => {
            let said = server_error(&error);
            match said.sqlstate.as_deref() {
                // undefined_table, invalid_schema_name
                Some("42P01" | "3F000") => Ok(Vec::new()),
                _ => Err(said),
            }
        }
    }
}
