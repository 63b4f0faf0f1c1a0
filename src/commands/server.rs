//! `server`: starts and stops the local PostgreSQL server.

use std::ffi::OsString;

use clap::Subcommand;

use super::args::tenant::ConfigWithoutShort;
use super::run::app::App;
use super::run::confirm::confirm;
use super::run::{CommandRun, print_line};
use crate::error::{Exit, Failure};
use crate::local::{self, LocalError, LocalOptions, LocalServer, Status};
use crate::ui::Terminal;

/// Start, stop and inspect this folder's PostgreSQL server
///
/// It uses the PostgreSQL programs of this machine, listens on a unix socket only, keeps its data
/// in .pricesync/, and stops ten minutes after the last command that used it. It runs without
/// fsync, so its data is disposable.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start the server if necessary, and print its URL
    Start,
    /// Stop the server
    Stop,
    /// Show whether the server is running, and its URL
    Status,
    /// Start the server if necessary, and print only its URL
    Url,
    /// Open psql on the server
    Psql {
        /// SQL to run; repeatable [default: interactive]
        #[arg(short = 'c', long = "command", value_name = "SQL")]
        commands: Vec<String>,
        #[command(flatten)]
        config: ConfigWithoutShort,
        /// Options for psql
        #[arg(last = true, value_name = "PSQL OPTIONS")]
        arguments: Vec<OsString>,
    },
    /// Stop the server and delete its data
    Destroy {
        /// Skip the confirmation
        #[arg(long)]
        force: bool,
    },
}

/// The arguments of the supervisor process; see [`local::supervise`].
#[derive(clap::Args, Debug)]
pub(super) struct SuperviseArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    orders: Vec<OsString>,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let options = app.local_options();
        match &self.action {
            Action::Start => {
                let server = start(options).await?;
                print(&app.terminal, &format!("running: {}", server.url()))
            }
            Action::Url => print(&app.terminal, &start(options).await?.url()),
            Action::Stop => {
                let stopped = off_runtime(move || local::stop(&options)).await?;
                print(&app.terminal, if stopped { "stopped" } else { "not running" })
            }
            Action::Status => {
                let status = off_runtime(move || local::status(&options)).await?;
                print(&app.terminal, &describe(&status))
            }
            Action::Psql { commands, arguments, .. } => {
                let server = start(options).await?;
                let mut command = std::process::Command::new("psql");
                command.arg(server.url());
                for sql in commands {
                    command.arg("-c").arg(sql);
                }
                command.args(arguments);
                let status = tokio::task::block_in_place(|| command.status()).map_err(|error| {
                    Failure::with_context(Exit::Unexpected, error, "cannot run psql")
                })?;
                Ok(if status.success() { Exit::Done } else { Exit::Unexpected })
            }
            Action::Destroy { force } => destroy(options, *force, &app.terminal).await,
        }
    }
}

/// Runs the supervisor to its end; its standard error is the server's log.
pub(super) fn supervise(args: &SuperviseArgs) -> Result<Exit, Failure> {
    local::supervise(&args.orders)
        .map(|()| Exit::Done)
        .map_err(|error| Failure::new(Exit::Unexpected, error))
}

async fn destroy(options: LocalOptions, force: bool, terminal: &Terminal) -> Result<Exit, Failure> {
    if !force {
        let question = format!(
            "this deletes the local server and all its data in {}",
            options.data_dir.display()
        );
        confirm(&question, "destroy", "delete the local server", terminal)?;
    }
    let destroyed = off_runtime(move || local::destroy(&options)).await?;
    print(terminal, if destroyed { "destroyed" } else { "nothing to destroy" })
}

async fn start(options: LocalOptions) -> Result<LocalServer, Failure> {
    off_runtime(move || LocalServer::start(&options)).await
}

/// Runs a blocking function of the local server outside the runtime.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Exit::Unexpected, error))?
        .map_err(|error| Failure::new(Exit::Unreachable, error))
}

fn describe(status: &Status) -> String {
    match status {
        Status::NotCreated { data_dir } => {
            format!("not created; data folder: {}", data_dir.display())
        }
        Status::Stopped { data_dir, major } => {
            format!("stopped; PostgreSQL {major}, data in {}", data_dir.display())
        }
        Status::Running { data_dir, major, pid, url, .. } => {
            format!("running: {url}\nPostgreSQL {major}, pid {pid}, data in {}", data_dir.display())
        }
    }
}

fn print(terminal: &Terminal, text: &str) -> Result<Exit, Failure> {
    for line in text.lines() {
        print_line(terminal, line)?;
    }
    Ok(Exit::Done)
}
