//! Events of a run: jobs emit them, one reporter renders them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use tokio::sync::mpsc;

use crate::domain::applied::AppliedScript;
use crate::domain::script::ScriptRef;
use crate::domain::serialize::{is_default, seconds};
use crate::domain::target::Target;

use super::applied_scripts::AppliedScripts;
use super::failure::{Holder, MigrateError, ServerError};
use super::stages::StageKind;

/// What a run does with each of its schemas, in words for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The command, such as `migrate-schemas`; JSON has this alone.
    pub command: &'static str,
    /// The present participle, such as `migrating`.
    pub doing: &'static str,
    /// The past participle, such as `migrated`; `None` where the command prints its own summary.
    pub done: Option<&'static str>,
}

impl Operation {
    /// Migrations, reported script by script.
    pub const MIGRATION: Self =
        Self { command: "migrate-schemas", doing: "migrating", done: Some("migrated") };

    /// Migrations that are executed and rolled back.
    pub const DRY_RUN: Self =
        Self { command: "migrate-schemas --dry-run=execute", doing: "trying", done: Some("tried") };

    /// Migrations that are recorded without being executed.
    pub const FAKE: Self =
        Self { command: "migrate-schemas --fake", doing: "recording", done: Some("recorded") };

    /// Migrations that are recorded in schemas that already have their tables.
    pub const BASELINE: Self =
        Self { command: "baseline", doing: "recording", done: Some("recorded") };

    /// Returns whether it is reported script by script.
    pub fn has_scripts(&self) -> bool {
        [Self::MIGRATION, Self::DRY_RUN, Self::FAKE, Self::BASELINE].contains(self)
    }

    /// Returns whether scripts are recorded without being executed.
    pub fn only_records(&self) -> bool {
        [Self::FAKE, Self::BASELINE].contains(self)
    }

    /// Returns whether `--retry-failed` repeats it.
    pub fn is_retried(&self) -> bool {
        [Self::MIGRATION, Self::FAKE].contains(self)
    }

    /// Returns whether it is [`MIGRATION`](Self::MIGRATION).
    pub fn is_migration(&self) -> bool {
        *self == Self::MIGRATION
    }
}

impl Default for Operation {
    fn default() -> Self {
        Self::MIGRATION
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.command)
    }
}

/// Why a schema was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Skipped {
    /// It was running at the second interrupt; its transaction was rolled back.
    Interrupted,
    /// The tenant was dropped during the run.
    Dropped,
    /// The tenant is being dropped, and a part of its schema is dropped already.
    Dropping,
    /// Its next file runs without a transaction, so a dry run cannot roll it back.
    NoTransaction,
}

/// Why a schema was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NotStarted {
    /// The shared schema failed, so no tenant was started.
    PublicFailed,
    /// An earlier schema failed, and the run stops at failures.
    EarlierFailure,
    /// A canary failed.
    CanaryFailed,
    /// The limit of failed schemas was reached.
    TooManyFailures,
    /// The server's disk is full, so every other schema would fail as well.
    DiskFull,
    /// The server shut down or does not answer, so every other schema would fail as well.
    ServerUnavailable,
    /// The run was interrupted.
    Interrupted,
}

/// How a run ended for one schema. Every selected schema has exactly one outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Scripts were applied.
    Migrated {
        /// The scripts, in order.
        scripts: AppliedScripts,
        /// From taking the lock to the end of the last commit; in a group, an equal share of the
        /// group's time.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// Nothing was pending.
    UpToDate,
    /// A job other than a migration is done.
    Done {
        /// Its result in a few words, such as `3 rows`; may be empty.
        result: String,
        /// From its start to its end.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// The job failed.
    Failed {
        /// The cause.
        error: Box<MigrateError>,
        /// Scripts of this run that stay applied, because they were committed before the failure.
        applied: Vec<AppliedScript>,
    },
    /// The schema was skipped.
    Skipped {
        /// The reason.
        why: Skipped,
    },
    /// The schema was not started.
    NotStarted {
        /// The reason.
        why: NotStarted,
    },
}

/// How urgently a run was interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Interrupt {
    /// It was not.
    #[default]
    None,
    /// No schema is started any more; running transactions finish.
    Drain,
    /// Running statements are cancelled on the server.
    Cancel,
}

/// An event and its time.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time since the start of the run.
    pub elapsed: Duration,
    /// The schema it belongs to; `None` for the run as a whole.
    pub target: Option<Arc<Target>>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// The run starts.
    RunStarted {
        /// What is done; JSON omits it for migrations.
        #[serde(rename = "command", skip_serializing_if = "Operation::is_migration")]
        work: Operation,
        /// How many schemas are selected.
        schemas: usize,
        /// How many of them have pending migrations.
        pending: usize,
        /// How many are worked on at once.
        jobs: usize,
    },
    /// `public` was migrated and the tenants were listed again: replaces the numbers of
    /// `run-started`.
    TenantsFound {
        /// How many schemas are selected, `public` among them.
        schemas: usize,
        /// How many of them have or had pending migrations.
        pending: usize,
        /// How many are worked on at once.
        jobs: usize,
    },
    /// One of several stages starts.
    StageStarted {
        /// Whether it is the canaries or a batch.
        stage: StageKind,
        /// Its position among the stages, from 1.
        number: usize,
        /// How many stages there are.
        of: usize,
        /// How many schemas are in it.
        schemas: usize,
    },
    /// The run waits before the next stage; emitted at once and then every 30 seconds.
    Pausing {
        /// The number of the next stage.
        before: usize,
        /// How many stages there are.
        of: usize,
        /// The remaining time.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// The concurrency limit changed because of lock contention, or because there was none.
    JobsChanged {
        /// How many schemas are worked on at once from now on.
        jobs: usize,
        /// The upper bound.
        most: usize,
    },
    /// Work on a schema starts.
    SchemaStarted {
        /// Position among the tenants, from 1; 0 for `public`.
        number: usize,
        /// How many tenants have pending work.
        of: usize,
    },
    /// Another session holds the schema's lock; emitted once and then every few seconds.
    WaitingForLock {
        /// That session, where the server knows it.
        holder: Option<Holder>,
        /// Time since the wait started.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// COMMIT waits for a synchronous standby; emitted every few seconds.
    WaitingForStandby {
        /// Time since the wait started.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// The first statement of a script is sent.
    ScriptStarted {
        /// The script.
        #[serde(flatten)]
        script: ScriptRef,
    },
    /// The last statement of a script is done. It is committed when its schema is finished.
    ScriptFinished {
        /// The script, and how long it took.
        #[serde(flatten)]
        script: AppliedScript,
    },
    /// A job with steps starts its next step or makes progress in it; emitted at the start and then
    /// twice a second while rows are moved.
    Step {
        /// What the step does, such as `table products`.
        step: String,
        /// Its number, from 1.
        number: usize,
        /// How many steps there are.
        of: usize,
        /// Rows moved in the step so far.
        #[serde(skip_serializing_if = "is_default")]
        rows: u64,
        /// Bytes of these rows in the server's text format.
        #[serde(skip_serializing_if = "is_default")]
        bytes: u64,
    },
    /// A transaction was rolled back and will be retried.
    Retrying {
        /// The attempt that failed, from 1.
        attempt: u32,
        /// The highest number of attempts.
        limit: u32,
        /// The server's error.
        error: ServerError,
        /// The sessions that held the lock.
        blockers: Vec<Holder>,
        /// Time until the next attempt.
        #[serde(serialize_with = "seconds")]
        pause: Duration,
    },
    /// The server sent a notice.
    Notice {
        /// `NOTICE`, `WARNING`, ...
        severity: String,
        /// Its text.
        message: String,
    },
    /// A program that `exec` runs for the schema wrote a line to its stderr.
    Output {
        /// The line.
        line: String,
    },
    /// Work on a schema ended.
    SchemaFinished {
        /// The outcome.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// The run was interrupted by a signal.
    Interrupted {
        /// The new level.
        level: Interrupt,
    },
}

/// Sends events to the reporter: a cheap clone around a channel, bound to one target or to none.
///
/// Sending never blocks and never fails; without a receiver the event is dropped.
#[derive(Clone, Debug)]
pub struct Progress {
    sender: mpsc::UnboundedSender<Event>,
    started: Instant,
    target: Option<Arc<Target>>,
    contention: Option<ContentionReports>,
    /// The warnings that were sent for the run as a whole.
    warnings: Arc<Mutex<HashSet<String>>>,
}

/// Reports to the fleet that the schema at this position met lock contention.
#[derive(Clone, Debug)]
pub(super) struct ContentionReports {
    pub(super) sender: mpsc::UnboundedSender<usize>,
    pub(super) position: usize,
}

impl Progress {
    /// Returns both ends of a new channel, whose clock starts now.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let progress = Self {
            sender,
            started: Instant::now(),
            target: None,
            contention: None,
            warnings: Arc::default(),
        };
        (progress, receiver)
    }

    /// Returns the same channel bound to a schema.
    #[must_use]
    pub fn of(&self, target: &Arc<Target>) -> Self {
        Self { target: Some(Arc::clone(target)), ..self.clone() }
    }

    /// Returns the same channel; retries after lock contention are also reported to the fleet.
    pub(super) fn with_contention_reports(self, reports: ContentionReports) -> Self {
        Self { contention: Some(reports), ..self }
    }

    /// Returns the time since the channel was created.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sends a warning for the run as a whole, unless it was sent before.
    pub fn warn_once(&self, message: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.insert(message.clone()) {
            let severity = "WARNING".to_owned();
            let run = Self { target: None, ..self.clone() };
            run.send(EventKind::Notice { severity, message });
        }
    }

    /// Sends an event with the current time.
    pub fn send(&self, kind: EventKind) {
        if let (Some(ContentionReports { sender, position }), EventKind::Retrying { error, .. }) =
            (&self.contention, &kind)
            && error.is_contention()
        {
            let _ = sender.send(*position);
        }
        // A reporter that ended (a closed terminal) must not fail the migration.
        let _ = self.sender.send(Event {
            elapsed: self.started.elapsed(),
            target: self.target.clone(),
            kind,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::script::Prefix;

    #[test]
    fn durations_are_seconds_in_json() {
        let kind = EventKind::ScriptFinished {
            script: AppliedScript {
                script: ScriptRef { prefix: Prefix::Versioned, version: 8, name: "x".into() },
                took: Duration::from_millis(1900),
            },
        };
        assert_eq!(
            serde_json::to_string(&kind).expect("plain data"),
            r#"{"event":"script-finished","version":8,"name":"x","took":1.9}"#
        );
    }
}
