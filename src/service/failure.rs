//! Why a schema failed, as data: the pieces from which an explanation is made.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::domain::hint::Hint;
use crate::domain::plan::Drift;
use crate::domain::script::{DefinedIn, Place, ScriptRef};
use crate::domain::serialize::seconds;
use crate::domain::sqlstate;

/// What the server said, kept as it said it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerError {
    /// Five characters (manual appendix A), or `None` when no server answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The message.
    pub message: String,
    /// `DETAIL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `HINT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What is there twice, where a unique index could not be built and that is known for sure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<Box<Duplicates>>,
    /// Which file makes the relation that a migration did not find, where the files tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_in: Option<Box<DefinedIn>>,
}

/// A key that rows of a table have in common and may not.
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
    #[must_use]
    pub fn has_sqlstate(&self, code: &str) -> bool {
        self.sqlstate.as_deref() == Some(code)
    }

    /// Returns whether another session was in the way: a lock that was not had in time, a
    /// deadlock, a serialisation failure.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        self.sqlstate
            .as_deref()
            .is_some_and(sqlstate::is_contention)
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

/// A session that is in somebody's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its process id on the server.
    pub pid: i32,
    /// Its `application_name`; empty where it has none.
    pub application: String,
    /// The client's address, or `local` for a unix socket.
    pub client: String,
    /// How long its transaction has been open.
    #[serde(serialize_with = "seconds")]
    pub since: Duration,
    /// The start of the statement it runs or ran last.
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
    /// The tenant's row stands, its schema does not.
    SchemaMissing,
    /// A statement of a script failed; everything of this transaction is rolled back.
    Script {
        /// The script.
        script: ScriptRef,
        /// Path of its file.
        file: String,
        /// Where in the file; `None` where the server's answer does not tell.
        place: Option<Place>,
        /// What the server said.
        error: ServerError,
        /// Who held the lock, when waiting for it was what failed.
        blockers: Vec<Holder>,
        /// How many times it was tried.
        attempts: u32,
        /// Whether a transaction took back what the script had done; one that runs without a
        /// transaction keeps what was done before the statement that failed.
        rolled_back: bool,
    },
    /// A script touched something outside its schema; rolled back.
    LeftSchema {
        /// The scripts of the transaction.
        scripts: Vec<ScriptRef>,
        /// What it touched and how, each in words.
        touched: Vec<String>,
    },
    /// A script ended the transaction it ran in, or changed role or schema; rolled back where possible.
    LeftTransaction {
        /// The scripts of the transaction.
        scripts: Vec<ScriptRef>,
        /// What was not as before.
        why: String,
    },
    /// Files and history disagree.
    Drift {
        /// Every disagreement.
        drifts: Vec<Drift>,
    },
    /// A row of the history cannot be read.
    DamagedHistory {
        /// Which row, and what is wrong with it.
        why: String,
    },
    /// A schema that should get its first history got one meanwhile.
    HasHistory {
        /// The newest version in it.
        version: Option<i64>,
    },
    /// A schema that should get a history of files that were not run does not hold what they make.
    SchemaIncomplete {
        /// What is missing, in words.
        missing: Vec<String>,
    },
    /// Another session kept the schema's lock for longer than `lock_wait`.
    Locked {
        /// Who holds it, where the server told.
        holder: Option<Holder>,
        /// How long was waited.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// An index that was built without a transaction is not valid.
    InvalidIndex {
        /// The script that builds it.
        script: ScriptRef,
        /// Names of the indexes.
        indexes: Vec<String>,
    },
    /// The server refused something that is not a script's statement.
    Database {
        /// What was being done.
        doing: String,
        /// What the server said.
        error: ServerError,
    },
    /// The connection broke and could not be had again in time, so what became of the
    /// transaction is not known.
    InDoubt {
        /// What was being done.
        doing: String,
        /// What the driver said.
        error: ServerError,
    },
    /// Work that is not a migration failed.
    Job {
        /// What was being done.
        doing: String,
        /// What was said; without a SQLSTATE where it was not the server.
        error: ServerError,
        /// What to do next, each a line.
        hints: Vec<Hint>,
    },
    /// A bug in pricesync.
    Panicked {
        /// What the panic said.
        message: String,
    },
}

impl MigrateError {
    /// Returns whether the rest of the fleet would fail the same way: the disk is full, the server is gone.
    #[must_use]
    pub fn ends_the_run(&self) -> bool {
        match self {
            Self::InDoubt { .. } => true,
            Self::Script { error, .. } | Self::Database { error, .. } | Self::Job { error, .. } => {
                error
                    .sqlstate
                    .as_deref()
                    .is_some_and(|code| code == sqlstate::DISK_FULL || sqlstate::is_shutdown(code))
            }
            _ => false,
        }
    }

    /// Returns what makes two failures the same failure. Detail and holder differ from
    /// schema to schema and do not count.
    #[must_use]
    pub fn group_key(&self) -> String {
        match self {
            Self::Script {
                script,
                place,
                error,
                ..
            } => format!(
                "script {} {:?} {:?}",
                script.version,
                place.as_ref().map(|place| (place.line, place.column)),
                error.sqlstate
            ),
            Self::Locked { .. } => "locked".to_owned(),
            Self::Database { doing, error } | Self::InDoubt { doing, error } => {
                format!("database {doing} {:?}", error.sqlstate)
            }
            Self::Job { doing, error, .. } => {
                let why = error.sqlstate.as_ref().unwrap_or(&error.message);
                format!("work {doing} {why}")
            }
            Self::SchemaMissing => "missing".to_owned(),
            Self::Drift { drifts } => format!("drift {drifts:?}"),
            other => format!("{other:?}"),
        }
    }

    /// Returns whether this is the tenant's own affair, so that even a run that stops at the first failure goes on.
    #[must_use]
    pub fn is_known_beforehand(&self) -> bool {
        matches!(self, Self::SchemaMissing)
    }
}
