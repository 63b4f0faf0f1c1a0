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
    let program = app.terminal.program().map(str::to_owned);
    Summary { command: command_line(), program, ..summary }
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
    let mut signals = Signals::listen()?;
    let (reporter, progress) = ReporterTask::start(app, app.progress, None);
    let of = targets.len();
    progress.send(EventKind::RunStarted { work, schemas: of, pending: of, jobs: 1 });
    let program = app.terminal.program().map(str::to_owned);
    let mut summary = Summary { work, program, ..Summary::default() };
    let mut results = Vec::with_capacity(of);
    for (place, target) in targets.iter().enumerate() {
        let target = Arc::new(target.clone());
        if summary.interrupted != Interrupt::None {
            let outcome = Outcome::NotStarted { why: NotStarted::Interrupted };
            summary.outcomes.push(SchemaOutcome { target, outcome });
            continue;
        }
        let events = progress.of(&target);
        events.send(EventKind::SchemaStarted { number: place + 1, of });
        let started = Instant::now();
        let done = tokio::select! {
            done = job(place, events.clone()) => done,
            () = signals.next() => {
                summary.interrupted = Interrupt::Cancel;
                Err(interrupted())
            }
        };
        let (result, outcome) = match done {
            Ok((value, result)) => (Ok(value), Outcome::Done { result, took: started.elapsed() }),
            Err(failure) => {
                let outcome = failed(work, &failure);
                (Err(failure), outcome)
            }
        };
        events.send(EventKind::SchemaFinished { outcome: outcome.clone() });
        summary.outcomes.push(SchemaOutcome { target, outcome });
        results.push(result);
    }
    summary.took = progress.elapsed();
    drop(progress);
    reporter.finish(&mut summary).await;
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
    let mut job = Some(job);
    let job = async |_, progress| match job.take() {
        Some(job) => job(progress).await,
        None => Err(interrupted()),
    };
    let results = run_in_turn(app, work, std::slice::from_ref(target), job).await?;
    results.into_iter().next().unwrap_or_else(|| Err(interrupted()))
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
