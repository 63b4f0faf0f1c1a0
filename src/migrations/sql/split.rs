//! Splits SQL into statements.

use std::ops::Range;

use super::keywords::Keywords;
use super::lexer::{KEPT_TOKENS, Token, TokenKind};

/// One statement of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its bytes in the text of the file, without the semicolon.
    pub range: Range<usize>,
    index: Option<Box<str>>,
    enum_value: Option<Box<str>>,
    only_defines: bool,
    runs_code: bool,
    sets: bool,
}

impl Statement {
    /// Returns the name in `pg_class` of the index that `CREATE INDEX CONCURRENTLY` builds; `None`
    /// for other statements and where the server chooses the name.
    pub fn concurrent_index(&self) -> Option<&str> {
        self.index.as_deref()
    }

    /// Returns the label that `ALTER TYPE ... ADD VALUE` adds, as it is written between its quotes;
    /// `None` for other statements.
    pub fn enum_value(&self) -> Option<&str> {
        self.enum_value.as_deref()
    }

    /// Returns whether this only defines relations, types or comments, so that it leaves no state
    /// in its session. `false` in case of doubt.
    pub const fn only_defines(&self) -> bool {
        self.only_defines
    }

    /// Returns whether this is `DO` or `CALL`, whose code is not read.
    pub const fn runs_code(&self) -> bool {
        self.runs_code
    }

    /// Returns whether this is a `SET` whose effect lasts for the session.
    pub const fn sets_for_session(&self) -> bool {
        self.sets
    }
}

/// Collects tokens until a statement ends, by psql's rule: at a semicolon outside of parentheses
/// and of a `BEGIN ATOMIC` body.
#[derive(Default)]
pub(crate) struct Splitter {
    tokens: Vec<Token>,
    count: usize,
    end: usize,
    depth: usize,
    max_depth: usize,
    body: Option<Body>,
}

/// Inside `BEGIN ATOMIC ... END` (manual, `CREATE FUNCTION`).
#[derive(Default)]
struct Body {
    open_cases: usize,
}

impl Splitter {
    /// Adds the next token and returns whether it ends a statement that is not empty.
    pub(crate) fn push(&mut self, token: Token, text: &str) -> bool {
        if token.kind == TokenKind::Semicolon && self.depth == 0 && self.body.is_none() {
            return !self.tokens.is_empty();
        }
        match token.kind {
            TokenKind::Open => self.depth += 1,
            TokenKind::Close => self.depth = self.depth.saturating_sub(1),
            TokenKind::Word => self.follow_body(&text[token.start..token.end], text),
            _ => {}
        }
        self.max_depth = self.max_depth.max(self.depth);
        self.count += 1;
        self.end = token.end;
        if self.tokens.len() == KEPT_TOKENS {
            // The last slot always holds the newest token, for rules that look at the previous one.
            self.tokens.pop();
        }
        self.tokens.push(token);
        false
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns the number of tokens of the statement.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Returns the depth of its parentheses.
    pub(crate) const fn max_depth(&self) -> usize {
        self.max_depth
    }

    pub(crate) fn keywords<'a>(&'a self, text: &'a str) -> Keywords<'a> {
        Keywords::new(text, &self.tokens)
    }

    /// Returns the collected statement and starts the next one.
    pub(crate) fn finish(&mut self, text: &str) -> Statement {
        let keywords = self.keywords(text);
        let statement = Statement {
            range: self.tokens.first().map_or(self.end, |token| token.start)..self.end,
            index: keywords.concurrent_index().map(String::into_boxed_str),
            enum_value: keywords.enum_value().map(Box::from),
            only_defines: keywords.only_defines(),
            runs_code: keywords.is_any(0, &["do", "call"]),
            sets: keywords.is(0, "set")
                && !keywords.is_any(1, &["local", "transaction", "constraints"]),
        };
        let mut tokens = std::mem::take(&mut self.tokens);
        tokens.clear();
        *self = Self { tokens, ..Self::default() };
        statement
    }

    fn follow_body(&mut self, word: &str, text: &str) {
        let previous = self.tokens.last().copied();
        let after = |expected: &str| {
            previous.is_some_and(|token| {
                token.kind == TokenKind::Word
                    && text[token.start..token.end].eq_ignore_ascii_case(expected)
            })
        };
        let after_dot = previous.is_some_and(|token| &text[token.start..token.end] == ".");
        let reserved = |key: &str| word.eq_ignore_ascii_case(key) && !after("as") && !after_dot;
        let Some(body) = &mut self.body else {
            if self.depth == 0
                && word.eq_ignore_ascii_case("atomic")
                && after("begin")
                && self.keywords(text).creates_routine()
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
            } else if after("atomic")
                || previous.is_some_and(|token| token.kind == TokenKind::Semicolon)
            {
                self.body = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Lexer;
    use super::*;

    fn statements(text: &str) -> Vec<Statement> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        for token in Lexer::new(text).filter(|token| token.kind != TokenKind::LineComment) {
            if splitter.push(token, text) {
                found.push(splitter.finish(text));
            }
        }
        if !splitter.is_empty() {
            found.push(splitter.finish(text));
        }
        found
    }

    fn texts(text: &str) -> Vec<&str> {
        statements(text).into_iter().map(|statement| &text[statement.range]).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_parentheses() {
        assert_eq!(texts("a; b ;; -- c;\n d"), ["a", "b", "d"]);
        assert_eq!(
            texts("create rule r as on insert to t do (insert into u; insert into v); x"),
            ["create rule r as on insert to t do (insert into u; insert into v)", "x"]
        );
        assert_eq!(texts(" ; ; -- nothing\n"), Vec::<&str>::new());
    }

    #[test]
    fn a_body_ends_at_its_own_end() {
        let body = "create or replace function f(begin int) returns int begin atomic \
                    select case when true then 1 else 2 end; select 1 as end; select t.end from t; end";
        assert_eq!(texts(&format!("{body}; x")), [body, "x"]);
        let empty = "CREATE PROCEDURE p() BEGIN ATOMIC END";
        assert_eq!(texts(&format!("{empty}; commit")), [empty, "commit"]);
    }

    #[test]
    fn set_for_the_session_differs_from_set_local() {
        let text = "SET work_mem = '8MB'; set session work_mem to 1; SET LOCAL work_mem = 1; \
                    SET CONSTRAINTS ALL DEFERRED; SET TRANSACTION READ ONLY; UPDATE t SET a = 1";
        let sets: Vec<bool> = statements(text).iter().map(Statement::sets_for_session).collect();
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
