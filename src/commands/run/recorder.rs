//! Has a run stored while it is shown: the same events, told to the database.

use std::sync::Arc;

use crate::commands::migrate_schemas::command_line;
use crate::domain::target::Target;
use crate::postgres::bookkeeping::run_log::{self, RunHeader, RunItem, RunLog};
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::service::event::{Event, EventKind, Outcome};
use crate::service::summary::{SchemaOutcome, Summary};
use crate::ui::explain;

const NOT_STORED: &str =
    "this run was not stored, so --retry-failed does not know which schemas failed in it";
const INCOMPLETE: &str = "the record of this run is incomplete, so runs and --retry-failed do not know of all its schemas";

/// Stores a run from its first piece of work on. A run that finds nothing to do leaves no
/// trace, so that a job that runs every minute does not fill the table.
pub(crate) struct Recorder {
    migrator: Arc<PostgresMigrator>,
    header: RunHeader,
    log: Option<RunLog>,
    begun: bool,
}

impl Recorder {
    /// Returns a recorder that has not begun yet.
    pub(crate) fn new(migrator: &Arc<PostgresMigrator>) -> Self {
        Self {
            migrator: Arc::clone(migrator),
            header: RunHeader {
                command: command_line().unwrap_or_else(|| "pricesync ...".to_owned()),
                started_by: started_by(),
                files: migrator.files(),
                schemas: 0,
            },
            log: None,
            begun: false,
        }
    }

    /// Takes note of an event.
    pub(crate) async fn on(&mut self, event: &Event) {
        match (&event.kind, &event.target) {
            (
                EventKind::RunStarted {
                    schemas, pending, ..
                },
                _,
            ) => {
                self.header.schemas = *schemas;
                if *pending > 0 {
                    self.begin().await;
                }
            }
            (EventKind::SchemaFinished { outcome }, Some(target)) => {
                self.begin().await;
                if let Some(log) = &self.log {
                    log.record(item(target, outcome));
                }
            }
            _ => {}
        }
    }

    /// Stores what had no event, waits until all is stored, and returns the run's number, where it
    /// has one, and what is wrong with the record.
    pub(crate) async fn finish(self, summary: &Summary) -> (Option<i64>, Option<&'static str>) {
        let Some(log) = self.log else {
            let is_missed = self.begun && summary.counts().failed > 0;
            return (None, is_missed.then_some(NOT_STORED));
        };
        let unbegun = |item: &&SchemaOutcome| matches!(item.outcome, Outcome::NotStarted { .. });
        for outcome in summary.outcomes.iter().filter(unbegun) {
            log.record(item(&outcome.target, &outcome.outcome));
        }
        // Somebody may have put right by hand what had failed.
        if let Ok(failed) = run_log::failed_schemas(self.migrator.database()).await {
            let is_fine = |item: &&SchemaOutcome| {
                item.outcome == Outcome::UpToDate && failed.contains(&item.target.schema)
            };
            for outcome in summary.outcomes.iter().filter(is_fine) {
                log.record(item(&outcome.target, &outcome.outcome));
            }
        }
        let (id, counts) = (log.id(), summary.counts());
        let interrupted = summary.interrupted > crate::service::event::Interrupt::None;
        let is_complete = log
            .finish(counts.total(), counts.up_to_date, interrupted)
            .await;
        (Some(id), (!is_complete).then_some(INCOMPLETE))
    }

    async fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.log = self.migrator.begin_run(&self.header).await;
        }
    }
}

fn item(target: &Target, outcome: &Outcome) -> RunItem {
    let (word, scripts, took, reason, failure) = match outcome {
        Outcome::Migrated { scripts, took } => ("migrated", scripts.len(), Some(*took), None, None),
        Outcome::UpToDate => ("up-to-date", 0, None, None, None),
        Outcome::Done { result, took } => ("done", 0, Some(*took), Some(result.clone()), None),
        Outcome::Failed { error, applied } => (
            "failed",
            applied.len(),
            None,
            Some(explain(error, target, applied).message()),
            Some((
                error.group_key(),
                error
                    .server_error()
                    .and_then(|error| error.sqlstate.clone()),
            )),
        ),
        Outcome::Skipped { why } => (
            "skipped",
            0,
            None,
            Some(crate::ui::skipped(*why).to_owned()),
            None,
        ),
        Outcome::NotStarted { why } => (
            "not-started",
            0,
            None,
            Some(crate::ui::not_started(*why).to_owned()),
            None,
        ),
    };
    RunItem {
        schema: target.schema.to_string(),
        tenant: target.label.clone(),
        outcome: word,
        scripts,
        took,
        reason,
        failure,
    }
}

fn started_by() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| format!("uid {}", rustix::process::geteuid().as_raw()));
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().into_owned();
    format!("{user}@{host}, process {}", std::process::id())
}
