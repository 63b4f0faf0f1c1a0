//! `baseline`: schemas that exist already get a history, and nothing else.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::args::select::SelectArgs;
use super::migrate_schemas::Migration;
use super::run::app::{Access, App, connections_for};
use crate::domain::plan::Goal;
use crate::domain::run_options::{Atomic, OnFailure};
use crate::domain::schema_state::SchemaState;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::postgres::migrate::baseline::Baseline;
use crate::postgres::migrate::migrator::{Mode, PostgresMigrator};
use crate::service::rollout::{Scopes, Survey};
use crate::service::stages::Stages;
use crate::ui::{Cell, Listing, OutputFormat, count};

/// Record migrations as applied in schemas that another tool made
///
/// Every selected schema that has no history gets one that ends at the given version, in a
/// transaction of its own; no file is run. A schema must hold the tables and columns that
/// the files up to that version make. One that has another history is refused before
/// anything is done.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The last version that is recorded as applied
    #[arg(long, value_name = "VERSION")]
    to: i64,
    /// Only the shared schema, public; tenants otherwise
    #[arg(long, conflicts_with_all = ["tenants", "from_file", "condition", "exclude"])]
    shared: bool,
    #[command(flatten)]
    select: SelectArgs,
    /// List what would be recorded and which schemas do not fit; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not compare tables and columns with the files
    #[arg(long)]
    unchecked: bool,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let sets = app.sets()?;
    let scope = if args.shared {
        Scope::Shared
    } else {
        Scope::Tenant
    };
    let set = match scope {
        Scope::Shared => &sets.shared,
        Scope::Tenant => &sets.tenant,
    };
    if !set.ids().iter().any(|id| id.version == args.to) {
        let failure = Failure::words(
            Exit::Usage,
            format!("no migration has the version {}", args.to),
        );
        return Err(match set.ids().iter().map(|id| id.version).max() {
            Some(newest) => failure.hint(format!("the newest is {newest}")),
            None => failure,
        });
    }
    let selectors = args.select.read()?;
    let access = if args.dry_run {
        Access::Read
    } else {
        Access::Write
    };
    let database = app.database(access, 1).await?;
    let mut engine_options = app.engine_options(&database);
    engine_options.goal = Goal::Version(args.to);
    engine_options.atomic = Atomic::Schema;
    let pace = app.pace(&database);
    let connections = NonZeroUsize::new(connections_for(pace.jobs()));
    database.resize(connections.unwrap_or(NonZeroUsize::MIN));
    let catalog = app.catalog(&database);
    let scopes = match scope {
        Scope::Shared => Scopes::Shared,
        Scope::Tenant => Scopes::Selected(selectors.resolve(&catalog).await?),
    };
    // Its histories are read one by one where the ledger knows nothing, and noted by none yet.
    let looker = app
        .migrator(&database, engine_options.clone(), &sets, Access::Read, 1)
        .await?;
    let expected = expected(args, scope, &looker, app).await?;
    let migrator = app
        .migrator(&database, engine_options, &sets, access, pace.jobs())
        .await?;
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
        rehearsal: false,
    };
    let survey = run.survey().await?;
    refuse_histories(&survey, args.to)?;
    if args.dry_run {
        return list(&survey, &expected.unwrap_or_default(), &looker, app).await;
    }
    Ok(Exit::of(&run.run(survey).await?))
}

/// What the files up to the version make; nothing where it is not to be compared or not known.
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
            app.terminal.warn(&format!(
                "tables and columns are not compared with the files: {why}"
            ));
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
    Err(Failure::words(
        Exit::Refused,
        format!("there is a history already in {words}"),
    )
    .hint(
        "nothing was changed; leave them out with --exclude, or bring them on with migrate-schemas",
    ))
}

async fn list(
    survey: &Survey,
    expected: &Baseline,
    migrator: &PostgresMigrator,
    app: &App,
) -> Result<Exit, Failure> {
    let mut unfit = HashSet::new();
    let mut rows = Vec::new();
    for item in &survey.schemas {
        let finding = match &item.state {
            SchemaState::Known(plan) if plan.pending.is_empty() => continue,
            SchemaState::Known(plan) => {
                let schema = &item.target.schema;
                let lacks = migrator.lacks(schema, expected).await;
                let lacks = lacks.map_err(|error| Failure::words(Exit::Unexpected, error))?;
                if lacks.is_empty() {
                    format!(
                        "{} would be recorded",
                        count(plan.pending.len(), "migration")
                    )
                } else {
                    unfit.insert(schema);
                    format!("does not fit, it lacks {}", lacks.join(", "))
                }
            }
            SchemaState::Dropped | SchemaState::Drifted(..) | SchemaState::Damaged(_) => continue,
            state => {
                let selection = Target::option(std::iter::once(&*item.target));
                app.terminal.problems(state, &selection).join("; ")
            }
        };
        rows.push(vec![
            Cell::Text(item.target.schema.to_string()),
            Cell::Text(finding),
        ]);
    }
    Listing::new(&["schema", "baseline"], "nothing would be recorded").write(
        &app.terminal,
        OutputFormat::Table,
        rows,
    )?;
    Ok(if unfit.is_empty() {
        Exit::Done
    } else {
        Exit::SchemasFailed
    })
}
