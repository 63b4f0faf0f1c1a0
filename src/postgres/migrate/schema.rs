//! Migrates one schema: opens the transaction under its lock, plans, applies, commits, and retries
//! after lock contention or a lost connection.

use futures_util::future::join;
use std::collections::HashSet;
use std::ops::ControlFlow;
use tokio_postgres::Error;

use super::dry_run::{self, DryRun};
use super::failure::FailedAttempt;
use super::migrator::{Mode, PostgresMigrator};
use super::non_transactional;
use super::refinery::{self, ScriptSelection};
use super::template::{Template, TemplateMismatch, TemplateRun};
use crate::domain::applied::Applied;
use crate::domain::applied::AppliedScript;
use crate::domain::plan::Plan;
use crate::domain::run_options::Atomic;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::{Script, Transaction};
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::server_error::{
    is_connection_lost, is_worth_retrying, server_error,
};
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::batch::BatchError;
use crate::postgres::transaction::escape_guard::{self, Findings};
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::ledger::{self, FinishCall};
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, open, rollback};
use crate::postgres::transaction::retry::{GaveUp, Retry, TxError};
use crate::service::event::{Interrupt, Progress, Skipped};
use crate::service::failure::{Holder, MigrateError, ServerError};
use crate::service::fleet::Interrupts;

/// The migration of one schema.
pub(crate) struct SchemaMigration<'a> {
    pub(crate) migrator: &'a PostgresMigrator,
    pub(crate) target: &'a Target,
    pub(crate) progress: &'a Progress,
    pub(crate) interrupts: Interrupts,
    /// What this run has committed in the schema.
    pub(crate) committed: Vec<AppliedScript>,
    /// Scripts whose COMMIT was sent and whose reply was lost; the history tells which are applied.
    pub(crate) in_doubt: Vec<AppliedScript>,
    /// Whether the schema is expected to have a history table.
    pub(crate) expect_history: bool,
    /// The number of the current attempt at a transaction, from 1.
    pub(crate) attempt: u32,
    /// Whether the ledger is written.
    pub(crate) keeps_ledger: bool,
    /// Fills the schema if it is empty; dropped after it failed once.
    pub(crate) template: Option<&'a Template>,
}

/// How one transaction ended.
enum Step {
    /// Committed; more may be pending.
    Committed(Vec<AppliedScript>),
    /// Committed, and nothing is pending any more.
    Completed(Vec<AppliedScript>),
    /// Nothing was pending.
    UpToDate,
    Skipped(Skipped),
    /// Rolled back for a reason that no longer holds.
    Again,
}

/// Why no attempt at a transaction committed.
enum Stopped {
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

type StepError = TxError<Stopped, Step>;

impl From<MigrateError> for StepError {
    fn from(error: MigrateError) -> Self {
        Self::Refused(Stopped::Failed(Box::new(error)))
    }
}

/// Returns the error that is retried.
fn contention(error: MigrateError) -> StepError {
    let (cause, blockers) = match &error {
        MigrateError::Script {
            error, blockers, ..
        } => (error.clone(), blockers.clone()),
        MigrateError::Database { error, .. } => (error.clone(), Vec::new()),
        _ => Default::default(),
    };
    StepError::Contention {
        error: Stopped::Failed(Box::new(error)),
        cause: Box::new(cause),
        blockers,
    }
}

impl SchemaMigration<'_> {
    /// Runs transactions until nothing is pending; returns why the schema was skipped, if it was.
    pub(crate) async fn run(&mut self) -> Result<Option<Skipped>, Box<MigrateError>> {
        // Before this schema takes a connection, which all schemas may need for this at once.
        self.keeps_ledger = !self.is_dry_run() && self.migrator.keeps_ledger(self.progress).await;
        let (migrator, progress) = (self.migrator, self.progress);
        let interrupts = self.interrupts.clone();
        let retry = Retry::new(&migrator.database, &migrator.options, progress, interrupts);
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

    /// Returns the error of a lost connection. Scripts whose COMMIT was sent are applied if the
    /// history says so when it is next read.
    fn lost(&mut self, in_doubt: Vec<AppliedScript>, cause: ServerError) -> StepError {
        self.migrator.session_cache.clear();
        self.in_doubt.extend(in_doubt);
        StepError::Lost(Box::new(cause))
    }

    /// One transaction, or one script without a transaction.
    async fn step(&mut self) -> Result<Step, StepError> {
        let (options, target) = (&self.migrator.options, self.target);
        let fake = self.migrator.mode.only_records();
        let session = self.session(self.in_doubt.is_empty()).await?;
        let opened = match open(&session, options, target, self.expect_history).await {
            Ok(opening) => opening,
            Err(error) => return Err(self.open_failed(session, &error)),
        };
        let opened = match opened {
            OpenOutcome::Ready(opened) => opened,
            OpenOutcome::Busy(oid) => return Err(StepError::Busy(oid)),
            OpenOutcome::NoTenant => return Ok(Step::Skipped(Skipped::Dropped)),
            OpenOutcome::Dropping => return Ok(Step::Skipped(Skipped::Dropping)),
            OpenOutcome::NoSchema => return Err(MigrateError::SchemaMissing.into()),
            OpenOutcome::NotUsable(role) => {
                return Err(MigrateError::Database {
                    doing: format!("entering {}", target.schema),
                    error: ServerError {
                        sqlstate: Some(sqlstate::INSUFFICIENT_PRIVILEGE.to_owned()),
                        message: format!("role '{role}' may not use the schema"),
                        ..ServerError::default()
                    },
                }
                .into());
            }
            OpenOutcome::Expect(history) => {
                self.expect_history = history;
                let last_was_new = &self.migrator.last_was_new;
                last_was_new.store(!history, std::sync::atomic::Ordering::Relaxed);
                // A task that holds a connection while it asks for another may wait for itself.
                drop(session);
                return Box::pin(self.step()).await;
            }
        };
        let rows = match &opened.history {
            Ok(rows) => rows,
            Err(why) => {
                let why = why.clone();
                self.leave(session).await;
                return Err(MigrateError::DamagedHistory { why }.into());
            }
        };
        // Resolves an in-doubt COMMIT.
        let found: Vec<AppliedScript> = std::mem::take(&mut self.in_doubt)
            .into_iter()
            .filter(|script| rows.iter().any(|row| row.version == script.script.version))
            .collect();
        if !found.is_empty() {
            self.leave(session).await;
            return Ok(Step::Committed(found));
        }
        let set = self.migrator.set(target.scope);
        let plan = match Plan::compare(set.ids(), rows, options.goal) {
            Ok(plan) => plan,
            Err(drifts) => {
                self.leave(session).await;
                return Err(MigrateError::Drift { drifts }.into());
            }
        };
        let pending: Vec<&Script> = plan
            .pending
            .iter()
            .map(|&index| &set.scripts()[index])
            .collect();
        let Some(first) = pending.first() else {
            self.leave(session).await;
            return Ok(Step::UpToDate);
        };
        if let Mode::Baseline(baseline) = &self.migrator.mode {
            let lacks = if rows.is_empty() {
                let oid = opened.schema_oid.to_string();
                match baseline
                    .missing(&session, &oid, &options.history_table)
                    .await
                {
                    Ok(missing) if missing.is_empty() => None,
                    Ok(missing) => Some(MigrateError::SchemaIncomplete { missing }),
                    Err(error) => return Err(self.open_failed(session, &error)),
                }
            } else {
                Some(MigrateError::HasHistory {
                    version: plan.version,
                })
            };
            if let Some(error) = lacks {
                self.leave(session).await;
                return Err(error.into());
            }
        }
        if first.transaction == Transaction::Outside && !fake {
            self.leave(session).await;
            if self.is_dry_run() {
                return Ok(Step::Skipped(Skipped::NoTransaction));
            }
            return self.without_transaction(first, opened.has_history).await;
        }
        let together = pending
            .iter()
            .take_while(|script| fake || script.transaction == Transaction::Inside)
            .count();
        if let Mode::DryRun(rehearsal) = &self.migrator.mode {
            let scripts = &pending[..together];
            return self.rehearse(session, opened, scripts, rehearsal).await;
        }
        let together = match options.atomic {
            Atomic::Schema => together,
            Atomic::Migration => 1,
        };
        let template = self
            .template
            .filter(|_| rows.is_empty() && !opened.has_history);
        // Neither what waits for a later transaction nor what lies beyond the goal.
        let concerned: HashSet<i64> = rows
            .iter()
            .map(|row| row.version)
            .chain(pending[..together].iter().map(|script| script.id.version))
            .collect();
        let scripts: Vec<&Script> = set
            .scripts()
            .iter()
            .filter(|script| concerned.contains(&script.id.version))
            .collect();
        let work = ScriptSelection {
            scripts: &scripts,
            pending: &pending[..together],
            fake,
        };
        let claimed = pending[..together].iter().map(|script| script.id.claimed());
        let after: Vec<Applied> = rows.iter().cloned().chain(claimed).collect();
        let is_all = together == pending.len();
        match self.apply(session, opened, &work, &after, template).await? {
            Step::Committed(scripts) if is_all => Ok(Step::Completed(scripts)),
            step => Ok(step),
        }
    }

    /// Applies scripts in the open transaction and commits it.
    async fn apply(
        &mut self,
        session: Session,
        opened: OpenTransaction,
        work: &ScriptSelection<'_>,
        after: &[Applied],
        template: Option<&Template>,
    ) -> Result<Step, StepError> {
        let (options, target) = (&self.migrator.options, self.target);
        let (schema, table) = (&target.schema, &options.history_table);
        let templates = &self.migrator.templates;
        // The guard looked on when the template was compiled. It does so once more in a run that
        // has compared nothing yet.
        let is_proven = template.is_some() && templates.is_verified();
        let ending = match (
            self.migrator.guards(target) && !is_proven,
            self.keeps_ledger,
        ) {
            (true, true) => FinalCheck::GuardAndLedger(
                FinishCall::new(&[(opened.schema_oid, schema)], table, after),
                options.references.clone(),
            ),
            (true, false) => FinalCheck::Guard(options.references.clone()),
            (false, _) => FinalCheck::Skip,
        };
        let notices = session.forward_notices(opened.pid, self.progress);
        let mut monitor = self.lock_monitor(opened.pid);
        let worked = if let Some(template) = template {
            let template_run = TemplateRun {
                template,
                scripts: work.pending,
                schema: &target.schema,
                options,
                requires_empty: true,
                is_verified: is_proven,
            };
            let run = template_run.run(&session, &opened, &ending, self.progress);
            match monitor.during(run).await {
                Ok(worked) => {
                    templates.verify();
                    Ok(worked)
                }
                Err(unfit) => return self.unfit(session, unfit, work.pending),
            }
        } else {
            let run = refinery::run(
                &session,
                &opened,
                options,
                target,
                work,
                &ending,
                self.progress,
            );
            monitor.during(run).await
        };
        let worked = match worked {
            Ok(worked) => worked,
            Err(BatchError::LedgerMissing) => {
                session.discard();
                return Ok(self.without_ledger());
            }
            Err(error) => {
                let error = self.work_failed(error, work.pending, monitor.blockers);
                session.discard();
                return Err(error);
            }
        };
        if let Err(error) = self.stayed(worked.findings, work.pending).await {
            // The next borrower would find the transaction still open.
            session.discard();
            return Err(error);
        }
        // Alone in its message: a server that outlives us commits nothing we did not ask for.
        // What the ledger has still to be told goes in front of it, where the guard has looked
        // already; should that be refused, the server answers COMMIT with a rollback.
        let client = session.client();
        let (noted, committed) = if self.keeps_ledger && !worked.ledger_written {
            let note = ledger::note(schema, table, after);
            let both = join(client.simple_query(&note), client.simple_query("COMMIT"));
            monitor.during_commit(both).await
        } else {
            let commit = client.simple_query("COMMIT");
            (Ok(Vec::new()), monitor.during_commit(commit).await)
        };
        drop(notices);
        if let Err(error) = noted
            && !is_connection_lost(&error)
        {
            session.discard();
            if ledger::is_absent(&error) {
                return Ok(self.without_ledger());
            }
            return Err(self.work_failed(
                BatchError::Internal(error),
                work.pending,
                monitor.blockers,
            ));
        }
        match committed {
            Ok(_) => {
                self.expect_history = true;
                self.record_sample(work, opened.has_history);
                if self.interrupts.level() == Interrupt::Cancel {
                    // The request to cancel COMMIT may still be on its way.
                    session.discard();
                } else if options.route == Route::Direct && self.leaves_nothing(work) {
                    self.migrator.session_cache.keep(session, 1);
                }
                Ok(Step::Committed(worked.applied))
            }
            Err(error) if is_connection_lost(&error) => {
                session.discard();
                self.expect_history = true;
                Err(self.lost(worked.applied, server_error(&error)))
            }
            // A constraint that is checked at COMMIT.
            Err(error) => {
                session.discard();
                let error = BatchError::Script(work.pending.len() - 1, None, error);
                Err(self.work_failed(error, work.pending, monitor.blockers))
            }
        }
    }

    /// Tries scripts in the open transaction and rolls it back.
    async fn rehearse(
        &mut self,
        session: Session,
        opened: OpenTransaction,
        scripts: &[&Script],
        rehearsal: &DryRun,
    ) -> Result<Step, StepError> {
        let (options, target) = (&self.migrator.options, self.target);
        let ending = if self.migrator.guards(target) {
            FinalCheck::Guard(options.references.clone())
        } else {
            FinalCheck::Skip
        };
        let notices = session.forward_notices(opened.pid, self.progress);
        let mut monitor = self.lock_monitor(opened.pid);
        let run = dry_run::run(
            &session,
            &opened,
            options,
            target,
            scripts,
            &ending,
            self.progress,
        );
        let rehearsed = monitor.during(run).await;
        drop(notices);
        let rehearsed = match rehearsed {
            Ok(rehearsed) => rehearsed,
            Err(error) => {
                let error = self.work_failed(error, scripts, monitor.blockers);
                session.discard();
                return Err(error);
            }
        };
        let stayed = self.stayed(rehearsed.findings, scripts).await;
        self.leave(session).await;
        stayed?;
        rehearsal.add(target, scripts, rehearsed.effects);
        Ok(Step::Completed(rehearsed.applied))
    }

    /// Fails where scripts touched something outside the schema.
    async fn stayed(&self, findings: Findings, scripts: &[&Script]) -> Result<(), StepError> {
        // The transaction's locks are not held while a connection is waited for: it is retried.
        let (database, cache) = (&self.migrator.database, &self.migrator.session_cache);
        let touched =
            escape_guard::outside(database, Some(cache), &self.target.schema, findings).await;
        let touched = touched.map_err(|error| self.not_connected(error, true))?;
        if touched.is_empty() {
            return Ok(());
        }
        let scripts = scripts.iter().map(|script| script.id.reference()).collect();
        Err(MigrateError::LeftSchema { scripts, touched }.into())
    }

    /// Returns whether the session is after these scripts as it was before. Where scripts run
    /// without a transaction, connections are needed elsewhere.
    fn leaves_nothing(&self, work: &ScriptSelection<'_>) -> bool {
        let set = self.migrator.set(self.target.scope).scripts();
        set.iter()
            .all(|script| script.transaction == Transaction::Inside)
            && work.pending.iter().all(|script| script.only_defines())
    }

    /// What went well in one tenant's schema may be tried in several at once.
    fn record_sample(&self, work: &ScriptSelection<'_>, had_history: bool) {
        if self.target.scope == Scope::Tenant {
            let is_one = self.keeps_ledger && had_history && self.leaves_nothing(work);
            let scripts = if is_one { work.pending } else { &[] };
            self.migrator.sample.record(scripts);
        }
    }

    /// Somebody dropped the ledger during the run. Migrating matters more.
    fn without_ledger(&mut self) -> Step {
        self.migrator.give_up_ledger();
        self.keeps_ledger = false;
        Step::Again
    }

    /// The template did not fit, so the files are run instead.
    #[expect(
        clippy::result_large_err,
        reason = "as in the async functions around it"
    )]
    fn unfit(
        &mut self,
        session: Session,
        unfit: TemplateMismatch,
        pending: &[&Script],
    ) -> Result<Step, StepError> {
        session.discard();
        self.template = None;
        match unfit {
            TemplateMismatch::Server(error)
                if is_connection_lost(&error) || self.interrupts.level() == Interrupt::Cancel =>
            {
                return Err(self.work_failed(BatchError::Internal(error), pending, Vec::new()));
            }
            TemplateMismatch::Different => self.migrator.templates.reject(),
            TemplateMismatch::LedgerMissing => return Ok(self.without_ledger()),
            TemplateMismatch::Server(_) | TemplateMismatch::Identity => {}
        }
        Ok(Step::Again)
    }

    async fn without_transaction(
        &mut self,
        script: &Script,
        has_history: bool,
    ) -> Result<Step, StepError> {
        let direct = &self.migrator.direct;
        self.migrator.bookkeeping().await?;
        let session = direct
            .session(RECONNECT_TIMEOUT)
            .await
            .map_err(|error| self.not_connected(error, true))?;
        let mut run = non_transactional::Run {
            database: direct,
            options: &self.migrator.options,
            target: self.target,
            progress: self.progress,
            interrupts: self.interrupts.clone(),
            script,
            keeps_ledger: self.keeps_ledger,
        };
        match run.run(&session, has_history).await {
            Ok(non_transactional::Ended::Applied(applied)) => {
                session.discard();
                self.expect_history = true;
                Ok(Step::Committed(vec![applied]))
            }
            Ok(non_transactional::Ended::Busy(oid)) => Err(StepError::Busy(oid)),
            // Somebody else was faster; the next look at the history says what is left.
            Ok(non_transactional::Ended::Overtaken) => Ok(Step::Committed(Vec::new())),
            Err(non_transactional::RunError::Failed(error)) => {
                session.discard();
                Err(StepError::Refused(Stopped::Failed(error)))
            }
            Err(non_transactional::RunError::Cancelled) => {
                session.discard();
                Err(StepError::Refused(Stopped::Cancelled))
            }
            Err(non_transactional::RunError::Server(error, place, blockers)) => {
                let error = BatchError::Script(0, place, error);
                let error = self.work_failed(error, &[script], blockers);
                session.discard();
                Err(error)
            }
            // The record may be there all the same.
            Err(non_transactional::RunError::Recording(applied, error))
                if is_connection_lost(&error) =>
            {
                session.discard();
                Err(self.lost(vec![applied], server_error(&error)))
            }
            Err(
                non_transactional::RunError::Recording(_, error)
                | non_transactional::RunError::Ours(error),
            ) => {
                let error = self.work_failed(BatchError::Internal(error), &[script], Vec::new());
                session.discard();
                Err(error)
            }
        }
    }

    fn is_dry_run(&self) -> bool {
        matches!(self.migrator.mode, Mode::DryRun(_))
    }

    fn lock_monitor(&self, pid: i32) -> LockMonitor<'_> {
        LockMonitor::new(
            &self.migrator.database,
            pid,
            self.migrator.options.lock_timeout,
            self.progress,
            self.interrupts.clone(),
        )
    }

    /// Borrows a connection. `all_known` says that no COMMIT of this journey went unanswered.
    async fn session(&self, all_known: bool) -> Result<Session, StepError> {
        if let Some(session) = self.migrator.session_cache.take() {
            return Ok(session);
        }
        self.migrator
            .database
            .session_for_job(RECONNECT_TIMEOUT, &self.migrator.session_cache)
            .await
            .map_err(|error| self.not_connected(error, all_known))
    }

    fn not_connected(&self, error: ServerError, all_known: bool) -> StepError {
        let doing = format!("connecting for {}", self.target.schema);
        if !all_known {
            return MigrateError::InDoubt { doing, error }.into();
        }
        let is_full = error.has_sqlstate(sqlstate::TOO_MANY_CONNECTIONS);
        let failed = MigrateError::Database { doing, error };
        if is_full {
            // A connection may be free when another schema is done.
            contention(failed)
        } else {
            failed.into()
        }
    }

    /// Rolls back and gives the connection back, or throws it away when it will not.
    async fn leave(&self, session: Session) {
        if rollback(&session).await.is_err() {
            session.discard();
        }
    }

    fn open_failed(&mut self, session: Session, error: &Error) -> StepError {
        session.discard();
        let said = server_error(error);
        if is_connection_lost(error) {
            return self.lost(Vec::new(), said);
        }
        let failed = MigrateError::Database {
            doing: format!("entering {}", self.target.schema),
            error: said,
        };
        if is_worth_retrying(error) {
            return contention(failed);
        }
        failed.into()
    }

    fn work_failed(
        &mut self,
        error: BatchError,
        pending: &[&Script],
        blockers: Vec<Holder>,
    ) -> StepError {
        let definition = match &error {
            BatchError::Script(script, _, error) => {
                self.migrator
                    .find_definition(self.target, error, pending[*script], pending)
            }
            _ => None,
        };
        let failed = FailedAttempt {
            target: self.target,
            history_table: &self.migrator.options.history_table,
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
            // Nothing was committed: COMMIT had not been sent.
            return self.lost(Vec::new(), server_error(&error));
        }
        if is_worth_retrying(&error) {
            return contention(failed);
        }
        failed.into()
    }
}
