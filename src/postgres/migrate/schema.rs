//! Migrates one schema: opens a transaction under its lock, plans, applies, commits, and retries after
//! lock contention or a lost connection.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use tokio_postgres::Error;

use super::baseline::Baseline;
use super::context::{Context, Mode};
use super::failure::FailedAttempt;
use super::non_transactional::{NonTransactional, ScriptFailure, ScriptOutcome};
use super::template::Template;
use crate::domain::applied::AppliedScript;
use crate::domain::plan::Plan;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::{Script, Transaction};
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::server_error::{
    is_connection_lost, is_worth_retrying, server_error,
};
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::batch::BatchError;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, open, rollback};
use crate::postgres::transaction::retry::{GaveUp, Retry, TxError};
use crate::service::event::{Interrupt, Progress, Skipped};
use crate::service::failure::{Holder, MigrateError, ServerError};
use crate::service::fleet::Interrupts;

/// The migration of one schema.
pub(crate) struct SchemaMigration<'a> {
    pub(crate) context: &'a Context,
    pub(crate) target: &'a Target,
    pub(crate) progress: &'a Progress,
    pub(crate) interrupts: Interrupts,
    /// The scripts that this run has committed in the schema.
    pub(crate) committed: Vec<AppliedScript>,
    /// Scripts whose COMMIT was sent and whose reply was lost; the history tells which are applied.
    pub(crate) in_doubt: Vec<AppliedScript>,
    /// Whether the schema is expected to have a history table.
    pub(crate) expect_history: bool,
    /// The number of the current attempt at a transaction, from 1.
    pub(crate) attempt: u32,
    /// Whether the ledger is written.
    pub(crate) keeps_ledger: bool,
    /// Fills the schema if it is empty; `None` after it failed once.
    pub(crate) template: Option<&'a Template>,
}

/// How one transaction ended.
pub(super) enum Step {
    /// Committed; more may be pending.
    Committed(Vec<AppliedScript>),
    /// Committed, and nothing else is pending.
    Completed(Vec<AppliedScript>),
    /// Nothing was pending.
    UpToDate,
    Skipped(Skipped),
    /// Rolled back for a reason that no longer holds.
    Again,
}

/// What is next in an open transaction.
enum Next<'a> {
    Apply(Vec<&'a Script>),
    /// The transaction is not needed: the first pending script runs without one.
    NonTransactional(&'a Script),
    /// The transaction is not needed.
    Finished(Step),
}

/// Why no attempt at a transaction committed.
pub(super) enum Stopped {
    Failed(Box<MigrateError>),
    /// The connection was lost in every attempt, or there was none.
    Lost(ServerError),
    /// The second interrupt came.
    Cancelled,
}

impl From<GaveUp> for Stopped {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::Locked { holder, waited } => {
                Self::Failed(Box::new(MigrateError::Locked { holder, waited }))
            }
            GaveUp::NotConnected(error) | GaveUp::Lost(error) | GaveUp::Unknown(error) => {
                Self::Lost(error)
            }
            GaveUp::Cancelled => Self::Cancelled,
        }
    }
}

pub(super) type StepError = TxError<Stopped, Step>;

impl From<MigrateError> for StepError {
    fn from(error: MigrateError) -> Self {
        Self::Refused(Stopped::Failed(Box::new(error)))
    }
}

/// Returns the error that is retried.
fn contention(error: MigrateError) -> StepError {
    let (cause, blockers) = match &error {
        MigrateError::Script { error, blockers, .. } => (error.clone(), blockers.clone()),
        MigrateError::Database { error, .. } => (error.clone(), Vec::new()),
        _ => Default::default(),
    };
    StepError::Contention {
        error: Stopped::Failed(Box::new(error)),
        cause: Box::new(cause),
        blockers,
    }
}

impl<'a> SchemaMigration<'a> {
    /// Runs transactions until nothing is pending; returns why the schema was skipped, if it was.
    pub(crate) async fn run(&mut self) -> Result<Option<Skipped>, Box<MigrateError>> {
        // Before this schema takes a connection: all schemas may need one for this at once.
        self.keeps_ledger = !self.is_dry_run() && self.context.keeps_ledger(self.progress).await;
        let (context, progress) = (self.context, self.progress);
        let interrupts = self.interrupts.clone();
        let retry = Retry::new(&context.database, &context.options, progress, interrupts);
        let doing = format!("migrating {}", self.target.schema);
        let mut attempts = retry.attempts();
        loop {
            self.attempt = attempts.number();
            let step = self.step().await;
            let refused = |error: &Error| Stopped::Lost(server_error(error));
            let ControlFlow::Break(step) = attempts.next(refused, step).await else {
                continue;
            };
            attempts = retry.attempts();
            match step {
                Ok(Step::UpToDate) => return Ok(None),
                Ok(Step::Skipped(why)) => return Ok(Some(why)),
                Ok(Step::Completed(scripts)) => {
                    self.committed.extend(scripts);
                    return Ok(None);
                }
                Ok(Step::Committed(scripts)) => self.committed.extend(scripts),
                Ok(Step::Again) => {}
                Err(Stopped::Failed(error)) => return Err(error),
                Err(Stopped::Lost(error)) => {
                    return Err(Box::new(MigrateError::InDoubt { doing, error }));
                }
                Err(Stopped::Cancelled) => return Ok(Some(Skipped::Interrupted)),
            }
            if self.interrupts.level() == Interrupt::Cancel {
                return Ok(Some(Skipped::Interrupted));
            }
        }
    }

    /// Runs one transaction, or one script without a transaction.
    async fn step(&mut self) -> Result<Step, StepError> {
        let (context, target) = (self.context, self.target);
        let session = self.session(self.in_doubt.is_empty()).await?;
        let opened = open(&session, &context.options, target, self.expect_history).await;
        let opened = match opened {
            Ok(OpenOutcome::Ready(opened)) => opened,
            Ok(OpenOutcome::Busy(oid)) => return Err(StepError::Busy(oid)),
            Ok(OpenOutcome::NoTenant) => return Ok(Step::Skipped(Skipped::Dropped)),
            Ok(OpenOutcome::Dropping) => return Ok(Step::Skipped(Skipped::Dropping)),
            Ok(OpenOutcome::NoSchema) => return Err(MigrateError::SchemaMissing.into()),
            Ok(OpenOutcome::NotUsable(role)) => {
                let error = ServerError {
                    sqlstate: Some(sqlstate::INSUFFICIENT_PRIVILEGE.to_owned()),
                    message: format!("role '{role}' lacks USAGE on the schema"),
                    ..ServerError::default()
                };
                let doing = self.opening();
                return Err(MigrateError::Database { doing, error }.into());
            }
            Ok(OpenOutcome::Expect(history)) => {
                self.expect_history = history;
                context.last_was_new.store(!history, Ordering::Relaxed);
                // A task that borrows a second connection while it holds one may wait for itself.
                drop(session);
                return Box::pin(self.step()).await;
            }
            Err(error) => {
                session.discard();
                return Err(self.open_failed(&error));
            }
        };
        match self.next(&session, &opened).await {
            Ok(Next::Apply(pending)) => self.apply(session, opened, &pending).await,
            Ok(Next::NonTransactional(script)) => {
                self.finish(session).await;
                if self.is_dry_run() {
                    return Ok(Step::Skipped(Skipped::NoTransaction));
                }
                self.without_transaction(script, opened.has_history).await
            }
            Ok(Next::Finished(step)) => {
                self.finish(session).await;
                Ok(step)
            }
            Err(error) => {
                self.finish(session).await;
                Err(error)
            }
        }
    }

    /// Plans from the history that was read under the lock.
    async fn next(
        &mut self,
        session: &Session,
        opened: &OpenTransaction,
    ) -> Result<Next<'a>, StepError> {
        let context = self.context;
        let rows = match &opened.history {
            Ok(rows) => rows,
            Err(why) => return Err(MigrateError::DamagedHistory { why: why.clone() }.into()),
        };
        // Resolves an in-doubt COMMIT.
        let applied: Vec<AppliedScript> = std::mem::take(&mut self.in_doubt)
            .into_iter()
            .filter(|script| rows.iter().any(|row| row.version == script.script.version))
            .collect();
        if !applied.is_empty() {
            return Ok(Next::Finished(Step::Committed(applied)));
        }
        let set = context.set(self.target.scope);
        let plan = Plan::compare(set.ids(), rows, context.options.goal)
            .map_err(|drifts| StepError::from(MigrateError::Drift { drifts }))?;
        let pending = plan.pending.iter().map(|&index| &set.scripts()[index]);
        let pending: Vec<&Script> = pending.collect();
        let Some(first) = pending.first() else {
            return Ok(Next::Finished(Step::UpToDate));
        };
        if let Mode::Baseline(baseline) = &context.mode {
            if !rows.is_empty() {
                let version = plan.version;
                return Err(MigrateError::HasHistory { version }.into());
            }
            self.check_baseline(session, opened, baseline).await?;
        }
        if first.transaction == Transaction::Outside && !context.mode.only_records() {
            if let Mode::DryRun(dry_run) = &context.mode {
                dry_run.leave_out(self.target, &pending);
            }
            return Ok(Next::NonTransactional(first));
        }
        Ok(Next::Apply(pending))
    }

    /// Fails if the schema lacks tables or columns of the baseline.
    async fn check_baseline(
        &mut self,
        session: &Session,
        opened: &OpenTransaction,
        baseline: &Baseline,
    ) -> Result<(), StepError> {
        let history_table = &self.context.options.history_table;
        let oid = opened.schema_oid.to_string();
        match baseline.missing(session, &oid, history_table).await {
            Ok(missing) if missing.is_empty() => Ok(()),
            Ok(missing) => Err(MigrateError::SchemaIncomplete { missing }.into()),
            Err(error) => Err(self.open_failed(&error)),
        }
    }

    /// Runs one script without a transaction, on a connection of its own.
    async fn without_transaction(
        &mut self,
        script: &Script,
        has_history: bool,
    ) -> Result<Step, StepError> {
        self.report_kept_timeouts(&[script]);
        self.context.bookkeeping().await?;
        let session = self.context.direct.session(RECONNECT_TIMEOUT).await;
        let session = session.map_err(|error| self.not_connected(error, true))?;
        let mut run = NonTransactional {
            context: self.context,
            target: self.target,
            progress: self.progress,
            interrupts: self.interrupts.clone(),
            script,
            keeps_ledger: self.keeps_ledger,
        };
        let outcome = run.run(&session, has_history).await;
        if matches!(outcome, Ok(ScriptOutcome::Busy(_) | ScriptOutcome::AlreadyApplied)) {
            drop(session);
        } else {
            session.discard();
        }
        match outcome {
            Ok(ScriptOutcome::Applied(applied)) => {
                self.expect_history = true;
                Ok(Step::Committed(vec![applied]))
            }
            Ok(ScriptOutcome::Busy(oid)) => Err(StepError::Busy(oid)),
            // The next step reads from the history what is left.
            Ok(ScriptOutcome::AlreadyApplied) => Ok(Step::Committed(Vec::new())),
            Err(ScriptFailure::Failed(error)) => Err(StepError::Refused(Stopped::Failed(error))),
            Err(ScriptFailure::Cancelled) => Err(StepError::Refused(Stopped::Cancelled)),
            Err(ScriptFailure::Server(error, place, blockers)) => {
                let error = BatchError::Script(0, place, error);
                Err(self.batch_failed(error, &[script], blockers))
            }
            // The history row may be committed all the same.
            Err(ScriptFailure::Recording(applied, error)) if is_connection_lost(&error) => {
                Err(self.lost(vec![applied], server_error(&error)))
            }
            Err(ScriptFailure::Recording(_, error) | ScriptFailure::Internal(error)) => {
                Err(self.batch_failed(BatchError::Internal(error), &[script], Vec::new()))
            }
        }
    }

    fn is_dry_run(&self) -> bool {
        matches!(self.context.mode, Mode::DryRun(_))
    }

    /// Borrows a connection. `all_known`: no COMMIT of this schema is in doubt.
    async fn session(&self, all_known: bool) -> Result<Session, StepError> {
        let Context { database, session_cache, .. } = self.context;
        if let Some(session) = session_cache.take() {
            return Ok(session);
        }
        let session = database.session_for_job(RECONNECT_TIMEOUT, session_cache);
        session.await.map_err(|error| self.not_connected(error, all_known))
    }

    /// Rolls back and returns the connection to the pool, or closes it if that fails.
    pub(super) async fn finish(&self, session: Session) {
        if rollback(&session).await.is_err() {
            session.discard();
        }
    }

    /// Returns the error of a lost connection. Scripts whose COMMIT was sent are applied if the
    /// history says so when it is next read.
    pub(super) fn lost(&mut self, in_doubt: Vec<AppliedScript>, cause: ServerError) -> StepError {
        self.context.session_cache.clear();
        self.in_doubt.extend(in_doubt);
        StepError::Lost(Box::new(cause))
    }

    pub(super) fn not_connected(&self, error: ServerError, all_known: bool) -> StepError {
        let doing = format!("connecting for {}", self.target.schema);
        if !all_known {
            return MigrateError::InDoubt { doing, error }.into();
        }
        let is_full = error.has_sqlstate(sqlstate::TOO_MANY_CONNECTIONS);
        let failed = MigrateError::Database { doing, error };
        if is_full {
            // A connection may be free once another schema is migrated.
            contention(failed)
        } else {
            failed.into()
        }
    }

    fn opening(&self) -> String {
        format!("opening a transaction in {}", self.target.schema)
    }

    fn open_failed(&mut self, error: &Error) -> StepError {
        let cause = server_error(error);
        if is_connection_lost(error) {
            return self.lost(Vec::new(), cause);
        }
        let failed = MigrateError::Database { doing: self.opening(), error: cause };
        if is_worth_retrying(error) {
            return contention(failed);
        }
        failed.into()
    }

    /// Classifies the error of a batch: retried, lost, or the error of the schema.
    pub(super) fn batch_failed(
        &mut self,
        error: BatchError,
        pending: &[&Script],
        blockers: Vec<Holder>,
    ) -> StepError {
        let context = self.context;
        let definition = match &error {
            BatchError::Script(script, _, error) => {
                context.find_definition(self.target, error, pending[*script], pending)
            }
            _ => None,
        };
        let failed = FailedAttempt {
            target: self.target,
            history_table: &context.options.history_table,
            scripts: pending,
            number: self.attempt,
            blockers,
        };
        let (mut failed, error) = failed.describe(error);
        if let MigrateError::Script { error, .. } = &mut failed {
            error.defined_in = definition;
        }
        let Some(error) = error else {
            return failed.into();
        };
        if self.interrupts.level() == Interrupt::Cancel {
            return StepError::Refused(Stopped::Cancelled);
        }
        if is_connection_lost(&error) {
            // COMMIT was not sent, so nothing is in doubt.
            return self.lost(Vec::new(), server_error(&error));
        }
        if is_worth_retrying(&error) {
            return contention(failed);
        }
        failed.into()
    }
}
