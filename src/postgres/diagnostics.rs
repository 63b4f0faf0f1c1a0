//! What the server or the driver said, as data; and what it means for whoever hears it.

use std::error::Error as _;

use tokio_postgres::Error;

use crate::service::event::ServerError;

/// Returns what went wrong, in the server's words where a server spoke.
///
/// The driver's own `Display` says only `db error`.
#[must_use]
pub fn server_error(error: &Error) -> ServerError {
    if let Some(db) = error.as_db_error() {
        return ServerError {
            sqlstate: Some(db.code().code().to_owned()),
            message: db.message().to_owned(),
            detail: db.detail().map(str::to_owned),
            hint: db.hint().map(str::to_owned),
        };
    }
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    ServerError {
        message,
        ..ServerError::default()
    }
}

/// Returns whether the connection is gone or going, so that nobody answered for the transaction.
#[must_use]
pub fn is_connection_lost(error: &Error) -> bool {
    match error.code() {
        Some(code) => is_going_down(code.code()),
        None => true,
    }
}

/// Class 08 and the server's shutdown codes (manual appendix A).
#[must_use]
pub fn is_going_down(sqlstate: &str) -> bool {
    sqlstate.starts_with("08")
        || matches!(sqlstate, "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
}

/// Returns whether a new connection may succeed later: the server starts, restarts, or is full.
#[must_use]
pub fn is_worth_waiting_for(error: &Error) -> bool {
    match error.code() {
        Some(code) => is_going_down(code.code()) || code.code() == "53300",
        None => true,
    }
}

/// Returns whether the same transaction may succeed when it is run again: a lock was not
/// had in time, a deadlock, a serialisation failure, or two sessions changed one catalog row.
#[must_use]
pub fn is_worth_retrying(error: &Error) -> bool {
    let Some(db) = error.as_db_error() else {
        return false;
    };
    match db.code().code() {
        "55P03" | "40P01" | "40001" => true,
        // "tuple concurrently updated" has no code of its own, and its text is translated.
        "XX000" => matches!(
            db.routine(),
            Some("simple_heap_update" | "simple_heap_delete")
        ),
        _ => false,
    }
}
