//! `migrate-schemas`: bring public and the tenants to the newest version.

mod dry_run_report;

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::ValueEnum;

use super::args::rollout::StageArgs;
use super::args::select::{SelectArgs, Selectors};
use super::args::template::TemplateArgs;
use super::run::app::{Access, App, Sets, connections_for};
use super::run::jobs::with_commands;
use super::run::recorder::Recorder;
use super::run::reporter_task::Watch;
use super::run::signals::interruptible;
use crate::domain::plan::Goal;
use crate::domain::run_options::OnFailure;
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::{SchemaState, Severity};
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::postgres::bookkeeping::run_log;
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::dry_run::Rehearsal;
use crate::postgres::migrate::migrator::{Mode, PostgresMigrator};
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::event::Progress;
use crate::service::failure::ServerError;
use crate::service::fleet::{Fleet, Interrupts};
use crate::service::rollout::{Rollout, Scopes, Survey, Surveyed};
use crate::service::stages::Stages;
use crate::service::summary::Summary;
use crate::settings::Overrides;
use crate::ui::{Cell, Listing, OutputFormat, shell_word, summary_document, write_document};

/// Migrate the shared schema, then every tenant
///
/// With --shared: public only. With a selection: those tenants only. With neither: public
/// first, then every tenant in parallel. A schema is wholly at the new version or untouched;
/// running again is always safe. --canary and --batches go through the tenants in stages.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync migrate-schemas --check
  pricesync migrate-schemas --tenant acme,globex --dry-run=sql
  pricesync migrate-schemas --on-failure continue -o json
  pricesync migrate-schemas --canary acme --batches 5%,25% --pause 2m
  pricesync list-tenants --pending -o names | pricesync migrate-schemas --from-file -")]
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
    stages: StageArgs,
    /// Change nothing; exit 3 when something is pending, 11 when something is at odds, 6 when a history is locked
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
    /// Change nothing; list what would run where, print the SQL, or run it statement by statement and roll it back
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "list", value_name = "WHAT")]
    dry_run: Option<DryRun>,
    /// Go no further than this version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
    to: Option<i64>,
    /// Record the pending migrations as applied without running them
    #[arg(long)]
    fake: bool,
    /// How many schemas at once: a number, or auto: what the server is good for, fewer while they are in each other's way
    #[arg(short, long, value_name = "N")]
    jobs: Option<String>,
    /// At most how many schemas share a transaction, where each takes next to no time; 1: none do
    #[arg(long, value_name = "N")]
    group_size: Option<String>,
    /// After a failed schema: stop or continue
    #[arg(long, value_name = "WHAT")]
    on_failure: Option<String>,
    /// Go on after failures, and begin nothing new once so many schemas have failed
    #[arg(long, value_name = "N")]
    max_failures: Option<NonZeroUsize>,
    /// How long a statement waits for a lock, such as 2s; 0 waits for ever
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
    /// How long to wait for a schema that another run holds
    #[arg(long, value_name = "TIME")]
    lock_wait: Option<String>,
    /// How long a statement may run; 0 is for ever
    #[arg(long, value_name = "TIME")]
    statement_timeout: Option<String>,
    #[command(flatten)]
    template: TemplateArgs,
    /// The summary on stdout when the run is over
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<SummaryFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    /// What would run where
    List,
    /// The exact SQL
    Sql,
    /// What it does: every schema's pending files in a transaction that is rolled back, with time and locks of each statement
    Execute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SummaryFormat {
    /// One JSON document
    Json,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set("run.jobs", "--jobs", self.jobs.as_deref());
        overrides.set("run.group_size", "--group-size", self.group_size.as_deref());
        overrides.set("run.on_failure", "--on-failure", self.on_failure.as_deref());
        overrides.set(
            "run.lock_timeout",
            "--lock-timeout",
            self.lock_timeout.as_deref(),
        );
        self.template.override_settings(overrides);
        overrides.set("run.lock_wait", "--lock-wait", self.lock_wait.as_deref());
        overrides.set(
            "run.statement_timeout",
            "--statement-timeout",
            self.statement_timeout.as_deref(),
        );
    }

    /// What a failure means for the rest.
    fn on_failure(&self, app: &App) -> Result<OnFailure, Failure> {
        match (self.max_failures, self.on_failure.as_deref()) {
            (Some(_), Some("stop")) => Err(Failure::words(
                Exit::Usage,
                "--max-failures goes on after a failure, and --on-failure=stop does not; say one of them",
            )),
            (Some(most), _) => Ok(OnFailure::StopAfter(most)),
            (None, _) => Ok(app.settings.on_failure),
        }
    }

    /// Which schemas; none where those that failed are asked for and nothing did.
    async fn scopes(
        &self,
        selectors: Selectors,
        database: &Database,
        catalog: &PostgresCatalog,
    ) -> Result<Option<Scopes>, Failure> {
        let mut selection = selectors.resolve(catalog).await?;
        if self.retry_failed {
            let mut failed = run_log::failed_schemas(database)
                .await
                .map_err(no_failures_known)?;
            if failed.is_empty() {
                return Ok(None);
            }
            let public = selection.is_everything() && failed.iter().any(SchemaName::is_public);
            failed.retain(|schema| match &selection.only {
                Some(only) => only.contains(schema),
                None => true,
            });
            selection.only = Some(failed.into_iter().collect());
            return Ok(Some(Scopes::Retry {
                public,
                tenants: selection,
            }));
        }
        Ok(Some(match (self.shared, selection.is_everything()) {
            (true, _) => Scopes::Shared,
            (false, true) => Scopes::Everything,
            (false, false) => Scopes::Selected(selection),
        }))
    }
}

/// What failed last stands nowhere, or where the role may not look.
fn no_failures_known(error: ServerError) -> Failure {
    let exit = match error.sqlstate.as_deref() {
        Some(
            sqlstate::INVALID_SCHEMA_NAME | sqlstate::UNDEFINED_TABLE | sqlstate::UNDEFINED_COLUMN,
        ) => Exit::NotFound,
        Some(sqlstate::INSUFFICIENT_PRIVILEGE) => Exit::Refused,
        _ => return Failure::words(Exit::Unexpected, error),
    };
    Failure::words(
        exit,
        format!("which schemas failed in their last run is not known: {error}"),
    )
    .hint("choose schemas by --tenant, or all of them: those that are up to date cost next to nothing")
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let (stages, on_failure) = (args.stages.stages()?, args.on_failure(app)?);
    let sets = app.sets()?;
    if let Some(version) = args.to {
        version_exists(version, args, &sets)?;
    }
    let selectors = args.select.read()?;
    let rehearsal = match args.dry_run {
        Some(DryRun::Execute) if args.fake => {
            return Err(Failure::words(
                Exit::Usage,
                "--fake runs nothing, so there is nothing for --dry-run=execute to try",
            ));
        }
        Some(DryRun::Execute) => Some(Arc::new(Rehearsal::default())),
        _ => None,
    };
    let only_reads = args.check || (args.dry_run.is_some() && rehearsal.is_none());
    let access = if only_reads {
        Access::Read
    } else {
        Access::Write
    };
    let database = app.database(access, 1).await?;
    let mut engine_options = app.engine_options(&database);
    engine_options.goal = args.to.map_or(Goal::Latest, Goal::Version);
    let pace = app.pace(&database);
    let connections = NonZeroUsize::new(connections_for(pace.jobs()));
    database.resize(connections.unwrap_or(NonZeroUsize::MIN));
    let catalog = app.catalog(&database);
    let Some(scopes) = args.scopes(selectors, &database, &catalog).await? else {
        app.terminal.note("nothing failed in the last run");
        return finish(&Summary::default(), args, app);
    };
    // A rehearsal takes no histories up into the ledger either.
    let writes = if rehearsal.is_some() {
        Access::Read
    } else {
        access
    };
    let mut migrator = app
        .migrator(&database, engine_options, &sets, writes, pace.jobs())
        .await?;
    if let Some(rehearsal) = &rehearsal {
        let mode = Mode::DryRun(Arc::clone(rehearsal));
        migrator = Arc::new(PostgresMigrator::clone(&migrator).with_mode(mode));
    } else if args.fake {
        migrator = Arc::new(PostgresMigrator::clone(&migrator).with_mode(Mode::Fake));
    }
    let run = Migration {
        app,
        migrator: &migrator,
        catalog: &catalog,
        pace,
        on_failure,
        scopes,
        stages,
        rehearsal: rehearsal.is_some(),
    };
    if args.check {
        return Ok(check(&run.survey().await?, app));
    }
    match args.dry_run {
        Some(DryRun::List) => list(&run.survey().await?, &sets, app),
        Some(DryRun::Sql) => sql(&run.survey().await?, &migrator, app),
        Some(DryRun::Execute) | None => {
            let survey = run.survey().await?;
            if !args.fake {
                super::lint::warn_before(&survey, &sets, app);
            }
            let summary = run.run(survey).await?;
            match rehearsal {
                Some(rehearsal) => {
                    dry_run_report::finish(&summary, &rehearsal.tried(), args.output, app)
                }
                None => finish(&summary, args, app),
            }
        }
    }
}

fn finish(summary: &Summary, args: &Args, app: &App) -> Result<Exit, Failure> {
    if args.output == Some(SummaryFormat::Json) {
        let mut out = app.terminal.out();
        write_document(&mut out, &summary_document(summary))?;
        std::io::Write::flush(&mut out)?;
    }
    Ok(Exit::of(summary))
}

/// A migration run with everything that it needs.
pub(super) struct Migration<'a> {
    pub(super) app: &'a App,
    pub(super) migrator: &'a Arc<PostgresMigrator>,
    pub(super) catalog: &'a PostgresCatalog,
    pub(super) pace: ConcurrencyLimit,
    pub(super) on_failure: OnFailure,
    pub(super) scopes: Scopes,
    pub(super) stages: Stages,
    /// Whether the migrator rolls everything back in the end; such a run is not stored.
    pub(super) rehearsal: bool,
}

impl Migration<'_> {
    /// Returns the options without which the same command would do something else.
    fn options(&self) -> String {
        let fake = if self.migrator.mode().only_records() {
            " --fake"
        } else {
            ""
        };
        match self.migrator.options().goal {
            Goal::Version(version) => format!("{fake} --to {version}"),
            Goal::Latest => fake.to_owned(),
        }
    }

    /// Returns every selected schema with its state.
    pub(super) async fn survey(&self) -> Result<Survey, Failure> {
        let (_nobody, interrupts) = Interrupts::new();
        Ok(self.rollout(interrupts).survey().await?)
    }

    fn rollout(&self, interrupts: Interrupts) -> Rollout<'_, PostgresMigrator, PostgresCatalog> {
        Rollout {
            migrator: self.migrator,
            catalog: self.catalog,
            fleet: Fleet {
                concurrency: self.pace.clone(),
                on_failure: self.on_failure,
                interrupts,
            },
            scopes: self.scopes.clone(),
            stages: self.stages.clone(),
            dry_run: self.rehearsal,
        }
    }

    /// Migrates, with a reporter that shows it and signals that end it.
    pub(super) async fn run(&self, survey: Survey) -> Result<Summary, Failure> {
        let (interrupter, interrupts) = Interrupts::new();
        let (progress, mut happening) = Progress::channel();
        let (to_reporter, events) = tokio::sync::mpsc::unbounded_channel();
        let mut recorder = (!self.rehearsal).then(|| Recorder::new(self.migrator));
        let recording = tokio::spawn(async move {
            while let Some(event) = happening.recv().await {
                if let Some(recorder) = &mut recorder {
                    recorder.on(&event).await;
                }
                // A reporter that went away must not end the record.
                let _ = to_reporter.send(event);
            }
            recorder
        });
        let watch = Watch::begin(self.app, self.app.progress, events);
        let rollout = self.rollout(interrupts);
        let work = rollout.run(survey, &progress);
        let summary = interruptible(work, interrupter, progress.clone()).await?;
        drop(progress);
        let recorder = recording.await;
        let mut summary = with_commands(self.app, summary?);
        summary.options = self.options();
        let mut lacks = None;
        if let Ok(Some(recorder)) = recorder {
            (summary.run, lacks) = recorder.finish(&summary).await;
        }
        watch.finish(&summary).await;
        if let Some(lacks) = lacks {
            self.app.terminal.warn(lacks);
        }
        Ok(summary)
    }
}

/// Returns the command line of this process, to be copied into a shell; none where an address
/// is in it, which may hold a password, or a pipe was read.
pub(super) fn command_line() -> Option<String> {
    let mut line = "pricesync".to_owned();
    for arg in std::env::args_os().skip(1) {
        let arg = arg.into_string().ok()?;
        let address = arg.starts_with("-d") || arg.starts_with("--database-url");
        // What came through a pipe does not come again.
        let piped = arg == "-" || arg.ends_with("=-");
        if address || piped || arg.contains("://") || arg.contains("password") {
            return None;
        }
        line.push(' ');
        line.push_str(&shell_word(&arg));
    }
    Some(line)
}

/// A version that no file has would silently mean another one.
fn version_exists(version: i64, args: &Args, sets: &Sets) -> Result<(), Failure> {
    let set = if args.shared {
        &sets.shared
    } else {
        &sets.tenant
    };
    let others = !args.shared && args.select.is_everything();
    let known =
        |ids: &[crate::domain::script::ScriptId]| ids.iter().any(|id| id.version == version);
    if version == 0 || known(set.ids()) || (others && known(sets.shared.ids())) {
        return Ok(());
    }
    let newest = set.ids().iter().map(|id| id.version).max();
    let failure = Failure::words(
        Exit::Usage,
        format!("no migration has the version {version}"),
    );
    Err(match newest {
        Some(newest) => failure.hint(format!("the newest is {newest}")),
        None => failure,
    })
}

fn check(survey: &Survey, app: &App) -> Exit {
    let mut out_of_sync = survey.refused.len();
    let mut locked = 0;
    for item in &survey.schemas {
        match item.state.severity() {
            Severity::OutOfSync => out_of_sync += 1,
            Severity::Locked => locked += 1,
            Severity::UpToDate | Severity::Pending | Severity::Skipped => {}
        }
        warn_of_problems(item, app);
    }
    for row in &survey.refused {
        app.terminal
            .warn(&format!("tenant '{}': {}", row.slug, row.reason));
    }
    let (pending, all) = (
        survey.pending(),
        survey.schemas.len() + survey.refused.len(),
    );
    let unread = if locked > 0 {
        format!(", {locked} locked")
    } else {
        String::new()
    };
    app.terminal.note(&format!(
        "{}: {pending} with pending migrations, {out_of_sync} out of sync{unread}",
        crate::ui::count(all, "schema")
    ));
    match (out_of_sync, locked, pending) {
        (0, 0, 0) => Exit::Done,
        (0, 0, _) => Exit::Pending,
        // What is pending there is not known.
        (0, _, _) => Exit::Locked,
        _ => Exit::Drift,
    }
}

fn warn_of_problems(item: &Surveyed, app: &App) {
    let selection = Target::option(std::iter::once(&*item.target));
    for problem in app.terminal.problems(&item.state, &selection) {
        app.terminal
            .warn(&format!("{}: {problem}", item.target.schema));
    }
}

fn list(survey: &Survey, sets: &Sets, app: &App) -> Result<Exit, Failure> {
    let listing = Listing::new(&["schema", "migration", "file"], "nothing would run");
    let mut rows = Vec::new();
    for item in &survey.schemas {
        let set = match item.target.scope {
            Scope::Shared => &sets.shared,
            Scope::Tenant => &sets.tenant,
        };
        if let SchemaState::Known(plan) = &item.state {
            for script in plan.pending.iter().map(|&index| &set.scripts()[index]) {
                rows.push(vec![
                    Cell::Text(item.target.schema.to_string()),
                    Cell::Text(script.id.to_string()),
                    Cell::Text(script.path.display().to_string()),
                ]);
            }
        }
        warn_of_problems(item, app);
    }
    listing.write(&app.terminal, OutputFormat::Table, rows)?;
    Ok(Exit::Done)
}

fn sql(survey: &Survey, migrator: &PostgresMigrator, app: &App) -> Result<Exit, Failure> {
    use std::io::Write as _;
    let mut out = app.terminal.out();
    for item in &survey.schemas {
        if let SchemaState::Known(plan) = &item.state {
            out.write_all(migrator.preview(&item.target, plan).as_bytes())?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}
