//! What a database holds besides what pricesync created.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;

use crate::postgres::connection::database::Database;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::sql_file::filled;
use crate::service::failure::ServerError;

const SQL: &str = include_str!("contents.sql");

/// The schemas and tables of a database in which no tenants are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The database.
    pub database: String,
    /// The number of schemas besides `public` and those of the server and of extensions.
    pub schemas: usize,
    /// The first of them, by name.
    pub first_schemas: Vec<String>,
    /// Whether `public` holds tables or views, but no history of ours.
    pub has_foreign_tables: bool,
    /// Tables that may list tenants, the likeliest first, each as `schema.table`.
    pub candidates: Vec<String>,
}

impl Contents {
    /// Reads them. Changes nothing.
    pub async fn read(database: &Database, history_table: &str) -> Result<Self, ServerError> {
        let session = database.session(Duration::ZERO).await?;
        let table = escape_literal(history_table);
        let rows = session.read(&filled(SQL, &[("{history_table}", table)])).await;
        let rows = rows.map_err(|error| server_error(&error))?;
        let cell = |column: usize| rows.first().and_then(|row| row.optional(column));
        let names = |column: usize| {
            cell(column).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
        };
        Ok(Self {
            database: cell(0).unwrap_or_default().to_owned(),
            schemas: cell(1).and_then(|count| count.parse().ok()).unwrap_or_default(),
            first_schemas: names(2),
            has_foreign_tables: cell(3) == Some("t"),
            candidates: names(4),
        })
    }

    /// Returns whether the database is empty, so that tables may be created in it.
    pub fn is_empty(&self) -> bool {
        self.schemas == 0 && !self.has_foreign_tables
    }
}
