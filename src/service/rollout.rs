//! A run of migrations: `public` first and alone, then the tenants, then tenants created meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{EventKind, Interrupt, NotStarted, Operation, Outcome, Progress, Skipped};
use super::failure::{MigrateError, ServerError};
use super::fleet::{Fleet, SchemaMigrator};
use super::run_state::RunState;
use super::selection::{Selection, SelectionError, target};
use super::stages::{StageKind, Stages};
use super::summary::{SchemaOutcome, Summary};
use crate::domain::catalog::{CatalogError, TenantCatalog};
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::SchemaState;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::domain::tenant::{RefusedRow, TenantList};

/// Which schemas a run is about.
#[derive(Clone, Debug)]
pub enum Scopes {
    /// `public` alone.
    Shared,
    /// These tenants, and not `public`.
    Selected(Selection),
    /// The schemas of an earlier run that did not succeed.
    Retry {
        /// Whether `public` is one of them; it is migrated first.
        public: bool,
        /// The tenants among them.
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
            Self::Retry { public, .. } => *public,
        }
    }
}

/// The interval of [`EventKind::Pausing`].
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The tenants could not be listed.
    #[error("{0}")]
    Catalog(CatalogError),
    /// The selection names no tenant.
    #[error("{0}")]
    Selection(SelectionError),
    /// The histories could not be read.
    #[error("{}", survey_failed(.0))]
    Survey(MigrateError),
}

fn survey_failed(error: &MigrateError) -> String {
    match error {
        MigrateError::Database { doing, error } | MigrateError::InDoubt { doing, error } => {
            format!("{doing} failed: {error}")
        }
        _ => "the histories could not be read".to_owned(),
    }
}

/// A schema and its state before the run.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// The schema.
    pub target: Arc<Target>,
    /// Its state.
    pub state: SchemaState,
    /// Whether it is a canary.
    pub canary: bool,
}

/// Every selected schema with its state, `public` first.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The schemas.
    pub schemas: Vec<Surveyed>,
    /// Rows of the tenant table whose schema name is not usable.
    pub refused: Vec<RefusedRow>,
}

impl Survey {
    /// Returns how many schemas have pending migrations.
    pub fn pending(&self) -> usize {
        let has_work = |item: &&Surveyed| matches!(&item.state, SchemaState::Known(plan) if !plan.pending.is_empty());
        self.schemas.iter().filter(has_work).count()
    }
}

/// A run of migrations that can be started.
#[derive(Debug)]
pub struct Rollout<'a, M, C> {
    /// Migrates the schemas.
    pub migrator: &'a Arc<M>,
    /// Lists the tenants.
    pub catalog: &'a C,
    /// How many schemas at once, and what a failure means.
    pub fleet: Fleet,
    /// Which schemas.
    pub scopes: Scopes,
    /// The stages: canaries, batches, pauses.
    pub stages: Stages,
    /// What the migrator does with pending migrations.
    pub work: Operation,
}

impl<M: SchemaMigrator, C: TenantCatalog> Rollout<'_, M, C> {
    /// Returns every selected schema with its state. Only reads.
    ///
    /// # Errors
    ///
    /// [`RolloutError`]. Missing tenant tables are not an error where `public` is migrated first:
    /// there are no tenants yet.
    pub async fn survey(&self) -> Result<Survey, RolloutError> {
        let public =
            if self.scopes.have_public() { vec![Arc::new(Target::public())] } else { Vec::new() };
        match self.scopes {
            Scopes::Shared => Ok(Survey {
                schemas: self.read_states(public, vec![false]).await?,
                refused: Vec::new(),
            }),
            _ => self.tenants(public, &HashSet::new()).await,
        }
    }

    /// Migrates the schemas of a survey, and returns one outcome for every selected schema.
    ///
    /// # Errors
    ///
    /// [`RolloutError`], before any tenant is changed. Later failures are in the summary.
    pub async fn run(&self, survey: Survey, progress: &Progress) -> Result<Summary, RolloutError> {
        let pending = survey.pending();
        let Survey { mut schemas, refused } = survey;
        let mut run = RolloutProgress {
            refused,
            outcomes: Vec::with_capacity(schemas.len()),
            state: RunState::new(self.fleet.concurrency.clone()),
        };
        progress.send(EventKind::RunStarted {
            work: self.work,
            schemas: schemas.len(),
            pending,
            jobs: self.jobs_for(pending),
        });
        let all_at_once = Stages::default();
        if schemas.first().is_some_and(|first| first.target.schema.is_public()) {
            let tenants = schemas.split_off(1);
            self.migrate(schemas, &all_at_once, &mut run, progress).await;
            schemas = match &run.outcomes[0].outcome {
                Outcome::UpToDate => tenants,
                Outcome::Migrated { .. } if matches!(self.scopes, Scopes::Shared) => Vec::new(),
                Outcome::Migrated { .. } if self.work == Operation::DRY_RUN => tenants,
                Outcome::Migrated { .. } => self.tenants_after_public(&mut run, progress).await?,
                _ => {
                    let is_interrupted = self.fleet.interrupts.level() > Interrupt::None;
                    let why = if is_interrupted {
                        NotStarted::Interrupted
                    } else {
                        NotStarted::PublicFailed
                    };
                    run.outcomes.extend(tenants.into_iter().map(|item| SchemaOutcome {
                        target: item.target,
                        outcome: Outcome::NotStarted { why },
                    }));
                    Vec::new()
                }
            };
        }
        self.migrate(schemas, &self.stages, &mut run, progress).await;
        if matches!(self.scopes, Scopes::Everything) {
            self.migrate_new_tenants(&mut run, progress).await;
        }
        Ok(Summary {
            work: self.work,
            outcomes: run.outcomes,
            refused: run.refused,
            took: progress.elapsed(),
            interrupted: self.fleet.interrupts.level(),
            ..Summary::default()
        })
    }

    /// Lists the tenants again: shared migrations may have created the tenant tables or added
    /// tenants.
    async fn tenants_after_public(
        &self,
        run: &mut RolloutProgress,
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

    /// Migrates tenants that other processes created during the run, perhaps from older files, until
    /// the catalog lists no further one.
    async fn migrate_new_tenants(&self, run: &mut RolloutProgress, progress: &Progress) {
        let migrated = |item: &SchemaOutcome| matches!(item.outcome, Outcome::Migrated { .. });
        let unfinished = |item: &SchemaOutcome| matches!(item.outcome, Outcome::NotStarted { .. });
        while run.outcomes.iter().any(migrated) && !run.outcomes.iter().any(unfinished) {
            let seen: HashSet<&SchemaName> =
                run.outcomes.iter().map(|item| &item.target.schema).collect();
            // The run itself has ended; failing it now would misreport it.
            let Ok(created) = self.tenants(Vec::new(), &seen).await else {
                return;
            };
            if created.schemas.is_empty() {
                return;
            }
            self.migrate(created.schemas, &Stages::default(), run, progress).await;
        }
    }

    /// Returns these targets, followed by the selected tenants whose schemas are not in `seen`.
    async fn tenants(
        &self,
        before: Vec<Arc<Target>>,
        seen: &HashSet<&SchemaName>,
    ) -> Result<Survey, RolloutError> {
        let all = Selection::default();
        let selection = match &self.scopes {
            Scopes::Selected(tenants) | Scopes::Retry { tenants, .. } => tenants,
            Scopes::Shared | Scopes::Everything => &all,
        };
        // Hosts are only needed to match names with them.
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
        // Frees hosts and names of thousands of tenants before their histories are read.
        let mut canaries = vec![false; before.len()];
        let mut targets = before;
        {
            let chosen =
                selection.choose(list.tenants, &list.refused).map_err(RolloutError::Selection)?;
            let are_canaries = self.stages.canary.among(&chosen);
            let are_canaries = are_canaries.map_err(RolloutError::Selection)?;
            for (tenant, is_canary) in chosen.iter().zip(are_canaries) {
                if !seen.contains(&tenant.schema) {
                    targets.push(target(tenant));
                    canaries.push(is_canary);
                }
            }
        }
        let refused = if selection.is_everything() { list.refused } else { Vec::new() };
        Ok(Survey { schemas: self.read_states(targets, canaries).await?, refused })
    }

    async fn read_states(
        &self,
        targets: Vec<Arc<Target>>,
        canaries: Vec<bool>,
    ) -> Result<Vec<Surveyed>, RolloutError> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let states = self.migrator.survey(&targets).await.map_err(RolloutError::Survey)?;
        let surveyed = |((target, state), canary)| Surveyed { target, state, canary };
        Ok(targets.into_iter().zip(states).zip(canaries).map(surveyed).collect())
    }

    /// Records schemas without work, and migrates the rest stage by stage.
    async fn migrate(
        &self,
        schemas: Vec<Surveyed>,
        stages: &Stages,
        run: &mut RolloutProgress,
        progress: &Progress,
    ) {
        let first = run.outcomes.len();
        let (mut work, mut canaries) = (Vec::new(), Vec::new());
        for (position, item) in schemas.into_iter().enumerate() {
            let outcome = outcome_without_work(item.state);
            if let Some(outcome @ Outcome::Failed { .. }) = &outcome {
                run.state.canary = item.canary;
                run.state.record(outcome, self.fleet.on_failure);
                progress
                    .of(&item.target)
                    .send(EventKind::SchemaFinished { outcome: outcome.clone() });
            }
            if outcome.is_none() {
                work.push(first + position);
                canaries.push(item.canary);
            }
            run.outcomes.push(SchemaOutcome {
                target: item.target,
                outcome: outcome.unwrap_or(Outcome::NotStarted { why: NotStarted::Interrupted }),
            });
        }
        run.state.before = 0;
        run.state.of = work.len();
        let cut = stages.cut(&canaries);
        let of = cut.len();
        for (number, stage) in (1..).zip(cut) {
            if number > 1 {
                self.pause(stages.pause, (number, of), &mut run.state, progress).await;
            }
            run.state.canary = stage.kind == StageKind::Canary;
            let members: Vec<usize> = stage.members.iter().map(|&member| work[member]).collect();
            if of > 1 && run.state.halted().is_none() {
                progress.send(EventKind::StageStarted {
                    stage: stage.kind,
                    number,
                    of,
                    schemas: members.len(),
                });
            }
            let targets: Vec<_> =
                members.iter().map(|&member| Arc::clone(&run.outcomes[member].target)).collect();
            let outcomes = self.fleet.run(self.migrator, &targets, &mut run.state, progress).await;
            run.state.before += members.len();
            for (member, outcome) in members.into_iter().zip(outcomes) {
                run.outcomes[member].outcome = outcome;
            }
        }
    }

    /// Waits between two stages; an interrupt halts the run.
    async fn pause(
        &self,
        pause: Duration,
        (before, of): (usize, usize),
        state: &mut RunState,
        progress: &Progress,
    ) {
        let end = Instant::now() + pause;
        let mut interrupts = self.fleet.interrupts.clone();
        while state.halted().is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            progress.send(EventKind::Pausing { before, of, left });
            tokio::select! {
                () = tokio::time::sleep(left.min(REPORT_INTERVAL)) => {}
                () = interrupts.reaches(Interrupt::Drain) => state.halt(NotStarted::Interrupted),
            }
        }
    }

    fn jobs_for(&self, pending: usize) -> usize {
        self.fleet.concurrency.jobs().min(pending.max(1))
    }
}

/// Outcomes and state of a rollout that runs.
struct RolloutProgress {
    outcomes: Vec<SchemaOutcome>,
    refused: Vec<RefusedRow>,
    state: RunState,
}

/// Returns the outcome of a schema without work, or `None` where migrations are pending.
fn outcome_without_work(state: SchemaState) -> Option<Outcome> {
    let error = match state {
        SchemaState::Known(plan) if plan.pending.is_empty() => return Some(Outcome::UpToDate),
        SchemaState::Known(_) => return None,
        SchemaState::Dropping => return Some(Outcome::Skipped { why: Skipped::Dropping }),
        SchemaState::Dropped => return Some(Outcome::Skipped { why: Skipped::Dropped }),
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
    Some(Outcome::Failed { error: Box::new(error), applied: Vec::new() })
}

#[cfg(test)]
mod tests;
