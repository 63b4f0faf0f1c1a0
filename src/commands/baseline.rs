//! `baseline`: records migrations as applied in existing schemas.

mod from_tool;

use std::sync::Arc;

use super::args::select::SelectArgs;
use super::run::CommandRun;
use super::run::app::{Access, App, Sets};
use super::run::migration::{Migration, no_such_version};
use crate::domain::plan::Goal;
use crate::domain::run_options::{Atomic, OnFailure};
use crate::domain::schema_state::SchemaState;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::migrations::MigrationSet;
use crate::migrations::import::Tool;
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::baseline::Baseline;
use crate::postgres::migrate::context::Mode;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::rollout::{Scopes, Survey};
use crate::service::stages::Stages;
use crate::service::summary::Summary;
use crate::ui::{Cell, Listing, OutputFormat, count};

/// Record migrations as applied in schemas of another tool
///
/// Each selected schema without a history gets one up to the given version, in a transaction of
/// its own; no migration runs. The schema must contain the tables and columns that the files up to
/// that version create. If a selected schema has another history, nothing is changed.
///
/// With --from each schema gets the version that the history table of another tool says, for files
/// of 'import' or files with the same versions. The tools are those of 'import'.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The last version to record as applied
    #[arg(long, value_name = "VERSION", required_unless_present = "from", conflicts_with = "from")]
    to: Option<i64>,
    /// Record what this tool has applied, in each schema
    #[arg(long, value_name = "TOOL", value_parser = super::import::tool(), hide_possible_values = true)]
    from: Option<Tool>,
    /// Table of the tool's history, if it has another name than usual
    #[arg(long, value_name = "TABLE", requires = "from")]
    history_table: Option<String>,
    /// Schema of a history that stands for all schemas, such as public
    #[arg(long, value_name = "SCHEMA", requires = "from")]
    history_in: Option<String>,
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
        if let Some(tool) = self.from {
            return from_tool::run(self, tool, app).await;
        }
        let to = self.to.unwrap_or_default();
        let access = if self.dry_run { Access::Read } else { Access::Write };
        let preparation = Preparation::new(self, access, app).await?;
        let expected = preparation.expected(to, self.unchecked, app).await?;
        let run = preparation.run(to, expected.clone(), app).await?;
        let survey = run.survey().await?;
        refuse_histories(&survey, to)?;
        if self.dry_run {
            return list(&survey, &expected.unwrap_or_default(), &preparation.reader, app).await;
        }
        Ok(Exit::of(&run.run(survey).await?))
    }
}

/// What the runs of the command share.
struct Preparation {
    scope: Scope,
    scopes: Scopes,
    sets: Sets,
    access: Access,
    database: Database,
    pace: ConcurrencyLimit,
    catalog: PostgresCatalog,
    /// Reads only: it does not add histories to the ledger.
    reader: Arc<PostgresMigrator>,
}

impl Preparation {
    async fn new(args: &Args, access: Access, app: &App) -> Result<Self, Failure> {
        let sets = app.sets()?;
        let scope = if args.shared { Scope::Shared } else { Scope::Tenant };
        let set = match scope {
            Scope::Shared => &sets.shared,
            Scope::Tenant => &sets.tenant,
        };
        if let Some(to) = args.to.filter(|to| !set.ids().iter().any(|id| id.version == *to)) {
            return Err(no_such_version(to, set));
        }
        let selectors = args.select.read()?;
        let (database, pace) = app.database_for_jobs(access).await?;
        let catalog = app.catalog(&database);
        let scopes = match scope {
            Scope::Shared => Scopes::Shared,
            Scope::Tenant => Scopes::Selected(selectors.resolve(&catalog).await?),
        };
        let options = app.engine_options(&database);
        let reader = app.migrator(&database, options, &sets, Access::Read, 1).await?;
        Ok(Self { scope, scopes, sets, access, database, pace, catalog, reader })
    }

    fn set(&self) -> &MigrationSet {
        match self.scope {
            Scope::Shared => &self.sets.shared,
            Scope::Tenant => &self.sets.tenant,
        }
    }

    /// Returns the tables and columns that the files up to a version create; `None` if they are not
    /// compared, or cannot be determined.
    async fn expected(
        &self,
        version: i64,
        is_unchecked: bool,
        app: &App,
    ) -> Result<Option<Baseline>, Failure> {
        if is_unchecked {
            return Ok(None);
        }
        let known = self.reader.baseline_of(self.scope, version).await;
        match known.map_err(|error| Failure::words(Exit::Unexpected, error))? {
            Ok(baseline) => Ok(Some(baseline)),
            Err(why) => {
                app.terminal
                    .warn(&format!("cannot compare tables and columns with the files: {why}"));
                Ok(None)
            }
        }
    }

    /// Returns the run that records the files up to a version.
    async fn run<'a>(
        &'a self,
        version: i64,
        expected: Option<Baseline>,
        app: &'a App,
    ) -> Result<BaselineRun<'a>, Failure> {
        let mut options = app.engine_options(&self.database);
        options.goal = Goal::Version(version);
        options.atomic = Atomic::Schema;
        let jobs = self.pace.jobs();
        let migrator = app.migrator(&self.database, options, &self.sets, self.access, jobs).await?;
        let mode = Mode::Baseline(Arc::new(expected.unwrap_or_default()));
        let migrator = Arc::new(PostgresMigrator::clone(&migrator).with_mode(mode));
        Ok(BaselineRun { preparation: self, migrator, app })
    }
}

/// A run that records the files up to one version.
struct BaselineRun<'a> {
    preparation: &'a Preparation,
    migrator: Arc<PostgresMigrator>,
    app: &'a App,
}

impl BaselineRun<'_> {
    async fn survey(&self) -> Result<Survey, Failure> {
        self.migration().survey().await
    }

    async fn run(&self, survey: Survey) -> Result<Summary, Failure> {
        self.migration().run(survey).await
    }

    fn migration(&self) -> Migration<'_> {
        Migration {
            app: self.app,
            migrator: &self.migrator,
            catalog: &self.preparation.catalog,
            pace: self.preparation.pace.clone(),
            on_failure: OnFailure::Continue,
            scopes: self.preparation.scopes.clone(),
            stages: Stages::default(),
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
