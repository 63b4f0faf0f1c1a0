//! Runs one job over many schemas: bounded, cancellable, one outcome for each.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::concurrency::{ConcurrencyLimit, Epoch};
use super::event::{
    ContentionReports, EventKind, Interrupt, NotStarted, Outcome, Progress, Skipped,
};
use super::failure::MigrateError;
use super::run_state::RunState;
use crate::domain::applied::AppliedScript;
use crate::domain::run_options::{GroupLimit, OnFailure};
use crate::domain::schema_state::SchemaState;
use crate::domain::target::Target;

/// What a job did in one schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobSuccess {
    /// Scripts were applied and are committed.
    Migrated(Vec<AppliedScript>),
    /// Nothing was pending once the lock was held: another run had applied it.
    UpToDate,
    /// A job other than a migration is done; holds its result in a few words, such as `3 rows`.
    Finished(String),
    /// The schema was skipped.
    Skipped(Skipped),
}

/// Why a job failed in one schema, and what stays applied nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailure {
    /// The cause.
    pub error: Box<MigrateError>,
    /// Scripts that were committed before the failure.
    pub applied: Vec<AppliedScript>,
}

/// How a job ended in one schema.
pub type JobResult = Result<JobSuccess, JobFailure>;

impl From<MigrateError> for JobFailure {
    fn from(error: MigrateError) -> Self {
        Self { error: Box::new(error), applied: Vec::new() }
    }
}

/// The work that a [`Fleet`] does in each schema.
pub trait SchemaJob: Send + Sync + 'static {
    /// Does the work in one schema. When it returns, nothing of it is left running.
    fn run(
        &self,
        target: &Target,
        progress: &Progress,
        interrupts: Interrupts,
    ) -> impl Future<Output = JobResult> + Send;

    /// Returns how many schemas [`run_group`](Self::run_group) accepts now. By default only one,
    /// so that it is never called.
    fn group_limit(&self) -> GroupLimit {
        GroupLimit::ONE
    }

    /// Does the work in several schemas in one transaction, and returns one result for each; or
    /// rolls it back, reports nothing and returns `None`: then each of them is run alone. When it
    /// returns, nothing of it is left running.
    fn run_group(
        &self,
        _members: &[GroupMember],
        _interrupts: Interrupts,
    ) -> impl Future<Output = Option<Vec<JobResult>>> + Send {
        async { None }
    }
}

/// A job that migrates schemas, and can read their states beforehand.
pub trait SchemaMigrator: SchemaJob {
    /// Returns the state of every target, in the same order. Only reads, and takes no lock.
    fn survey(
        &self,
        targets: &[Arc<Target>],
    ) -> impl Future<Output = Result<Vec<SchemaState>, MigrateError>> + Send;
}

/// A schema in a task: alone, or one of a group.
#[derive(Debug)]
pub struct GroupMember {
    /// The schema.
    pub target: Arc<Target>,
    /// Where its events go, once its start [is reported](Self::report_started).
    pub progress: Progress,
    started: EventKind,
    is_reported: AtomicBool,
}

impl GroupMember {
    /// Reports that work on the schema starts; does nothing the second time.
    ///
    /// The start of a member of a group is reported when the group is committed, because a group
    /// that is rolled back leaves no trace.
    pub fn report_started(&self) {
        if !self.is_reported.swap(true, Ordering::Relaxed) {
            self.progress.send(self.started.clone());
        }
    }

    /// Reports the start and the scripts of a schema whose start was not reported yet.
    pub fn report_finished(&self, result: &JobResult) {
        if self.is_reported.load(Ordering::Relaxed) {
            return;
        }
        self.report_started();
        let Ok(JobSuccess::Migrated(scripts)) = result else {
            return;
        };
        for script in scripts {
            let (script, finished) = (script.script.clone(), script.clone());
            self.progress.send(EventKind::ScriptStarted { script });
            self.progress.send(EventKind::ScriptFinished { script: finished });
        }
    }
}

/// Receives how urgently the run was interrupted.
#[derive(Clone, Debug)]
pub struct Interrupts(watch::Receiver<Interrupt>);

/// The other end of [`Interrupts`]: raises the level when a signal arrives.
#[derive(Clone, Debug)]
pub struct Interrupter(watch::Sender<Interrupt>);

impl Interrupts {
    /// Returns both ends, at [`Interrupt::None`].
    pub fn new() -> (Interrupter, Self) {
        let (sender, receiver) = watch::channel(Interrupt::None);
        (Interrupter(sender), Self(receiver))
    }

    /// Returns interrupts that never come, for work that a signal ends with the process.
    pub fn never() -> Self {
        Self::new().1
    }

    /// Returns the current level.
    pub fn level(&self) -> Interrupt {
        *self.0.borrow()
    }

    /// Waits until the level is at least this. Never returns when the [`Interrupter`] is dropped
    /// before.
    pub async fn reaches(&mut self, level: Interrupt) {
        if self.0.wait_for(|now| *now >= level).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Interrupter {
    /// Returns the current level.
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

/// How a job is run over many schemas.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// How many tasks run at once.
    pub concurrency: ConcurrencyLimit,
    /// What a failure means for the schemas that were not started yet.
    pub on_failure: OnFailure,
    /// Ends the run early.
    pub interrupts: Interrupts,
}

impl Fleet {
    /// Runs the job in every target and returns one outcome for each, in the order of `targets`.
    ///
    /// Never more tasks run than the concurrency limit allows. A panic in one is that target's
    /// failure. After an interrupt, and after a failure where `on_failure` says so, no task is
    /// started any more and the remaining targets are reported as not started; tasks that run then
    /// end on their own, so more can fail than `on_failure` allows, by at most one less than run at
    /// once. A failure that the rest would share (a full disk, a lost server) ends the run
    /// whatever `on_failure` says. A halted run starts no task.
    ///
    /// A job that accepts [groups](SchemaJob::group_limit) gets groups as long as they are
    /// committed; each schema of a group that was rolled back is run alone.
    pub async fn run<J: SchemaJob>(
        &self,
        job: &Arc<J>,
        targets: &[Arc<Target>],
        state: &mut RunState,
        progress: &Progress,
    ) -> Vec<Outcome> {
        let (contention, mut contended) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher {
            fleet: self,
            job,
            targets,
            state,
            progress,
            contention,
            outcomes: vec![None; targets.len()],
            waiting: 0..targets.len(),
            rolled_back: VecDeque::new(),
            tasks: JoinSet::new(),
            active: Vec::new(),
        };
        let mut interrupts = self.interrupts.clone();
        loop {
            dispatcher.start_tasks();
            tokio::select! {
                // Contention that a task met counts before the end of that task.
                biased;
                Some(position) = contended.recv() => dispatcher.note_contention(position),
                joined = dispatcher.tasks.join_next_with_id() => match joined {
                    Some(Ok((id, result))) => dispatcher.finish(id, Ok(result)),
                    Some(Err(error)) => dispatcher.finish(error.id(), Err(error)),
                    None => break,
                },
                // Halts the run at once, even while every slot is busy.
                () = interrupts.reaches(Interrupt::Drain), if dispatcher.state.halted().is_none() => {}
            }
        }
        let why = dispatcher.state.halted().unwrap_or(NotStarted::Interrupted);
        dispatcher
            .outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Outcome::NotStarted { why }))
            .collect()
    }
}

/// One call of [`Fleet::run`].
struct Dispatcher<'a, J> {
    fleet: &'a Fleet,
    job: &'a Arc<J>,
    targets: &'a [Arc<Target>],
    state: &'a mut RunState,
    progress: &'a Progress,
    contention: mpsc::UnboundedSender<usize>,
    outcomes: Vec<Option<Outcome>>,
    /// Positions of the targets that no task has got yet.
    waiting: Range<usize>,
    /// Targets of groups that were rolled back: position, and whether the start was reported.
    rolled_back: VecDeque<(usize, bool)>,
    tasks: JoinSet<TaskResult>,
    active: Vec<ActiveTask>,
}

/// A task that runs: one schema, or a group.
struct ActiveTask {
    id: Id,
    positions: Vec<usize>,
    members: Arc<[GroupMember]>,
    epoch: Epoch,
    met_contention: bool,
}

/// How a task ended.
struct TaskResult {
    /// One for each schema; `None` where a group was rolled back.
    results: Option<Vec<JobResult>>,
    took: Duration,
}

impl<J: SchemaJob> Dispatcher<'_, J> {
    /// Starts tasks until the limit is reached, the run is halted or no target is left.
    fn start_tasks(&mut self) {
        if self.fleet.interrupts.level() > Interrupt::None {
            self.state.halt(NotStarted::Interrupted);
        }
        while self.state.halted().is_none() && self.tasks.len() < self.state.concurrency.jobs() {
            let (positions, is_reported) = match self.rolled_back.pop_front() {
                Some((position, is_reported)) => (vec![position], is_reported),
                None => (self.next_group(), false),
            };
            if positions.is_empty() {
                return;
            }
            let members: Arc<[GroupMember]> =
                positions.iter().map(|&position| self.member(position, is_reported)).collect();
            let task =
                run_task(Arc::clone(self.job), Arc::clone(&members), self.fleet.interrupts.clone());
            self.active.push(ActiveTask {
                id: self.tasks.spawn(task).id(),
                positions,
                members,
                epoch: self.state.concurrency.epoch(),
                met_contention: false,
            });
        }
    }

    fn next_group(&mut self) -> Vec<usize> {
        let size = self.state.group_size.next(
            self.waiting.len(),
            self.job.group_limit(),
            self.state.concurrency.jobs(),
        );
        self.waiting.by_ref().take(size).collect()
    }

    fn member(&self, position: usize, is_reported: bool) -> GroupMember {
        let target = Arc::clone(&self.targets[position]);
        let number = if target.schema.is_public() { 0 } else { self.state.before + position + 1 };
        let reports = ContentionReports { sender: self.contention.clone(), position };
        GroupMember {
            progress: self.progress.of(&target).with_contention_reports(reports),
            target,
            started: EventKind::SchemaStarted { number, of: self.state.of },
            is_reported: AtomicBool::new(is_reported),
        }
    }

    fn note_contention(&mut self, position: usize) {
        let has_position = |task: &&mut ActiveTask| task.positions.contains(&position);
        let Some(task) = self.active.iter_mut().find(has_position) else {
            return;
        };
        task.met_contention = true;
        if self.state.concurrency.decrease(task.epoch) {
            self.report_jobs();
        }
    }

    fn finish(&mut self, id: Id, joined: Result<TaskResult, JoinError>) {
        let Some(slot) = self.active.iter().position(|task| task.id == id) else {
            return;
        };
        let task = self.active.swap_remove(slot);
        let schemas = task.positions.len();
        let TaskResult { results, took } = joined.unwrap_or_else(|error| TaskResult {
            // The schema of a group that panicked panics again when it runs alone.
            results: (schemas == 1).then(|| vec![Err(panicked(error))]),
            took: Duration::ZERO,
        });
        let Some(results) = results else {
            self.state.group_size.rolled_back();
            let is_reported = |member: &GroupMember| member.is_reported.load(Ordering::Relaxed);
            let reported = task.members.iter().map(is_reported);
            self.rolled_back.extend(task.positions.into_iter().zip(reported));
            return;
        };
        let is_migrated = |result: &JobResult| matches!(result, Ok(JobSuccess::Migrated(_)));
        if !task.members[0].target.schema.is_public() && results.iter().all(is_migrated) {
            let limit = self.job.group_limit();
            self.state.group_size.committed(schemas, took, limit);
        }
        let took_each = took / u32::try_from(schemas).unwrap_or(1);
        let members = task.positions.iter().zip(task.members.iter());
        for ((&position, member), result) in members.zip(results) {
            member.report_finished(&result);
            let outcome = self.outcome(result, took_each);
            self.state.record(&outcome, self.fleet.on_failure);
            member.progress.send(EventKind::SchemaFinished { outcome: outcome.clone() });
            self.outcomes[position] = Some(outcome);
        }
        if !task.met_contention && self.state.concurrency.increase() {
            self.report_jobs();
        }
    }

    fn outcome(&mut self, result: JobResult, took: Duration) -> Outcome {
        match result {
            Ok(JobSuccess::Migrated(scripts)) => {
                Outcome::Migrated { scripts: self.state.interner.intern(scripts), took }
            }
            Ok(JobSuccess::UpToDate) => Outcome::UpToDate,
            Ok(JobSuccess::Finished(result)) => Outcome::Done { result, took },
            Ok(JobSuccess::Skipped(why)) => Outcome::Skipped { why },
            Err(JobFailure { error, applied }) => Outcome::Failed { error, applied },
        }
    }

    fn report_jobs(&self) {
        self.progress.send(EventKind::JobsChanged {
            jobs: self.state.concurrency.jobs(),
            most: self.state.concurrency.most(),
        });
    }
}

async fn run_task<J: SchemaJob>(
    job: Arc<J>,
    members: Arc<[GroupMember]>,
    interrupts: Interrupts,
) -> TaskResult {
    let started = Instant::now();
    let results = if let [member] = &members[..] {
        member.report_started();
        let result = job.run(&member.target, &member.progress, interrupts);
        Some(vec![result.await])
    } else {
        job.run_group(&members, interrupts).await
    };
    TaskResult { results, took: started.elapsed() }
}

fn panicked(error: JoinError) -> JobFailure {
    let message = match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "no message".to_owned()),
        Err(error) => error.to_string(),
    };
    MigrateError::Panicked { message }.into()
}

#[cfg(test)]
pub(crate) mod tests;
