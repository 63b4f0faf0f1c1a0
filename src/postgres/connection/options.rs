//! Limits of waiting on a server, and the options that several rooms share.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;

use super::catalog_sql::Tables;
use super::database::{Database, Route};
use crate::domain::plan::Goal;
use crate::domain::run_options::{Atomic, GroupLimit};
use crate::domain::schema_name::SchemaName;
use crate::settings::{CatalogLayout, TableName};

/// How long a server that restarts, is full or does not answer is retried before the work on a
/// schema fails.
pub(crate) const RECONNECT_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a transaction that already holds locks waits for a second session: other sessions queue
/// for those locks meanwhile.
pub(crate) const SECOND_SESSION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a borrower waits for a free connection of the pool.
pub(super) const POOL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a wait for a lock is reported again while it lasts.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How often a backup or a restore reports the rows it has moved.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How long histories that are read by one statement wait for locks on any of them.
pub(crate) const HISTORY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one history that is read by itself waits for a lock: thousands of them may be locked.
pub(crate) const SINGLE_HISTORY_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the run log waits for a connection and for locks, before it retries together with the
/// next outcomes.
pub(crate) const RUN_LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// How schemas are migrated: the settings that the engine needs, resolved.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How long a statement waits for a lock; zero means no limit. Default: 2 s.
    pub lock_timeout: Duration,
    /// How long a statement may run; zero means no limit. Default: zero.
    pub statement_timeout: Duration,
    /// How often a transaction is retried after lock contention. Default: 5.
    pub lock_retries: u32,
    /// How long to wait for a schema that another run holds. Default: 1 min.
    pub lock_wait: Duration,
    /// Whether all pending files of a schema share one transaction. Default: they do.
    pub atomic: Atomic,
    /// The version to migrate to. Default: the latest.
    pub goal: Goal,
    /// The schemas behind the tenant's own in `search_path`. Default: `public`.
    pub search_path: Vec<SchemaName>,
    /// The shared tables that foreign keys of tenants may reference. Default: all of `public`.
    pub references: References,
    /// Name of the history table in every schema. Default: `refinery_schema_history`.
    pub history_table: String,
    /// The tenants, as a sub-select with the columns of the shipped table.
    pub tenants: String,
    /// Whether an empty schema may be filled from a template. Default: yes.
    pub templates: bool,
    /// How many schemas share a transaction where each takes next to no time. Default: 16 within 50 ms.
    pub group_limit: GroupLimit,
    /// `server_version_num` of the server.
    pub server_version: u32,
    /// Whether a pooler is between us and the server.
    pub route: Route,
}

impl EngineOptions {
    /// Returns the defaults for a database whose tenants are in these tables.
    #[must_use]
    pub fn new(database: &Database, layout: &CatalogLayout) -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::ZERO,
            lock_retries: 5,
            lock_wait: Duration::from_mins(1),
            atomic: Atomic::Schema,
            goal: Goal::Latest,
            search_path: vec![SchemaName::public()],
            references: References::default(),
            history_table: "refinery_schema_history".to_owned(),
            tenants: Tables::new(layout).rows,
            templates: true,
            group_limit: GroupLimit { schemas: 16, time: Duration::from_millis(50) },
            server_version: database.facts().version,
            route: database.facts().route,
        }
    }
}

/// The tables outside a tenant's schema that its foreign keys may reference.
#[derive(Clone, Debug, Default)]
pub struct References(Option<Vec<TableName>>);

impl References {
    /// Allows only these tables; `None`, the default, allows every table of `public`.
    pub const fn new(declared: Option<Vec<TableName>>) -> Self {
        Self(declared)
    }

    /// Returns the SQL condition on the relation `c` in the schema `n`.
    pub(crate) fn condition(&self) -> String {
        let Some(tables) = &self.0 else {
            return "n.nspname = 'public'".to_owned();
        };
        let pair = |table: &TableName| {
            format!("({}, {})", escape_literal(&table.schema), escape_literal(&table.table))
        };
        let pairs: Vec<String> = tables.iter().map(pair).collect();
        if pairs.is_empty() {
            "false".to_owned()
        } else {
            format!("(n.nspname, c.relname) IN ({})", pairs.join(", "))
        }
    }
}
