//! Cuts SQL into tokens as the server's scanner does.
//!
//! Forbidden statements are found by their tokens, so these follow the server's rules
//! (`src/backend/parser/scan.l`, manual section 4.1) also in invalid SQL: block comments nest, a
//! carriage return ends a line comment, characters beyond ASCII belong to words, `$` may stand
//! inside a word, and an `E''` string continues after a line end. Assumes
//! `standard_conforming_strings = on`.

/// The kind of a token, as far as splitting statements needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A keyword or an unquoted identifier.
    Word,
    /// An identifier in double quotes, `U&""` included.
    Quoted,
    /// A string of any kind, dollar-quoted ones included.
    Literal,
    /// A comment from `--` to the end of its line.
    LineComment,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `;`
    Semicolon,
    /// `\`, which begins a psql meta-command.
    Backslash,
    /// A number, an operator, a parameter, or an invalid character.
    Other,
}

/// Further tokens of a statement are dropped. Enough for the keywords of a `COPY` that lists as many
/// columns as a table can have.
pub(crate) const KEPT_TOKENS: usize = 8_192;

/// One token: its kind and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Iterates over the tokens of a text; skips white space and block comments.
pub(crate) struct Lexer<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// Where a comment, string or quoted identifier starts that the text does not close.
    pub(crate) unclosed: Option<usize>,
}

impl<'a> Lexer<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), offset: 0, unclosed: None }
    }

    /// Returns the tokens of a statement without its comments.
    pub(crate) fn statement(sql: &str) -> Vec<Token> {
        Lexer::new(sql)
            .filter(|token| token.kind != TokenKind::LineComment)
            .take(KEPT_TOKENS)
            .collect()
    }

    /// Skips the rest of the current line.
    pub(crate) fn skip_line(&mut self) {
        self.offset = self.until(self.offset, |b| b == b'\n');
    }

    /// Skips the data of a `COPY`, up to a line that holds only `\.`.
    pub(crate) fn skip_copy_data(&mut self) {
        loop {
            self.skip_line();
            self.offset += 1;
            if self.offset >= self.bytes.len() {
                self.offset = self.bytes.len();
                return;
            }
            let end = self.until(self.offset, |b| b == b'\n');
            if self.bytes[self.offset..end].trim_ascii_end() == b"\\." {
                self.offset = end;
                return;
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.offset + ahead).copied()
    }

    fn until(&self, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let from = from.min(self.bytes.len());
        self.bytes[from..]
            .iter()
            .position(|&b| wanted(b))
            .map_or(self.bytes.len(), |found| from + found)
    }

    /// Notes that the current token is not closed; returns its end.
    fn runs_out(&mut self) -> usize {
        self.unclosed = Some(self.offset);
        self.bytes.len()
    }

    fn block_comment(&mut self) -> usize {
        let mut depth = 0_usize;
        let mut at = self.offset;
        while at < self.bytes.len() {
            match &self.bytes[at..(at + 2).min(self.bytes.len())] {
                b"/*" => {
                    depth += 1;
                    at += 2;
                }
                b"*/" => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return at;
                    }
                }
                _ => at += 1,
            }
        }
        self.runs_out()
    }

    /// Returns the end of a quoted text whose content begins at `inside`; a doubled quote is content.
    fn quoted(&mut self, inside: usize, quote: u8) -> usize {
        let mut at = inside;
        loop {
            at = self.until(at, |b| b == quote);
            if at == self.bytes.len() {
                return self.runs_out();
            }
            if self.bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 2;
        }
    }

    fn escape_string(&mut self, inside: usize) -> usize {
        let mut at = inside;
        loop {
            at = self.until(at, |b| b == b'\'' || b == b'\\');
            match (self.bytes.get(at), self.bytes.get(at + 1)) {
                (None, _) => return self.runs_out(),
                (Some(b'\\'), _) | (_, Some(b'\'')) => at += 2,
                _ => match self.continued(at + 1) {
                    Some(reopened) => at = reopened,
                    None => return at + 1,
                },
            }
        }
    }

    /// Returns where a string that was closed before `from` continues: the server joins two strings
    /// that only white space with a line end, and line comments, separate.
    fn continued(&self, from: usize) -> Option<usize> {
        let mut at = from;
        let mut line_end = false;
        loop {
            match self.bytes.get(at)? {
                b'\n' | b'\r' => {
                    line_end = true;
                    at += 1;
                }
                &b if is_space(b) => at += 1,
                b'-' if line_end && self.bytes.get(at + 1) == Some(&b'-') => {
                    at = self.until(at, is_line_end);
                }
                b'\'' if line_end => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// Returns the end of a dollar-quoted string, or `None` where `$` does not open one.
    fn dollar_quoted(&mut self) -> Option<usize> {
        let first = self.peek(1)?;
        let tag_end = if is_word_start(first) {
            self.until(self.offset + 1, |b| !is_word(b) || b == b'$')
        } else {
            self.offset + 1
        };
        if self.bytes.get(tag_end) != Some(&b'$') {
            return None;
        }
        let delimiter = &self.bytes[self.offset..=tag_end];
        let mut at = tag_end + 1;
        loop {
            at = self.until(at, |b| b == b'$');
            if at == self.bytes.len() {
                return Some(self.runs_out());
            }
            if self.bytes[at..].starts_with(delimiter) {
                return Some(at + delimiter.len());
            }
            at += 1;
        }
    }

    fn word(&mut self) -> (TokenKind, usize) {
        match (self.bytes[self.offset], self.peek(1), self.peek(2)) {
            (b'e' | b'E', Some(b'\''), _) => {
                (TokenKind::Literal, self.escape_string(self.offset + 2))
            }
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', Some(b'\''), _) => {
                (TokenKind::Literal, self.quoted(self.offset + 2, b'\''))
            }
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => {
                (TokenKind::Literal, self.quoted(self.offset + 3, b'\''))
            }
            (b'u' | b'U', Some(b'&'), Some(b'"')) => {
                (TokenKind::Quoted, self.quoted(self.offset + 3, b'"'))
            }
            _ => (TokenKind::Word, self.until(self.offset, |b| !is_word(b))),
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let start = self.until(self.offset, |b| !is_space(b));
            self.offset = start;
            let next = self.peek(1);
            let (kind, end) = match *self.bytes.get(start)? {
                b'-' if next == Some(b'-') => {
                    (TokenKind::LineComment, self.until(start, is_line_end))
                }
                b'/' if next == Some(b'*') => {
                    self.offset = self.block_comment();
                    continue;
                }
                b'\'' => (TokenKind::Literal, self.quoted(start + 1, b'\'')),
                b'"' => (TokenKind::Quoted, self.quoted(start + 1, b'"')),
                b'$' => match self.dollar_quoted() {
                    Some(end) => (TokenKind::Literal, end),
                    None => (TokenKind::Other, self.until(start + 1, |b| !b.is_ascii_digit())),
                },
                b'(' => (TokenKind::Open, start + 1),
                b')' => (TokenKind::Close, start + 1),
                b';' => (TokenKind::Semicolon, start + 1),
                b'\\' => (TokenKind::Backslash, start + 1),
                b if b.is_ascii_digit() => {
                    (TokenKind::Other, self.until(start, |b| !b.is_ascii_digit()))
                }
                b if is_word_start(b) => self.word(),
                _ => (TokenKind::Other, start + 1),
            };
            self.offset = end;
            return Some(Token { kind, start, end });
        }
    }
}

const fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

const fn is_line_end(b: u8) -> bool {
    matches!(b, b'\n' | b'\r')
}

const fn is_word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || !b.is_ascii()
}

const fn is_word(b: u8) -> bool {
    is_word_start(b) || b.is_ascii_digit() || b == b'$'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> Vec<(TokenKind, &str)> {
        Lexer::new(text).map(|token| (token.kind, &text[token.start..token.end])).collect()
    }

    fn words_of(text: &str) -> Vec<&str> {
        cut(text)
            .into_iter()
            .filter(|(kind, _)| *kind == TokenKind::Word)
            .map(|(_, word)| word)
            .collect()
    }

    #[test]
    fn block_comments_nest_and_operators_end_where_a_comment_begins() {
        assert_eq!(words_of("a /* b /* c */ d */ e"), ["a", "e"]);
        assert_eq!(words_of("a*/*b*/c"), ["a", "c"]);
        assert_eq!(words_of("a@--b\nc"), ["a", "c"]);
    }

    #[test]
    fn a_line_comment_ends_at_a_carriage_return() {
        assert_eq!(words_of("-- a\rcommit"), ["commit"]);
    }

    #[test]
    fn backslashes_escape_only_in_escape_strings() {
        assert_eq!(words_of(r"'\' commit '"), ["commit"]);
        assert_eq!(words_of(r"E'\' commit '"), Vec::<&str>::new());
        assert_eq!(words_of(r"some'\' commit '"), ["some", "commit"]);
        assert_eq!(words_of("'it''s' a"), ["a"]);
    }

    #[test]
    fn an_escape_string_continues_after_a_line_end() {
        assert_eq!(words_of("E'a' -- x\n 'b'"), Vec::<&str>::new());
        assert_eq!(words_of("E'a'\n -- x\n '\\' commit '"), Vec::<&str>::new());
        assert_eq!(words_of("E'a' '\\' commit '"), ["commit"]);
    }

    #[test]
    fn dollar_quotes_need_their_tag_and_do_not_touch_a_word() {
        assert_eq!(words_of("$a$ x $$ y $b$ z $a$ after"), ["after"], "only the same tag closes");
        assert_eq!(words_of("a$$ b $$"), ["a$$", "b"]);
        assert_eq!(words_of("$1 a $2$ b"), ["a", "b"]);
        assert_eq!(words_of("$thẻ$ x $thẻ$ a"), ["a"]);
    }

    #[test]
    fn characters_beyond_ascii_belong_to_words() {
        assert_eq!(words_of("\u{a0}commit"), ["\u{a0}commit"]);
        assert_eq!(words_of("giá_bán"), ["giá_bán"]);
    }

    #[test]
    fn unicode_escapes_are_recognised_by_their_prefix() {
        assert_eq!(
            cut(r#"U&"d\0061t" u&'x' U & "y""#),
            [
                (TokenKind::Quoted, r#"U&"d\0061t""#),
                (TokenKind::Literal, "u&'x'"),
                (TokenKind::Word, "U"),
                (TokenKind::Other, "&"),
                (TokenKind::Quoted, "\"y\""),
            ]
        );
    }

    proptest! {
        #[test]
        fn tokens_are_ordered_and_end_at_characters(text in r#"[-a-zEU&ế$'"/*\\\n\r();0-9 ]{0,60}"#) {
            let mut last = 0;
            for token in Lexer::new(&text) {
                prop_assert!(token.start >= last && token.end > token.start);
                prop_assert!(text.get(token.start..token.end).is_some());
                last = token.end;
            }
        }
    }
}
