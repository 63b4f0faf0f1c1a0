//! A condition on tenants, as SQL that somebody typed.

use std::fmt;

use super::lexer::{Kind, Tokens};

/// Text that, put into parentheses, stays inside them.
///
/// Whether it is a condition that the server understands, only the server knows. That it
/// is one expression and no second statement, nor the end of the one around it, is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicate(String);

/// Why a text cannot be a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PredicateError {
    /// There is nothing but white space and comments.
    Empty,
    /// A semicolon outside of a string.
    SecondStatement,
    /// Parentheses that do not match.
    Parentheses,
    /// A string, a quoted name or a comment that does not end.
    Open,
}

impl fmt::Display for PredicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::SecondStatement => "it holds a semicolon, and a condition is one expression",
            Self::Parentheses => "its parentheses do not match",
            Self::Open => "a string, a quoted name or a comment in it does not end",
        })
    }
}

impl std::error::Error for PredicateError {}

impl Predicate {
    /// Takes a condition. `standard_conforming_strings` has to be on where it is used.
    ///
    /// # Errors
    ///
    /// [`PredicateError`], for what would not stay inside the parentheses.
    pub fn parse(text: &str) -> Result<Self, PredicateError> {
        // What opens in the text and does not end there would swallow what stands behind it.
        let enclosed = format!("{text}\n)");
        let mut depth = 0_usize;
        let (mut empty, mut closed) = (true, false);
        for token in Tokens::new(&enclosed) {
            if token.start > text.len() {
                closed = token.kind == Kind::Close && depth == 0;
                break;
            }
            match token.kind {
                Kind::LineComment => continue,
                Kind::Semicolon => return Err(PredicateError::SecondStatement),
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.checked_sub(1).ok_or(PredicateError::Parentheses)?,
                _ => {}
            }
            empty = false;
        }
        match (closed, depth) {
            (_, 1..) => Err(PredicateError::Parentheses),
            (false, 0) => Err(PredicateError::Open),
            (true, 0) if empty => Err(PredicateError::Empty),
            (true, 0) => Ok(Self(text.to_owned())),
        }
    }

    /// Returns the text.
    #[must_use]
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
            assert!(Predicate::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn nothing_gets_out_of_the_parentheses() {
        use PredicateError::{Empty, Open, Parentheses, SecondStatement};
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
            assert_eq!(Predicate::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_condition_ends_where_its_text_ends(text in r#"[-aE'"/*\\\n\r();$ ]{0,24}"#) {
            if Predicate::parse(&text).is_ok() {
                let whole = format!("({text}\n)");
                let last = Tokens::new(&whole).last().expect("a parenthesis");
                prop_assert_eq!((last.kind, last.end), (Kind::Close, whole.len()));
                prop_assert!(Tokens::new(&whole).all(|token| token.kind != Kind::Semicolon));
            }
        }
    }
}
