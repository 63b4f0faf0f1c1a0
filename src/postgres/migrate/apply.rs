//! Applies scripts in the open transaction of a schema and commits it.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use futures_util::FutureExt as _;
use futures_util::future::join;

use super::context::Mode;
use super::dry_run::{self, DryRun};
use super::refinery::{self, ScriptSelection};
use super::schema::{SchemaMigration, Step, StepError};
use super::template::{TemplateMismatch, TemplateRun};
use crate::domain::applied::Applied;
use crate::domain::run_options::Atomic;
use crate::domain::script::Scope;
use crate::migrations::{Script, Timeout, Transaction, UNBOUNDED_LOCK};
use crate::postgres::connection::database::Route;
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::batch::{BatchError, BatchOutcome};
use crate::postgres::transaction::escape_guard::{self, Findings};
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::ledger::{self, FinishCall};
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::open::OpenTransaction;
use crate::postgres::transaction::settings::own_timeout;
use crate::service::event::Interrupt;

impl<'a> SchemaMigration<'a> {
    /// Applies as many of the pending scripts as share a transaction, and commits it.
    pub(super) async fn apply(
        &mut self,
        session: Session,
        opened: OpenTransaction,
        pending: &[&Script],
    ) -> Result<Step, StepError> {
        let context = self.context;
        let fake = context.mode.only_records();
        let inside = if fake {
            pending.len()
        } else {
            context.boundaries.in_one_transaction(self.target.scope, pending)
        };
        if let Mode::DryRun(dry_run) = &context.mode {
            dry_run.leave_out(self.target, &pending[inside..]);
            return self.dry_run(session, opened, &pending[..inside], dry_run).await;
        }
        let now = match context.options.atomic {
            Atomic::Schema => &pending[..inside],
            Atomic::Migration => &pending[..1],
        };
        let rows = opened.history.as_deref().unwrap_or_default();
        // refinery must not see what a later transaction applies or what lies beyond the goal.
        let now_versions = now.iter().map(|script| script.id.version);
        let versions: HashSet<i64> =
            rows.iter().map(|row| row.version).chain(now_versions).collect();
        let set = context.set(self.target.scope).scripts().iter();
        let scripts: Vec<&Script> =
            set.filter(|script| versions.contains(&script.id.version)).collect();
        let selection = ScriptSelection { scripts: &scripts, pending: now, fake };
        let claimed = now.iter().map(|script| script.id.claimed());
        let after: Vec<Applied> = rows.iter().cloned().chain(claimed).collect();
        match self.commit(session, opened, &selection, &after).await? {
            Step::Committed(scripts) if now.len() == pending.len() => Ok(Step::Completed(scripts)),
            step => Ok(step),
        }
    }

    /// Runs the selected scripts and commits. `after` is the history with them.
    async fn commit(
        &mut self,
        session: Session,
        opened: OpenTransaction,
        selection: &ScriptSelection<'_>,
        after: &[Applied],
    ) -> Result<Step, StepError> {
        let notices = session.forward_notices(opened.pid, self.progress);
        let mut monitor = self.lock_monitor(opened.pid);
        let pending = selection.pending;
        let run = self.run_scripts(&session, &opened, selection, after, &mut monitor);
        let outcome = match run.await {
            ControlFlow::Continue(outcome) => outcome,
            ControlFlow::Break(step) => {
                session.discard();
                return step;
            }
        };
        if let Err(error) = self.check_findings(outcome.findings, pending).await {
            // Returned to the pool, its transaction would still be open.
            session.discard();
            return Err(error);
        }
        // COMMIT is a message of its own, so that the server never commits without having been asked to.
        // If the ledger's row in front of it is refused, the server answers COMMIT with a rollback.
        let client = session.client();
        let (recorded, committed) = if self.keeps_ledger && !outcome.ledger_written {
            let (schema, table) = (&self.target.schema, &self.context.options.history_table);
            let note = ledger::note(schema, table, after);
            let both = join(client.simple_query(&note), client.simple_query("COMMIT"));
            monitor.during_commit(both).await
        } else {
            let commit = client.simple_query("COMMIT");
            (Ok(Vec::new()), monitor.during_commit(commit).await)
        };
        drop(notices);
        let error = match (recorded, committed) {
            (Err(error), _) if !is_connection_lost(&error) => {
                session.discard();
                if ledger::is_absent(&error) {
                    return Ok(self.without_ledger());
                }
                let error = BatchError::Internal(error);
                return Err(self.batch_failed(error, pending, monitor.blockers));
            }
            (_, Ok(_)) => {
                self.keep_session(session, selection, opened.has_history);
                return Ok(Step::Committed(outcome.applied));
            }
            (_, Err(error)) => error,
        };
        session.discard();
        if is_connection_lost(&error) {
            self.expect_history = true;
            return Err(self.lost(outcome.applied, server_error(&error)));
        }
        // A constraint that is checked at COMMIT.
        let error = BatchError::Script(pending.len() - 1, None, error);
        Err(self.batch_failed(error, pending, monitor.blockers))
    }

    /// Runs the scripts, or the template instead of them, and the final check. Breaks if the
    /// transaction must not be committed.
    async fn run_scripts(
        &mut self,
        session: &Session,
        opened: &OpenTransaction,
        selection: &ScriptSelection<'_>,
        after: &[Applied],
        monitor: &mut LockMonitor<'_>,
    ) -> ControlFlow<Result<Step, StepError>, BatchOutcome> {
        let (context, target, progress) = (self.context, self.target, self.progress);
        let is_new = !opened.has_history && after.len() == selection.pending.len();
        let template = self.template.filter(|_| is_new);
        // The guard checked the template when it was compiled. It checks once more in a run that has not
        // compared a fingerprint yet.
        let is_verified = template.is_some() && context.templates.is_verified();
        let check = self.final_check(opened, after, is_verified);
        let outcome = if let Some(template) = template {
            let template_run = TemplateRun {
                template,
                scripts: selection.pending,
                schema: &target.schema,
                options: &context.options,
                requires_empty: true,
                is_verified,
            };
            let run = template_run.run(session, opened, &check, progress);
            match monitor.during(run).await {
                Ok(outcome) => {
                    context.templates.verify();
                    Ok(outcome)
                }
                Err(mismatch) => {
                    return ControlFlow::Break(self.template_failed(mismatch, selection.pending));
                }
            }
        } else {
            if !selection.fake {
                self.report_kept_timeouts(selection.pending);
            }
            let options = &context.options;
            let run = refinery::run(session, opened, options, target, selection, &check, progress);
            monitor.during(run).await
        };
        match outcome {
            Ok(outcome) => ControlFlow::Continue(outcome),
            Err(BatchError::LedgerMissing) => ControlFlow::Break(Ok(self.without_ledger())),
            Err(error) if context.boundaries.learn(target.scope, selection.pending, &error) => {
                ControlFlow::Break(Ok(Step::Again))
            }
            Err(error) => {
                let blockers = std::mem::take(&mut monitor.blockers);
                ControlFlow::Break(Err(self.batch_failed(error, selection.pending, blockers)))
            }
        }
    }

    /// Warns, once in a run, of each file that switches a timeout off whose limit the run keeps.
    pub(super) fn report_kept_timeouts(&self, scripts: &[&Script]) {
        let has_limit =
            |timeout| own_timeout(&self.context.options, timeout).is_some_and(|own| own != "0");
        for script in scripts {
            let kept = script.switched_off.iter().filter(|it| !it.is_default);
            let kept = kept.map(|it| it.timeout).filter(|timeout| has_limit(*timeout));
            let kept: BTreeSet<&str> = kept.map(Timeout::setting).collect();
            if !kept.is_empty() {
                let kept: Vec<&str> = kept.into_iter().collect();
                self.progress.warn_once(format!(
                    "{} switches off {}, but the run keeps its own limit [{UNBOUNDED_LOCK}]",
                    script.path.display(),
                    kept.join(", ")
                ));
            }
        }
    }

    fn final_check(
        &self,
        opened: &OpenTransaction,
        after: &[Applied],
        is_verified: bool,
    ) -> FinalCheck {
        let options = &self.context.options;
        if is_verified || !self.context.guards(self.target) {
            return FinalCheck::Skip;
        }
        let rules = options.guard_rules.clone();
        if !self.keeps_ledger {
            return FinalCheck::Guard(rules);
        }
        let schemas = [(opened.schema_oid, &self.target.schema)];
        let finish = FinishCall::new(&schemas, &options.history_table, after);
        FinalCheck::GuardAndLedger(finish, rules)
    }

    /// Runs scripts in the open transaction, records their effects and rolls back.
    async fn dry_run(
        &mut self,
        session: Session,
        opened: OpenTransaction,
        scripts: &[&Script],
        report: &DryRun,
    ) -> Result<Step, StepError> {
        let (context, target, progress) = (self.context, self.target, self.progress);
        let options = &context.options;
        let check = if context.guards(target) {
            FinalCheck::Guard(options.guard_rules.clone())
        } else {
            FinalCheck::Skip
        };
        self.report_kept_timeouts(scripts);
        let notices = session.forward_notices(opened.pid, progress);
        let mut monitor = self.lock_monitor(opened.pid);
        let run = dry_run::run(&session, &opened, options, target, scripts, &check, progress);
        let outcome = monitor.during(run).await;
        drop(notices);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                session.discard();
                if context.boundaries.learn(target.scope, scripts, &error) {
                    return Ok(Step::Again);
                }
                return Err(self.batch_failed(error, scripts, monitor.blockers));
            }
        };
        let checked = self.check_findings(outcome.findings, scripts).await;
        free_locks(&session);
        self.finish(session).await;
        checked?;
        report.add(target, scripts, outcome.effects);
        Ok(Step::Completed(outcome.applied))
    }

    /// Fails if scripts changed anything outside the schema.
    async fn check_findings(
        &self,
        findings: Findings,
        scripts: &[&Script],
    ) -> Result<(), StepError> {
        let (database, cache) = (&self.context.database, &self.context.session_cache);
        let schema = &self.target.schema;
        let touched = escape_guard::outside(database, Some(cache), schema, findings).await;
        // Without a second connection the transaction is retried, because its locks block others.
        let touched = touched.map_err(|error| self.not_connected(error, true))?;
        if touched.is_empty() {
            return Ok(());
        }
        Err(touched.into_error(scripts).into())
    }

    /// Records the sample, and keeps the session of a committed transaction for the next schema if that
    /// is safe.
    fn keep_session(
        &mut self,
        session: Session,
        selection: &ScriptSelection<'_>,
        had_history: bool,
    ) {
        self.expect_history = true;
        // Files that run without a transaction need connections elsewhere.
        let mut set = self.context.set(self.target.scope).scripts().iter();
        let only_defines = selection.pending.iter().all(|script| script.only_defines());
        let leaves_session_unchanged =
            only_defines && set.all(|script| script.transaction == Transaction::Inside);
        if self.target.scope == Scope::Tenant {
            let is_sample = self.keeps_ledger && had_history && leaves_session_unchanged;
            let scripts = if is_sample { selection.pending } else { &[] };
            self.context.sample.record(scripts);
        }
        if self.interrupts.level() == Interrupt::Cancel {
            // The request to cancel COMMIT may still be on its way.
            session.discard();
        } else if !only_defines && self.context.options.route == Route::Pooled {
            // A pooler that keeps sessions apart frees what a transaction cannot: channels, locks.
            session.discard();
        } else if !only_defines {
            free_locks(&session);
        } else if leaves_session_unchanged && self.context.options.route == Route::Direct {
            self.context.session_cache.keep(session, 1);
        }
    }

    /// Continues without the ledger, which was dropped during the run.
    fn without_ledger(&mut self) -> Step {
        self.context.ledger.disable();
        self.keeps_ledger = false;
        Step::Again
    }

    /// Runs the files instead of the template, unless the error is not the template's.
    #[expect(clippy::result_large_err, reason = "as in the async functions around it")]
    fn template_failed(
        &mut self,
        mismatch: TemplateMismatch,
        pending: &[&Script],
    ) -> Result<Step, StepError> {
        self.template = None;
        match mismatch {
            TemplateMismatch::Server(error)
                if is_connection_lost(&error) || self.interrupts.level() == Interrupt::Cancel =>
            {
                return Err(self.batch_failed(BatchError::Internal(error), pending, Vec::new()));
            }
            TemplateMismatch::Different => self.context.templates.reject(),
            TemplateMismatch::LedgerMissing => return Ok(self.without_ledger()),
            TemplateMismatch::Server(_) | TemplateMismatch::Identity => {}
        }
        Ok(Step::Again)
    }

    fn lock_monitor(&self, pid: i32) -> LockMonitor<'a> {
        LockMonitor::new(
            &self.context.database,
            pid,
            self.context.options.lock_timeout,
            self.progress,
            self.interrupts.clone(),
        )
    }
}

/// Frees the advisory locks that scripts took for the session, without waiting for the reply. Its next
/// user would free them too, but other schemas wait for them meanwhile.
fn free_locks(session: &Session) {
    let free = "SELECT pg_catalog.pg_advisory_unlock_all()";
    // The first poll sends the message.
    let _ = session.client().simple_query(free).now_or_never();
}
