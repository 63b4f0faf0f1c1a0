//! The statements of a file: where each begins and ends, and what its first words say.

use std::ops::Range;

use super::keywords::Words;
use super::lexer::{Kind, Token};

/// Nothing that is looked for stands further behind in a statement, not even in a `COPY`
/// that lists as many columns as a table can have.
const KEPT_TOKENS: usize = 8_192;

/// One statement of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its bytes in the text of the file, without the semicolon.
    pub range: Range<usize>,
    index: Option<Box<str>>,
    only_defines: bool,
    runs_code: bool,
    sets: bool,
}

impl Statement {
    /// Returns the name of the index, as it stands in `pg_class`, that a
    /// `CREATE INDEX CONCURRENTLY` makes; `None` for other statements and where the server
    /// chooses the name.
    #[must_use]
    pub fn concurrent_index(&self) -> Option<&str> {
        self.index.as_deref()
    }

    /// Returns whether this only defines relations, types or comments, so that it leaves nothing
    /// behind in its session. Errs on the careful side.
    #[must_use]
    pub const fn only_defines(&self) -> bool {
        self.only_defines
    }

    /// Returns whether this runs code in a text, which is not looked into: `DO` or `CALL`.
    #[must_use]
    pub const fn runs_code(&self) -> bool {
        self.runs_code
    }

    /// Returns whether this is a `SET` that holds for its session.
    #[must_use]
    pub const fn sets_for_session(&self) -> bool {
        self.sets
    }
}

/// Collects tokens until a statement is complete, the way psql finds the end of one: at a
/// semicolon that stands in no parentheses and in no `BEGIN ATOMIC` body.
#[derive(Default)]
pub(crate) struct Gathering {
    tokens: Vec<Token>,
    count: usize,
    end: usize,
    depth: usize,
    deepest: usize,
    body: Option<Body>,
}

/// Inside `BEGIN ATOMIC ... END` (manual, `CREATE FUNCTION`).
#[derive(Default)]
struct Body {
    open_cases: usize,
}

impl Gathering {
    /// Takes the next token and returns whether it ended a statement that is not empty.
    pub(crate) fn take(&mut self, token: Token, text: &str) -> bool {
        if token.kind == Kind::Semicolon && self.depth == 0 && self.body.is_none() {
            return !self.tokens.is_empty();
        }
        match token.kind {
            Kind::Open => self.depth += 1,
            Kind::Close => self.depth = self.depth.saturating_sub(1),
            Kind::Word => self.follow_body(&text[token.start..token.end], text),
            _ => {}
        }
        self.deepest = self.deepest.max(self.depth);
        self.count += 1;
        self.end = token.end;
        if self.tokens.len() == KEPT_TOKENS {
            // The last place always holds the newest token, for what depends on the one before.
            self.tokens.pop();
        }
        self.tokens.push(token);
        false
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns how many tokens the statement has.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Returns how deep its parentheses are.
    pub(crate) const fn deepest(&self) -> usize {
        self.deepest
    }

    pub(crate) fn words<'a>(&'a self, text: &'a str) -> Words<'a> {
        Words::new(text, &self.tokens)
    }

    /// Returns the statement that was gathered, and begins the next.
    pub(crate) fn finish(&mut self, text: &str) -> Statement {
        let words = self.words(text);
        let statement = Statement {
            range: self.tokens.first().map_or(self.end, |token| token.start)..self.end,
            index: words.concurrent_index().map(String::into_boxed_str),
            only_defines: words.only_defines(),
            runs_code: words.is_any(0, &["do", "call"]),
            sets: words.is(0, "set") && !words.is_any(1, &["local", "transaction", "constraints"]),
        };
        let mut tokens = std::mem::take(&mut self.tokens);
        tokens.clear();
        *self = Self {
            tokens,
            ..Self::default()
        };
        statement
    }

    fn follow_body(&mut self, word: &str, text: &str) {
        let previous = self.tokens.last().copied();
        let after = |expected: &str| {
            previous.is_some_and(|token| {
                token.kind == Kind::Word
                    && text[token.start..token.end].eq_ignore_ascii_case(expected)
            })
        };
        let after_dot = previous.is_some_and(|token| &text[token.start..token.end] == ".");
        let reserved = |key: &str| word.eq_ignore_ascii_case(key) && !after("as") && !after_dot;
        let Some(body) = &mut self.body else {
            if self.depth == 0
                && word.eq_ignore_ascii_case("atomic")
                && after("begin")
                && self.words(text).creates_routine()
            {
                self.body = Some(Body::default());
            }
            return;
        };
        if reserved("case") {
            body.open_cases += 1;
        } else if reserved("end") {
            if body.open_cases > 0 {
                body.open_cases -= 1;
            } else if after("atomic") || previous.is_some_and(|token| token.kind == Kind::Semicolon)
            {
                self.body = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Tokens;
    use super::*;

    fn statements(text: &str) -> Vec<Statement> {
        let mut gathering = Gathering::default();
        let mut found = Vec::new();
        for token in Tokens::new(text).filter(|token| token.kind != Kind::LineComment) {
            if gathering.take(token, text) {
                found.push(gathering.finish(text));
            }
        }
        if !gathering.is_empty() {
            found.push(gathering.finish(text));
        }
        found
    }

    fn texts(text: &str) -> Vec<&str> {
        statements(text)
            .into_iter()
            .map(|statement| &text[statement.range])
            .collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_parentheses_and_bodies() {
        assert_eq!(texts("a; b ;; -- c;\n d"), ["a", "b", "d"]);
        assert_eq!(
            texts("create rule r as on insert to t do (insert into u; insert into v); x"),
            [
                "create rule r as on insert to t do (insert into u; insert into v)",
                "x"
            ]
        );
        assert_eq!(texts(" ; ; -- nothing\n"), Vec::<&str>::new());
    }

    #[test]
    fn a_body_ends_at_its_own_end_and_at_no_other() {
        let body = "create or replace function f(begin int) returns int begin atomic \
                    select case when true then 1 else 2 end; select 1 as end; select t.end from t; end";
        assert_eq!(texts(&format!("{body}; x")), [body, "x"]);
        let empty = "CREATE PROCEDURE p() BEGIN ATOMIC END";
        assert_eq!(texts(&format!("{empty}; commit")), [empty, "commit"]);
    }

    #[test]
    fn what_is_set_for_the_session_is_told_from_what_ends_with_the_transaction() {
        let text = "SET work_mem = '8MB'; set session work_mem to 1; SET LOCAL work_mem = 1; \
                    SET CONSTRAINTS ALL DEFERRED; SET TRANSACTION READ ONLY; UPDATE t SET a = 1";
        let sets: Vec<bool> = statements(text)
            .iter()
            .map(Statement::sets_for_session)
            .collect();
        assert_eq!(sets, [true, true, false, false, false, false]);
    }

    #[test]
    fn only_routines_have_bodies() {
        assert_eq!(
            texts("create table begin (atomic int); commit"),
            ["create table begin (atomic int)", "commit"]
        );
        assert_eq!(texts("begin atomic; end"), ["begin atomic", "end"]);
    }
}
