//! One borrowed connection, and the notices that its server sends.

use std::collections::HashMap;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use deadpool_postgres::Object;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

use crate::service::event::Progress;

/// After how many borrowers a connection is closed: a backend's catalog caches grow with every
/// schema it touches, and only a new backend frees their memory.
pub(super) const MAX_USES: usize = 500;

/// A borrowed connection. Dropping it returns it to the pool, unless it was
/// [discarded](Self::discard).
#[derive(Debug)]
pub struct Session {
    object: Option<Object>,
    notices: Arc<Notices>,
    /// In how many schemas it was used since it was last reset.
    pub(super) uses: usize,
}

impl Session {
    pub(super) fn new(object: Object, notices: &Arc<Notices>) -> Self {
        Self { object: Some(object), notices: Arc::clone(notices), uses: 0 }
    }

    /// Returns whether the session came from the [cache](super::session_cache), so that it needs no
    /// reset and no settings but the schema's.
    pub(crate) fn was_kept(&self) -> bool {
        self.uses > 0
    }

    /// Returns whether the connection was borrowed before, so that it may be broken by now or in a
    /// transaction that was never ended.
    pub(crate) fn was_used(&self) -> bool {
        self.object.as_ref().is_some_and(|object| Object::metrics(object).recycle_count > 0)
    }

    /// Returns the driver's client.
    pub fn client(&self) -> &Client {
        self.object.as_ref().expect("present until discarded")
    }

    /// Runs statements by the simple protocol and returns the rows of all of them, as text.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Row>, Error> {
        let messages = self.client().simple_query(sql).await?;
        let query = Row::query(sql);
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(Row::new(row, &query)),
                _ => None,
            })
            .collect())
    }

    /// Runs queries in a read-only transaction of their own, in which unqualified names are those of
    /// `pg_catalog` and the role's `statement_timeout` does not apply.
    ///
    /// # Errors
    ///
    /// The driver's error; the transaction is rolled back.
    pub async fn read(&self, sql: &str) -> Result<Vec<Row>, Error> {
        let transaction = format!(
            "BEGIN READ ONLY; SET LOCAL search_path TO pg_catalog; SET LOCAL statement_timeout TO 0; \
             SET LOCAL standard_conforming_strings TO on; {sql}; COMMIT"
        );
        let rows = self.rows(&transaction).await;
        if rows.is_err() {
            // Where this fails too, the next borrower's DISCARD ALL shows it.
            let _ = self.client().simple_query("ROLLBACK").await;
        }
        rows
    }

    /// Closes the connection instead of returning it, and with it whatever transaction is open.
    pub fn discard(mut self) {
        self.close();
    }

    fn close(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }

    /// Sends the notices of a backend to `progress` for as long as the guard lives.
    pub(crate) fn forward_notices(&self, pid: i32, progress: &Progress) -> NoticeGuard {
        self.notices.listeners().insert(pid, progress.clone());
        NoticeGuard { notices: Arc::clone(&self.notices), pid }
    }
}

impl Drop for Session {
    /// Closes the connection after a panic, which may have left a transaction open with its locks.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.close();
        }
    }
}

/// Returns a value, or `None` where it is NULL, is not UTF-8 or there is no such column. The driver's
/// own `get` panics at the last two, and a script may select anything in any `client_encoding`.
pub(crate) fn value(row: &SimpleQueryRow, column: usize) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

/// A row of a query's result, whose values are text.
#[derive(Debug)]
pub struct Row {
    row: SimpleQueryRow,
    query: Arc<str>,
}

impl Row {
    pub(crate) fn new(row: SimpleQueryRow, query: &Arc<str>) -> Self {
        Self { row, query: Arc::clone(query) }
    }

    /// Returns the end of a query, by which errors name it: transactions start alike.
    pub(crate) fn query(sql: &str) -> Arc<str> {
        const MOST: usize = 120;
        let sql = sql.trim_end_matches("; COMMIT");
        Arc::from(&sql[sql.ceil_char_boundary(sql.len().saturating_sub(MOST))..])
    }

    /// Returns a value, or `None` where it is NULL or there is no such column.
    pub(crate) fn optional(&self, column: usize) -> Option<&str> {
        value(&self.row, column)
    }

    /// Returns a value that is not NULL.
    ///
    /// # Errors
    ///
    /// An error of the driver that names column and query.
    pub(crate) fn text(&self, column: usize) -> Result<&str, Error> {
        match self.row.try_get(column)? {
            Some(text) => Ok(text),
            None => Err(self.unreadable(column, "NULL")),
        }
    }

    /// Returns a value as a number or another type.
    ///
    /// # Errors
    ///
    /// An error of the driver that names column, value and query.
    pub(crate) fn parse<T: FromStr>(&self, column: usize) -> Result<T, Error> {
        let text = self.text(column)?;
        text.parse().map_err(|_| self.unreadable(column, text))
    }

    /// Returns whether a value is true; NULL is not.
    pub(crate) fn is_true(&self, column: usize) -> bool {
        self.optional(column) == Some("t")
    }

    /// Only the driver constructs its errors: for a column whose name does not exist, one with that name.
    fn unreadable(&self, column: usize, value: &str) -> Error {
        let what = format!("{column} = {value} in the result of … {}", self.query);
        match self.row.try_get(what.as_str()) {
            Err(error) => error,
            Ok(_) => unreachable!("no column has such a name"),
        }
    }
}

impl Deref for Row {
    type Target = SimpleQueryRow;

    fn deref(&self) -> &SimpleQueryRow {
        &self.row
    }
}

/// Where the notices of each backend go, by its process id.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<HashMap<i32, Progress>>);

impl Notices {
    pub(super) fn listeners(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the forwarding of notices when dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct NoticeGuard {
    notices: Arc<Notices>,
    pid: i32,
}

impl Drop for NoticeGuard {
    fn drop(&mut self) {
        self.notices.listeners().remove(&self.pid);
    }
}
