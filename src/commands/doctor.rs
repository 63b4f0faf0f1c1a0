//! `doctor`: rows without schemas, schemas without rows.

use clap::ValueEnum;

use super::Output;
use super::app::{Access, App};
use crate::domain::plan::SchemaState;
use crate::domain::tenant::TenantCatalog as _;
use crate::error::{Exit, Failure};
use crate::service::event::Target;
use crate::service::rollout::RolloutError;
use crate::service::tenants::target;
use crate::ui::{Cell, Listing, count};

/// Find tenants whose schema is missing, and schemas that belong to no tenant
///
/// Changes nothing unless --fix is given. Exit 11 when something is found and stays.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// missing: create the schemas that tenants lack, empty; migrate-schemas then fills them.
    /// ledger: write it anew from the histories
    #[arg(long, value_enum, value_name = "WHAT")]
    fix: Option<Fix>,
    /// The shape of the listing
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fix {
    /// Create the schemas that tenants lack
    Missing,
    /// Write the ledger anew from the histories
    Ledger,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let sets = app.sets()?;
    let access = if args.fix.is_some() {
        Access::Write
    } else {
        Access::Read
    };
    let database = app.database(access, 2).await?;
    let catalog = app.catalog(&database);
    let list = catalog.list().await?;
    let mut targets = vec![std::sync::Arc::new(Target::public())];
    targets.extend(list.tenants.iter().map(target));
    let migrator = app
        .migrator(&database, app.rules(&database), &sets, access, 1)
        .await?;
    let verified = migrator
        .verify(&targets)
        .await
        .map_err(RolloutError::Survey)?;
    let mut rows = Vec::new();
    let mut left = 0;
    for &position in &verified.disagreeing {
        let target = &targets[position];
        let finding = if args.fix == Some(Fix::Ledger) {
            "the ledger was wrong about it; written anew"
        } else {
            left += 1;
            "the ledger says something else than its history"
        };
        rows.push(finding_row(
            target.schema.as_str(),
            &target.label,
            finding.to_owned(),
        ));
    }
    if args.fix == Some(Fix::Ledger) {
        let answered = migrator
            .rebuild_ledger(&targets)
            .await
            .map_err(RolloutError::Survey)?;
        app.terminal.note(&format!(
            "the ledger answers for {}",
            count(answered, "schema")
        ));
    }
    for (target, state) in targets.iter().zip(verified.states) {
        let finding = match state {
            SchemaState::Missing if args.fix == Some(Fix::Missing) => {
                catalog.create_schema(&target.schema).await?;
                "the schema was missing; created, empty".to_owned()
            }
            SchemaState::Missing => {
                left += 1;
                "the schema does not exist".to_owned()
            }
            SchemaState::Damaged(why) => {
                left += 1;
                format!("the history is damaged: {why}")
            }
            SchemaState::Drifted(drifts, _) => {
                left += 1;
                let drifts: Vec<String> = drifts.iter().map(ToString::to_string).collect();
                drifts.join("; ")
            }
            SchemaState::Known(_) => continue,
        };
        rows.push(finding_row(target.schema.as_str(), &target.label, finding));
    }
    for row in &list.refused {
        left += 1;
        rows.push(finding_row(&row.schema, &row.slug, row.reason.to_string()));
    }
    for orphan in catalog
        .orphans(&app.settings.schema_prefix, &app.settings.history_table)
        .await?
    {
        left += 1;
        rows.push(finding_row(
            &orphan,
            "",
            "looks like a tenant's schema, and no tenant has it".to_owned(),
        ));
    }
    let fixed = rows.len() - left;
    Listing::new(&["schema", "tenant", "finding"], "nothing found").write(
        &app.terminal,
        args.output.into(),
        rows,
    )?;
    if fixed > 0 && args.fix == Some(Fix::Missing) {
        app.terminal.note(&format!(
            "{} created; next: pricesync migrate-schemas",
            count(fixed, "schema")
        ));
    }
    Ok(if left == 0 { Exit::Done } else { Exit::Drift })
}

fn finding_row(schema: &str, tenant: &str, finding: String) -> Vec<Cell> {
    let tenant = if tenant.is_empty() {
        Cell::Absent
    } else {
        Cell::Text(tenant.to_owned())
    };
    vec![Cell::Text(schema.to_owned()), tenant, Cell::Text(finding)]
}
