//! Long work under a reporter: one job in many schemas at once, in several in turn, or in one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::app::App;
use super::command_line::command_line;
use super::reporter_task::ReporterTask;
use super::signals::{Cancellation, interruptible};
use crate::domain::run_options::OnFailure;
use crate::domain::schema_name::SchemaName;
use crate::domain::target::Target;
use crate::domain::tenant::{Tenant, TenantId};
use crate::error::Failure;
use crate::postgres::connection::database::Database;
use crate::postgres::tenants::admin::TenantAdmin;
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
    ids: HashMap<SchemaName, TenantId>,
}

impl TenantIds {
    pub(crate) fn new(catalog: PostgresCatalog, tenants: &[Tenant]) -> Self {
        let ids = tenants.iter();
        let ids = ids.map(|tenant| (tenant.schema.clone(), tenant.id.clone()));
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
            why = self.tenants.catalog.skip_reason(id) => {
                why.map_or(result, |why| Ok(JobSuccess::Skipped(why)))
            }
        }
    }
}

/// Runs a job in every tenant, several at once; a failed tenant does not stop the others, and a
/// tenant that was dropped in the meantime is skipped.
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

/// Runs a change of one schema after the other, and returns a result for each that was started. The
/// first signal cancels the running one and starts no further one.
///
/// The command itself prints how each schema ended; the events are for `--progress json`.
pub(crate) async fn run_in_turn<T>(
    app: &App,
    database: &Database,
    work: Operation,
    targets: &[Target],
    mut change: impl AsyncFnMut(usize, TenantAdmin) -> Result<(T, String), Failure>,
) -> Result<Vec<Result<T, Failure>>, Failure> {
    let mut cancellation = Cancellation::listen()?;
    let (reporter, progress) = ReporterTask::start(app, app.progress, None);
    let schemas = targets.len();
    progress.send(EventKind::RunStarted { work, schemas, pending: schemas, jobs: 1 });
    let mut outcomes = Vec::with_capacity(schemas);
    let mut results = Vec::with_capacity(schemas);
    for (place, target) in targets.iter().enumerate() {
        let target = Arc::new(target.clone());
        if cancellation.interrupts.level() != Interrupt::None {
            let outcome = Outcome::NotStarted { why: NotStarted::Interrupted };
            outcomes.push(SchemaOutcome { target, outcome });
            continue;
        }
        let progress = progress.of(&target);
        progress.send(EventKind::SchemaStarted { number: place + 1, of: schemas });
        let started = Instant::now();
        let admin = app.admin(database, progress.clone(), cancellation.interrupts.clone());
        let done = cancellation.run(Box::pin(change(place, admin))).await;
        let (result, outcome) = match done.and_then(|done| done) {
            Ok((value, result)) => (Ok(value), Outcome::Done { result, took: started.elapsed() }),
            Err(failure) => {
                let outcome = failed(work, &failure);
                (Err(failure), outcome)
            }
        };
        progress.send(EventKind::SchemaFinished { outcome: outcome.clone() });
        outcomes.push(SchemaOutcome { target, outcome });
        results.push(result);
    }
    let mut summary = Summary {
        work,
        outcomes,
        took: progress.elapsed(),
        interrupted: cancellation.interrupts.level(),
        program: app.terminal.program().map(str::to_owned),
        ..Summary::default()
    };
    drop(progress);
    reporter.finish(&mut summary).await;
    Ok(results)
}

/// Changes one schema, as [`run_in_turn`] does.
///
/// # Errors
///
/// The change's; exit 130 for a signal.
pub(crate) async fn run_in_one<T>(
    app: &App,
    database: &Database,
    work: Operation,
    target: &Target,
    change: impl AsyncFnOnce(TenantAdmin) -> Result<(T, String), Failure>,
) -> Result<T, Failure> {
    let mut change = Some(change);
    let only = async |_, admin| match change.take() {
        Some(change) => change(admin).await,
        None => Err(Failure::interrupted()),
    };
    let mut results = run_in_turn(app, database, work, std::slice::from_ref(target), only).await?;
    results.pop().unwrap_or_else(|| Err(Failure::interrupted()))
}

fn failed(work: Operation, failure: &Failure) -> Outcome {
    let error = MigrateError::Job {
        doing: work.doing.to_owned(),
        error: ServerError { message: format!("{:#}", failure.cause), ..ServerError::default() },
        hints: failure.hints.clone(),
    };
    Outcome::Failed { error: Box::new(error), applied: Vec::new() }
}
