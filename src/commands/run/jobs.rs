//! Long work under a reporter: one job in many schemas at once, in several in turn, or in one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::app::App;
use super::command_line::command_line;
use super::reporter_task::ReporterTask;
use super::signals::{Signals, interruptible};
use crate::domain::run_options::OnFailure;
use crate::domain::schema_name::SchemaName;
use crate::domain::target::Target;
use crate::domain::tenant::Tenant;
use crate::error::{Exit, Failure};
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::event::{EventKind, Interrupt, NotStarted, Operation, Outcome, Progress};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fan_out::FanOut;
use crate::service::fleet::{Fleet, Interrupts, JobResult, JobSuccess, SchemaJob};
use crate::service::summary::{SchemaOutcome, Summary};

/// The ids of the selected tenants. A tenant of the same name that was created since has another id.
pub(crate) struct TenantIds {
    catalog: PostgresCatalog,
    ids: HashMap<SchemaName, i64>,
}

impl TenantIds {
    pub(crate) fn new(catalog: PostgresCatalog, tenants: &[Tenant]) -> Self {
        let ids = tenants.iter();
        let ids = ids.map(|tenant| (tenant.schema.clone(), tenant.id));
        Self { catalog, ids: ids.collect() }
    }

    /// Returns a job that skips tenants that were dropped in the meantime, instead of failing.
    pub(crate) fn skip_dropped<J: SchemaJob>(self, job: Arc<J>) -> Arc<SkipDropped<J>> {
        Arc::new(SkipDropped { job, tenants: self })
    }
}

/// The job that [`TenantIds::skip_dropped`] returns.
pub(crate) struct SkipDropped<J> {
    job: Arc<J>,
    tenants: TenantIds,
}

impl<J: SchemaJob> SchemaJob for SkipDropped<J> {
    async fn run(&self, target: &Target, progress: &Progress, stop: Interrupts) -> JobResult {
        let mut interrupts = stop.clone();
        let result = self.job.run(target, progress, stop).await;
        let id = self.tenants.ids.get(&target.schema);
        let (Err(_), Some(id)) = (&result, id) else {
            return result;
        };
        // A cancelled job may have left a connection behind whose statement never ends.
        tokio::select! {
            biased;
            () = interrupts.reaches(Interrupt::Cancel) => result,
            why = self.tenants.catalog.skip_reason(*id) => {
                why.map_or(result, |why| Ok(JobSuccess::Skipped(why)))
            }
        }
    }
}

/// Runs a job in every tenant, several at once; a failed tenant does not stop the others, and a
/// tenant that was dropped in the meantime is skipped.
///
/// # Errors
///
/// As [`interruptible`].
pub(crate) async fn run_in_each<J: SchemaJob>(
    app: &App,
    work: Operation,
    concurrency: ConcurrencyLimit,
    ids: TenantIds,
    job: &Arc<J>,
    targets: &[Arc<Target>],
) -> Result<Summary, Failure> {
    let (interrupter, interrupts) = Interrupts::new();
    let (reporter, progress) = ReporterTask::start(app, app.progress, None);
    let run =
        FanOut { work, fleet: Fleet { concurrency, on_failure: OnFailure::Continue, interrupts } };
    let job = ids.skip_dropped(Arc::clone(job));
    let work = run.run(&job, targets, &progress);
    let summary = interruptible(work, interrupter, progress.clone()).await?;
    drop(progress);
    let mut summary = with_commands(app, summary);
    reporter.finish(&mut summary).await;
    Ok(summary)
}

/// Returns the summary with the command lines that its hints are made of.
pub(crate) fn with_commands(app: &App, summary: Summary) -> Summary {
    Summary { command: command_line(), program: app.program.clone(), ..summary }
}

/// Runs a job in one schema after the other, and returns a result for each that was started. The
/// first signal ends the running job and starts no further one.
///
/// The command itself prints how each schema ended; the events are for `--progress json`.
pub(crate) async fn run_in_turn<T>(
    app: &App,
    work: Operation,
    targets: &[Target],
    mut job: impl AsyncFnMut(usize, Progress) -> Result<(T, String), Failure>,
) -> Result<Vec<Result<T, Failure>>, Failure> {
    let mut turns = Turns::start(app, work, targets.len())?;
    let mut results = Vec::with_capacity(targets.len());
    for (place, target) in targets.iter().enumerate() {
        let job = async |progress| job(place, progress).await;
        results.extend(turns.next(target, job).await);
    }
    turns.finish().await;
    Ok(results)
}

/// Runs a job in one schema, as [`run_in_turn`] does.
///
/// # Errors
///
/// The job's; exit 130 for a signal.
pub(crate) async fn run_in_one<T>(
    app: &App,
    work: Operation,
    target: &Target,
    job: impl AsyncFnOnce(Progress) -> Result<(T, String), Failure>,
) -> Result<T, Failure> {
    let mut turns = Turns::start(app, work, 1)?;
    let result = turns.next(target, job).await;
    turns.finish().await;
    result.unwrap_or_else(|| Err(interrupted()))
}

/// Schemas that are worked on one after the other.
struct Turns<'a> {
    app: &'a App,
    work: Operation,
    schemas: usize,
    signals: Signals,
    reporter: ReporterTask,
    progress: Progress,
    outcomes: Vec<SchemaOutcome>,
    interrupt: Interrupt,
}

impl<'a> Turns<'a> {
    fn start(app: &'a App, work: Operation, schemas: usize) -> Result<Self, Failure> {
        let signals = Signals::listen()?;
        let (reporter, progress) = ReporterTask::start(app, app.progress, None);
        progress.send(EventKind::RunStarted { work, schemas, pending: schemas, jobs: 1 });
        Ok(Self {
            app,
            work,
            schemas,
            signals,
            reporter,
            progress,
            outcomes: Vec::with_capacity(schemas),
            interrupt: Interrupt::None,
        })
    }

    /// Runs a job in the next schema; `None` after a signal.
    async fn next<T>(
        &mut self,
        target: &Target,
        job: impl AsyncFnOnce(Progress) -> Result<(T, String), Failure>,
    ) -> Option<Result<T, Failure>> {
        let target = Arc::new(target.clone());
        if self.interrupt != Interrupt::None {
            let why = NotStarted::Interrupted;
            let outcome = Outcome::NotStarted { why };
            self.outcomes.push(SchemaOutcome { target, outcome });
            return None;
        }
        let progress = self.progress.of(&target);
        progress
            .send(EventKind::SchemaStarted { number: self.outcomes.len() + 1, of: self.schemas });
        let started = Instant::now();
        let done = tokio::select! {
            done = job(progress.clone()) => done,
            () = self.signals.next() => {
                self.interrupt = Interrupt::Cancel;
                Err(interrupted())
            }
        };
        let (result, outcome) = match done {
            Ok((value, result)) => {
                let took = started.elapsed();
                (Ok(value), Outcome::Done { result, took })
            }
            Err(failure) => {
                let outcome = failed(self.work, &failure);
                (Err(failure), outcome)
            }
        };
        progress.send(EventKind::SchemaFinished { outcome: outcome.clone() });
        self.outcomes.push(SchemaOutcome { target, outcome });
        Some(result)
    }

    async fn finish(self) {
        let mut summary = Summary {
            work: self.work,
            outcomes: self.outcomes,
            took: self.progress.elapsed(),
            interrupted: self.interrupt,
            program: self.app.program.clone(),
            ..Summary::default()
        };
        drop(self.progress);
        self.reporter.finish(&mut summary).await;
    }
}

fn interrupted() -> Failure {
    Failure::words(Exit::Interrupted, "interrupted; the server rolls back what was not committed")
        .hint("run the same command again: it finishes the work, or starts it anew")
}

fn failed(work: Operation, failure: &Failure) -> Outcome {
    let error = MigrateError::Job {
        doing: work.doing.to_owned(),
        error: ServerError { message: format!("{:#}", failure.cause), ..ServerError::default() },
        hints: failure.hints.clone(),
    };
    Outcome::Failed { error: Box::new(error), applied: Vec::new() }
}
