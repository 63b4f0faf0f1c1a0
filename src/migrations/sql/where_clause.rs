//! The condition of `--where`, as SQL that a user typed.

use super::lexer::{Lexer, TokenKind};

/// An SQL expression that stays inside the parentheses that pricesync puts around it.
///
/// Whether it is a valid condition is decided by the server. Rejected here: a second statement,
/// and a parenthesis, quote or comment that would end or swallow the query around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhereClause(String);

/// Why a text is not a single expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhereClauseError {
    /// Only white space and comments.
    #[error("it is empty")]
    Empty,
    /// A semicolon outside of a string.
    #[error("it contains a semicolon; a condition is one expression")]
    SecondStatement,
    /// Parentheses that do not match.
    #[error("its parentheses do not match")]
    Parentheses,
    /// A string, a quoted name or a comment that does not end.
    #[error("a string, a quoted name or a comment in it does not end")]
    Open,
}

impl WhereClause {
    /// Parses a condition, for a session with `standard_conforming_strings = on`.
    ///
    /// # Errors
    ///
    /// [`WhereClauseError`], if the text would not stay inside the parentheses.
    pub fn parse(text: &str) -> Result<Self, WhereClauseError> {
        // A quote or comment that does not end in the text would swallow the closing parenthesis.
        let enclosed = format!("{text}\n)");
        let mut depth = 0_usize;
        let (mut empty, mut closed) = (true, false);
        for token in Lexer::new(&enclosed) {
            if token.start > text.len() {
                closed = token.kind == TokenKind::Close && depth == 0;
                break;
            }
            match token.kind {
                TokenKind::LineComment => continue,
                TokenKind::Semicolon => return Err(WhereClauseError::SecondStatement),
                TokenKind::Open => depth += 1,
                TokenKind::Close => {
                    depth = depth.checked_sub(1).ok_or(WhereClauseError::Parentheses)?;
                }
                _ => {}
            }
            empty = false;
        }
        match (closed, depth) {
            (_, 1..) => Err(WhereClauseError::Parentheses),
            (false, 0) => Err(WhereClauseError::Open),
            (true, 0) if empty => Err(WhereClauseError::Empty),
            (true, 0) => Ok(Self(text.to_owned())),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_of_every_kind_are_conditions() {
        for text in [
            "plan = 'pro'",
            "slug LIKE 'a%' AND (id > 3 OR name = 'x;y)')",
            "id IN (SELECT tenant_id FROM tenants_domain) -- those with a host",
            "note = $q$; DROP TABLE x; --$q$",
            "\"odd ; name\" IS NULL /* ; ) */",
            "note = E'it\\'s; )'",
            r"note = '\'",
        ] {
            assert!(WhereClause::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn text_that_leaves_the_parentheses_is_rejected() {
        use WhereClauseError::{Empty, Open, Parentheses, SecondStatement};
        for (text, error) in [
            ("", Empty),
            (" -- nothing", Empty),
            ("true; DROP TABLE tenants_tenant", SecondStatement),
            ("true;", SecondStatement),
            ("true) OR (true", Parentheses),
            ("true) UNION SELECT 'x' --", Parentheses),
            ("(true", Parentheses),
            ("name = 'x", Open),
            ("name = \"x", Open),
            ("true /* and", Open),
            ("name = $a$x", Open),
            ("name = E'x\\'", Open),
            (r"note = '\' ; SELECT 1 --'", SecondStatement),
        ] {
            assert_eq!(WhereClause::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_condition_ends_with_its_text(text in r#"[-aE'"/*\\\n\r();$ ]{0,24}"#) {
            if WhereClause::parse(&text).is_ok() {
                let whole = format!("({text}\n)");
                let last = Lexer::new(&whole).last().expect("a parenthesis");
                prop_assert_eq!((last.kind, last.end), (TokenKind::Close, whole.len()));
                prop_assert!(Lexer::new(&whole).all(|token| token.kind != TokenKind::Semicolon));
            }
        }
    }
}
