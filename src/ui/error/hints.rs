//! Hints that depend on the error alone.

use crate::domain::hint::Hint;
use crate::domain::plan::Drift;
use crate::domain::schema_name::QuotedIdentifier;
use crate::domain::script::DefinedIn;
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

/// Returns the server's own hint.
pub(super) fn of_server(error: &ServerError) -> impl Iterator<Item = Hint> {
    error.hint.clone().map(Hint::from).into_iter()
}

/// Returns the query that lists duplicate keys, with the schema if `is_one`. Keys with a null are never
/// duplicates.
pub(super) fn find_duplicates(error: &ServerError, is_one: bool) -> Option<Hint> {
    let found = error.duplicates.as_ref()?;
    let names: Vec<String> =
        found.columns.iter().map(|column| QuotedIdentifier::new(column).to_string()).collect();
    let columns = names.join(", ");
    let key = if names.len() == 1 { columns.clone() } else { format!("({columns})") };
    let numbers: Vec<String> = (1..=names.len()).map(|number| number.to_string()).collect();
    let mut table = QuotedIdentifier::new(&found.table).to_string();
    if is_one {
        table = format!("{}.{table}", QuotedIdentifier::new(&found.schema));
    }
    Some(format!(
        "find the rows: SELECT {columns}, count(*) FROM {table} WHERE {key} IS NOT NULL GROUP BY {} HAVING count(*) > 1",
        numbers.join(", ")
    ).into())
}

/// Returns the name of an object that does not exist, if it is written with its schema.
pub(super) fn name_with_schema(message: &str) -> Option<&str> {
    let object = message.strip_suffix(" does not exist")?;
    let (_, name) = object.split_once(' ')?;
    let name = name.split('(').next()?.trim_matches('"');
    name.contains('.').then_some(name)
}

/// Returns what the migration files say about a relation that does not exist.
pub(super) fn find_definition(definition: &DefinedIn) -> Hint {
    match definition {
        DefinedIn::LaterFile(script) => format!(
            "{script}, a later file, creates it; a file can use only what earlier files create"
        )
        .into(),
        DefinedIn::AppliedFile(script) => Hint::command(
            format!(
                "{script} creates it and is recorded as applied, so it was dropped or renamed later, or the file was recorded without being run; compare the tenants"
            ),
            "drift",
        ),
        DefinedIn::NoFile => {
            "no CREATE TABLE or CREATE VIEW in the migration files creates it; check the name"
                .into()
        }
    }
}
