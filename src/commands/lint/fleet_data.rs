//! Data from the database for findings: pending files and measured costs.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::Args;
use super::pending::schemas_by_file;
use crate::commands::run::app::{Access, App, Sets};
use crate::commands::run::migration::Migration;
use crate::domain::catalog::{CatalogError, TenantCatalog as _};
use crate::domain::script::Scope;
use crate::error::{Exit, Failure};
use crate::migrations::lint::{Finding, Rule};
use crate::postgres::migrate::template::{in_one_transaction, stored_refusal};
use crate::postgres::report::lint_cost::{Measured, measure};
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::rollout::{Scopes, Survey};
use crate::service::stages::Stages;
use crate::ui::count;

/// Pending files, number of tenants and measured costs.
#[derive(Default)]
pub(super) struct FleetData {
    pub(super) survey: Option<Survey>,
    tenants: usize,
    measured: Option<Measured>,
    /// Why the tenant set has no template, if that is stored.
    pub(super) without_template: Option<String>,
}

impl FleetData {
    /// Reads what `--pending` and `--fleet` need.
    pub(super) async fn read(args: &Args, app: &App, sets: &Sets) -> Result<Self, Failure> {
        let access = if args.fleet { Access::Write } else { Access::Read };
        let database = app.database(access, 2).await?;
        let catalog = app.catalog(&database);
        let tenants = match catalog.list().await {
            Err(CatalogError::TablesMissing(_)) => 0,
            list => list?.tenants.len(),
        };
        let mut data = Self { tenants, ..Self::default() };
        if args.pending {
            let migrator = app
                .migrator(&database, app.engine_options(&database), sets, Access::Read, 1)
                .await?;
            let run = Migration {
                app,
                migrator: &migrator,
                catalog: &catalog,
                pace: ConcurrencyLimit::fixed(NonZeroUsize::MIN),
                on_failure: app.settings.on_failure,
                scopes: Scopes::Everything,
                stages: Stages::default(),
            };
            data.survey = Some(run.survey().await?);
        }
        let options = app.engine_options(&database);
        let scripts = in_one_transaction(&sets.tenant);
        data.without_template = stored_refusal(&database, &options, &scripts).await;
        if args.fleet {
            let measured = measure(&database).await.map_err(|error| {
                Failure::words(Exit::Refused, format!("cannot measure costs: {error}")).hint(
                    "measuring creates a schema and rolls it back; it needs CREATE on the database",
                )
            })?;
            data.measured = Some(measured);
        }
        Ok(data)
    }

    /// Returns the measured cost of a finding for all tenants, if its rule is measured.
    pub(super) fn forecast(&self, finding: &Finding) -> Option<String> {
        let measured = self.measured?;
        let schemas = match &self.survey {
            Some(survey) => *schemas_by_file(survey).get(&(finding.scope, finding.file))?,
            None => self.tenants,
        };
        if finding.scope == Scope::Shared || schemas == 0 {
            return None;
        }
        let factor = u32::try_from(schemas).unwrap_or(u32::MAX);
        let all = |each: Duration| {
            let each_ms = each.as_secs_f64() * 1000.0;
            let total = (each * factor).as_secs_f64();
            format!(
                "{each_ms:.1} ms in each of {}, {total:.1} s in total",
                count(schemas, "schema")
            )
        };
        match finding.rule {
            Rule::AddColumnDefault => Some(format!(
                "measured here: {}; ADD COLUMN, then SET DEFAULT: {}",
                all(measured.with_default),
                all(measured.default_apart)
            )),
            Rule::AlterColumnType => {
                Some(format!("measured here, on an empty table: {}", all(measured.alter_type)))
            }
            _ => None,
        }
    }
}
