//! One run: public first and alone, then the tenants, then those that appeared meanwhile.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::event::{
    EventKind, Interrupt, MigrateError, NotStarted, Outcome, Progress, SchemaOutcome, Summary,
    Target,
};
use super::fleet::{Fleet, SchemaMigrator};
use super::tenants::{Selection, SelectionError, target};
use crate::domain::plan::{OnFailure, SchemaState};
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{CatalogError, RefusedRow, TenantCatalog, TenantList};

/// Which schemas a run is about.
#[derive(Clone, Debug)]
pub enum Scopes {
    /// `public` alone.
    Shared,
    /// These tenants, and not `public`.
    Selected(Selection),
    /// `public`, then every tenant.
    Everything,
}

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
                MigrateError::Database { doing, error } | MigrateError::Unknown { doing, error },
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
}

impl<M: SchemaMigrator, C: TenantCatalog> Rollout<'_, M, C> {
    /// Returns every selected schema with its state. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`RolloutError`]. Where `public` is to be migrated first, missing tenant tables are
    /// no error: there are no tenants yet.
    pub async fn survey(&self) -> Result<Survey, RolloutError> {
        let public = match self.scopes {
            Scopes::Selected(_) => Vec::new(),
            Scopes::Shared | Scopes::Everything => {
                self.look_at(vec![Arc::new(Target::public())]).await?
            }
        };
        let mut survey = match self.scopes {
            Scopes::Shared => Survey::default(),
            _ => self.tenants(&HashSet::new()).await?,
        };
        survey.schemas.splice(0..0, public);
        Ok(survey)
    }

    /// Runs, and returns one outcome for every selected schema.
    ///
    /// # Errors
    ///
    /// [`RolloutError`], before anything was changed. What fails later is in the summary.
    pub async fn run(&self, progress: &Progress) -> Result<Summary, RolloutError> {
        let survey = self.survey().await?;
        let pending = survey.pending();
        let Survey {
            mut schemas,
            refused,
        } = survey;
        let mut run = Run {
            refused,
            outcomes: Vec::with_capacity(schemas.len()),
        };
        progress.send(EventKind::RunStarted {
            schemas: schemas.len(),
            pending,
            jobs: self.jobs_for(pending),
        });
        if schemas
            .first()
            .is_some_and(|first| first.target.schema.is_public())
        {
            let tenants = schemas.split_off(1);
            let public = self.work_on(schemas, progress).await;
            let outcome = public[0].outcome.clone();
            run.outcomes.extend(public);
            schemas = match outcome {
                Outcome::UpToDate => tenants,
                Outcome::Migrated { .. } if matches!(self.scopes, Scopes::Shared) => Vec::new(),
                Outcome::Migrated { .. } => self.tenants_after_public(&mut run, progress).await?,
                _ => {
                    run.leave(tenants, self.interrupted_or(NotStarted::PublicFailed));
                    Vec::new()
                }
            };
        }
        run.outcomes.extend(self.work_on(schemas, progress).await);
        if matches!(self.scopes, Scopes::Everything) {
            self.pick_up_newcomers(&mut run, progress).await;
        }
        Ok(Summary {
            run: None,
            outcomes: run.outcomes,
            refused: run.refused,
            took: progress.elapsed(),
            interrupted: self.fleet.interrupts.level(),
        })
    }

    /// The tenant tables may only just have been created, and shared migrations may have
    /// added tenants, so the list that was read before `public` is read anew.
    async fn tenants_after_public(
        &self,
        run: &mut Run,
        progress: &Progress,
    ) -> Result<Vec<Surveyed>, RolloutError> {
        let survey = self.tenants(&HashSet::new()).await?;
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
            let seen: HashSet<SchemaName> = run
                .outcomes
                .iter()
                .map(|item| item.target.schema.clone())
                .collect();
            // The run itself is done; a list that cannot be read now is no failure of it.
            let Ok(newcomers) = self.tenants(&seen).await else {
                return;
            };
            if newcomers.schemas.is_empty() {
                return;
            }
            run.outcomes
                .extend(self.work_on(newcomers.schemas, progress).await);
        }
    }

    /// Returns the selected tenants whose schemas are not among `seen`.
    async fn tenants(&self, seen: &HashSet<SchemaName>) -> Result<Survey, RolloutError> {
        let list = match (self.catalog.list().await, &self.scopes) {
            (Ok(list), _) => list,
            (Err(CatalogError::TablesMissing(_)), Scopes::Everything) => TenantList::default(),
            (Err(error), _) => return Err(RolloutError::Catalog(error)),
        };
        let (chosen, refused) = match &self.scopes {
            Scopes::Selected(selection) => {
                let chosen = selection
                    .choose(list.tenants)
                    .map_err(RolloutError::Selection)?;
                let refused = if selection.is_everything() {
                    list.refused
                } else {
                    Vec::new()
                };
                (chosen, refused)
            }
            Scopes::Shared | Scopes::Everything => (list.tenants, list.refused),
        };
        let targets = chosen
            .iter()
            .filter(|tenant| !seen.contains(&tenant.schema))
            .map(target)
            .collect();
        Ok(Survey {
            schemas: self.look_at(targets).await?,
            refused,
        })
    }

    async fn look_at(&self, targets: Vec<Arc<Target>>) -> Result<Vec<Surveyed>, RolloutError> {
        let states = self
            .migrator
            .survey(&targets)
            .await
            .map_err(RolloutError::Survey)?;
        let surveyed = |(target, state)| Surveyed { target, state };
        Ok(targets.into_iter().zip(states).map(surveyed).collect())
    }

    /// Settles what needs no work, and hands the rest to the fleet.
    async fn work_on(&self, schemas: Vec<Surveyed>, progress: &Progress) -> Vec<SchemaOutcome> {
        let mut work = Vec::new();
        let mut stopped = false;
        let mut settled: Vec<(Arc<Target>, Option<Outcome>)> = Vec::with_capacity(schemas.len());
        for Surveyed { target, state } in schemas {
            let outcome = outcome_without_work(state);
            match &outcome {
                None => work.push(Arc::clone(&target)),
                Some(Outcome::Failed { error, .. }) => {
                    stopped |=
                        self.fleet.on_failure == OnFailure::Stop && !error.is_known_beforehand();
                    progress.of(&target).send(EventKind::SchemaFinished {
                        outcome: Outcome::Failed {
                            error: error.clone(),
                            applied: Vec::new(),
                        },
                    });
                }
                Some(_) => {}
            }
            settled.push((target, outcome));
        }
        if stopped {
            work.clear();
        }
        let mut done = self
            .fleet
            .run(self.migrator, work, progress)
            .await
            .into_iter();
        let not_started = Outcome::NotStarted {
            why: NotStarted::EarlierFailure,
        };
        settled
            .into_iter()
            .map(|(target, outcome)| SchemaOutcome {
                target,
                outcome: outcome
                    .or_else(|| done.next().map(|item| item.outcome))
                    .unwrap_or_else(|| not_started.clone()),
            })
            .collect()
    }

    fn jobs_for(&self, pending: usize) -> usize {
        self.fleet.jobs.get().min(pending.max(1))
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
        SchemaState::Missing => MigrateError::SchemaMissing,
        SchemaState::Drifted(drifts, _) => MigrateError::Drift { drifts },
        SchemaState::Damaged(why) => MigrateError::DamagedHistory { why },
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
    use crate::domain::tenant::{Hostname, Tenant};
    use crate::service::fleet::Interrupts;
    use crate::service::fleet::tests::{Act, Scripted};
    use crate::service::tenants::tests::tenant;

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
        let migrator = Scripted::new(acts);
        let catalog = Growing(Mutex::new(lists.iter().map(|list| list.to_vec()).collect()));
        let (_interrupter, interrupts) = Interrupts::new();
        let rollout = Rollout {
            migrator: &migrator,
            catalog: &catalog,
            fleet: Fleet {
                jobs: NonZeroUsize::MIN,
                on_failure: OnFailure::Stop,
                interrupts,
            },
            scopes,
        };
        let (progress, _events) = Progress::channel();
        let summary = rollout.run(&progress).await.expect("begins");
        let word = |item: &SchemaOutcome| match &item.outcome {
            Outcome::Failed { .. } => format!("{} failed", item.target.label),
            Outcome::NotStarted { why } => format!("{} {why:?}", item.target.label),
            _ => format!("{} ok", item.target.label),
        };
        summary.outcomes.iter().map(word).collect()
    }

    #[tokio::test]
    async fn public_comes_first_and_its_failure_ends_the_run_before_any_tenant() {
        assert_eq!(
            run(&[], &[&["a", "b"]], Scopes::Everything).await,
            ["public ok", "a ok", "b ok"]
        );
        assert_eq!(
            run(
                &[("public", Act::Fail("42P01"))],
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
