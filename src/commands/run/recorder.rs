//! Stores a migration run in `pricesync.run` from its events.

use std::sync::Arc;

use super::command_line::command_line;
use crate::domain::target::Target;
use crate::postgres::bookkeeping::run_log::{self, RunHeader, RunItem, RunLog};
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::service::event::{Event, EventKind, Interrupt, Outcome};
use crate::service::summary::{SchemaOutcome, Summary};
use crate::ui::{explain, not_started, skipped};

const NOT_STORED: &str =
    "this run was not stored, so --retry-failed does not know which schemas failed in it";
const INCOMPLETE: &str = "the record of this run is incomplete, so runs and --retry-failed do not know of all its schemas";

/// Stores a run once a schema has something pending or has finished. A run without work is not
/// stored, so that a job that runs every minute does not fill the table.
pub(crate) struct Recorder {
    migrator: Arc<PostgresMigrator>,
    header: RunHeader,
    log: Option<RunLog>,
    started: bool,
}

impl Recorder {
    /// Returns a recorder that has stored nothing yet.
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
            started: false,
        }
    }

    /// Stores the outcome of a schema that finished.
    pub(crate) async fn on(&mut self, event: &Event) {
        match (&event.kind, &event.target) {
            (EventKind::RunStarted { schemas, pending, .. }, _) => {
                self.header.schemas = *schemas;
                if *pending > 0 {
                    self.start().await;
                }
            }
            (EventKind::SchemaFinished { outcome }, Some(target)) => {
                self.start().await;
                if let Some(log) = &self.log {
                    log.record(item(target, outcome));
                }
            }
            _ => {}
        }
    }

    /// Stores the outcomes that had no event, and waits until everything is stored. Returns the run's
    /// number, if it was stored, and a warning if the record is incomplete.
    pub(crate) async fn finish(self, summary: &Summary) -> (Option<i64>, Option<&'static str>) {
        let Some(log) = self.log else {
            let is_missed = self.started && summary.counts().failed > 0;
            return (None, is_missed.then_some(NOT_STORED));
        };
        let not_started =
            |item: &&SchemaOutcome| matches!(item.outcome, Outcome::NotStarted { .. });
        for outcome in summary.outcomes.iter().filter(not_started) {
            log.record(item(&outcome.target, &outcome.outcome));
        }
        // A schema that failed in an earlier run may have been fixed by hand: --retry-failed asks for
        // the last outcome.
        if let Ok(failed) = run_log::failed_schemas(self.migrator.database()).await {
            let is_fixed = |item: &&SchemaOutcome| {
                item.outcome == Outcome::UpToDate && failed.contains(&item.target.schema)
            };
            for outcome in summary.outcomes.iter().filter(is_fixed) {
                log.record(item(&outcome.target, &outcome.outcome));
            }
        }
        let (id, counts) = (log.id(), summary.counts());
        let interrupted = summary.interrupted > Interrupt::None;
        let is_complete = log.finish(counts.total(), counts.up_to_date, interrupted).await;
        (Some(id), (!is_complete).then_some(INCOMPLETE))
    }

    async fn start(&mut self) {
        if !self.started {
            self.started = true;
            let (migrator, header) = (Arc::clone(&self.migrator), self.header.clone());
            // In a task, which the third interrupt cancels: the reporter's thread outlives the runtime.
            let log = tokio::spawn(async move { migrator.begin_run(&header).await });
            self.log = log.await.ok().flatten();
        }
    }
}

fn item(target: &Target, outcome: &Outcome) -> RunItem {
    let (word, scripts, took, reason, failure) = match outcome {
        Outcome::Migrated { scripts, took } => {
            ("migrated", scripts.iter().len(), Some(*took), None, None)
        }
        Outcome::UpToDate => ("up-to-date", 0, None, None, None),
        Outcome::Done { result, took } => ("done", 0, Some(*took), Some(result.clone()), None),
        Outcome::Failed { error, applied } => (
            "failed",
            applied.len(),
            None,
            Some(explain(error, target, applied).message()),
            Some((
                error.group_key(),
                error.server_error().and_then(|error| error.sqlstate.clone()),
            )),
        ),
        Outcome::Skipped { why } => ("skipped", 0, None, Some(skipped(*why).to_owned()), None),
        Outcome::NotStarted { why } => {
            ("not-started", 0, None, Some(not_started(*why).to_owned()), None)
        }
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
