//! Finds the place of an error in a `DO` block from what the server reports about it.

use super::lexer::{Lexer, TokenKind};
use super::position::byte_of_position;

/// What the server reports about an error in code that a statement runs.
#[derive(Clone, Copy, Debug)]
pub struct InnerError<'a> {
    /// The field `CONTEXT`: one line for each call, the innermost first.
    pub context: &'a str,
    /// The statement or expression inside the code that failed, and the position in it, in
    /// characters from 1.
    pub query: Option<(&'a str, usize)>,
}

/// The name of a `DO` block in PL/pgSQL in the context, whatever the language of the messages.
const BLOCK: &str = "inline_code_block";

/// Returns the byte of a `DO` statement at which an error occurred: in the statement of the block
/// that failed, or else at the start of its line. `None` for other statements and languages.
pub(crate) fn byte_in_block(statement: &str, error: InnerError<'_>) -> Option<usize> {
    let mut tokens = Lexer::new(statement).filter(|token| token.kind != TokenKind::LineComment);
    let first = tokens.next()?;
    if !statement[first.start..first.end].eq_ignore_ascii_case("do") {
        return None;
    }
    let literals = tokens.filter(|token| token.kind == TokenKind::Literal);
    // The other literal, if any, is the name of the language.
    let body = literals.max_by_key(|token| token.end - token.start)?;
    let call = error.context.lines().rfind(|line| line.contains(BLOCK))?;
    let (_, line) = call.split_once(BLOCK)?;
    let digits = line.trim_start_matches(|c: char| !c.is_ascii_digit());
    let line: usize = digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse().ok()?;
    let mut start = body.start;
    for _ in 1..line {
        start += statement[start..body.end].find('\n')? + 1;
    }
    // In code that the block calls, the query is not part of the block.
    let is_innermost = error.context.lines().next() == Some(call);
    let exact = error.query.filter(|_| is_innermost).and_then(|(query, position)| {
        // The server turns PERFORM, and before version 14 every expression, into a SELECT.
        ["", "SELECT "].into_iter().find_map(|added| {
            let text = query.strip_prefix(added)?;
            let within = byte_of_position(query, position).checked_sub(added.len())?;
            Some(start + find(&statement[start..body.end], text)? + within)
        })
    });
    exact.or_else(|| {
        let line = statement[start..].lines().next().unwrap_or_default();
        Some(start + line.len() - line.trim_start().len())
    })
}

/// Returns where a query of PL/pgSQL stands in the code. The server replaces `INTO` and its targets by
/// spaces, so a space in the query matches any byte.
fn find(code: &str, query: &str) -> Option<usize> {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let (code, query) = (code.as_bytes(), query.as_bytes());
    let mut windows = code.windows(query.len().max(1)).enumerate();
    let found = windows.find(|(at, window)| {
        let is_whole = |inner, outer| !(is_word(inner) && is_word(outer));
        query.iter().zip(*window).all(|(query, code)| query == code || *query == b' ')
            && is_whole(window.first(), at.checked_sub(1).and_then(|before| code.get(before)))
            && is_whole(window.last(), code.get(at + window.len()))
    });
    found.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "DO $$\nDECLARE\n  a int;\nBEGIN\n  PERFORM b;\n  IF a > 1 THEN\n    SELECT x INTO a FROM t WHERE y;\n  END IF;\nEND $$";

    fn rest(context: &str, query: Option<(&str, usize)>) -> Option<&'static str> {
        let byte = byte_in_block(BODY, InnerError { context, query })?;
        BODY[byte..].lines().next()
    }

    #[test]
    fn the_statement_that_failed_is_found_in_the_block() {
        let select = "PL/pgSQL function inline_code_block line 7 at SQL statement";
        let perform = "PL/pgSQL function inline_code_block line 5 at PERFORM";
        let query = "SELECT x        FROM t WHERE y";
        assert_eq!(rest(select, Some((query, 8))), Some("x INTO a FROM t WHERE y;"));
        assert_eq!(rest(select, Some((query, 30))), Some("y;"));
        assert_eq!(rest(perform, Some(("SELECT b", 8))), Some("b;"));
        assert_eq!(rest(perform, None), Some("PERFORM b;"));
        let french = "fonction PL/pgSQL inline_code_block, ligne 6 à IF";
        assert_eq!(rest(french, Some(("a > 1", 1))), Some("a > 1 THEN"));
        assert_eq!(rest(french, Some(("SELECT a > 1", 8))), Some("a > 1 THEN"));
    }

    #[test]
    fn an_error_in_a_called_function_is_at_the_call() {
        let context = "PL/pgSQL function f() line 2 at SQL statement\n\
                       SQL statement \"SELECT b\"\n\
                       PL/pgSQL function inline_code_block line 5 at PERFORM";
        assert_eq!(rest(context, Some(("SELECT x", 8))), Some("PERFORM b;"));
    }

    #[test]
    fn other_statements_and_impossible_lines_have_no_place() {
        assert_eq!(rest("PL/pgSQL function f() line 2 at RAISE", None), None);
        assert_eq!(rest("PL/pgSQL function inline_code_block line 99 at RAISE", None), None);
        assert_eq!(rest("inline_code_block line", None), None);
        let context = "PL/pgSQL function inline_code_block line 1 at RAISE";
        assert_eq!(byte_in_block("SELECT 1", InnerError { context, query: None }), None);
    }
}
