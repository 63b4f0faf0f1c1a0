//! Hints for an object that does not exist: the tenant's pending migrations may create it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::migrator::PostgresMigrator;
use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::SchemaState;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::service::failure::ServerError;
use crate::service::fleet::SchemaMigrator as _;

/// Returns whether an error reports that a relation, column, function or type does not exist.
pub fn is_something_missing(error: &ServerError) -> bool {
    matches!(
        error.sqlstate.as_deref(),
        Some(
            sqlstate::UNDEFINED_TABLE
                | sqlstate::UNDEFINED_COLUMN
                | sqlstate::UNDEFINED_FUNCTION
                | sqlstate::UNDEFINED_OBJECT
        )
    )
}

/// Returns how many migrations of some tenants are pending. The survey runs once, at the first call.
#[derive(Debug)]
pub struct PendingHint {
    /// `None` without valid migration files.
    migrator: Option<Arc<PostgresMigrator>>,
    targets: Vec<Arc<Target>>,
    pending: OnceCell<HashMap<SchemaName, usize>>,
}

impl PendingHint {
    /// Returns the hints for these tenants.
    pub fn new(migrator: Option<Arc<PostgresMigrator>>, targets: Vec<Arc<Target>>) -> Self {
        Self { migrator, targets, pending: OnceCell::new() }
    }

    /// Returns how many migrations are pending; `None` without files, without a schema, or if the history
    /// does not match the files.
    pub async fn pending(&self, target: &Target) -> Option<usize> {
        let pending = self.pending.get_or_init(|| self.survey()).await;
        pending.get(&target.schema).copied()
    }

    /// Returns the hint to migrate the tenant; `None` unless migrations are known to be pending.
    pub async fn notice(&self, target: &Target) -> Option<Hint> {
        let migrations = match self.pending(target).await? {
            0 => return None,
            1 => "1 migration".to_owned(),
            more => format!("{more} migrations"),
        };
        Some(Hint::command(
            format!("tenant '{}' is {migrations} behind", target.label),
            format!("migrate-schemas {}", Target::option(std::iter::once(target))),
        ))
    }

    /// Returns the hint for an error that reports a missing object; `None` for other errors.
    pub async fn hint(&self, target: &Target, error: &ServerError) -> Option<Hint> {
        if !is_something_missing(error) {
            return None;
        }
        if let Some(notice) = self.notice(target).await {
            return Some(notice);
        }
        Some(match self.pending(target).await {
            Some(_) => format!(
                "tenant '{}' has no migration pending; names are looked up in {}, then in [run] search_path",
                target.label, target.schema
            )
            .into(),
            None => Hint::command(
                format!("check whether tenant '{}' is migrated", target.label),
                format!("status {}", Target::option(std::iter::once(target))),
            ),
        })
    }

    async fn survey(&self) -> HashMap<SchemaName, usize> {
        let Some(migrator) = &self.migrator else {
            return HashMap::new();
        };
        let states = migrator.survey(&self.targets).await.unwrap_or_default();
        let known = |(target, state): (&Arc<Target>, SchemaState)| match state {
            SchemaState::Known(plan) => Some((target.schema.clone(), plan.pending.len())),
            _ => None,
        };
        self.targets.iter().zip(states).filter_map(known).collect()
    }
}
