//! Reads and creates refinery's history tables.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::advisory_lock;
use crate::domain::applied::Applied;
use crate::domain::schema_name::{QuotedIdentifier, SchemaName};
use crate::domain::sqlstate;
use crate::postgres::connection::options::{HISTORY_TIMEOUT, SINGLE_HISTORY_TIMEOUT};
use crate::postgres::connection::server_error::{server_error, sqlstate_of};
use crate::postgres::connection::session::{Row, Session};

/// How many histories one statement reads: each takes a slot of the server's lock table until it ends.
const BATCH: usize = 100;

/// The rows of a history, or why one of them is invalid.
pub type History = Result<Vec<Applied>, String>;

/// The history of a schema, as the server returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaHistory {
    /// The schema does not exist.
    NoSchema,
    /// The schema exists; the history is empty if it has no history table.
    Schema(History),
    /// Another session, as described, has locked the history table.
    Locked(String),
}

/// Goes before [`create_table`]: planning parallel workers for the index of an empty table costs more than
/// building it.
pub(crate) const NO_PARALLEL_BUILD: &str = "SET LOCAL max_parallel_maintenance_workers TO 0";

/// Returns refinery's statement that creates a history table; versions are 64 bits wide.
pub(crate) fn create_table(schema: &SchemaName, table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {}(
             version int8 PRIMARY KEY,
             name VARCHAR(255),
             applied_on VARCHAR(255),
             checksum VARCHAR(255));",
        qualified(schema, table)
    )
}

/// Returns `schema.table`, quoted for SQL.
pub(crate) fn qualified(schema: &SchemaName, table: &str) -> String {
    format!("{}.{}", schema.quoted(), QuotedIdentifier::new(table))
}

/// Reads the histories of many schemas, in the order given. Changes nothing.
///
/// # Errors
///
/// Errors of the connection and of the catalog. A history that cannot be read is a
/// [`SchemaHistory::Schema`] with the reason, or [`SchemaHistory::Locked`].
pub async fn read_all(
    session: &Session,
    schemas: &[&SchemaName],
    table: &str,
) -> Result<Vec<SchemaHistory>, Error> {
    let mut found = vec![SchemaHistory::NoSchema; schemas.len()];
    let mut with_history = Vec::new();
    let existing = existing(session, schemas, table).await?;
    for (position, schema) in schemas.iter().enumerate() {
        if let Some(&has_history) = existing.get(schema.as_str()) {
            found[position] = SchemaHistory::Schema(Ok(Vec::new()));
            if has_history {
                with_history.push(position);
            }
        }
    }
    for batch in with_history.chunks(BATCH) {
        match read_batch(session, schemas, batch, table, HISTORY_TIMEOUT).await {
            Ok(histories) => {
                for (position, history) in histories {
                    found[position] = SchemaHistory::Schema(history);
                }
            }
            Err(error) if session.client().is_closed() => return Err(error),
            // One bad table (a missing column, no privilege, a lock) fails its whole batch.
            Err(_) => {
                for &position in batch {
                    found[position] = read_one(session, schemas, position, table).await?;
                }
            }
        }
    }
    Ok(found)
}

/// Returns those of the schemas that exist, and whether each has a history table.
async fn existing(
    session: &Session,
    schemas: &[&SchemaName],
    table: &str,
) -> Result<HashMap<String, bool>, Error> {
    let mut existing = HashMap::new();
    // Literals need only the simple query protocol, which every pooler supports.
    for chunk in schemas.chunks(10_000) {
        let names: Vec<String> =
            chunk.iter().map(|schema| escape_literal(schema.as_str())).collect();
        let sql = format!(
            "SELECT n.nspname, c.oid IS NOT NULL FROM pg_namespace n \
             LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = {} AND c.relkind IN ('r', 'p') \
             WHERE n.nspname = ANY (ARRAY[{}]::name[])",
            escape_literal(table),
            names.join(",")
        );
        for row in session.read(&sql).await? {
            existing.insert(row.text(0)?.to_owned(), row.is_true(1));
        }
    }
    Ok(existing)
}

async fn read_batch(
    session: &Session,
    schemas: &[&SchemaName],
    batch: &[usize],
    table: &str,
    lock_timeout: Duration,
) -> Result<HashMap<usize, History>, Error> {
    let sql = format!(
        "SET LOCAL lock_timeout TO {}; {}",
        lock_timeout.as_millis(),
        select_several(schemas, batch, table)
    );
    let rows = session.read(&sql).await?;
    Ok(parse_several(&rows, batch))
}

async fn read_one(
    session: &Session,
    schemas: &[&SchemaName],
    position: usize,
    table: &str,
) -> Result<SchemaHistory, Error> {
    let error = match read_batch(session, schemas, &[position], table, SINGLE_HISTORY_TIMEOUT).await
    {
        Ok(mut histories) => {
            let history = histories.remove(&position);
            return Ok(SchemaHistory::Schema(history.unwrap_or_else(|| Ok(Vec::new()))));
        }
        Err(error) => error,
    };
    if sqlstate_of(&error) != Some(sqlstate::LOCK_NOT_AVAILABLE) {
        return Ok(SchemaHistory::Schema(Err(server_error(&error).to_string())));
    }
    let history = qualified(schemas[position], table);
    let holder = advisory_lock::holder_of_table(session, &history).await?;
    Ok(SchemaHistory::Locked(match holder {
        Some(holder) => format!("its history is locked by {holder}"),
        None => "its history was locked by another session".to_owned(),
    }))
}

/// Returns the statement that reads the histories of the schemas at these positions, for
/// [`parse_several`].
pub(crate) fn select_several(schemas: &[&SchemaName], batch: &[usize], table: &str) -> String {
    let parts: Vec<String> = batch
        .iter()
        .map(|&position| {
            format!(
                "SELECT {position}, version::text, name::text, applied_on::text, checksum::text FROM {}",
                qualified(schemas[position], table)
            )
        })
        .collect();
    parts.join(" UNION ALL ")
}

/// Returns statements that read the histories one by one, for [`parse_several`]: for few schemas they take
/// the server less time than one statement.
pub(crate) fn select_each(schemas: &[&SchemaName], table: &str) -> String {
    let mut sql = String::new();
    for (position, schema) in schemas.iter().enumerate() {
        let history = qualified(schema, table);
        let _ =
            write!(sql, "SELECT {position}, version, name, applied_on, checksum FROM {history}; ");
    }
    sql
}

/// Returns the histories that [`select_several`] or [`select_each`] read, by position, ordered by version.
pub(crate) fn parse_several(rows: &[Row], batch: &[usize]) -> HashMap<usize, History> {
    let mut histories: HashMap<usize, History> =
        batch.iter().map(|&position| (position, Ok(Vec::new()))).collect();
    for row in rows {
        let position = row.parse::<usize>(0).ok();
        let Some(history) = position.and_then(|position| histories.get_mut(&position)) else {
            continue;
        };
        match (read_row(row, 1), history.as_mut()) {
            (Ok(applied), Ok(rows)) => rows.push(applied),
            (Err(why), Ok(_)) => *history = Err(why),
            (_, Err(_)) => {}
        }
    }
    for history in histories.values_mut().flatten() {
        history.sort_by_key(|row| row.version);
    }
    histories
}

/// Returns the statement that reads one history, for [`parse`].
pub(crate) fn select(schema: &SchemaName, table: &str) -> String {
    format!("SELECT version, name, applied_on, checksum FROM {}", qualified(schema, table))
}

/// Returns the history that [`select`] read, ordered by version.
pub(crate) fn parse(rows: &[Row]) -> History {
    let mut rows: Vec<Applied> =
        rows.iter().map(|row| read_row(row, 0)).collect::<Result<_, _>>()?;
    rows.sort_by_key(|row| row.version);
    Ok(rows)
}

/// Reads a row; refinery's own reader panics on invalid ones.
fn read_row(row: &Row, first: usize) -> Result<Applied, String> {
    let cell = |column: usize| row.optional(first + column);
    let version_text = cell(0).unwrap_or("NULL");
    let damaged = |what: &str| format!("the row of version {version_text} {what}");
    let version: i64 = version_text
        .parse()
        .ok()
        .filter(|&version| version >= 0)
        .ok_or_else(|| damaged("has an invalid version number"))?;
    let checksum_text = cell(3).ok_or_else(|| damaged("has no checksum"))?;
    Ok(Applied {
        version,
        name: cell(1).ok_or_else(|| damaged("has no name"))?.to_owned(),
        checksum: checksum_text.parse().map_err(|_| {
            damaged(&format!("has the checksum '{checksum_text}', which is not a number"))
        })?,
        applied_on: cell(2).ok_or_else(|| damaged("has no time"))?.to_owned(),
    })
}
