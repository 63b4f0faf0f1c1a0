//! `host=... user=... password='two words'` (manual section 34.1.1.1).

use std::iter::Peekable;
use std::str::Chars;

use super::error::ConnInfoError;
use super::keyword;
use super::parameters::{Origin, Parameters};

/// Parses `key=value` pairs. White space is allowed around `=`; values with spaces are single-quoted; a
/// backslash escapes the next character. The last value of a parameter counts.
pub(super) fn parse(text: &str, parameters: &mut Parameters) -> Result<(), ConnInfoError> {
    let mut reader = Reader { rest: text.chars().peekable(), position: 0 };
    let mut after_password = false;
    loop {
        reader.skip_space();
        if reader.rest.peek().is_none() {
            return Ok(());
        }
        let start = reader.position + 1;
        let name = reader.name();
        reader.skip_space();
        if reader.next() != Some('=') {
            // The message does not quote the name: it may be the second half of a password.
            return Err(ConnInfoError::KeyValueSyntax {
                what: "a parameter has no '='",
                position: start,
            });
        }
        reader.skip_space();
        let value = reader.value()?;
        let Some(keyword) = keyword::find(&name) else {
            return Err(if after_password {
                ConnInfoError::UnquotedPassword
            } else {
                keyword::unknown(name)
            });
        };
        after_password = matches!(keyword.name, "password" | "sslpassword");
        parameters.set(keyword.name, value, Origin::Text);
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    position: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        self.position += 1;
        self.rest.next()
    }

    fn skip_space(&mut self) {
        while self.rest.peek().is_some_and(char::is_ascii_whitespace) {
            self.next();
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(&c) = self.rest.peek() {
            if c == '=' || c.is_ascii_whitespace() {
                break;
            }
            name.push(c);
            self.next();
        }
        name
    }

    fn value(&mut self) -> Result<String, ConnInfoError> {
        let quoted = self.rest.peek() == Some(&'\'');
        let start = self.position + 1;
        if quoted {
            self.next();
        }
        let mut value = String::new();
        loop {
            match self.rest.peek() {
                None if quoted => {
                    return Err(ConnInfoError::KeyValueSyntax {
                        what: "a quoted value has no closing '",
                        position: start,
                    });
                }
                None => return Ok(value),
                Some('\'') if quoted => {
                    self.next();
                    return Ok(value);
                }
                Some(c) if !quoted && c.is_ascii_whitespace() => return Ok(value),
                Some('\\') => {
                    self.next();
                    value.extend(self.next());
                }
                Some(&c) => {
                    value.push(c);
                    self.next();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut parameters = Parameters::default();
        match parse(text, &mut parameters) {
            Ok(()) => parameters.shown("|"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn values_are_read_as_libpq_reads_them() {
        for (text, parameters) in [
            ("", ""),
            ("  host=h\tport = 1\n", "host=h|port=1"),
            ("user='two words' host=h", "user=two words|host=h"),
            (r"password=it\'s\ me", "password=it's me"),
            (r"password='a\'b\\c'", r"password=a'b\c"),
            ("user=a user=b", "user=b"),
            ("user='a'host=h", "user=a|host=h"),
            ("user= host=h", "user=host=h"),
            ("user='' host=h", "user=|host=h"),
            ("password=a'b", "password=a'b"),
        ] {
            assert_eq!(shown(text), parameters, "{text}");
        }
    }

    #[test]
    fn malformed_words_are_errors_that_quote_no_value() {
        for (text, message) in [
            (
                "password=hunter 2 host=h",
                "error: the connection string is malformed: a parameter has no '=' (character 17)",
            ),
            (
                "password=hunter 2=3",
                "error: an unknown parameter follows the password in the connection string",
            ),
            (
                "password='hunter2",
                "error: the connection string is malformed: a quoted value has no closing ' (character 10)",
            ),
            ("hots=h", "error: unknown connection parameter 'hots'"),
        ] {
            assert_eq!(shown(text), message, "{text}");
        }
    }
}
