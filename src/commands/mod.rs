//! The command line: one file a command, shared options in `args`, what commands run with in `run`.
//! May import every room; nothing but `lib.rs` imports it. The only room that knows clap.
//! Start with `Command` below, then the command's file.

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
mod import;
mod init;
mod lint;
mod list_tenants;
mod locks;
mod make_migration;
mod man;
mod migrate_schemas;
mod process;
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

pub use process::main;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};

use run::app::{App, LOCAL};
use run::{CommandRun, missing_tables};

use crate::error::{Exit, Failure};
use crate::settings::{self, DotEnv, Overrides, Settings};
use crate::ui::{ColorChoice, ProgressMode, Terminal, Verbosity, shell_word};

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

/// Options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
struct GlobalArgs {
    /// Config file [default: nearest pricesync.toml] [env: PRICESYNC_CONFIG]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// URL or key=value [env: PRICESYNC_DATABASE_URL, DATABASE_URL, PG*]
    #[arg(short, long, global = true, value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Use the local PostgreSQL server of this folder; start it if necessary
    #[arg(long, global = true, conflicts_with = "database_url")]
    local: bool,
    /// Wait until the server accepts connections; without TIME, up to 60s
    #[arg(long, global = true, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_parser = settings::duration)]
    wait: Option<Duration>,
    /// How to report progress on stderr
    #[arg(long, global = true, value_enum, default_value_t, value_name = "MODE")]
    progress: ProgressMode,
    /// When to use colors
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: ColorChoice,
    /// Print only failures on stderr; results on stdout stay
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print more on stderr
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

impl GlobalArgs {
    /// Resolves the settings and runs a command with them.
    async fn run(
        self,
        args: &impl CommandRun,
        dotenv: Option<DotEnv>,
        terminal: &Terminal,
    ) -> Result<Exit, Failure> {
        let mut overrides = Overrides { config: self.config, dotenv, ..Overrides::default() };
        overrides.set(DATABASE, "--database-url", self.database_url);
        overrides.set(DATABASE, "--local", self.local.then_some(LOCAL));
        args.override_settings(&mut overrides);
        let variables = |name: &str| std::env::var(name).ok();
        let settings = Settings::resolve(&overrides, &variables, &std::env::current_dir()?)?;
        let wait = self.wait.unwrap_or_default();
        let app = App::new(settings, terminal.clone(), self.progress, wait);
        match args.run(&app).await {
            Err(failure) => Err(missing_tables::explained(failure, &app).await),
            done => done,
        }
    }

    /// Returns the program with the options that select the same database and files; `None` for an
    /// address on the command line, which may contain a password.
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

/// The setting that selects the database.
const DATABASE: &str = "database.url";

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
    Import(import::Args),
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

/// Runs the command.
///
/// # Errors
///
/// [`Failure`], which has not been printed yet.
pub async fn run(
    mut cli: Cli,
    dotenv: Option<DotEnv>,
    terminal: &Terminal,
) -> Result<Exit, Failure> {
    if let Command::Demo(args) = &mut cli.command {
        args.enter(&mut cli.global.config)?;
    }
    macro_rules! dispatch {
        ($($command:ident)*) => {
            match cli.command {
                Command::Init(args) => init::run(&args, terminal),
                Command::Completions(args) => completions::run(&args, terminal),
                Command::Man(args) => man::run(&args, terminal),
                Command::ExitCodes(args) => exit_codes::run(&args, terminal),
                Command::Supervise(args) => server::supervise(&args),
                $(Command::$command(args) => {
                    cli.global.run(&args, dotenv, terminal).await
                })*
            }
        };
    }
    dispatch! {
        MigrateSchemas CreateTenant ListTenants DropSchema RenameTenant Undrop CloneTenant Backup
        Restore Purge Shell Exec Env Status MakeMigration Import Baseline Runs Lint Drift Doctor Locks
        Domains CreateSuperuser Resolve Server Demo Config
    }
}

impl Cli {
    /// Loads the project's `.env` file into the environment. Call it before starting threads.
    ///
    /// # Errors
    ///
    /// Exit 2 for a file that cannot be read.
    pub fn read_dotenv(&self) -> Result<Option<DotEnv>, Failure> {
        let folder = std::env::current_dir()?;
        Ok(DotEnv::load(self.global.config.as_deref(), &folder)?)
    }

    /// Returns whether the command needs one thread only: it waits for servers, neither for programs
    /// nor for input. More threads would spend a quarter of the client's time waking each other.
    pub fn is_single_threaded(&self) -> bool {
        matches!(self.command, Command::MigrateSchemas(_))
    }

    /// Returns the terminal with the options for colors and verbosity.
    pub fn terminal(&self) -> Terminal {
        let verbosity = match (self.global.quiet, self.global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, _) => Verbosity::Verbose,
        };
        Terminal::detect(self.global.color, verbosity).proposing(self.global.program(&self.command))
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

    #[test]
    fn every_line_of_help_fits_80_columns() {
        fn check(command: &mut clap::Command, is_option: fn(&str) -> bool) -> usize {
            let help = command.render_long_help().to_string();
            for line in help.lines().filter(|line| is_option(line)) {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            let below = command.get_subcommands_mut().map(|command| check(command, is_option));
            help.lines().count() + below.sum::<usize>()
        }
        let command = |width| {
            let command = <Cli as clap::CommandFactory>::command();
            let mut command = command.max_term_width(width).term_width(width);
            command.build();
            command
        };
        let lines = check(&mut command(80), |_| true);
        assert!(lines > 1000, "every command has a help: {lines} lines");
        // Commands, options and examples have one line, which is not wrapped.
        check(&mut command(1000), |line| line.starts_with("  "));
    }
}
