//! A folder of migrations becomes an ordered set, or a list of everything that is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

pub use super::script::LoadError;
use super::script::Script;
use crate::domain::script::{Scope, ScriptId};

/// Migrations in the order of their versions, which are unique.
#[derive(Clone, Debug)]
pub struct MigrationSet {
    scripts: Vec<Script>,
    ids: Vec<ScriptId>,
    warnings: Vec<String>,
}

/// Everything that is wrong with a set, in the order of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

impl MigrationSet {
    /// Reads a folder and its subfolders. Hidden files and folders are passed over, and so
    /// is what does not end in `.sql`, whatever its case.
    ///
    /// # Errors
    ///
    /// Every file that is wrong, not only the first.
    pub fn load(folder: &Path, scope: Scope) -> Result<Self, LoadErrors> {
        if !folder.is_dir() {
            let key = match scope {
                Scope::Shared => "shared",
                Scope::Tenant => "tenant",
            };
            let why = format!(
                "is not a folder; set [migrations] {key} in pricesync.toml, or run pricesync init"
            );
            return Err(LoadErrors(vec![LoadError::new(folder, why)]));
        }
        let mut files = Vec::new();
        let mut errors = Vec::new();
        let root = folder
            .canonicalize()
            .unwrap_or_else(|_| folder.to_path_buf());
        walk(folder, &root, &mut files, &mut errors);
        files.sort();
        let mut texts = Vec::new();
        for path in files {
            match fs::read(&path) {
                Ok(bytes) => texts.push((path, bytes)),
                Err(error) => {
                    errors.push(LoadError::new(&path, format!("cannot be read: {error}")));
                }
            }
        }
        let texts = texts
            .iter()
            .map(|(path, bytes)| (path.as_path(), bytes.as_slice()));
        match (Self::from_texts(texts, scope), errors.is_empty()) {
            (Ok(set), true) => Ok(set),
            (Ok(_), false) => Err(LoadErrors(errors)),
            (Err(LoadErrors(more)), _) => {
                errors.extend(more);
                errors.sort_by(|a, b| (&a.path, a.place).cmp(&(&b.path, b.place)));
                Err(LoadErrors(errors))
            }
        }
    }

    /// Makes a set of files that are in memory, each with the path that it is called by.
    ///
    /// # Errors
    ///
    /// As [`MigrationSet::load`].
    pub fn from_texts<'a>(
        files: impl IntoIterator<Item = (&'a Path, &'a [u8])>,
        scope: Scope,
    ) -> Result<Self, LoadErrors> {
        let mut errors = Vec::new();
        let mut scripts: BTreeMap<i64, Script> = BTreeMap::new();
        let mut warnings = Vec::new();
        for (path, bytes) in files {
            let script = match Script::parse(path, bytes, scope) {
                Ok(script) => script,
                Err(found) => {
                    errors.extend(found);
                    continue;
                }
            };
            if script.statements.is_empty() && script.seal == super::script::Seal::Parsed {
                warnings.push(format!("{}: holds no statement", path.display()));
            }
            match scripts.get(&script.id.version) {
                Some(other) => errors.push(LoadError::new(
                    path,
                    format!(
                        "has the version {} of {}; give one of them the next free version",
                        script.id.version,
                        other.path.display()
                    ),
                )),
                None => drop(scripts.insert(script.id.version, script)),
            }
        }
        if !errors.is_empty() {
            return Err(LoadErrors(errors));
        }
        let scripts: Vec<Script> = scripts.into_values().collect();
        Ok(Self {
            ids: scripts.iter().map(|script| script.id.clone()).collect(),
            scripts,
            warnings,
        })
    }

    /// Returns the scripts, in the order of versions.
    #[must_use]
    pub fn scripts(&self) -> &[Script] {
        &self.scripts
    }

    /// Returns what identifies the scripts, in the same order.
    #[must_use]
    pub fn ids(&self) -> &[ScriptId] {
        &self.ids
    }

    /// Returns what is odd but no error.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Makes sure that neither folder lies in the other: files would be in both sets.
///
/// # Errors
///
/// The inner folder, with what to do.
pub fn check_apart(shared: &Path, tenant: &Path) -> Result<(), LoadErrors> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let (a, b) = (real(shared), real(tenant));
    let inner = if a.starts_with(&b) {
        shared
    } else if b.starts_with(&a) {
        tenant
    } else {
        return Ok(());
    };
    let why =
        "lies within the other set of migrations; [migrations] shared and tenant must be apart";
    Err(LoadErrors(vec![LoadError::new(inner, why)]))
}

fn walk(folder: &Path, root: &Path, files: &mut Vec<PathBuf>, errors: &mut Vec<LoadError>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            errors.push(LoadError::new(folder, format!("cannot be read: {error}")));
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if is_link && !path.canonicalize().is_ok_and(|real| real.starts_with(root)) {
            errors.push(LoadError::new(
                &path,
                "is a link out of the folder; copy the file instead",
            ));
        } else if path.is_dir() {
            // A link to a folder of the same set would bring every file twice.
            if !is_link {
                walk(&path, root, files, errors);
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("sql"))
        {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("below")).expect("writable");
            fs::write(path, text).expect("writable");
        }
        folder
    }

    fn load(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let folder = folder(files);
        MigrationSet::load(folder.path(), Scope::Tenant)
            .map(|set| set.ids().iter().map(ToString::to_string).collect())
            .map_err(|errors| {
                errors
                    .to_string()
                    .replace(&folder.path().display().to_string(), "DIR")
            })
    }

    #[test]
    fn subfolders_group_files_and_versions_order_them() {
        let set = load(&[
            ("prices/V10__b.sql", "select 1"),
            ("products/V2__a.sql", "select 1"),
            (".git/V1__x.sql", "commit"),
            ("README.md", ""),
        ]);
        assert_eq!(set, Ok(vec!["V2__a".to_owned(), "V10__b".to_owned()]));
        assert_eq!(load(&[]), Ok(vec![]));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        assert_eq!(
            load(&[("V1__a.sql", "commit"), ("b/V1_x.sql", ""), ("V2__c.SQL", "")]),
            Err("DIR/V1__a.sql:1:1: COMMIT is not a migration's business: pricesync runs the file in a transaction of its own; remove it\n\
                 DIR/V2__c.SQL: the ending is not '.sql'; a migration is named V<version>__<name>.sql, such as V12__add_brand.sql\n\
                 DIR/b/V1_x.sql: version and name are not parted by two underscores; a migration is named V<version>__<name>.sql, such as V12__add_brand.sql".to_owned())
        );
    }

    #[test]
    fn two_files_with_one_version_are_both_named() {
        assert_eq!(
            load(&[("a/V3__x.sql", ""), ("b/U3__y.sql", "")]),
            Err("DIR/b/U3__y.sql: has the version 3 of DIR/a/V3__x.sql; give one of them the next free version".to_owned())
        );
    }

    #[test]
    fn a_missing_folder_names_its_key() {
        let error = MigrationSet::load(Path::new("nowhere"), Scope::Shared)
            .expect_err("missing")
            .to_string();
        assert_eq!(
            error,
            "nowhere: is not a folder; set [migrations] shared in pricesync.toml, or run pricesync init"
        );
    }

    #[test]
    fn the_sets_may_not_lie_in_each_other() {
        let folder = folder(&[("migrations/tenant/V1__x.sql", "")]);
        let (outer, inner) = (
            folder.path().join("migrations"),
            folder.path().join("migrations/tenant"),
        );
        assert!(check_apart(&outer, &inner).is_err());
        assert!(check_apart(&inner, &inner).is_err());
        assert!(check_apart(&inner, &folder.path().join("shared")).is_ok());
    }
}
