//! Runs a script without a transaction: statement by statement, resumable after the last finished one. An
//! index that it builds is valid or does not exist.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::context::Context;
use crate::domain::applied::{Applied, AppliedScript};
use crate::domain::script::Location;
use crate::domain::target::Target;
use crate::migrations::Script;
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::advisory_lock::CLASS;
use crate::postgres::transaction::batch::{NOW, claim, location_of_failure};
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::settings::{SettingScope, own_timeout, settings};
use crate::postgres::transaction::{history, ledger};
use crate::service::event::{EventKind, Interrupt, Progress};
use crate::service::failure::{Holder, MigrateError, ServerError};
use crate::service::fleet::Interrupts;

/// One script without a transaction in one schema.
pub(crate) struct NonTransactional<'a> {
    pub(crate) context: &'a Context,
    pub(crate) target: &'a Target,
    pub(crate) progress: &'a Progress,
    pub(crate) interrupts: Interrupts,
    pub(crate) script: &'a Script,
    /// Whether the ledger is written.
    pub(crate) keeps_ledger: bool,
}

/// How the script ended.
pub(crate) enum ScriptOutcome {
    /// All statements are finished and the history row is inserted.
    Applied(AppliedScript),
    /// Another session holds the lock of the schema with this oid.
    Busy(u32),
    /// Another session applied it in the meantime.
    AlreadyApplied,
}

/// Why the script was not applied.
pub(crate) enum ScriptFailure {
    /// A statement of the script failed.
    Server(Error, Option<Location>, Vec<Holder>),
    /// A statement that pricesync added failed.
    Internal(Error),
    /// All statements are finished, but inserting the history row failed.
    Recording(AppliedScript, Error),
    Failed(Box<MigrateError>),
    /// The second interrupt came.
    Cancelled,
}

impl From<Error> for ScriptFailure {
    fn from(error: Error) -> Self {
        Self::Internal(error)
    }
}

/// The error of a statement, and the sessions that blocked it.
pub(super) struct StatementError {
    pub(super) error: Error,
    pub(super) blockers: Vec<Holder>,
}

/// The session that holds the schema's lock.
pub(super) struct LockOwner {
    pub(super) pid: i32,
    pub(super) schema_oid: u32,
}

impl NonTransactional<'_> {
    /// Runs the script on a session that must be closed afterwards, because it keeps settings.
    pub(crate) async fn run(
        &mut self,
        session: &Session,
        has_history: bool,
    ) -> Result<ScriptOutcome, ScriptFailure> {
        let outcome = self.run_locked(session, has_history).await;
        // Closing the connection releases the lock too, but not before the server notices it.
        let _ = session.rows("SELECT pg_advisory_unlock_all()").await;
        outcome
    }

    async fn run_locked(
        &mut self,
        session: &Session,
        has_history: bool,
    ) -> Result<ScriptOutcome, ScriptFailure> {
        // Before the lock, which would stay in the shared session.
        if self.context.direct.facts().route == Route::Pooled && self.is_shared(session).await? {
            return Err(self.shared());
        }
        let (schema, table) = (&self.target.schema, &self.context.options.history_table);
        let sql = format!(
            "SELECT pg_backend_pid(), oid, pg_try_advisory_lock({CLASS}, oid::int4) FROM pg_namespace WHERE nspname = {}",
            escape_literal(schema.as_str())
        );
        let rows = session.rows(&sql).await?;
        let Some(row) = rows.first() else {
            return Err(failed(MigrateError::SchemaMissing));
        };
        let owner = LockOwner { pid: row.parse(0)?, schema_oid: row.parse(1)? };
        if !row.is_true(2) {
            return Ok(ScriptOutcome::Busy(owner.schema_oid));
        }
        self.check_session(session, &owner).await?;
        session.rows(&settings(&self.context.options, self.target, SettingScope::Session)).await?;
        if !has_history {
            session.rows(&history::create_table(schema, table)).await?;
        }
        // Another session may have changed the history before this lock was taken.
        let history = session.rows(&history::select(schema, table)).await?;
        let history =
            history::parse(&history).map_err(|why| failed(MigrateError::DamagedHistory { why }))?;
        if history.iter().any(|row| row.version == self.script.id.version) {
            return Ok(ScriptOutcome::AlreadyApplied);
        }
        let started = Instant::now();
        let script = self.script.id.reference();
        self.progress.send(EventKind::ScriptStarted { script: script.clone() });
        self.run_statements(session, &owner).await?;
        let recorded = self.record(session, &owner, history).await;
        let applied = AppliedScript { script, took: started.elapsed() };
        if let Err(error) = recorded {
            return Err(ScriptFailure::Recording(applied, error));
        }
        self.progress.send(EventKind::ScriptFinished { script: applied.clone() });
        Ok(ScriptOutcome::Applied(applied))
    }

    /// Runs the statements after the last finished one.
    async fn run_statements(
        &self,
        session: &Session,
        owner: &LockOwner,
    ) -> Result<(), ScriptFailure> {
        let _notices = session.forward_notices(owner.pid, self.progress);
        let (first, unconfirmed) = self.resume_at(session, owner).await?;
        self.restore_settings(session, first).await?;
        for index in first..self.script.statements.len() {
            if self.interrupts.level() == Interrupt::Cancel {
                return Err(ScriptFailure::Cancelled);
            }
            if self.context.direct.facts().route == Route::Pooled {
                self.check_session(session, owner).await?;
            }
            self.statement(session, owner, index, unconfirmed.as_deref()).await?;
            self.note_finished(session, owner, index).await?;
        }
        Ok(())
    }

    /// Inserts the history row and, if the ledger is kept, records the history with it.
    async fn record(
        &self,
        session: &Session,
        owner: &LockOwner,
        history: Vec<Applied>,
    ) -> Result<(), Error> {
        let (schema, table) = (&self.target.schema, &self.context.options.history_table);
        let mut sql = format!(
            "{}; DELETE FROM pricesync.unfinished_script WHERE schema_oid = {} AND version = {}",
            claim(schema, table, self.script, NOW),
            owner.schema_oid,
            self.script.id.version
        );
        if self.keeps_ledger {
            let claimed = std::iter::once(self.script.id.claimed());
            let after: Vec<Applied> = history.into_iter().chain(claimed).collect();
            sql = format!("{sql}; {}", ledger::note(schema, table, &after));
        }
        session.rows(&sql).await.map(drop)
    }

    /// Fails unless the lock is held by this session: behind a pooler in transaction mode the next statement
    /// may run in another backend.
    async fn check_session(
        &self,
        session: &Session,
        owner: &LockOwner,
    ) -> Result<(), ScriptFailure> {
        let sql = format!(
            "SELECT pg_backend_pid(), count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
             AND classid = {CLASS} AND objid = {}",
            owner.schema_oid
        );
        let rows = session.rows(&sql).await?;
        match rows.first() {
            Some(row) if row.parse::<i32>(0)? == owner.pid && row.text(1)? != "0" => Ok(()),
            _ => Err(self.shared()),
        }
    }

    fn shared(&self) -> ScriptFailure {
        self.failed(ServerError {
            message: "the connection goes through a pooler that shares sessions".to_owned(),
            hint: Some(
                "set database.direct_url, next to database.url, to an address without the pooler"
                    .into(),
            ),
            ..ServerError::default()
        })
    }

    fn failed(&self, error: ServerError) -> ScriptFailure {
        failed(MigrateError::Database {
            doing: format!("running {} without a transaction", self.script.id),
            error,
        })
    }

    /// Returns whether the pooler gives the idle session to another client.
    async fn is_shared(&self, session: &Session) -> Result<bool, ScriptFailure> {
        /// A pooler hands out the session that was returned last; under load that may be another one.
        const ROUNDS: u32 = 8;
        let other = self.context.direct.session(RECONNECT_TIMEOUT).await;
        let other = other.map_err(|error| self.failed(error))?;
        for _ in 0..ROUNDS {
            let mut pids = Vec::new();
            for session in [session, &other] {
                let rows = session.rows("SELECT pg_backend_pid()").await?;
                pids.push(rows.first().map(|row| row.parse::<i32>(0)).transpose()?);
            }
            if pids[0] == pids[1] {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the first statement to run, and the index build of an earlier attempt whose reply was lost.
    /// A file whose finished part was edited since starts from its first statement.
    async fn resume_at(
        &self,
        session: &Session,
        owner: &LockOwner,
    ) -> Result<(usize, Option<String>), Error> {
        let sql = format!(
            "INSERT INTO pricesync.unfinished_script AS u (schema_oid, version, schema_name, script) \
             VALUES ({}, {}, {}, {}) ON CONFLICT (schema_oid, version) DO UPDATE SET started_at = clock_timestamp() \
             RETURNING finished_text, unanswered",
            owner.schema_oid,
            self.script.id.version,
            escape_literal(self.target.schema.as_str()),
            escape_literal(&self.script.id.to_string())
        );
        let rows = session.rows(&sql).await?;
        let cell = |column: usize| rows.first().and_then(|row| row.optional(column));
        let finished = cell(0).unwrap_or_default();
        let same = !finished.is_empty() && self.script.text.starts_with(finished);
        let ends_with =
            |statement: &crate::migrations::Statement| statement.range.end == finished.len();
        let done = self.script.statements.iter().position(ends_with).filter(|_| same);
        Ok((done.map_or(0, |index| index + 1), cell(1).map(str::to_owned)))
    }

    /// Repeats the `SET` statements of the part that was finished in another session.
    async fn restore_settings(&self, session: &Session, first: usize) -> Result<(), ScriptFailure> {
        for index in 0..first {
            if !self.script.statements[index].sets_for_session() {
                continue;
            }
            if let Err(error) = session.rows(&self.text(index)).await {
                let blockers = Vec::new();
                return Err(self.statement_failed(index, StatementError { error, blockers }));
            }
        }
        Ok(())
    }

    async fn note_finished(
        &self,
        session: &Session,
        owner: &LockOwner,
        index: usize,
    ) -> Result<(), Error> {
        let finished = &self.script.text[..self.script.statements[index].range.end];
        let finished = escape_literal(finished);
        let change = format!("finished_text = {finished}, unanswered = NULL");
        self.note(session, owner, &change).await
    }

    pub(super) async fn note(
        &self,
        session: &Session,
        owner: &LockOwner,
        change: &str,
    ) -> Result<(), Error> {
        let sql = format!(
            "UPDATE pricesync.unfinished_script SET {change} WHERE schema_oid = {} AND version = {}",
            owner.schema_oid, self.script.id.version
        );
        session.rows(&sql).await.map(drop)
    }

    /// Returns a statement as it is sent.
    pub(super) fn text(&self, index: usize) -> Cow<'_, str> {
        let own = |timeout| own_timeout(&self.context.options, timeout);
        self.script.sent_statement(index, own).sql
    }

    /// Runs one statement. `unconfirmed` is the index build whose reply was lost.
    async fn statement(
        &self,
        session: &Session,
        owner: &LockOwner,
        index: usize,
        unconfirmed: Option<&str>,
    ) -> Result<(), ScriptFailure> {
        let result = if let Some(name) = self.script.statements[index].concurrent_index() {
            self.build(session, owner, index, name, unconfirmed).await?
        } else {
            let lock_timeout = self.context.options.lock_timeout;
            self.monitored(session, owner, &self.text(index), lock_timeout).await
        };
        result.map_err(|error| self.statement_failed(index, error))
    }

    pub(super) fn statement_failed(
        &self,
        index: usize,
        StatementError { error, blockers }: StatementError,
    ) -> ScriptFailure {
        let place = location_of_failure(self.script, index, &error);
        ScriptFailure::Server(error, place, blockers)
    }

    /// Runs SQL; waits for locks are reported, and the second interrupt cancels it.
    pub(super) async fn monitored(
        &self,
        session: &Session,
        owner: &LockOwner,
        sql: &str,
        lock_timeout: Duration,
    ) -> Result<(), StatementError> {
        let interrupts = self.interrupts.clone();
        let mut monitor = LockMonitor::new(
            &self.context.direct,
            owner.pid,
            lock_timeout,
            self.progress,
            interrupts,
        );
        let result = monitor.during(session.client().simple_query(sql)).await;
        let blockers = monitor.blockers;
        result.map(drop).map_err(|error| StatementError { error, blockers })
    }
}

pub(super) fn failed(error: MigrateError) -> ScriptFailure {
    ScriptFailure::Failed(Box::new(error))
}
