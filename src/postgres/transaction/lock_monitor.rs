//! Watches a backend while it works: who is in its way, and whether it must stop.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::advisory_lock;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::REPORT_INTERVAL;
use crate::service::event::{EventKind, Interrupt, Progress};
use crate::service::failure::Holder;
use crate::service::fleet::Interrupts;

/// How long COMMIT takes before it is looked at: an ordinary one costs no question.
const LONG_COMMIT: Duration = Duration::from_secs(3);

/// The watch over one backend.
pub(crate) struct LockMonitor<'a> {
    database: &'a Database,
    pid: i32,
    every: Duration,
    progress: &'a Progress,
    interrupts: Interrupts,
    /// When the reporter last heard of a wait.
    told: Option<Instant>,
    /// Who was in the way when it was last looked at. After a lock timeout nobody could tell any more.
    pub(crate) blockers: Vec<Holder>,
}

impl<'a> LockMonitor<'a> {
    /// Begins to watch a backend whose waits end after `lock_timeout` (zero: never).
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
        Self {
            database,
            pid,
            every,
            progress,
            interrupts,
            told: None,
            blockers: Vec::new(),
        }
    }

    /// Waits for the work. Meanwhile looks who blocks it, and on the second interrupt has
    /// the server cancel it; the work then ends with the server's answer to that. Both need
    /// another connection, and the work never waits for it: a pooler may have none to give
    /// until the work is done.
    pub(crate) async fn during<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        let begun = Instant::now();
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
                    () = self.look(begun) => {}
                },
            }
        }
    }

    /// Waits for COMMIT. What a cancelled one has done is in its answer: where it waited for a
    /// standby it has committed, and only the wait ends.
    pub(crate) async fn during_commit<F: Future>(&mut self, commit: F) -> F::Output {
        self.every = LONG_COMMIT;
        self.during(commit).await
    }

    async fn look(&mut self, begun: Instant) {
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
            self.tell(EventKind::WaitingForStandby {
                waited: begun.elapsed(),
            });
            // A cancel request that came before the wait had nothing to cancel.
            if self.interrupts.level() == Interrupt::Cancel {
                drop(session);
                self.database.cancel(self.pid).await;
            }
            return;
        }
        self.tell(EventKind::WaitingForLock {
            holder: blockers.first().cloned(),
            waited: begun.elapsed(),
        });
        self.blockers = blockers;
    }

    fn tell(&mut self, wait: EventKind) {
        if self
            .told
            .is_none_or(|told| told.elapsed() >= REPORT_INTERVAL)
        {
            self.told = Some(Instant::now());
            self.progress.send(wait);
        }
    }
}
