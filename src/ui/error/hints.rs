//! What to do about an error, as far as its kind tells.

use crate::domain::plan::Drift;
use crate::domain::sqlstate;
use crate::service::failure::ServerError;

/// What the person can do about a SQLSTATE that says so (manual appendix A).
pub(super) fn remedy(error: &ServerError) -> Option<&'static str> {
    let state = error.sqlstate.as_deref()?;
    Some(match state {
        sqlstate::LOCK_NOT_AVAILABLE => "let the session in the way finish or raise --lock-timeout",
        sqlstate::QUERY_CANCELED => {
            "raise --statement-timeout or find out who cancelled the statement"
        }
        sqlstate::DISK_FULL => "free space on the server's disk",
        sqlstate::OUT_OF_MEMORY => "raise max_locks_per_transaction or the server's memory",
        sqlstate::TOO_MANY_CONNECTIONS => "lower --jobs or raise max_connections",
        sqlstate::INSUFFICIENT_PRIVILEGE => {
            "grant the missing right to the role that runs migrations"
        }
        sqlstate::SYNTAX_ERROR => "correct the file",
        code if sqlstate::is_contention(code) => "wait for the other sessions",
        code if sqlstate::is_shutdown(code) => "wait until the server is back",
        _ if state.starts_with(sqlstate::CONNECTION_EXCEPTION_CLASS) => {
            "wait until the server can be reached"
        }
        _ if state.starts_with("23") => "mend the data that breaks the rule (or the file)",
        _ => return None,
    })
}

/// What to do about each kind of drift, once each.
pub(super) fn drift_hints(drifts: &[Drift]) -> Vec<String> {
    let mut hints = Vec::new();
    for drift in drifts {
        let hint = match drift {
            Drift::Edited { .. } => {
                "restore the file as it was applied and put the change into a new one (pricesync make-migration)"
                    .to_owned()
            }
            Drift::Vanished { .. } => {
                "restore the missing file from version control; applied migrations are never deleted"
                    .to_owned()
            }
            Drift::OutOfOrder { newest, .. } => {
                format!("give the file a version above {newest}")
            }
            Drift::Renamed { .. } => "give the file the name under which it was applied".to_owned(),
        };
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
}
