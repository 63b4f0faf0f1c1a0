//! Hints that depend on the kind of error alone.

use crate::domain::hint::Hint;
use crate::domain::plan::Drift;
use crate::domain::sqlstate;
use crate::service::failure::ServerError;

/// Returns what to do about a SQLSTATE (PostgreSQL's manual, appendix A); `None` where the code does
/// not say enough.
pub(super) fn remedy(error: &ServerError) -> Option<&'static str> {
    let state = error.sqlstate.as_deref()?;
    Some(match state {
        sqlstate::LOCK_NOT_AVAILABLE => "wait for the blocking session or raise --lock-timeout",
        sqlstate::QUERY_CANCELED => {
            "raise --statement-timeout or find out what cancelled the statement"
        }
        sqlstate::DISK_FULL => "free space on the server's disk",
        sqlstate::OUT_OF_MEMORY => "raise max_locks_per_transaction or the server's memory",
        sqlstate::TOO_MANY_CONNECTIONS => "lower --jobs or raise max_connections",
        sqlstate::INSUFFICIENT_PRIVILEGE => {
            "grant the missing privilege to the role that runs migrations"
        }
        sqlstate::SYNTAX_ERROR => "correct the file",
        code if sqlstate::is_contention(code) => "wait for the other sessions",
        code if sqlstate::is_shutdown(code) => "wait until the server is back",
        _ if state.starts_with(sqlstate::CONNECTION_EXCEPTION_CLASS) => {
            "wait until the server can be reached"
        }
        _ if state.starts_with("23") => "fix the data that violates the constraint (or the file)",
        _ => return None,
    })
}

/// Returns what to do about each kind of drift, each hint once.
pub(super) fn drift_hints(drifts: &[Drift]) -> Vec<Hint> {
    let mut hints = Vec::new();
    for drift in drifts {
        let hint = match drift {
            Drift::Edited { .. } => Hint::command(
                "restore the file as it was applied and put the change into a new one",
                "make-migration",
            ),
            Drift::Vanished { .. } => {
                "restore the missing file from version control; applied migrations are never deleted"
                    .into()
            }
            Drift::OutOfOrder { newest, .. } => {
                format!("give the file a version above {newest}").into()
            }
            Drift::Renamed { .. } => "give the file the name under which it was applied".into(),
        };
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
}
