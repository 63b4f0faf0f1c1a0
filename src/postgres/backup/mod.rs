//! Backups: one tenant's schema out of one snapshot, and back in one transaction.
//!
//! What travels between the two is [`ArchivePart`]s of an [`archive`](crate::archive): into a file, out of
//! one, or from one schema straight into another.

mod dump;
mod file;
mod progress;
mod restore;
mod verify_ddl;

use std::fmt::{self, Write as _};

use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::transaction::retry::GaveUp;
use crate::service::failure::{Holder, MigrateError, ServerError};

pub use dump::Source;
pub use file::back_up;
pub use restore::{Destination, Restored};
pub use verify_ddl::DdlVerifier;

use crate::archive::{ArchiveError, ArchivePart};

/// The parts that are under way between the one who reads and the one who writes.
pub type PartReceiver = tokio::sync::mpsc::Receiver<Result<ArchivePart, ArchiveError>>;

/// How many portions of rows are under way at once.
pub const CHANNEL_CAPACITY: usize = 16;

/// Why a tenant was not backed up, restored or copied; nothing is left of what was begun.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackupError {
    /// The schema or the tenant's row is not there.
    TenantMissing,
    /// Another session held the schema's lock all the time.
    Locked {
        /// Who, where the server told.
        holder: Option<Holder>,
        /// How long was waited.
        waited: std::time::Duration,
    },
    /// The schema holds what cannot be written down.
    Unsupported(Vec<String>),
    /// Texts hold the schema's name, which would be another one.
    NameReferenced(Vec<String>),
    /// What was restored is not what was backed up; says where they differ.
    Different(String),
    /// The catalog refused the new tenant, or the work in its transaction failed.
    Change(ChangeError),
    /// The file.
    Archive(ArchiveError),
    /// The server refused something.
    Server {
        /// What was being done.
        doing: String,
        /// What it said.
        error: ServerError,
    },
}

impl BackupError {
    /// Returns whether it may have been done all the same: nobody answered COMMIT, nor could say
    /// afterwards what became of it.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        match self {
            Self::Change(ChangeError::Migrate(error)) => {
                matches!(**error, MigrateError::InDoubt { .. })
            }
            _ => false,
        }
    }

    fn server(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |error| Self::refused(doing, &error)
    }

    fn refused(doing: impl Into<String>, error: &tokio_postgres::Error) -> Self {
        Self::Server {
            doing: doing.into(),
            error: server_error(error),
        }
    }
}

impl From<ArchiveError> for BackupError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl From<CatalogError> for BackupError {
    fn from(error: CatalogError) -> Self {
        Self::Change(ChangeError::Catalog(error))
    }
}

impl From<ChangeError> for BackupError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Migrate(error) => match *error {
                MigrateError::Database { doing, error } => Self::Server { doing, error },
                other => Self::Change(ChangeError::Migrate(Box::new(other))),
            },
            ChangeError::Locked { holder, waited } => Self::Locked { holder, waited },
            ChangeError::InUse(error) => Self::Server {
                doing: "waiting for a lock".to_owned(),
                error,
            },
            catalog @ ChangeError::Catalog(_) => Self::Change(catalog),
        }
    }
}

impl From<GaveUp> for BackupError {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::Lost(error) => Self::Server {
                doing: "the connection was lost".to_owned(),
                error,
            },
            gave_up => ChangeError::from(gave_up).into(),
        }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TenantMissing => {
                f.write_str("the tenant was dropped meanwhile, or has no schema")
            }
            Self::Locked { holder, waited } => {
                f.write_str("the schema is locked by ")?;
                match holder {
                    Some(holder) => holder.fmt(f)?,
                    None => f.write_str("another session")?,
                }
                write!(f, "; waited {} s", waited.as_secs())
            }
            Self::Unsupported(what) => write!(
                f,
                "the schema holds what a backup cannot: {}",
                what.join(", ")
            ),
            Self::NameReferenced(what) => write!(
                f,
                "the schema's name stands in texts, which would lead back to the old schema: {}",
                what.join(", ")
            ),
            Self::Different(why) => write!(
                f,
                "what was restored is not what was backed up, and was taken back: {why}"
            ),
            Self::Change(ChangeError::Catalog(error)) => error.fmt(f),
            Self::Change(ChangeError::Migrate(error)) => match &**error {
                MigrateError::InDoubt { doing, error } => write!(
                    f,
                    "{doing}: the connection was lost, and whether the transaction is committed is unknown: {error}"
                ),
                // A restore runs no migration.
                _ => f.write_str("a migration failed"),
            },
            Self::Change(ChangeError::Locked { .. } | ChangeError::InUse(_)) => {
                f.write_str("another session holds a lock")
            }
            Self::Archive(error) => error.fmt(f),
            Self::Server { doing, error } => {
                write!(f, "{doing}: {error}")?;
                match &error.detail {
                    Some(detail) => write!(f, "; {detail}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for BackupError {}

/// Returns who is to own the schema; to be said before its objects get their owners, who must be allowed to
/// create there (manual, ALTER TABLE).
fn owner_of_schema(statements: &[(String, String)], schema: &SchemaName) -> String {
    let is_owner = |(_, after): &&(String, String)| after.starts_with(" OWNER TO ");
    let owner: Vec<(String, String)> = statements.iter().filter(is_owner).cloned().collect();
    about_schema(&owner, schema)
}

/// Returns what is said of a schema, with its name in its place.
fn about_schema(statements: &[(String, String)], schema: &SchemaName) -> String {
    let mut sql = String::new();
    for (before, after) in statements {
        let _ = writeln!(sql, "{before} {}{after};", schema.quoted());
    }
    sql
}
