//! What the words of a statement say.

use super::lexer::{Kind, Token};
use crate::domain::schema_name::MAX_IDENTIFIER_BYTES;

/// The words of one statement, to ask questions.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl<'a> Words<'a> {
    pub(crate) const fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Self { text, tokens }
    }

    pub(crate) fn start(self) -> usize {
        self.tokens.first().map_or(0, |token| token.start)
    }

    pub(crate) fn offset(self, place: usize) -> Option<usize> {
        self.tokens.get(place).map(|token| token.start)
    }

    pub(crate) fn len(self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn kind(self, place: usize) -> Option<Kind> {
        self.tokens.get(place).map(|token| token.kind)
    }

    pub(crate) fn raw(self, place: usize) -> &'a str {
        self.tokens
            .get(place)
            .map_or("", |token| &self.text[token.start..token.end])
    }

    /// Returns whether a bare word stands there; key words have no case.
    pub(crate) fn is(self, place: usize, word: &str) -> bool {
        self.kind(place) == Some(Kind::Word) && self.raw(place).eq_ignore_ascii_case(word)
    }

    pub(crate) fn is_any(self, place: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(place, word))
    }

    pub(crate) fn starts_with(self, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(place, word)| self.is(place, word))
    }

    /// Returns the places at which a word stands, within parentheses or not.
    pub(crate) fn places(self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        (0..self.len()).filter(move |&place| self.is(place, word))
    }

    /// Returns an identifier as the server folds it: bare ones in lower case (ASCII letters
    /// only, in a UTF-8 database), quoted ones without their quotes, all cut to 63 bytes.
    pub(crate) fn identifier(self, place: usize) -> Option<String> {
        let raw = self.raw(place);
        let mut name = match self.kind(place)? {
            Kind::Word => raw.to_ascii_lowercase(),
            Kind::Quoted => match raw.strip_prefix(['u', 'U']) {
                Some(escaped) => unescaped(unquoted(escaped.strip_prefix('&')?)?.as_str())?,
                None => unquoted(raw)?,
            },
            _ => return None,
        };
        if name.len() > MAX_IDENTIFIER_BYTES {
            name.truncate(name.floor_char_boundary(MAX_IDENTIFIER_BYTES));
        }
        Some(name)
    }

    /// Returns whether this begins `CREATE [OR REPLACE] FUNCTION` or `PROCEDURE`.
    pub(crate) fn creates_routine(self) -> bool {
        let kind = if self.starts_with(&["create", "or", "replace"]) {
            3
        } else {
            1
        };
        self.is(0, "create") && self.is_any(kind, &["function", "procedure"])
    }

    /// Returns whether the statement only defines relations, types or comments, by these words
    /// alone: nothing that could leave something behind in its session.
    pub(crate) fn only_defines(self) -> bool {
        let plain: [&[&str]; 14] = [
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
        // CREATE TABLE AS runs whatever stands behind it.
        let runs_a_query = self.starts_with(&["create", "table"])
            && ["select", "execute", "values", "table", "with"]
                .iter()
                .any(|word| self.places(word).any(|place| place > 1));
        // What is temporary stays behind in its session, whichever way that is said.
        let is_temporary =
            (0..self.len()).any(|place| self.identifier(place).as_deref() == Some("pg_temp"));
        plain.iter().any(|words| self.starts_with(words)) && !runs_a_query && !is_temporary
    }

    /// Returns the name of the index that a `CREATE INDEX CONCURRENTLY` makes, if it gives one.
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
        // ON is reserved: where it comes first, there is no name.
        if self.is(name, "on") {
            return None;
        }
        self.identifier(name)
    }

    /// `REINDEX (CONCURRENTLY) TABLE t` or `REINDEX TABLE CONCURRENTLY t`.
    pub(crate) fn reindexes_concurrently(self) -> bool {
        if !self.is(0, "reindex") {
            return false;
        }
        let options = self.options();
        let switched_on = (1..options).any(|place| {
            self.is(place, "concurrently")
                && !self.is_any(place + 1, &["false", "off"])
                && self.raw(place + 1) != "0"
        });
        switched_on || self.is(options + 1, "concurrently")
    }

    /// Returns the place behind the parenthesised options that follow the first word.
    pub(crate) fn options(self) -> usize {
        if self.kind(1) != Some(Kind::Open) {
            return 1;
        }
        (1..self.len())
            .find(|&place| self.kind(place) == Some(Kind::Close))
            .map_or(self.len(), |close| close + 1)
    }
}

fn unquoted(raw: &str) -> Option<String> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\"\"", "\""))
}

/// Resolves `\XXXX`, `\+XXXXXX` and `\\` (manual section 4.1.2.3).
fn unescaped(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(escape) = rest.find('\\') {
        name.push_str(&rest[..escape]);
        rest = &rest[escape + 1..];
        if let Some(behind) = rest.strip_prefix('\\') {
            name.push('\\');
            rest = behind;
            continue;
        }
        let (digits, behind) = match rest.strip_prefix('+') {
            Some(long) => (long.get(..6)?, long.get(6..)?),
            None => (rest.get(..4)?, rest.get(4..)?),
        };
        name.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = behind;
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Tokens;
    use super::*;

    fn read(text: &str) -> Words<'_> {
        let tokens = Tokens::new(text).filter(|token| token.kind != Kind::LineComment);
        Words::new(text, Vec::leak(tokens.collect()))
    }

    #[test]
    fn the_name_of_a_concurrent_index_is_the_one_in_the_catalog() {
        for (text, expected) in [
            (
                "create index concurrently Foo_Idx on t (a)",
                Some("foo_idx"),
            ),
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
        assert_eq!(
            read(&long).concurrent_index().as_deref(),
            Some("x".repeat(61).as_str())
        );
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
