//! Lists the sessions that hold schemas, and the sessions that wait for them.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Error;

use crate::postgres::connection::session::{Row, Session};
use crate::postgres::connection::sql_file::filled;
use crate::postgres::transaction::advisory_lock::CLASS;

/// A schema whose advisory lock a session holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaLock {
    /// The schema; `None` where the transaction that creates it has not committed.
    pub schema: Option<String>,
    /// The holder's process id on the server.
    pub pid: i32,
    /// Its `application_name`; empty where it has none.
    pub application: String,
    /// Its address, or `local` for a unix socket.
    pub client: String,
    /// When its transaction started, in UTC.
    pub since: String,
    /// For how long the transaction has run.
    pub held: Duration,
    /// `pg_stat_activity.state`.
    pub state: String,
    /// The first 200 characters of the statement that it runs or ran last.
    pub query: String,
    /// The sessions that wait for it.
    pub waiting: Vec<Waiter>,
}

/// A session that waits for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its process id on the server.
    pub pid: i32,
    /// Its `application_name`; empty where it has none.
    pub application: String,
    /// The relation that it waits to lock, or another type of lock.
    pub wants: String,
}

/// Returns every locked schema of this database, ordered by name.
pub async fn held(session: &Session) -> Result<Vec<SchemaLock>, Error> {
    let held = filled(include_str!("locks/held.sql"), &[("{class}", CLASS.to_string())]);
    let rows = session.read(&held).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let waiting = session.read(include_str!("locks/waiting.sql")).await?;
    let mut waiters: HashMap<i32, Vec<Waiter>> = HashMap::new();
    for row in &waiting {
        waiters.entry(row.parse(0)?).or_default().push(Waiter {
            pid: row.parse(1)?,
            application: row.optional(2).unwrap_or_default().to_owned(),
            wants: row.text(3)?.to_owned(),
        });
    }
    let lock = |row: &Row| {
        // What only its own role may see of a session is NULL.
        let visible = |column| row.optional(column).unwrap_or_default().to_owned();
        let pid = row.parse(1)?;
        Ok(SchemaLock {
            schema: row.optional(0).map(str::to_owned),
            pid,
            application: visible(2),
            client: visible(3),
            since: visible(4),
            held: Duration::from_secs(row.parse(5)?),
            state: visible(6),
            query: visible(7),
            waiting: waiters.get(&pid).cloned().unwrap_or_default(),
        })
    };
    rows.iter().map(lock).collect()
}
