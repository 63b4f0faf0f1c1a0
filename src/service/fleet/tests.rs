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
    pub(crate) started: Mutex<Vec<String>>,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) most_in_flight: AtomicUsize,
    /// How many it takes together.
    together: usize,
    /// Those that were done together.
    groups: Mutex<Vec<Vec<String>>>,
}

impl Scripted {
    pub(crate) fn new(acts: &[(&str, Act)]) -> Arc<Self> {
        Self::taking(1, acts)
    }

    /// The same, which takes so many at once.
    fn taking(together: usize, acts: &[(&str, Act)]) -> Arc<Self> {
        Arc::new(Self {
            together,
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
        GroupLimit { schemas: self.together, time: Duration::MAX }
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

/// Runs the fleet to its end, and returns the outcomes and everything that was told.
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
async fn contention_halves_an_adaptive_pace_and_calm_brings_it_back() {
    let slugs = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let collisions = [("a", Act::Collide), ("b", Act::Collide)];
    let adaptive = ConcurrencyLimit::adaptive(NonZeroUsize::new(4).expect("not 0"));
    assert_eq!(changes(adaptive, &collisions, &slugs).await, [2, 3, 4]);
    assert_eq!(changes(fixed(4), &collisions, &slugs).await, Vec::<usize>::new());
}

#[tokio::test]
async fn nothing_begins_once_the_limit_of_failures_is_reached_and_what_runs_ends() {
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
    // Three at a time: when two have failed, at most two more are already under way.
    let outcomes = run(&Scripted::new(&acts), &slugs, 3, two).await;
    let failed = outcomes.iter().filter(|word| word.ends_with("failed"));
    assert!((2..=4).contains(&failed.count()), "{outcomes:?}");
    assert_eq!(outcomes[4], "e not started: TooManyFailures");
}

#[tokio::test]
async fn every_target_gets_one_outcome_in_the_order_given() {
    let migrator = Scripted::new(&[("b", Act::Fail(sqlstate::UNIQUE_VIOLATION))]);
    assert_eq!(
        run(&migrator, &["a", "b", "c"], 3, OnFailure::Continue).await,
        ["a migrated", "b failed", "c migrated"]
    );
}

/// Runs these over one connection, several together, and returns the outcomes and the groups.
async fn run_together(
    acts: &[(&str, Act)],
    slugs: &[&str],
    on_failure: OnFailure,
) -> (Vec<String>, Vec<Vec<String>>) {
    let migrator = Scripted::taking(3, acts);
    let outcomes = run(&migrator, slugs, 1, on_failure).await;
    let groups = migrator.groups.lock().unwrap().clone();
    (outcomes, groups)
}

#[tokio::test]
async fn several_go_together_once_one_went_alone() {
    let slugs = ["a", "b", "c", "d", "e", "f", "g"];
    let (outcomes, groups) = run_together(&[], &slugs, OnFailure::Stop).await;
    assert_eq!(groups, [vec!["b", "c"], vec!["d", "e", "f"]]);
    let migrated: Vec<String> = slugs.iter().map(|slug| format!("{slug} migrated")).collect();
    assert_eq!(outcomes, migrated);
}

#[tokio::test]
async fn what_is_given_back_undone_goes_one_by_one_and_ends_as_it_would_have() {
    let slugs = ["a", "b", "c", "d", "e", "f", "g"];
    for (act, word) in
        [(Act::Fail(sqlstate::UNIQUE_VIOLATION), "failed"), (Act::Panic, "panicked: scripted")]
    {
        let acts = [("e", act)];
        let (outcomes, groups) = run_together(&acts, &slugs, OnFailure::Stop).await;
        assert_eq!(groups, [vec!["b", "c"]]);
        let failed = format!("e {word}");
        let left = "not started: EarlierFailure";
        assert_eq!(
            outcomes,
            [
                "a migrated",
                "b migrated",
                "c migrated",
                "d migrated",
                failed.as_str(),
                &format!("f {left}"),
                &format!("g {left}"),
            ]
        );
    }
}

#[tokio::test]
async fn each_of_several_has_its_story_told_as_if_it_were_alone() {
    let migrator = Scripted::taking(3, &[]);
    let slugs = ["a", "b", "c"];
    let (_, events) = emitted(&migrator, &slugs, fixed(1), OnFailure::Stop).await;
    let stories: Vec<String> = events
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
        stories,
        ["a started 1", "a finished", "b started 2", "b finished", "c started 3", "c finished"]
    );
}

#[tokio::test]
async fn an_empty_fleet_is_no_error() {
    assert!(run(&Scripted::new(&[]), &[], 3, OnFailure::Stop).await.is_empty());
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
async fn a_failure_stops_the_rest_when_asked_to() {
    let migrator = Scripted::new(&[("b", Act::Fail(sqlstate::UNIQUE_VIOLATION))]);
    assert_eq!(
        run(&migrator, &["a", "b", "c"], 1, OnFailure::Stop).await,
        ["a migrated", "b failed", "c not started: EarlierFailure"]
    );
}

#[tokio::test]
async fn a_missing_schema_does_not_stop_the_others() {
    let migrator = Scripted::new(&[("a", Act::Missing)]);
    assert_eq!(run(&migrator, &["a", "b"], 1, OnFailure::Stop).await, ["a failed", "b migrated"]);
}

#[tokio::test]
async fn a_full_disk_ends_the_run_even_when_it_should_continue() {
    let migrator = Scripted::new(&[("a", Act::Fail(sqlstate::DISK_FULL))]);
    assert_eq!(
        run(&migrator, &["a", "b"], 1, OnFailure::Continue).await,
        ["a failed", "b not started: DiskFull"]
    );
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_the_run() {
    let migrator = Scripted::new(&[("a", Act::Fail(sqlstate::ADMIN_SHUTDOWN))]);
    assert_eq!(
        run(&migrator, &["a", "b"], 1, OnFailure::Continue).await,
        ["a failed", "b not started: ServerUnavailable"]
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
