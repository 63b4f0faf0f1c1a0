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
use crate::postgres::migrate::context::Mode;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::event::Operation;
use crate::service::fleet::{Fleet, Interrupts};
use crate::service::rollout::{Rollout, Scopes, Survey};
use crate::service::stages::Stages;
use crate::service::summary::Summary;
use crate::settings::Origin;

/// A migration run with everything that it needs.
pub(crate) struct Migration<'a> {
    pub(crate) app: &'a App,
    pub(crate) migrator: &'a Arc<PostgresMigrator>,
    pub(crate) catalog: &'a PostgresCatalog,
    pub(crate) pace: ConcurrencyLimit,
    pub(crate) on_failure: OnFailure,
    pub(crate) scopes: Scopes,
    pub(crate) stages: Stages,
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
        // What is rolled back is not stored.
        let recorder = (self.work() != Operation::DRY_RUN).then(|| Recorder::new(self.migrator));
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
        let to = match self.migrator.options().goal {
            Goal::Version(version) => format!(" --to {version}"),
            Goal::Latest => String::new(),
        };
        let on_failure = match self.app.settings.on_failure_origin() {
            Origin::Flag(_) if self.on_failure == OnFailure::Continue => " --on-failure continue",
            _ => "",
        };
        to + on_failure
    }

    fn work(&self) -> Operation {
        match self.migrator.mode() {
            Mode::Apply => Operation::MIGRATION,
            Mode::Fake => Operation::FAKE,
            Mode::Baseline(_) => Operation::BASELINE,
            Mode::DryRun(_) => Operation::DRY_RUN,
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
            work: self.work(),
        }
    }
}
