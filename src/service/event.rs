//! What happens in a run, as data: workers emit it, one reporter renders it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use tokio::sync::mpsc;

use crate::domain::applied::AppliedScript;
use crate::domain::script::ScriptRef;
use crate::domain::serialize::seconds;
use crate::domain::target::Target;

use super::applied_scripts::AppliedScripts;
use super::failure::{Holder, MigrateError, ServerError};
use super::stages::StageKind;

/// What a run does with each of its schemas, in the words of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The command, such as `migrate-schemas`.
    pub command: &'static str,
    /// What happens now, such as `migrating`.
    pub doing: &'static str,
    /// What was done to the schemas that are counted as done, such as `migrated`; `None` where
    /// the command itself tells people how it ended.
    pub done: Option<&'static str>,
}

impl Operation {
    /// Migrations, which are told script by script.
    pub const MIGRATION: Self = Self {
        command: "migrate-schemas",
        doing: "migrating",
        done: Some("migrated"),
    };

    /// Migrations that are rolled back in the end.
    pub const DRY_RUN: Self = Self {
        command: "migrate-schemas --dry-run=execute",
        doing: "trying",
        done: Some("tried"),
    };

    /// Returns whether it is told script by script.
    #[must_use]
    pub fn has_scripts(&self) -> bool {
        [Self::MIGRATION, Self::DRY_RUN].contains(self)
    }

    /// Returns whether it is the migrations.
    #[must_use]
    pub fn is_migration(&self) -> bool {
        *self == Self::MIGRATION
    }
}

impl Default for Operation {
    fn default() -> Self {
        Self::MIGRATION
    }
}

/// Told to machines as the command.
impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.command)
    }
}

/// Why a schema was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Skipped {
    /// It was running when the second interrupt came; its transaction was rolled back.
    Interrupted,
    /// The tenant was dropped while the run was under way.
    Dropped,
    /// The tenant is being dropped, and its schema is half gone.
    Dropping,
    /// Its next file runs without a transaction, so it cannot be tried and rolled back.
    NoTransaction,
}

/// Why a schema was never begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NotStarted {
    /// The shared schema failed, so no tenant was begun.
    PublicFailed,
    /// An earlier schema failed and the run stops at failures.
    EarlierFailure,
    /// A canary failed.
    CanaryFailed,
    /// So many schemas failed that the run was not to go on.
    TooManyFailures,
    /// The run was interrupted.
    Interrupted,
}

/// How one schema ended. Every selected schema has exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Something was applied.
    Migrated {
        /// What, in order.
        scripts: AppliedScripts,
        /// From taking the lock to the end of the last commit; its share of it where it was migrated
        /// together with others.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// Nothing was pending.
    UpToDate,
    /// Work that is not a migration was done.
    Done {
        /// What came of it, in a few words, such as `3 rows`; may be empty.
        result: String,
        /// From its begin to its end.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: Box<MigrateError>,
        /// Scripts of this run that stay applied, because they were committed before.
        applied: Vec<AppliedScript>,
    },
    /// It was passed over.
    Skipped {
        /// Why.
        why: Skipped,
    },
    /// It was never begun.
    NotStarted {
        /// Why.
        why: NotStarted,
    },
}

/// How far an interrupted run goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Interrupt {
    /// Nobody has interrupted.
    #[default]
    None,
    /// Start nothing new, let running transactions finish.
    Drain,
    /// Cancel the running statements on the server.
    Cancel,
}

/// Something that happened, and when.
#[derive(Clone, Debug)]
pub struct Event {
    /// Since the run began.
    pub elapsed: Duration,
    /// The schema it happened in; `None` for the run as a whole.
    pub target: Option<Arc<Target>>,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// The run begins.
    RunStarted {
        /// What is done, where it is not the migrations.
        #[serde(rename = "command", skip_serializing_if = "Operation::is_migration")]
        work: Operation,
        /// How many schemas are selected.
        schemas: usize,
        /// How many of them have something pending.
        pending: usize,
        /// How many are worked on at once.
        jobs: usize,
    },
    /// `public` had work to do, and now the tenants are known: the numbers of `run-started` anew.
    TenantsFound {
        /// How many schemas are selected, `public` among them.
        schemas: usize,
        /// How many of them have or had something pending.
        pending: usize,
        /// How many are worked on at once.
        jobs: usize,
    },
    /// One of several stages begins.
    StageStarted {
        /// What it is made of.
        stage: StageKind,
        /// Its position among the stages, from 1.
        number: usize,
        /// How many stages there are.
        of: usize,
        /// How many schemas it has.
        schemas: usize,
    },
    /// The run waits before the next stage; told at once and then every half minute.
    Pausing {
        /// The number of the stage that is waited for.
        before: usize,
        /// How many stages there are.
        of: usize,
        /// How long still.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// Schemas were in each other's way, or no longer are, so another number is worked on at once.
    JobsChanged {
        /// How many from now on.
        jobs: usize,
        /// How many there are at most.
        most: usize,
    },
    /// Work on a schema begins.
    SchemaStarted {
        /// Position among the tenants, from 1; 0 for `public`.
        number: usize,
        /// How many tenants have something to do.
        of: usize,
    },
    /// Another session holds the schema's lock; told once and then every few seconds.
    WaitingForLock {
        /// Who, where the server tells.
        holder: Option<Holder>,
        /// For how long already.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// What was committed is not confirmed by a synchronous standby yet; told every few seconds.
    WaitingForStandby {
        /// For how long already.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// A script's first statement is sent.
    ScriptStarted {
        /// Which.
        #[serde(flatten)]
        script: ScriptRef,
    },
    /// A script's last statement is done. It counts once its schema is finished.
    ScriptFinished {
        /// Which, and how long it took.
        #[serde(flatten)]
        script: AppliedScript,
    },
    /// Work that is told in steps is at its next one, or further in the same; told at once and
    /// then twice a second while something moves.
    Step {
        /// What it is at, such as `table products`.
        step: String,
        /// Its number, from 1.
        number: usize,
        /// How many steps there are.
        of: usize,
        /// How many rows were moved in it so far.
        #[serde(skip_serializing_if = "is_nothing")]
        rows: u64,
        /// How many bytes these rows have in the server's text format.
        #[serde(skip_serializing_if = "is_nothing")]
        bytes: u64,
    },
    /// A transaction was rolled back and will be tried again.
    Retrying {
        /// Which attempt failed, from 1.
        attempt: u32,
        /// How many there will be at most.
        limit: u32,
        /// What the server said.
        error: ServerError,
        /// Who was in the way.
        blockers: Vec<Holder>,
        /// How long until the next attempt.
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
    /// A program that runs for the schema wrote a line to its stderr.
    Output {
        /// The line.
        line: String,
    },
    /// Work on a schema ended.
    SchemaFinished {
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// Somebody asked the run to end early.
    Interrupted {
        /// How urgently.
        level: Interrupt,
    },
}

/// Where workers report to: a cheap clone around a channel, bound to one target or to none.
///
/// Sending never blocks and never fails the work; when nobody listens the event is lost.
#[derive(Clone, Debug)]
pub struct Progress {
    sender: mpsc::UnboundedSender<Event>,
    begun: Instant,
    target: Option<Arc<Target>>,
    disturbed: Option<ContentionReports>,
}

/// Where the fleet hears that a schema met a lock or a deadlock, and which it was.
#[derive(Clone, Debug)]
pub(super) struct ContentionReports {
    pub(super) sender: mpsc::UnboundedSender<usize>,
    pub(super) position: usize,
}

impl Progress {
    /// Returns a fresh channel whose clock starts now.
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let progress = Self {
            sender,
            begun: Instant::now(),
            target: None,
            disturbed: None,
        };
        (progress, receiver)
    }

    /// Returns the same channel bound to a schema.
    #[must_use]
    pub fn of(&self, target: &Arc<Target>) -> Self {
        Self {
            target: Some(Arc::clone(target)),
            ..self.clone()
        }
    }

    /// Returns the same channel; what is retried because of others is told to the fleet too.
    pub(super) fn overheard(self, disturbances: ContentionReports) -> Self {
        Self {
            disturbed: Some(disturbances),
            ..self
        }
    }

    /// Returns how long ago the channel was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Reports that something happened.
    pub fn send(&self, kind: EventKind) {
        if let (Some(ContentionReports { sender, position }), EventKind::Retrying { error, .. }) =
            (&self.disturbed, &kind)
            && error.is_contention()
        {
            let _ = sender.send(*position);
        }
        // A reporter that went away (a closed terminal) must not end the migration.
        let _ = self.sender.send(Event {
            elapsed: self.begun.elapsed(),
            target: self.target.clone(),
            kind,
        });
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_nothing(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::script::Prefix;

    #[test]
    fn events_are_told_in_seconds() {
        let kind = EventKind::ScriptFinished {
            script: AppliedScript {
                script: ScriptRef {
                    prefix: Prefix::Versioned,
                    version: 8,
                    name: "x".into(),
                },
                took: Duration::from_millis(1900),
            },
        };
        assert_eq!(
            serde_json::to_string(&kind).expect("plain data"),
            r#"{"event":"script-finished","version":8,"name":"x","took":1.9}"#
        );
    }
}
