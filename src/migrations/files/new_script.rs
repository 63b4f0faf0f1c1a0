//! Creates a migration file with the next free version and a header that explains the rules.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use time::OffsetDateTime;
use time::macros::format_description;

use super::folder;
use super::script_name::{MAX_NAME_CHARS, ScriptName, is_word_character};
use crate::domain::script::Scope;
use crate::migrations::sql::directives::{NO_TRANSACTION, Transaction};

/// A migration file to create.
#[derive(Clone, Copy, Debug)]
pub struct NewScript<'a> {
    /// The set; decides the text of the header.
    pub scope: Scope,
    /// The folder of the set; created if it does not exist.
    pub dir: &'a Path,
    /// A subfolder, such as `products`.
    pub subfolder: Option<&'a str>,
    /// What the migration does, such as `add brand to products`.
    pub name: &'a str,
    /// Whether the file runs inside a transaction.
    pub transaction: Transaction,
}

/// Why no file was created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewScriptError {
    /// The name contains no valid character.
    #[error("the name '{0}' contains no letter or digit; describe what the migration does")]
    EmptyName(String),
    /// The name is longer than the history table allows. Holds its length.
    #[error("the name has {0} characters, the limit is {MAX_NAME_CHARS}")]
    LongName(usize),
    /// The name already has a version.
    #[error("'{0}' already has a version; give only the name, the version is chosen")]
    NameHasVersion(String),
    /// The subfolder is outside of the set or would be skipped when loading.
    #[error("invalid subfolder '{0}'; give a plain name such as products")]
    Subfolder(String),
    /// The set already contains the highest possible version.
    #[error("no version is free after {}", i64::MAX)]
    NoVersionLeft,
    /// Writing failed.
    #[error("cannot write {path}: {1}", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
}

impl NewScript<'_> {
    /// Creates the file and returns its path.
    ///
    /// The version is the highest in the set plus 1 or, if the highest is a time stamp of 14 digits,
    /// the current time in UTC. Concurrent calls get different versions.
    pub fn create(&self) -> Result<PathBuf, NewScriptError> {
        let name = cleaned(self.name)?;
        let folder = self.folder()?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| NewScriptError::Io(path, error)
        };
        fs::create_dir_all(&folder).map_err(failed(&folder))?;

        // O_EXCL alone does not protect a version that two names share. On a file system without
        // locks, `load` still reports the duplicate.
        let lock = File::open(self.dir).map_err(failed(self.dir))?;
        let _ = lock.lock();
        let newest = newest(self.dir).map_err(failed(self.dir))?;
        let version =
            next_version(newest, OffsetDateTime::now_utc()).ok_or(NewScriptError::NoVersionLeft)?;
        let path = folder.join(format!("V{version}__{name}.sql"));
        File::create_new(&path)
            .and_then(|mut file| file.write_all(self.header().as_bytes()))
            .map_err(failed(&path))?;
        Ok(path)
    }

    fn folder(&self) -> Result<PathBuf, NewScriptError> {
        let Some(subfolder) = self.subfolder else {
            return Ok(self.dir.to_owned());
        };
        let invalid = || NewScriptError::Subfolder(subfolder.to_owned());
        for component in Path::new(subfolder).components() {
            match component {
                Component::Normal(part) if !part.as_encoded_bytes().starts_with(b".") => {}
                _ => return Err(invalid()),
            }
        }
        let first = Path::new(subfolder).components().next().ok_or_else(invalid)?;
        if self.scope == Scope::Tenant && first.as_os_str().eq_ignore_ascii_case("shared") {
            return Err(invalid());
        }
        Ok(self.dir.join(subfolder))
    }

    fn header(&self) -> String {
        let title: String = self.name.split_whitespace().collect::<Vec<_>>().join(" ");
        let scope = match self.scope {
            Scope::Shared => {
                "-- Runs once, in public. Write names without a schema: search_path is public.\n"
            }
            Scope::Tenant => {
                "-- Runs once in the schema of every tenant. Write names without a schema:\n\
                 -- search_path is set to the tenant.\n"
            }
        };
        match self.transaction {
            Transaction::Inside => format!(
                "-- {title}\n{scope}\
                 -- All statements run in one transaction; leave out BEGIN and COMMIT.\n\n"
            ),
            Transaction::Outside => format!(
                "{NO_TRANSACTION}\n-- {title}\n{scope}\
                 -- Each statement is its own transaction: after a failure, the next run continues\n\
                 -- after the last statement that succeeded.\n\n"
            ),
        }
    }
}

/// Replaces each run of invalid characters by one underscore.
fn cleaned(name: &str) -> Result<String, NewScriptError> {
    let name = name.trim();
    let name = name.strip_suffix(".sql").unwrap_or(name);
    if ScriptName::parse(&format!("{name}.sql")).is_ok() {
        return Err(NewScriptError::NameHasVersion(name.to_owned()));
    }
    let cleaned = words_of(name).join("_");
    let length = cleaned.chars().count();
    if cleaned.is_empty() {
        Err(NewScriptError::EmptyName(name.to_owned()))
    } else if length > MAX_NAME_CHARS {
        Err(NewScriptError::LongName(length))
    } else {
        Ok(cleaned)
    }
}

/// Returns the parts of a text that may be in the name of a file.
pub(crate) fn words_of(text: &str) -> Vec<&str> {
    text.split(|c| c == '_' || !is_word_character(c)).filter(|word| !word.is_empty()).collect()
}

/// Returns the highest version in a set; files with invalid names do not count.
fn newest(dir: &Path) -> io::Result<Option<i64>> {
    let paths = folder::list(dir)?.scripts;
    let versions = paths.iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        ScriptName::parse(name).ok().map(|name| name.version)
    });
    Ok(versions.max())
}

fn next_version(newest: Option<i64>, now: OffsetDateTime) -> Option<i64> {
    let next = newest.unwrap_or(0).checked_add(1)?;
    let is_stamp =
        newest.is_some_and(|newest| (19_700_101_000_000..=99_991_231_235_959).contains(&newest));
    if !is_stamp {
        return Some(next);
    }
    let format = format_description!("[year][month][day][hour][minute][second]");
    let stamp = now.format(format).ok()?.parse().ok()?;
    // Never goes back, whatever the clock that made the newest one.
    Some(next.max(stamp))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::migrations::MigrationSet;

    fn new<'a>(dir: &'a Path, name: &'a str) -> NewScript<'a> {
        NewScript {
            scope: Scope::Tenant,
            dir,
            subfolder: None,
            name,
            transaction: Transaction::Inside,
        }
    }

    fn relative(dir: &Path, path: &Path) -> String {
        path.strip_prefix(dir).unwrap().display().to_string()
    }

    #[test]
    fn versions_continue_across_subfolders_and_the_files_load() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("tenant");
        let first = new(dir, "Add brand – to products").create().unwrap();
        assert_eq!(relative(dir, &first), "V1__Add_brand_to_products.sql");
        let second = NewScript {
            subfolder: Some("prices"),
            transaction: Transaction::Outside,
            ..new(dir, "giá-bán index.sql")
        };
        let second = second.create().unwrap();
        assert_eq!(relative(dir, &second), "prices/V2__giá_bán_index.sql");
        let third = new(dir, "x").create().unwrap();
        assert_eq!(relative(dir, &third), "V3__x.sql");
        let set = MigrationSet::load(dir, Scope::Tenant).unwrap();
        assert_eq!(set.scripts()[1].transaction, Transaction::Outside);
        assert_eq!(set.warnings().len(), 3, "headers alone are empty files");
    }

    #[test]
    fn time_stamps_never_go_back() {
        let now = datetime!(2026-11-23 10:15:00 UTC);
        assert_eq!(next_version(None, now), Some(1));
        assert_eq!(next_version(Some(41), now), Some(42));
        assert_eq!(next_version(Some(20_250_101_000_000), now), Some(20_261_123_101_500));
        assert_eq!(next_version(Some(20_261_123_101_500), now), Some(20_261_123_101_501));
        assert_eq!(next_version(Some(i64::MAX), now), None);
    }

    #[test]
    fn names_that_say_nothing_or_carry_a_version_are_invalid() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", " -- ", "..", "___"] {
            let error = new(dir.path(), name).create().unwrap_err();
            assert!(matches!(error, NewScriptError::EmptyName(_)), "{name}");
        }
        for name in ["V5__x", "V5__x.sql"] {
            let error = new(dir.path(), name).create().unwrap_err();
            assert!(matches!(error, NewScriptError::NameHasVersion(_)), "{name}");
        }
        let error = new(dir.path(), &"ế".repeat(256)).create().unwrap_err();
        assert!(matches!(error, NewScriptError::LongName(256)));
    }

    #[test]
    fn a_subfolder_stays_in_the_set() {
        let dir = tempfile::tempdir().unwrap();
        for subfolder in ["..", "/etc", "a/../../b", ".git", "", "shared", "a/.b"] {
            let script = NewScript { subfolder: Some(subfolder), ..new(dir.path(), "x") };
            assert!(matches!(script.create(), Err(NewScriptError::Subfolder(_))), "{subfolder}");
        }
    }

    #[test]
    fn concurrent_calls_get_different_versions() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|threads| {
            for number in 0..16 {
                let dir = dir.path();
                threads.spawn(move || new(dir, &format!("x{}", number % 2)).create().unwrap());
            }
        });
        let set = MigrationSet::load(dir.path(), Scope::Tenant).unwrap();
        assert_eq!(set.ids().len(), 16, "no version twice");
    }
}
