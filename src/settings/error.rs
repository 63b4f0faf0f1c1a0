//! Why settings are invalid.

use std::path::PathBuf;

use super::Origin;

/// Why the configuration is invalid; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file that was named cannot be read.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, std::io::Error),
    /// The file is not TOML; holds the line and the parser's message.
    #[error("{path}:{1}: not valid TOML: {2}", path = .0.display())]
    Syntax(PathBuf, usize, String),
    /// A key that does not exist; holds the line, the key and the most similar existing one.
    #[error("{path}:{1}: unknown key '{2}'{similar}", path = .0.display(),
        similar = .3.map_or_else(String::new, |it| format!("; did you mean '{it}'?")))]
    UnknownKey(PathBuf, usize, String, Option<&'static str>),
    /// An invalid value; holds its origin, key and text, and what is expected.
    #[error("{0}: {1} = '{2}' is invalid: expected {3}")]
    BadValue(Origin, &'static str, String, String),
    /// A `.env` file cannot be read; holds the reason.
    #[error("{path}: {1}", path = .0.display())]
    BadDotEnv(PathBuf, String),
    /// A file with a password can be read by other users.
    #[error("{path} holds a password and others may read it: chmod 600 {path}", path = .0.display())]
    OpenPassword(PathBuf),
}
