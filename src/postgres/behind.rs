//! Why something is not there: a tenant that has migrations pending lacks what they make.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::migrator::PostgresMigrator;
use crate::domain::plan::SchemaState;
use crate::domain::schema_name::SchemaName;
use crate::service::event::{ServerError, Target};
use crate::service::fleet::SchemaMigrator as _;

/// Returns whether an error says that a relation, column, function or type does not exist.
#[must_use]
pub fn is_something_missing(error: &ServerError) -> bool {
    matches!(
        error.sqlstate.as_deref(),
        Some("42P01" | "42703" | "42883" | "42704")
    )
}

/// Tells of some tenants how many migrations are pending. Asks once, and only when something
/// is missing somewhere.
#[derive(Debug)]
pub struct Behind {
    /// Without migration files nothing is known to be pending.
    migrator: Option<Arc<PostgresMigrator>>,
    targets: Vec<Arc<Target>>,
    pending: OnceCell<HashMap<SchemaName, usize>>,
}

impl Behind {
    /// Returns one for these tenants.
    #[must_use]
    pub fn new(migrator: Option<Arc<PostgresMigrator>>, targets: Vec<Arc<Target>>) -> Self {
        Self {
            migrator,
            targets,
            pending: OnceCell::new(),
        }
    }

    /// Returns what to do about an error that says that something does not exist; nothing for others.
    pub async fn hint(&self, target: &Target, error: &ServerError) -> Option<String> {
        if !is_something_missing(error) {
            return None;
        }
        let pending = self.pending.get_or_init(|| self.survey()).await;
        Some(match pending.get(&target.schema) {
            Some(0) => format!(
                "tenant '{}' has no migration pending; names are looked up in {}, then in [run] search_path",
                target.label, target.schema
            ),
            Some(1) => format!(
                "tenant '{0}' is 1 migration behind: pricesync migrate-schemas --tenant={0}",
                target.label
            ),
            Some(more) => format!(
                "tenant '{0}' is {more} migrations behind: pricesync migrate-schemas --tenant={0}",
                target.label
            ),
            None => format!(
                "is tenant '{0}' migrated? pricesync status --tenant={0}",
                target.label
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
