//! The parameters that are set, each with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::error::ConnInfoError;
use super::keyword::{KEYWORDS, Keyword, Treatment};

/// The origin of a parameter's value; `Display` names it for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The connection string.
    Text,
    /// A service file's section.
    Service(String),
    /// An environment variable.
    Environment(&'static str),
    /// A password file.
    PasswordFile(PathBuf),
    /// pricesync itself, through one of the `with_` methods.
    Caller,
    /// pricesync's or libpq's default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("connection string"),
            Self::Service(name) => write!(f, "service '{}'", name.escape_debug()),
            Self::Environment(variable) => f.write_str(variable),
            Self::PasswordFile(path) => write!(f, "{}", path.display()),
            Self::Caller => f.write_str("pricesync"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The value of a parameter and its origin.
#[derive(Clone)]
struct Parameter {
    value: String,
    origin: Origin,
}

/// Parameters by name. Has no `Debug`, because one of them is the password.
#[derive(Clone, Default)]
pub(super) struct Parameters(BTreeMap<&'static str, Parameter>);

impl Parameters {
    /// Sets a parameter and replaces an earlier value: in a connection string the last one counts.
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>, origin: Origin) {
        let value = value.into();
        self.0.insert(name, Parameter { value, origin });
    }

    /// Sets a parameter unless a source of higher precedence has. An empty value counts, as in libpq.
    pub(super) fn offer(&mut self, name: &'static str, value: impl Into<String>, origin: Origin) {
        if !self.0.contains_key(name) {
            self.set(name, value, origin);
        }
    }

    /// Returns a parameter's value, which may be empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|parameter| parameter.value.as_str())
    }

    /// Returns a parameter's value if it is not empty.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Returns the origin of a parameter, `Default` if it is not set.
    pub(super) fn origin(&self, name: &str) -> &Origin {
        self.0.get(name).map_or(&Origin::Default, |parameter| &parameter.origin)
    }

    /// Returns every parameter that has a value, in libpq's order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Keyword, &str, &Origin)> {
        KEYWORDS.iter().filter_map(|keyword| {
            let parameter = self.0.get(keyword.name)?;
            Some((keyword, parameter.value.as_str(), &parameter.origin))
        })
    }

    #[cfg(test)]
    pub(super) fn shown(&self, separator: &str) -> String {
        let pairs = self.iter().map(|(keyword, value, _)| format!("{}={value}", keyword.name));
        pairs.collect::<Vec<_>>().join(separator)
    }

    /// Returns the error for a value that is not accepted.
    pub(super) fn invalid(&self, name: &'static str, expected: &'static str) -> ConnInfoError {
        ConnInfoError::InvalidValue {
            parameter: name,
            value: self.get(name).unwrap_or_default().to_owned(),
            expected,
            origin: self.origin(name).to_string(),
        }
    }

    /// Returns the error for a parameter that is not supported.
    pub(super) fn unsupported(&self, name: &'static str, why: &'static str) -> ConnInfoError {
        ConnInfoError::Unsupported { parameter: name, why, origin: self.origin(name).to_string() }
    }

    /// Rejects parameters that are not supported and cannot be ignored safely.
    pub(super) fn reject_unsupported(&self) -> Result<(), ConnInfoError> {
        for (keyword, value, _) in self.iter() {
            if let Treatment::Refused { harmless, why } = keyword.treatment
                && !harmless.contains(&value)
            {
                return Err(self.unsupported(keyword.name, why));
            }
        }
        Ok(())
    }

    /// Returns the choice with this name, or the default where the parameter is not set.
    ///
    /// An empty value is an error, as in libpq.
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

    /// Returns a parameter as a whole number; white space around it is allowed, as in libpq.
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
