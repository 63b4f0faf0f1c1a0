//! Runs one unit of work over many schemas: bounded, cancellable, one outcome each.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::concurrency::{ConcurrencyLimit, Round};
use super::event::{
    ContentionReports, EventKind, Interrupt, NotStarted, Outcome, Progress, Skipped,
};
use super::failure::MigrateError;
use super::run_state::RunState;
use crate::domain::applied::AppliedScript;
use crate::domain::run_options::{GroupLimit, OnFailure};
use crate::domain::schema_state::SchemaState;
use crate::domain::target::Target;

/// What was done in one schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobSuccess {
    /// Something was applied, and is committed.
    Migrated(Vec<AppliedScript>),
    /// Nothing was pending once the lock was held: somebody else had done it.
    UpToDate,
    /// Work that is not a migration was done; says what came of it, in a few words.
    Finished(String),
    /// It was passed over.
    Skipped(Skipped),
}

/// Why a migrator gave up on a schema, and what stays applied all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailure {
    /// Why.
    pub error: Box<MigrateError>,
    /// Scripts that had been committed before.
    pub applied: Vec<AppliedScript>,
}

/// How a job ended in one schema.
pub type JobResult = Result<JobSuccess, JobFailure>;

impl From<MigrateError> for JobFailure {
    fn from(error: MigrateError) -> Self {
        Self {
            error: Box::new(error),
            applied: Vec::new(),
        }
    }
}

/// What the fleet does in each schema.
pub trait SchemaJob: Send + Sync + 'static {
    /// Does it in one schema. When it returns, nothing of it is left running.
    fn run(
        &self,
        target: &Target,
        progress: &Progress,
        interrupts: Interrupts,
    ) -> impl Future<Output = JobResult> + Send;

    /// Returns how many schemas [`run_group`](Self::run_group) would take now.
    fn group_limit(&self) -> GroupLimit {
        GroupLimit::ONE
    }

    /// Does it in several schemas in one transaction, and returns one result for each; or `None`
    /// after changing nothing and reporting nothing: then each of them is run alone. When it
    /// returns, nothing of it is left running.
    fn run_group(
        &self,
        _members: &[GroupMember],
        _interrupts: Interrupts,
    ) -> impl Future<Output = Option<Vec<JobResult>>> + Send {
        async { None }
    }
}

/// A schema that is worked on, by itself or together with others.
#[derive(Debug)]
pub struct GroupMember {
    /// The schema.
    pub target: Arc<Target>,
    /// Where to tell what happens in it, once it has [begun](Self::begin).
    pub progress: Progress,
    started: EventKind,
    begun: AtomicBool,
}

impl GroupMember {
    /// Tells that work on it begins, unless that was told. One of several that are done together
    /// has told nothing as long as it can be that nothing comes of it, and the fleet tells its
    /// whole story when it has ended.
    pub fn begin(&self) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            self.progress.send(self.started.clone());
        }
    }

    /// Tells what happened in a schema that has told nothing yet.
    pub fn report_finished(&self, result: &JobResult) {
        if self.begun.load(Ordering::Relaxed) {
            return;
        }
        self.begin();
        let Ok(JobSuccess::Migrated(scripts)) = result else {
            return;
        };
        for script in scripts {
            let (script, finished) = (script.script.clone(), script.clone());
            self.progress.send(EventKind::ScriptStarted { script });
            self.progress
                .send(EventKind::ScriptFinished { script: finished });
        }
    }
}

/// A job that migrates schemas, and can tell their state beforehand.
pub trait SchemaMigrator: SchemaJob {
    /// Returns the state of every target, in the same order. Only reads, and takes no lock.
    fn survey(
        &self,
        targets: &[Arc<Target>],
    ) -> impl Future<Output = Result<Vec<SchemaState>, MigrateError>> + Send;
}

/// Tells workers how urgently the run was interrupted.
#[derive(Clone, Debug)]
pub struct Interrupts(watch::Receiver<Interrupt>);

/// The other end of [`Interrupts`]: whoever hears the signal raises the level.
#[derive(Clone, Debug)]
pub struct Interrupter(watch::Sender<Interrupt>);

impl Interrupts {
    /// Returns both ends, at [`Interrupt::None`].
    #[must_use]
    pub fn new() -> (Interrupter, Self) {
        let (sender, receiver) = watch::channel(Interrupt::None);
        (Interrupter(sender), Self(receiver))
    }

    /// Returns how urgent it is now.
    #[must_use]
    pub fn level(&self) -> Interrupt {
        *self.0.borrow()
    }

    /// Waits until the level is at least this; for ever, when nobody is left to raise it.
    pub async fn reaches(&mut self, level: Interrupt) {
        if self.0.wait_for(|now| *now >= level).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Interrupter {
    /// Returns how urgent it is now.
    #[must_use]
    pub fn level(&self) -> Interrupt {
        *self.0.borrow()
    }

    /// Raises the level by one step and returns the new one; [`Interrupt::Cancel`] stays.
    pub fn raise(&self) -> Interrupt {
        self.0.send_modify(|level| {
            *level = match *level {
                Interrupt::None => Interrupt::Drain,
                Interrupt::Drain | Interrupt::Cancel => Interrupt::Cancel,
            };
        });
        *self.0.borrow()
    }
}

/// How the fleet goes about its work.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// How many schemas are worked on at once.
    pub concurrency: ConcurrencyLimit,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
    /// Tells when to end early.
    pub interrupts: Interrupts,
}

/// A schema at work, or several in one piece of work.
struct Running {
    task: Id,
    positions: Vec<usize>,
    members: Arc<[GroupMember]>,
    round: Round,
    undisturbed: bool,
}

impl Fleet {
    /// Does the job in every target and returns one outcome for each, in the order of `targets`.
    ///
    /// Never more are in flight than the pace allows. A panic in one is that target's
    /// failure. After an interrupt, and after a failure where `on_failure` says so, nothing
    /// new begins and what was not begun is reported as such; what is in flight then ends
    /// as it may, so that more can fail than `on_failure` allows, by one less than are in
    /// flight. A failure that the rest would share (a full disk, a lost server) ends the run
    /// whatever `on_failure` says. A course that is halted begins nothing.
    ///
    /// A job that [takes several](SchemaJob::group_limit) at once gets several: no more than it
    /// takes, and only while all goes well. What it gives back undone is run one by one.
    pub async fn run<J: SchemaJob>(
        &self,
        job: &Arc<J>,
        targets: &[Arc<Target>],
        course: &mut RunState,
        progress: &Progress,
    ) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; targets.len()];
        let mut waiting = 0..targets.len();
        // Positions, and whether it was told already that they began.
        let mut undone: VecDeque<(usize, bool)> = VecDeque::new();
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let mut running: Vec<Running> = Vec::new();
        let mut interrupts = self.interrupts.clone();
        let (sender, mut disturbances) = mpsc::unbounded_channel();
        loop {
            if self.interrupts.level() > Interrupt::None {
                course.halt(NotStarted::Interrupted);
            }
            while course.halted().is_none() && tasks.len() < course.concurrency.jobs() {
                let (positions, begun) = if let Some((position, begun)) = undone.pop_front() {
                    (vec![position], begun)
                } else {
                    let jobs = course.concurrency.jobs();
                    let size = course.grouping.next(waiting.len(), job.group_limit(), jobs);
                    (waiting.by_ref().take(size).collect(), false)
                };
                if positions.is_empty() {
                    break;
                }
                let members: Arc<[GroupMember]> = positions
                    .iter()
                    .map(|&position| {
                        let target = Arc::clone(&targets[position]);
                        let number = if target.schema.is_public() {
                            0
                        } else {
                            course.before + position + 1
                        };
                        let overheard = ContentionReports {
                            sender: sender.clone(),
                            position,
                        };
                        GroupMember {
                            progress: progress.of(&target).overheard(overheard),
                            target,
                            started: EventKind::SchemaStarted {
                                number,
                                of: course.of,
                            },
                            begun: AtomicBool::new(begun),
                        }
                    })
                    .collect();
                let work = attempt(
                    Arc::clone(job),
                    Arc::clone(&members),
                    self.interrupts.clone(),
                );
                running.push(Running {
                    task: tasks.spawn(work).id(),
                    positions,
                    members,
                    round: course.concurrency.round(),
                    undisturbed: true,
                });
            }
            let joined = tokio::select! {
                // What a schema met comes before its end.
                biased;
                Some(position) = disturbances.recv() => {
                    disturbed(position, &mut running, &mut course.concurrency, progress);
                    continue;
                }
                joined = tasks.join_next_with_id() => joined,
                // Wakes the loop so that nothing new begins, even while all slots are busy.
                () = interrupts.reaches(Interrupt::Drain), if course.halted().is_none() => continue,
            };
            let Some(joined) = joined else { break };
            let task = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let Some(slot) = running.iter().position(|one| one.task == task) else {
                continue;
            };
            let ended = running.swap_remove(slot);
            let schemas = ended.positions.len();
            let (results, took) = match joined {
                Ok((_, work)) => (work.results, work.took),
                // Whichever of several it was, it fails again by itself.
                Err(_) if schemas > 1 => (None, Duration::ZERO),
                Err(error) => (Some(vec![Err(panicked(error))]), Duration::ZERO),
            };
            let Some(results) = results else {
                course.grouping.undone();
                let begun = ended
                    .members
                    .iter()
                    .map(|one| one.begun.load(Ordering::Relaxed));
                undone.extend(ended.positions.into_iter().zip(begun));
                continue;
            };
            let first = &ended.members[0].target;
            let is_migrated = |result| matches!(result, &Ok(JobSuccess::Migrated(_)));
            if !first.schema.is_public() && results.iter().all(is_migrated) {
                course.grouping.committed(schemas, took, job.group_limit());
            }
            let each = took / u32::try_from(schemas).unwrap_or(1);
            let ends = ended.positions.iter().zip(ended.members.iter());
            for ((&position, member), result) in ends.zip(results) {
                member.report_finished(&result);
                let outcome = outcome_of(result, each, course);
                course.judge(&outcome, self.on_failure);
                member.progress.send(EventKind::SchemaFinished {
                    outcome: outcome.clone(),
                });
                outcomes[position] = Some(outcome);
            }
            if ended.undisturbed && course.concurrency.calm() {
                tell_pace(&course.concurrency, progress);
            }
        }
        let why = course.halted().unwrap_or(NotStarted::Interrupted);
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Outcome::NotStarted { why }))
            .collect()
    }
}

fn disturbed(
    position: usize,
    running: &mut [Running],
    pace: &mut ConcurrencyLimit,
    progress: &Progress,
) {
    let meets = |one: &&mut Running| one.positions.contains(&position);
    let Some(met) = running.iter_mut().find(meets) else {
        return;
    };
    met.undisturbed = false;
    if pace.disturbed(met.round) {
        tell_pace(pace, progress);
    }
}

fn tell_pace(pace: &ConcurrencyLimit, progress: &Progress) {
    progress.send(EventKind::JobsChanged {
        jobs: pace.jobs(),
        most: pace.most(),
    });
}

/// What came of a schema, or of several; nothing where several were given back undone. And how
/// long it took.
struct Ended {
    results: Option<Vec<JobResult>>,
    took: Duration,
}

async fn attempt<J: SchemaJob>(
    job: Arc<J>,
    members: Arc<[GroupMember]>,
    interrupts: Interrupts,
) -> Ended {
    let begun = Instant::now();
    let results = if let [member] = &members[..] {
        member.begin();
        let result = job.run(&member.target, &member.progress, interrupts);
        Some(vec![result.await])
    } else {
        job.run_group(&members, interrupts).await
    };
    Ended {
        results,
        took: begun.elapsed(),
    }
}

fn outcome_of(result: JobResult, took: Duration, course: &mut RunState) -> Outcome {
    match result {
        Ok(JobSuccess::Migrated(scripts)) => Outcome::Migrated {
            scripts: course.sharing.keep(scripts),
            took,
        },
        Ok(JobSuccess::UpToDate) => Outcome::UpToDate,
        Ok(JobSuccess::Finished(result)) => Outcome::Done { result, took },
        Ok(JobSuccess::Skipped(why)) => Outcome::Skipped { why },
        Err(JobFailure { error, applied }) => Outcome::Failed { error, applied },
    }
}

fn panicked(error: JoinError) -> JobFailure {
    let message = match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| {
                payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
            })
            .unwrap_or_else(|| "no message".to_owned()),
        Err(error) => error.to_string(),
    };
    MigrateError::Panicked { message }.into()
}

#[cfg(test)]
pub(crate) mod tests;
