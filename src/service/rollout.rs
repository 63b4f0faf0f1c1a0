//! One run: public first and alone, then the tenants, then those that appeared meanwhile.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{EventKind, Interrupt, NotStarted, Operation, Outcome, Progress, Skipped};
use super::failure::{MigrateError, ServerError};
use super::fleet::{Fleet, SchemaMigrator};
use super::run_state::RunState;
use super::selection::{Selection, SelectionError, target};
use super::stages::{StageKind, Stages};
use super::summary::{SchemaOutcome, Summary};
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::SchemaState;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::domain::tenant::{CatalogError, RefusedRow, TenantCatalog, TenantList};

/// Which schemas a run is about.
#[derive(Clone, Debug)]
pub enum Scopes {
    /// `public` alone.
    Shared,
    /// These tenants, and not `public`.
    Selected(Selection),
    /// What is to be tried again: `public` first if it is among it, and these tenants.
    Again {
        /// Whether `public` is among it.
        public: bool,
        /// The tenants.
        tenants: Selection,
    },
    /// `public`, then every tenant.
    Everything,
}

impl Scopes {
    const fn have_public(&self) -> bool {
        match self {
            Self::Shared | Self::Everything => true,
            Self::Selected(_) => false,
            Self::Again { public, .. } => *public,
        }
    }
}

/// How often the reporter hears how long a pause still is.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Why a run could not begin.
#[derive(Debug)]
pub enum RolloutError {
    /// The tenants could not be listed.
    Catalog(CatalogError),
    /// The selection names nobody.
    Selection(SelectionError),
    /// The histories could not be read.
    Survey(MigrateError),
}

impl fmt::Display for RolloutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalog(error) => error.fmt(f),
            Self::Selection(error) => error.fmt(f),
            Self::Survey(
                MigrateError::Database { doing, error } | MigrateError::InDoubt { doing, error },
            ) => {
                write!(f, "{doing} failed: {error}")
            }
            Self::Survey(_) => f.write_str("the histories could not be read"),
        }
    }
}

impl std::error::Error for RolloutError {}

/// A schema with what a first look at it found.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// The schema.
    pub target: Arc<Target>,
    /// What was found.
    pub state: SchemaState,
    /// Whether it goes first.
    pub canary: bool,
}

/// Every selected schema, `public` first, with what a first look found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The schemas.
    pub schemas: Vec<Surveyed>,
    /// Rows of the tenant table that no run can work on.
    pub refused: Vec<RefusedRow>,
}

impl Survey {
    /// Returns how many schemas have something pending.
    #[must_use]
    pub fn pending(&self) -> usize {
        let has_work = |item: &&Surveyed| matches!(&item.state, SchemaState::Known(plan) if !plan.pending.is_empty());
        self.schemas.iter().filter(has_work).count()
    }
}

/// A run, ready to begin.
#[derive(Debug)]
pub struct Rollout<'a, M, C> {
    /// How schemas are migrated.
    pub migrator: &'a Arc<M>,
    /// Where tenants are listed.
    pub catalog: &'a C,
    /// How many at once, and what a failure means.
    pub fleet: Fleet,
    /// Which schemas.
    pub scopes: Scopes,
    /// In how many steps the tenants are gone through.
    pub stages: Stages,
    /// Whether the migrator rolls everything back in the end, so that what was pending still is.
    pub rehearsal: bool,
}

impl<M: SchemaMigrator, C: TenantCatalog> Rollout<'_, M, C> {
    /// Returns every selected schema with its state. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`RolloutError`]. Where `public` is to be migrated first, missing tenant tables are
    /// no error: there are no tenants yet.
    pub async fn survey(&self) -> Result<Survey, RolloutError> {
        let public = if self.scopes.have_public() {
            vec![Arc::new(Target::public())]
        } else {
            Vec::new()
        };
        match self.scopes {
            Scopes::Shared => Ok(Survey {
                schemas: self.look_at(public, vec![false]).await?,
                refused: Vec::new(),
            }),
            _ => self.tenants(public, &HashSet::new()).await,
        }
    }

    /// Runs from what a survey found, and returns one outcome for every selected schema.
    ///
    /// # Errors
    ///
    /// [`RolloutError`], before any tenant was changed. What fails later is in the summary.
    pub async fn run(&self, survey: Survey, progress: &Progress) -> Result<Summary, RolloutError> {
        let pending = survey.pending();
        let Survey {
            mut schemas,
            refused,
        } = survey;
        let mut run = Run {
            refused,
            outcomes: Vec::with_capacity(schemas.len()),
            course: RunState::new(self.fleet.concurrency.clone()),
        };
        progress.send(EventKind::RunStarted {
            work: self.work(),
            schemas: schemas.len(),
            pending,
            jobs: self.jobs_for(pending),
        });
        let together = Stages::default();
        if schemas
            .first()
            .is_some_and(|first| first.target.schema.is_public())
        {
            let tenants = schemas.split_off(1);
            self.work_on(schemas, &together, &mut run, progress).await;
            schemas = match &run.outcomes[0].outcome {
                Outcome::UpToDate => tenants,
                Outcome::Migrated { .. } if matches!(self.scopes, Scopes::Shared) => Vec::new(),
                Outcome::Migrated { .. } if self.rehearsal => tenants,
                Outcome::Migrated { .. } => self.tenants_after_public(&mut run, progress).await?,
                _ => {
                    run.leave(tenants, self.interrupted_or(NotStarted::PublicFailed));
                    Vec::new()
                }
            };
        }
        self.work_on(schemas, &self.stages, &mut run, progress)
            .await;
        if matches!(self.scopes, Scopes::Everything) {
            self.pick_up_newcomers(&mut run, progress).await;
        }
        Ok(Summary {
            work: self.work(),
            run: None,
            outcomes: run.outcomes,
            refused: run.refused,
            took: progress.elapsed(),
            interrupted: self.fleet.interrupts.level(),
            command: None,
            options: String::new(),
            program: None,
        })
    }

    fn work(&self) -> Operation {
        if self.rehearsal {
            Operation::DRY_RUN
        } else {
            Operation::MIGRATION
        }
    }

    /// The tenant tables may only just have been created, and shared migrations may have
    /// added tenants, so the list that was read before `public` is read anew.
    async fn tenants_after_public(
        &self,
        run: &mut Run,
        progress: &Progress,
    ) -> Result<Vec<Surveyed>, RolloutError> {
        let survey = self.tenants(Vec::new(), &HashSet::new()).await?;
        let pending = survey.pending();
        progress.send(EventKind::TenantsFound {
            schemas: survey.schemas.len() + 1,
            pending: pending + 1,
            jobs: self.jobs_for(pending),
        });
        run.refused = survey.refused;
        Ok(survey.schemas)
    }

    /// A tenant that another process created while this run was under way may have been
    /// created from older files, so the catalog is read again until it shows nobody new.
    async fn pick_up_newcomers(&self, run: &mut Run, progress: &Progress) {
        let migrated = |item: &SchemaOutcome| matches!(item.outcome, Outcome::Migrated { .. });
        let unfinished = |item: &SchemaOutcome| matches!(item.outcome, Outcome::NotStarted { .. });
        while run.outcomes.iter().any(migrated) && !run.outcomes.iter().any(unfinished) {
            let seen: HashSet<&SchemaName> = run
                .outcomes
                .iter()
                .map(|item| &item.target.schema)
                .collect();
            // The run itself is done; a list that cannot be read now is no failure of it.
            let Ok(newcomers) = self.tenants(Vec::new(), &seen).await else {
                return;
            };
            if newcomers.schemas.is_empty() {
                return;
            }
            self.work_on(newcomers.schemas, &Stages::default(), run, progress)
                .await;
        }
    }

    /// Returns these targets, and behind them the selected tenants whose schemas are not among `seen`.
    async fn tenants(
        &self,
        before: Vec<Arc<Target>>,
        seen: &HashSet<&SchemaName>,
    ) -> Result<Survey, RolloutError> {
        let everybody = Selection::default();
        let selection = match &self.scopes {
            Scopes::Selected(tenants) | Scopes::Again { tenants, .. } => tenants,
            Scopes::Shared | Scopes::Everything => &everybody,
        };
        // Hosts are for finding somebody by.
        let list = if selection.is_everything() && self.stages.canary.is_everything() {
            self.catalog.list_briefly().await
        } else {
            self.catalog.list().await
        };
        let list = match list {
            Ok(list) => list,
            Err(CatalogError::TablesMissing(_)) if self.scopes.have_public() => {
                TenantList::default()
            }
            Err(error) => return Err(RolloutError::Catalog(error)),
        };
        // Hosts and names of thousands of tenants are not kept while their histories are read.
        let mut canaries = vec![false; before.len()];
        let mut targets = before;
        {
            let chosen = selection
                .choose(list.tenants, &list.refused)
                .map_err(RolloutError::Selection)?;
            let are_canaries = self.stages.canary.among(&chosen);
            let are_canaries = are_canaries.map_err(RolloutError::Selection)?;
            for (tenant, is_canary) in chosen.iter().zip(are_canaries) {
                if !seen.contains(&tenant.schema) {
                    targets.push(target(tenant));
                    canaries.push(is_canary);
                }
            }
        }
        let refused = if selection.is_everything() {
            list.refused
        } else {
            Vec::new()
        };
        Ok(Survey {
            schemas: self.look_at(targets, canaries).await?,
            refused,
        })
    }

    async fn look_at(
        &self,
        targets: Vec<Arc<Target>>,
        canaries: Vec<bool>,
    ) -> Result<Vec<Surveyed>, RolloutError> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let states = self
            .migrator
            .survey(&targets)
            .await
            .map_err(RolloutError::Survey)?;
        let surveyed = |((target, state), canary)| Surveyed {
            target,
            state,
            canary,
        };
        Ok(targets
            .into_iter()
            .zip(states)
            .zip(canaries)
            .map(surveyed)
            .collect())
    }

    /// Settles what needs no work, and hands the rest to the fleet, stage by stage.
    async fn work_on(
        &self,
        schemas: Vec<Surveyed>,
        stages: &Stages,
        run: &mut Run,
        progress: &Progress,
    ) {
        let first = run.outcomes.len();
        let (mut work, mut canaries) = (Vec::new(), Vec::new());
        for (position, item) in schemas.into_iter().enumerate() {
            let outcome = outcome_without_work(item.state);
            if let Some(outcome @ Outcome::Failed { .. }) = &outcome {
                run.course.canary = item.canary;
                run.course.judge(outcome, self.fleet.on_failure);
                progress.of(&item.target).send(EventKind::SchemaFinished {
                    outcome: outcome.clone(),
                });
            }
            if outcome.is_none() {
                work.push(first + position);
                canaries.push(item.canary);
            }
            run.outcomes.push(SchemaOutcome {
                target: item.target,
                outcome: outcome.unwrap_or(Outcome::NotStarted {
                    why: NotStarted::Interrupted,
                }),
            });
        }
        run.course.before = 0;
        run.course.of = work.len();
        let cut = stages.cut(&canaries);
        let of = cut.len();
        for (number, stage) in (1..).zip(cut) {
            if number > 1 {
                self.pause(stages.pause, (number, of), &mut run.course, progress)
                    .await;
            }
            run.course.canary = stage.kind == StageKind::Canary;
            let members: Vec<usize> = stage.members.iter().map(|&member| work[member]).collect();
            if of > 1 && run.course.halted().is_none() {
                progress.send(EventKind::StageStarted {
                    stage: stage.kind,
                    number,
                    of,
                    schemas: members.len(),
                });
            }
            let targets: Vec<_> = members
                .iter()
                .map(|&member| Arc::clone(&run.outcomes[member].target))
                .collect();
            let outcomes = self
                .fleet
                .run(self.migrator, &targets, &mut run.course, progress)
                .await;
            run.course.before += members.len();
            for (member, outcome) in members.into_iter().zip(outcomes) {
                run.outcomes[member].outcome = outcome;
            }
        }
    }

    /// Waits between two stages; an interrupt ends the run here.
    async fn pause(
        &self,
        pause: Duration,
        (before, of): (usize, usize),
        course: &mut RunState,
        progress: &Progress,
    ) {
        let end = Instant::now() + pause;
        let mut interrupts = self.fleet.interrupts.clone();
        while course.halted().is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            progress.send(EventKind::Pausing { before, of, left });
            tokio::select! {
                () = tokio::time::sleep(left.min(TELL_EVERY)) => {}
                () = interrupts.reaches(Interrupt::Drain) => course.halt(NotStarted::Interrupted),
            }
        }
    }

    fn jobs_for(&self, pending: usize) -> usize {
        self.fleet.concurrency.jobs().min(pending.max(1))
    }

    fn interrupted_or(&self, why: NotStarted) -> NotStarted {
        if self.fleet.interrupts.level() > Interrupt::None {
            NotStarted::Interrupted
        } else {
            why
        }
    }
}

/// What a run has come to so far.
struct Run {
    outcomes: Vec<SchemaOutcome>,
    refused: Vec<RefusedRow>,
    course: RunState,
}

impl Run {
    fn leave(&mut self, schemas: Vec<Surveyed>, why: NotStarted) {
        self.outcomes
            .extend(schemas.into_iter().map(|item| SchemaOutcome {
                target: item.target,
                outcome: Outcome::NotStarted { why },
            }));
    }
}

/// Returns the outcome of a schema that needs no work, or none where there is work.
fn outcome_without_work(state: SchemaState) -> Option<Outcome> {
    let error = match state {
        SchemaState::Known(plan) if plan.pending.is_empty() => return Some(Outcome::UpToDate),
        SchemaState::Known(_) => return None,
        SchemaState::Dropping => {
            return Some(Outcome::Skipped {
                why: Skipped::Dropping,
            });
        }
        SchemaState::Dropped => {
            return Some(Outcome::Skipped {
                why: Skipped::Dropped,
            });
        }
        SchemaState::Missing => MigrateError::SchemaMissing,
        SchemaState::Drifted(drifts, _) => MigrateError::Drift { drifts },
        SchemaState::Damaged(why) => MigrateError::DamagedHistory { why },
        SchemaState::Locked(who) => MigrateError::Database {
            doing: "reading the history".to_owned(),
            error: ServerError {
                sqlstate: Some(sqlstate::LOCK_NOT_AVAILABLE.to_owned()),
                message: who,
                ..ServerError::default()
            },
        },
    };
    Some(Outcome::Failed {
        error: Box::new(error),
        applied: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Mutex;

    use super::*;
    use crate::domain::run_options::OnFailure;
    use crate::domain::tenant::{Hostname, Tenant};
    use crate::service::concurrency::ConcurrencyLimit;
    use crate::service::fleet::Interrupts;
    use crate::service::fleet::tests::{Act, Scripted};
    use crate::service::selection::tests::tenant;

    /// A catalog in memory that shows one more tenant each time it is read.
    struct Growing(Mutex<Vec<Vec<&'static str>>>);

    impl TenantCatalog for Growing {
        async fn list(&self) -> Result<TenantList, CatalogError> {
            let mut lists = self.0.lock().unwrap();
            let slugs = if lists.len() > 1 {
                lists.remove(0)
            } else {
                lists[0].clone()
            };
            Ok(TenantList {
                tenants: (1..)
                    .zip(slugs)
                    .map(|(id, slug)| tenant(id, slug))
                    .collect(),
                refused: Vec::new(),
            })
        }

        async fn resolve(&self, host: &Hostname) -> Result<Tenant, CatalogError> {
            Err(CatalogError::NotFound(host.to_string()))
        }
    }

    async fn run(acts: &[(&str, Act)], lists: &[&[&'static str]], scopes: Scopes) -> Vec<String> {
        staged(acts, lists, scopes, Stages::default(), OnFailure::Stop)
            .await
            .0
    }

    /// Returns how every schema ended, and what was told of stages and beginnings.
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
            rehearsal: false,
        };
        let (progress, mut events) = Progress::channel();
        let mut told = Vec::new();
        let mut listen = async || {
            while let Some(event) = events.recv().await {
                told.push(match event.kind {
                    EventKind::StageStarted {
                        stage,
                        number,
                        of,
                        schemas,
                    } => format!("{stage:?} {number}/{of}: {schemas}"),
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
                let summary = rollout
                    .run(rollout.survey().await.expect("begins"), &progress)
                    .await;
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
        let summary = summary.expect("begins");
        (summary.outcomes.iter().map(word).collect(), told)
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
    async fn canaries_go_first_and_the_order_of_the_outcomes_stays_the_catalog_s() {
        let everything = Scopes::Everything;
        let (outcomes, told) = staged(
            &[],
            &[&["a", "b", "c"]],
            everything,
            canary(&["c"]),
            OnFailure::Stop,
        )
        .await;
        assert_eq!(outcomes, ["public ok", "a ok", "b ok", "c ok"]);
        assert_eq!(
            told,
            ["0/1", "Canary 1/2: 1", "1/3", "Batch 2/2: 2", "2/3", "3/3"]
        );
    }

    #[tokio::test]
    async fn a_canary_that_fails_ends_the_run_whatever_a_failure_means() {
        for (schema, act) in [
            ("tenant_b", Act::Fail(sqlstate::UNIQUE_VIOLATION)),
            ("tenant_b", Act::Missing),
        ] {
            let (outcomes, _) = staged(
                &[(schema, act)],
                &[&["a", "b", "c"]],
                Scopes::Selected(Selection {
                    exclude: vec!["nobody*".to_owned()],
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
    async fn batches_end_with_the_failure_in_them_when_the_run_stops_at_failures() {
        let stages = || Stages {
            batches: vec!["2".parse().expect("a count")],
            ..Stages::default()
        };
        let acts = [("tenant_b", Act::Fail(sqlstate::UNIQUE_VIOLATION))];
        let lists: [&[&str]; 1] = [&["a", "b", "c", "d"]];
        let (stopped, told) =
            staged(&acts, &lists, Scopes::Everything, stages(), OnFailure::Stop).await;
        assert_eq!(
            stopped,
            [
                "public ok",
                "a ok",
                "b failed",
                "c EarlierFailure",
                "d EarlierFailure"
            ]
        );
        assert_eq!(told, ["0/1", "Batch 1/2: 2", "1/4", "2/4"]);
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
        let (outcomes, told) = staged(
            &[],
            &[&["a", "b"]],
            Scopes::Everything,
            stages,
            OnFailure::Stop,
        )
        .await;
        assert_eq!(outcomes, ["public ok", "a ok", "b Interrupted"]);
        assert_eq!(told, ["0/1", "Batch 1/2: 1", "1/2", "pause before 2/2"]);
    }

    #[tokio::test]
    async fn what_is_tried_again_may_be_public_alone() {
        let again = |public, slugs: &[&str]| {
            let schema = |slug: &&str| SchemaName::parse(&format!("tenant_{slug}")).expect("legal");
            Scopes::Again {
                public,
                tenants: Selection {
                    only: Some(slugs.iter().map(schema).collect()),
                    ..Selection::default()
                },
            }
        };
        let lists: [&[&str]; 1] = [&["a", "b"]];
        assert_eq!(run(&[], &lists, again(true, &[])).await, ["public ok"]);
        assert_eq!(run(&[], &lists, again(false, &["b"])).await, ["b ok"]);
        assert_eq!(
            run(&[], &lists, again(true, &["b"])).await,
            ["public ok", "b ok"]
        );
    }

    #[tokio::test]
    async fn public_comes_first_and_its_failure_ends_the_run_before_any_tenant() {
        assert_eq!(
            run(&[], &[&["a", "b"]], Scopes::Everything).await,
            ["public ok", "a ok", "b ok"]
        );
        assert_eq!(
            run(
                &[("public", Act::Fail(sqlstate::UNDEFINED_TABLE))],
                &[&["a", "b"]],
                Scopes::Everything
            )
            .await,
            ["public failed", "a PublicFailed", "b PublicFailed"]
        );
    }

    #[tokio::test]
    async fn a_tenant_that_appears_during_the_run_is_picked_up() {
        assert_eq!(
            run(
                &[],
                &[&["a"], &["a"], &["a", "b"], &["a", "b", "c"]],
                Scopes::Everything
            )
            .await,
            ["public ok", "a ok", "b ok", "c ok"]
        );
    }

    #[tokio::test]
    async fn a_missing_schema_is_its_tenants_failure_alone() {
        assert_eq!(
            run(
                &[("tenant_a", Act::Missing)],
                &[&["a", "b"]],
                Scopes::Everything
            )
            .await,
            ["public ok", "a failed", "b ok"]
        );
    }

    #[tokio::test]
    async fn shared_means_public_alone_and_a_selection_leaves_public_out() {
        assert_eq!(run(&[], &[&["a"]], Scopes::Shared).await, ["public ok"]);
        let selection = Selection {
            include: vec!["b".to_owned()],
            ..Selection::default()
        };
        assert_eq!(
            run(&[], &[&["a", "b"]], Scopes::Selected(selection)).await,
            ["b ok"]
        );
    }
}
