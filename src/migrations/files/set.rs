//! Loads a folder of migrations as an ordered set.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::folder;
use super::load_error::{LoadError, LoadErrors, Problem};
use super::script::Script;
use super::script_name::ScriptName;
use crate::domain::script::{Scope, ScriptId};

/// The migrations of one scope, ordered by version. Cloning shares them.
#[derive(Clone, Debug)]
pub struct MigrationSet {
    scope: Scope,
    dir: Arc<Path>,
    scripts: Arc<[Script]>,
    ids: Arc<[ScriptId]>,
    warnings: Arc<[Warning]>,
}

/// A file that deserves a warning but does not stop a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub path: PathBuf,
    /// What is unusual about it.
    pub kind: WarningKind,
}

/// A kind of [`Warning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WarningKind {
    /// It contains no statement and will still be recorded as applied.
    Empty,
    /// It is named like a migration but does not end in `.sql`, so it is ignored.
    Ignored,
}

impl MigrationSet {
    /// Reads all migrations below a folder; an empty folder is an empty set.
    ///
    /// # Errors
    ///
    /// All errors of all files, ordered by version.
    pub fn load(dir: &Path, scope: Scope) -> Result<Self, LoadErrors> {
        let missing = |problem| LoadErrors(vec![LoadError::new(dir, problem)]);
        if !dir.is_dir() {
            return Err(missing(Problem::MissingFolder(scope)));
        }
        let listing =
            folder::list(dir).map_err(|error| missing(Problem::Unreadable(error.to_string())))?;
        let mut errors = listing.errors;
        let mut files = Vec::with_capacity(listing.scripts.len());
        for path in listing.scripts {
            if scope == Scope::Tenant && in_shared_folder(&path, dir) {
                errors.push(LoadError::new(&path, Problem::SharedFolderInTenantSet));
            }
            match folder::read(&path) {
                Ok(bytes) => files.push((path, bytes)),
                Err(problem) => errors.push(LoadError::new(&path, problem)),
            }
        }
        Self::assemble(dir, scope, files, listing.ignored, errors)
    }

    /// Builds a set from embedded files, given as file name and text.
    pub fn embedded(scope: Scope, files: &[(&str, &str)]) -> Result<Self, LoadErrors> {
        let files =
            files.iter().map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()));
        Self::assemble(Path::new(""), scope, files.collect(), Vec::new(), Vec::new())
    }

    fn assemble(
        dir: &Path,
        scope: Scope,
        files: Vec<(PathBuf, Vec<u8>)>,
        ignored: Vec<PathBuf>,
        mut errors: Vec<LoadError>,
    ) -> Result<Self, LoadErrors> {
        let paths: Vec<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
        errors.extend(duplicates(&paths));
        let mut scripts = Vec::with_capacity(files.len());
        let read = |(path, bytes): (PathBuf, _)| Script::read(&path, bytes, scope);
        let read: Vec<_> = files.into_par_iter().map(read).collect();
        for script in read {
            match script {
                Ok(script) => scripts.push(script),
                Err(found) => errors.extend(found),
            }
        }
        if !errors.is_empty() {
            // A stable sort keeps the errors of a file in the order of its lines.
            errors.sort_by(|a, b| in_order(&a.path, &b.path));
            return Err(LoadErrors(errors));
        }
        scripts.sort_by_key(|script| script.id.version);
        let empty = scripts.iter().filter(|script| script.statements.is_empty());
        let mut warnings: Vec<_> = empty
            .map(|script| (script.path.clone(), WarningKind::Empty))
            .chain(ignored.into_iter().map(|path| (path, WarningKind::Ignored)))
            .map(|(path, kind)| Warning { path, kind })
            .collect();
        warnings.sort_by(|a, b| in_order(&a.path, &b.path));
        Ok(Self {
            scope,
            dir: dir.into(),
            ids: scripts.iter().map(|script| script.id.clone()).collect(),
            scripts: scripts.into(),
            warnings: warnings.into(),
        })
    }

    /// Returns whether this is the shared or the tenant set.
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the folder as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the migrations in the order of their versions.
    pub fn scripts(&self) -> &[Script] {
        &self.scripts
    }

    /// Returns the ids of the migrations, at the same positions as [`MigrationSet::scripts`].
    pub fn ids(&self) -> &[ScriptId] {
        &self.ids
    }

    /// Returns the warnings, ordered by version.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// Checks that neither folder is inside the other, whose files would run in the wrong schemas.
///
/// Compares folders that do not exist by name.
pub fn check_apart(shared: &Path, tenant: &Path) -> Result<(), LoadError> {
    let resolve = |dir: &Path| {
        dir.canonicalize().or_else(|_| std::path::absolute(dir)).unwrap_or_else(|_| dir.to_owned())
    };
    let (real_shared, real_tenant) = (resolve(shared), resolve(tenant));
    let nested = |inner: &Path, outer: &Path| {
        let outer = outer.to_owned();
        Err(LoadError::new(inner, Problem::NestedSets { outer }))
    };
    if real_tenant.starts_with(&real_shared) {
        nested(tenant, shared)
    } else if real_shared.starts_with(&real_tenant) {
        nested(shared, tenant)
    } else {
        Ok(())
    }
}

fn in_shared_folder(path: &Path, dir: &Path) -> bool {
    path.strip_prefix(dir)
        .ok()
        .filter(|relative| relative.components().count() > 1)
        .and_then(|relative| relative.components().next())
        .is_some_and(|first| first.as_os_str().eq_ignore_ascii_case("shared"))
}

/// Compares files by the number after the first character of their names, even of invalid ones such
/// as `v3_x.sql`, then by path. Files without a number come last.
fn in_order(a: &Path, b: &Path) -> Ordering {
    let number = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let digits: String = name.chars().skip(1).take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(i64::MAX)
    };
    (number(a), a).cmp(&(number(b), b))
}

fn duplicates(paths: &[PathBuf]) -> Vec<LoadError> {
    let mut first_of = BTreeMap::new();
    let mut errors = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Ok(ScriptName { version, .. }) = ScriptName::parse(&name) else {
            continue;
        };
        if let Some(first) = first_of.get(&version) {
            let other = PathBuf::clone(first);
            errors.push(LoadError::new(path, Problem::Duplicate { version, other }));
        } else {
            first_of.insert(version, path.clone());
        }
    }
    errors
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.kind {
            WarningKind::Empty => {
                write!(f, "{path}: contains no statement and will be recorded as applied")
            }
            WarningKind::Ignored => {
                write!(f, "{path}: ignored, because its name does not end in .sql")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn errors(dir: &Path, scope: Scope) -> Vec<String> {
        let LoadErrors(errors) = MigrationSet::load(dir, scope).unwrap_err();
        let root = format!("{}/", dir.display());
        errors.iter().map(|error| error.to_string().replace(&root, "")).collect()
    }

    #[test]
    fn files_of_all_subfolders_are_ordered_by_version() {
        let dir = folder(&[
            ("products/V10__c.sql", "select 1"),
            ("V9__b.sql", "select 1"),
            ("prices/deep/U2__a.sql", "select 1"),
            (".git/V1__hidden.sql", "commit"),
            (".V3__hidden.sql", "commit"),
            ("README.md", "about"),
        ]);
        let set = MigrationSet::load(dir.path(), Scope::Tenant).unwrap();
        let ids: Vec<_> = set.ids().iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["U2__a", "V9__b", "V10__c"]);
        assert_eq!(set.scripts()[2].path, dir.path().join("products/V10__c.sql"));
        assert_eq!(set.warnings(), []);
    }

    #[test]
    fn every_error_is_reported_in_the_order_of_versions() {
        let dir = folder(&[
            ("b/V1__one.sql", "commit;\nreset all"),
            ("a/V01__eins.sql", "select 1"),
            ("U1__uno.sql", "select 1"),
            ("z/v3__lower.sql", "select 1"),
            ("V5__x.SQL", "select 1"),
            ("V100__c.sql", "reset all"),
            ("V10__b.sql", "reset all"),
            ("z/V2__a.sql", "reset all"),
        ]);
        let reset = "RESET ALL is not allowed in a migration: it would reset the settings that keep the file in its schema";
        assert_eq!(
            errors(dir.path(), Scope::Tenant),
            [
                "a/V01__eins.sql: version 1 is also used by U1__uno.sql",
                "b/V1__one.sql: version 1 is also used by U1__uno.sql",
                "b/V1__one.sql:1:1: COMMIT is not allowed in a migration: it would end the transaction that applies the file",
                &format!("b/V1__one.sql:2:1: {reset}"),
                &format!("z/V2__a.sql:1:1: {reset}"),
                "z/v3__lower.sql: invalid file name: must begin with an upper-case V or U",
                "V5__x.SQL: invalid file name: must end in .sql, in lower case",
                &format!("V10__b.sql:1:1: {reset}"),
                &format!("V100__c.sql:1:1: {reset}"),
            ]
        );
    }

    #[test]
    fn an_empty_folder_is_an_empty_set() {
        let dir = folder(&[]);
        let set = MigrationSet::load(dir.path(), Scope::Shared).unwrap();
        assert!(set.scripts().is_empty() && set.ids().is_empty());
        let missing = dir.path().join("shared");
        assert_eq!(
            MigrationSet::load(&missing, Scope::Shared).unwrap_err().0[0].problem,
            Problem::MissingFolder(Scope::Shared)
        );
    }

    #[test]
    fn empty_files_and_near_misses_are_warned_about() {
        let dir = folder(&[
            ("V1__empty.sql", "-- nothing yet\n"),
            ("V2__x.sql.bak", "commit"),
            ("V3__x.sql~", "commit"),
            ("notes.txt", ""),
        ]);
        let set = MigrationSet::load(dir.path(), Scope::Tenant).unwrap();
        let warnings: Vec<_> = set
            .warnings()
            .iter()
            .map(|warning| (warning.path.file_name().unwrap().to_str().unwrap(), warning.kind))
            .collect();
        assert_eq!(
            warnings,
            [
                ("V1__empty.sql", WarningKind::Empty),
                ("V2__x.sql.bak", WarningKind::Ignored),
                ("V3__x.sql~", WarningKind::Ignored),
            ]
        );
    }

    #[test]
    fn the_folders_must_not_be_nested() {
        let dir = folder(&[("tenant/Shared/V1__x.sql", "select 1"), ("shared/V1__x.sql", "")]);
        let (shared, tenant) = (dir.path().join("shared"), dir.path().join("tenant"));
        assert_eq!(check_apart(&shared, &tenant), Ok(()));
        assert_eq!(
            errors(&tenant, Scope::Tenant),
            [
                "Shared/V1__x.sql: file in a folder 'shared' of the tenant set: it would run in every tenant"
            ]
        );
        assert!(check_apart(dir.path(), &tenant).is_err());
        assert!(check_apart(&tenant.join("Shared"), &tenant).is_err());
        assert!(check_apart(&shared, &tenant.join("../shared")).is_err());
        assert!(check_apart(&dir.path().join("a"), &dir.path().join("ab")).is_ok());
    }

    #[test]
    fn the_shipped_sets_load_without_warnings() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        for (folder, scope) in [("shared", Scope::Shared), ("tenant", Scope::Tenant)] {
            let set = MigrationSet::load(&root.join(folder), scope).unwrap();
            assert!(!set.scripts().is_empty());
            assert_eq!(set.warnings(), []);
            for script in set.scripts() {
                assert!(script.is_parsed, "{}", script.id);
            }
        }
    }
}
