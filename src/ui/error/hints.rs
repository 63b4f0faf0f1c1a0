//! What to do about an error, as far as its kind tells.

use crate::domain::plan::Drift;
use crate::service::failure::ServerError;

/// What the person can do about a SQLSTATE that says so (manual appendix A).
pub(super) fn remedy(error: &ServerError) -> Option<&'static str> {
    let state = error.sqlstate.as_deref()?;
    Some(match state {
        "55P03" => "let the session in the way finish or raise --lock-timeout",
        "57014" => "raise --statement-timeout or find out who cancelled the statement",
        "53100" => "free space on the server's disk",
        "53200" => "raise max_locks_per_transaction or the server's memory",
        "53300" => "lower --jobs or raise max_connections",
        "42501" => "grant the missing right to the role that runs migrations",
        "42601" => "correct the file",
        "40P01" | "40001" => "wait for the other sessions",
        "57P01" | "57P02" | "57P03" => "wait until the server is back",
        _ if state.starts_with("08") => "wait until the server can be reached",
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
