//! `exec`: runs SQL or a program for many tenants.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::args::output::OutputArg;
use super::args::overrides::JobsArg;
use super::args::read_file_or_stdin;
use super::args::select::SelectArgs;
use super::args::tenant::ConfigWithoutShort;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::jobs::{TenantIds, with_commands};
use super::run::reporter_task::ReporterTask;
use super::run::signals::interruptible;
use super::run::tenants::select_tenants;
use crate::domain::run_options::OnFailure;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::migrations::AdhocSql;
use crate::postgres::client::environment::TenantEnvironment;
use crate::postgres::client::exec_program::RunProgram;
use crate::postgres::client::exec_sql::Exec;
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::pending_hint::PendingHint;
use crate::service::event::Operation;
use crate::service::exec_results::ordered_results;
use crate::service::fan_out::FanOut;
use crate::service::fleet::{Fleet, Interrupter, Interrupts, SchemaJob};
use crate::service::selection::target;
use crate::settings::{self, Overrides};
use crate::ui::{OutputFormat, ProgressMode, QueryRows, clean, is_broken_pipe};

const EXEC: Operation = Operation { command: "exec", doing: "executing", done: Some("executed") };

/// Run SQL or a program for many tenants
///
/// SQL runs in one transaction for each tenant. It is read-only without --write, and with it
/// cannot change anything outside the tenant's schema. The results are merged, with the tenant as
/// the first column, in the order of the tenants; of several statements, the last one's result.
/// A program gets DATABASE_URL, the PG* variables, PGOPTIONS with search_path, PRICESYNC_TENANT
/// and PRICESYNC_SCHEMA; its lines are printed after the tenant's slug.
#[derive(clap::Args, Debug, Default)]
#[command(after_long_help = "Examples:
  pricesync exec --all -c 'SELECT count(*) FROM products' -o csv
  pricesync exec --tenant acme --write -f fix.sql
  pricesync exec --all --jobs 4 -- ./report.sh")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["command", "file", "program"])))]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,
    /// All tenants
    #[arg(long, help_heading = "Selection", conflicts_with_all = ["tenants", "from_file", "condition"])]
    all: bool,
    /// SQL to run
    #[arg(short = 'c', long, value_name = "SQL")]
    command: Option<String>,
    /// File with SQL to run; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigWithoutShort,
    /// Program to run, with its arguments
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "output")]
    program: Vec<OsString>,
    /// Allow writes in the tenants' schemas
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    output: OutputArg,
    #[command(flatten)]
    jobs: JobsArg,
    /// Timeout of a statement or the program, such as 30s [default: none]
    #[arg(long, value_name = "TIME", value_parser = settings::duration)]
    timeout: Option<Duration>,
    /// After a failure [default: continue; with --write: run.on_failure]
    #[arg(long, value_name = "stop|continue")]
    on_failure: Option<String>,
}

impl Args {
    fn on_failure(&self, app: &App) -> OnFailure {
        if self.write || self.on_failure.is_some() {
            app.settings.on_failure
        } else {
            OnFailure::Continue
        }
    }

    /// Returns the SQL to run; `None` for a program.
    fn sql(&self) -> Result<Option<AdhocSql>, Failure> {
        let (name, text) = match (&self.command, &self.file) {
            (Some(text), _) => ("-c".to_owned(), text.clone()),
            (None, Some(path)) => read_file_or_stdin(path)?,
            (None, None) => return Ok(None),
        };
        let sql = AdhocSql::read(&text).map_err(|error| {
            Failure::with_context(Exit::Usage, error, format!("cannot run {name}"))
        })?;
        Ok(Some(sql))
    }

    fn require_selection(&self) -> Result<(), Failure> {
        if self.all || self.select.is_selective() {
            return Ok(());
        }
        Err(Failure::words(Exit::Usage, "no tenant is selected")
            .hint("use --tenant, --from-file, --where, or --all for all tenants"))
    }
}

/// Runs SQL in one tenant without psql, and prints the result as a table.
pub(super) async fn instead_of_psql(
    slug: &str,
    sql: String,
    read_only: bool,
    app: &App,
) -> Result<Exit, Failure> {
    let args = Args {
        select: SelectArgs { tenants: vec![slug.to_owned()], ..SelectArgs::default() },
        command: Some(sql),
        write: !read_only,
        ..Args::default()
    };
    args.run(app).await
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.jobs.override_settings(overrides);
        overrides.set("run.on_failure", "--on-failure", self.on_failure.as_deref());
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        self.require_selection()?;
        let sql = self.sql()?;
        let selectors = self.select.read()?;
        let access = if self.write { Access::Write } else { Access::Read };
        let (database, pace) = app.database_for_jobs(access).await?;
        let catalog = app.catalog(&database);
        let tenants = select_tenants(selectors, &catalog, app).await?;
        let targets: Vec<Arc<Target>> = tenants.iter().map(target).collect();
        let ids = TenantIds::new(catalog, &tenants);
        drop(tenants);
        if targets.is_empty() {
            app.terminal.note("no tenants");
        }
        let (interrupter, interrupts) = Interrupts::new();
        let run = ExecRun {
            app,
            fan_out: FanOut {
                work: EXEC,
                fleet: Fleet { concurrency: pace, on_failure: self.on_failure(app), interrupts },
            },
            interrupter,
            targets,
            ids,
            timeout: self.timeout,
        };
        match sql {
            Some(sql) => run.sql(self, sql, database).await,
            None => run.program(self, &database).await,
        }
    }
}

/// An exec over the selected tenants.
struct ExecRun<'a> {
    app: &'a App,
    fan_out: FanOut,
    interrupter: Interrupter,
    targets: Vec<Arc<Target>>,
    ids: TenantIds,
    timeout: Option<Duration>,
}

impl ExecRun<'_> {
    async fn sql(self, args: &Args, sql: AdhocSql, database: Database) -> Result<Exit, Failure> {
        let (app, format) = (self.app, args.output.format());
        let options = app.engine_options(&database);
        if args.write {
            app.check_guard(&database, None).await?;
        }
        let surveyor = app.surveyor(&database);
        let (shares, merge) = ordered_results();
        let positions = self.targets.iter().zip(0..);
        let job = Arc::new(Exec {
            sql,
            search_path: app.settings.search_path.clone(),
            write: args.write,
            timeout: self.timeout.unwrap_or(app.settings.statement_timeout),
            lock_timeout: options.lock_timeout,
            guard_rules: options.guard_rules.clone(),
            typed: format == OutputFormat::Json,
            shares,
            positions: positions
                .map(|(target, position)| (target.schema.clone(), position))
                .collect(),
            pending_hint: PendingHint::new(surveyor, self.targets.clone()),
            database,
        });
        let (terminal, names) = (app.terminal.clone(), self.targets.clone());
        let stop = self.interrupter.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut rows = QueryRows::on_stdout(&terminal, format);
            let merged = merge
                .run(|columns, position, values| rows.row(columns, &names[position].label, values));
            let ended = merged.and_then(|columns| rows.end(columns.as_deref()));
            if ended.is_err() {
                // stdout is closed: drain the run, then cancel its statements.
                stop.raise();
                stop.raise();
            }
            ended
        });
        let streams = format != OutputFormat::Table;
        self.report(job, writing, streams).await
    }

    async fn program(self, args: &Args, database: &Database) -> Result<Exit, Failure> {
        let (lines, mut written) = tokio::sync::mpsc::channel(64);
        let app = self.app;
        let job = Arc::new(RunProgram {
            environment: TenantEnvironment {
                options: app.for_programs(app.connection().await?, database)?,
                search_path: app.settings.search_path.clone(),
            },
            read_only: !args.write,
            words: args.program.clone(),
            timeout: self.timeout.unwrap_or_default(),
            lines,
        });
        let is_terminal = app.terminal.stdout().is_terminal;
        let stop = self.interrupter.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut write = || -> io::Result<()> {
                while let Some(output) = written.blocking_recv() {
                    let line =
                        if is_terminal { clean(&output.line).into_owned() } else { output.line };
                    writeln!(io::stdout(), "{}: {line}", clean(&output.tenant))?;
                }
                Ok(())
            };
            let ended = write();
            if ended.is_err() {
                stop.raise();
                stop.raise();
            }
            ended
        });
        self.report(job, writing, true).await
    }

    /// Runs the job with a reporter, while another task writes its results.
    async fn report<J: SchemaJob>(
        self,
        job: Arc<J>,
        writing: tokio::task::JoinHandle<io::Result<()>>,
        streams: bool,
    ) -> Result<Exit, Failure> {
        // Bars and results would overwrite each other on one terminal.
        let mode = match self.app.progress {
            ProgressMode::Auto if streams && self.app.terminal.stdout().is_terminal => {
                ProgressMode::None
            }
            mode => mode,
        };
        let (reporter, progress) = ReporterTask::start(self.app, mode, None);
        let job = self.ids.skip_dropped(job);
        let work = self.fan_out.run(&job, &self.targets, &progress);
        let mut summary = interruptible(work, self.interrupter, progress.clone()).await?;
        drop(progress);
        // Dropping the job ends the results; a table is written then, after all progress.
        let shown = reporter.shown().await;
        drop(job);
        let written = writing.await.map_err(|error| Failure::new(Exit::Unexpected, error))?;
        if let Err(error) = written {
            if !is_broken_pipe(&error) {
                shown.finish(&mut summary).await;
            }
            return Err(error.into());
        }
        let mut summary = with_commands(self.app, summary);
        shown.finish(&mut summary).await;
        Ok(Exit::of(&summary))
    }
}
