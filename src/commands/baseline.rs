//! `baseline`: records migrations as applied in existing schemas.

use std::sync::Arc;

use super::args::select::SelectArgs;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::migration::{Migration, no_such_version};
use crate::domain::plan::Goal;
use crate::domain::run_options::{Atomic, OnFailure};
use crate::domain::schema_state::SchemaState;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::postgres::migrate::baseline::Baseline;
use crate::postgres::migrate::context::Mode;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::service::rollout::{Scopes, Survey};
use crate::service::stages::Stages;
use crate::ui::{Cell, Listing, OutputFormat, count};

/// Record migrations as applied in schemas of another tool
///
/// Each selected schema without a history gets one up to the given version, in a transaction of
/// its own; no migration runs. The schema must contain the tables and columns that the files up to
/// that version create. If a selected schema has another history, nothing is changed.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The last version to record as applied
    #[arg(long, value_name = "VERSION")]
    to: i64,
    /// Only the shared schema, public, instead of the tenants
    #[arg(long, conflicts_with_all = ["tenants", "from_file", "condition", "exclude"])]
    shared: bool,
    #[command(flatten)]
    select: SelectArgs,
    /// Change nothing: list what would be recorded, and mismatches
    #[arg(long)]
    dry_run: bool,
    /// Do not compare tables and columns with the files
    #[arg(long)]
    unchecked: bool,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let sets = app.sets()?;
        let scope = if self.shared { Scope::Shared } else { Scope::Tenant };
        let set = match scope {
            Scope::Shared => &sets.shared,
            Scope::Tenant => &sets.tenant,
        };
        if !set.ids().iter().any(|id| id.version == self.to) {
            return Err(no_such_version(self.to, set));
        }
        let selectors = self.select.read()?;
        let access = if self.dry_run { Access::Read } else { Access::Write };
        let (database, pace) = app.database_for_jobs(access).await?;
        let mut options = app.engine_options(&database);
        options.goal = Goal::Version(self.to);
        options.atomic = Atomic::Schema;
        let catalog = app.catalog(&database);
        let scopes = match scope {
            Scope::Shared => Scopes::Shared,
            Scope::Tenant => Scopes::Selected(selectors.resolve(&catalog).await?),
        };
        // Reads only: it does not add histories to the ledger.
        let reader = app.migrator(&database, options.clone(), &sets, Access::Read, 1).await?;
        let expected = expected(self, scope, &reader, app).await?;
        let migrator = app.migrator(&database, options, &sets, access, pace.jobs()).await?;
        let mode = Mode::Baseline(Arc::new(expected.clone().unwrap_or_default()));
        let migrator = Arc::new(PostgresMigrator::clone(&migrator).with_mode(mode));
        let run = Migration {
            app,
            migrator: &migrator,
            catalog: &catalog,
            pace,
            on_failure: OnFailure::Continue,
            scopes,
            stages: Stages::default(),
            dry_run: false,
        };
        let survey = run.survey().await?;
        refuse_histories(&survey, self.to)?;
        if self.dry_run {
            return list(&survey, &expected.unwrap_or_default(), &reader, app).await;
        }
        Ok(Exit::of(&run.run(survey).await?))
    }
}

/// Returns the tables and columns that the files up to the version create; `None` if they are not
/// compared, or cannot be determined.
async fn expected(
    args: &Args,
    scope: Scope,
    migrator: &PostgresMigrator,
    app: &App,
) -> Result<Option<Baseline>, Failure> {
    if args.unchecked {
        return Ok(None);
    }
    let known = migrator
        .baseline_of(scope, args.to)
        .await
        .map_err(|error| Failure::words(Exit::Unexpected, error))?;
    match known {
        Ok(baseline) => Ok(Some(baseline)),
        Err(why) => {
            app.terminal.warn(&format!("cannot compare tables and columns with the files: {why}"));
            Ok(None)
        }
    }
}

fn refuse_histories(survey: &Survey, to: i64) -> Result<(), Failure> {
    let mut refused = Vec::new();
    for item in &survey.schemas {
        let schema = &item.target.schema;
        match &item.state {
            SchemaState::Known(plan) => match plan.version {
                None => {}
                Some(version) if version == to && plan.pending.is_empty() => {}
                Some(version) => refused.push(format!("{schema} (at version {version})")),
            },
            SchemaState::Missing | SchemaState::Dropping | SchemaState::Dropped => {}
            state => refused.push(format!("{schema} ({})", state.label())),
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let more = refused.len().saturating_sub(10);
    refused.truncate(10);
    let mut words = refused.join(", ");
    if more > 0 {
        words = format!("{words} and {more} more");
    }
    Err(Failure::words(Exit::Refused, format!("these schemas already have a history: {words}"))
        .hint("nothing was changed: use --exclude, or migrate them with migrate-schemas"))
}

async fn list(
    survey: &Survey,
    expected: &Baseline,
    migrator: &PostgresMigrator,
    app: &App,
) -> Result<Exit, Failure> {
    let mut mismatched = 0;
    let mut rows = Vec::new();
    for item in &survey.schemas {
        let finding = match &item.state {
            SchemaState::Known(plan) if plan.pending.is_empty() => continue,
            SchemaState::Known(plan) => {
                let schema = &item.target.schema;
                let lacks = migrator.lacks(schema, expected).await;
                let lacks = lacks.map_err(|error| Failure::words(Exit::Unexpected, error))?;
                if lacks.is_empty() {
                    format!("{} would be recorded", count(plan.pending.len(), "migration"))
                } else {
                    mismatched += 1;
                    format!("mismatch: lacks {}", lacks.join(", "))
                }
            }
            SchemaState::Dropped | SchemaState::Drifted(..) | SchemaState::Damaged(_) => continue,
            state => {
                let selection = Target::option(std::iter::once(&*item.target));
                app.terminal.problems(state, &selection).join("; ")
            }
        };
        rows.push(vec![Cell::Text(item.target.schema.to_string()), Cell::Text(finding)]);
    }
    Listing::new(&["schema", "baseline"], "nothing would be recorded").write(
        &app.terminal,
        OutputFormat::Table,
        rows,
    )?;
    Ok(if mismatched == 0 { Exit::Done } else { Exit::SchemasFailed })
}
