//! What a person can type: one file for each command.

#![expect(clippy::doc_markdown, reason = "doc comments are help texts here")]

mod args;
mod backup;
mod baseline;
mod clone_tenant;
mod completions;
mod config;
mod create_superuser;
mod create_tenant;
mod demo;
mod doctor;
mod domains;
mod drift;
mod drop_schema;
mod env;
mod exec;
mod exit_codes;
mod init;
mod lint;
mod list_tenants;
mod locks;
mod make_migration;
mod man;
mod migrate_schemas;
mod purge;
mod rename_tenant;
mod resolve;
mod restore;
mod run;
mod runs;
mod server;
mod shell;
mod status;
mod undrop;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use run::app::App;

use crate::error::{Exit, Failure};
use crate::settings::{self, DotEnv, Overrides, Settings};
use crate::ui::{ColorChoice, OutputFormat, ProgressMode, Terminal, Verbosity, shell_word};

/// Schema migrations for PostgreSQL databases that keep one schema per tenant.
#[derive(Debug, Parser)]
#[command(
    name = "pricesync",
    version = concat!(env!("CARGO_PKG_VERSION"), env!("PRICESYNC_COMMIT")),
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    after_help = "Exit codes: pricesync help exit-codes"
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
struct GlobalArgs {
    /// Configuration file [default: the nearest pricesync.toml upwards; env: PRICESYNC_CONFIG]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database: URL, key=value pairs, or `local` [env: PRICESYNC_DATABASE_URL, DATABASE_URL, then PG*]
    #[arg(short, long, global = true, value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Use the private PostgreSQL server of this folder, starting it if need be
    #[arg(long, global = true, conflicts_with = "database_url")]
    local: bool,
    /// Wait for a server that is not up yet, up to 60s where no time is given
    #[arg(long, global = true, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_parser = settings::duration)]
    wait: Option<Duration>,
    /// How a run is shown while it happens
    #[arg(long, global = true, value_enum, default_value_t, value_name = "MODE")]
    progress: Progress,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// Say nothing on stderr but failures; results on stdout stay
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

impl GlobalArgs {
    /// Returns the program with the options that lead to the same database and files; none where
    /// an address was typed, because it may hold a password.
    fn program(&self, command: &Command) -> Option<String> {
        if self.database_url.is_some() {
            return None;
        }
        let mut program = "pricesync".to_owned();
        if self.local || matches!(command, Command::Demo(_)) {
            program += " --local";
        }
        if let Some(config) = &self.config {
            program += " --config ";
            program += &shell_word(&config.to_string_lossy());
        }
        Some(program)
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Progress {
    /// Bars on a terminal, lines elsewhere
    #[default]
    Auto,
    /// One bar for the run and a line for each schema at work
    Bars,
    /// A line for each fact
    Lines,
    /// JSON lines on stderr
    Json,
    /// Only failures and the summary
    None,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Color {
    /// On terminals, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// The shapes of a listing.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// CSV with a header
    Csv,
    /// One slug per line, for xargs
    Names,
}

impl From<Output> for OutputFormat {
    fn from(output: Output) -> Self {
        match output {
            Output::Table => Self::Table,
            Output::Json => Self::Json,
            Output::Csv => Self::Csv,
            Output::Names => Self::Names,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(aliases = ["migrate_schemas", "migrate"])]
    MigrateSchemas(migrate_schemas::Args),
    #[command(alias = "create_tenant")]
    CreateTenant(create_tenant::Args),
    #[command(aliases = ["list_tenants", "ls"])]
    ListTenants(list_tenants::Args),
    #[command(alias = "drop_schema")]
    DropSchema(drop_schema::Args),
    #[command(alias = "rename_tenant")]
    RenameTenant(rename_tenant::Args),
    Undrop(undrop::Args),
    #[command(alias = "clone_tenant")]
    CloneTenant(clone_tenant::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Purge(purge::Args),
    Shell(shell::Args),
    Exec(exec::Args),
    Env(env::Args),
    #[command(alias = "showmigrations")]
    Status(status::Args),
    #[command(aliases = ["makemigrations", "make_migration", "make-migrations"])]
    MakeMigration(make_migration::Args),
    Baseline(baseline::Args),
    Runs(runs::Args),
    Lint(lint::Args),
    Drift(drift::Args),
    Doctor(doctor::Args),
    Locks(locks::Args),
    Domains(domains::Args),
    #[command(aliases = ["createsuperuser", "create_superuser"])]
    CreateSuperuser(create_superuser::Args),
    Resolve(resolve::Args),
    Server(server::Args),
    Demo(demo::Args),
    Config(config::Args),
    Init(init::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    ExitCodes(exit_codes::Args),
    #[command(name = "__supervise", hide = true)]
    Supervise(server::SuperviseArgs),
}

/// Runs what was typed.
///
/// # Errors
///
/// [`Failure`], which has not been shown yet.
pub async fn run(cli: Cli, dotenv: Option<DotEnv>, terminal: &Terminal) -> Result<Exit, Failure> {
    match cli.command {
        Command::Completions(args) => return completions::run(&args, terminal),
        Command::Man(args) => return man::run(&args, terminal),
        Command::ExitCodes(args) => return exit_codes::run(&args, terminal),
        Command::Supervise(args) => return server::supervise(&args),
        Command::Init(args) => return init::run(&args, terminal),
        _ => {}
    }
    let mut overrides = Overrides {
        config: cli.global.config.clone(),
        dotenv,
        ..Overrides::default()
    };
    overrides.set(
        "database.url",
        "--database-url",
        cli.global.database_url.clone(),
    );
    overrides.set(
        "database.url",
        "--local",
        cli.global.local.then_some(run::app::LOCAL),
    );
    match &cli.command {
        Command::MigrateSchemas(args) => args.override_settings(&mut overrides),
        Command::CreateTenant(args) => args.override_settings(&mut overrides),
        Command::DropSchema(args) => args.override_settings(&mut overrides),
        Command::Purge(args) => args.override_settings(&mut overrides),
        Command::Drift(args) => args.override_settings(&mut overrides),
        Command::RenameTenant(args) => args.override_settings(&mut overrides),
        Command::CloneTenant(args) => args.override_settings(&mut overrides),
        Command::Backup(args) => args.override_settings(&mut overrides),
        Command::Restore(args) => args.override_settings(&mut overrides),
        Command::Exec(args) => args.override_settings(&mut overrides),
        Command::Demo(_) => demo::Args::override_settings(&mut overrides),
        _ => {}
    }
    let folder = std::env::current_dir()?;
    let variables = |name: &str| std::env::var(name).ok();
    let settings = Settings::resolve(&overrides, &variables, &folder)?;
    let progress = cli.global.progress.into();
    let wait = cli.global.wait.unwrap_or_default();
    let program = cli.global.program(&cli.command);
    let app = App::new(settings, terminal.clone(), progress, wait, program);
    match cli.command {
        Command::MigrateSchemas(args) => migrate_schemas::run(&args, &app).await,
        Command::CreateTenant(args) => create_tenant::run(&args, &app).await,
        Command::ListTenants(args) => list_tenants::run(&args, &app).await,
        Command::DropSchema(args) => drop_schema::run(&args, &app).await,
        Command::RenameTenant(args) => rename_tenant::run(&args, &app).await,
        Command::Undrop(args) => undrop::run(&args, &app).await,
        Command::Purge(args) => purge::run(&args, &app).await,
        Command::CloneTenant(args) => clone_tenant::run(&args, &app).await,
        Command::Backup(args) => backup::run(&args, &app).await,
        Command::Restore(args) => restore::run(&args, &app).await,
        Command::Shell(args) => shell::run(&args, &app).await,
        Command::Exec(args) => exec::run(&args, &app).await,
        Command::Env(args) => env::run(&args, &app).await,
        Command::Status(args) => status::run(&args, &app).await,
        Command::MakeMigration(args) => make_migration::run(&args, &app),
        Command::Baseline(args) => baseline::run(&args, &app).await,
        Command::Runs(args) => runs::run(&args, &app).await,
        Command::Lint(args) => lint::run(&args, &app).await,
        Command::Drift(args) => drift::run(&args, &app).await,
        Command::Doctor(args) => doctor::run(&args, &app).await,
        Command::Locks(args) => locks::run(&args, &app).await,
        Command::CreateSuperuser(args) => create_superuser::run(&args, &app).await,
        Command::Domains(args) => domains::run(&args, &app).await,
        Command::Resolve(args) => resolve::run(&args, &app).await,
        Command::Server(args) => server::run(&args, &app).await,
        Command::Demo(args) => demo::run(&args, &app).await,
        Command::Config(args) => config::run(&args, &app),
        Command::Completions(_)
        | Command::Man(_)
        | Command::ExitCodes(_)
        | Command::Supervise(_)
        | Command::Init(_) => Ok(Exit::Done),
    }
}

impl Cli {
    /// Reads the project's `.env` into the environment. To be called before there are threads.
    ///
    /// # Errors
    ///
    /// Exit 2 for a file that cannot be read.
    pub fn read_dotenv(&self) -> Result<Option<DotEnv>, Failure> {
        let folder = std::env::current_dir()?;
        Ok(DotEnv::load(self.global.config.as_deref(), &folder)?)
    }

    /// Returns whether all that the command does is wait for servers: it packs no rows, asks
    /// nobody, and no thread of the runtime waits for a program. Then one thread is enough, and
    /// others would spend more time waking each other than working.
    #[must_use]
    pub fn only_waits(&self) -> bool {
        matches!(self.command, Command::MigrateSchemas(_))
    }

    /// Returns the terminal as the options want it.
    #[must_use]
    pub fn terminal(&self) -> Terminal {
        let color = match self.global.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        let verbosity = match (self.global.quiet, self.global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, 1) => Verbosity::Verbose,
            (false, _) => Verbosity::VeryVerbose,
        };
        Terminal::detect(color, verbosity).proposing(self.global.program(&self.command))
    }
}

impl From<Progress> for ProgressMode {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Auto => Self::Auto,
            Progress::Bars => Self::Bars,
            Progress::Lines => Self::Lines,
            Progress::Json => Self::Json,
            Progress::None => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    /// Takes a command apart as a shell does, as far as our examples need it.
    fn words(command: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for (place, part) in command.split('\'').enumerate() {
            let is_quoted = place % 2 == 1;
            for (gap, piece) in part.split(' ').enumerate() {
                if is_quoted {
                    let text = if gap == 0 { "" } else { " " };
                    words.last_mut().expect("one").push_str(text);
                } else if gap > 0 {
                    words.push(String::new());
                }
                words.last_mut().expect("one").push_str(piece);
            }
        }
        words
    }

    #[test]
    fn every_example_in_the_help_is_a_command() {
        let mut tried = 0;
        for command in <Cli as clap::CommandFactory>::command().get_subcommands() {
            let help = command.get_after_long_help();
            let help = help.map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                for example in line.trim().split(" | ") {
                    let parsed = Cli::try_parse_from(words(example));
                    assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
                    tried += 1;
                }
            }
        }
        assert!(tried > 20, "the examples are found");
    }
}
