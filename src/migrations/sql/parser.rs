//! The second opinion: a full parser that has to see the same statements.

use squawk_syntax::ast::{self, AstNode as _, Stmt};
use squawk_syntax::{SourceFile, SyntaxKind, SyntaxNode};

use super::split::Statement;

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
pub(crate) struct Limits;

impl Limits {
    pub(crate) const fn allow_file(text: &str) -> bool {
        text.len() <= MAX_BYTES
    }

    /// Returns whether a statement with so many tokens and so deep parentheses may be parsed.
    pub(crate) const fn allow_statement(tokens: usize, depth: usize) -> bool {
        tokens <= MAX_TOKENS && depth <= MAX_DEPTH
    }
}

/// Returns whether each statement is exactly one, without an error, in the parser's eyes too.
pub(crate) fn agrees(text: &str, statements: &[Statement]) -> bool {
    let is_one = |statement: &Statement| {
        let parse = SourceFile::parse(&text[statement.range.clone()]);
        parse.errors().is_empty() && parse.tree().stmts().count() == 1
    };
    with_room(|| statements.iter().all(is_one)).unwrap_or(false)
}

/// Returns the first statement whose effect on an empty schema is not known to be the same
/// every time, and what it is about it. Ask only for texts that [`agrees`] was true for.
pub(crate) fn first_unpredictable(
    text: &str,
    statements: &[Statement],
) -> Option<(usize, &'static str)> {
    let examine = || {
        statements
            .iter()
            .enumerate()
            .find_map(|(index, statement)| {
                let parse = SourceFile::parse(&text[statement.range.clone()]);
                match parse.tree().stmts().next() {
                    Some(stmt) => unpredictable(&stmt).map(|why| (index, why)),
                    None => Some((index, "it is not understood")),
                }
            })
    };
    with_room(examine).unwrap_or(Some((0, "it is not understood")))
}

/// Does what calls the parser, on a thread with room for it. `None` where it could not be
/// started or panicked: overflowing a stack ends the process, a panic only the thread it is in.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|threads| {
        std::thread::Builder::new()
            .name("sql-parser".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(threads, work)
            .ok()
            .and_then(|thread| thread.join().ok())
    })
}

/// Only kinds that are listed pass: whatever the parser learns next is unknown here.
fn unpredictable(stmt: &Stmt) -> Option<&'static str> {
    let known = matches!(
        stmt,
        Stmt::CreateTable(_)
            | Stmt::AlterTable(_)
            | Stmt::DropTable(_)
            | Stmt::CreateIndex(_)
            | Stmt::AlterIndex(_)
            | Stmt::DropIndex(_)
            | Stmt::CreateSequence(_)
            | Stmt::AlterSequence(_)
            | Stmt::DropSequence(_)
            | Stmt::CreateType(_)
            | Stmt::AlterType(_)
            | Stmt::DropType(_)
            | Stmt::CreateDomain(_)
            | Stmt::AlterDomain(_)
            | Stmt::DropDomain(_)
            | Stmt::CreateView(_)
            | Stmt::AlterView(_)
            | Stmt::DropView(_)
            | Stmt::CreateFunction(_)
            | Stmt::AlterFunction(_)
            | Stmt::DropFunction(_)
            | Stmt::CreateProcedure(_)
            | Stmt::AlterProcedure(_)
            | Stmt::DropProcedure(_)
            | Stmt::CreateTrigger(_)
            | Stmt::AlterTrigger(_)
            | Stmt::DropTrigger(_)
            | Stmt::CreatePolicy(_)
            | Stmt::AlterPolicy(_)
            | Stmt::DropPolicy(_)
            | Stmt::CreateStatistics(_)
            | Stmt::AlterStatistics(_)
            | Stmt::DropStatistics(_)
            | Stmt::CommentOn(_)
            | Stmt::Update(_)
            | Stmt::Delete(_)
    );
    if !known {
        return Some("it is of a kind that may depend on data or on what is outside the schema");
    }
    let changes_rows = matches!(stmt, Stmt::Update(_) | Stmt::Delete(_));
    let says_words = matches!(stmt, Stmt::CommentOn(_));
    stmt.syntax().descendants_with_tokens().find_map(|element| {
        if let Some(node) = element.as_node() {
            return copies(node)
                .or_else(|| {
                    (changes_rows && ast::WithClause::can_cast(node.kind()))
                        .then_some("a WITH may change other tables")
                })
                .or_else(|| {
                    ast::Temp::can_cast(node.kind()).then_some("a temporary object is in no schema")
                });
        }
        let token = element.as_token()?;
        (!says_words && is_quoted(token.kind()) && tells_time(token.text()))
            .then_some("'now' and its like become the time at which the statement runs")
    })
}

/// What takes over the shape of another object as it is at that moment.
fn copies(node: &SyntaxNode) -> Option<&'static str> {
    let kind = node.kind();
    (ast::LikeClause::can_cast(kind)
        || ast::Inherits::can_cast(kind)
        || ast::PartitionOf::can_cast(kind)
        || ast::OfType::can_cast(kind)
        || ast::PercentType::can_cast(kind)
        || ast::PercentTypeClause::can_cast(kind))
    .then_some("it takes over what another table is like at that moment")
}

const fn is_quoted(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::STRING
            | SyntaxKind::ESC_STRING
            | SyntaxKind::UNICODE_ESC_STRING
            | SyntaxKind::NATIONAL_STRING
    )
}

/// Words that the server's date input resolves when it reads them (manual section 8.5.1.4).
fn tells_time(literal: &str) -> bool {
    literal
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .any(|word| {
            ["now", "today", "tomorrow", "yesterday"]
                .iter()
                .any(|time| word.eq_ignore_ascii_case(time))
        })
}

#[cfg(test)]
mod tests {
    use crate::domain::script::Scope;
    use crate::migrations::policy::check::{Seal, examine};
    use crate::migrations::sql::directives::Transaction::Inside;

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
