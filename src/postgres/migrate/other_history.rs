//! Reads the history tables of other tools.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use postgres_protocol::escape::escape_literal;

use crate::domain::schema_name::{QuotedIdentifier, SchemaName};
use crate::migrations::import::Tool;
use crate::migrations::import::history::{HistoryRow, RowKind};
use crate::postgres::connection::database::Database;
use crate::postgres::connection::server_error::server_error;
use crate::service::failure::ServerError;

/// How many schemas are read at once.
const AT_ONCE: usize = 100;

/// The history of another tool.
#[derive(Clone, Debug)]
pub struct OtherHistory {
    /// The tool.
    pub tool: Tool,
    /// The table's name, if it is not the tool's default.
    pub table: Option<String>,
    /// The schema of a history that stands for every schema; `None` if each schema has its own.
    pub schema: Option<SchemaName>,
}

/// The rows of a schema's history; `None` without the table, `Err` if the table is not the tool's.
pub type FoundHistory = Result<Option<Vec<HistoryRow>>, String>;

impl OtherHistory {
    /// Returns the name of the table.
    pub fn table(&self) -> &str {
        self.table.as_deref().unwrap_or(match self.tool {
            Tool::Flyway => "flyway_schema_history",
            Tool::GolangMigrate | Tool::Dbmate => "schema_migrations",
            Tool::Goose => "goose_db_version",
            Tool::Sqlx => "_sqlx_migrations",
            Tool::Diesel => "__diesel_schema_migrations",
            Tool::Refinery => "refinery_schema_history",
            Tool::NodePgMigrate => "pgmigrations",
        })
    }

    /// Returns what is wrong with a schema without the table.
    pub fn lacking(&self) -> String {
        format!("lacks the table {}", self.table())
    }

    /// Reads the history of each schema. Changes nothing.
    pub async fn read(
        &self,
        database: &Database,
        schemas: &[SchemaName],
    ) -> Result<HashMap<SchemaName, FoundHistory>, ServerError> {
        if let Some(schema) = &self.schema {
            let mut found = self.read_each(database, std::slice::from_ref(schema)).await?;
            let found = found.remove(schema).unwrap_or(Ok(None));
            return Ok(schemas.iter().map(|schema| (schema.clone(), found.clone())).collect());
        }
        self.read_each(database, schemas).await
    }

    async fn read_each(
        &self,
        database: &Database,
        schemas: &[SchemaName],
    ) -> Result<HashMap<SchemaName, FoundHistory>, ServerError> {
        let session = database.session(Duration::ZERO).await?;
        let sql = format!(
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = {}",
            escape_literal(self.table())
        );
        let rows = session.read(&sql).await.map_err(|error| server_error(&error))?;
        let with_table: HashSet<&str> = rows.iter().filter_map(|row| row.optional(0)).collect();
        let (with, without): (Vec<_>, Vec<_>) =
            schemas.iter().partition(|schema| with_table.contains(schema.as_str()));
        let mut found: HashMap<SchemaName, FoundHistory> =
            without.into_iter().map(|schema| (schema.clone(), Ok(None))).collect();
        for chunk in with.chunks(AT_ONCE) {
            let each: Vec<String> = chunk.iter().map(|schema| self.query(schema)).collect();
            match session.read(&each.join(" UNION ALL ")).await {
                Ok(rows) => found.extend(chunk.iter().zip(&rows).map(|(schema, row)| {
                    ((*schema).clone(), parse(row.optional(0).unwrap_or_default()).map(Some))
                })),
                // Some table of the chunk is not the tool's.
                Err(_) => {
                    for schema in chunk {
                        let rows = session.read(&self.query(schema)).await;
                        let rows = rows.map_err(|error| server_error(&error).to_string());
                        let row = rows.and_then(|rows| {
                            parse(rows.first().and_then(|row| row.optional(0)).unwrap_or_default())
                        });
                        found.insert((*schema).clone(), row.map(Some));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Returns the query for the rows of one schema as JSON.
    fn query(&self, schema: &SchemaName) -> String {
        let rows = match self.tool {
            Tool::Flyway => {
                "version, success, CASE type WHEN 'BASELINE' THEN 'up to' WHEN 'UNDO_SQL' THEN 'undo' ELSE 'file' END, installed_rank \
                 FROM {table} WHERE version IS NOT NULL"
            }
            Tool::GolangMigrate => "version, NOT dirty, 'up to', 1 FROM {table}",
            Tool::Goose => "version_id, is_applied, 'file', id FROM {table} WHERE version_id <> 0",
            Tool::Sqlx => "version, success, 'file', version FROM {table}",
            Tool::NodePgMigrate => "name, true, 'file', id FROM {table}",
            Tool::Dbmate | Tool::Diesel | Tool::Refinery => {
                "version, true, 'file', version FROM {table}"
            }
        };
        let table = format!("{}.{}", schema.quoted(), QuotedIdentifier::new(self.table()));
        format!(
            "SELECT (SELECT coalesce(json_agg(json_build_array(h.key::text, h.applied, h.kind) ORDER BY h.place), '[]') \
             FROM (SELECT {}) h (key, applied, kind, place))",
            rows.replace("{table}", &table)
        )
    }
}

fn parse(json: &str) -> Result<Vec<HistoryRow>, String> {
    let rows: Vec<(String, bool, String)> =
        serde_json::from_str(json).map_err(|error| format!("cannot read its rows: {error}"))?;
    let row = |(key, is_applied, kind): (String, bool, String)| HistoryRow {
        key,
        is_applied,
        kind: match &*kind {
            "up to" => RowKind::UpTo,
            "undo" => RowKind::Undo,
            _ => RowKind::File,
        },
    };
    Ok(rows.into_iter().map(row).collect())
}
