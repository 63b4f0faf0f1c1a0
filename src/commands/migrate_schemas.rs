//! `migrate-schemas`: migrates the shared schema and the tenants.

mod dry_run_report;
mod pending;

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::ValueEnum;

use super::args::overrides::{JobsArg, LockTimeoutArg, LockWaitArg, TemplateArg};
use super::args::rollout::RolloutArgs;
use super::args::select::{SelectArgs, Selectors};
use super::run::CommandRun;
use super::run::app::{Access, App, Sets};
use super::run::migration::{Migration, no_such_version};
use crate::domain::plan::Goal;
use crate::domain::run_options::OnFailure;
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::error::{Exit, Failure};
use crate::postgres::bookkeeping::run_log;
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::context::Mode;
use crate::postgres::migrate::dry_run;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::service::failure::ServerError;
use crate::service::rollout::Scopes;
use crate::service::summary::Summary;
use crate::settings::Overrides;
use crate::ui::{summary_document, write_document};

/// Migrate the shared schema, then every tenant
///
/// With --shared: public only. With a selection: the selected tenants only. Without both: public
/// first, then all tenants in parallel. Each schema is migrated completely or not at all, and it is
/// always safe to run the command again. --canary and --batches migrate tenants in stages.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync migrate-schemas --check
  pricesync migrate-schemas --tenant acme,globex --dry-run=sql
  pricesync migrate-schemas --on-failure continue -o json
  pricesync migrate-schemas --canary acme --batches 5%,25% --pause 2m
  pricesync migrate-schemas --from-file tenants.txt --dry-run")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Args {
    /// Migrate public only
    #[arg(long, conflicts_with_all = ["tenants", "from_file", "condition", "exclude", "retry_failed", "canary", "batches", "pause"])]
    shared: bool,
    #[command(flatten)]
    select: SelectArgs,
    /// Only the schemas whose last run failed
    #[arg(long, help_heading = "Selection")]
    retry_failed: bool,
    #[command(flatten)]
    stages: RolloutArgs,
    /// Only check: exit 3 if files are pending, 11 for drift, 6 for a lock
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
    /// Change nothing: list the files, print the SQL, or run and roll back
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "list", value_name = "WHAT")]
    dry_run: Option<DryRun>,
    /// Stop at this version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
    to: Option<i64>,
    /// Record the pending migrations as applied without running them
    #[arg(long)]
    fake: bool,
    #[command(flatten)]
    jobs: JobsArg,
    /// Schemas per transaction [default: 16] [env: PRICESYNC_GROUP_SIZE]
    #[arg(long, value_name = "N")]
    group_size: Option<String>,
    /// What to do after a failure [default: stop] [env: PRICESYNC_ON_FAILURE]
    #[arg(long, value_name = "stop|continue")]
    on_failure: Option<String>,
    /// Continue after failures, but start nothing new after N of them
    #[arg(long, value_name = "N")]
    max_failures: Option<NonZeroUsize>,
    #[command(flatten)]
    lock_timeout: LockTimeoutArg,
    #[command(flatten)]
    lock_wait: LockWaitArg,
    /// Statement timeout [default: none] [env: PRICESYNC_STATEMENT_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    statement_timeout: Option<String>,
    #[command(flatten)]
    template: TemplateArg,
    /// Print the summary on stdout in this format
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<SummaryFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    /// The migrations that would run, with their schemas
    List,
    /// The SQL that would run
    Sql,
    /// Run and roll back; prints time and locks of each statement
    Execute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SummaryFormat {
    /// One JSON document
    Json,
}

impl Args {
    fn is_json(&self) -> bool {
        self.output == Some(SummaryFormat::Json)
    }

    /// Returns whether the run continues after a failure.
    fn on_failure(&self, app: &App) -> Result<OnFailure, Failure> {
        match (self.max_failures, self.on_failure.as_deref()) {
            (Some(_), Some("stop")) => Err(Failure::words(
                Exit::Usage,
                "--max-failures and --on-failure=stop exclude each other",
            )),
            (Some(limit), _) => Ok(OnFailure::StopAfter(limit)),
            (None, _) => Ok(app.settings.on_failure),
        }
    }

    /// Returns the schemas to migrate; `None` for `--retry-failed` without a failed schema.
    async fn scopes(
        &self,
        selectors: Selectors,
        database: &Database,
        catalog: &PostgresCatalog,
    ) -> Result<Option<Scopes>, Failure> {
        let mut selection = selectors.resolve(catalog).await?;
        if self.retry_failed {
            let mut failed = run_log::failed_schemas(database).await.map_err(unknown_failures)?;
            if failed.is_empty() {
                return Ok(None);
            }
            let public = selection.is_everything() && failed.iter().any(SchemaName::is_public);
            failed.retain(|schema| match &selection.only {
                Some(only) => only.contains(schema),
                None => true,
            });
            selection.only = Some(failed.into_iter().collect());
            return Ok(Some(Scopes::Retry { public, tenants: selection }));
        }
        Ok(Some(match (self.shared, selection.is_everything()) {
            (true, _) => Scopes::Shared,
            (false, true) => Scopes::Everything,
            (false, false) => Scopes::Selected(selection),
        }))
    }
}

/// Converts the error of reading the failed schemas of earlier runs.
fn unknown_failures(error: ServerError) -> Failure {
    let exit = match error.sqlstate.as_deref() {
        Some(
            sqlstate::INVALID_SCHEMA_NAME | sqlstate::UNDEFINED_TABLE | sqlstate::UNDEFINED_COLUMN,
        ) => Exit::NotFound,
        Some(sqlstate::INSUFFICIENT_PRIVILEGE) => Exit::Refused,
        _ => return Failure::words(Exit::Unexpected, error),
    };
    Failure::words(
        exit,
        format!("cannot read which schemas failed in their last run: {error}"),
    )
    .hint("use --tenant, or migrate all schemas: a schema that is up to date costs almost nothing")
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.jobs.override_settings(overrides);
        self.lock_timeout.override_settings(overrides);
        self.lock_wait.override_settings(overrides);
        self.template.override_settings(overrides);
        overrides.set("run.group_size", "--group-size", self.group_size.as_deref());
        overrides.set("run.on_failure", "--on-failure", self.on_failure.as_deref());
        overrides.set(
            "run.statement_timeout",
            "--statement-timeout",
            self.statement_timeout.as_deref(),
        );
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let (stages, on_failure) = (self.stages.stages()?, self.on_failure(app)?);
        let sets = app.sets()?;
        if let Some(version) = self.to {
            version_exists(version, self, &sets)?;
        }
        let selectors = self.select.read()?;
        let dry_run = match self.dry_run {
            Some(DryRun::Sql) if self.is_json() => {
                return Err(Failure::words(
                    Exit::Usage,
                    "--dry-run=sql writes SQL; --dry-run -o json writes what would run",
                ));
            }
            Some(DryRun::Execute) if self.fake => {
                return Err(Failure::words(
                    Exit::Usage,
                    "--fake and --dry-run=execute exclude each other: --fake runs no migration",
                ));
            }
            Some(DryRun::Execute) => Some(Arc::new(dry_run::DryRun::default())),
            _ => None,
        };
        let only_reads = self.check || (self.dry_run.is_some() && dry_run.is_none());
        let access = if only_reads { Access::Read } else { Access::Write };
        let (database, pace) = app.database_for_jobs(access).await?;
        let mut options = app.engine_options(&database);
        options.goal = self.to.map_or(Goal::Latest, Goal::Version);
        let catalog = app.catalog(&database);
        let Some(scopes) = self.scopes(selectors, &database, &catalog).await? else {
            app.terminal.note("no schema failed in its last run");
            return finish(&Summary::default(), self, app);
        };
        app.check_guard(&database, Some(&sets.shared)).await?;
        // A dry run does not add histories to the ledger either.
        let writes = if dry_run.is_some() { Access::Read } else { access };
        let migrator = app.migrator(&database, options, &sets, writes, pace.jobs()).await?;
        let mode = match &dry_run {
            Some(dry_run) => Mode::DryRun(Arc::clone(dry_run)),
            None if self.fake => Mode::Fake,
            None => Mode::Apply,
        };
        let migrator = Arc::new(PostgresMigrator::clone(&migrator).with_mode(mode));
        let run = Migration {
            app,
            migrator: &migrator,
            catalog: &catalog,
            pace,
            on_failure,
            scopes,
            stages,
        };
        if self.check {
            let survey = run.survey().await?;
            if self.is_json() {
                pending::write_json(&survey, &sets, app)?;
            }
            return Ok(pending::check(&survey, app));
        }
        match self.dry_run {
            Some(DryRun::List) => {
                let survey = run.survey().await?;
                if self.is_json() {
                    pending::write_json(&survey, &sets, app)?;
                } else {
                    pending::list(&survey, &sets, app)?;
                }
                Ok(Exit::Done)
            }
            Some(DryRun::Sql) => pending::sql(&run.survey().await?, &migrator, app),
            Some(DryRun::Execute) | None => {
                let survey = run.survey().await?;
                if !self.fake {
                    super::lint::warn_before(&survey, &sets, app);
                }
                let summary = run.run(survey).await?;
                match dry_run {
                    Some(dry_run) => dry_run_report::finish(&summary, &dry_run, self.output, app),
                    None => finish(&summary, self, app),
                }
            }
        }
    }
}

fn finish(summary: &Summary, args: &Args, app: &App) -> Result<Exit, Failure> {
    if args.is_json() {
        let mut out = app.terminal.out();
        write_document(&mut out, &summary_document(summary))?;
        std::io::Write::flush(&mut out)?;
    }
    Ok(Exit::of(summary))
}

/// Checks that a file has this version, because a run would stop at the version below it.
fn version_exists(version: i64, args: &Args, sets: &Sets) -> Result<(), Failure> {
    let set = if args.shared { &sets.shared } else { &sets.tenant };
    let has_public = !args.shared && args.select.is_everything();
    let has_version =
        |ids: &[crate::domain::script::ScriptId]| ids.iter().any(|id| id.version == version);
    if version == 0 || has_version(set.ids()) || (has_public && has_version(sets.shared.ids())) {
        return Ok(());
    }
    Err(no_such_version(version, set))
}
