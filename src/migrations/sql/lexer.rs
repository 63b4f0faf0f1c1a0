//! SQL text cut into tokens as the server's own scanner cuts it.
//!
//! What a file may not do is decided on these tokens, so they follow the server's rules
//! (`src/backend/parser/scan.l`, manual section 4.1) also where a file is not valid SQL:
//! block comments nest, a line comment ends at a carriage return too, every character
//! beyond ASCII belongs to a word, `$` may stand inside a word, and an `E''` string goes on
//! behind a line end. `standard_conforming_strings` is taken to be on.

/// What a token is, as far as cutting statements needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A key word or a bare identifier.
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
    /// `\`, which begins a command of psql and is no SQL.
    Backslash,
    /// A number, an operator, a parameter, or a character that means nothing.
    Other,
}

/// One token: its kind, and the bytes that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The tokens of a text, without white space and block comments.
pub(crate) struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    /// Goes on behind the end of the current line.
    pub(crate) fn skip_line(&mut self) {
        self.at = self.until(self.at, |b| b == b'\n');
    }

    /// Goes on behind the next line that holds only `\.`, which ends the data of a `COPY`.
    pub(crate) fn skip_copy_data(&mut self) {
        loop {
            self.skip_line();
            self.at += 1;
            if self.at >= self.bytes.len() {
                self.at = self.bytes.len();
                return;
            }
            let end = self.until(self.at, |b| b == b'\n');
            if self.bytes[self.at..end].trim_ascii_end() == b"\\." {
                self.at = end;
                return;
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn until(&self, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let from = from.min(self.bytes.len());
        self.bytes[from..]
            .iter()
            .position(|&b| wanted(b))
            .map_or(self.bytes.len(), |found| from + found)
    }

    fn block_comment(&self) -> usize {
        let mut depth = 0_usize;
        let mut at = self.at;
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
        at
    }

    /// Returns the end of a text that begins behind its opening `quote`; a doubled one stays inside.
    fn quoted(&self, inside: usize, quote: u8) -> usize {
        let mut at = inside;
        loop {
            at = self.until(at, |b| b == quote);
            if self.bytes.get(at + 1) != Some(&quote) {
                return (at + 1).min(self.bytes.len());
            }
            at += 2;
        }
    }

    fn escape_string(&self, inside: usize) -> usize {
        let mut at = inside;
        loop {
            at = self.until(at, |b| b == b'\'' || b == b'\\');
            match (self.bytes.get(at), self.bytes.get(at + 1)) {
                (None, _) => return self.bytes.len(),
                (Some(b'\\'), _) | (_, Some(b'\'')) => at += 2,
                _ => match self.continued(at + 1) {
                    Some(reopened) => at = reopened,
                    None => return at + 1,
                },
            }
        }
    }

    /// Returns where a string goes on that was closed before `from`: two strings with
    /// nothing but white space and line comments between them, a line end among it, are one.
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

    /// Returns the end of a dollar-quoted string, or `None` where `$` opens none.
    fn dollar_quoted(&self) -> Option<usize> {
        let first = self.peek(1)?;
        let tag_end = if is_word_start(first) {
            self.until(self.at + 1, |b| !is_word(b) || b == b'$')
        } else {
            self.at + 1
        };
        if self.bytes.get(tag_end) != Some(&b'$') {
            return None;
        }
        let delimiter = &self.bytes[self.at..=tag_end];
        let mut at = tag_end + 1;
        loop {
            at = self.until(at, |b| b == b'$');
            if at == self.bytes.len() {
                return Some(at);
            }
            if self.bytes[at..].starts_with(delimiter) {
                return Some(at + delimiter.len());
            }
            at += 1;
        }
    }

    fn word(&self) -> (Kind, usize) {
        match (self.bytes[self.at], self.peek(1), self.peek(2)) {
            (b'e' | b'E', Some(b'\''), _) => (Kind::Literal, self.escape_string(self.at + 2)),
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', Some(b'\''), _) => {
                (Kind::Literal, self.quoted(self.at + 2, b'\''))
            }
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => {
                (Kind::Literal, self.quoted(self.at + 3, b'\''))
            }
            (b'u' | b'U', Some(b'&'), Some(b'"')) => (Kind::Quoted, self.quoted(self.at + 3, b'"')),
            _ => (Kind::Word, self.until(self.at, |b| !is_word(b))),
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let start = self.until(self.at, |b| !is_space(b));
            self.at = start;
            let next = self.peek(1);
            let (kind, end) = match *self.bytes.get(start)? {
                b'-' if next == Some(b'-') => (Kind::LineComment, self.until(start, is_line_end)),
                b'/' if next == Some(b'*') => {
                    self.at = self.block_comment();
                    continue;
                }
                b'\'' => (Kind::Literal, self.quoted(start + 1, b'\'')),
                b'"' => (Kind::Quoted, self.quoted(start + 1, b'"')),
                b'$' => match self.dollar_quoted() {
                    Some(end) => (Kind::Literal, end),
                    None => (Kind::Other, self.until(start + 1, |b| !b.is_ascii_digit())),
                },
                b'(' => (Kind::Open, start + 1),
                b')' => (Kind::Close, start + 1),
                b';' => (Kind::Semicolon, start + 1),
                b'\\' => (Kind::Backslash, start + 1),
                b if b.is_ascii_digit() => {
                    (Kind::Other, self.until(start, |b| !b.is_ascii_digit()))
                }
                b if is_word_start(b) => self.word(),
                _ => (Kind::Other, start + 1),
            };
            self.at = end;
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

    fn cut(text: &str) -> Vec<(Kind, &str)> {
        Tokens::new(text)
            .map(|token| (token.kind, &text[token.start..token.end]))
            .collect()
    }

    fn words(text: &str) -> Vec<&str> {
        cut(text)
            .into_iter()
            .filter(|(kind, _)| *kind == Kind::Word)
            .map(|(_, word)| word)
            .collect()
    }

    #[test]
    fn block_comments_nest_and_operators_end_where_a_comment_begins() {
        assert_eq!(words("a /* b /* c */ d */ e"), ["a", "e"]);
        assert_eq!(words("a*/*b*/c"), ["a", "c"]);
        assert_eq!(words("a@--b\nc"), ["a", "c"]);
    }

    #[test]
    fn a_line_comment_ends_at_a_carriage_return_as_on_the_server() {
        assert_eq!(words("-- a\rcommit"), ["commit"]);
    }

    #[test]
    fn backslashes_escape_only_in_escape_strings() {
        assert_eq!(words(r"'\' commit '"), ["commit"]);
        assert_eq!(words(r"E'\' commit '"), Vec::<&str>::new());
        assert_eq!(words(r"some'\' commit '"), ["some", "commit"]);
        assert_eq!(words("'it''s' a"), ["a"]);
    }

    #[test]
    fn an_escape_string_goes_on_behind_a_line_end_as_an_escape_string() {
        assert_eq!(words("E'a' -- x\n 'b'"), Vec::<&str>::new());
        assert_eq!(words("E'a'\n -- x\n '\\' commit '"), Vec::<&str>::new());
        assert_eq!(words("E'a' '\\' commit '"), ["commit"]);
    }

    #[test]
    fn dollar_quotes_need_their_own_tag_and_may_not_touch_a_word() {
        assert_eq!(
            words("$a$ x $$ y $b$ z $a$ after"),
            ["after"],
            "only the same tag closes"
        );
        assert_eq!(words("a$$ b $$"), ["a$$", "b"]);
        assert_eq!(words("$1 a $2$ b"), ["a", "b"]);
        assert_eq!(words("$thẻ$ x $thẻ$ a"), ["a"]);
    }

    #[test]
    fn characters_beyond_ascii_belong_to_words_also_the_ones_that_look_like_spaces() {
        assert_eq!(words("\u{a0}commit"), ["\u{a0}commit"]);
        assert_eq!(words("giá_bán"), ["giá_bán"]);
    }

    #[test]
    fn unicode_escapes_are_recognised_by_their_prefix() {
        assert_eq!(
            cut(r#"U&"d\0061t" u&'x' U & "y""#),
            [
                (Kind::Quoted, r#"U&"d\0061t""#),
                (Kind::Literal, "u&'x'"),
                (Kind::Word, "U"),
                (Kind::Other, "&"),
                (Kind::Quoted, "\"y\""),
            ]
        );
    }

    proptest! {
        #[test]
        fn every_text_is_cut_in_order_and_at_characters(text in r#"[-a-zEU&ế$'"/*\\\n\r();0-9 ]{0,60}"#) {
            let mut last = 0;
            for token in Tokens::new(&text) {
                prop_assert!(token.start >= last && token.end > token.start);
                prop_assert!(text.get(token.start..token.end).is_some());
                last = token.end;
            }
        }
    }
}
