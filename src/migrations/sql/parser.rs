//! A full SQL parser, which must confirm the statements that the lexer found.

use squawk_syntax::SourceFile;

use super::split::Statement;

/// Longer files are not parsed: parsing megabytes of rows takes seconds and shows nothing.
const MAX_BYTES: usize = 4 << 20;

/// Longer statements are not parsed. The parser recurses, and takes quadratic time for nested
/// parentheses and chains of operators: with 2.68, 4,000 of them need 16 MiB of stack and 1.7 s in
/// a debug build, 20,000 parentheses 23 s.
const MAX_TOKENS: usize = 2_000;
const MAX_DEPTH: usize = 200;
const STACK_BYTES: usize = 32 << 20;

/// The sizes up to which SQL is parsed.
pub(crate) struct Limits;

impl Limits {
    pub(crate) const fn allow_file(text: &str) -> bool {
        text.len() <= MAX_BYTES
    }

    /// Returns whether a statement of this many tokens and this depth of parentheses is parsed.
    pub(crate) const fn allow_statement(tokens: usize, depth: usize) -> bool {
        tokens <= MAX_TOKENS && depth <= MAX_DEPTH
    }
}

/// Returns whether the parser reads each statement as exactly one, without a syntax error.
pub(crate) fn confirms(text: &str, statements: &[Statement]) -> bool {
    let is_one = |statement: &Statement| {
        let parse = SourceFile::parse(&text[statement.range.clone()]);
        parse.errors().is_empty() && parse.tree().stmts().count() == 1
    };
    on_parser_thread(|| statements.iter().all(is_one)).unwrap_or(false)
}

/// Runs `work`, which calls the parser, on a thread with a stack of [`STACK_BYTES`]. Returns `None`
/// if the thread could not be started or panicked.
pub(crate) fn on_parser_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
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
    use crate::migrations::policy::check::check;
    use crate::migrations::sql::directives::Transaction::Inside;

    #[test]
    fn sql_that_would_overflow_the_parser_is_not_parsed() {
        for text in [
            format!("select {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
            format!("select 1{}", "+1".repeat(100_000)),
            format!("select {} true", "not ".repeat(100_000)),
        ] {
            assert!(!check(&text, Scope::Tenant, Inside).is_parsed);
        }
    }

    #[test]
    fn sql_within_the_limits_does_not_overflow_the_parser() {
        for text in [
            format!("select {}1{}", "(".repeat(200), ")".repeat(200)),
            format!("select 1{}", "+1".repeat(998)),
            format!("select {} true", "not ".repeat(1_997)),
            format!("select {} 1 {}", "case when true then ".repeat(390), " end".repeat(390)),
        ] {
            let checked = check(&text, Scope::Tenant, Inside);
            assert!(checked.is_parsed, "{}", &text[..20]);
        }
    }
}
