//! pricesync: schema migrations for PostgreSQL databases that keep one schema per tenant.
//!
//! A run is data flowing one way: arguments become [`settings`], files become migration
//! sets, rows become tenants; from them a list of targets; [`service::fleet`] works on them;
//! events come out, [`ui`] renders them, and the summary becomes the exit code in [`error`].
//!
//! | room | holds |
//! |---|---|
//! | [`commands`] | what a person can type; the only place that knows clap |
//! | [`service`] | use cases; knows no SQL and no terminal |
//! | [`domain`] | words of the problem; pure |
//! | [`migrations`] | the SQL files on disk |
//! | [`postgres`] | the only SQL and the only driver |
//! | [`archive`] | the file that a backup is |
//! | [`local`] | the private server that a newcomer gets |
//! | [`ui`] | everything a person or a script reads |
//!
//! In the words of domain-driven design: *Domain* is [`domain`]; *Repository* is
//! [`domain::catalog::TenantCatalog`] with [`postgres::tenants::catalog`]; *Service* is [`service`];
//! *Infrastructure* is [`postgres`] and [`migrations`].
//!
//! A service of your own starts with [`postgres::connection::conninfo::ConnectOptions`],
//! [`postgres::connection::database::Database`] and either [`postgres::migrate::migrator::PostgresMigrator`] (migrate
//! at start-up) or [`postgres::tenants::context::TenantContext`] (work as one tenant).

pub mod archive;
pub mod commands;
pub mod domain;
pub mod error;
pub mod local;
pub mod migrations;
pub mod postgres;
pub mod service;
pub mod settings;
pub mod ui;

use clap::Parser as _;

use commands::Cli;
use error::{Exit, Failure};
use ui::{Terminal, is_broken_pipe};

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that closed stdout is not an error.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
        }
    };
    let terminal = cli.terminal();
    let dotenv = match cli.read_dotenv() {
        Ok(dotenv) => dotenv,
        Err(failure) => return report(&failure, &terminal) as u8,
    };
    let mut runtime = if cli.is_single_threaded() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.error(&format!("cannot start: {error}"));
            return Exit::Unexpected as u8;
        }
    };
    let result = runtime.block_on(commands::run(cli, dotenv, &terminal));
    // A third interrupt leaves work behind that must not be waited for.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit as u8,
        Err(failure) => report(&failure, &terminal) as u8,
    }
}

/// Writes a failure to stderr and returns its exit code. A reader that closed stdout is not an error.
fn report(failure: &Failure, terminal: &Terminal) -> Exit {
    if failure.cause.downcast_ref().is_some_and(is_broken_pipe) {
        return Exit::Done;
    }
    terminal.explain(None, &failure.explanation());
    failure.exit
}
