//! Counts the attempts at a transaction: waits, backs off, and decides which is the last.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tokio_postgres::Error;

use super::advisory_lock;
use super::commit::was_committed;
use super::retry::{GaveUp, Retry, TxError};
use crate::domain::sqlstate;
use crate::postgres::connection::options::{RECONNECT_TIMEOUT, REPORT_INTERVAL};
use crate::postgres::connection::server_error::{
    is_connection_lost, is_worth_retrying, server_error, sqlstate_of,
};
use crate::service::event::{EventKind, Interrupt};
use crate::service::failure::{Holder, ServerError};

/// How long to pause before the schema's advisory lock is tried again, at most.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Attempts at one transaction.
pub(crate) struct Attempts<'a> {
    retry: &'a Retry<'a>,
    started: Instant,
    failed: u32,
    /// When a wait was last reported.
    reported: Option<Instant>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(retry: &'a Retry<'a>) -> Self {
        Self { retry, started: Instant::now(), failed: 0, reported: None }
    }

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
        let outcome = classify(outcome, &refused);
        let is_cancelled = self.retry.interrupts.level() == Interrupt::Cancel;
        let lost = match outcome {
            Ok(value) => return ControlFlow::Break(Ok(value)),
            Err(TxError::Server(error))
                if is_cancelled && sqlstate_of(&error) == Some(sqlstate::QUERY_CANCELED) =>
            {
                return ControlFlow::Break(Err(GaveUp::Cancelled.into()));
            }
            Err(TxError::Busy(_) | TxError::Contention { .. }) if is_cancelled => {
                return ControlFlow::Break(Err(GaveUp::Cancelled.into()));
            }
            Err(TxError::Busy(oid)) => {
                return match self.wait_for_holder(oid).await {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(gave_up) => ControlFlow::Break(Err(gave_up.into())),
                };
            }
            Err(TxError::Contention { error, cause, blockers }) => {
                self.failed += 1;
                if !self.is_exhausted() && self.pause(*cause, blockers).await {
                    return ControlFlow::Continue(());
                }
                let is_cancelled = self.retry.interrupts.level() == Interrupt::Cancel;
                let error = if is_cancelled { GaveUp::Cancelled.into() } else { error };
                return ControlFlow::Break(Err(error));
            }
            Err(TxError::Lost(cause)) => cause,
            Err(TxError::InDoubt { transaction, value, cause }) => {
                let mut interrupts = self.retry.interrupts.clone();
                let resolved = tokio::select! {
                    resolved = was_committed(self.retry.database, &transaction, (*cause).clone()) => resolved,
                    () = interrupts.reaches(Interrupt::Cancel) => Err((*cause).clone()),
                };
                match resolved {
                    Ok(true) => return ControlFlow::Break(Ok(value)),
                    Ok(false) => cause,
                    Err(error) => return ControlFlow::Break(Err(GaveUp::Unknown(error).into())),
                }
            }
            Err(TxError::Refused(error)) => return ControlFlow::Break(Err(error)),
            Err(TxError::Server(error)) => return ControlFlow::Break(Err(refused(&error))),
        };
        self.failed += 1;
        if self.failed > self.retry.options.lock_retries.max(1) {
            return ControlFlow::Break(Err(GaveUp::Lost(*lost).into()));
        }
        if is_cancelled {
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
        !timeout.is_zero() && self.started.elapsed() > (timeout + POLL_INTERVAL) * (retries + 1)
    }

    /// Pauses before the next attempt; returns whether there is to be one.
    async fn pause(&mut self, cause: ServerError, blockers: Vec<Holder>) -> bool {
        let retry = self.retry;
        if retry.is_brief {
            let waited = self.started.elapsed();
            self.report(EventKind::WaitingForLock { holder: None, waited });
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
        let waited = self.started.elapsed();
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
        self.reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL)
    }

    /// Reports a wait, unless one was reported just now.
    fn report(&mut self, wait: EventKind) {
        if self.is_due() {
            self.reported = Some(Instant::now());
            self.retry.progress.send(wait);
        }
    }
}

pub(super) fn classify<T, E>(
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

/// Returns the pause after this many failed attempts: exponential from 0.2 s to 6.4 s, jittered.
fn backoff(failed: u32) -> Duration {
    jittered(Duration::from_millis(100) * 2_u32.pow(failed.min(6)))
}

/// Returns between half of a time and the whole of it, at random: sessions that collided once do not
/// collide again.
fn jittered(time: Duration) -> Duration {
    let chance = RandomState::new().hash_one(Instant::now()) % 1000;
    time / 2 + time * u32::try_from(chance).unwrap_or_default() / 2000
}
