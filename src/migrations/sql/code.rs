//! Code in strings: the bodies of `DO` and functions, and the SQL that they build.

use super::keywords::Keywords;
use super::lexer::{Lexer, Token, TokenKind};

/// How deep strings within code are read.
pub(crate) const MAX_DEPTH: usize = 4;

/// Calls `visit` with the tokens of SQL and, down to a depth, with those of each string in it, until it
/// returns a value. Bytes count from the first of the two arguments.
pub(crate) fn with_code<T>(
    sql: &str,
    base: usize,
    depth: usize,
    visit: &mut impl FnMut(usize, Keywords<'_>) -> Option<T>,
) -> Option<T> {
    let comment = |token: &Token| token.kind == TokenKind::LineComment;
    let tokens: Vec<Token> = Lexer::new(sql).filter(|token| !comment(token)).collect();
    visit(base, Keywords::new(sql, &tokens)).or_else(|| {
        let strings = tokens.iter().filter(|token| depth > 0 && token.kind == TokenKind::Literal);
        strings.into_iter().find_map(|token| {
            let literal = &sql[token.start..token.end];
            let inside = match literal.strip_prefix('$') {
                Some(tagged) => {
                    let tag = tagged.find('$')? + 2;
                    tag..literal.len().checked_sub(tag)?
                }
                None => literal.find('\'')? + 1..literal.len() - 1,
            };
            let start = base + token.start + inside.start;
            with_code(literal.get(inside)?, start, depth - 1, visit)
        })
    })
}

/// Returns whether a statement, or code in it, names the table.
pub(crate) fn names_table(sql: &str, table: &str) -> bool {
    let named = with_code(sql, 0, MAX_DEPTH, &mut |_, level| {
        let is_it = |index: usize| level.identifier(index).as_deref() == Some(table);
        (0..level.len()).any(is_it).then_some(())
    });
    named.is_some()
}
