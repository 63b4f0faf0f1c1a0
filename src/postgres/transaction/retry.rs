//! Runs a transaction until it commits.
//!
//! Every wait is bounded, is reported as an event and ends at an interrupt: the wait for the schema's
//! advisory lock (`lock_wait`), the pauses after lock contention (`lock_retries`) and the
//! reconnection after a lost connection ([`RECONNECT_TIMEOUT`]). A COMMIT whose reply was lost is
//! resolved by [`was_committed`].

use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::advisory_lock::{self, CLASS};
use super::commit::was_committed;
use super::lock_monitor::LockMonitor;
use super::open::rollback;
use super::settings::{BEGIN, reset};
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT, REPORT_INTERVAL};
use crate::postgres::connection::server_error::{
    is_connection_lost, is_worth_retrying, server_error,
};
use crate::postgres::connection::session::{Row, Session};
use crate::service::event::{EventKind, Interrupt, Progress};
use crate::service::failure::{Holder, ServerError};
use crate::service::fleet::Interrupts;

/// How long a statement of [brief](Retry::brief) work waits for a lock.
pub(crate) const BRIEF_LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// How long to pause before the schema's advisory lock is tried again, at most.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

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
    InDoubt {
        transaction: String,
        value: T,
        cause: Box<ServerError>,
    },
    /// The server refused a statement; contention and lost connections are told apart from the rest
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

impl<E, T> From<Stop<E>> for TxError<E, T> {
    fn from(stop: Stop<E>) -> Self {
        match stop {
            Stop::Server(error) => Self::Server(error),
            Stop::Refused(error) => Self::Refused(error),
        }
    }
}

impl<E, T> TxError<E, T> {
    /// Converts the caller's error.
    pub(crate) fn map<F: From<E>>(self) -> TxError<F, T> {
        match self {
            Self::Busy(oid) => TxError::Busy(oid),
            Self::Contention {
                error,
                cause,
                blockers,
            } => TxError::Contention {
                error: error.into(),
                cause,
                blockers,
            },
            Self::Lost(cause) => TxError::Lost(cause),
            Self::InDoubt {
                transaction,
                value,
                cause,
            } => TxError::InDoubt {
                transaction,
                value,
                cause,
            },
            Self::Server(error) => TxError::Server(error),
            Self::Refused(error) => TxError::Refused(error.into()),
        }
    }

    /// Sorts an error by what the server said.
    pub(crate) fn of(cause: ServerError, error: E) -> Self {
        match cause.sqlstate.as_deref() {
            None => Self::Lost(Box::new(cause)),
            Some(code) if sqlstate::is_connection_lost(code) => Self::Lost(Box::new(cause)),
            Some(code) if sqlstate::is_contention(code) => Self::Contention {
                error,
                cause: Box::new(cause),
                blockers: Vec::new(),
            },
            Some(_) => Self::Refused(error),
        }
    }
}

/// Why no attempt committed, where the last attempt has no error of its own.
#[derive(Debug)]
pub(crate) enum GaveUp {
    /// Another session held the schema's advisory lock for longer than `lock_wait`.
    Locked {
        holder: Option<Holder>,
        waited: Duration,
    },
    /// There was no connection to begin with.
    NotConnected(ServerError),
    /// The connection was lost in every attempt.
    Lost(ServerError),
    /// Whether the transaction is committed could not be determined.
    Unknown(ServerError),
    /// The second interrupt came.
    Cancelled,
}

impl GaveUp {
    /// Returns how long an attempt waits for a connection; the first one does not wait.
    pub(crate) fn connect_timeout(attempt: u32) -> Duration {
        if attempt == 1 {
            Duration::ZERO
        } else {
            RECONNECT_TIMEOUT
        }
    }
}

/// How transactions are retried, what they report to, and what interrupts them.
pub(crate) struct Retry<'a> {
    pub(crate) database: &'a Database,
    pub(crate) options: &'a EngineOptions,
    pub(crate) progress: &'a Progress,
    pub(crate) interrupts: Interrupts,
    is_brief: bool,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(
        database: &'a Database,
        options: &'a EngineOptions,
        progress: &'a Progress,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            database,
            options,
            progress,
            interrupts,
            is_brief: false,
        }
    }

    /// Makes many short attempts instead of few long ones: for locks that other sessions queue
    /// behind. All attempts together take as long as the usual ones.
    pub(crate) fn brief(self) -> Self {
        Self {
            is_brief: true,
            ..self
        }
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

    /// Starts to count attempts, for a caller that loops itself because its future must be `Send`.
    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts {
            retry: self,
            began: Instant::now(),
            failed: 0,
            reported: None,
        }
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
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
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
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub(crate) async fn run_transaction<T, E: From<GaveUp>>(
        &self,
        schema: Option<&SchemaName>,
        refused: impl Fn(&Error) -> E,
        work: impl AsyncFn(&mut Transaction<'_>) -> Result<T, Stop<E>>,
    ) -> Result<T, E> {
        self.run(&refused, async |number| {
            let session = self.database.session(GaveUp::connect_timeout(number)).await;
            let session =
                session.map_err(|error| TxError::Refused(GaveUp::NotConnected(error).into()))?;
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

    async fn commit<T, E>(
        &self,
        session: &Session,
        schema: Option<&SchemaName>,
        work: &impl AsyncFn(&mut Transaction<'_>) -> Result<T, Stop<E>>,
    ) -> Result<T, TxError<E, T>> {
        let mut transaction = self.begin(session, schema).await?;
        let value = work(&mut transaction).await?;
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
        session.rows("DISCARD ALL").await?;
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
            id: own
                .and_then(|row| row.optional(1))
                .unwrap_or_default()
                .to_owned(),
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

impl Retry<'_> {
    /// Returns whether the time passed without an interrupt.
    async fn sleep(&self, time: Duration) -> bool {
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = interrupts.reaches(Interrupt::Drain) => false,
        }
    }
}

/// Attempts at one transaction.
pub(crate) struct Attempts<'a> {
    retry: &'a Retry<'a>,
    began: Instant,
    failed: u32,
    /// When a wait was last reported.
    reported: Option<Instant>,
}

impl Attempts<'_> {
    /// Returns the number of the current attempt, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.failed + 1
    }

    /// Waits until the next attempt may be made, or returns the result.
    pub(crate) async fn next<T, E: From<GaveUp>>(
        &mut self,
        refused: impl Fn(&Error) -> E,
        outcome: Result<T, TxError<E, T>>,
    ) -> ControlFlow<Result<T, E>> {
        let lost = match classify(outcome, &refused) {
            Ok(value) => return ControlFlow::Break(Ok(value)),
            Err(TxError::Busy(oid)) => {
                return match self.wait_for_holder(oid).await {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(gave_up) => ControlFlow::Break(Err(gave_up.into())),
                };
            }
            Err(TxError::Contention {
                error,
                cause,
                blockers,
            }) => {
                self.failed += 1;
                if self.is_exhausted() || !self.pause(*cause, blockers).await {
                    return ControlFlow::Break(Err(error));
                }
                return ControlFlow::Continue(());
            }
            Err(TxError::Lost(cause)) => cause,
            Err(TxError::InDoubt {
                transaction,
                value,
                cause,
            }) => match was_committed(self.retry.database, &transaction, (*cause).clone()).await {
                Ok(true) => return ControlFlow::Break(Ok(value)),
                Ok(false) => cause,
                Err(error) => return ControlFlow::Break(Err(GaveUp::Unknown(error).into())),
            },
            Err(TxError::Refused(error)) => return ControlFlow::Break(Err(error)),
            Err(TxError::Server(error)) => return ControlFlow::Break(Err(refused(&error))),
        };
        self.failed += 1;
        if self.failed > self.retry.options.lock_retries.max(1) {
            return ControlFlow::Break(Err(GaveUp::Lost(*lost).into()));
        }
        if self.retry.interrupts.level() == Interrupt::Cancel {
            return ControlFlow::Break(Err(GaveUp::Cancelled.into()));
        }
        ControlFlow::Continue(())
    }

    fn is_exhausted(&self) -> bool {
        let options = self.retry.options;
        let (timeout, retries) = (options.lock_timeout, options.lock_retries);
        if !self.retry.is_brief {
            return self.failed > retries;
        }
        !timeout.is_zero() && self.began.elapsed() > (timeout + POLL_INTERVAL) * (retries + 1)
    }

    /// Pauses before the next attempt; returns whether there is to be one.
    async fn pause(&mut self, cause: ServerError, blockers: Vec<Holder>) -> bool {
        let retry = self.retry;
        if retry.is_brief {
            let waited = self.began.elapsed();
            self.report(EventKind::WaitingForLock {
                holder: None,
                waited,
            });
            return retry.sleep(jittered(POLL_INTERVAL)).await;
        }
        let pause = backoff(self.failed);
        retry.progress.send(EventKind::Retrying {
            attempt: self.failed,
            limit: retry.options.lock_retries + 1,
            error: cause,
            blockers,
            pause,
        });
        retry.sleep(pause).await
    }

    /// Sleeps before the advisory lock is tried again.
    async fn wait_for_holder(&mut self, oid: u32) -> Result<(), GaveUp> {
        let retry = self.retry;
        let waited = self.began.elapsed();
        let gives_up =
            waited >= retry.options.lock_wait || retry.interrupts.level() > Interrupt::None;
        if gives_up || self.is_due() {
            let holder = match retry.database.session(RECONNECT_TIMEOUT).await {
                Ok(session) => advisory_lock::holder(&session, oid).await.ok().flatten(),
                Err(_) => None,
            };
            if gives_up {
                return Err(GaveUp::Locked { holder, waited });
            }
            self.report(EventKind::WaitingForLock { holder, waited });
        }
        let left = retry.options.lock_wait.saturating_sub(waited);
        retry.sleep(jittered(POLL_INTERVAL).min(left)).await;
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.reported
            .is_none_or(|last| last.elapsed() >= REPORT_INTERVAL)
    }

    /// Reports a wait, unless one was reported just now.
    fn report(&mut self, wait: EventKind) {
        if self.is_due() {
            self.reported = Some(Instant::now());
            self.retry.progress.send(wait);
        }
    }
}

fn classify<T, E>(
    attempt: Result<T, TxError<E, T>>,
    refused: impl Fn(&Error) -> E,
) -> Result<T, TxError<E, T>> {
    match attempt {
        Err(TxError::Server(error)) if is_connection_lost(&error) => {
            Err(TxError::Lost(Box::new(server_error(&error))))
        }
        Err(TxError::Server(error)) if is_worth_retrying(&error) => Err(TxError::Contention {
            error: refused(&error),
            cause: Box::new(server_error(&error)),
            blockers: Vec::new(),
        }),
        other => other,
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

/// Returns the pause after this many failed attempts: exponential from 0.2 s to 6.4 s, jittered.
pub(crate) fn backoff(failed: u32) -> Duration {
    jittered(Duration::from_millis(100) * 2_u32.pow(failed.min(6)))
}

/// Returns between half of a time and the whole of it, at random: sessions that collided once do not
/// collide again.
fn jittered(time: Duration) -> Duration {
    let chance = RandomState::new().hash_one(Instant::now()) % 1000;
    time / 2 + time * u32::try_from(chance).unwrap_or_default() / 2000
}
