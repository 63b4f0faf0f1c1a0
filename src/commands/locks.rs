//! `locks`: lists locked schemas, with the holder and the waiting sessions.

use super::args::output::OutputArg;
use super::run::CommandRun;
use super::run::app::{Access, App};
use crate::error::{Exit, Failure};
use crate::postgres::connection::server_error::server_error;
use crate::postgres::report::locks::{SchemaLock, Waiter, held};
use crate::ui::{Cell, Listing};

/// List locked schemas, their holders and waiting sessions
///
/// A run holds a lock on each schema that it changes until the transaction ends. The command
/// only reads; to end a session use pg_terminate_backend(pid).
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let database = app.database(Access::Read, 1).await?;
        let session = database
            .session(app.wait)
            .await
            .map_err(|error| Failure::words(Exit::Unreachable, error))?;
        let locks = held(&session)
            .await
            .map_err(|error| Failure::words(Exit::Unexpected, server_error(&error)))?;
        Listing::new(
            &[
                "schema",
                "pid",
                "application",
                "client",
                "since",
                "seconds",
                "state",
                "query",
                "waiting",
            ],
            "no schema is locked",
        )
        .write(&app.terminal, self.output.format(), locks.into_iter().map(row))?;
        Ok(Exit::Done)
    }
}

fn row(lock: SchemaLock) -> Vec<Cell> {
    vec![
        lock.schema.map_or_else(|| Cell::Text("(being created)".to_owned()), Cell::Text),
        Cell::Number(lock.pid.into()),
        Cell::Text(lock.application),
        Cell::Text(lock.client),
        Cell::Text(lock.since),
        Cell::count(lock.held.as_secs()),
        Cell::Text(lock.state),
        Cell::Text(lock.query),
        Cell::List(lock.waiting.into_iter().map(waiter).collect()),
    ]
}

fn waiter(waiter: Waiter) -> String {
    let Waiter { pid, application, wants } = waiter;
    if application.is_empty() {
        format!("pid {pid} for {wants}")
    } else {
        format!("pid {pid} ({application}) for {wants}")
    }
}
