//! `server`: the private PostgreSQL server of this folder.

use std::ffi::OsString;
use std::io::Write as _;

use clap::Subcommand;

use super::run::app::App;
use crate::error::{Exit, Failure};
use crate::local::{self, LocalError, LocalOptions, LocalServer, Status};
use crate::ui::{Answer, Terminal};

/// Start, stop and look at the private PostgreSQL server of this folder
///
/// It is made from the PostgreSQL programs on this machine, listens on a unix socket only,
/// keeps its data in .pricesync/, and stops by itself ten minutes after the last command
/// that used it. Its data is disposable: it runs without fsync.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start the server, if it is not up, and print its URL
    Start,
    /// Stop the server
    Stop,
    /// Tell whether the server is up, and where
    Status,
    /// Start the server, if it is not up, and print its URL for other programs
    Url,
    /// Open psql on the server
    Psql {
        /// Run this SQL instead of asking for it; may be repeated
        #[arg(short = 'c', long = "command", value_name = "SQL")]
        commands: Vec<String>,
        /// Configuration file
        #[arg(long, id = "config", value_name = "FILE", hide = true)]
        _config: Option<std::path::PathBuf>,
        /// Options for psql
        #[arg(last = true, value_name = "PSQL OPTIONS")]
        arguments: Vec<OsString>,
    },
    /// Stop the server and delete its data
    Destroy {
        /// Do not ask
        #[arg(long)]
        force: bool,
    },
}

/// What the supervisor is told; see [`local::supervise`].
#[derive(clap::Args, Debug)]
pub(super) struct SuperviseArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    orders: Vec<OsString>,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let options = app.local_options();
    match &args.action {
        Action::Start => {
            let server = start(options).await?;
            say(&app.terminal, &format!("running: {}", server.url()))
        }
        Action::Url => say(&app.terminal, &start(options).await?.url()),
        Action::Stop => {
            let stopped = off_runtime(move || local::stop(&options)).await?;
            say(
                &app.terminal,
                if stopped {
                    "stopped"
                } else {
                    "it was not running"
                },
            )
        }
        Action::Status => {
            let status = off_runtime(move || local::status(&options)).await?;
            say(&app.terminal, &describe(&status))
        }
        Action::Psql {
            commands,
            arguments,
            ..
        } => {
            let server = start(options).await?;
            let mut command = std::process::Command::new("psql");
            command.arg(server.url());
            for sql in commands {
                command.arg("-c").arg(sql);
            }
            command.args(arguments);
            let status = tokio::task::block_in_place(|| command.status()).map_err(|error| {
                Failure::new(
                    Exit::Unexpected,
                    anyhow::Error::new(error).context("cannot run psql"),
                )
            })?;
            Ok(if status.success() {
                Exit::Done
            } else {
                Exit::Unexpected
            })
        }
        Action::Destroy { force } => destroy(options, *force, &app.terminal).await,
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
        match terminal.confirm(&question, "destroy")? {
            Answer::Yes => {}
            Answer::No => {
                return Err(Failure::words(
                    Exit::Refused,
                    "not confirmed; nothing was deleted",
                ));
            }
            Answer::NotATerminal => {
                return Err(Failure::words(
                    Exit::Refused,
                    "deleting the local server needs to be confirmed, and this is no terminal",
                )
                .hint("--force deletes without asking"));
            }
        }
    }
    let destroyed = off_runtime(move || local::destroy(&options)).await?;
    say(
        terminal,
        if destroyed {
            "destroyed"
        } else {
            "there was nothing to destroy"
        },
    )
}

async fn start(options: LocalOptions) -> Result<LocalServer, Failure> {
    off_runtime(move || LocalServer::start(&options)).await
}

/// The local server's room blocks; it must not block the runtime.
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
            format!("not created; its data would be in {}", data_dir.display())
        }
        Status::Stopped { data_dir, major } => format!(
            "stopped; PostgreSQL {major}, data in {}",
            data_dir.display()
        ),
        Status::Running {
            data_dir,
            major,
            pid,
            url,
            ..
        } => {
            format!(
                "running: {url}\nPostgreSQL {major}, pid {pid}, data in {}",
                data_dir.display()
            )
        }
    }
}

fn say(terminal: &Terminal, text: &str) -> Result<Exit, Failure> {
    let mut out = terminal.out();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(Exit::Done)
}
