//! Keywords and identifiers of one statement, by their position among its tokens.

use std::ops::Range;

use super::lexer::{Token, TokenKind};
use crate::domain::schema_name::MAX_IDENTIFIER_BYTES;

/// The tokens of one statement. An index past the end is not a keyword and has an empty text.
#[derive(Clone, Copy)]
pub(crate) struct Keywords<'a> {
    sql: &'a str,
    tokens: &'a [Token],
}

impl<'a> Keywords<'a> {
    pub(crate) const fn new(sql: &'a str, tokens: &'a [Token]) -> Self {
        Self { sql, tokens }
    }

    /// Returns the byte at which a token begins.
    pub(crate) fn offset(self, index: usize) -> Option<usize> {
        self.tokens.get(index).map(|token| token.start)
    }

    /// Returns the bytes of a token; empty past the end.
    pub(crate) fn range(self, index: usize) -> Range<usize> {
        self.tokens.get(index).map_or(0..0, |token| token.start..token.end)
    }

    /// Returns the tokens in a range.
    pub(crate) fn slice(self, range: std::ops::Range<usize>) -> Self {
        Self { sql: self.sql, tokens: &self.tokens[range] }
    }

    pub(crate) fn len(self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn kind(self, index: usize) -> Option<TokenKind> {
        self.tokens.get(index).map(|token| token.kind)
    }

    /// Returns a token as it is written.
    pub(crate) fn text(self, index: usize) -> &'a str {
        self.tokens.get(index).map_or("", |token| &self.sql[token.start..token.end])
    }

    /// Returns whether a token is this unquoted word, in any case.
    pub(crate) fn is(self, index: usize, word: &str) -> bool {
        self.kind(index) == Some(TokenKind::Word) && self.text(index).eq_ignore_ascii_case(word)
    }

    pub(crate) fn is_any(self, index: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(index, word))
    }

    pub(crate) fn starts_with(self, words: &[&str]) -> bool {
        let mut words = words.iter().enumerate();
        words.all(|(index, word)| self.is(index, word))
    }

    /// Returns the first words in upper case, such as `ALTER TABLE`.
    pub(crate) fn leading(self, count: usize) -> String {
        let words = (0..count.min(self.len())).map(|index| self.text(index).to_ascii_uppercase());
        words.collect::<Vec<_>>().join(" ")
    }

    /// Returns the indexes at which a word stands, inside parentheses too.
    pub(crate) fn positions(self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        (0..self.len()).filter(move |&index| self.is(index, word))
    }

    /// Returns an identifier as the server folds it: unquoted ones in lower case (ASCII letters
    /// only, in a UTF-8 database), quoted ones without their quotes, all truncated to 63 bytes.
    pub(crate) fn identifier(self, index: usize) -> Option<String> {
        let text = self.text(index);
        let mut name = match self.kind(index)? {
            TokenKind::Word => text.to_ascii_lowercase(),
            TokenKind::Quoted => match text.strip_prefix(['u', 'U']) {
                Some(escaped) => unescaped(unquoted(escaped.strip_prefix('&')?)?.as_str())?,
                None => unquoted(text)?,
            },
            _ => return None,
        };
        if name.len() > MAX_IDENTIFIER_BYTES {
            name.truncate(name.floor_char_boundary(MAX_IDENTIFIER_BYTES));
        }
        Some(name)
    }

    /// Returns whether the statement is `CREATE [OR REPLACE] FUNCTION` or `PROCEDURE`.
    pub(crate) fn creates_routine(self) -> bool {
        let or_replace = self.starts_with(&["create", "or", "replace"]);
        let kind = if or_replace { 3 } else { 1 };
        self.is(0, "create") && self.is_any(kind, &["function", "procedure"])
    }

    /// Returns whether the statement only defines relations, types or comments, so that it leaves
    /// no state in its session. `false` in case of doubt.
    pub(crate) fn only_defines(self) -> bool {
        let definitions: [&[&str]; 14] = [
            &["create", "table"],
            &["create", "index"],
            &["create", "unique", "index"],
            &["create", "sequence"],
            &["create", "type"],
            &["create", "view"],
            &["alter", "table"],
            &["alter", "index"],
            &["alter", "sequence"],
            &["alter", "type"],
            &["drop", "table"],
            &["drop", "index"],
            &["drop", "view"],
            &["comment", "on"],
        ];
        // CREATE TABLE AS runs a query, which may call functions.
        let runs_a_query = self.starts_with(&["create", "table"])
            && ["select", "execute", "values", "table", "with"]
                .iter()
                .any(|word| self.positions(word).any(|index| index > 1));
        // A temporary object outlives its transaction.
        let is_temporary =
            (0..self.len()).any(|index| self.identifier(index).as_deref() == Some("pg_temp"));
        definitions.iter().any(|words| self.starts_with(words)) && !runs_a_query && !is_temporary
    }

    /// Returns the name of the index that `CREATE INDEX CONCURRENTLY` builds, if it is given.
    pub(crate) fn concurrent_index(self) -> Option<String> {
        let index = if self.is(1, "unique") { 2 } else { 1 };
        if !(self.is(0, "create") && self.is(index, "index") && self.is(index + 1, "concurrently"))
        {
            return None;
        }
        let name = index + 2;
        if self.is(name, "if") && self.is(name + 1, "not") && self.is(name + 2, "exists") {
            return self.identifier(name + 3);
        }
        // ON is reserved, so it cannot be the name.
        if self.is(name, "on") {
            return None;
        }
        self.identifier(name)
    }

    /// Returns the label that `ALTER TYPE ... ADD VALUE [IF NOT EXISTS]` adds, without its quotes.
    pub(crate) fn enum_value(self) -> Option<&'a str> {
        if !self.starts_with(&["alter", "type"]) {
            return None;
        }
        let add = self.positions("add").find(|&add| self.is(add + 1, "value"))?;
        let label = (add + 2..self.len()).find(|&at| self.kind(at) == Some(TokenKind::Literal))?;
        self.text(label).split_once('\'')?.1.strip_suffix('\'')
    }

    /// Returns whether this is `REINDEX (CONCURRENTLY) TABLE t` or `REINDEX TABLE CONCURRENTLY t`.
    pub(crate) fn reindexes_concurrently(self) -> bool {
        self.is(0, "reindex")
            && (self.has_option("concurrently") || self.is(self.options() + 1, "concurrently"))
    }

    /// Returns whether the parenthesised options after the first word switch this one on.
    pub(crate) fn has_option(self, option: &str) -> bool {
        (1..self.options()).any(|index| {
            self.is(index, option)
                && !self.is_any(index + 1, &["false", "off"])
                && self.text(index + 1) != "0"
        })
    }

    /// Returns the index after the parenthesised options that follow the first word.
    pub(crate) fn options(self) -> usize {
        if self.kind(1) != Some(TokenKind::Open) {
            return 1;
        }
        (1..self.len())
            .find(|&index| self.kind(index) == Some(TokenKind::Close))
            .map_or(self.len(), |close| close + 1)
    }
}

fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\"\"", "\""))
}

/// Resolves `\XXXX`, `\+XXXXXX` and `\\` (manual section 4.1.2.3).
fn unescaped(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(escape) = rest.find('\\') {
        name.push_str(&rest[..escape]);
        rest = &rest[escape + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            name.push('\\');
            rest = after;
            continue;
        }
        let (digits, after) = match rest.strip_prefix('+') {
            Some(long) => (long.get(..6)?, long.get(6..)?),
            None => (rest.get(..4)?, rest.get(4..)?),
        };
        name.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Lexer;
    use super::*;

    fn read(text: &str) -> Keywords<'_> {
        let tokens = Lexer::new(text).filter(|token| token.kind != TokenKind::LineComment);
        Keywords::new(text, Vec::leak(tokens.collect()))
    }

    #[test]
    fn the_name_of_a_concurrent_index_is_the_one_in_the_catalog() {
        for (text, expected) in [
            ("create index concurrently Foo_Idx on t (a)", Some("foo_idx")),
            (
                "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"Foo \"\" Bar\" ON t (a)",
                Some("Foo \" Bar"),
            ),
            ("create index concurrently on t (a)", None),
            ("create index concurrently_idx on t (a)", None),
            ("create index i on t (a)", None),
            (
                "create /* x */ index -- y\n concurrently U&\"d\\0061t\\+000061\" on t (a)",
                Some("data"),
            ),
            ("create index concurrently GIÁ on t (a)", Some("giÁ")),
        ] {
            assert_eq!(read(text).concurrent_index().as_deref(), expected, "{text}");
        }
        let long = format!("create index concurrently {}ế on t (a)", "x".repeat(61));
        assert_eq!(read(&long).concurrent_index().as_deref(), Some("x".repeat(61).as_str()));
    }

    #[test]
    fn a_concurrent_reindex_is_known_in_both_spellings() {
        for (text, expected) in [
            ("reindex table concurrently t", true),
            ("reindex (verbose, concurrently) index i", true),
            ("reindex (concurrently false) index i", false),
            ("reindex index concurrently_i", false),
            ("reindex (verbose) schema concurrently s", true),
        ] {
            assert_eq!(read(text).reindexes_concurrently(), expected, "{text}");
        }
    }
}
