//! Finds the entries of `guard.allow_writes` that allow nothing.

use crate::domain::sqlstate;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::{EngineOptions, literals};
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::sql_file::filled;
use crate::service::failure::ServerError;
use crate::settings::TableName;

/// Entries of `guard.allow_writes` that cannot be what was meant.
#[derive(Debug, Default)]
pub(crate) struct UnusableEntries {
    /// Entries in the schema of a tenant.
    pub(crate) of_tenants: Vec<TableName>,
    /// Entries that name no table, view or sequence.
    pub(crate) missing: Vec<TableName>,
}

impl UnusableEntries {
    /// Finds them in the database; finds none in one without a tenant table, which is still empty.
    ///
    /// # Errors
    ///
    /// The server's error, or that of the connection.
    pub(crate) async fn find(
        database: &Database,
        options: &EngineOptions,
    ) -> Result<Self, ServerError> {
        let mut found = Self::default();
        let entries = &options.guard_rules.allow_writes;
        if entries.is_empty() {
            return Ok(found);
        }
        let values = [("{tenants}", options.tenants.clone()), ("{entries}", literals(entries))];
        let session = database.session(std::time::Duration::ZERO).await?;
        let rows = match session.read(&filled(include_str!("unusable.sql"), &values)).await {
            Ok(rows) => rows,
            Err(error) => {
                let error = server_error(&error);
                let is_new = error.sqlstate.as_deref().is_some_and(sqlstate::is_missing_table);
                return if is_new { Ok(found) } else { Err(error) };
            }
        };
        for row in &rows {
            let text = |column| row.text(column).map(ToOwned::to_owned);
            let (schema, table) = (text(0), text(1));
            let schema = schema.map_err(|error| server_error(&error))?;
            let table = table.map_err(|error| server_error(&error))?;
            let list = if row.is_true(2) { &mut found.of_tenants } else { &mut found.missing };
            list.push(TableName { schema, table });
        }
        Ok(found)
    }
}
