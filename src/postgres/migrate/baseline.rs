//! Recording migrations as applied in schemas that another tool made: what such a schema must
//! hold to be believed.

use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::migrator::PostgresMigrator;
use super::template;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::migrations::{Script, Transaction};
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::{Row, Session};
use crate::service::failure::ServerError;

/// So many missing things are named.
const NAMED: usize = 20;

/// Relations that have columns.
const KINDS: &str = "c.relkind IN ('r', 'p', 'v', 'm', 'f')";

/// The tables and columns that a schema has where the files up to some version made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// Pairs of table and column.
    columns: Vec<(String, String)>,
}

impl Baseline {
    /// Returns what a schema lacks, in words; nothing where it may be taken for what the files
    /// make. Where that is not known a schema must only hold something.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub(crate) async fn missing(
        &self,
        session: &Session,
        schema_oid: &str,
        history_table: &str,
    ) -> Result<Vec<String>, Error> {
        let rows = session
            .rows(&self.question(schema_oid, history_table))
            .await?;
        Ok(read(&rows))
    }

    fn question(&self, schema_oid: &str, history_table: &str) -> String {
        if self.columns.is_empty() {
            return format!(
                "SELECT 'any object' WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = {schema_oid} AND {KINDS} AND c.relname <> {})",
                escape_literal(history_table)
            );
        }
        let mut values = String::new();
        for (table, column) in &self.columns {
            let comma = if values.is_empty() { "" } else { ", " };
            let _ = write!(
                values,
                "{comma}({}, {})",
                escape_literal(table),
                escape_literal(column)
            );
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

fn read(rows: &[Row]) -> Vec<String> {
    let mut missing: Vec<String> = rows
        .iter()
        .filter_map(|row| row.optional(0).map(str::to_owned))
        .collect();
    if missing.len() > NAMED {
        missing.truncate(NAMED);
        missing.push("and more".to_owned());
    }
    missing
}

impl PostgresMigrator {
    /// Finds out which tables and columns the files up to a version make, by running them into a
    /// scratch schema whose transaction is rolled back; or why that cannot be found out.
    ///
    /// # Errors
    ///
    /// Only connections that cannot be had or break.
    pub async fn baseline_of(
        &self,
        scope: Scope,
        version: i64,
    ) -> Result<Result<Baseline, String>, ServerError> {
        let scripts: Vec<&Script> = self
            .set(scope)
            .scripts()
            .iter()
            .filter(|script| script.id.version <= version)
            .collect();
        if let Some(outside) = scripts
            .iter()
            .find(|script| script.transaction == Transaction::Outside)
        {
            return Ok(Err(format!("{} runs without a transaction", outside.id)));
        }
        let columns = template::columns(&self.database, &self.options, &scripts).await?;
        Ok(columns.map(|columns| Baseline { columns }))
    }

    /// Returns what a schema lacks of a baseline. Changes nothing.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn lacks(
        &self,
        schema: &SchemaName,
        baseline: &Baseline,
    ) -> Result<Vec<String>, ServerError> {
        let session = self.database.session(std::time::Duration::ZERO).await?;
        let oid = format!(
            "{}::regnamespace::oid",
            escape_literal(&schema.quoted().to_string())
        );
        let rows = session
            .read(&baseline.question(&oid, &self.options.history_table))
            .await
            .map_err(|error| server_error(&error))?;
        Ok(read(&rows))
    }
}
