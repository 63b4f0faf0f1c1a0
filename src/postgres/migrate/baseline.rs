//! The tables and columns that a schema of another tool must have before migrations are recorded in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::template;
use crate::domain::schema_name::SchemaName;
use crate::migrations::{MigrationSet, Script, Transaction, in_one_transaction};
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::{Row, Session};
use crate::service::failure::ServerError;

/// How many missing tables and columns are named.
const NAMED: usize = 20;

/// Relations that have columns.
const KINDS: &str = "c.relkind IN ('r', 'p', 'v', 'm', 'f')";

/// The tables and columns that the files up to a version create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// Pairs of table and column.
    columns: Vec<(String, String)>,
}

impl Baseline {
    /// Returns descriptions of the tables and columns that a schema lacks. An empty baseline requires only
    /// that the schema is not empty.
    pub(crate) async fn missing(
        &self,
        session: &Session,
        schema_oid: &str,
        history_table: &str,
    ) -> Result<Vec<String>, Error> {
        let rows = session.rows(&self.query(schema_oid, history_table)).await?;
        read(&rows)
    }

    /// As [`Self::missing`], in a transaction of its own.
    pub(super) async fn missing_in(
        &self,
        database: &Database,
        schema: &SchemaName,
        history_table: &str,
    ) -> Result<Vec<String>, ServerError> {
        let session = database.session(Duration::ZERO).await?;
        let oid = format!("{}::regnamespace::oid", escape_literal(&schema.quoted().to_string()));
        let rows = session.read(&self.query(&oid, history_table)).await;
        rows.and_then(|rows| read(&rows)).map_err(|error| server_error(&error))
    }

    fn query(&self, schema_oid: &str, history_table: &str) -> String {
        if self.columns.is_empty() {
            return format!(
                "SELECT 'any object' WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = {schema_oid} AND {KINDS} AND c.relname <> {})",
                escape_literal(history_table)
            );
        }
        let mut values = String::new();
        for (table, column) in &self.columns {
            let comma = if values.is_empty() { "" } else { ", " };
            let _ =
                write!(values, "{comma}({}, {})", escape_literal(table), escape_literal(column));
        }
        format!(
            "SELECT DISTINCT CASE WHEN c.oid IS NULL THEN format('table %s', e.t) ELSE format('column %s.%s', e.t, e.c) END \
             FROM (VALUES {values}) e (t, c) LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = {schema_oid} AND c.relname = e.t::name AND {KINDS} \
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = e.c::name AND NOT a.attisdropped) \
             ORDER BY 1 LIMIT {}",
            NAMED + 1
        )
    }
}

fn read(rows: &[Row]) -> Result<Vec<String>, Error> {
    let names = rows.iter().map(|row| row.text(0).map(str::to_owned));
    let mut missing: Vec<String> = names.collect::<Result<_, _>>()?;
    if missing.len() > NAMED {
        missing.truncate(NAMED);
        missing.push("and more".to_owned());
    }
    Ok(missing)
}

/// Returns the tables and columns that the files up to a version create in a scratch schema, or why that
/// cannot be determined.
pub(super) async fn of_files(
    database: &Database,
    options: &EngineOptions,
    set: &MigrationSet,
    version: i64,
) -> Result<Result<Baseline, String>, ServerError> {
    let scripts = set.scripts().iter();
    let scripts: Vec<&Script> = scripts.filter(|script| script.id.version <= version).collect();
    // The scratch schema is rolled back, so one transaction has to do.
    if let Some(script) = scripts.get(in_one_transaction(&scripts, &BTreeSet::new())) {
        return Ok(Err(match script.transaction {
            Transaction::Outside => format!("{} runs without a transaction", script.id),
            Transaction::Inside => format!("{} uses an enum value of an earlier file", script.id),
        }));
    }
    let columns = template::columns(database, options, &scripts).await?;
    Ok(columns.map(|columns| Baseline { columns }))
}
