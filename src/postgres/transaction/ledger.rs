//! The ledger: `pricesync.schema_state` mirrors every schema's history, so that one query reads the state of
//! all schemas.
//!
//! The history in the schema is authoritative. A row of the ledger is written in the transaction that
//! changes the history, and is trusted only if
//!
//! - schema, history table and the table's file are the same, so that a schema that was dropped,
//!   recreated, restored or truncated by other means is read again;
//! - the row was not edited or restored from a dump: it contains the id of the transaction that wrote
//!   it, which PostgreSQL keeps in `xmin` (manual section 5.5).
//!
//! It misses another tool that inserts or deletes rows of a history table that stays in place. Migrating
//! such a schema is safe, because it reads the history under the lock;
//! [`PostgresMigrator::verify`] finds it otherwise.
//!
//! [`PostgresMigrator::verify`]: crate::postgres::migrate::migrator::PostgresMigrator::verify

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::advisory_lock::CLASS;
use super::history::{self, qualified};
use crate::domain::applied::Applied;
use crate::domain::digest::of_history;
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::postgres::connection::options::{GuardRules, SINGLE_HISTORY_TIMEOUT};
use crate::postgres::connection::server_error::sqlstate_of;
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::settings::ASYNC_COMMIT;

/// How many schemas are recorded in one transaction: each takes two slots of the server's lock table.
const BATCH: usize = 100;

/// Until `pg_class` is analyzed, the planner expects one history table and joins in nested loops: with a
/// thousand schemas a million comparisons.
const BY_HASH: &str = "SET LOCAL enable_nestloop TO off; ";

/// The trusted digests of histories, by schema. Equal digests share their text.
pub(crate) type Digests = HashMap<String, Arc<str>>;

/// Reads all trusted digests; none if there is no ledger or it is not readable.
pub(crate) async fn read_digests(session: &Session, table: &str) -> Result<Digests, Error> {
    let rows = match session.read(&(BY_HASH.to_owned() + &trusted(table))).await {
        Ok(rows) => rows,
        Err(error) if is_absent(&error) => return Ok(Digests::new()),
        Err(error) => return Err(error),
    };
    let mut texts: HashMap<String, Arc<str>> = HashMap::new();
    let mut digests = Digests::with_capacity(rows.len());
    for row in &rows {
        let digest = row.text(1)?;
        if !texts.contains_key(digest) {
            texts.insert(digest.to_owned(), Arc::from(digest));
        }
        digests.insert(row.text(0)?.to_owned(), Arc::clone(&texts[digest]));
    }
    Ok(digests)
}

/// Returns the query for the trusted rows.
fn trusted(table: &str) -> String {
    format!(
        "SELECT s.schema_name, s.digest FROM pricesync.schema_state s \
         JOIN pg_namespace n ON n.oid = s.schema_oid AND n.nspname = s.schema_name::name \
         JOIN pg_class c ON c.oid = s.history_oid AND c.relnamespace = n.oid AND c.relfilenode = s.history_file \
         WHERE c.relname = {} AND s.xmin = s.written_by::xid",
        escape_literal(table)
    )
}

/// Deletes the rows that are not trusted, such as those of dropped schemas.
pub(crate) async fn delete_untrusted(session: &Session, table: &str) -> Result<(), Error> {
    let sql = format!(
        "BEGIN; {ASYNC_COMMIT}; SET LOCAL search_path TO pg_catalog; SET LOCAL statement_timeout TO 0; {BY_HASH}\
         DELETE FROM pricesync.schema_state s WHERE s.schema_name NOT IN (SELECT schema_name FROM ({}) b); COMMIT",
        trusted(table)
    );
    let done = session.rows(&sql).await;
    if done.is_err() {
        let _ = session.client().simple_query("ROLLBACK").await;
    }
    done.map(drop)
}

/// Returns whether an error means that there is no usable ledger: schema, table, column or function are
/// missing, or the role lacks the privilege.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(
        sqlstate_of(error),
        Some(
            sqlstate::INVALID_SCHEMA_NAME
                | sqlstate::UNDEFINED_TABLE
                | sqlstate::UNDEFINED_COLUMN
                | sqlstate::UNDEFINED_FUNCTION
                | sqlstate::INSUFFICIENT_PRIVILEGE
        )
    )
}

/// Returns the statement that records the history of a schema as of this transaction.
pub(crate) fn note(schema: &SchemaName, table: &str, history: &[Applied]) -> String {
    insert(&values(schema, table, history))
}

/// A call of `pricesync.finish` for schemas whose histories are equal.
pub(crate) struct FinishCall(String);

impl FinishCall {
    /// Returns the call for these schemas, by oid, which all have this history.
    pub(crate) fn new(schemas: &[(u32, &SchemaName)], table: &str, history: &[Applied]) -> Self {
        let list = |item: &dyn Fn(&(u32, &SchemaName)) -> String| {
            let items: Vec<String> = schemas.iter().map(item).collect();
            items.join(", ")
        };
        Self(format!(
            "ARRAY[{}]::oid[], ARRAY[{}], ARRAY[{}]::oid[], {}, {}, '{}'",
            list(&|(oid, _)| oid.to_string()),
            list(&|(_, schema)| escape_literal(schema.as_str())),
            list(&|(_, schema)| escape_literal(&qualified(schema, table)) + "::regclass"),
            version_of(history),
            history.len(),
            of_history(history)
        ))
    }

    /// Returns the expression that is true if the guard's full question is required, and otherwise
    /// writes the ledger. `wide` as in [`quick_question`](super::escape_guard::quick_question).
    pub(crate) fn expression(&self, rules: &GuardRules, wide: bool) -> String {
        format!("pricesync.finish({}, {wide}, {})", self.0, rules.listed())
    }
}

/// Replaces existing rows as a whole, so that their `xmin` is this transaction.
fn insert(values: &str) -> String {
    format!(
        "INSERT INTO pricesync.schema_state AS s \
         (schema_name, schema_oid, history_oid, history_file, written_by, version, applied, digest, changed_at) \
         VALUES {values} \
         ON CONFLICT (schema_name) DO UPDATE SET schema_oid = EXCLUDED.schema_oid, \
         history_oid = EXCLUDED.history_oid, history_file = EXCLUDED.history_file, written_by = EXCLUDED.written_by, \
         version = EXCLUDED.version, applied = EXCLUDED.applied, digest = EXCLUDED.digest, changed_at = EXCLUDED.changed_at"
    )
}

fn values(schema: &SchemaName, table: &str, history: &[Applied]) -> String {
    let history_table = escape_literal(&qualified(schema, table));
    format!(
        "({}, {}::regnamespace, {history_table}::regclass, pg_relation_filenode({history_table}::regclass), \
         pg_current_xact_id(), {}, {}, '{}', clock_timestamp())",
        escape_literal(schema.as_str()),
        escape_literal(&schema.quoted().to_string()),
        version_of(history),
        history.len(),
        of_history(history)
    )
}

fn version_of(history: &[Applied]) -> String {
    let newest = history.iter().map(|row| row.version).max();
    newest.map_or_else(|| "NULL".to_owned(), |version| version.to_string())
}

/// Reads the histories of these schemas under their locks and records them. Returns how many were
/// recorded: schemas that another session has locked and unreadable histories are skipped. The wait for a
/// locked history is short, because the locks of all these schemas are held meanwhile.
///
/// # Errors
///
/// The server's error; schemas that were recorded before stay recorded.
pub(crate) async fn record_histories(
    session: &Session,
    schemas: &[&SchemaName],
    table: &str,
) -> Result<usize, Error> {
    let mut recorded = 0;
    for batch in schemas.chunks(BATCH) {
        match in_transaction(session, batch, table).await {
            Ok(count) => recorded += count,
            Err(error) if session.client().is_closed() => return Err(error),
            // One unreadable history fails its whole batch.
            Err(_) => {
                for schema in batch {
                    recorded += in_transaction(session, &[schema], table).await.unwrap_or(0);
                }
            }
        }
    }
    Ok(recorded)
}

async fn in_transaction(
    session: &Session,
    batch: &[&SchemaName],
    table: &str,
) -> Result<usize, Error> {
    let result = record_batch(session, batch, table).await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = session.client().simple_query(end).await;
    let recorded = result?;
    ended.map(|_| recorded)
}

async fn record_batch(
    session: &Session,
    batch: &[&SchemaName],
    table: &str,
) -> Result<usize, Error> {
    let names: Vec<String> = batch.iter().map(|schema| escape_literal(schema.as_str())).collect();
    let sql = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {ASYNC_COMMIT}; SET LOCAL search_path TO pg_catalog; SET LOCAL statement_timeout TO 0; SET LOCAL lock_timeout TO {}; \
         SELECT n.nspname, pg_try_advisory_xact_lock({CLASS}, n.oid::int4) FROM pg_namespace n \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = {} AND c.relkind IN ('r', 'p') \
         WHERE n.nspname = ANY (ARRAY[{}]::name[])",
        SINGLE_HISTORY_TIMEOUT.as_millis(),
        escape_literal(table),
        names.join(",")
    );
    let rows = session.rows(&sql).await?;
    let locked: HashSet<&str> =
        rows.iter().filter(|row| row.is_true(1)).filter_map(|row| row.optional(0)).collect();
    let positions: Vec<usize> =
        (0..batch.len()).filter(|&position| locked.contains(batch[position].as_str())).collect();
    if positions.is_empty() {
        return Ok(0);
    }
    let rows = session.rows(&history::select_several(batch, &positions, table)).await?;
    let found: Vec<String> = history::parse_several(&rows, &positions)
        .into_iter()
        .filter_map(|(position, history)| Some(values(batch[position], table, &history.ok()?)))
        .collect();
    if !found.is_empty() {
        session.rows(&insert(&found.join(", "))).await?;
    }
    Ok(found.len())
}
