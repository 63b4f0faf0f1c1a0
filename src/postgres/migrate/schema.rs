//! One schema on its way to the goal: lock, look, plan, apply, commit; again where a lock, a
//! deadlock or a lost connection was in the way.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio_postgres::Error;

use super::dry_run::{self, Rehearsal};
use super::migrator::{Mode, PostgresMigrator};
use super::non_transactional;
use super::refinery::{self, Work};
use super::template::{Applying, Template, Unfit};
use crate::domain::applied::Applied;
use crate::domain::applied::AppliedScript;
use crate::domain::plan::Plan;
use crate::domain::run_options::Atomic;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::{Script, Transaction};
use crate::postgres::connection::database::{Route, no_second_session};
use crate::postgres::connection::options::{
    RECONNECT_TIMEOUT, REPORT_INTERVAL, SECOND_SESSION_TIMEOUT,
};
use crate::postgres::connection::server_error::{
    error_in, is_connection_lost, is_worth_retrying, server_error, sqlstate_of,
};
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::advisory_lock;
use crate::postgres::transaction::batch::{Ending, WorkError};
use crate::postgres::transaction::escape_guard::{self, Touched};
use crate::postgres::transaction::history;
use crate::postgres::transaction::ledger::{self, Finish};
use crate::postgres::transaction::lock_monitor::Attendance;
use crate::postgres::transaction::open::{Opened, Opening, open, rollback};
use crate::service::event::{EventKind, Interrupt, Progress, Skipped};
use crate::service::failure::{Holder, MigrateError, ServerError};
use crate::service::fleet::Interrupts;

/// One schema on its way to the goal.
pub(crate) struct Journey<'a> {
    pub(crate) migrator: &'a PostgresMigrator,
    pub(crate) target: &'a Target,
    pub(crate) progress: &'a Progress,
    pub(crate) interrupts: Interrupts,
    /// What this run has committed in the schema.
    pub(crate) committed: Vec<AppliedScript>,
    pub(crate) expect_history: bool,
    pub(crate) attempt: u32,
    /// Whether what is committed is noted in the ledger.
    pub(crate) keeps_ledger: bool,
    /// What fills the schema if it is empty; given up after it did not fit once.
    pub(crate) template: Option<&'a Template>,
}

/// How one transaction ended.
enum Step {
    /// Committed; there may be more to do.
    Committed(Vec<AppliedScript>),
    /// Committed, and with it everything that was pending.
    Arrived(Vec<AppliedScript>),
    /// Nothing is pending any more.
    Finished,
    /// The tenant is gone, or going.
    Gone(Skipped),
    /// The lock is taken by somebody else; holds the schema's oid.
    Busy(u32),
    /// Rolled back for a reason that is gone by now.
    Again,
}

/// Why one transaction did not end well.
enum StepError {
    /// Running it again may help.
    Retry(Box<MigrateError>),
    /// The connection broke. Whether these scripts are committed must be read from the history.
    Lost(Vec<AppliedScript>, Box<ServerError>),
    /// The second interrupt cancelled it.
    Cancelled,
    /// Running it again will not help.
    Fatal(Box<MigrateError>),
}

impl From<MigrateError> for StepError {
    fn from(error: MigrateError) -> Self {
        Self::Fatal(Box::new(error))
    }
}

impl Journey<'_> {
    /// Steps until nothing is pending; returns why the schema was passed over, if it was.
    pub(crate) async fn travel(&mut self) -> Result<Option<Skipped>, Box<MigrateError>> {
        let begun = Instant::now();
        // Before this schema takes a connection: everybody may need this at once.
        self.keeps_ledger = !self.is_dry_run() && self.migrator.keeps_ledger(self.progress).await;
        let mut told = None;
        let mut in_doubt: Vec<AppliedScript> = Vec::new();
        loop {
            match self.step(&mut in_doubt).await {
                Ok(Step::Finished) => return Ok(None),
                Ok(Step::Gone(why)) => return Ok(Some(why)),
                Ok(Step::Arrived(scripts)) => {
                    self.committed.extend(scripts);
                    return Ok(None);
                }
                Ok(Step::Committed(scripts)) => {
                    self.committed.extend(scripts);
                    self.attempt = 0;
                }
                Ok(Step::Again) => {}
                Ok(Step::Busy(oid)) => self.wait_for_lock(oid, begun, &mut told).await?,
                Err(StepError::Fatal(error)) => return Err(error),
                Err(StepError::Cancelled) => return Ok(Some(Skipped::Interrupted)),
                Err(StepError::Retry(error)) => self.pause_before_retry(error).await?,
                Err(StepError::Lost(scripts, error)) => {
                    self.migrator.session_cache.clear();
                    // What was in doubt already still is: nobody has read the history since.
                    in_doubt.extend(scripts);
                    self.attempt += 1;
                    if self.attempt > self.migrator.options.lock_retries.max(1) {
                        let doing = format!("migrating {}", self.target.schema);
                        let error = *error;
                        return Err(Box::new(MigrateError::InDoubt { doing, error }));
                    }
                }
            }
            if self.interrupts.level() == Interrupt::Cancel {
                return Ok(Some(Skipped::Interrupted));
            }
        }
    }

    /// One transaction, or one script without a transaction.
    async fn step(&mut self, in_doubt: &mut Vec<AppliedScript>) -> Result<Step, StepError> {
        let (options, target) = (&self.migrator.options, self.target);
        let fake = self.migrator.mode.only_records();
        let session = self.session(in_doubt.is_empty()).await?;
        let opened = match open(&session, options, target, self.expect_history).await {
            Ok(opening) => opening,
            Err(error) => return Err(self.open_failed(session, &error)),
        };
        let opened = match opened {
            Opening::Ready(opened) => opened,
            Opening::Busy(oid) => return Ok(Step::Busy(oid)),
            Opening::NoTenant => return Ok(Step::Gone(Skipped::Dropped)),
            Opening::Dropping => return Ok(Step::Gone(Skipped::Dropping)),
            Opening::NoSchema => return Err(MigrateError::SchemaMissing.into()),
            Opening::NotUsable(role) => {
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
            Opening::Expect(history) => {
                self.expect_history = history;
                let last_was_new = &self.migrator.last_was_new;
                last_was_new.store(!history, std::sync::atomic::Ordering::Relaxed);
                // Whoever holds a connection while asking for another may wait for himself.
                drop(session);
                return Box::pin(self.step(in_doubt)).await;
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
        // Scripts whose COMMIT was never answered are applied if the history says so.
        let found: Vec<AppliedScript> = std::mem::take(in_doubt)
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
            return Ok(Step::Finished);
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
                return Ok(Step::Gone(Skipped::NoTransaction));
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
        let work = Work {
            scripts: &scripts,
            pending: &pending[..together],
            fake,
        };
        let claimed = pending[..together].iter().map(|script| script.id.claimed());
        let after: Vec<Applied> = rows.iter().cloned().chain(claimed).collect();
        let is_all = together == pending.len();
        match self.apply(session, opened, &work, &after, template).await? {
            Step::Committed(scripts) if is_all => Ok(Step::Arrived(scripts)),
            step => Ok(step),
        }
    }

    /// Applies scripts in the open transaction and commits it.
    async fn apply(
        &mut self,
        session: Session,
        opened: Opened,
        work: &Work<'_>,
        after: &[Applied],
        template: Option<&Template>,
    ) -> Result<Step, StepError> {
        let (options, target) = (&self.migrator.options, self.target);
        let (schema, table) = (&target.schema, &options.history_table);
        let templates = &self.migrator.templates;
        // The guard looked on when the template was compiled. It does so once more in a run that
        // has compared nothing yet.
        let is_proven = template.is_some() && !templates.is_unproven();
        let ending = match (
            self.migrator.guards(target) && !is_proven,
            self.keeps_ledger,
        ) {
            (true, true) => Ending::Noted(
                Finish::new(&[(opened.schema_oid, schema)], table, after),
                options.references.clone(),
            ),
            (true, false) => Ending::Guarded(options.references.clone()),
            (false, _) => Ending::Unguarded,
        };
        let notices = session.forward_notices(opened.pid, self.progress);
        let mut attendance = self.attend(opened.pid);
        let worked = if let Some(template) = template {
            let applying = Applying {
                template,
                scripts: work.pending,
                schema: &target.schema,
                options,
                may_be_filled: true,
                proven: is_proven,
            };
            let run = applying.run(&session, &opened, &ending, self.progress);
            match attendance.during(run).await {
                Ok(worked) => {
                    templates.prove();
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
            attendance.during(run).await
        };
        let worked = match worked {
            Ok(worked) => worked,
            Err(WorkError::NoLedger) => {
                session.discard();
                return Ok(self.without_ledger());
            }
            Err(error) => {
                let error = self.work_failed(error, work.pending, attendance.blockers);
                session.discard();
                return Err(error);
            }
        };
        if let Err(error) = self.stayed(worked.touched, work.pending).await {
            // The next borrower would find the transaction still open.
            session.discard();
            return Err(error);
        }
        // Alone in its message: a server that outlives us commits nothing we did not ask for.
        // What the ledger has still to be told goes in front of it, where the guard has looked
        // already; should that be refused, the server answers COMMIT with a rollback.
        let client = session.client();
        let (noted, committed) = if self.keeps_ledger && !worked.noted {
            let note = ledger::note(schema, table, after);
            let both = join(client.simple_query(&note), client.simple_query("COMMIT"));
            attendance.during_commit(both).await
        } else {
            let commit = client.simple_query("COMMIT");
            (Ok(Vec::new()), attendance.during_commit(commit).await)
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
                WorkError::Ours(error),
                work.pending,
                attendance.blockers,
            ));
        }
        match committed {
            Ok(_) => {
                self.expect_history = true;
                self.set_an_example(work, opened.has_history);
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
                Err(StepError::Lost(
                    worked.applied,
                    Box::new(server_error(&error)),
                ))
            }
            // A constraint that is checked at COMMIT.
            Err(error) => {
                session.discard();
                let error = WorkError::Script(work.pending.len() - 1, None, error);
                Err(self.work_failed(error, work.pending, attendance.blockers))
            }
        }
    }

    /// Tries scripts in the open transaction and rolls it back.
    async fn rehearse(
        &self,
        session: Session,
        opened: Opened,
        scripts: &[&Script],
        rehearsal: &Rehearsal,
    ) -> Result<Step, StepError> {
        let (options, target) = (&self.migrator.options, self.target);
        let ending = if self.migrator.guards(target) {
            Ending::Guarded(options.references.clone())
        } else {
            Ending::Unguarded
        };
        let notices = session.forward_notices(opened.pid, self.progress);
        let mut attendance = self.attend(opened.pid);
        let run = dry_run::run(
            &session,
            &opened,
            options,
            target,
            scripts,
            &ending,
            self.progress,
        );
        let rehearsed = attendance.during(run).await;
        drop(notices);
        let rehearsed = match rehearsed {
            Ok(rehearsed) => rehearsed,
            Err(error) => {
                let error = self.work_failed(error, scripts, attendance.blockers);
                session.discard();
                return Err(error);
            }
        };
        let stayed = self.stayed(rehearsed.touched, scripts).await;
        self.leave(session).await;
        stayed?;
        rehearsal.keep(target, scripts, rehearsed.observed);
        Ok(Step::Arrived(rehearsed.applied))
    }

    /// Fails where scripts touched something outside the schema.
    async fn stayed(&self, mut touched: Touched, scripts: &[&Script]) -> Result<(), StepError> {
        if touched.is_open() {
            let seen = self.seen_by_others(&touched).await?;
            touched.outside.extend(seen);
        }
        let touched = touched.outside;
        if touched.is_empty() {
            return Ok(());
        }
        let scripts = scripts.iter().map(|script| script.id.reference()).collect();
        Err(MigrateError::LeftSchema { scripts, touched }.into())
    }

    /// Returns whether the session is after these scripts as it was before. Where scripts run
    /// without a transaction, connections are needed elsewhere.
    fn leaves_nothing(&self, work: &Work<'_>) -> bool {
        let set = self.migrator.set(self.target.scope).scripts();
        set.iter()
            .all(|script| script.transaction == Transaction::Inside)
            && work.pending.iter().all(|script| script.only_defines())
    }

    /// What went well in one tenant's schema may be tried in several at once.
    fn set_an_example(&self, work: &Work<'_>, had_history: bool) {
        if self.target.scope == Scope::Tenant {
            let is_one = self.keeps_ledger && had_history && self.leaves_nothing(work);
            let scripts = if is_one { work.pending } else { &[] };
            self.migrator.example.set(scripts);
        }
    }

    /// Somebody dropped the ledger during the run. Migrating matters more.
    fn without_ledger(&mut self) -> Step {
        self.migrator.give_up_ledger();
        self.keeps_ledger = false;
        Step::Again
    }

    /// The template did not fit, so the files are run instead.
    fn unfit(
        &mut self,
        session: Session,
        unfit: Unfit,
        pending: &[&Script],
    ) -> Result<Step, StepError> {
        session.discard();
        self.template = None;
        match unfit {
            Unfit::Server(error)
                if is_connection_lost(&error) || self.interrupts.level() == Interrupt::Cancel =>
            {
                return Err(self.work_failed(WorkError::Ours(error), pending, Vec::new()));
            }
            Unfit::Different => self.migrator.templates.refute(),
            Unfit::NoLedger => return Ok(self.without_ledger()),
            Unfit::Server(_) | Unfit::Identity => {}
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
            Ok(non_transactional::Ended::Busy(oid)) => Ok(Step::Busy(oid)),
            // Somebody else was faster; the next look at the history says what is left.
            Ok(non_transactional::Ended::Overtaken) => Ok(Step::Committed(Vec::new())),
            Err(non_transactional::RunError::Failed(error)) => {
                session.discard();
                Err(StepError::Fatal(error))
            }
            Err(non_transactional::RunError::Cancelled) => {
                session.discard();
                Err(StepError::Cancelled)
            }
            Err(non_transactional::RunError::Server(error, place, blockers)) => {
                let error = WorkError::Script(0, place, error);
                let error = self.work_failed(error, &[script], blockers);
                session.discard();
                Err(error)
            }
            // The record may be there all the same.
            Err(non_transactional::RunError::Recording(applied, error))
                if is_connection_lost(&error) =>
            {
                session.discard();
                Err(StepError::Lost(
                    vec![applied],
                    Box::new(server_error(&error)),
                ))
            }
            Err(
                non_transactional::RunError::Recording(_, error)
                | non_transactional::RunError::Ours(error),
            ) => {
                let error = self.work_failed(WorkError::Ours(error), &[script], Vec::new());
                session.discard();
                Err(error)
            }
        }
    }

    fn is_dry_run(&self) -> bool {
        matches!(self.migrator.mode, Mode::DryRun(_))
    }

    fn attend(&self, pid: i32) -> Attendance<'_> {
        Attendance::new(
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
        let failed = Box::new(MigrateError::Database { doing, error });
        if is_full {
            // There may be a place when another schema is done.
            StepError::Retry(failed)
        } else {
            StepError::Fatal(failed)
        }
    }

    /// Rolls back and gives the connection back, or throws it away when it will not.
    async fn leave(&self, session: Session) {
        if rollback(&session).await.is_err() {
            session.discard();
        }
    }

    async fn seen_by_others(&self, touched: &Touched) -> Result<Vec<String>, StepError> {
        // Others queue for what this transaction has locked: rather than waiting it is rolled back
        // and run again, which pauses without locks.
        let other = if let Some(session) = self.migrator.session_cache.take() {
            session
        } else {
            let session = self.migrator.database.second_session().await;
            session.map_err(|error| self.not_connected(error, true))?
        };
        // A pooler takes a connection also while it has no session of the server for it.
        let answered = tokio::time::timeout(SECOND_SESSION_TIMEOUT, other.rows("SELECT 1")).await;
        if answered.is_err() {
            other.discard();
            return Err(self.not_connected(no_second_session(), true));
        }
        let seen = escape_guard::seen_by_others(&other, &self.target.schema, touched).await;
        seen.map_err(|error| {
            MigrateError::Database {
                doing: "looking at what was touched outside the schema".to_owned(),
                error: server_error(&error),
            }
            .into()
        })
    }

    fn open_failed(&self, session: Session, error: &Error) -> StepError {
        session.discard();
        let said = server_error(error);
        if is_connection_lost(error) {
            return StepError::Lost(Vec::new(), Box::new(said));
        }
        let failed = MigrateError::Database {
            doing: format!("entering {}", self.target.schema),
            error: said,
        };
        if is_worth_retrying(error) {
            return StepError::Retry(Box::new(failed));
        }
        StepError::Fatal(Box::new(failed))
    }

    fn work_failed(
        &self,
        error: WorkError,
        pending: &[&Script],
        blockers: Vec<Holder>,
    ) -> StepError {
        let (failed, error) = match error {
            WorkError::Identity(script, why) => {
                let scripts = vec![pending[script].id.reference()];
                return MigrateError::LeftTransaction { scripts, why }.into();
            }
            WorkError::Script(script, place, error) => {
                let script = pending[script];
                let mut said = error_in(&script.text, &error);
                said.defined_in =
                    self.migrator
                        .find_definition(self.target, &error, script, pending);
                let failed = MigrateError::Script {
                    script: script.id.reference(),
                    file: script.path.display().to_string(),
                    place,
                    error: said,
                    blockers,
                    attempts: self.attempt + 1,
                    rolled_back: script.transaction == Transaction::Inside,
                };
                (failed, error)
            }
            WorkError::NoLedger => unreachable!("the step is taken again without it"),
            WorkError::Ours(error) => {
                let mut said = server_error(&error);
                if sqlstate_of(&error) == Some(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE) {
                    let table = &self.migrator.options.history_table;
                    said.hint = Some(format!(
                        "the history was made for short versions; widen it: ALTER TABLE {} ALTER COLUMN version TYPE bigint",
                        history::qualified(&self.target.schema, table)
                    ));
                }
                let failed = MigrateError::Database {
                    doing: format!("recording migrations in {}", self.target.schema),
                    error: said,
                };
                (failed, error)
            }
        };
        if self.interrupts.level() == Interrupt::Cancel {
            return StepError::Cancelled;
        }
        if is_connection_lost(&error) {
            // Nothing was committed: COMMIT had not been sent.
            return StepError::Lost(Vec::new(), Box::new(server_error(&error)));
        }
        if is_worth_retrying(&error) {
            return StepError::Retry(Box::new(failed));
        }
        StepError::Fatal(Box::new(failed))
    }

    /// Sleeps before the next attempt, or returns the error when there is none left.
    async fn pause_before_retry(
        &mut self,
        error: Box<MigrateError>,
    ) -> Result<(), Box<MigrateError>> {
        self.attempt += 1;
        let limit = self.migrator.options.lock_retries + 1;
        if self.attempt >= limit || self.interrupts.level() > Interrupt::None {
            return Err(error);
        }
        let (said, blockers) = match &*error {
            MigrateError::Script {
                error, blockers, ..
            } => (error.clone(), blockers.clone()),
            MigrateError::Database { error, .. } => (error.clone(), Vec::new()),
            _ => (ServerError::default(), Vec::new()),
        };
        let pause = jittered(Duration::from_millis(100) * 2_u32.pow(self.attempt.min(6)));
        self.progress.send(EventKind::Retrying {
            attempt: self.attempt,
            limit,
            error: said,
            blockers,
            pause,
        });
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = interrupts.reaches(Interrupt::Drain) => Err(error),
        }
    }

    /// Sleeps before the lock is tried again, or gives up when `lock_wait` has passed.
    async fn wait_for_lock(
        &mut self,
        oid: u32,
        begun: Instant,
        told: &mut Option<Instant>,
    ) -> Result<(), Box<MigrateError>> {
        let waited = begun.elapsed();
        let give_up =
            waited >= self.migrator.options.lock_wait || self.interrupts.level() > Interrupt::None;
        if give_up || told.is_none_or(|told| told.elapsed() >= REPORT_INTERVAL) {
            let session = self.migrator.database.session(RECONNECT_TIMEOUT).await;
            let holder = match session {
                Ok(session) => advisory_lock::holder(&session, oid).await.ok().flatten(),
                Err(_) => None,
            };
            if give_up {
                return Err(Box::new(MigrateError::Locked { holder, waited }));
            }
            *told = Some(Instant::now());
            self.progress
                .send(EventKind::WaitingForLock { holder, waited });
        }
        let mut interrupts = self.interrupts.clone();
        let left = self.migrator.options.lock_wait.saturating_sub(waited);
        let pause = jittered(Duration::from_millis(200)).min(left);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = interrupts.reaches(Interrupt::Drain) => {}
        }
        Ok(())
    }
}

/// Half of a time, and up to the whole of it by chance, so that sessions that collided do not collide again.
pub(crate) fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let chance = RandomState::new().hash_one(Instant::now()) % 1000;
    pause / 2 + pause * u32::try_from(chance).unwrap_or_default() / 2000
}
