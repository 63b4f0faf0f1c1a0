//! A script that must run without a transaction: statement by statement, resumable, and an
//! index it builds is valid or does not exist.

use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::applied::Applied;
use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::QuotedIdentifier;
use crate::domain::script::Location;
use crate::domain::target::Target;
use crate::migrations::Script;
use crate::postgres::connection::database::{Database, Route};
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT};
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::advisory_lock::CLASS;
use crate::postgres::transaction::batch::{NOW, claim};
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::settings::{SettingScope, settings};
use crate::postgres::transaction::{history, ledger};
use crate::service::event::{EventKind, Interrupt, Progress};
use crate::service::failure::{Holder, MigrateError, ServerError};
use crate::service::fleet::Interrupts;

/// One such script in one schema.
pub(crate) struct Run<'a> {
    pub(crate) database: &'a Database,
    pub(crate) options: &'a EngineOptions,
    pub(crate) target: &'a Target,
    pub(crate) progress: &'a Progress,
    pub(crate) interrupts: Interrupts,
    pub(crate) script: &'a Script,
    /// Whether the script's history row is noted in the ledger.
    pub(crate) keeps_ledger: bool,
}

/// How it ended.
pub(crate) enum Ended {
    /// Every statement is done and the history says so.
    Applied(AppliedScript),
    /// Somebody else holds the lock of the schema with this oid.
    Busy(u32),
    /// Somebody else applied it meanwhile.
    Overtaken,
}

/// Why it did not end.
pub(crate) enum RunError {
    /// A statement of the script failed.
    Server(Error, Option<Location>, Vec<Holder>),
    /// A statement of ours failed.
    Ours(Error),
    /// Everything is done, and recording it failed.
    Recording(AppliedScript, Error),
    /// Known as data already.
    Failed(Box<MigrateError>),
    /// The second interrupt came.
    Cancelled,
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// What the server answered instead of doing what it was asked to, and who was in the way.
struct Refused {
    error: Error,
    blockers: Vec<Holder>,
}

/// Where the session stands.
struct Ground {
    pid: i32,
    schema_oid: u32,
}

impl Run<'_> {
    /// Runs the script on a session that must be thrown away afterwards: it keeps settings.
    pub(crate) async fn run(
        &mut self,
        session: &Session,
        has_history: bool,
    ) -> Result<Ended, RunError> {
        let ended = self.run_locked(session, has_history).await;
        // Closing the connection would release the lock too, but nobody could say when.
        let _ = session.rows("SELECT pg_advisory_unlock_all()").await;
        ended
    }

    async fn run_locked(
        &mut self,
        session: &Session,
        has_history: bool,
    ) -> Result<Ended, RunError> {
        // Before the lock: in a shared session it would stay behind.
        if self.database.facts().route == Route::Pooled && self.is_shared(session).await? {
            return Err(self.shared());
        }
        let (schema, table) = (&self.target.schema, &self.options.history_table);
        let sql = format!(
            "SELECT pg_backend_pid(), oid, pg_try_advisory_lock({CLASS}, oid::int4) FROM pg_namespace WHERE nspname = {}",
            escape_literal(schema.as_str())
        );
        let rows = session.rows(&sql).await?;
        let Some(row) = rows.first() else {
            return Err(failed(MigrateError::SchemaMissing));
        };
        let number = |column: usize| row.optional(column).unwrap_or_default();
        let ground = Ground {
            pid: number(0).parse().unwrap_or_default(),
            schema_oid: number(1).parse().unwrap_or_default(),
        };
        if number(2) != "t" {
            return Ok(Ended::Busy(ground.schema_oid));
        }
        self.prove_session(session, &ground).await?;
        session
            .rows(&settings(self.options, self.target, SettingScope::Session))
            .await?;
        if !has_history {
            session.rows(&history::create_table(schema, table)).await?;
        }
        // Read under this lock, whatever was known before it.
        let history = session.rows(&history::select(schema, table)).await?;
        let history =
            history::parse(&history).map_err(|why| failed(MigrateError::DamagedHistory { why }))?;
        if history
            .iter()
            .any(|row| row.version == self.script.id.version)
        {
            return Ok(Ended::Overtaken);
        }
        let begun = Instant::now();
        let script = self.script.id.reference();
        self.progress.send(EventKind::ScriptStarted {
            script: script.clone(),
        });
        let notices = session.forward_notices(ground.pid, self.progress);
        let (first, unanswered) = self.resume_at(session, &ground).await?;
        self.set_again(session, first).await?;
        for index in first..self.script.statements.len() {
            if self.interrupts.level() == Interrupt::Cancel {
                return Err(RunError::Cancelled);
            }
            if self.database.facts().route == Route::Pooled {
                self.prove_session(session, &ground).await?;
            }
            self.statement(session, &ground, index, unanswered.as_deref())
                .await?;
            self.note_finished(session, &ground, index).await?;
        }
        drop(notices);
        let mut record = format!(
            "{}; DELETE FROM pricesync.unfinished_script WHERE schema_oid = {} AND version = {}",
            claim(schema, table, self.script, NOW),
            ground.schema_oid,
            self.script.id.version
        );
        if self.keeps_ledger {
            let claimed = std::iter::once(self.script.id.claimed());
            let after: Vec<Applied> = history.into_iter().chain(claimed).collect();
            record = format!("{record}; {}", ledger::note(schema, table, &after));
        }
        let recorded = session.rows(&record).await;
        let applied = AppliedScript {
            script,
            took: begun.elapsed(),
        };
        if let Err(error) = recorded {
            return Err(RunError::Recording(applied, error));
        }
        self.progress.send(EventKind::ScriptFinished {
            script: applied.clone(),
        });
        Ok(Ended::Applied(applied))
    }

    /// Behind a pooler that shares backends between transactions the lock just taken is on
    /// some backend, and the next statement on another.
    async fn prove_session(&self, session: &Session, ground: &Ground) -> Result<(), RunError> {
        let sql = format!(
            "SELECT pg_backend_pid(), count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
             AND classid = {CLASS} AND objid = {}",
            ground.schema_oid
        );
        let rows = session.rows(&sql).await?;
        let cell = |column: usize| {
            rows.first()
                .and_then(|row| row.optional(column))
                .unwrap_or_default()
        };
        if cell(0) == ground.pid.to_string() && cell(1) != "0" {
            return Ok(());
        }
        Err(self.shared())
    }

    fn shared(&self) -> RunError {
        self.failed(ServerError {
            message: "the connection goes through a pooler that shares sessions".to_owned(),
            hint: Some(
                "set database.direct_url, where database.url is set, to an address past the pooler"
                    .to_owned(),
            ),
            ..ServerError::default()
        })
    }

    fn failed(&self, error: ServerError) -> RunError {
        failed(MigrateError::Database {
            doing: format!("running {} without a transaction", self.script.id),
            error,
        })
    }

    /// Returns whether the session is handed to somebody else who asks while it is idle.
    async fn is_shared(&self, session: &Session) -> Result<bool, RunError> {
        /// A pooler gives the session that was free last, which under load may be another one.
        const ROUNDS: u32 = 8;
        let other = self.database.session(RECONNECT_TIMEOUT).await;
        let other = other.map_err(|error| self.failed(error))?;
        for _ in 0..ROUNDS {
            let mut pids = Vec::new();
            for session in [session, &other] {
                let rows = session.rows("SELECT pg_backend_pid()").await?;
                pids.push(
                    rows.first()
                        .and_then(|row| row.optional(0))
                        .map(str::to_owned),
                );
            }
            if pids[0] == pids[1] {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the first statement to run, and the index build of an earlier attempt that nobody
    /// has heard the end of. A file whose finished part was edited since begins anew.
    async fn resume_at(
        &self,
        session: &Session,
        ground: &Ground,
    ) -> Result<(usize, Option<String>), Error> {
        let sql = format!(
            "INSERT INTO pricesync.unfinished_script AS u (schema_oid, version, schema_name, script) \
             VALUES ({}, {}, {}, {}) ON CONFLICT (schema_oid, version) DO UPDATE SET started_at = clock_timestamp() \
             RETURNING finished_text, unanswered",
            ground.schema_oid,
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
        let done = self
            .script
            .statements
            .iter()
            .position(ends_with)
            .filter(|_| same);
        Ok((
            done.map_or(0, |index| index + 1),
            cell(1).map(str::to_owned),
        ))
    }

    /// Sends the `SET`s of the part that was finished in another session, where they ended with it.
    async fn set_again(&self, session: &Session, first: usize) -> Result<(), RunError> {
        for index in 0..first {
            if !self.script.statements[index].sets_for_session() {
                continue;
            }
            if let Err(error) = session.rows(self.text(index)).await {
                let blockers = Vec::new();
                return Err(self.refused(index, Refused { error, blockers }));
            }
        }
        Ok(())
    }

    async fn note_finished(
        &self,
        session: &Session,
        ground: &Ground,
        index: usize,
    ) -> Result<(), Error> {
        let finished = &self.script.text[..self.script.statements[index].range.end];
        let finished = escape_literal(finished);
        let change = format!("finished_text = {finished}, unanswered = NULL");
        self.note(session, ground, &change).await
    }

    /// Notes that a build is on its way, or with `None` that it has failed. One that went well
    /// stays on its way until it is finished: in between the connection may break.
    async fn note_unanswered(
        &self,
        session: &Session,
        ground: &Ground,
        build: Option<&str>,
    ) -> Result<(), Error> {
        let build = build.map_or_else(|| "NULL".to_owned(), escape_literal);
        self.note(session, ground, &format!("unanswered = {build}"))
            .await
    }

    async fn note(&self, session: &Session, ground: &Ground, change: &str) -> Result<(), Error> {
        let sql = format!(
            "UPDATE pricesync.unfinished_script SET {change} WHERE schema_oid = {} AND version = {}",
            ground.schema_oid, self.script.id.version
        );
        session.rows(&sql).await.map(drop)
    }

    fn text(&self, index: usize) -> &str {
        &self.script.text[self.script.statements[index].range.clone()]
    }

    /// Runs one statement. `unanswered` is the build whose end nobody has heard.
    async fn statement(
        &self,
        session: &Session,
        ground: &Ground,
        index: usize,
        unanswered: Option<&str>,
    ) -> Result<(), RunError> {
        let ran = match self.script.statements[index].concurrent_index() {
            Some(name) => self.build(session, ground, index, name, unanswered).await?,
            None => {
                self.attended(session, ground, self.text(index), self.options.lock_timeout)
                    .await
            }
        };
        ran.map_err(|refused| self.refused(index, refused))
    }

    fn refused(&self, index: usize, Refused { error, blockers }: Refused) -> RunError {
        RunError::Server(
            error,
            Some(self.script.location_of_statement(index)),
            blockers,
        )
    }

    /// Sends SQL whose waits end after `lock_timeout` (zero: never), which the second interrupt cancels.
    async fn attended(
        &self,
        session: &Session,
        ground: &Ground,
        sql: &str,
        lock_timeout: Duration,
    ) -> Result<(), Refused> {
        let interrupts = self.interrupts.clone();
        let mut attendance = LockMonitor::new(
            self.database,
            ground.pid,
            lock_timeout,
            self.progress,
            interrupts,
        );
        let ran = attendance.during(session.client().simple_query(sql)).await;
        let blockers = attendance.blockers;
        ran.map(drop).map_err(|error| Refused { error, blockers })
    }

    /// Builds an index, unless an earlier attempt has done it; returns what the server answered.
    async fn build(
        &self,
        session: &Session,
        ground: &Ground,
        index: usize,
        name: &str,
        unanswered: Option<&str>,
    ) -> Result<Result<(), Refused>, RunError> {
        let sql = self.text(index);
        let valid = self.is_valid(session, ground, name).await?;
        // Built, but the connection broke before it was noted. Any other index of that name is
        // somebody else's, and the server says so.
        if valid == Some(true) && unanswered == Some(sql) {
            return Ok(Ok(()));
        }
        let rows = session
            .rows("SELECT current_setting('lock_timeout')")
            .await?;
        let lock_timeout =
            escape_literal(rows.first().and_then(|row| row.optional(0)).unwrap_or("0"));
        // What is concurrent waits for every older transaction, and holds nobody up while it does.
        session.rows("SET lock_timeout TO 0").await?;
        if valid == Some(false) {
            let dropped = self.drop_index(session, ground, name, Duration::ZERO).await;
            dropped.map_err(|refused| self.refused(index, refused))?;
        }
        if valid != Some(true) {
            self.note_unanswered(session, ground, Some(sql)).await?;
        }
        let built = self.attended(session, ground, sql, Duration::ZERO).await;
        if let Err(Refused { error, .. }) = &built
            && (is_connection_lost(error) || self.interrupts.level() == Interrupt::Cancel)
        {
            // Whatever it left is looked at by the next attempt.
            return Ok(built);
        }
        let restored = format!("SET lock_timeout TO {lock_timeout}");
        session.rows(&restored).await?;
        let is_invalid = self.is_valid(session, ground, name).await? == Some(false);
        if is_invalid || built.is_err() {
            self.note_unanswered(session, ground, None).await?;
        }
        if is_invalid {
            let wait = self.options.lock_timeout;
            // A failed build is the news; that its index could not be dropped is not.
            if let Err(Refused { error, .. }) = self.drop_index(session, ground, name, wait).await {
                self.progress.send(EventKind::Notice {
                    severity: "WARNING".to_owned(),
                    message: format!(
                        "index '{name}' stays invalid until the next run drops it: {}",
                        server_error(&error)
                    ),
                });
            }
            if built.is_ok() {
                return Err(failed(MigrateError::InvalidIndex {
                    script: self.script.id.reference(),
                    indexes: vec![name.to_owned()],
                }));
            }
        }
        Ok(built)
    }

    /// Returns whether the index of this name in the schema is valid, where there is one.
    async fn is_valid(
        &self,
        session: &Session,
        ground: &Ground,
        name: &str,
    ) -> Result<Option<bool>, Error> {
        let sql = format!(
            "SELECT i.indisvalid FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
             WHERE c.relnamespace = {} AND c.relname = {}",
            ground.schema_oid,
            escape_literal(name)
        );
        let rows = session.rows(&sql).await?;
        Ok(rows.first().map(|row| row.is_true(0)))
    }

    async fn drop_index(
        &self,
        session: &Session,
        ground: &Ground,
        name: &str,
        lock_timeout: Duration,
    ) -> Result<(), Refused> {
        let index = format!(
            "{}.{}",
            self.target.schema.quoted(),
            QuotedIdentifier::new(name)
        );
        let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
        self.attended(session, ground, &sql, lock_timeout).await
    }
}

fn failed(error: MigrateError) -> RunError {
    RunError::Failed(Box::new(error))
}
