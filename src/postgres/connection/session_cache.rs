//! Sessions that keep their settings and cached plans from one schema to the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::session::{MAX_USES, Session};

/// Sessions that are as they were when their first transaction was opened.
///
/// A reset itself is cheap, but it discards the plans of `pricesync.finish`, which are expensive.
/// A session whose transaction ran nothing that could outlive it is therefore kept here instead of
/// being returned to the pool. The cache holds at most as many sessions as jobs run at once.
#[derive(Debug, Default)]
pub(crate) struct SessionCache {
    sessions: Mutex<Vec<Session>>,
    /// How many jobs found the server full and wait for a cached session.
    waiting: AtomicUsize,
    freed: Notify,
}

/// A place in the queue for the next session that is kept.
pub(super) struct Waiting<'a>(&'a SessionCache);

impl Waiting<'_> {
    /// Waits at most `time` for a session. `None` also where another job took it first.
    pub(super) async fn freed_within(&self, time: Duration) -> Option<Session> {
        let _ = tokio::time::timeout(time, self.0.freed.notified()).await;
        self.0.pop()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SessionCache {
    /// Takes a session, if there is one and no other job waits for it.
    pub(crate) fn take(&self) -> Option<Session> {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.pop()
    }

    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    fn pop(&self) -> Option<Session> {
        let mut sessions = self.sessions();
        sessions.retain(|session| !session.client().is_closed());
        sessions.pop()
    }

    /// Keeps a session in which `schemas` more schemas were migrated, or closes it where it has
    /// reached its number of uses.
    pub(crate) fn keep(&self, mut session: Session, schemas: usize) {
        session.uses += schemas;
        if session.uses >= MAX_USES {
            session.discard();
        } else {
            self.sessions().push(session);
            self.freed.notify_one();
        }
    }

    /// Returns all sessions to the pool: a server that one of them lost is lost to the others.
    pub(crate) fn clear(&self) {
        self.sessions().clear();
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
