//! Converts the driver's errors into [`ServerError`] and classifies them.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{ErrorPosition, SqlState};

use crate::domain::os_error::without_number;
use crate::domain::sqlstate;
use crate::migrations::InnerError;
use crate::service::failure::{Duplicates, ServerError};

/// Bytes of a context that are kept.
const MAX_CONTEXT: usize = 4096;

/// Returns the server's error message and details, or the driver's error with its causes.
///
/// The driver's own `Display` of a server error is only `db error`.
pub fn server_error(error: &Error) -> ServerError {
    if let Some(db) = error.as_db_error() {
        return ServerError {
            sqlstate: Some(db.code().code().to_owned()),
            message: db.message().to_owned(),
            detail: db.detail().map(Into::into),
            hint: db.hint().map(Into::into),
            context: db.where_().map(shortened),
            ..ServerError::default()
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
    ServerError { message: without_number(&message).to_owned(), ..ServerError::default() }
}

/// Returns the start of a context, which quotes statements of any length.
fn shortened(context: &str) -> Box<str> {
    match context.floor_char_boundary(MAX_CONTEXT) {
        end if end < context.len() => format!("{}…", &context[..end]).into(),
        _ => context.into(),
    }
}

/// Returns what the server reports about an error in code that a statement ran.
pub fn inner_error(error: &Error) -> InnerError<'_> {
    let db = error.as_db_error();
    let query = match db.and_then(|db| db.position()) {
        Some(ErrorPosition::Internal { position, query }) => Some((&**query, *position as usize)),
        _ => None,
    };
    InnerError { context: db.and_then(|db| db.where_()).unwrap_or_default(), query }
}

/// Returns the SQLSTATE, or `None` where the error is the driver's own.
pub(crate) fn sqlstate_of(error: &Error) -> Option<&str> {
    error.code().map(SqlState::code)
}

/// Returns the error of a statement, with the duplicate key where a unique index could not be built.
pub fn error_in(sql: &str, error: &Error) -> ServerError {
    ServerError { duplicates: duplicates(sql, error), ..server_error(error) }
}

/// Returns the relation that a statement did not find, without its schema where that is `schema`.
///
/// The message and its quotation marks may be translated. Errors about aliases and `FROM` have the same
/// code, and are distinguished by the server's routine.
pub fn missing_relation<'a>(error: &'a Error, schema: &str) -> Option<&'a str> {
    const MARKS: [char; 6] = ['"', '«', '»', '“', '”', '„'];
    let db = error.as_db_error()?;
    let is_missing = db.code().code() == sqlstate::UNDEFINED_TABLE
        && matches!(
            db.routine(),
            Some("parserOpenTable" | "RangeVarGetRelidExtended" | "DropErrorMsgNonExistent")
        );
    if !is_missing {
        return None;
    }
    let (_, rest) = db.message().split_once(MARKS)?;
    let (name, _) = rest.rsplit_once(MARKS)?;
    let name = name.trim();
    let bare = name.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.'));
    Some(bare.unwrap_or(name))
}

/// Returns the key with duplicates where a unique index could not be built.
///
/// `None` for an index that is partial, on expressions or with another comparison: a query by its columns
/// would find other rows.
fn duplicates(sql: &str, error: &Error) -> Option<Box<Duplicates>> {
    let db = error.as_db_error()?;
    // A single row that violates the index has the same code.
    let is_build = db.code().code() == sqlstate::UNIQUE_VIOLATION
        && db.routine().is_some_and(|routine| routine.starts_with("comparetup_index"));
    let sql = sql.to_lowercase();
    let is_special = ["where", "collate", "nulls"].iter().any(|word| sql.contains(word));
    if !is_build || is_special {
        return None;
    }
    Some(Box::new(Duplicates {
        schema: db.schema()?.to_owned(),
        table: db.table()?.to_owned(),
        columns: key_columns(db.detail()?)?,
    }))
}

/// Parses the columns of `Key (a, "B")=(1, 2) is duplicated.`, which may be translated; `None` where one is
/// an expression.
fn key_columns(detail: &str) -> Option<Vec<String>> {
    let mut rest = detail.split_once('(')?.1;
    let mut columns = Vec::new();
    loop {
        let mut name = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let (part, behind) = rest.split_once('"')?;
                name.push_str(part);
                rest = behind;
                match rest.strip_prefix('"') {
                    Some(more) => rest = more,
                    None => break,
                }
                name.push('"');
            }
        } else {
            let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let end = rest.find(|c| !is_part(c))?;
            name.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        if name.is_empty() {
            return None;
        }
        columns.push(name);
        if rest.starts_with(")=(") {
            return Some(columns);
        }
        rest = rest.strip_prefix(", ")?;
    }
}

/// Returns whether the connection is lost, so that the outcome of a COMMIT is unknown.
pub fn is_connection_lost(error: &Error) -> bool {
    match sqlstate_of(error) {
        Some(code) => sqlstate::is_connection_lost(code),
        // A value that could not be read, see `Row`.
        None => !error.to_string().starts_with("invalid column"),
    }
}

/// Returns whether connecting may succeed later: the server starts, restarts or is full.
pub fn is_worth_waiting_for(error: &Error) -> bool {
    sqlstate_of(error).is_none_or(|code| {
        sqlstate::is_connection_lost(code) || code == sqlstate::TOO_MANY_CONNECTIONS
    })
}

/// Returns whether the same transaction may succeed when it is retried: a lock timeout, a deadlock, a
/// serialization failure, or two sessions that changed one catalog row.
pub fn is_worth_retrying(error: &Error) -> bool {
    let Some(db) = error.as_db_error() else {
        return false;
    };
    match db.code().code() {
        code if sqlstate::is_contention(code) => true,
        // "tuple concurrently updated" has no code of its own, and the text may be translated.
        sqlstate::INTERNAL_ERROR => {
            matches!(db.routine(), Some("simple_heap_update" | "simple_heap_delete"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::key_columns;

    #[test]
    fn the_columns_of_a_key_are_read_in_any_language() {
        let read = |detail| key_columns(detail).map(|columns| columns.join("|"));
        let some = |columns: &str| Some(columns.to_owned());
        assert_eq!(read("Key (name)=(Anvil) is duplicated."), some("name"));
        assert_eq!(read("La clé (a, b_2)=(1, 2) est dupliquée."), some("a|b_2"));
        assert_eq!(
            read(r#"Key ("A ""b"", c", "tên")=(1, (2)) is duplicated."#),
            some(r#"A "b", c|tên"#)
        );
        assert_eq!(read("Key (lower(email))=(x) is duplicated."), None);
        assert_eq!(read("Key (a, (b + 1))=(1, 2) is duplicated."), None);
        assert_eq!(read("Key (\"a"), None);
        assert_eq!(read("no key"), None);
    }
}
