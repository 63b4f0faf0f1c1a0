//! The words that were given, each with the place it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::error::ConnInfoError;
use super::keyword::{KEYWORDS, Keyword, Treatment};

/// Where the value of a connection word came from; `Display` names it for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The URL or `key=value` text.
    Text,
    /// A service file's section.
    Service(String),
    /// An environment variable.
    Environment(&'static str),
    /// A password file.
    PasswordFile(PathBuf),
    /// pricesync itself, through one of the `with_` methods.
    Caller,
    /// Nobody named it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("connection text"),
            Self::Service(name) => write!(f, "service '{}'", name.escape_debug()),
            Self::Environment(variable) => f.write_str(variable),
            Self::PasswordFile(path) => write!(f, "{}", path.display()),
            Self::Caller => f.write_str("pricesync"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The value of a word and where it came from.
#[derive(Clone)]
struct Word {
    value: String,
    origin: Origin,
}

/// Words by name. It has no `Debug`, because one of them is the password.
#[derive(Clone, Default)]
pub(super) struct Words(BTreeMap<&'static str, Word>);

impl Words {
    /// Sets a word, over any earlier value: inside one text the last one counts.
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>, origin: Origin) {
        let value = value.into();
        self.0.insert(name, Word { value, origin });
    }

    /// Sets a word unless a source of higher precedence has: even an empty value counts, as in libpq.
    pub(super) fn offer(&mut self, name: &'static str, value: impl Into<String>, origin: Origin) {
        if !self.0.contains_key(name) {
            self.set(name, value, origin);
        }
    }

    /// Returns a word's value, which may be empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|word| word.value.as_str())
    }

    /// Returns a word's value if it is not empty.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Returns where a word came from; `Default` if nobody named it.
    pub(super) fn origin(&self, name: &str) -> &Origin {
        self.0
            .get(name)
            .map_or(&Origin::Default, |word| &word.origin)
    }

    /// Returns every word that has a value, in libpq's order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Keyword, &str, &Origin)> {
        KEYWORDS.iter().filter_map(|keyword| {
            let word = self.0.get(keyword.name)?;
            Some((keyword, word.value.as_str(), &word.origin))
        })
    }

    /// Returns the error for a value that its word does not accept.
    pub(super) fn invalid(&self, name: &'static str, expected: &'static str) -> ConnInfoError {
        ConnInfoError::InvalidValue {
            word: name,
            value: self.get(name).unwrap_or_default().to_owned(),
            expected,
            origin: self.origin(name).to_string(),
        }
    }

    /// Returns the error for a word that cannot be honoured.
    pub(super) fn unsupported(&self, name: &'static str, why: &'static str) -> ConnInfoError {
        ConnInfoError::Unsupported {
            word: name,
            why,
            origin: self.origin(name).to_string(),
        }
    }

    /// Refuses words whose promise would be broken if they were ignored.
    pub(super) fn refuse_broken_promises(&self) -> Result<(), ConnInfoError> {
        for (keyword, value, _) in self.iter() {
            if let Treatment::Refused { harmless, why } = keyword.treatment
                && !harmless.contains(&value)
            {
                return Err(self.unsupported(keyword.name, why));
            }
        }
        Ok(())
    }

    /// Returns the value that a word's text stands for, or the default if nobody named the word.
    ///
    /// An empty value is not the default but an error, as in libpq.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &'static str,
        default: T,
        choices: &[(&str, T)],
        expected: &'static str,
    ) -> Result<T, ConnInfoError> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        choices
            .iter()
            .find(|(text, _)| *text == value)
            .map(|(_, choice)| *choice)
            .ok_or_else(|| self.invalid(name, expected))
    }

    /// Returns a word as a whole number; surrounding white space is allowed, as in libpq.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<i32>, ConnInfoError> {
        self.get(name)
            .map(|value| {
                value
                    .trim_matches(|c: char| c.is_ascii_whitespace())
                    .parse()
                    .map_err(|_| self.invalid(name, "a whole number"))
            })
            .transpose()
    }
}
