//! The error of every change to a tenant.

use std::fmt;
use std::time::Duration;

use super::catalog::{database_error, unreachable_error};
use crate::domain::catalog::CatalogError;
use crate::postgres::transaction::retry::GaveUp;
use crate::service::failure::{Holder, MigrateError, ServerError};

/// Why a tenant was not created, adopted, renamed, dropped, restored or otherwise changed.
#[derive(Debug)]
pub enum ChangeError {
    /// The catalog or the server rejected it.
    Catalog(CatalogError),
    /// A migration failed.
    Migrate(Box<MigrateError>),
    /// Another session held the schema's lock for longer than `lock_wait`.
    Locked {
        /// That session, if the server named it.
        holder: Option<Holder>,
        /// The time waited.
        waited: Duration,
    },
    /// Other sessions held locks that the change requires, in every attempt.
    InUse(ServerError),
    /// An interrupt ended it; what was not committed is rolled back.
    Interrupted,
}

impl ChangeError {
    /// Returns whether lock contention was the cause, so that a retry may succeed.
    pub fn is_contention(&self) -> bool {
        match self {
            Self::Catalog(error) => error.is_contention(),
            Self::Migrate(error) => match &**error {
                MigrateError::Script { error, .. } | MigrateError::Database { error, .. } => {
                    error.is_contention()
                }
                _ => false,
            },
            Self::Locked { .. } | Self::InUse(_) => true,
            Self::Interrupted => false,
        }
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalog(error) => error.fmt(f),
            Self::Migrate(error) => match &**error {
                MigrateError::InDoubt { doing, error } => write!(
                    f,
                    "{doing}: the connection was lost, and whether the transaction is committed is unknown: {error}"
                ),
                _ => f.write_str("a migration failed"),
            },
            Self::Locked { holder, waited } => {
                f.write_str("the schema is locked by ")?;
                match holder {
                    Some(holder) => holder.fmt(f)?,
                    None => f.write_str("another session")?,
                }
                write!(f, "; waited {} s", waited.as_secs())
            }
            Self::InUse(error) => write!(f, "timed out waiting for a lock: {error}"),
            Self::Interrupted => {
                f.write_str("interrupted; the server rolls back what was not committed")
            }
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<CatalogError> for ChangeError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

impl From<MigrateError> for ChangeError {
    fn from(error: MigrateError) -> Self {
        Self::Migrate(Box::new(error))
    }
}

impl From<GaveUp> for ChangeError {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::Locked { holder, waited } => Self::Locked { holder, waited },
            GaveUp::NotConnected(error) => unreachable_error(error).into(),
            GaveUp::Lost(error) => database_error(error).into(),
            GaveUp::Unknown(error) => {
                MigrateError::InDoubt { doing: "committing".to_owned(), error }.into()
            }
            GaveUp::Cancelled => Self::Interrupted,
        }
    }
}
