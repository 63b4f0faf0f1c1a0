//! `exec`: the same SQL, or the same program, for many tenants.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Output;
use super::args::select::SelectArgs;
use super::run::app::{Access, App, connections_for};
use super::run::jobs::with_commands;
use super::run::reporter_task::Watch;
use super::run::signals::interruptible;
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::run_options::OnFailure;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::migrations::AdhocSql;
use crate::postgres::client::environment::TenantEnvironment;
use crate::postgres::client::exec_program::RunProgram;
use crate::postgres::client::exec_sql::Exec;
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::pending_hint::Behind;
use crate::service::event::{Operation, Progress};
use crate::service::exec_results::ordered_results;
use crate::service::fan_out::FanOut;
use crate::service::fleet::{Fleet, Interrupter, Interrupts, SchemaJob};
use crate::service::selection::target;
use crate::settings::{self, Overrides};
use crate::ui::{OutputFormat, ProgressMode, QueryRows, clean, is_broken_pipe};

const EXEC: Operation = Operation {
    command: "exec",
    doing: "executing",
    done: Some("executed"),
};

/// Run SQL, or a program, for many tenants
///
/// SQL runs in one transaction for each tenant, which may only read unless --write is given and
/// even then may change nothing outside the tenant's schema. The results become one, with the
/// tenant as its first column, in the order of the tenants; of several statements the last one's.
/// A program gets DATABASE_URL, PGHOST and the like, PGOPTIONS with the search path,
/// PRICESYNC_TENANT and PRICESYNC_SCHEMA; its lines are shown with the tenant in front.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync exec --all -c 'SELECT count(*) FROM products' -o csv
  pricesync exec --tenant acme --write -f fix.sql
  pricesync exec --all --jobs 4 -- ./report.sh")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["command", "file", "program"])))]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,
    /// Every tenant
    #[arg(long, help_heading = "Selection", conflicts_with_all = ["tenants", "from_file", "condition"])]
    all: bool,
    /// Run this SQL
    #[arg(short = 'c', long, value_name = "SQL")]
    command: Option<String>,
    /// Run the SQL of this file; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Configuration file
    #[arg(long, id = "config", value_name = "FILE", hide = true)]
    _config: Option<PathBuf>,
    /// Run this program
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
    /// Let the transactions write
    #[arg(long)]
    write: bool,
    /// The shape of the result
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        conflicts_with = "program"
    )]
    output: Output,
    /// How many tenants at once: a number, or auto: what the server is good for
    #[arg(short, long, value_name = "N")]
    jobs: Option<String>,
    /// How long a statement, or the program, may run, such as 30s [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = settings::duration)]
    timeout: Option<Duration>,
    /// After a failed tenant: stop or continue [default: continue; with --write what [run] says]
    #[arg(long, value_name = "WHAT")]
    on_failure: Option<String>,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set("run.jobs", "--jobs", self.jobs.as_deref());
        overrides.set("run.on_failure", "--on-failure", self.on_failure.as_deref());
    }

    fn on_failure(&self, app: &App) -> OnFailure {
        if self.write || self.on_failure.is_some() {
            app.settings.on_failure
        } else {
            OnFailure::Continue
        }
    }

    /// Reads what is to be run, where it is SQL.
    fn sql(&self) -> Result<Option<AdhocSql>, Failure> {
        let (name, text) = match (&self.command, &self.file) {
            (Some(text), _) => ("-c".to_owned(), text.clone()),
            (None, Some(path)) => read(path)?,
            (None, None) => return Ok(None),
        };
        let sql = AdhocSql::read(&text).map_err(|error| {
            let cause = anyhow::Error::new(error).context(format!("{name} is not run"));
            Failure::new(Exit::Usage, cause)
        })?;
        Ok(Some(sql))
    }

    fn chosen(&self) -> Result<(), Failure> {
        if self.all || !self.select.names_nobody() {
            return Ok(());
        }
        Err(Failure::words(Exit::Usage, "no tenant is selected")
            .hint("--tenant acme, --from-file, --where, or --all for every tenant"))
    }
}

/// Runs SQL in one tenant where psql is missing, and shows it as a table.
pub(super) async fn instead_of_psql(
    slug: &str,
    sql: String,
    read_only: bool,
    app: &App,
) -> Result<Exit, Failure> {
    let args = Args {
        select: SelectArgs {
            tenants: vec![slug.to_owned()],
            ..SelectArgs::default()
        },
        all: false,
        command: Some(sql),
        file: None,
        _config: None,
        program: Vec::new(),
        write: !read_only,
        output: Output::Table,
        jobs: None,
        timeout: None,
        on_failure: None,
    };
    run(&args, app).await
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    args.chosen()?;
    let sql = args.sql()?;
    let selectors = args.select.read()?;
    let access = if args.write {
        Access::Write
    } else {
        Access::Read
    };
    let database = app.database(access, 1).await?;
    let pace = app.pace(&database);
    let connections = NonZeroUsize::new(connections_for(pace.jobs()));
    database.resize(connections.unwrap_or(NonZeroUsize::MIN));
    let catalog = app.catalog(&database);
    let list = catalog.list().await?;
    app.warn_of_refused(&list);
    let tenants = selectors
        .resolve(&catalog)
        .await?
        .choose(list.tenants, &list.refused)?;
    let targets: Vec<Arc<Target>> = tenants.iter().map(target).collect();
    drop(tenants);
    if targets.is_empty() {
        app.terminal.note("no tenants");
    }
    let (interrupter, interrupts) = Interrupts::new();
    let run = Run {
        app,
        fan_out: FanOut {
            work: EXEC,
            fleet: Fleet {
                concurrency: pace,
                on_failure: args.on_failure(app),
                interrupts,
            },
        },
        interrupter,
        targets,
        timeout: args.timeout,
    };
    match sql {
        Some(sql) => run.sql(args, sql, database).await,
        None => run.program(args, &database).await,
    }
}

/// A run over the chosen tenants.
struct Run<'a> {
    app: &'a App,
    fan_out: FanOut,
    interrupter: Interrupter,
    targets: Vec<Arc<Target>>,
    timeout: Option<Duration>,
}

impl Run<'_> {
    async fn sql(self, args: &Args, sql: AdhocSql, database: Database) -> Result<Exit, Failure> {
        let (app, format) = (self.app, OutputFormat::from(args.output));
        let engine_options = app.engine_options(&database);
        let surveyor = app.surveyor(&database);
        let (shares, merge) = ordered_results();
        let positions = self.targets.iter().zip(0..);
        let job = Arc::new(Exec {
            sql,
            search_path: app.settings.search_path.clone(),
            write: args.write,
            timeout: self.timeout.unwrap_or(app.settings.statement_timeout),
            lock_timeout: engine_options.lock_timeout,
            references: engine_options.references.clone(),
            typed: format == OutputFormat::Json,
            shares,
            positions: positions
                .map(|(target, position)| (target.schema.clone(), position))
                .collect(),
            behind: Behind::new(surveyor, self.targets.clone()),
            database,
        });
        let (terminal, names) = (app.terminal.clone(), self.targets.clone());
        let stop = self.interrupter.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut rows = QueryRows::on_stdout(&terminal, format);
            let merged = merge.run(|columns, position, values| {
                rows.row(columns, &names[position].label, &values)
            });
            let ended = merged.and_then(|columns| rows.end(columns.as_deref()));
            if ended.is_err() {
                // Nobody reads any more, so nothing more is asked for.
                stop.raise();
                stop.raise();
            }
            ended.map(drop)
        });
        let streams = format != OutputFormat::Table;
        self.watched(job, writing, streams).await
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
        let watched = app.terminal.stdout().is_terminal;
        let stop = self.interrupter.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut write = || -> io::Result<()> {
                while let Some(output) = written.blocking_recv() {
                    let line = if watched {
                        clean(&output.line).into_owned()
                    } else {
                        output.line
                    };
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
        self.watched(job, writing, true).await
    }

    /// Does the job while it is shown, and while somebody writes what comes of it.
    async fn watched<J: SchemaJob>(
        self,
        job: Arc<J>,
        writing: tokio::task::JoinHandle<io::Result<()>>,
        streams: bool,
    ) -> Result<Exit, Failure> {
        let (progress, events) = Progress::channel();
        // What moves on the same terminal would be written over.
        let mode = match self.app.progress {
            ProgressMode::Auto if streams && self.app.terminal.stdout().is_terminal => {
                ProgressMode::None
            }
            mode => mode,
        };
        let watch = Watch::begin(self.app, mode, events);
        let work = self.fan_out.run(&job, &self.targets, &progress);
        let summary = interruptible(work, self.interrupter, progress.clone()).await?;
        drop(progress);
        // The result comes behind what was said on the way: a table is written once the job is gone.
        let shown = watch.shown().await;
        drop(job);
        let written = writing
            .await
            .map_err(|error| Failure::new(Exit::Unexpected, error))?;
        if let Err(error) = written {
            if !is_broken_pipe(&error) {
                shown.finish(&summary);
            }
            return Err(error.into());
        }
        let summary = with_commands(self.app, summary);
        shown.finish(&summary);
        Ok(Exit::of(&summary))
    }
}

fn read(path: &Path) -> Result<(String, String), Failure> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        ("stdin".to_owned(), read.map(|_| text))
    } else {
        (path.display().to_string(), std::fs::read_to_string(path))
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let cause = anyhow::Error::new(error).context(format!("cannot read {name}"));
            Err(Failure::new(Exit::Usage, cause))
        }
    }
}
