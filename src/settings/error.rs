//! Why settings are invalid.

use std::fmt;
use std::path::PathBuf;

use super::Origin;

/// Why the configuration is invalid; nothing was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file that was named cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// The file is not TOML; holds the line and the parser's message.
    Syntax(PathBuf, usize, String),
    /// A key that does not exist; holds the line, the key and the most similar existing one.
    UnknownKey(PathBuf, usize, String, Option<&'static str>),
    /// An invalid value; holds its origin, key and text, and what is expected.
    BadValue(Origin, &'static str, String, String),
    /// A `.env` file cannot be read; holds the reason.
    BadDotEnv(PathBuf, String),
    /// A file with a password can be read by other users.
    OpenPassword(PathBuf),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Syntax(path, line, why) => {
                write!(f, "{}:{line}: not valid TOML: {why}", path.display())
            }
            Self::UnknownKey(path, line, key, nearest) => {
                write!(f, "{}:{line}: unknown key '{key}'", path.display())?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean '{nearest}'?"),
                    None => Ok(()),
                }
            }
            Self::BadValue(origin, key, value, wanted) => {
                write!(f, "{origin}: {key} = '{value}' is invalid: expected {wanted}")
            }
            Self::BadDotEnv(path, why) => write!(f, "{}: {why}", path.display()),
            Self::OpenPassword(path) => write!(
                f,
                "{} holds a password and others may read it: chmod 600 {}",
                path.display(),
                path.display()
            ),
        }
    }
}

impl std::error::Error for SettingsError {}
