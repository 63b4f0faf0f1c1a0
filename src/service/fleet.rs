//! Runs one unit of work over many schemas: bounded, cancellable, one outcome each.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::course::Course;
use super::event::{
    AppliedScript, Disturbances, EventKind, Interrupt, MigrateError, NotStarted, Outcome, Progress,
    Skipped, Target,
};
use super::pace::{Pace, Round};
use crate::domain::plan::{OnFailure, SchemaState};

/// What was done in one schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
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
pub struct Failed {
    /// Why.
    pub error: Box<MigrateError>,
    /// Scripts that had been committed before.
    pub applied: Vec<AppliedScript>,
}

impl From<MigrateError> for Failed {
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
    ) -> impl Future<Output = Result<Done, Failed>> + Send;
}

impl<M: SchemaMigrator> SchemaJob for M {
    async fn run(
        &self,
        target: &Target,
        progress: &Progress,
        interrupts: Interrupts,
    ) -> Result<Done, Failed> {
        self.migrate(target, progress, interrupts).await
    }
}

/// What a rollout asks of whoever knows how to migrate a schema.
pub trait SchemaMigrator: Send + Sync + 'static {
    /// Tells the state of every target, in the same order. Only reads, and takes no lock.
    fn survey(
        &self,
        targets: &[Arc<Target>],
    ) -> impl Future<Output = Result<Vec<SchemaState>, MigrateError>> + Send;

    /// Brings one schema to the goal. When it returns, nothing of it is left running.
    fn migrate(
        &self,
        target: &Target,
        progress: &Progress,
        interrupts: Interrupts,
    ) -> impl Future<Output = Result<Done, Failed>> + Send;
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
    pub pace: Pace,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
    /// Tells when to end early.
    pub interrupts: Interrupts,
}

/// A schema at work.
struct Running {
    task: Id,
    position: usize,
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
    pub async fn run<J: SchemaJob>(
        &self,
        job: &Arc<J>,
        targets: &[Arc<Target>],
        course: &mut Course,
        progress: &Progress,
    ) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; targets.len()];
        let mut waiting = 0..targets.len();
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let mut running: Vec<Running> = Vec::new();
        let mut interrupts = self.interrupts.clone();
        let (sender, mut disturbances) = mpsc::unbounded_channel();
        loop {
            if self.interrupts.level() > Interrupt::None {
                course.halt(NotStarted::Interrupted);
            }
            while course.halted().is_none() && tasks.len() < course.pace.jobs() {
                let Some(position) = waiting.next() else {
                    break;
                };
                let target = Arc::clone(&targets[position]);
                let number = if target.schema.is_public() {
                    0
                } else {
                    course.before + position + 1
                };
                let overheard = Disturbances {
                    sender: sender.clone(),
                    position,
                };
                let work = attempt(
                    Arc::clone(job),
                    Arc::clone(&target),
                    progress.of(&target).overheard(overheard),
                    self.interrupts.clone(),
                    EventKind::SchemaStarted {
                        number,
                        of: course.of,
                    },
                );
                running.push(Running {
                    task: tasks.spawn(work).id(),
                    position,
                    round: course.pace.round(),
                    undisturbed: true,
                });
            }
            let joined = tokio::select! {
                // What a schema met comes before its end.
                biased;
                Some(position) = disturbances.recv() => {
                    disturbed(position, &mut running, &mut course.pace, progress);
                    continue;
                }
                joined = tasks.join_next_with_id() => joined,
                // Wakes the loop so that nothing new begins, even while all slots are busy.
                () = interrupts.reaches(Interrupt::Drain), if course.halted().is_none() => continue,
            };
            let Some(joined) = joined else { break };
            let task = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let outcome = match joined {
                Ok((_, Ended { result, took })) => match result {
                    Ok(Done::Migrated(scripts)) => Outcome::Migrated {
                        scripts: course.sharing.keep(scripts),
                        took,
                    },
                    Ok(Done::UpToDate) => Outcome::UpToDate,
                    Ok(Done::Finished(result)) => Outcome::Done { result, took },
                    Ok(Done::Skipped(why)) => Outcome::Skipped { why },
                    Err(Failed { error, applied }) => Outcome::Failed { error, applied },
                },
                Err(error) => panicked(error),
            };
            let Some(slot) = running.iter().position(|one| one.task == task) else {
                continue;
            };
            let ended = running.swap_remove(slot);
            course.judge(&outcome, self.on_failure);
            progress
                .of(&targets[ended.position])
                .send(EventKind::SchemaFinished {
                    outcome: outcome.clone(),
                });
            outcomes[ended.position] = Some(outcome);
            if ended.undisturbed && course.pace.calm() {
                tell_pace(&course.pace, progress);
            }
        }
        let why = course.halted().unwrap_or(NotStarted::Interrupted);
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Outcome::NotStarted { why }))
            .collect()
    }
}

fn disturbed(position: usize, running: &mut [Running], pace: &mut Pace, progress: &Progress) {
    let Some(met) = running.iter_mut().find(|one| one.position == position) else {
        return;
    };
    met.undisturbed = false;
    if pace.disturbed(met.round) {
        tell_pace(pace, progress);
    }
}

fn tell_pace(pace: &Pace, progress: &Progress) {
    progress.send(EventKind::JobsChanged {
        jobs: pace.jobs(),
        most: pace.most(),
    });
}

/// What came of a schema, and how long it took.
struct Ended {
    result: Result<Done, Failed>,
    took: Duration,
}

async fn attempt<J: SchemaJob>(
    job: Arc<J>,
    target: Arc<Target>,
    progress: Progress,
    interrupts: Interrupts,
    started: EventKind,
) -> Ended {
    progress.send(started);
    let begun = Instant::now();
    let result = job.run(&target, &progress, interrupts).await;
    Ended {
        result,
        took: begun.elapsed(),
    }
}

fn panicked(error: JoinError) -> Outcome {
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
    Outcome::Failed {
        error: Box::new(MigrateError::Panicked { message }),
        applied: Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::num::NonZeroUsize;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::domain::schema_name::SchemaName;
    use crate::domain::script::Scope;
    use crate::service::event::ServerError;

    /// What the scripted migrator does in a schema.
    #[derive(Clone)]
    pub(crate) enum Act {
        Migrate,
        Fail(&'static str),
        Missing,
        Panic,
        /// Meets a lock once, then migrates.
        Collide,
        /// Waits until the test lets it go, or until it is cancelled.
        Block,
    }

    /// A migrator that does as the test says, so that scheduling is tested without a server.
    #[derive(Default)]
    pub(crate) struct Scripted {
        pub(crate) acts: HashMap<String, Act>,
        pub(crate) release: Notify,
        pub(crate) begun: Mutex<Vec<String>>,
        pub(crate) in_flight: AtomicUsize,
        pub(crate) most_in_flight: AtomicUsize,
    }

    impl Scripted {
        pub(crate) fn new(acts: &[(&str, Act)]) -> Arc<Self> {
            Arc::new(Self {
                acts: acts
                    .iter()
                    .map(|(schema, act)| ((*schema).to_owned(), act.clone()))
                    .collect(),
                ..Self::default()
            })
        }
    }

    impl SchemaMigrator for Scripted {
        async fn survey(&self, targets: &[Arc<Target>]) -> Result<Vec<SchemaState>, MigrateError> {
            let pending = crate::domain::plan::Plan {
                pending: vec![0],
                ..Default::default()
            };
            Ok(targets
                .iter()
                .map(|target| match self.acts.get(target.schema.as_str()) {
                    Some(Act::Missing) => SchemaState::Missing,
                    _ => SchemaState::Known(pending.clone()),
                })
                .collect())
        }

        async fn migrate(
            &self,
            target: &Target,
            progress: &Progress,
            mut interrupts: Interrupts,
        ) -> Result<Done, Failed> {
            self.begun.lock().unwrap().push(target.label.clone());
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_in_flight.fetch_max(now, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let act = self
                .acts
                .get(target.schema.as_str())
                .unwrap_or(&Act::Migrate);
            let result = match act {
                Act::Migrate => Ok(Done::Migrated(Vec::new())),
                Act::Missing => Err(MigrateError::SchemaMissing.into()),
                Act::Collide => {
                    progress.send(EventKind::Retrying {
                        attempt: 1,
                        limit: 5,
                        error: ServerError {
                            sqlstate: Some("40P01".to_owned()),
                            ..ServerError::default()
                        },
                        blockers: Vec::new(),
                        pause: Duration::ZERO,
                    });
                    Ok(Done::Migrated(Vec::new()))
                }
                Act::Fail(sqlstate) => Err(MigrateError::Database {
                    doing: "testing".into(),
                    error: ServerError {
                        sqlstate: Some((*sqlstate).to_owned()),
                        ..ServerError::default()
                    },
                }
                .into()),
                Act::Panic => panic!("scripted"),
                Act::Block => tokio::select! {
                    () = self.release.notified() => Ok(Done::Migrated(Vec::new())),
                    () = interrupts.reaches(Interrupt::Cancel) => Ok(Done::Skipped(Skipped::Interrupted)),
                },
            };
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            result
        }
    }

    pub(crate) fn target(slug: &str) -> Arc<Target> {
        Arc::new(Target {
            schema: SchemaName::parse(slug).expect("legal"),
            label: slug.to_owned(),
            scope: Scope::Tenant,
        })
    }

    fn targets(slugs: &[&str]) -> Vec<Arc<Target>> {
        slugs.iter().map(|slug| target(slug)).collect()
    }

    fn words(slugs: &[&str], outcomes: &[Outcome]) -> Vec<String> {
        slugs
            .iter()
            .zip(outcomes)
            .map(|(slug, outcome)| {
                let word = match outcome {
                    Outcome::Migrated { .. } => "migrated".to_owned(),
                    Outcome::UpToDate => "up to date".to_owned(),
                    Outcome::Done { result, .. } => result.clone(),
                    Outcome::Failed { error, .. } => match &**error {
                        MigrateError::Panicked { message } => format!("panicked: {message}"),
                        _ => "failed".to_owned(),
                    },
                    Outcome::Skipped { why } => format!("skipped: {why:?}"),
                    Outcome::NotStarted { why } => format!("not started: {why:?}"),
                };
                format!("{slug} {word}")
            })
            .collect()
    }

    async fn run(
        migrator: &Arc<Scripted>,
        slugs: &[&str],
        jobs: usize,
        on_failure: OnFailure,
    ) -> Vec<String> {
        let (_interrupter, interrupts) = Interrupts::new();
        let fleet = Fleet {
            pace: fixed(jobs),
            on_failure,
            interrupts,
        };
        let (progress, _events) = Progress::channel();
        let mut course = Course::new(fleet.pace.clone());
        let outcomes = fleet
            .run(migrator, &targets(slugs), &mut course, &progress)
            .await;
        words(slugs, &outcomes)
    }

    fn fixed(jobs: usize) -> Pace {
        Pace::fixed(NonZeroUsize::new(jobs).expect("not 0"))
    }

    /// Returns how many jobs there were after each change.
    async fn changes(pace: Pace, acts: &[(&str, Act)], slugs: &[&str]) -> Vec<usize> {
        let (_interrupter, interrupts) = Interrupts::new();
        let fleet = Fleet {
            pace,
            on_failure: OnFailure::Stop,
            interrupts,
        };
        let (progress, mut events) = Progress::channel();
        let mut course = Course::new(fleet.pace.clone());
        fleet
            .run(
                &Scripted::new(acts),
                &targets(slugs),
                &mut course,
                &progress,
            )
            .await;
        drop((progress, course));
        let mut changes = Vec::new();
        while let Some(event) = events.recv().await {
            if let EventKind::JobsChanged { jobs, most: 4 } = event.kind {
                changes.push(jobs);
            }
        }
        changes
    }

    #[tokio::test]
    async fn contention_halves_an_adaptive_pace_and_calm_brings_it_back() {
        let slugs = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let collisions = [("a", Act::Collide), ("b", Act::Collide)];
        let adaptive = Pace::adaptive(NonZeroUsize::new(4).expect("not 0"));
        assert_eq!(changes(adaptive, &collisions, &slugs).await, [2, 3, 4]);
        assert_eq!(
            changes(fixed(4), &collisions, &slugs).await,
            Vec::<usize>::new()
        );
    }

    #[tokio::test]
    async fn nothing_begins_once_the_limit_of_failures_is_reached_and_what_runs_ends() {
        let acts = ["a", "b", "c", "d", "e"].map(|slug| (slug, Act::Fail("23505")));
        let two = OnFailure::StopAfter(NonZeroUsize::new(2).expect("not 0"));
        let slugs = ["a", "b", "c", "d", "e"];
        assert_eq!(
            run(&Scripted::new(&acts), &slugs, 1, two).await,
            [
                "a failed",
                "b failed",
                "c not started: TooManyFailures",
                "d not started: TooManyFailures",
                "e not started: TooManyFailures",
            ]
        );
        // Three at a time: when two have failed, at most two more are already under way.
        let outcomes = run(&Scripted::new(&acts), &slugs, 3, two).await;
        let failed = outcomes.iter().filter(|word| word.ends_with("failed"));
        assert!((2..=4).contains(&failed.count()), "{outcomes:?}");
        assert_eq!(outcomes[4], "e not started: TooManyFailures");
    }

    #[tokio::test]
    async fn every_target_gets_one_outcome_in_the_order_given() {
        let migrator = Scripted::new(&[("b", Act::Fail("23505"))]);
        assert_eq!(
            run(&migrator, &["a", "b", "c"], 3, OnFailure::Continue).await,
            ["a migrated", "b failed", "c migrated"]
        );
    }

    #[tokio::test]
    async fn an_empty_fleet_is_no_error() {
        assert!(
            run(&Scripted::new(&[]), &[], 3, OnFailure::Stop)
                .await
                .is_empty()
        );
    }

    #[tokio::test]
    async fn never_more_than_jobs_are_in_flight() {
        let migrator = Scripted::new(&[]);
        let slugs: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
        let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
        run(&migrator, &slugs, 4, OnFailure::Stop).await;
        assert_eq!(migrator.most_in_flight.load(Ordering::SeqCst), 4);
        assert_eq!(migrator.begun.lock().unwrap().len(), 50);
    }

    #[tokio::test]
    async fn a_failure_stops_the_rest_when_asked_to() {
        let migrator = Scripted::new(&[("b", Act::Fail("23505"))]);
        assert_eq!(
            run(&migrator, &["a", "b", "c"], 1, OnFailure::Stop).await,
            ["a migrated", "b failed", "c not started: EarlierFailure"]
        );
    }

    #[tokio::test]
    async fn a_missing_schema_does_not_stop_the_others() {
        let migrator = Scripted::new(&[("a", Act::Missing)]);
        assert_eq!(
            run(&migrator, &["a", "b"], 1, OnFailure::Stop).await,
            ["a failed", "b migrated"]
        );
    }

    #[tokio::test]
    async fn a_full_disk_ends_the_run_even_when_it_should_continue() {
        let migrator = Scripted::new(&[("a", Act::Fail("53100"))]);
        assert_eq!(
            run(&migrator, &["a", "b"], 1, OnFailure::Continue).await,
            ["a failed", "b not started: EarlierFailure"]
        );
    }

    #[tokio::test]
    async fn a_panic_is_that_targets_failure() {
        let migrator = Scripted::new(&[("a", Act::Panic)]);
        assert_eq!(
            run(&migrator, &["a", "b"], 2, OnFailure::Continue).await,
            ["a panicked: scripted", "b migrated"]
        );
    }

    #[tokio::test]
    async fn the_first_interrupt_lets_the_running_finish_and_the_second_cancels_them() {
        for (presses, running) in [(1, "a migrated"), (2, "a skipped: Interrupted")] {
            let migrator = Scripted::new(&[("a", Act::Block)]);
            let (interrupter, interrupts) = Interrupts::new();
            let fleet = Fleet {
                pace: fixed(1),
                on_failure: OnFailure::Stop,
                interrupts,
            };
            let (progress, mut events) = Progress::channel();
            let work = {
                let migrator = Arc::clone(&migrator);
                tokio::spawn(async move {
                    let mut course = Course::new(fleet.pace.clone());
                    course.of = 2;
                    fleet
                        .run(&migrator, &targets(&["a", "b"]), &mut course, &progress)
                        .await
                })
            };
            let started = events.recv().await.expect("an event");
            assert!(matches!(
                started.kind,
                EventKind::SchemaStarted { number: 1, of: 2 }
            ));
            for _ in 0..presses {
                interrupter.raise();
            }
            if presses == 1 {
                migrator.release.notify_one();
            }
            let outcomes = work.await.expect("no panic");
            assert_eq!(
                words(&["a", "b"], &outcomes),
                [running, "b not started: Interrupted"]
            );
        }
    }
}
