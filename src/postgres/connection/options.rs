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
    /// What tenants' files may do outside their schema.
    pub guard_rules: GuardRules,
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
    pub fn new(database: &Database, layout: &CatalogLayout) -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::ZERO,
            lock_retries: 5,
            lock_wait: Duration::from_mins(1),
            atomic: Atomic::Schema,
            goal: Goal::Latest,
            search_path: vec![SchemaName::public()],
            guard_rules: GuardRules::default(),
            history_table: "refinery_schema_history".to_owned(),
            tenants: Tables::new(layout).rows,
            templates: true,
            group_limit: GroupLimit { schemas: 16, time: Duration::from_millis(50) },
            server_version: database.facts().version,
            route: database.facts().route,
        }
    }
}

/// What the escape guard allows outside a tenant's schema.
#[derive(Clone, Debug, Default)]
pub struct GuardRules {
    /// The tables that foreign keys may reference; `None`, the default, allows every table of `public`.
    pub references: Option<Vec<TableName>>,
    /// The tables whose rows may change, and the sequences that may be drawn from. Default: none.
    pub allow_writes: Vec<TableName>,
}

impl GuardRules {
    /// Returns the same rules without `allow_writes`.
    pub(crate) fn without_writes(&self) -> Self {
        Self { allow_writes: Vec::new(), ..self.clone() }
    }

    /// Returns the SQL condition that foreign keys may reference the relation `c` in the schema `n`.
    pub(crate) fn is_referable(&self) -> String {
        match &self.references {
            None => "n.nspname = 'public'".to_owned(),
            Some(tables) => is_one_of("(n.nspname, c.relname)", tables),
        }
    }

    /// Returns `allow_writes` as an SQL array of quoted names.
    pub(crate) fn listed(&self) -> String {
        let name = |table: &TableName| {
            format!(
                "quote_ident({}) || '.' || quote_ident({})",
                escape_literal(&table.schema),
                escape_literal(&table.table)
            )
        };
        let names: Vec<String> = self.allow_writes.iter().map(name).collect();
        format!("ARRAY[{}]::text[]", names.join(", "))
    }
}

/// Returns the SQL condition that a pair of schema and name is in the list.
fn is_one_of(pair: &str, tables: &[TableName]) -> String {
    if tables.is_empty() {
        return "false".to_owned();
    }
    format!("{pair} IN ({})", literals(tables))
}

/// Returns pairs of literals for schema and name.
pub(crate) fn literals(tables: &[TableName]) -> String {
    let pair = |table: &TableName| {
        format!("({}, {})", escape_literal(&table.schema), escape_literal(&table.table))
    };
    tables.iter().map(pair).collect::<Vec<_>>().join(", ")
}
