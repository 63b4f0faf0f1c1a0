//! Backs up a tenant in one snapshot, and restores or copies it in one transaction.
//!
//! Imports the rooms up to `tenants`, and `client` for `pg_dump`. Start reading at [`BackupJob`]. A dump
//! sends [`ArchivePart`]s of an [`archive`](crate::archive) to a file or straight to a restore.

mod dump;
mod file;
mod insert;
mod job;
mod progress;
mod restore;
mod verify_ddl;

use std::fmt::Write as _;

use crate::domain::catalog::CatalogError;
use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::transaction::retry::GaveUp;
use crate::service::failure::{MigrateError, ServerError};

pub use dump::Source;
pub use file::back_up;
pub use job::{BackupFile, BackupJob};
pub use restore::{Destination, Restored};
pub use verify_ddl::DdlVerifier;

use crate::archive::{ArchiveError, ArchivePart};

/// Receives the parts of a backup, in their order.
pub type PartReceiver = tokio::sync::mpsc::Receiver<Result<ArchivePart, ArchiveError>>;

/// Sends the parts of a backup.
pub type PartSender = tokio::sync::mpsc::Sender<Result<ArchivePart, ArchiveError>>;

/// How many parts are buffered between reader and writer.
pub const CHANNEL_CAPACITY: usize = 16;

/// Why a tenant was not backed up, restored or copied. The transaction is rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The schema or the tenant's row does not exist.
    #[error("the tenant was dropped meanwhile, or has no schema")]
    TenantMissing,
    /// The schema contains objects that a backup does not support; holds their descriptions.
    #[error("the schema contains objects that a backup does not support: {}", .0.join(", "))]
    Unsupported(Vec<String>),
    /// Texts of these objects contain the schema's name, and the new schema has another one.
    #[error("texts contain the schema's name and would refer to the old schema: {}", .0.join(", "))]
    NameReferenced(Vec<String>),
    /// The restored schema differs from the backup; holds the first difference.
    #[error("the restored schema differs from the backup and was rolled back: {0}")]
    Different(String),
    /// The catalog rejected the new tenant, or its transaction failed or was interrupted.
    #[error("{0}")]
    Change(ChangeError),
    /// The file could not be read or written.
    #[error("{0}")]
    Archive(ArchiveError),
    /// A statement failed.
    #[error("{doing}: {error}{}", error.detail.as_ref().map_or_else(String::new, |detail| format!("; {detail}")))]
    Server {
        /// What was attempted.
        doing: String,
        /// The server's error.
        error: ServerError,
    },
}

impl BackupError {
    /// Returns whether the transaction may be committed: the reply to COMMIT was lost and its outcome
    /// could not be resolved.
    pub fn is_in_doubt(&self) -> bool {
        match self {
            Self::Change(ChangeError::Migrate(error)) => {
                matches!(**error, MigrateError::InDoubt { .. })
            }
            _ => false,
        }
    }

    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<Hint> {
        let text = match self {
            Self::TenantMissing => return Some(Hint::command("list the tenants", "list-tenants")),
            Self::Change(ChangeError::Locked { .. }) => "wait for that run, or raise --lock-wait",
            Self::Unsupported(_) => {
                return Some(Hint::command("use pg_dump instead", "backup --engine pg_dump"));
            }
            Self::Archive(ArchiveError::Newer(_)) => {
                "read it with the version that wrote it or a later one"
            }
            Self::Server { error, .. } => match error.sqlstate.as_deref() {
                Some(sqlstate::UNDEFINED_OBJECT) => {
                    "create the missing role, extension or tablespace first"
                }
                Some(sqlstate::INSUFFICIENT_PRIVILEGE) => {
                    "restoring owners and privileges requires a role that may grant them, such as a superuser"
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(text.into())
    }

    fn server(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |error| Self::refused(doing, &error)
    }

    fn refused(doing: impl Into<String>, error: &tokio_postgres::Error) -> Self {
        Self::Server { doing: doing.into(), error: server_error(error) }
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
        Self::Change(error)
    }
}

impl From<GaveUp> for BackupError {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::Lost(error) => {
                Self::Server { doing: "the connection was lost".to_owned(), error }
            }
            gave_up => ChangeError::from(gave_up).into(),
        }
    }
}

/// Returns the statement that sets the schema's owner. It must run before objects get their owners,
/// who need the CREATE privilege on the schema (manual, ALTER TABLE).
fn owner_of_schema(statements: &[(String, String)], schema: &SchemaName) -> String {
    let is_owner = |(_, after): &&(String, String)| after.starts_with(" OWNER TO ");
    let owner: Vec<(String, String)> = statements.iter().filter(is_owner).cloned().collect();
    about_schema(&owner, schema)
}

/// Returns the statements on the schema itself, with its name inserted.
fn about_schema(statements: &[(String, String)], schema: &SchemaName) -> String {
    let mut sql = String::new();
    for (before, after) in statements {
        let _ = writeln!(sql, "{before} {}{after};", schema.quoted());
    }
    sql
}
