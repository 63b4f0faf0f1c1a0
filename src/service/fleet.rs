//! Runs one unit of work over many schemas: bounded, cancellable, one outcome each.

use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::event::{
    AppliedScript, EventKind, Interrupt, MigrateError, NotStarted, Outcome, Progress,
    SchemaOutcome, Skipped, Target,
};
use crate::domain::plan::{OnFailure, SchemaState};

/// What a migrator did in one schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Something was applied, and is committed.
    Migrated(Vec<AppliedScript>),
    /// Nothing was pending once the lock was held: somebody else had done it.
    UpToDate,
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

/// What the fleet asks of whoever knows how to migrate a schema.
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
    pub jobs: NonZeroUsize,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
    /// Tells when to end early.
    pub interrupts: Interrupts,
}

impl Fleet {
    /// Migrates every target and returns one outcome for each, in the order of `targets`.
    ///
    /// Never more than `jobs` are in flight. A panic in one is that target's failure. After
    /// an interrupt, and after a failure where `on_failure` says so, nothing new begins and
    /// what was not begun is reported as such. A failure that the rest would share (a full
    /// disk, a lost server) ends the run whatever `on_failure` says.
    pub async fn run<M: SchemaMigrator>(
        &self,
        migrator: &Arc<M>,
        targets: Vec<Arc<Target>>,
        progress: &Progress,
    ) -> Vec<SchemaOutcome> {
        let of = targets.len();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; of];
        let mut waiting: VecDeque<usize> = (0..of).collect();
        let mut running: JoinSet<Outcome> = JoinSet::new();
        let mut positions: Vec<(Id, usize)> = Vec::new();
        let mut halt: Option<NotStarted> = None;
        let mut interrupts = self.interrupts.clone();
        loop {
            if halt.is_none() && self.interrupts.level() > Interrupt::None {
                halt = Some(NotStarted::Interrupted);
            }
            while halt.is_none() && running.len() < self.jobs.get() {
                let Some(position) = waiting.pop_front() else {
                    break;
                };
                let target = Arc::clone(&targets[position]);
                let number = if target.schema.is_public() {
                    0
                } else {
                    position + 1
                };
                let work = attempt(
                    Arc::clone(migrator),
                    Arc::clone(&target),
                    progress.of(&target),
                    self.interrupts.clone(),
                    EventKind::SchemaStarted { number, of },
                );
                positions.push((running.spawn(work).id(), position));
            }
            let joined = tokio::select! {
                joined = running.join_next_with_id() => joined,
                // Wakes the loop so that nothing new begins, even while all slots are busy.
                () = interrupts.reaches(Interrupt::Drain), if halt.is_none() => continue,
            };
            let Some(joined) = joined else { break };
            let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let outcome = match joined {
                Ok((_, outcome)) => outcome,
                Err(error) => panicked(error),
            };
            let Some(slot) = positions.iter().position(|(task, _)| *task == id) else {
                continue;
            };
            let (_, position) = positions.swap_remove(slot);
            if let Outcome::Failed { error, .. } = &outcome {
                let stops = self.on_failure == OnFailure::Stop && !error.is_known_beforehand();
                if halt.is_none() && (stops || error.ends_the_run()) {
                    halt = Some(NotStarted::EarlierFailure);
                }
            }
            progress
                .of(&targets[position])
                .send(EventKind::SchemaFinished {
                    outcome: outcome.clone(),
                });
            outcomes[position] = Some(outcome);
        }
        let why = halt.unwrap_or(NotStarted::Interrupted);
        targets
            .into_iter()
            .zip(outcomes)
            .map(|(target, outcome)| SchemaOutcome {
                target,
                outcome: outcome.unwrap_or(Outcome::NotStarted { why }),
            })
            .collect()
    }
}

async fn attempt<M: SchemaMigrator>(
    migrator: Arc<M>,
    target: Arc<Target>,
    progress: Progress,
    interrupts: Interrupts,
    started: EventKind,
) -> Outcome {
    progress.send(started);
    let begun = std::time::Instant::now();
    match migrator.migrate(&target, &progress, interrupts).await {
        Ok(Done::Migrated(scripts)) => Outcome::Migrated {
            scripts,
            took: begun.elapsed(),
        },
        Ok(Done::UpToDate) => Outcome::UpToDate,
        Ok(Done::Skipped(why)) => Outcome::Skipped { why },
        Err(Failed { error, applied }) => Outcome::Failed { error, applied },
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
            _: &Progress,
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

    fn words(outcomes: &[SchemaOutcome]) -> Vec<String> {
        outcomes
            .iter()
            .map(|item| {
                let word = match &item.outcome {
                    Outcome::Migrated { .. } => "migrated".to_owned(),
                    Outcome::UpToDate => "up to date".to_owned(),
                    Outcome::Failed { error, .. } => match &**error {
                        MigrateError::Panicked { message } => format!("panicked: {message}"),
                        _ => "failed".to_owned(),
                    },
                    Outcome::Skipped { why } => format!("skipped: {why:?}"),
                    Outcome::NotStarted { why } => format!("not started: {why:?}"),
                };
                format!("{} {word}", item.target.label)
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
            jobs: NonZeroUsize::new(jobs).expect("not 0"),
            on_failure,
            interrupts,
        };
        let (progress, _events) = Progress::channel();
        words(&fleet.run(migrator, targets(slugs), &progress).await)
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
                jobs: NonZeroUsize::MIN,
                on_failure: OnFailure::Stop,
                interrupts,
            };
            let (progress, mut events) = Progress::channel();
            let work = {
                let migrator = Arc::clone(&migrator);
                tokio::spawn(
                    async move { fleet.run(&migrator, targets(&["a", "b"]), &progress).await },
                )
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
            assert_eq!(words(&outcomes), [running, "b not started: Interrupted"]);
        }
    }
}
