//! A database: its pool of connections, and what is known of its server.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, QueueMode, RecyclingMethod, Timeouts,
};
use tokio_postgres::Error;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connector::Connector;
use super::conninfo::{ConnectOptions, HostPort};
use super::options::{POOL_TIMEOUT, SECOND_SESSION_TIMEOUT};
use super::pooler;
use super::server_error::{is_worth_waiting_for, server_error};
use super::session::{MAX_USES, Notices, Session};
use super::session_cache::SessionCache;
use super::tls;
use crate::domain::sqlstate;
use crate::service::failure::ServerError;

/// The oldest server on which every statement of ours runs (`pg_current_xact_id`).
const OLDEST_SERVER: u32 = 130_000;

/// How connections reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Each connection has a backend of its own.
    Direct,
    /// Through a pooler, whose clients may share backends: settings that one client leaves in a
    /// session affect the next.
    Pooled,
}

/// What the server reported when it was first reached.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// `server_version_num`.
    pub version: u32,
    /// Whether it is a hot standby.
    pub in_recovery: bool,
    /// `default_transaction_read_only`.
    pub read_only: bool,
    /// How many more connections it accepts, at the time of the query.
    pub free_slots: usize,
    /// `current_user`.
    pub role: String,
    /// Whether there is a pooler.
    pub route: Route,
    /// Whether client and server both see a connection within this machine.
    pub is_local: bool,
}

/// Why [`Database::open`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server could not be reached, or refused the login.
    #[error("{0}")]
    Refused(ServerError),
    /// The server is of an unsupported product or version; the text says which.
    #[error("{0}")]
    Unsuitable(String),
}

/// A pool of connections to one database.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Pool,
    notices: Arc<Notices>,
    facts: ServerFacts,
}

impl Database {
    /// Connects once, reads the [facts](ServerFacts), and returns a pool that grows on demand.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Refused`] with the last error of the server or the operating system, after
    /// `timeout`; [`ConnectError::Unsuitable`] for a server that is too old, or another product
    /// that speaks PostgreSQL's protocol.
    pub async fn open(
        options: &ConnectOptions,
        tls: MakeRustlsConnect,
        connections: NonZeroUsize,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let notices = Arc::new(Notices::default());
        let connect = Connector { options: options.clone(), tls, notices: Arc::clone(&notices) };
        // Borrowers send DISCARD ALL in the same message as their own statements, so the pool's
        // recycling query would only cost a round trip.
        let manager = Manager::from_connect(
            options.to_driver(),
            connect,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        // The connection used last has the warmest catalog caches.
        let pool = Pool::builder(manager)
            .max_size(connections.get())
            .queue_mode(QueueMode::Lifo)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .expect("only a missing runtime is an error");
        let unknown = ServerFacts {
            version: 0,
            in_recovery: false,
            read_only: false,
            free_slots: 0,
            role: String::new(),
            route: Route::Direct,
            is_local: false,
        };
        let mut database = Self { pool, notices, facts: unknown };
        let session = database.session(timeout).await.map_err(ConnectError::Refused)?;
        database.facts = ask_server(&session).await?;
        database.facts.route =
            route(&session).await.map_err(|error| ConnectError::Refused(server_error(&error)))?;
        // A pooler on this machine may lead to a server elsewhere, or the other way round.
        database.facts.is_local &= options.targets().iter().all(HostPort::is_local);
        Ok(database)
    }

    /// Returns what the server reported when it was first reached.
    pub fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    /// Lets the pool grow to this many connections.
    pub fn resize(&self, connections: NonZeroUsize) {
        self.pool.resize(connections.get());
    }

    /// Borrows a connection, retrying for at most `timeout` while the server starts, restarts or is
    /// full.
    pub async fn session(&self, timeout: Duration) -> Result<Session, ServerError> {
        self.session_unless_freed(timeout, None).await
    }

    /// Borrows a connection for one of several concurrent jobs, which may also take one from the
    /// cache. On a full server a job waits for as long as this process has any connection: to run
    /// fewer jobs at once is not a failure.
    pub(crate) async fn session_for_job(
        &self,
        timeout: Duration,
        cache: &SessionCache,
    ) -> Result<Session, ServerError> {
        self.session_unless_freed(timeout, Some(cache)).await
    }

    async fn session_unless_freed(
        &self,
        timeout: Duration,
        cache: Option<&SessionCache>,
    ) -> Result<Session, ServerError> {
        let mut waiting = None;
        let give_up = Instant::now() + timeout;
        let mut pause = Duration::from_millis(50);
        loop {
            let error = match self.pool.timeout_get(&timeouts(POOL_TIMEOUT)).await {
                Ok(object) if Object::metrics(&object).recycle_count >= MAX_USES => {
                    drop(Object::take(object));
                    continue;
                }
                Ok(object) => return Ok(Session::new(object, &self.notices)),
                Err(error) => error,
            };
            let waits = match &error {
                PoolError::Backend(error) => is_worth_waiting_for(error),
                _ => false,
            };
            let said = pool_error(error);
            let is_full = said.has_sqlstate(sqlstate::TOO_MANY_CONNECTIONS);
            let has_others = cache.is_some() && is_full && self.pool.status().size > 0;
            if !waits || (!has_others && Instant::now() + pause > give_up) {
                return Err(said);
            }
            match cache {
                Some(cache) => {
                    let waiting = waiting.get_or_insert_with(|| cache.wait());
                    if let Some(session) = waiting.freed_within(pause).await {
                        return Ok(session);
                    }
                }
                None => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Borrows a connection for a job whose transaction on another one holds locks, within
    /// [`SECOND_SESSION_TIMEOUT`].
    pub(crate) async fn second_session(&self) -> Result<Session, ServerError> {
        match tokio::time::timeout(SECOND_SESSION_TIMEOUT, self.session(SECOND_SESSION_TIMEOUT))
            .await
        {
            Ok(borrowed) => borrowed,
            Err(_) => Err(no_second_session()),
        }
    }

    /// Borrows a connection if one is free within 100 ms, for work that can be omitted.
    pub(crate) async fn spare_session(&self) -> Option<Session> {
        let object = self.pool.timeout_get(&timeouts(Duration::from_millis(100))).await.ok()?;
        Some(Session::new(object, &self.notices))
    }

    /// Cancels the statement that a backend runs, with `pg_cancel_backend` on another connection.
    ///
    /// The protocol's cancel request is not used because it crashes some poolers.
    pub async fn cancel(&self, pid: i32) {
        if let Ok(session) = self.session(Duration::ZERO).await {
            // The result shows in the cancelled statement's own reply.
            let _ = session.read(&format!("SELECT pg_cancel_backend({pid})")).await;
        }
    }

    /// Cancels the statement that a session runs. Behind a pooler it does nothing: closing the session
    /// makes the pooler close the server's connection.
    pub(crate) async fn cancel_session(&self, session: &Session) {
        if self.facts.route == Route::Direct
            && let Some(pid) = pooler::process_id(session.client()).await
        {
            self.cancel(pid).await;
        }
    }
}

fn timeouts(wait: Duration) -> Timeouts {
    Timeouts { wait: Some(wait), create: Some(POOL_TIMEOUT), recycle: Some(POOL_TIMEOUT) }
}

/// Returns the error for a second session that did not answer in time.
pub(crate) fn no_second_session() -> ServerError {
    no_free_connection(format!(
        "timed out waiting for a second session ({} s) while the first one holds locks",
        SECOND_SESSION_TIMEOUT.as_secs()
    ))
}

fn no_free_connection(message: String) -> ServerError {
    ServerError {
        sqlstate: Some(sqlstate::TOO_MANY_CONNECTIONS.to_owned()),
        message,
        hint: Some("--jobs may exceed the connections that the server or its pooler allows".into()),
        ..ServerError::default()
    }
}

fn pool_error(error: PoolError) -> ServerError {
    match error {
        PoolError::Backend(error) => {
            let said = server_error(&error);
            ServerError {
                hint: said.hint.clone().or_else(|| tls::explain(&error).map(Into::into)),
                ..said
            }
        }
        PoolError::Timeout(_) => no_free_connection(format!(
            "timed out waiting for a connection ({} s)",
            POOL_TIMEOUT.as_secs()
        )),
        other => ServerError { message: other.to_string(), ..ServerError::default() },
    }
}

async fn ask_server(session: &Session) -> Result<ServerFacts, ConnectError> {
    let refused = |error: Error| ConnectError::Refused(server_error(&error));
    let version_only = session.rows("SELECT version()").await.map_err(refused)?;
    let no_row = || ConnectError::Unsuitable("the server does not report its version".to_owned());
    let version = version_only.first().ok_or_else(no_row)?;
    let version = version.text(0).map_err(refused)?;
    for (mark, product) in [("CockroachDB", "CockroachDB"), ("-YB-", "YugabyteDB")] {
        if version.contains(mark) {
            return Err(ConnectError::Unsuitable(format!(
                "the server is {product}: its schema changes are not transactional, so a failed migration could not be undone"
            )));
        }
    }
    let rows = session.read(include_str!("server_facts.sql")).await.map_err(refused)?;
    let facts = rows.first().ok_or_else(no_row)?;
    let version = facts.parse(0).map_err(refused)?;
    if version < OLDEST_SERVER {
        return Err(ConnectError::Unsuitable(format!(
            "the server is PostgreSQL {}; 13 is the oldest that pricesync works on",
            version / 10_000
        )));
    }
    Ok(ServerFacts {
        version,
        in_recovery: facts.is_true(1),
        read_only: facts.text(2).map_err(refused)? == "on",
        free_slots: usize::try_from(facts.parse::<i64>(4).map_err(refused)?).unwrap_or(0),
        role: facts.text(3).map_err(refused)?.to_owned(),
        route: Route::Direct,
        is_local: facts.is_true(5),
    })
}

async fn route(session: &Session) -> Result<Route, Error> {
    let rows = session.rows("SELECT pg_backend_pid()").await?;
    let backend = rows.first().map(|row| row.parse(0)).transpose()?;
    Ok(if pooler::process_id(session.client()).await == backend {
        Route::Direct
    } else {
        Route::Pooled
    })
}
