//! Who holds which schema right now, and who waits because of it.

use std::time::Duration;

use tokio_postgres::Error;

use crate::postgres::connection::session::Session;
use crate::postgres::transaction::advisory_lock::CLASS;

/// A schema that a run, or a drop, holds.
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
    /// When its transaction began, in UTC.
    pub since: String,
    /// How long that is ago.
    pub held: Duration,
    /// What it is doing, in the words of `pg_stat_activity`.
    pub state: String,
    /// The start of the statement it runs or ran last.
    pub query: String,
    /// Who waits for it.
    pub waiting: Vec<Waiter>,
}

/// A session that waits for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its process id on the server.
    pub pid: i32,
    /// Its `application_name`; empty where it has none.
    pub application: String,
    /// The relation that it wants to lock, or what else it waits for.
    pub wants: String,
}

/// Which schemas are held, and by whom? The second key of a lock is the schema's oid.
const HELD: &str = "SELECT n.nspname, a.pid, a.application_name, coalesce(host(a.client_addr), 'local'), \
     to_char(b.begun AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
     greatest(0, extract(epoch FROM clock_timestamp() - b.begun))::bigint, coalesce(a.state, ''), \
     left(regexp_replace(a.query, '\\s+', ' ', 'g'), 200) \
     FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
     CROSS JOIN LATERAL (SELECT coalesce(a.xact_start, a.state_change, a.backend_start) AS begun) b \
     LEFT JOIN pg_namespace n ON n.oid = l.objid \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 \
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())";

/// Who waits for a lock that another session holds, and for which?
const WAITING: &str = "SELECT h.pid, a.pid, a.application_name, \
     coalesce(min(w.relation::regclass::text), min(w.locktype), 'a lock') \
     FROM pg_stat_activity a CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) AS h (pid) \
     LEFT JOIN pg_locks w ON w.pid = a.pid AND NOT w.granted \
     WHERE a.wait_event_type = 'Lock' GROUP BY 1, 2, 3 ORDER BY 1, 2";

/// Returns every schema that is held in this database, in the order of names.
///
/// # Errors
///
/// The driver's.
pub async fn held(session: &Session) -> Result<Vec<SchemaLock>, Error> {
    let held = format!("{HELD} AND l.classid = {CLASS} ORDER BY 1 NULLS LAST, 2");
    let rows = session.read(&held).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let waiting = session.read(WAITING).await?;
    let waiting: Vec<(i32, Waiter)> = waiting
        .iter()
        .map(|row| {
            let cell = |column: usize| row.get(column).unwrap_or_default();
            let waiter = Waiter {
                pid: cell(1).parse().unwrap_or_default(),
                application: cell(2).to_owned(),
                wants: cell(3).to_owned(),
            };
            (cell(0).parse().unwrap_or_default(), waiter)
        })
        .collect();
    let locks = rows.iter().map(|row| {
        let cell = |column: usize| row.get(column).unwrap_or_default();
        let pid = cell(1).parse().unwrap_or_default();
        let behind = waiting.iter().filter(|(holder, _)| *holder == pid);
        SchemaLock {
            schema: row.get(0).map(str::to_owned),
            pid,
            application: cell(2).to_owned(),
            client: cell(3).to_owned(),
            since: cell(4).to_owned(),
            held: Duration::from_secs(cell(5).parse().unwrap_or_default()),
            state: cell(6).to_owned(),
            query: cell(7).to_owned(),
            waiting: behind.map(|(_, waiter)| waiter.clone()).collect(),
        }
    });
    Ok(locks.collect())
}
