//! What drop-schema, purge and server destroy have in common: a typed confirmation, the size of
//! what would be lost, and hints for a drop that failed.

use crate::error::{Exit, Failure};
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::tenants::drop::Contents;
use crate::ui::{Answer, Terminal, count, size};

/// Asks the user to type `expected`. `action` is what is confirmed, such as `drop tenant 'acme'`.
///
/// # Errors
///
/// Exit 7 when something else is typed, or when stdin or stderr is not a terminal.
pub(crate) fn confirm(
    question: &str,
    expected: &str,
    action: &str,
    terminal: &Terminal,
) -> Result<(), Failure> {
    match terminal.confirm(question, expected)? {
        Answer::Yes => Ok(()),
        Answer::No => {
            Err(Failure::words(Exit::Refused, format!("not confirmed: did not {action}")))
        }
        Answer::NotATerminal => Err(Failure::words(
            Exit::Refused,
            format!("refusing to {action} without confirmation: stdin is not a terminal"),
        )
        .hint(question.lines().collect::<Vec<_>>().join(" "))
        .hint("--force skips the confirmation")),
    }
}

/// Returns tables, rows and size of a schema, such as `3 tables, about 12 rows, 64 KiB`.
pub(crate) fn contents_size(contents: &Contents) -> String {
    let rows = usize::try_from(contents.rows).unwrap_or(usize::MAX);
    let source = if contents.is_partial { " by the server's statistics" } else { "" };
    format!(
        "{}, about {}, {}{source}",
        count(contents.tables, "table"),
        count(rows, "row"),
        size(contents.bytes)
    )
}

/// Converts the error of work that needs several transactions, so that part of it may be done.
pub(crate) fn partly_done(error: ChangeError) -> Failure {
    with_hint(error, "run the same command again to finish")
}

/// Converts the error of work that is one transaction.
pub(crate) fn rolled_back(error: ChangeError) -> Failure {
    with_hint(error, "nothing was changed")
}

fn with_hint(error: ChangeError, hint: &str) -> Failure {
    match error {
        ChangeError::Catalog(_) | ChangeError::Interrupted => error.into(),
        busy => Failure::from(busy).hint(hint),
    }
}
