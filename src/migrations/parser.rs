//! The second opinion: a full parser that has to see the same statements.

use squawk_syntax::SourceFile;

use super::statement::Statement;

/// Longer files go unparsed: a second reading of megabytes of rows costs seconds and shows
/// nothing.
const MAX_BYTES: usize = 4 << 20;

/// The parser recurses, and for nested parentheses and chains of operators it takes
/// quadratic time (measured with 2.68: 4,000 of them need 16 MiB of stack and 1.7 s in a
/// debug build, 20,000 parentheses 23 s), so statements beyond these go unparsed, and the
/// thread that parses has room for those within.
const MAX_TOKENS: usize = 2_000;
const MAX_DEPTH: usize = 200;
const STACK_BYTES: usize = 32 << 20;

/// How much the parser is trusted with.
pub(super) struct Limits;

impl Limits {
    pub(super) const fn allow_file(text: &str) -> bool {
        text.len() <= MAX_BYTES
    }

    /// Returns whether a statement with so many tokens and so deep parentheses may be parsed.
    pub(super) const fn allow_statement(tokens: usize, depth: usize) -> bool {
        tokens <= MAX_TOKENS && depth <= MAX_DEPTH
    }
}

/// Returns whether each statement is exactly one, without an error, in the parser's eyes too.
pub(super) fn agrees(text: &str, statements: &[Statement]) -> bool {
    let is_one = |statement: &Statement| {
        let parse = SourceFile::parse(&text[statement.range.clone()]);
        parse.errors().is_empty() && parse.tree().stmts().count() == 1
    };
    with_room(|| statements.iter().all(is_one)).unwrap_or(false)
}

/// Does what calls the parser, on a thread with room for it. `None` where it could not be
/// started or panicked: overflowing a stack ends the process, a panic only the thread it is in.
pub(super) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|threads| {
        std::thread::Builder::new()
            .name("sql-parser".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(threads, work)
            .ok()
            .and_then(|thread| thread.join().ok())
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::script::Scope;
    use crate::migrations::script::Transaction::Inside;
    use crate::migrations::seal::{Seal, examine};

    #[test]
    fn what_would_overflow_the_parser_is_not_given_to_it() {
        for text in [
            format!("select {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
            format!("select 1{}", "+1".repeat(100_000)),
            format!("select {} true", "not ".repeat(100_000)),
        ] {
            assert_eq!(examine(&text, Scope::Tenant, Inside).seal, Seal::Server);
        }
    }

    #[test]
    fn what_is_just_within_the_limits_is_parsed_without_overflowing() {
        for text in [
            format!("select {}1{}", "(".repeat(200), ")".repeat(200)),
            format!("select 1{}", "+1".repeat(998)),
            format!("select {} true", "not ".repeat(1_997)),
            format!(
                "select {} 1 {}",
                "case when true then ".repeat(390),
                " end".repeat(390)
            ),
        ] {
            let seal = examine(&text, Scope::Tenant, Inside).seal;
            assert_eq!(seal, Seal::Parsed, "{}", &text[..20]);
        }
    }
}
