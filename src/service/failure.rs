//! Why a schema failed, as data from which `ui` makes an explanation.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::event::NotStarted;
use crate::domain::hint::Hint;
use crate::domain::plan::Drift;
use crate::domain::script::{DefinedIn, Location, ScriptRef};
use crate::domain::serialize::seconds;
use crate::domain::sqlstate;

/// An error of the server, unchanged; or of the driver, without a SQLSTATE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerError {
    /// Five characters (manual appendix A); `None` when the error is not the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The message.
    pub message: String,
    /// `DETAIL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<str>>,
    /// `HINT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    /// `CONTEXT`: the functions and statements in which the error occurred, the innermost first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Box<str>>,
    /// The duplicate key, where a unique index could not be built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<Box<Duplicates>>,
    /// The file that creates the relation which a migration did not find, where the files tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_in: Option<Box<DefinedIn>>,
}

/// A unique key that several rows of a table share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// The schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The columns of the key.
    pub columns: Vec<String>,
}

impl ServerError {
    /// Returns whether the error has this SQLSTATE.
    pub fn has_sqlstate(&self, code: &str) -> bool {
        self.sqlstate.as_deref() == Some(code)
    }

    /// Returns whether another session caused the error: lock timeout, deadlock or serialization
    /// failure.
    pub fn is_contention(&self) -> bool {
        self.sqlstate.as_deref().is_some_and(sqlstate::is_contention)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(sqlstate) = &self.sqlstate {
            write!(f, " ({sqlstate})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

/// A session that holds a lock which another waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The process id of its backend.
    pub pid: i32,
    /// Its `application_name`; may be empty.
    pub application: String,
    /// The client's address, or `local` for a unix socket.
    pub client: String,
    /// The age of its transaction.
    #[serde(serialize_with = "seconds")]
    pub since: Duration,
    /// The start of its current or last statement.
    pub query: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if !self.application.is_empty() {
            write!(f, " ({})", self.application)?;
        }
        write!(f, " from {}, for {} s", self.client, self.since.as_secs())
    }
}

/// Why a schema was not migrated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MigrateError {
    /// The tenant's row exists, its schema does not.
    SchemaMissing,
    /// A statement of a script failed.
    Script {
        /// The script.
        script: ScriptRef,
        /// Path of its file.
        file: String,
        /// The position in the file; `None` where the server reports none.
        place: Option<Location>,
        /// The server's error.
        error: ServerError,
        /// The sessions that held the lock, after a lock timeout.
        blockers: Vec<Holder>,
        /// The number of attempts.
        attempts: u32,
        /// Whether the script was rolled back; one that runs without a transaction keeps what was
        /// done before the statement that failed.
        rolled_back: bool,
    },
    /// A script changed something outside its schema; rolled back.
    LeftSchema {
        /// The scripts of the transaction.
        scripts: Vec<ScriptRef>,
        /// What it changed, how, and through what, each in words.
        touched: Vec<String>,
        /// The entries of `guard.allow_writes` that would allow it; empty if more than rows changed.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        allow_writes: Vec<String>,
        /// Whether an event trigger made a change.
        by_event_trigger: bool,
    },
    /// A script ended the transaction it ran in, or changed role or schema; rolled back where possible.
    LeftTransaction {
        /// The scripts of the transaction.
        scripts: Vec<ScriptRef>,
        /// What differed afterwards.
        why: String,
    },
    /// Files and history differ.
    Drift {
        /// Every difference.
        drifts: Vec<Drift>,
    },
    /// A row of the history cannot be read.
    DamagedHistory {
        /// Which row, and what is wrong with it.
        why: String,
    },
    /// Another run wrote the first history of the schema meanwhile.
    HasHistory {
        /// The highest version in it.
        version: Option<i64>,
    },
    /// The schema lacks objects that the files create, so they cannot be recorded as applied.
    SchemaIncomplete {
        /// What is missing, in words.
        missing: Vec<String>,
    },
    /// Another session held the schema's lock for longer than `run.lock_wait`.
    Locked {
        /// The session that holds it, where the server knows it.
        holder: Option<Holder>,
        /// How long the run waited.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// An index that was built without a transaction is invalid.
    InvalidIndex {
        /// The script that builds it.
        script: ScriptRef,
        /// The names of the indexes.
        indexes: Vec<String>,
    },
    /// The server refused a statement that is not a script's.
    Database {
        /// What was attempted.
        doing: String,
        /// The server's error.
        error: ServerError,
    },
    /// The connection was lost and could not be restored in time, so the outcome of the
    /// transaction is not known.
    InDoubt {
        /// What was attempted.
        doing: String,
        /// The driver's error.
        error: ServerError,
    },
    /// A job other than a migration failed.
    Job {
        /// What was attempted.
        doing: String,
        /// The error; without a SQLSTATE where it is not the server's.
        error: ServerError,
        /// Hints, each a line.
        hints: Vec<Hint>,
    },
    /// A bug in pricesync.
    Panicked {
        /// The panic's message.
        message: String,
    },
}

impl MigrateError {
    /// Returns the server's error, where the failure has one.
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::Script { error, .. }
            | Self::Database { error, .. }
            | Self::InDoubt { error, .. }
            | Self::Job { error, .. } => Some(error),
            _ => None,
        }
    }

    /// Notes that nothing of the schema is left, also of a script that runs without a transaction.
    pub(crate) fn set_rolled_back(&mut self) {
        if let Self::Script { rolled_back, .. } = self {
            *rolled_back = true;
        }
    }

    /// Returns whether a script used an enum value which its transaction had added.
    pub fn uses_new_enum_value(&self) -> bool {
        let error = self.server_error();
        error.is_some_and(|error| error.has_sqlstate(sqlstate::UNSAFE_NEW_ENUM_VALUE_USAGE))
    }

    /// Returns why every other schema would fail the same way, which ends the run even with
    /// `--on-failure=continue`; `None` where the failure concerns only this schema.
    pub fn ends_the_run(&self) -> Option<NotStarted> {
        let code = self.server_error().and_then(|error| error.sqlstate.as_deref());
        match code {
            Some(sqlstate::DISK_FULL) => Some(NotStarted::DiskFull),
            Some(code) if sqlstate::is_shutdown(code) => Some(NotStarted::ServerUnavailable),
            _ => matches!(self, Self::InDoubt { .. }).then_some(NotStarted::ServerUnavailable),
        }
    }

    /// Returns whether only this schema has the problem, which was there before the run: the files and
    /// the server are good, so the others can be migrated.
    pub fn is_of_one_tenant(&self) -> bool {
        matches!(self, Self::SchemaMissing | Self::Drift { .. } | Self::DamagedHistory { .. })
    }

    /// Returns a text that is equal for failures with the same cause. What differs from schema to
    /// schema (`DETAIL`, lock holder, number of attempts) is not part of it. The run log stores it.
    pub fn group_key(&self) -> String {
        let code = |error: &ServerError| error.sqlstate.clone().unwrap_or_default();
        match self {
            Self::Script { script, place, error, .. } => {
                let line = place.as_ref().map_or(0, |place| place.line);
                let column = place.as_ref().and_then(|place| place.column).unwrap_or(0);
                format!("script {} {line}:{column} {}", script.version, code(error))
            }
            Self::Locked { .. } => "locked".to_owned(),
            Self::Database { doing, error } | Self::InDoubt { doing, error } => {
                format!("database {doing} {}", code(error))
            }
            Self::Job { doing, error, .. } => {
                let cause = error.sqlstate.as_ref().unwrap_or(&error.message);
                format!("job {doing} {cause}")
            }
            other => serde_json::to_string(other).unwrap_or_default(),
        }
    }
}
