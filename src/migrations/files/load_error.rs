//! Errors in the files of a set, with their hints.

use std::fmt;
use std::path::{Path, PathBuf};

use super::script_name::ScriptNameError;
use crate::domain::hint::Hint;
use crate::domain::script::{Location, Scope};
use crate::migrations::policy::refusal::Refusal;
use crate::migrations::sql::directives::NO_TRANSACTION;
use crate::migrations::sql::position::location_of_byte;

/// Larger files are rejected: 120 MB were tested, and a message to the server ends at 1 GB.
pub(crate) const MAX_FILE_BYTES: u64 = 256 << 20;

/// One error in one file or folder. `Display` begins with `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file or folder.
    pub path: PathBuf,
    /// The location in the file, if the error is in its text.
    pub location: Option<Location>,
    /// The error.
    pub problem: Problem,
}

/// All errors in a set, ordered by version and location. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

/// A kind of error in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The name of a `.sql` file is invalid.
    Name(ScriptNameError),
    /// The name of a `.sql` file is not UTF-8.
    NameNotUtf8,
    /// Another file has the same version.
    Duplicate {
        /// The version.
        version: i64,
        /// The other file.
        other: PathBuf,
    },
    /// A forbidden statement.
    Refused(Refusal),
    /// An unknown directive.
    UnknownDirective(String),
    /// `no-transaction` after the first line.
    MisplacedDirective,
    /// `allow` with an unknown lint rule.
    UnknownRule {
        /// The name as it is written.
        name: String,
        /// A rule with a similar name.
        similar: Option<&'static str>,
    },
    /// The file runs without a transaction, but the parser does not confirm its statements.
    Unsplittable,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text contains a NUL byte.
    NulByte,
    /// The file has this many bytes, more than `MAX_FILE_BYTES`.
    TooLarge(u64),
    /// The file cannot be read. Holds the operating system's error.
    Unreadable(String),
    /// A pipe, a socket or a device.
    NotAFile,
    /// The folder of a set does not exist.
    MissingFolder(Scope),
    /// A symbolic link to a file outside of the set's folder.
    LinkLeavesSet,
    /// A file in a folder `shared` of the tenant set.
    SharedFolderInTenantSet,
    /// The folder of one set is inside that of the other, or the same.
    NestedSets {
        /// The outer folder.
        outer: PathBuf,
    },
}

impl LoadError {
    /// Returns an error about a whole file or folder.
    pub(crate) fn new(path: &Path, problem: Problem) -> Self {
        Self { path: path.to_owned(), location: None, problem }
    }

    /// Returns an error at a byte of a file's text.
    pub(crate) fn at(path: &Path, text: &str, offset: usize, problem: Problem) -> Self {
        Self { location: Some(location_of_byte(text, offset)), ..Self::new(path, problem) }
    }

    /// Returns what to do next, unless the error already implies it.
    pub fn hint(&self) -> Option<Hint> {
        let hint = match &self.problem {
            Problem::Name(error) => match &error.suggestion {
                Some(suggestion) => return Some(format!("rename it to {suggestion}").into()),
                None => "name it V<version>__<name>.sql, or move it out of the folder",
            },
            Problem::Duplicate { .. } => {
                "give the file that is not applied yet the next free version"
            }
            Problem::Refused(refusal) => refusal.hint(),
            Problem::UnknownDirective(_) => {
                let hint = format!("use '{NO_TRANSACTION}' or '-- pricesync: allow <rule>'");
                return Some(hint.into());
            }
            Problem::UnknownRule { similar, .. } => {
                return Some(similar.map_or_else(
                    || Hint::command("list the rules", "lint --rules"),
                    |rule| format!("did you mean {rule}?").into(),
                ));
            }
            Problem::MisplacedDirective => "make it the first line of the file",
            Problem::Unsplittable => {
                "move the statement to a file of its own, or use simpler syntax"
            }
            Problem::NotUtf8 => "save the file as UTF-8",
            Problem::TooLarge(_) => "split the file, or load the rows after migrating",
            Problem::MissingFolder(scope) => {
                let key = key(*scope);
                let hint =
                    format!("create it, or set '{key}' under [migrations] in pricesync.toml");
                return Some(hint.into());
            }
            Problem::LinkLeavesSet => "copy the file into the set",
            Problem::SharedFolderInTenantSet | Problem::NestedSets { .. } => {
                "set 'shared' and 'tenant' under [migrations] in pricesync.toml to two separate folders"
            }
            Problem::NameNotUtf8
            | Problem::NulByte
            | Problem::Unreadable(_)
            | Problem::NotAFile => return None,
        };
        Some(hint.into())
    }
}

/// The key under `[migrations]` that names the folder of a set.
const fn key(scope: Scope) -> &'static str {
    match scope {
        Scope::Shared => "shared",
        Scope::Tenant => "tenant",
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(location) = &self.location {
            write!(f, ":{}", location.line)?;
            if let Some(column) = location.column {
                write!(f, ":{column}")?;
            }
        }
        write!(f, ": {}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "{error}"),
            Self::NameNotUtf8 => f.write_str("the file's name is not UTF-8"),
            Self::Duplicate { version, other } => {
                write!(f, "version {version} is also used by {}", other.display())
            }
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::UnknownRule { name, .. } => write!(f, "unknown lint rule '{name}'"),
            Self::UnknownDirective(directive) => write!(f, "unknown directive '{directive}'"),
            Self::MisplacedDirective => {
                f.write_str("the directive 'no-transaction' is only valid on the first line")
            }
            Self::Unsplittable => f.write_str(
                "cannot be split into statements safely: the parser does not know all of its grammar",
            ),
            Self::NotUtf8 => f.write_str("invalid UTF-8"),
            Self::NulByte => f.write_str("contains a NUL byte, which PostgreSQL cannot store"),
            Self::TooLarge(bytes) => write!(
                f,
                "file has {bytes} bytes, the limit is {MAX_FILE_BYTES}"
            ),
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::MissingFolder(scope) => {
                write!(f, "the folder of the {} migrations does not exist", key(*scope))
            }
            Self::LinkLeavesSet => f.write_str("symbolic link to a file outside of the set's folder"),
            Self::SharedFolderInTenantSet => {
                f.write_str("file in a folder 'shared' of the tenant set: it would run in every tenant")
            }
            Self::NestedSets { outer } => write!(
                f,
                "folder is inside {}, the folder of the other set",
                outer.display()
            ),
        }
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}
impl std::error::Error for LoadErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_key() {
        let error = LoadError {
            path: PathBuf::from("migrations/tenant"),
            location: None,
            problem: Problem::MissingFolder(Scope::Tenant),
        };
        assert_eq!(
            error.to_string(),
            "migrations/tenant: the folder of the tenant migrations does not exist"
        );
        assert_eq!(
            error.hint(),
            Some("create it, or set 'tenant' under [migrations] in pricesync.toml".into())
        );
    }
}
