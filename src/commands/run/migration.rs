//! A migration run, as migrate-schemas, baseline and demo start one.

use std::sync::Arc;

use super::app::App;
use super::jobs::with_commands;
use super::recorder::Recorder;
use super::reporter_task::ReporterTask;
use super::signals::interruptible;
use crate::domain::plan::Goal;
use crate::domain::run_options::OnFailure;
use crate::error::{Exit, Failure};
use crate::migrations::MigrationSet;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::fleet::{Fleet, Interrupts};
use crate::service::rollout::{Rollout, Scopes, Survey};
use crate::service::stages::Stages;
use crate::service::summary::Summary;

/// A migration run with everything that it needs.
pub(crate) struct Migration<'a> {
    pub(crate) app: &'a App,
    pub(crate) migrator: &'a Arc<PostgresMigrator>,
    pub(crate) catalog: &'a PostgresCatalog,
    pub(crate) pace: ConcurrencyLimit,
    pub(crate) on_failure: OnFailure,
    pub(crate) scopes: Scopes,
    pub(crate) stages: Stages,
    /// Whether the migrator rolls back each transaction; such a run is not stored.
    pub(crate) dry_run: bool,
}

/// Returns the failure of a command for a version that no file of the set has.
pub(crate) fn no_such_version(version: i64, set: &MigrationSet) -> Failure {
    let newest = set.ids().iter().map(|id| id.version).max();
    Failure::words(Exit::Usage, format!("no migration has version {version}"))
        .hints(newest.map(|newest| format!("the newest version is {newest}")))
}

impl Migration<'_> {
    /// Returns every selected schema with its state.
    pub(crate) async fn survey(&self) -> Result<Survey, Failure> {
        let (_interrupter, interrupts) = Interrupts::new();
        Ok(self.rollout(interrupts).survey().await?)
    }

    /// Migrates the schemas of a survey, with a reporter and until signals end it.
    pub(crate) async fn run(&self, survey: Survey) -> Result<Summary, Failure> {
        let (interrupter, interrupts) = Interrupts::new();
        let recorder = (!self.dry_run).then(|| Recorder::new(self.migrator));
        let (reporter, progress) = ReporterTask::start(self.app, self.app.progress, recorder);
        let rollout = self.rollout(interrupts);
        let work = rollout.run(survey, &progress);
        let summary = interruptible(work, interrupter, progress.clone()).await?;
        drop(progress);
        let mut summary = with_commands(self.app, summary?);
        summary.options = self.options();
        reporter.finish(&mut summary).await;
        Ok(summary)
    }

    /// Returns the options that a proposed command line must repeat.
    fn options(&self) -> String {
        let is_fake = self.migrator.mode().only_records();
        let fake = if is_fake { " --fake" } else { "" };
        match self.migrator.options().goal {
            Goal::Version(version) => format!("{fake} --to {version}"),
            Goal::Latest => fake.to_owned(),
        }
    }

    fn rollout(&self, interrupts: Interrupts) -> Rollout<'_, PostgresMigrator, PostgresCatalog> {
        Rollout {
            migrator: self.migrator,
            catalog: self.catalog,
            fleet: Fleet {
                concurrency: self.pace.clone(),
                on_failure: self.on_failure,
                interrupts,
            },
            scopes: self.scopes.clone(),
            stages: self.stages.clone(),
            dry_run: self.dry_run,
        }
    }
}
