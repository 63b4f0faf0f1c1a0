//! Limits of waiting on a server, and the options that several rooms share.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;

use crate::settings::TableName;

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

/// After how many borrowers a connection is closed: a backend's catalog caches grow with every
/// schema it touches, and only a new backend frees their memory.
pub(super) const MAX_USES: usize = 500;

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
            format!(
                "({}, {})",
                escape_literal(&table.schema),
                escape_literal(&table.table)
            )
        };
        let pairs: Vec<String> = tables.iter().map(pair).collect();
        if pairs.is_empty() {
            "false".to_owned()
        } else {
            format!("(n.nspname, c.relname) IN ({})", pairs.join(", "))
        }
    }
}
