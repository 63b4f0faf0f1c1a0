//! Monitors a backend while it runs statements: reports lock waits and forwards cancellation.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::advisory_lock;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::REPORT_INTERVAL;
use crate::service::event::{EventKind, Interrupt, Progress};
use crate::service::failure::Holder;
use crate::service::fleet::Interrupts;

/// How often a COMMIT is inspected; an ordinary one is shorter and costs no query.
const LONG_COMMIT: Duration = Duration::from_secs(3);

/// Monitors one backend.
pub(crate) struct LockMonitor<'a> {
    database: &'a Database,
    pid: i32,
    every: Duration,
    progress: &'a Progress,
    interrupts: Interrupts,
    /// When a wait was last reported.
    reported: Option<Instant>,
    /// The sessions that blocked it at the last inspection; after a lock timeout they cannot be determined.
    pub(crate) blockers: Vec<Holder>,
}

impl<'a> LockMonitor<'a> {
    /// Returns a monitor for a backend whose lock waits end after `lock_timeout` (zero: never).
    pub(crate) fn new(
        database: &'a Database,
        pid: i32,
        lock_timeout: Duration,
        progress: &'a Progress,
        interrupts: Interrupts,
    ) -> Self {
        let every = if lock_timeout.is_zero() {
            Duration::from_secs(1)
        } else {
            (lock_timeout / 3).clamp(Duration::from_millis(50), Duration::from_secs(1))
        };
        Self { database, pid, every, progress, interrupts, reported: None, blockers: Vec::new() }
    }

    /// Waits for the statements. Meanwhile it reports which sessions block them, and at the second interrupt
    /// it cancels them, so that they return the server's error. Both need another connection, for which
    /// the statements never wait: a pooler may have none until they are finished.
    pub(crate) async fn during<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        let started = Instant::now();
        let mut ticks =
            tokio::time::interval_at(tokio::time::Instant::now() + self.every, self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut interrupts = self.interrupts.clone();
        let mut cancelled = false;
        loop {
            tokio::select! {
                output = &mut work => return output,
                () = interrupts.reaches(Interrupt::Cancel), if !cancelled => {
                    cancelled = true;
                    tokio::select! {
                        output = &mut work => return output,
                        () = self.database.cancel(self.pid) => {}
                    }
                }
                _ = ticks.tick() => tokio::select! {
                    output = &mut work => return output,
                    () = self.inspect(started) => {}
                },
            }
        }
    }

    /// Waits for COMMIT. Its reply tells what a cancelled one has done: if it waited for a standby, it has
    /// committed and only the wait ends.
    pub(crate) async fn during_commit<F: Future>(&mut self, commit: F) -> F::Output {
        self.every = LONG_COMMIT;
        self.during(commit).await
    }

    async fn inspect(&mut self, started: Instant) {
        let Some(session) = self.database.spare_session().await else {
            return;
        };
        let Ok(blockers) = advisory_lock::blockers(&session, self.pid).await else {
            session.discard();
            return;
        };
        if blockers.is_empty() {
            match advisory_lock::waits_for_standby(&session, self.pid).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => return session.discard(),
            }
            self.report(EventKind::WaitingForStandby { waited: started.elapsed() });
            // A cancel request before this wait had no effect on it.
            if self.interrupts.level() == Interrupt::Cancel {
                drop(session);
                self.database.cancel(self.pid).await;
            }
            return;
        }
        self.report(EventKind::WaitingForLock {
            holder: blockers.first().cloned(),
            waited: started.elapsed(),
        });
        self.blockers = blockers;
    }

    fn report(&mut self, wait: EventKind) {
        if self.reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            self.reported = Some(Instant::now());
            self.progress.send(wait);
        }
    }
}
