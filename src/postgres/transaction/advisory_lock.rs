//! The advisory lock of each schema, and the sessions that hold locks.
//!
//! The lock is polled: a session that waits inside `pg_advisory_lock` has a snapshot, for which a
//! concurrent index build waits, so the two would deadlock.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::postgres::connection::session::{Row, Session};
use crate::service::failure::Holder;

/// The first part of every key; the second is the schema's oid. Two-part keys do not collide with the
/// one-part keys that applications use (manual section 13.3.5).
pub(crate) const CLASS: i32 = 0x7073_796e;

/// The columns that describe the holder of a lock.
const COLUMNS: &str = "a.pid, a.application_name, coalesce(host(a.client_addr), 'local'), \
     extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.state_change, a.backend_start))::bigint, \
     left(regexp_replace(a.query, '\\s+', ' ', 'g'), 200)";

/// Returns the session that holds the lock of the schema with this oid.
pub(crate) async fn holder(session: &Session, schema_oid: u32) -> Result<Option<Holder>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {CLASS} AND l.objid = {schema_oid} \
         AND l.objsubid = 2 AND a.datname = current_database() LIMIT 1"
    );
    session.read(&sql).await?.first().map(read_holder).transpose()
}

/// Returns the schemas of this database whose lock a session holds.
pub(crate) async fn locked_schemas(session: &Session) -> Result<Vec<String>, Error> {
    let sql = format!(
        "SELECT n.nspname FROM pg_locks l JOIN pg_namespace n ON n.oid = l.objid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {CLASS} AND l.objsubid = 2 \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let rows = session.read(&sql).await?;
    rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
}

/// Returns a session that blocks reading this table.
pub(crate) async fn holder_of_table(
    session: &Session,
    table: &str,
) -> Result<Option<Holder>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.relation = to_regclass({}) \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1",
        escape_literal(table)
    );
    session.read(&sql).await?.first().map(read_holder).transpose()
}

/// Returns the sessions that a backend waits for.
pub(crate) async fn blockers(session: &Session, pid: i32) -> Result<Vec<Holder>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids({pid}))"
    );
    session.read(&sql).await?.iter().map(read_holder).collect()
}

/// Returns whether a backend has committed and waits for a synchronous standby (manual section 26.2.8).
pub(crate) async fn waits_for_standby(session: &Session, pid: i32) -> Result<bool, Error> {
    let sql = format!(
        "SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'IPC' AND wait_event = 'SyncRep'"
    );
    Ok(!session.read(&sql).await?.is_empty())
}

fn read_holder(row: &Row) -> Result<Holder, Error> {
    // Columns that this role must not see are NULL.
    let visible = |column: usize| row.optional(column).unwrap_or_default();
    Ok(Holder {
        pid: row.parse(0)?,
        application: visible(1).to_owned(),
        client: visible(2).to_owned(),
        since: Duration::from_secs(visible(3).parse().unwrap_or_default()),
        query: visible(4).to_owned(),
    })
}
