//! The run log: who migrated what and when, and the outcome of each schema. `runs` shows it.
//!
//! It decides only which schemas `--retry-failed` selects. What is applied is in the histories and the
//! ledger, so a run never waits for its log; a run whose log is incomplete reports that.

use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::RUN_LOG_TIMEOUT;
use crate::postgres::connection::server_error::{
    is_connection_lost, is_worth_retrying, server_error, sqlstate_of,
};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::transaction::ledger::is_absent;
use crate::postgres::transaction::settings::ASYNC_COMMIT;
use crate::service::failure::ServerError;

/// How long outcomes are collected before they are stored together.
const GATHER: Duration = Duration::from_millis(200);

/// How long the end of a run waits before it stores again what could not be stored.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How many rows one statement stores.
const BATCH: usize = 500;

/// What is known when a run starts.
#[derive(Clone, Debug)]
pub struct RunHeader {
    /// The command line without secrets.
    pub command: String,
    /// Who started it: user, host, process.
    pub started_by: String,
    /// The digests of both sets of files.
    pub files: String,
    /// How many schemas are selected.
    pub schemas: usize,
}

/// The outcome of one schema.
#[derive(Clone, Debug)]
pub struct RunItem {
    /// The schema.
    pub schema: String,
    /// The tenant's slug, or `public`.
    pub tenant: String,
    /// `migrated`, `failed`, `skipped`, `not-started` or `up-to-date`.
    pub outcome: &'static str,
    /// How many scripts were applied.
    pub scripts: usize,
    /// How long it took; `None` if it was not started.
    pub took: Option<Duration>,
    /// Why it failed or was skipped, on one line.
    pub reason: Option<String>,
    /// The kind of failure, by which equal failures are grouped, and the SQLSTATE.
    pub failure: Option<(String, Option<String>)>,
}

/// A run that is being stored.
#[derive(Debug)]
pub struct RunLog {
    id: i64,
    items: mpsc::UnboundedSender<RunItem>,
    /// Dropped when no more items follow.
    open: oneshot::Sender<()>,
    /// Returns whether everything was stored.
    writer: JoinHandle<(Database, bool)>,
}

impl RunLog {
    /// Starts the record of a run; returns `None` if the tables cannot be used.
    pub(crate) async fn begin(database: &Database, header: &RunHeader) -> Option<Self> {
        let session = database.session(Duration::ZERO).await.ok()?;
        let sql = format!(
            "{ASYNC_COMMIT}; INSERT INTO pricesync.run (started_by, command, files, schemas) VALUES ({}, {}, {}, {}) RETURNING id",
            escape_literal(&header.started_by),
            escape_literal(&header.command),
            escape_literal(&header.files),
            header.schemas
        );
        let rows = session.rows(&sql).await.ok()?;
        let id = rows.first()?.optional(0)?.parse().ok()?;
        let (items, queue) = mpsc::unbounded_channel();
        let (open, ended) = oneshot::channel();
        Some(Self {
            id,
            items,
            open,
            writer: tokio::spawn(write(database.clone(), id, queue, ended)),
        })
    }

    /// Returns the run's number.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Queues an outcome to be stored. Never fails and never blocks the run.
    pub fn record(&self, item: RunItem) {
        // If the writer has ended, `finish` reports an incomplete record.
        let _ = self.items.send(item);
    }

    /// Waits until all outcomes are stored and stores the end of the run. Returns whether the record is
    /// complete. `schemas` may have grown since the start.
    pub async fn finish(self, schemas: usize, up_to_date: usize, interrupted: bool) -> bool {
        let Self { id, items, open, writer } = self;
        drop((items, open));
        let Ok((database, is_complete)) = writer.await else {
            return false;
        };
        let Ok(session) = database.session(RUN_LOG_TIMEOUT).await else {
            return false;
        };
        let sql = format!(
            "{ASYNC_COMMIT}; UPDATE pricesync.run SET finished_at = clock_timestamp(), schemas = {schemas}, up_to_date = {up_to_date}, \
             interrupted = {interrupted} WHERE id = {id}"
        );
        session.rows(&sql).await.is_ok() && is_complete
    }
}

async fn write(
    database: Database,
    run: i64,
    mut queue: mpsc::UnboundedReceiver<RunItem>,
    mut ended: oneshot::Receiver<()>,
) -> (Database, bool) {
    let mut collected = Vec::new();
    while queue.recv_many(&mut collected, BATCH).await > 0 {
        store_batches(&database, run, &mut collected).await;
        if !queue.is_closed() {
            let _ = tokio::time::timeout(GATHER, &mut ended).await;
        }
    }
    let give_up = Instant::now() + RUN_LOG_TIMEOUT;
    for attempt in 1.. {
        let may_pass = store_batches(&database, run, &mut collected).await;
        let is_last = attempt > 1 && (!may_pass || Instant::now() >= give_up);
        if collected.is_empty() || is_last {
            break;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    (database, collected.is_empty())
}

/// Stores as many outcomes as possible; the others are retried together with the next ones. Returns
/// whether a cause that passes is why some are left.
async fn store_batches(database: &Database, run: i64, collected: &mut Vec<RunItem>) -> bool {
    if collected.is_empty() {
        return false;
    }
    let Ok(session) = database.session(RUN_LOG_TIMEOUT).await else {
        return true;
    };
    while !collected.is_empty() {
        let batch = collected.len().min(BATCH);
        let Err(error) = store(&session, run, &collected[..batch]).await else {
            collected.drain(..batch);
            continue;
        };
        // A failed migration's error arrives before the server has rolled back and freed its locks.
        let is_full = sqlstate_of(&error) == Some(sqlstate::OUT_OF_MEMORY);
        if is_full || is_connection_lost(&error) || is_worth_retrying(&error) {
            return true;
        }
        // One row that the server refuses must not fail the others.
        let items = collected.drain(..batch).collect();
        let refused = store_each(&session, run, items).await;
        collected.extend(refused);
        return false;
    }
    false
}

/// Stores items one by one, and returns those that are not stored.
async fn store_each(session: &Session, run: i64, items: Vec<RunItem>) -> Vec<RunItem> {
    let mut refused = Vec::new();
    for item in items {
        if store(session, run, std::slice::from_ref(&item)).await.is_err() {
            refused.push(item);
        }
    }
    refused
}

async fn store(session: &Session, run: i64, items: &[RunItem]) -> Result<(), Error> {
    let optional = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), escape_literal);
    let mut rows = Vec::with_capacity(items.len());
    let mut failures = Vec::new();
    let mut successes = Vec::new();
    for item in items {
        let schema = escape_literal(&item.schema);
        if item.outcome != "up-to-date" {
            rows.push(format!(
                "({run}, {schema}, {}, '{}', {}, {}, {})",
                escape_literal(&item.tenant),
                item.outcome,
                item.scripts,
                item.took.map_or_else(|| "NULL".to_owned(), |took| took.as_millis().to_string()),
                optional(item.reason.as_deref())
            ));
        }
        match (&item.failure, item.outcome) {
            (Some((kind, sqlstate)), _) => failures.push(format!(
                "({schema}, {run}, {}, {}, {})",
                optional(sqlstate.as_deref()),
                escape_literal(kind),
                escape_literal(item.reason.as_deref().unwrap_or_default())
            )),
            (None, "migrated" | "up-to-date") => successes.push(schema),
            _ => {}
        }
    }
    let mut sql = vec![
        ASYNC_COMMIT.to_owned(),
        "SET LOCAL search_path TO pg_catalog".to_owned(),
        format!("SET LOCAL lock_timeout TO {}", RUN_LOG_TIMEOUT.as_millis()),
    ];
    if !rows.is_empty() {
        sql.push(format!(
            "INSERT INTO pricesync.run_item (run_id, schema_name, tenant, outcome, scripts, took_ms, reason) \
             VALUES {} ON CONFLICT (run_id, schema_name) DO UPDATE SET outcome = EXCLUDED.outcome, \
             scripts = EXCLUDED.scripts, took_ms = EXCLUDED.took_ms, reason = EXCLUDED.reason, finished_at = clock_timestamp()",
            rows.join(", ")
        ));
    }
    if !successes.is_empty() {
        sql.push(format!(
            "DELETE FROM pricesync.schema_failure WHERE schema_name = ANY (ARRAY[{}])",
            successes.join(", ")
        ));
    }
    if !failures.is_empty() {
        sql.push(format!(
            "INSERT INTO pricesync.schema_failure (schema_name, run_id, sqlstate, failure, message) VALUES {} \
             ON CONFLICT (schema_name) DO UPDATE SET run_id = EXCLUDED.run_id, failed_at = clock_timestamp(), \
             sqlstate = EXCLUDED.sqlstate, failure = EXCLUDED.failure, message = EXCLUDED.message",
            failures.join(", ")
        ));
    }
    let sql = format!("BEGIN; {}; COMMIT", sql.join("; "));
    let stored = session.rows(&sql).await;
    if stored.is_err() {
        let _ = session.client().simple_query("ROLLBACK").await;
    }
    stored.map(drop)
}

/// Returns the statements that delete the rows of a dropped schema.
pub(crate) fn forget(schema: &SchemaName) -> String {
    let name = escape_literal(schema.as_str());
    format!(
        "DELETE FROM pricesync.schema_state WHERE schema_name = {name}; \
         DELETE FROM pricesync.schema_failure WHERE schema_name = {name}"
    )
}

/// A schema whose last run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedSchema {
    /// The schema.
    pub schema: String,
    /// The run in which it failed.
    pub run: i64,
    /// The error, on one line.
    pub message: String,
    /// The kind of failure, by which equal failures are grouped.
    pub kind: String,
}

impl FailedSchema {
    /// Returns whether the cause, as long as it is there, shows in the state of the schema: it was
    /// missing, or its history was damaged or did not match the files.
    pub fn shows_in_state(&self) -> bool {
        ["schema-missing", "drift", "damaged-history"]
            .iter()
            .any(|kind| self.kind.starts_with(&format!("{{\"kind\":\"{kind}\"")))
    }
}

/// Returns the schemas whose last run failed, ordered by name; none if the tables are missing.
pub async fn failures(database: &Database) -> Result<Vec<FailedSchema>, ServerError> {
    read(database, FAILURES, |row| {
        Ok(FailedSchema {
            schema: row.text(0)?.to_owned(),
            run: row.parse(1)?,
            message: row.text(2)?.to_owned(),
            kind: row.text(3)?.to_owned(),
        })
    })
    .await
}

const FAILURES: &str =
    "SELECT schema_name, run_id, message, failure FROM pricesync.schema_failure ORDER BY 1";

/// Returns the schemas whose last run failed; `public` may be among them.
///
/// # Errors
///
/// The server's error, also if the tables are missing or not readable.
pub async fn failed_schemas(database: &Database) -> Result<Vec<SchemaName>, ServerError> {
    let session = database.session(Duration::ZERO).await?;
    let rows = session.read(FAILURES).await;
    let rows = rows.map_err(|error| server_error(&error))?;
    Ok(rows
        .iter()
        .filter_map(|row| match row.optional(0)? {
            "public" => Some(SchemaName::public()),
            name => SchemaName::parse(name).ok(),
        })
        .collect())
}

/// A stored run, and the number of schemas with each outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRun {
    /// Its number.
    pub id: i64,
    /// When it started, in RFC 3339.
    pub started_at: String,
    /// How many seconds it took; `None` if its end was not stored.
    pub took: Option<String>,
    /// User, host and process that started it.
    pub started_by: String,
    /// The command line.
    pub command: String,
    /// Schemas selected, migrated, up to date, failed, skipped, not started.
    pub counts: [i64; 6],
    /// Whether it was interrupted.
    pub interrupted: bool,
}

/// The outcome of a schema in a stored run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredItem {
    /// The schema.
    pub schema: String,
    /// The tenant's slug.
    pub tenant: String,
    /// As in [`RunItem`].
    pub outcome: String,
    /// How many scripts were applied.
    pub scripts: i64,
    /// Milliseconds.
    pub took_ms: Option<i64>,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
}

/// Returns the last runs, newest first, or `only` the run with this id; none if the tables are missing.
pub async fn stored(
    database: &Database,
    only: Option<i64>,
    limit: usize,
) -> Result<Vec<StoredRun>, ServerError> {
    let condition = only.map_or_else(String::new, |id| format!("WHERE r.id = {id}"));
    let sql = format!(
        "SELECT r.id, to_char(r.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
         round(extract(epoch FROM r.finished_at - r.started_at)::numeric, 2), r.started_by, r.command, r.schemas, \
         count(*) FILTER (WHERE i.outcome = 'migrated'), r.up_to_date, count(*) FILTER (WHERE i.outcome = 'failed'), \
         count(*) FILTER (WHERE i.outcome = 'skipped'), count(*) FILTER (WHERE i.outcome = 'not-started'), r.interrupted \
         FROM (SELECT * FROM pricesync.run r {condition} ORDER BY r.id DESC LIMIT {limit}) r \
         LEFT JOIN pricesync.run_item i ON i.run_id = r.id \
         GROUP BY r.id, r.started_at, r.finished_at, r.started_by, r.command, r.schemas, r.up_to_date, r.interrupted ORDER BY r.id DESC"
    );
    read(database, &sql, |row| {
        let mut counts = [0; 6];
        for (index, count) in counts.iter_mut().enumerate() {
            *count = row.parse(5 + index)?;
        }
        Ok(StoredRun {
            id: row.parse(0)?,
            started_at: row.text(1)?.to_owned(),
            took: row.optional(2).map(str::to_owned),
            started_by: row.text(3)?.to_owned(),
            command: row.text(4)?.to_owned(),
            counts,
            interrupted: row.is_true(11),
        })
    })
    .await
}

/// Returns the outcomes of a run, failures first; none if the tables are missing.
pub async fn items(database: &Database, run: i64) -> Result<Vec<StoredItem>, ServerError> {
    let sql = format!(
        "SELECT schema_name, tenant, outcome, scripts, took_ms, reason FROM pricesync.run_item WHERE run_id = {run} \
         ORDER BY array_position(ARRAY['failed', 'skipped', 'not-started', 'migrated'], outcome), tenant"
    );
    read(database, &sql, |row| {
        Ok(StoredItem {
            schema: row.text(0)?.to_owned(),
            tenant: row.text(1)?.to_owned(),
            outcome: row.text(2)?.to_owned(),
            scripts: row.parse(3)?,
            took_ms: row.optional(4).map(|_| row.parse(4)).transpose()?,
            reason: row.optional(5).map(str::to_owned),
        })
    })
    .await
}

/// Reads the rows of a query; none if the tables are missing.
async fn read<T>(
    database: &Database,
    sql: &str,
    parse: impl Fn(&Row) -> Result<T, Error>,
) -> Result<Vec<T>, ServerError> {
    let session = database.session(Duration::ZERO).await?;
    let rows = match session.read(sql).await {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        rows => rows,
    };
    rows.and_then(|rows| rows.iter().map(parse).collect()).map_err(|error| server_error(&error))
}
