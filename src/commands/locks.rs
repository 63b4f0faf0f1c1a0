//! `locks`: which schemas are held by a run, by whom, and who waits because of it.

use super::Output;
use super::run::app::{Access, App};
use crate::error::{Exit, Failure};
use crate::postgres::connection::server_error::server_error;
use crate::postgres::report::locks::{SchemaLock, Waiter, held};
use crate::ui::{Cell, Listing};

/// Show which schemas are being worked on, by whom, and who waits because of it
///
/// Every run holds a lock on the schema that it changes, until its transaction ends. Nothing is
/// changed: to end a session, ask its owner, or use pg_terminate_backend.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The shape of the listing; names are schemas
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
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
    .write(
        &app.terminal,
        args.output.into(),
        locks.into_iter().map(row),
    )?;
    Ok(Exit::Done)
}

fn row(lock: SchemaLock) -> Vec<Cell> {
    vec![
        lock.schema
            .map_or_else(|| Cell::Text("(being created)".to_owned()), Cell::Text),
        Cell::Number(lock.pid.into()),
        Cell::Text(lock.application),
        Cell::Text(lock.client),
        Cell::Text(lock.since),
        Cell::Number(i64::try_from(lock.held.as_secs()).unwrap_or(i64::MAX)),
        Cell::Text(lock.state),
        Cell::Text(lock.query),
        Cell::List(lock.waiting.into_iter().map(waiter).collect()),
    ]
}

fn waiter(waiter: Waiter) -> String {
    let Waiter {
        pid,
        application,
        wants,
    } = waiter;
    if application.is_empty() {
        format!("pid {pid} for {wants}")
    } else {
        format!("pid {pid} ({application}) for {wants}")
    }
}
