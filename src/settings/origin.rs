//! The origin of a value.

use std::fmt;
use std::path::PathBuf;

/// The origin of a value; later ones have higher precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The default of the key.
    Default,
    /// A configuration file, and the line in it.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(&'static str),
    /// A variable that only a `.env` file sets: the file and the name.
    DotEnv(PathBuf, &'static str),
    /// A flag of the command line.
    Flag(&'static str),
}

impl Origin {
    pub(super) fn precedence(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(..) => 1,
            Self::Environment(_) | Self::DotEnv(..) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::DotEnv(path, name) => write!(f, "${name} in {}", path.display()),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value as text, with its origin.
#[derive(Clone)]
pub struct Effective {
    /// `section.name`.
    pub key: &'static str,
    /// The text; `None` where the key has no value at all.
    pub value: Option<String>,
    /// Where the value comes from.
    pub origin: Origin,
}

/// Returns the value of an environment variable.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;
