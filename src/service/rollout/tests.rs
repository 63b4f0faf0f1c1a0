//! Rollouts with a scripted migrator and a catalog in memory.

use std::num::NonZeroUsize;
use std::sync::Mutex;

use super::*;
use crate::domain::run_options::OnFailure;
use crate::domain::tenant::{Hostname, Tenant};
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::fleet::Interrupts;
use crate::service::fleet::tests::{Act, Scripted};
use crate::service::selection::tests::tenant;

/// A catalog in memory that returns the next list each time it is read; the last one stays.
struct Growing(Mutex<Vec<Vec<&'static str>>>);

impl TenantCatalog for Growing {
    async fn list(&self) -> Result<TenantList, CatalogError> {
        let mut lists = self.0.lock().unwrap();
        let slugs = if lists.len() > 1 { lists.remove(0) } else { lists[0].clone() };
        Ok(TenantList {
            tenants: (1..).zip(slugs).map(|(id, slug)| tenant(id, slug)).collect(),
            refused: Vec::new(),
        })
    }

    async fn resolve(&self, host: &Hostname) -> Result<Tenant, CatalogError> {
        Err(CatalogError::NotFound(host.to_string()))
    }
}

async fn run(acts: &[(&str, Act)], lists: &[&[&'static str]], scopes: Scopes) -> Vec<String> {
    staged(acts, lists, scopes, Stages::default(), OnFailure::Stop).await.0
}

/// Returns the outcome of every schema, and the events about stages and starts.
async fn staged(
    acts: &[(&str, Act)],
    lists: &[&[&'static str]],
    scopes: Scopes,
    stages: Stages,
    on_failure: OnFailure,
) -> (Vec<String>, Vec<String>) {
    let migrator = Scripted::new(acts);
    let catalog = Growing(Mutex::new(lists.iter().map(|list| list.to_vec()).collect()));
    let (interrupter, interrupts) = Interrupts::new();
    let rollout = Rollout {
        migrator: &migrator,
        catalog: &catalog,
        fleet: Fleet {
            concurrency: ConcurrencyLimit::fixed(NonZeroUsize::MIN),
            on_failure,
            interrupts,
        },
        scopes,
        stages,
        work: Operation::MIGRATION,
    };
    let (progress, mut events) = Progress::channel();
    let mut emitted = Vec::new();
    let mut listen = async || {
        while let Some(event) = events.recv().await {
            emitted.push(match event.kind {
                EventKind::StageStarted { stage, number, of, schemas } => {
                    format!("{stage:?} {number}/{of}: {schemas}")
                }
                EventKind::SchemaStarted { number, of } => format!("{number}/{of}"),
                EventKind::Pausing { before, of, .. } => {
                    interrupter.raise();
                    format!("pause before {before}/{of}")
                }
                _ => continue,
            });
        }
    };
    let (summary, ()) = tokio::join!(
        async {
            let summary =
                rollout.run(rollout.survey().await.expect("the run starts"), &progress).await;
            drop(progress);
            summary
        },
        listen()
    );
    let word = |item: &SchemaOutcome| match &item.outcome {
        Outcome::Failed { .. } => format!("{} failed", item.target.label),
        Outcome::NotStarted { why } => format!("{} {why:?}", item.target.label),
        _ => format!("{} ok", item.target.label),
    };
    let summary = summary.expect("the run starts");
    (summary.outcomes.iter().map(word).collect(), emitted)
}

fn canary(words: &[&str]) -> Stages {
    Stages {
        canary: Selection {
            include: words.iter().map(|&word| word.to_owned()).collect(),
            ..Selection::default()
        },
        ..Stages::default()
    }
}

#[tokio::test]
async fn canaries_run_first_and_outcomes_keep_the_catalogs_order() {
    let everything = Scopes::Everything;
    let (outcomes, emitted) =
        staged(&[], &[&["a", "b", "c"]], everything, canary(&["c"]), OnFailure::Stop).await;
    assert_eq!(outcomes, ["public ok", "a ok", "b ok", "c ok"]);
    assert_eq!(emitted, ["0/1", "Canary 1/2: 1", "1/3", "Batch 2/2: 2", "2/3", "3/3"]);
}

#[tokio::test]
async fn a_canary_that_fails_ends_the_run_even_with_continue() {
    for (schema, act) in
        [("tenant_b", Act::Fail(sqlstate::UNIQUE_VIOLATION)), ("tenant_b", Act::Missing)]
    {
        let (outcomes, _) = staged(
            &[(schema, act)],
            &[&["a", "b", "c"]],
            Scopes::Selected(Selection {
                exclude: vec!["none*".to_owned()],
                ..Selection::default()
            }),
            canary(&["b", "c"]),
            OnFailure::Continue,
        )
        .await;
        assert_eq!(outcomes, ["a CanaryFailed", "b failed", "c CanaryFailed"]);
    }
}

#[tokio::test]
async fn a_failure_in_a_batch_stops_the_run() {
    let stages = || Stages { batches: vec!["2".parse().expect("a count")], ..Stages::default() };
    let acts = [("tenant_b", Act::Fail(sqlstate::UNIQUE_VIOLATION))];
    let lists: [&[&str]; 1] = [&["a", "b", "c", "d"]];
    let (stopped, emitted) =
        staged(&acts, &lists, Scopes::Everything, stages(), OnFailure::Stop).await;
    assert_eq!(stopped, ["public ok", "a ok", "b failed", "c EarlierFailure", "d EarlierFailure"]);
    assert_eq!(emitted, ["0/1", "Batch 1/2: 2", "1/4", "2/4"]);
    let most = OnFailure::StopAfter(NonZeroUsize::new(2).expect("not 0"));
    let (went_on, _) = staged(&acts, &lists, Scopes::Everything, stages(), most).await;
    assert_eq!(went_on, ["public ok", "a ok", "b failed", "c ok", "d ok"]);
}

#[tokio::test]
async fn an_interrupted_pause_ends_the_run_between_the_stages() {
    let stages = Stages {
        batches: vec!["1".parse().expect("a count")],
        pause: Duration::from_hours(1),
        ..Stages::default()
    };
    let (outcomes, emitted) =
        staged(&[], &[&["a", "b"]], Scopes::Everything, stages, OnFailure::Stop).await;
    assert_eq!(outcomes, ["public ok", "a ok", "b Interrupted"]);
    assert_eq!(emitted, ["0/1", "Batch 1/2: 1", "1/2", "pause before 2/2"]);
}

#[tokio::test]
async fn a_retry_may_be_public_alone() {
    let retry = |public, slugs: &[&str]| {
        let schema = |slug: &&str| SchemaName::parse(&format!("tenant_{slug}")).expect("legal");
        Scopes::Retry {
            public,
            tenants: Selection {
                only: Some(slugs.iter().map(schema).collect()),
                ..Selection::default()
            },
        }
    };
    let lists: [&[&str]; 1] = [&["a", "b"]];
    assert_eq!(run(&[], &lists, retry(true, &[])).await, ["public ok"]);
    assert_eq!(run(&[], &lists, retry(false, &["b"])).await, ["b ok"]);
    assert_eq!(run(&[], &lists, retry(true, &["b"])).await, ["public ok", "b ok"]);
}

#[tokio::test]
async fn public_comes_first_and_created_tenants_last() {
    let check = async |acts: &[(&str, Act)], lists: &[&[&'static str]], scopes, expected: &str| {
        assert_eq!(run(acts, lists, scopes).await.join(", "), expected);
    };
    let public_fails = [("public", Act::Fail(sqlstate::UNDEFINED_TABLE))];
    let two: [&[&'static str]; 1] = [&["a", "b"]];
    let b = Selection { include: vec!["b".to_owned()], ..Selection::default() };
    check(&[], &two, Scopes::Everything, "public ok, a ok, b ok").await;
    check(&[], &two, Scopes::Shared, "public ok").await;
    check(&[], &two, Scopes::Selected(b), "b ok").await;
    let skipped = "public failed, a PublicFailed, b PublicFailed";
    check(&public_fails, &two, Scopes::Everything, skipped).await;
    let missing = [("tenant_a", Act::Missing)];
    check(&missing, &two, Scopes::Everything, "public ok, a failed, b ok").await;
    let growing: [&[&'static str]; 4] = [&["a"], &["a"], &["a", "b"], &["a", "b", "c"]];
    check(&[], &growing, Scopes::Everything, "public ok, a ok, b ok, c ok").await;
}
