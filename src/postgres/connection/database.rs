//! Connections: opened once, clean for every borrower, thrown away before they grow old.

use std::collections::HashMap;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Object, Pool, PoolError, QueueMode, RecyclingMethod, Timeouts,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Error, SimpleQueryMessage, SimpleQueryRow, Socket,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conninfo::{ConnectOptions, Target};
use super::pooler;
use super::server_error::{is_worth_waiting_for, server_error};
use super::tls;
use crate::service::event::{EventKind, Progress};
use crate::service::failure::ServerError;

/// A backend's catalog caches grow with every schema it touches and only a new connection
/// gives the memory back, so a connection is retired after this many borrowers.
const RETIRE_AFTER: usize = 500;

/// How long a borrower waits for a free connection, beyond what it is asked to.
const QUEUE: Duration = Duration::from_secs(30);

/// How long somebody waits for a second connection whose transaction holds locks meanwhile.
pub(crate) const SECOND: Duration = Duration::from_secs(2);

/// The oldest server on which every statement of ours runs (`pg_current_xact_id`).
const OLDEST_SERVER: u32 = 130_000;

/// What stands between us and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nothing that we would notice.
    Direct,
    /// A pooler. Its clients may share the server's sessions, so that what one leaves in a session
    /// meets another.
    Pooled,
}

/// What the server told about itself when it was first reached.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// `server_version_num`.
    pub version: u32,
    /// Whether it is a hot standby.
    pub in_recovery: bool,
    /// Whether transactions are read-only unless they say otherwise.
    pub read_only: bool,
    /// How many more connections it would take when it was asked.
    pub free_slots: usize,
    /// The role we are.
    pub role: String,
    /// What stands in between.
    pub route: Route,
    /// Whether it is on this machine, as far as both ends of the connection can tell.
    pub is_local: bool,
}

/// Why no connection could be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server could not be reached, or refused the login.
    Refused(ServerError),
    /// It was reached, and is not one that we work on; says why.
    Unsuitable(String),
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Unsuitable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ConnectError {}

/// A database: a pool of connections to it, and what is known of its server.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Pool,
    notices: Arc<Notices>,
    facts: ServerFacts,
}

impl Database {
    /// Connects once, asks the server what it is, and returns a pool that grows on demand.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Refused`] with the server's or the system's word for it, after
    /// `patience`; [`ConnectError::Unsuitable`] for a server that is too old or only
    /// speaks PostgreSQL's protocol.
    pub async fn open(
        options: &ConnectOptions,
        tls: MakeRustlsConnect,
        connections: NonZeroUsize,
        patience: Duration,
    ) -> Result<Self, ConnectError> {
        let notices = Arc::new(Notices::default());
        let connect = Connector {
            options: options.clone(),
            tls,
            notices: Arc::clone(&notices),
        };
        // Borrowers begin with DISCARD ALL, in the same message train as their own work,
        // so the pool's own recycling query would only cost a round trip.
        let manager = Manager::from_connect(
            options.to_driver(),
            connect,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        // The last one used is the one whose caches know the catalog.
        let pool = Pool::builder(manager)
            .max_size(connections.get())
            .queue_mode(QueueMode::Lifo)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .expect("a runtime is given, which is all that can lack");
        let unasked = ServerFacts {
            version: 0,
            in_recovery: false,
            read_only: false,
            free_slots: 0,
            role: String::new(),
            route: Route::Direct,
            is_local: false,
        };
        let mut database = Self {
            pool,
            notices,
            facts: unasked,
        };
        let session = database
            .session(patience)
            .await
            .map_err(ConnectError::Refused)?;
        database.facts = ask_server(&session).await?;
        database.facts.route = route(&session)
            .await
            .map_err(|error| ConnectError::Refused(server_error(&error)))?;
        // A pooler on this machine may lead to a server elsewhere, or the other way round.
        database.facts.is_local &= options.targets().iter().all(Target::is_local);
        Ok(database)
    }

    /// Returns what the server told about itself.
    #[must_use]
    pub fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    /// Lets the pool grow to this many connections.
    pub fn resize(&self, connections: NonZeroUsize) {
        self.pool.resize(connections.get());
    }

    /// Borrows a connection. A server that is starting, restarting or full is waited for,
    /// at most for `patience`.
    ///
    /// # Errors
    ///
    /// What the server or the system said last.
    pub async fn session(&self, patience: Duration) -> Result<Session, ServerError> {
        self.session_unless_freed(patience, None).await
    }

    /// The same for a job among others, which also takes what they [keep](AtHand::keep). As long as
    /// we have a connection on a server that is full, a job waits for that one: fewer at once are
    /// no failure.
    pub(crate) async fn session_for_job(
        &self,
        patience: Duration,
        at_hand: &AtHand,
    ) -> Result<Session, ServerError> {
        self.session_unless_freed(patience, Some(at_hand)).await
    }

    async fn session_unless_freed(
        &self,
        patience: Duration,
        at_hand: Option<&AtHand>,
    ) -> Result<Session, ServerError> {
        let mut waiting = None;
        let give_up = Instant::now() + patience;
        let mut pause = Duration::from_millis(50);
        loop {
            let error = match self.pool.timeout_get(&timeouts(QUEUE)).await {
                Ok(object) if Object::metrics(&object).recycle_count >= RETIRE_AFTER => {
                    drop(Object::take(object));
                    continue;
                }
                Ok(object) => {
                    return Ok(Session {
                        object: Some(object),
                        notices: Arc::clone(&self.notices),
                        kept_for: 0,
                    });
                }
                Err(error) => error,
            };
            let waits = match &error {
                PoolError::Backend(error) => is_worth_waiting_for(error),
                _ => false,
            };
            let said = pool_error(error);
            let is_full = said.sqlstate.as_deref() == Some("53300");
            let has_others = at_hand.is_some() && is_full && self.pool.status().size > 0;
            if !waits || (!has_others && Instant::now() + pause > give_up) {
                return Err(said);
            }
            match at_hand {
                Some(at_hand) => {
                    let waiting = waiting.get_or_insert_with(|| at_hand.wait());
                    if let Some(session) = waiting.freed_within(pause).await {
                        return Ok(session);
                    }
                }
                None => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Borrows a connection for somebody whose transaction holds locks on another: others queue for
    /// them, so it is had [soon](SECOND) or not at all.
    ///
    /// # Errors
    ///
    /// What the server or the system said last.
    pub(crate) async fn second_session(&self) -> Result<Session, ServerError> {
        match tokio::time::timeout(SECOND, self.session(SECOND)).await {
            Ok(borrowed) => borrowed,
            Err(_) => Err(no_second_session()),
        }
    }

    /// Borrows a connection if one is to be had at once; for work that can be left out.
    pub(crate) async fn spare_session(&self) -> Option<Session> {
        let object = self
            .pool
            .timeout_get(&timeouts(Duration::from_millis(100)))
            .await
            .ok()?;
        Some(Session {
            object: Some(object),
            notices: Arc::clone(&self.notices),
            kept_for: 0,
        })
    }

    /// Asks the server to cancel what a backend is running, from another connection.
    ///
    /// The protocol's own cancel request is not used: it crashes some poolers.
    pub async fn cancel(&self, pid: i32) {
        if let Ok(session) = self.session(Duration::ZERO).await {
            // Whatever comes of it shows in the cancelled statement's own answer.
            let _ = session
                .read(&format!("SELECT pg_cancel_backend({pid})"))
                .await;
        }
    }
}

fn timeouts(wait: Duration) -> Timeouts {
    Timeouts {
        wait: Some(wait),
        create: Some(QUEUE),
        recycle: Some(QUEUE),
    }
}

/// Why a transaction that holds locks did not wait any longer for another session.
pub(crate) fn no_second_session() -> ServerError {
    no_place(format!(
        "no second session answered within {} s, and the first one holds locks",
        SECOND.as_secs()
    ))
}

fn no_place(message: String) -> ServerError {
    ServerError {
        sqlstate: Some(SqlState::TOO_MANY_CONNECTIONS.code().to_owned()),
        message,
        hint: Some(
            "--jobs may be more than the server, or the pooler in front of it, has places"
                .to_owned(),
        ),
        ..ServerError::default()
    }
}

fn pool_error(error: PoolError) -> ServerError {
    match error {
        PoolError::Backend(error) => {
            let said = server_error(&error);
            ServerError {
                hint: said.hint.clone().or_else(|| tls::explain(&error)),
                ..said
            }
        }
        PoolError::Timeout(_) => no_place(format!(
            "no connection was to be had within {} s",
            QUEUE.as_secs()
        )),
        other => ServerError {
            message: other.to_string(),
            ..ServerError::default()
        },
    }
}

async fn ask_server(session: &Session) -> Result<ServerFacts, ConnectError> {
    /// Which server is this, and how much room is left on it?
    const QUESTION: &str = "SELECT version(), current_setting('server_version_num'), pg_is_in_recovery(), \
         current_setting('default_transaction_read_only'), current_user, \
         current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
         - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
         coalesce(inet_client_addr() <<= '127.0.0.0/8' OR inet_client_addr() = '::1', true)";
    let refused = |error: Error| ConnectError::Refused(server_error(&error));
    let version_only = session.rows("SELECT version()").await.map_err(refused)?;
    let version = version_only
        .first()
        .and_then(|row| row.get(0))
        .unwrap_or_default();
    for (mark, product) in [("CockroachDB", "CockroachDB"), ("-YB-", "YugabyteDB")] {
        if version.contains(mark) {
            return Err(ConnectError::Unsuitable(format!(
                "the server is {product}: its schema changes are not transactional, so a failed migration could not be undone"
            )));
        }
    }
    let rows = session.read(QUESTION).await.map_err(refused)?;
    let cell = |column: usize| {
        rows.first()
            .and_then(|row| row.get(column))
            .unwrap_or_default()
    };
    let version = cell(1).parse().unwrap_or_default();
    if version < OLDEST_SERVER {
        return Err(ConnectError::Unsuitable(format!(
            "the server is PostgreSQL {}; 13 is the oldest that pricesync works on",
            version / 10_000
        )));
    }
    Ok(ServerFacts {
        version,
        in_recovery: cell(2) == "t",
        read_only: cell(3) == "on",
        free_slots: cell(5).parse().unwrap_or_default(),
        role: cell(4).to_owned(),
        route: Route::Direct,
        is_local: cell(6) == "t",
    })
}

async fn route(session: &Session) -> Result<Route, Error> {
    let rows = session.rows("SELECT pg_backend_pid()").await?;
    let backend = rows.first().and_then(|row| row.get(0)?.parse().ok());
    Ok(if pooler::process_id(session.client()).await == backend {
        Route::Direct
    } else {
        Route::Pooled
    })
}

/// A borrowed connection. It goes back to the pool when dropped, unless it was [discarded](Self::discard).
#[derive(Debug)]
pub struct Session {
    object: Option<Object>,
    notices: Arc<Notices>,
    /// How many schemas it has been kept for, see [`AtHand`].
    kept_for: usize,
}

impl Session {
    /// Returns whether the connection is known to be as it was when its first transaction was
    /// opened, so that it needs no reset and no settings but the schema's.
    pub(crate) fn was_kept(&self) -> bool {
        self.kept_for > 0
    }

    /// Returns whether somebody borrowed the connection before, so that it may be broken by now or
    /// in a transaction that nobody ended.
    pub(crate) fn was_used(&self) -> bool {
        self.object
            .as_ref()
            .is_some_and(|object| Object::metrics(object).recycle_count > 0)
    }

    /// Returns the driver's client.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.object.as_ref().expect("present until discarded")
    }

    /// Runs statements by the simple protocol and returns the rows of all of them, as text.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
        let messages = self.client().simple_query(sql).await?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// Reads by the simple protocol, in a read-only transaction in which every name that is
    /// not qualified is the server's own, and which the role's timeouts do not end.
    ///
    /// # Errors
    ///
    /// The driver's error; the transaction is rolled back.
    pub async fn read(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
        let train = format!(
            "BEGIN READ ONLY; SET LOCAL search_path TO pg_catalog; SET LOCAL statement_timeout TO 0; \
             SET LOCAL standard_conforming_strings TO on; {sql}; COMMIT"
        );
        let rows = self.rows(&train).await;
        if rows.is_err() {
            // Where this fails too, the next borrower's DISCARD ALL shows it.
            let _ = self.client().simple_query("ROLLBACK").await;
        }
        rows
    }

    /// Closes the connection instead of giving it back: whatever state it is in ends with it.
    pub fn discard(mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }

    /// Sends the notices of a backend to `progress` for as long as the guard lives.
    pub(crate) fn forward_notices(&self, pid: i32, progress: &Progress) -> NoticeGuard {
        self.notices.listeners().insert(pid, progress.clone());
        NoticeGuard {
            notices: Arc::clone(&self.notices),
            pid,
        }
    }
}

impl Drop for Session {
    /// Whoever panicked may have left a transaction open, with its locks.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(object) = self.object.take()
        {
            drop(Object::take(object));
        }
    }
}

/// Connections that are as they were when their first transaction was opened, between one schema
/// and the next.
///
/// A reset would cost little, but it throws away the plans of `pricesync.leave_all`, which cost much.
/// So where a transaction ran nothing that could leave something behind in its session, the
/// session is kept here instead of being given back. At most as many are here as schemas were
/// worked on at once.
#[derive(Debug, Default)]
pub(crate) struct AtHand {
    sessions: Mutex<Vec<Session>>,
    /// How many jobs found the server full and wait for one.
    waiting: AtomicUsize,
    freed: Notify,
}

/// A place in the queue of those who wait for a session at hand.
struct Waiting<'a>(&'a AtHand);

impl Waiting<'_> {
    async fn freed_within(&self, time: Duration) -> Option<Session> {
        // Somebody else may have been faster; the caller looks elsewhere and comes again.
        let _ = tokio::time::timeout(time, self.0.freed.notified()).await;
        self.0.pop()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AtHand {
    /// Takes one, if there is one and nobody waits for it.
    pub(crate) fn take(&self) -> Option<Session> {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.pop()
    }

    fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    fn pop(&self) -> Option<Session> {
        let mut sessions = self.sessions();
        sessions.retain(|session| !session.client().is_closed());
        sessions.pop()
    }

    /// Keeps a session that was in so many schemas for the next one, unless it has seen enough of them.
    pub(crate) fn keep(&self, mut session: Session, schemas: usize) {
        session.kept_for += schemas;
        if session.kept_for >= RETIRE_AFTER {
            session.discard();
        } else {
            self.sessions().push(session);
            self.freed.notify_one();
        }
    }

    /// Gives all of them back: a server that was lost to one is lost to the others.
    pub(crate) fn clear(&self) {
        self.sessions().clear();
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who wants to hear the notices of which backend.
#[derive(Debug, Default)]
struct Notices(Mutex<HashMap<i32, Progress>>);

impl Notices {
    fn listeners(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Progress>> {
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

/// Opens connections and polls them, so that notices reach the schema they belong to.
struct Connector {
    options: ConnectOptions,
    tls: MakeRustlsConnect,
    notices: Arc<Notices>,
}

impl Connector {
    /// Tries the hosts in their order; the last one's error is the one that is told.
    async fn first_that_answers(&self) -> Result<(Client, Connection<Socket, TlsStream>), Error> {
        let mut attempts = self.options.attempts().into_iter().peekable();
        loop {
            let config = attempts
                .next()
                .expect("there is at least one host, and the last one returns");
            let is_last = attempts.peek().is_none();
            let connecting = config.connect(self.tls.clone());
            match self.options.connect_timeout() {
                Some(limit) if !is_last => {
                    if let Ok(Ok(connected)) = tokio::time::timeout(limit, connecting).await {
                        return Ok(connected);
                    }
                }
                // The driver limits the socket; the pool limits the rest of the last attempt.
                _ => match connecting.await {
                    Err(_) if !is_last => {}
                    done => return done,
                },
            }
        }
    }
}

type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Connector {
    /// The pool's own configuration is not asked: each host has its own password and TLS mode.
    fn connect(&self, _: &Config) -> Connecting<'_> {
        Box::pin(async move {
            let (client, mut connection) = self.first_that_answers().await?;
            let pid: Arc<OnceLock<i32>> = Arc::default();
            let (notices, known_pid) = (Arc::clone(&self.notices), Arc::clone(&pid));
            let task = tokio::spawn(async move {
                while let Some(Ok(message)) =
                    poll_fn(|context| connection.poll_message(context)).await
                {
                    let AsyncMessage::Notice(notice) = message else {
                        continue;
                    };
                    let listener = known_pid
                        .get()
                        .and_then(|pid| notices.listeners().get(pid).cloned());
                    if let Some(progress) = listener {
                        progress.send(EventKind::Notice {
                            severity: notice.severity().to_owned(),
                            message: notice.message().to_owned(),
                        });
                    }
                }
            });
            let answer = client.simple_query("SELECT pg_backend_pid()").await?;
            if let Some(number) = answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            }) {
                pid.get_or_init(|| number);
            }
            Ok((client, task))
        })
    }
}
