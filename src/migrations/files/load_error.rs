//! What can be wrong with the files of a set.

use std::fmt;
use std::path::PathBuf;

use super::script::MAX_FILE_BYTES;
use super::script_name::ScriptNameError;
use crate::domain::hint::Hint;
use crate::domain::script::{Place, Scope};
use crate::migrations::lint::Rule;
use crate::migrations::policy::forbidden::Refusal;
use crate::migrations::sql::directives::NO_TRANSACTION;

/// One thing that is wrong with one file or folder. `Display` begins with
/// `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file or folder.
    pub path: PathBuf,
    /// Where in the file, if it is about its text.
    pub place: Option<Place>,
    /// What it is.
    pub problem: Problem,
}

/// Everything that is wrong with a set, ordered by path and place. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

/// A kind of problem.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A `.sql` file that is not named like a migration.
    Name(ScriptNameError),
    /// A `.sql` file whose name is no UTF-8.
    NameNotUtf8,
    /// Another file has the same version.
    Duplicate {
        /// The version.
        version: i64,
        /// The other file.
        other: PathBuf,
    },
    /// A statement that no migration may hold.
    Refused(Refusal),
    /// A directive that does not exist.
    UnknownDirective(String),
    /// A directive behind the first line.
    MisplacedDirective,
    /// A rule of lint that is allowed and does not exist.
    UnknownRule(String),
    /// The file is outside of a transaction, and only a guess could cut it into statements.
    Unsplittable,
    /// The bytes are no UTF-8.
    NotUtf8,
    /// The text holds a NUL.
    NulByte,
    /// The file has this many bytes, more than [`MAX_FILE_BYTES`].
    TooLarge(u64),
    /// The operating system says why.
    Unreadable(String),
    /// A pipe, a socket or a device.
    NotAFile,
    /// The folder of a set does not exist.
    MissingFolder(Scope),
    /// A symbolic link that leads out of the set's folder.
    LinkLeavesSet,
    /// A folder `shared` in the tenant set.
    SharedFolderInTenantSet,
    /// The folder of one set lies in that of the other, or is the same.
    NestedSets {
        /// The outer folder.
        outer: PathBuf,
    },
}

impl LoadError {
    /// Returns what to do next, where more can be said than the error says.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        let hint = match &self.problem {
            Problem::Name(error) => match &error.suggestion {
                Some(suggestion) => return Some(format!("rename it to {suggestion}").into()),
                None => "name it V<version>__<name>.sql, or move it out of the folder",
            },
            Problem::Duplicate { .. } => {
                "give the one that is applied nowhere yet the next free version"
            }
            Problem::Refused(refusal) => refusal.hint(),
            Problem::UnknownDirective(_) => {
                let hint =
                    format!("the directives are: {NO_TRANSACTION} and: -- pricesync: allow <rule>");
                return Some(hint.into());
            }
            Problem::UnknownRule(word) => return Some(rule_hint(word)),
            Problem::MisplacedDirective => "make it the first line of the file",
            Problem::Unsplittable => {
                "put that statement into a file of its own, or write it plainer"
            }
            Problem::NotUtf8 => "save the file as UTF-8",
            Problem::TooLarge(_) => "split it, or load the rows after migrating",
            Problem::MissingFolder(scope) => {
                let key = key(*scope);
                let hint =
                    format!("create it, or set '{key}' under [migrations] in pricesync.toml");
                return Some(hint.into());
            }
            Problem::LinkLeavesSet => "copy the file into the set",
            Problem::SharedFolderInTenantSet => {
                "set 'shared' and 'tenant' under [migrations] in pricesync.toml to two separate folders"
            }
            Problem::NestedSets { .. } => {
                "set 'shared' and 'tenant' under [migrations] in pricesync.toml to folders beside each other"
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
        if let Some(place) = &self.place {
            write!(f, ":{}", place.line)?;
            if let Some(column) = place.column {
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
                write!(f, "version {version} is also that of {}", other.display())
            }
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::UnknownRule(word) => write!(f, "lint has no rule '{word}'"),
            Self::UnknownDirective(said) => write!(f, "unknown directive '{said}'"),
            Self::MisplacedDirective => {
                f.write_str("the directive 'no-transaction' counts on the first line only")
            }
            Self::Unsplittable => f.write_str(
                "cannot be cut into statements safely, because the parser does not know all of its grammar",
            ),
            Self::NotUtf8 => f.write_str("not UTF-8 from here on"),
            Self::NulByte => f.write_str("holds a NUL byte, which PostgreSQL cannot store"),
            Self::TooLarge(bytes) => write!(
                f,
                "has {bytes} bytes; a migration may have {MAX_FILE_BYTES}"
            ),
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Self::NotAFile => f.write_str("is named like a migration but is no regular file"),
            Self::MissingFolder(scope) => {
                write!(f, "the folder of the {} migrations does not exist", key(*scope))
            }
            Self::LinkLeavesSet => f.write_str("is a link that leads out of the set's folder"),
            Self::SharedFolderInTenantSet => {
                f.write_str("lies in a folder 'shared' of the tenant set, so every tenant would get it")
            }
            Self::NestedSets { outer } => write!(
                f,
                "lies in {}, the folder of the other set, whose files it would mix with",
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

/// Returns the nearest rule, or the command that lists them.
fn rule_hint(word: &str) -> Hint {
    let near = Rule::ALL
        .into_iter()
        .map(|rule| (strsim::jaro_winkler(rule.name(), word), rule))
        .filter(|(nearness, _)| *nearness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match near {
        Some((_, rule)) => format!("did you mean {rule}?").into(),
        None => Hint::command("list the rules", "lint --rules"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_file_and_the_hint_names_the_key() {
        let error = LoadError {
            path: PathBuf::from("migrations/tenant"),
            place: None,
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
