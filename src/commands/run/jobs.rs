//! Long work under a reporter: one job in many schemas, in several schemas in turn, or in one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::app::App;
use super::reporter_task::Watch;
use super::signals::{Presses, interruptible};
use crate::commands::migrate_schemas::command_line;
use crate::domain::run_options::OnFailure;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::event::{EventKind, Interrupt, NotStarted, Operation, Outcome, Progress};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fan_out::FanOut;
use crate::service::fleet::{Fleet, Interrupts, SchemaJob};
use crate::service::summary::{SchemaOutcome, Summary};

/// Does a job in every target while a reporter shows it, to the end whatever fails.
///
/// # Errors
///
/// As [`interruptible`].
pub(crate) async fn fan_out<J: SchemaJob>(
    app: &App,
    work: Operation,
    concurrency: ConcurrencyLimit,
    job: &Arc<J>,
    targets: &[Arc<Target>],
) -> Result<Summary, Failure> {
    let (interrupter, interrupts) = Interrupts::new();
    let (progress, events) = Progress::channel();
    let watch = Watch::begin(app, app.progress, events);
    let run = FanOut {
        work,
        fleet: Fleet {
            concurrency,
            on_failure: OnFailure::Continue,
            interrupts,
        },
    };
    let work = run.run(job, targets, &progress);
    let summary = interruptible(work, interrupter, progress.clone()).await?;
    drop(progress);
    let summary = with_commands(app, summary);
    watch.finish(&summary).await;
    Ok(summary)
}

/// Returns the summary with what its proposals of further commands are made of.
pub(crate) fn with_commands(app: &App, summary: Summary) -> Summary {
    Summary {
        command: command_line(),
        program: app.program.clone(),
        ..summary
    }
}

/// Works on one schema after the other while a reporter shows it, until an interrupt ends it. How
/// each ended is the command's to tell, by `work`; only programs are told of it here.
///
/// Returns a result for each schema that was begun.
pub(crate) async fn in_turn<T>(
    app: &App,
    work: Operation,
    targets: &[Target],
    mut job: impl AsyncFnMut(usize, Progress) -> Result<(T, String), Failure>,
) -> Result<Vec<Result<T, Failure>>, Failure> {
    let mut presses = Presses::listen()?;
    let (progress, events) = Progress::channel();
    let watch = Watch::begin(app, app.progress, events);
    progress.send(EventKind::RunStarted {
        work,
        schemas: targets.len(),
        pending: targets.len(),
        jobs: 1,
    });
    let mut results = Vec::with_capacity(targets.len());
    let mut outcomes = Vec::with_capacity(targets.len());
    let mut interrupted = Interrupt::None;
    for (place, target) in targets.iter().enumerate() {
        let target = Arc::new(target.clone());
        let outcome = if interrupted == Interrupt::None {
            let progress = progress.of(&target);
            progress.send(EventKind::SchemaStarted {
                number: place + 1,
                of: targets.len(),
            });
            let begun = Instant::now();
            let done = tokio::select! {
                done = job(place, progress.clone()) => done,
                () = presses.next() => {
                    interrupted = Interrupt::Cancel;
                    Err(Failure::words(
                        Exit::Interrupted,
                        "interrupted; the server rolls back what was not committed",
                    )
                    .hint("the same command again finishes what was begun, or begins anew"))
                }
            };
            let (result, outcome) = ended(done, work, begun.elapsed());
            progress.send(EventKind::SchemaFinished {
                outcome: outcome.clone(),
            });
            results.push(result);
            outcome
        } else {
            Outcome::NotStarted {
                why: NotStarted::Interrupted,
            }
        };
        outcomes.push(SchemaOutcome { target, outcome });
    }
    let summary = Summary {
        work,
        outcomes,
        took: progress.elapsed(),
        interrupted,
        program: app.program.clone(),
        ..Summary::default()
    };
    drop(progress);
    watch.finish(&summary).await;
    Ok(results)
}

/// The same for one schema.
///
/// # Errors
///
/// The job's; exit 130 for an interrupt.
pub(crate) async fn alone<T>(
    app: &App,
    work: Operation,
    target: Target,
    job: impl AsyncFnOnce(Progress) -> Result<(T, String), Failure>,
) -> Result<T, Failure> {
    let (targets, mut job) = ([target], Some(job));
    let results = in_turn(app, work, &targets, async |_, progress| match job.take() {
        Some(job) => job(progress).await,
        None => Err(Failure::words(Exit::Unexpected, "one schema had two turns")),
    });
    match results.await?.pop() {
        Some(result) => result,
        None => Err(Failure::words(Exit::Unexpected, "one schema had no turn")),
    }
}

/// Takes what programs are told out of a result.
fn ended<T>(
    done: Result<(T, String), Failure>,
    work: Operation,
    took: Duration,
) -> (Result<T, Failure>, Outcome) {
    match done {
        Ok((value, result)) => (Ok(value), Outcome::Done { result, took }),
        Err(failure) => {
            let error = MigrateError::Job {
                doing: work.doing.to_owned(),
                error: ServerError {
                    message: format!("{:#}", failure.cause),
                    ..ServerError::default()
                },
                hints: failure.hints.clone(),
            };
            let outcome = Outcome::Failed {
                error: Box::new(error),
                applied: Vec::new(),
            };
            (Err(failure), outcome)
        }
    }
}
