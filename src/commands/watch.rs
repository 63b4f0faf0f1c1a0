//! A run that somebody watches: a reporter shows it, and signals end it early.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::app::App;
use super::migrate_schemas::command_line;
use crate::domain::run_options::OnFailure;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::service::concurrency::Pace;
use crate::service::event::{Event, EventKind, Interrupt, NotStarted, Outcome, Progress, Work};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fan_out::FanOut;
use crate::service::fleet::{Fleet, Interrupter, Interrupts, SchemaJob};
use crate::service::summary::{SchemaOutcome, Summary};
use crate::ui::{ProgressMode, Reporter};

/// The reporter of a run, at work in a thread of its own.
pub(super) struct Watch {
    showing: JoinHandle<(Box<dyn Reporter + Send>, bool)>,
}

impl Watch {
    /// Begins to show what comes.
    pub(super) fn begin(
        app: &App,
        mode: ProgressMode,
        mut events: UnboundedReceiver<Event>,
    ) -> Self {
        let mut reporter = app.terminal.reporter(mode);
        let (sender, gathered) = mpsc::channel();
        tokio::spawn(async move {
            while let Some(events) = gather(&mut events).await {
                // The thread ends only after this task.
                let _ = sender.send(events);
            }
        });
        let showing = tokio::task::spawn_blocking(move || {
            let mut readable = true;
            for event in gathered.into_iter().flatten() {
                // Nobody reads any more; the run goes on all the same.
                readable = readable && reporter.on(&event).is_ok();
            }
            (reporter, readable)
        });
        Self { showing }
    }

    /// Waits until every sender of events is gone and everything is shown.
    pub(super) async fn shown(self) -> Shown {
        match self.showing.await {
            Ok((reporter, true)) => Shown(Some(reporter)),
            _ => Shown(None),
        }
    }

    /// The same, and shows how the run ended.
    pub(super) async fn finish(self, summary: &Summary) {
        self.shown().await.finish(summary);
    }
}

/// Waits for an event and returns it with those that follow within a moment, because waking a thread
/// for each costs as much as the work that it tells of; nothing when every sender is gone.
async fn gather(events: &mut UnboundedReceiver<Event>) -> Option<Vec<Event>> {
    const MOMENT: Duration = Duration::from_millis(10);
    let mut gathered = vec![events.recv().await?];
    let mut moment = std::pin::pin!(tokio::time::sleep(MOMENT));
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => gathered.push(event),
                None => return Some(gathered),
            },
            () = &mut moment => return Some(gathered),
        }
    }
}

/// The reporter of a run that is over, where somebody still reads.
pub(super) struct Shown(Option<Box<dyn Reporter + Send>>);

impl Shown {
    /// Shows how the run ended.
    pub(super) fn finish(self, summary: &Summary) {
        if let Some(mut reporter) = self.0 {
            // Nobody may read any more.
            let _ = reporter.finish(summary);
        }
    }
}

/// Does a job in every target while a reporter shows it, to the end whatever fails.
///
/// # Errors
///
/// As [`interruptible`].
pub(super) async fn fan_out<J: SchemaJob>(
    app: &App,
    work: Work,
    pace: Pace,
    job: &Arc<J>,
    targets: &[Arc<Target>],
) -> Result<Summary, Failure> {
    let (interrupter, interrupts) = Interrupts::new();
    let (progress, events) = Progress::channel();
    let watch = Watch::begin(app, app.progress, events);
    let run = FanOut {
        work,
        fleet: Fleet {
            pace,
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
pub(super) fn with_commands(app: &App, summary: Summary) -> Summary {
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
pub(super) async fn in_turn<T>(
    app: &App,
    work: Work,
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
pub(super) async fn alone<T>(
    app: &App,
    work: Work,
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
    work: Work,
    took: Duration,
) -> (Result<T, Failure>, Outcome) {
    match done {
        Ok((value, result)) => (Ok(value), Outcome::Done { result, took }),
        Err(failure) => {
            let error = MigrateError::Work {
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

/// Does work until it is done, while signals raise the level of interruption.
///
/// # Errors
///
/// Exit 130 for the third signal, which ends the work where it is.
pub(super) async fn interruptible<T>(
    work: impl Future<Output = T>,
    interrupter: Interrupter,
    progress: Progress,
) -> Result<T, Failure> {
    let signals = tokio::spawn(async move {
        let mut presses = Presses::listen()?;
        loop {
            presses.next().await;
            if interrupter.level() == Interrupt::Cancel {
                // A third press: whoever presses has no time left. The server rolls back what is open.
                return Ok::<(), std::io::Error>(());
            }
            let level = interrupter.raise();
            progress.send(EventKind::Interrupted { level });
        }
    });
    let abort = signals.abort_handle();
    let done = tokio::select! {
        done = work => Some(done),
        _ = signals => None,
    };
    abort.abort();
    done.ok_or_else(|| {
        Failure::words(
            Exit::Interrupted,
            "interrupted three times; running transactions are rolled back by the server",
        )
    })
}

/// Ctrl-C, SIGTERM and SIGHUP, which mean the same.
struct Presses {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

impl Presses {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
