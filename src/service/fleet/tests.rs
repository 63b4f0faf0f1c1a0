//! Scheduling, tested with a scripted migrator.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Notify;

use super::*;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::service::event::Event;
use crate::service::failure::ServerError;

/// What the scripted migrator does in a schema.
#[derive(Clone)]
pub(crate) enum Act {
    Migrate,
    Fail(&'static str),
    Missing,
    Panic,
    /// Reports lock contention once, then migrates.
    Collide,
    /// Waits until the test releases it, or until it is cancelled.
    Block,
}

/// A migrator that does what the test scripts, so that scheduling is tested without a server.
#[derive(Default)]
pub(crate) struct Scripted {
    pub(crate) acts: HashMap<String, Act>,
    pub(crate) release: Notify,
    pub(crate) started: Mutex<Vec<String>>,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) most_in_flight: AtomicUsize,
    /// The size of its groups.
    group_size: usize,
    /// The groups that were committed.
    groups: Mutex<Vec<Vec<String>>>,
}

impl Scripted {
    pub(crate) fn new(acts: &[(&str, Act)]) -> Arc<Self> {
        Self::grouped(1, acts)
    }

    fn grouped(group_size: usize, acts: &[(&str, Act)]) -> Arc<Self> {
        Arc::new(Self {
            group_size,
            acts: acts.iter().map(|(schema, act)| ((*schema).to_owned(), act.clone())).collect(),
            ..Self::default()
        })
    }
}

impl SchemaMigrator for Scripted {
    async fn survey(&self, targets: &[Arc<Target>]) -> Result<Vec<SchemaState>, MigrateError> {
        let pending = crate::domain::plan::Plan { pending: vec![0], ..Default::default() };
        Ok(targets
            .iter()
            .map(|target| match self.acts.get(target.schema.as_str()) {
                Some(Act::Missing) => SchemaState::Missing,
                _ => SchemaState::Known(pending.clone()),
            })
            .collect())
    }
}

impl SchemaJob for Scripted {
    async fn run(
        &self,
        target: &Target,
        progress: &Progress,
        mut interrupts: Interrupts,
    ) -> JobResult {
        self.started.lock().unwrap().push(target.label.clone());
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let act = self.acts.get(target.schema.as_str()).unwrap_or(&Act::Migrate);
        let result = match act {
            Act::Migrate => Ok(JobSuccess::Migrated(Vec::new())),
            Act::Missing => Err(MigrateError::SchemaMissing.into()),
            Act::Collide => {
                progress.send(EventKind::Retrying {
                    attempt: 1,
                    limit: 5,
                    error: ServerError {
                        sqlstate: Some(sqlstate::DEADLOCK_DETECTED.to_owned()),
                        ..ServerError::default()
                    },
                    blockers: Vec::new(),
                    pause: Duration::ZERO,
                });
                Ok(JobSuccess::Migrated(Vec::new()))
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
                () = self.release.notified() => Ok(JobSuccess::Migrated(Vec::new())),
                () = interrupts.reaches(Interrupt::Cancel) => Ok(JobSuccess::Skipped(Skipped::Interrupted)),
            },
        };
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn group_limit(&self) -> GroupLimit {
        GroupLimit { schemas: self.group_size, time: Duration::MAX }
    }

    async fn run_group(
        &self,
        members: &[GroupMember],
        _interrupts: Interrupts,
    ) -> Option<Vec<JobResult>> {
        let act = |member: &GroupMember| self.acts.get(member.target.schema.as_str());
        assert!(!members.iter().any(|member| matches!(act(member), Some(Act::Panic))), "scripted");
        if members.iter().any(|member| act(member).is_some()) {
            return None;
        }
        let labels = members.iter().map(|member| member.target.label.clone());
        self.groups.lock().unwrap().push(labels.collect());
        Some(vec![Ok(JobSuccess::Migrated(Vec::new())); members.len()])
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

/// Runs the fleet to its end, and returns the outcomes and the events.
async fn emitted(
    migrator: &Arc<Scripted>,
    slugs: &[&str],
    concurrency: ConcurrencyLimit,
    on_failure: OnFailure,
) -> (Vec<String>, Vec<Event>) {
    let (_interrupter, interrupts) = Interrupts::new();
    let fleet = Fleet { concurrency, on_failure, interrupts };
    let (progress, mut happening) = Progress::channel();
    let mut state = RunState::new(fleet.concurrency.clone());
    let outcomes = fleet.run(migrator, &targets(slugs), &mut state, &progress).await;
    let mut events = Vec::new();
    while let Ok(event) = happening.try_recv() {
        events.push(event);
    }
    (words(slugs, &outcomes), events)
}

async fn run(
    migrator: &Arc<Scripted>,
    slugs: &[&str],
    jobs: usize,
    on_failure: OnFailure,
) -> Vec<String> {
    emitted(migrator, slugs, fixed(jobs), on_failure).await.0
}

fn fixed(jobs: usize) -> ConcurrencyLimit {
    ConcurrencyLimit::fixed(NonZeroUsize::new(jobs).expect("not 0"))
}

/// Returns how many jobs there were after each change.
async fn changes(pace: ConcurrencyLimit, acts: &[(&str, Act)], slugs: &[&str]) -> Vec<usize> {
    let (_, events) = emitted(&Scripted::new(acts), slugs, pace, OnFailure::Stop).await;
    events
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::JobsChanged { jobs, most: 4 } => Some(jobs),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn contention_halves_the_limit_and_its_absence_restores_it() {
    let slugs = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let collisions = [("a", Act::Collide), ("b", Act::Collide)];
    let adaptive = ConcurrencyLimit::adaptive(NonZeroUsize::new(4).expect("not 0"));
    assert_eq!(changes(adaptive, &collisions, &slugs).await, [2, 3, 4]);
    assert_eq!(changes(fixed(4), &collisions, &slugs).await, Vec::<usize>::new());
}

#[tokio::test]
async fn the_limit_of_failures_starts_nothing_new() {
    let acts = ["a", "b", "c", "d", "e"].map(|slug| (slug, Act::Fail(sqlstate::UNIQUE_VIOLATION)));
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
    // Three at a time: when two have failed, at most two more are running.
    let outcomes = run(&Scripted::new(&acts), &slugs, 3, two).await;
    let failed = outcomes.iter().filter(|word| word.ends_with("failed"));
    assert!((2..=4).contains(&failed.count()), "{outcomes:?}");
    assert_eq!(outcomes[4], "e not started: TooManyFailures");
}

#[tokio::test]
async fn a_group_that_is_rolled_back_runs_one_by_one() {
    let slugs = ["a", "b", "c", "d", "e", "f", "g"];
    let groups_of = async |acts: &[(&str, Act)]| {
        let migrator = Scripted::grouped(3, acts);
        let outcomes = run(&migrator, &slugs, 1, OnFailure::Stop).await;
        (outcomes, migrator.groups.lock().unwrap().clone())
    };
    let expected = |words: [&str; 3]| {
        let all = ["migrated", "migrated", "migrated", "migrated", words[0], words[1], words[2]];
        slugs.iter().zip(all).map(|(slug, word)| format!("{slug} {word}")).collect::<Vec<_>>()
    };
    let (outcomes, groups) = groups_of(&[]).await;
    assert_eq!(groups, [vec!["b", "c"], vec!["d", "e", "f"]]);
    assert_eq!(outcomes, expected(["migrated"; 3]));
    for (act, word) in
        [(Act::Fail(sqlstate::UNIQUE_VIOLATION), "failed"), (Act::Panic, "panicked: scripted")]
    {
        let (outcomes, groups) = groups_of(&[("e", act)]).await;
        assert_eq!(groups, [vec!["b", "c"]]);
        let not_started = "not started: EarlierFailure";
        assert_eq!(outcomes, expected([word, not_started, not_started]));
    }
}

#[tokio::test]
async fn the_events_of_a_group_read_as_if_each_ran_alone() {
    let migrator = Scripted::grouped(3, &[]);
    let slugs = ["a", "b", "c"];
    let (_, events) = emitted(&migrator, &slugs, fixed(1), OnFailure::Stop).await;
    let emitted: Vec<String> = events
        .into_iter()
        .map(|event| {
            let label = event.target.map(|target| target.label.clone());
            let what = match event.kind {
                EventKind::SchemaStarted { number, .. } => format!("started {number}"),
                EventKind::SchemaFinished { .. } => "finished".to_owned(),
                other => format!("{other:?}"),
            };
            format!("{} {what}", label.unwrap_or_default())
        })
        .collect();
    assert_eq!(
        emitted,
        ["a started 1", "a finished", "b started 2", "b finished", "c started 3", "c finished"]
    );
}

#[tokio::test]
async fn the_kind_of_a_failure_decides_about_the_rest() {
    use OnFailure::{Continue, Stop};
    let duplicate = Act::Fail(sqlstate::UNIQUE_VIOLATION);
    for (act, on_failure, first, second) in [
        (duplicate.clone(), Continue, "failed", "migrated"),
        (duplicate, Stop, "failed", "not started: EarlierFailure"),
        (Act::Missing, Stop, "failed", "migrated"),
        (Act::Panic, Continue, "panicked: scripted", "migrated"),
        (Act::Fail(sqlstate::DISK_FULL), Continue, "failed", "not started: DiskFull"),
        (Act::Fail(sqlstate::ADMIN_SHUTDOWN), Continue, "failed", "not started: ServerUnavailable"),
    ] {
        let outcomes = run(&Scripted::new(&[("a", act)]), &["a", "b"], 1, on_failure).await;
        assert_eq!(outcomes, [format!("a {first}"), format!("b {second}")]);
    }
    assert!(run(&Scripted::new(&[]), &[], 3, Stop).await.is_empty());
}

#[tokio::test]
async fn never_more_than_jobs_are_in_flight() {
    let migrator = Scripted::new(&[]);
    let slugs: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    run(&migrator, &slugs, 4, OnFailure::Stop).await;
    assert_eq!(migrator.most_in_flight.load(Ordering::SeqCst), 4);
    assert_eq!(migrator.started.lock().unwrap().len(), 50);
}

#[tokio::test]
async fn the_first_interrupt_drains_and_the_second_cancels() {
    for (presses, running) in [(1, "a migrated"), (2, "a skipped: Interrupted")] {
        let migrator = Scripted::new(&[("a", Act::Block)]);
        let (interrupter, interrupts) = Interrupts::new();
        let fleet = Fleet { concurrency: fixed(1), on_failure: OnFailure::Stop, interrupts };
        let (progress, mut events) = Progress::channel();
        let work = {
            let migrator = Arc::clone(&migrator);
            tokio::spawn(async move {
                let mut state = RunState::new(fleet.concurrency.clone());
                state.of = 2;
                fleet.run(&migrator, &targets(&["a", "b"]), &mut state, &progress).await
            })
        };
        let started = events.recv().await.expect("an event");
        assert!(matches!(started.kind, EventKind::SchemaStarted { number: 1, of: 2 }));
        for _ in 0..presses {
            interrupter.raise();
        }
        if presses == 1 {
            migrator.release.notify_one();
        }
        let outcomes = work.await.expect("no panic");
        assert_eq!(words(&["a", "b"], &outcomes), [running, "b not started: Interrupted"]);
    }
}
