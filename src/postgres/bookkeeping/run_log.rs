//! Who migrated what and when, and how each schema ended: stored as it happens, read by `runs`.
//!
//! Nothing is decided by these tables but which schemas `--retry-failed` takes up. What is
//! applied stands in the histories and the ledger, so losing a report loses no more than that; a
//! run whose report has holes says so.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::RUN_LOG_TIMEOUT;
use crate::postgres::connection::server_error::{
    is_connection_lost, is_worth_retrying, server_error,
};
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::ledger::is_absent;
use crate::postgres::transaction::settings::ASYNC_COMMIT;
use crate::service::failure::ServerError;

/// How long an outcome may wait until it is stored, together with others.
const GATHER: Duration = Duration::from_millis(200);

/// How many rows one statement stores.
const BATCH: usize = 500;

/// What is known of a run when it begins.
#[derive(Clone, Debug)]
pub struct RunHeader {
    /// The command line, without anything secret.
    pub command: String,
    /// Who started it: user, host, process.
    pub started_by: String,
    /// Which files it applies, as digests of both sets.
    pub files: String,
    /// How many schemas are selected.
    pub schemas: usize,
}

/// How one schema ended.
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
    /// How long it took, where it was worked on.
    pub took: Option<Duration>,
    /// Why it did not end well, on one line.
    pub reason: Option<String>,
    /// What makes equal failures equal, where it failed; and the server's code.
    pub failure: Option<(String, Option<String>)>,
}

/// A run that is being stored.
#[derive(Debug)]
pub struct RunLog {
    id: i64,
    items: mpsc::UnboundedSender<RunItem>,
    /// Dropped when there is nothing more to wait for.
    going_on: oneshot::Sender<()>,
    /// Returns whether everything was stored.
    writer: JoinHandle<(Database, bool)>,
}

impl RunLog {
    /// Begins to store a run; returns nothing where the tables cannot be used.
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
        let (going_on, ended) = oneshot::channel();
        Some(Self {
            id,
            items,
            going_on,
            writer: tokio::spawn(write(database.clone(), id, queue, ended)),
        })
    }

    /// Returns the run's number.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Stores how a schema ended, soon. Never fails and never blocks the run.
    pub fn record(&self, item: RunItem) {
        // A writer that has gone away leaves a record with holes, which the end tells.
        let _ = self.items.send(item);
    }

    /// Waits until everything is stored and notes the end; `schemas` may have grown meanwhile.
    /// Returns whether the record is complete.
    pub async fn finish(self, schemas: usize, up_to_date: usize, interrupted: bool) -> bool {
        let Self {
            id,
            items,
            going_on,
            writer,
        } = self;
        drop((items, going_on));
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
    let mut gathered = Vec::new();
    while queue.recv_many(&mut gathered, BATCH).await > 0 {
        store_batches(&database, run, &mut gathered).await;
        if !queue.is_closed() {
            let _ = tokio::time::timeout(GATHER, &mut ended).await;
        }
    }
    // A connection that breaks at the end is not the last one.
    for _ in 0..2 {
        store_batches(&database, run, &mut gathered).await;
    }
    (database, gathered.is_empty())
}

/// Stores as many as it can; what is left is tried again together with what comes next.
async fn store_batches(database: &Database, run: i64, gathered: &mut Vec<RunItem>) {
    if gathered.is_empty() {
        return;
    }
    let Ok(session) = database.session(RUN_LOG_TIMEOUT).await else {
        return;
    };
    while !gathered.is_empty() {
        let batch = gathered.len().min(BATCH);
        let Err(error) = store(&session, run, &gathered[..batch]).await else {
            gathered.drain(..batch);
            continue;
        };
        if !is_connection_lost(&error) && !is_worth_retrying(&error) {
            // A row that the server refuses takes no other with it.
            let items = gathered.drain(..batch).collect();
            let refused = store_each(&session, run, items).await;
            gathered.extend(refused);
        }
        return;
    }
}

/// Stores one by one, and returns those that are not stored.
async fn store_each(session: &Session, run: i64, items: Vec<RunItem>) -> Vec<RunItem> {
    let mut refused = Vec::new();
    for item in items {
        if store(session, run, std::slice::from_ref(&item))
            .await
            .is_err()
        {
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
                item.took
                    .map_or_else(|| "NULL".to_owned(), |took| took.as_millis().to_string()),
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

/// Returns the statements that forget a schema which is gone.
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
    /// In which run.
    pub run: i64,
    /// What failed, on one line.
    pub message: String,
    /// What makes equal failures equal.
    pub kind: String,
}

/// Returns the schemas whose last run failed, in the order of their names.
///
/// # Errors
///
/// What the server says; without our tables nothing has failed.
pub async fn failures(database: &Database) -> Result<Vec<FailedSchema>, ServerError> {
    Ok(read(database, FAILURES)
        .await?
        .into_iter()
        .map(failed)
        .collect())
}

const FAILURES: &str =
    "SELECT schema_name, run_id, message, failure FROM pricesync.schema_failure ORDER BY 1";

fn failed(mut row: Vec<String>) -> FailedSchema {
    FailedSchema {
        kind: row.swap_remove(3),
        message: row.swap_remove(2),
        run: row.swap_remove(1).parse().unwrap_or_default(),
        schema: row.swap_remove(0),
    }
}

/// Returns the schemas whose last run failed, `public` perhaps among them.
///
/// # Errors
///
/// What the server says, also where our tables are missing or may not be read: nobody knows then
/// what has failed.
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

/// A stored run, and how many schemas ended in which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRun {
    /// Its number.
    pub id: i64,
    /// When it began, as RFC 3339 text.
    pub started_at: String,
    /// How many seconds it took; `None` where its end was never noted.
    pub took: Option<String>,
    /// Who started it.
    pub started_by: String,
    /// The command line.
    pub command: String,
    /// Schemas selected, migrated, up to date, failed, skipped, not started.
    pub counts: [i64; 6],
    /// Whether it was interrupted.
    pub interrupted: bool,
}

/// How a schema ended in a stored run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredItem {
    /// The schema.
    pub schema: String,
    /// The tenant's slug.
    pub tenant: String,
    /// How it ended.
    pub outcome: String,
    /// How many scripts were applied.
    pub scripts: i64,
    /// Milliseconds.
    pub took_ms: Option<i64>,
    /// Why it did not end well.
    pub reason: Option<String>,
}

/// Returns the newest runs, the newest first; with a number that run alone.
///
/// # Errors
///
/// What the server says; without our tables there are no runs.
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
    let number = |text: &String| text.parse::<i64>().unwrap_or_default();
    Ok(read(database, &sql)
        .await?
        .into_iter()
        .map(|row| StoredRun {
            id: number(&row[0]),
            started_at: row[1].clone(),
            took: Some(row[2].clone()).filter(|took| !took.is_empty()),
            started_by: row[3].clone(),
            command: row[4].clone(),
            counts: std::array::from_fn(|index| number(&row[5 + index])),
            interrupted: row[11] == "t",
        })
        .collect())
}

/// Returns how the schemas of a run ended, failures first.
///
/// # Errors
///
/// As [`stored`].
pub async fn items(database: &Database, run: i64) -> Result<Vec<StoredItem>, ServerError> {
    let sql = format!(
        "SELECT schema_name, tenant, outcome, scripts, took_ms, reason FROM pricesync.run_item WHERE run_id = {run} \
         ORDER BY array_position(ARRAY['failed', 'skipped', 'not-started', 'migrated'], outcome), tenant"
    );
    Ok(read(database, &sql)
        .await?
        .into_iter()
        .map(|row| StoredItem {
            schema: row[0].clone(),
            tenant: row[1].clone(),
            outcome: row[2].clone(),
            scripts: row[3].parse().unwrap_or_default(),
            took_ms: row[4].parse().ok(),
            reason: Some(row[5].clone()).filter(|reason| !reason.is_empty()),
        })
        .collect())
}

/// Returns the rows of a query as text, NULL as an empty one; none where our tables are missing.
async fn read(database: &Database, sql: &str) -> Result<Vec<Vec<String>>, ServerError> {
    let session = database.session(Duration::ZERO).await?;
    match session.read(sql).await {
        Ok(rows) => Ok(rows
            .iter()
            .map(|row| {
                (0..row.len())
                    .map(|column| row.optional(column).unwrap_or_default().to_owned())
                    .collect()
            })
            .collect()),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(server_error(&error)),
    }
}
