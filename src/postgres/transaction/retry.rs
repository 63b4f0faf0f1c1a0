//! Runs a transaction until it commits.
//!
//! Every wait is bounded, is reported as an event and ends at an interrupt: the wait for the schema's
//! advisory lock (`lock_wait`), the pauses after lock contention (`lock_retries`) and the
//! reconnection after a lost connection ([`RECONNECT_TIMEOUT`]). A COMMIT whose reply was lost is
//! resolved by [`was_committed`].

use std::ops::ControlFlow;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::advisory_lock::CLASS;
use super::attempts::{Attempts, classify};
use super::lock_monitor::LockMonitor;
use super::open::rollback;
use super::settings::{BEGIN, discard, reset};
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT};
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::postgres::connection::session::{Row, Session};
use crate::service::event::{Interrupt, Progress};
use crate::service::failure::{Holder, ServerError};
use crate::service::fleet::Interrupts;

/// How long a statement of [brief](Retry::brief) work waits for a lock.
pub(crate) const BRIEF_LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// Why an attempt did not commit. Its transaction is rolled back, or its session closed.
pub(crate) enum TxError<E, T = ()> {
    /// Another session holds the advisory lock of the schema with this oid.
    Busy(u32),
    /// Lock contention: another attempt may succeed.
    Contention {
        /// What is returned after the last attempt.
        error: E,
        cause: Box<ServerError>,
        blockers: Vec<Holder>,
    },
    /// The connection was lost before COMMIT was sent.
    Lost(Box<ServerError>),
    /// The reply to COMMIT was lost; `value` is the result if this transaction is committed.
    InDoubt { transaction: String, value: T, cause: Box<ServerError> },
    /// The server refused a statement; contention and lost connections are distinguished from the rest
    /// by the error itself.
    Server(Error),
    /// Another attempt would fail as well.
    Refused(E),
}

impl<E, T> From<Error> for TxError<E, T> {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// Why the work in a transaction ended before COMMIT.
pub(crate) enum Stop<E> {
    /// The server refused a statement.
    Server(Error),
    /// Another attempt would fail as well.
    Refused(E),
}

impl<E> From<Error> for Stop<E> {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl<E: From<GaveUp>, T> From<GaveUp> for TxError<E, T> {
    fn from(gave_up: GaveUp) -> Self {
        Self::Refused(gave_up.into())
    }
}

impl<E, T> From<Stop<E>> for TxError<E, T> {
    fn from(stop: Stop<E>) -> Self {
        match stop {
            Stop::Server(error) => Self::Server(error),
            Stop::Refused(error) => Self::Refused(error),
        }
    }
}

impl<E, T> TxError<E, T> {
    /// Classifies an error by its SQLSTATE.
    pub(crate) fn of(cause: ServerError, error: E) -> Self {
        match cause.sqlstate.as_deref() {
            None => Self::Lost(Box::new(cause)),
            Some(code) if sqlstate::is_connection_lost(code) => Self::Lost(Box::new(cause)),
            Some(code) if sqlstate::is_contention(code) => {
                Self::Contention { error, cause: Box::new(cause), blockers: Vec::new() }
            }
            Some(_) => Self::Refused(error),
        }
    }
}

/// Why no attempt committed, where the last attempt has no error of its own.
#[derive(Debug)]
pub(crate) enum GaveUp {
    /// Another session held the schema's advisory lock for longer than `lock_wait`.
    Locked { holder: Option<Holder>, waited: Duration },
    /// There was no connection to begin with.
    NotConnected(ServerError),
    /// The connection was lost in every attempt.
    Lost(ServerError),
    /// Whether the transaction is committed could not be determined.
    Unknown(ServerError),
    /// The second interrupt came.
    Cancelled,
}

/// How transactions are retried, what they report to, and what interrupts them.
pub(crate) struct Retry<'a> {
    pub(crate) database: &'a Database,
    pub(crate) options: &'a EngineOptions,
    pub(crate) progress: &'a Progress,
    pub(crate) interrupts: Interrupts,
    pub(super) is_brief: bool,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(
        database: &'a Database,
        options: &'a EngineOptions,
        progress: &'a Progress,
        interrupts: Interrupts,
    ) -> Self {
        Self { database, options, progress, interrupts, is_brief: false }
    }

    /// Makes many short attempts instead of few long ones: for locks that other sessions queue
    /// behind. All attempts together take as long as the usual ones.
    pub(crate) fn brief(self) -> Self {
        Self { is_brief: true, ..self }
    }

    /// Runs `attempt`, which is given its number from 1, until it returns a value or an error that
    /// another attempt would meet again. `refused` makes the caller's error of a server's.
    ///
    /// # Errors
    ///
    /// The last attempt's error, or [`GaveUp`].
    pub(crate) async fn run<T, E: From<GaveUp>>(
        &self,
        refused: impl Fn(&Error) -> E,
        mut attempt: impl AsyncFnMut(u32) -> Result<T, TxError<E, T>>,
    ) -> Result<T, E> {
        let mut attempts = self.attempts();
        loop {
            let outcome = attempt(attempts.number()).await;
            if let ControlFlow::Break(result) = attempts.next(&refused, outcome).await {
                return result;
            }
        }
    }

    /// Returns a session for the attempt with this number; all but the first wait for a server that
    /// restarts.
    ///
    /// # Errors
    ///
    /// [`GaveUp::NotConnected`]; [`GaveUp::Cancelled`] at the second interrupt.
    pub(crate) async fn session(&self, attempt: u32) -> Result<Session, GaveUp> {
        let timeout = if attempt == 1 { Duration::ZERO } else { RECONNECT_TIMEOUT };
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            biased;
            () = interrupts.reaches(Interrupt::Cancel) => Err(GaveUp::Cancelled),
            session = self.database.session(timeout) => session.map_err(GaveUp::NotConnected),
        }
    }

    /// Waits for work on a session whose COMMIT has not been sent. At the second interrupt it cancels
    /// what the session runs, and returns; the caller must then close the session, which rolls back.
    pub(crate) fn until_cancelled<F: Future>(
        &self,
        session: &Session,
        work: F,
    ) -> impl Future<Output = Result<F::Output, GaveUp>> {
        // A future that holds another one by value is twice its size.
        let work = Box::pin(work);
        let mut interrupts = self.interrupts.clone();
        async move {
            tokio::select! {
                biased;
                () = interrupts.reaches(Interrupt::Cancel) => {}
                output = work => return Ok(output),
            }
            self.database.cancel_session(session).await;
            Err(GaveUp::Cancelled)
        }
    }

    /// Starts to count attempts, for a caller that loops itself because its future must be `Send`.
    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts::new(self)
    }

    /// Returns the result of the only attempt at work that cannot be repeated.
    ///
    /// # Errors
    ///
    /// The attempt's error, or [`GaveUp`].
    pub(crate) async fn settle<T, E: From<GaveUp>>(
        &self,
        refused: impl Fn(&Error) -> E,
        only: Result<T, TxError<E, T>>,
    ) -> Result<T, E> {
        let settled = match classify(only, &refused) {
            Err(TxError::Contention { error, .. }) => return Err(error),
            Err(TxError::Lost(cause)) => return Err(GaveUp::Lost(*cause).into()),
            other => self.attempts().next(refused, other).await,
        };
        match settled {
            ControlFlow::Break(result) => result,
            ControlFlow::Continue(()) => Err(GaveUp::Lost(ServerError {
                message: "the connection was lost before the transaction was committed".to_owned(),
                ..ServerError::default()
            })
            .into()),
        }
    }

    /// Runs `work` in a transaction under the schema's advisory lock and commits it. Where there is
    /// no such schema, no lock is taken. Names are looked up in `pg_catalog` alone.
    pub(crate) async fn run_locked<T, E: From<GaveUp>>(
        &self,
        schema: &SchemaName,
        refused: impl Fn(&Error) -> E,
        work: impl AsyncFn(&mut Transaction<'_>) -> Result<T, Stop<E>>,
    ) -> Result<T, E> {
        self.run_transaction(Some(schema), refused, work).await
    }

    /// Runs `work` in a transaction and commits it, under the advisory lock of a schema where one is
    /// given and exists.
    pub(crate) async fn run_transaction<T, E: From<GaveUp>>(
        &self,
        schema: Option<&SchemaName>,
        refused: impl Fn(&Error) -> E,
        work: impl AsyncFn(&mut Transaction<'_>) -> Result<T, Stop<E>>,
    ) -> Result<T, E> {
        self.run(&refused, async |number| {
            let session = self.session(number).await?;
            let committed = self.commit(&session, schema, &work).await;
            match &committed {
                Ok(_) => {}
                Err(TxError::Busy(_)) if rollback(&session).await.is_ok() => {}
                // Rolls back whatever is open; its place may be needed to resolve the COMMIT.
                Err(_) => session.discard(),
            }
            committed
        })
        .await
    }

    async fn commit<T, E: From<GaveUp>>(
        &self,
        session: &Session,
        schema: Option<&SchemaName>,
        work: &impl AsyncFn(&mut Transaction<'_>) -> Result<T, Stop<E>>,
    ) -> Result<T, TxError<E, T>> {
        let work = async {
            let mut transaction = self.begin(session, schema).await?;
            let value = work(&mut transaction).await?;
            Ok::<_, TxError<E, T>>((transaction, value))
        };
        let (mut transaction, value) = self.until_cancelled(session, work).await??;
        let commit = session.client().simple_query("COMMIT");
        match transaction.monitor.during_commit(commit).await {
            Ok(_) => Ok(value),
            Err(error) if is_connection_lost(&error) => Err(TxError::InDoubt {
                transaction: transaction.id,
                value,
                cause: Box::new(server_error(&error)),
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn begin<'s, T, E>(
        &'s self,
        session: &'s Session,
        schema: Option<&SchemaName>,
    ) -> Result<Transaction<'s>, TxError<E, T>> {
        let usual = self.options.lock_timeout;
        let lock_timeout = if self.is_brief && (usual.is_zero() || usual > BRIEF_LOCK_TIMEOUT) {
            BRIEF_LOCK_TIMEOUT
        } else {
            usual
        };
        session.rows(discard(self.options.route)).await?;
        // A killed client's backend ends within `client_connection_check_interval`.
        let sql = format!(
            "{BEGIN}{}SELECT set_config('client_connection_check_interval', '2s', true) WHERE {} >= 140000; \
             SET LOCAL search_path TO pg_catalog; SET LOCAL lock_timeout TO {}; SET LOCAL statement_timeout TO 0; \
             SET LOCAL standard_conforming_strings TO on; SET LOCAL client_min_messages TO warning; \
             SELECT pg_backend_pid(), pg_current_xact_id(), NULL; \
             SELECT oid, pg_try_advisory_xact_lock({CLASS}, oid::int4) FROM pg_namespace WHERE nspname = {}",
            reset(self.options.route),
            self.options.server_version,
            lock_timeout.as_millis(),
            escape_literal(schema.map_or("", SchemaName::as_str))
        );
        let rows = session.rows(&sql).await?;
        let of_length = |length| rows.iter().find(|row| row.len() == length);
        let number = |row: Option<&Row>| row.and_then(|row| row.optional(0)?.parse().ok());
        let schema_oid = number(of_length(2));
        if of_length(2).is_some_and(|row| row.optional(1) != Some("t")) {
            return Err(TxError::Busy(schema_oid.unwrap_or_default()));
        }
        let own = of_length(3);
        let pid = own.and_then(|row| row.optional(0)?.parse().ok());
        Ok(Transaction {
            session,
            id: own.and_then(|row| row.optional(1)).unwrap_or_default().to_owned(),
            schema_oid,
            monitor: LockMonitor::new(
                self.database,
                pid.unwrap_or_default(),
                lock_timeout,
                self.progress,
                self.interrupts.clone(),
            ),
        })
    }
}

/// An open transaction, under the advisory lock of its schema where there is one.
pub(crate) struct Transaction<'a> {
    session: &'a Session,
    /// As `pg_current_xact_id()` names it.
    id: String,
    /// `None` where the schema does not exist.
    pub(crate) schema_oid: Option<u32>,
    monitor: LockMonitor<'a>,
}

impl<'a> Transaction<'a> {
    /// Returns the session, for short reads.
    pub(crate) fn session(&self) -> &'a Session {
        self.session
    }

    /// Runs statements; waits for locks are reported, and the second interrupt cancels them.
    pub(crate) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        self.monitor.during(self.session.rows(sql)).await
    }
}
