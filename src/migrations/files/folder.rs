//! Finds the files of a set below its folder.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::load_error::{LoadError, MAX_FILE_BYTES, Problem};
use super::script_name::ScriptName;

/// The files below a folder.
#[derive(Debug, Default)]
pub(crate) struct FoundFiles {
    /// Files that end in `.sql` in any case, sorted.
    pub(crate) scripts: Vec<PathBuf>,
    /// Files without that extension that are otherwise named like migrations, sorted.
    pub(crate) ignored: Vec<PathBuf>,
    /// Files and links that cannot be read or followed.
    pub(crate) errors: Vec<LoadError>,
}

/// Lists a folder and its subfolders. Skips names that begin with a dot; follows links that stay
/// below the folder.
///
/// # Errors
///
/// Only if the folder itself cannot be resolved.
pub(crate) fn list(dir: &Path) -> io::Result<FoundFiles> {
    let mut walk = Walk { root: dir.canonicalize()?, ..Walk::default() };
    walk.visit(dir);
    // Links come last, so that a file is listed by its real path.
    while let Some(link) = walk.links.pop() {
        walk.visit(&link);
    }
    walk.found.scripts.sort();
    walk.found.ignored.sort();
    Ok(walk.found)
}

/// Reads a file of at most [`MAX_FILE_BYTES`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: io::Error| Problem::Unreadable(error.to_string());
    let metadata = fs::metadata(path).map_err(unreadable)?;
    // Opening a pipe would wait for a writer.
    if !metadata.is_file() {
        return Err(Problem::NotAFile);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Problem::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    Ok(bytes)
}

#[derive(Default)]
struct Walk {
    root: PathBuf,
    visited: BTreeSet<PathBuf>,
    links: Vec<PathBuf>,
    found: FoundFiles,
}

impl Walk {
    fn visit(&mut self, dir: &Path) {
        let resolved = match dir.canonicalize() {
            Ok(resolved) => resolved,
            Err(error) => return self.unreadable(dir, &error),
        };
        if !self.visited.insert(resolved) {
            return;
        }
        let entries = match fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(dir, &error),
        };
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.visit(&path),
                Ok(kind) if kind.is_symlink() => self.follow(path),
                Ok(_) => self.file(path),
                Err(error) => self.unreadable(&path, &error),
            }
        }
    }

    fn follow(&mut self, link: PathBuf) {
        let target = match link.canonicalize() {
            Ok(target) => target,
            Err(error) => return self.unreadable(&link, &error),
        };
        let is_dir = target.is_dir();
        if !target.starts_with(&self.root) {
            if is_dir || is_sql(&link) {
                self.error(&link, Problem::LinkLeavesSet);
            }
        } else if is_dir {
            self.links.push(link);
        } else {
            self.file(link);
        }
    }

    fn file(&mut self, path: PathBuf) {
        if is_undo(&path) {
            // It undoes a migration and is none.
        } else if is_sql(&path) {
            self.found.scripts.push(path);
        } else if resembles_script(&path) {
            self.found.ignored.push(path);
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.error(path, Problem::Unreadable(error.to_string()));
    }

    fn error(&mut self, path: &Path, problem: Problem) {
        self.found.errors.push(LoadError::new(path, problem));
    }
}

fn is_sql(path: &Path) -> bool {
    // A file named just `.sql` is hidden and never gets here.
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql"))
}

/// Returns whether a file is named `V<version>__<name>.undo.sql`.
fn is_undo(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".undo.sql")
        .is_some_and(|stem| ScriptName::parse(&format!("{stem}.sql")).is_ok())
}

fn resembles_script(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(rest) = name.strip_prefix(['V', 'U', 'v', 'u']) else {
        return false;
    };
    let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    name.len() < rest.len() && name.starts_with("__")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn names(root: &Path, paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| path.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn links_are_followed_only_inside_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for file in ["..data/V1__a.sql", "..data/more/V2__b.sql", "real/V3__c.sql"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        // The layout in which Kubernetes mounts a ConfigMap.
        symlink("..data/V1__a.sql", root.join("V1__a.sql")).unwrap();
        symlink("..data/more", root.join("more")).unwrap();
        symlink("real", root.join("alias")).unwrap();
        symlink("..", root.join("real/loop")).unwrap();
        symlink("/", root.join("real/root")).unwrap();
        symlink("/dev/null", root.join("V4__d.sql")).unwrap();
        symlink("missing", root.join("V5__e.sql")).unwrap();
        let found = list(root).unwrap();
        assert_eq!(names(root, &found.scripts), ["V1__a.sql", "more/V2__b.sql", "real/V3__c.sql"]);
        let mut rejected: Vec<_> = found.errors.into_iter().map(|error| error.path).collect();
        rejected.sort();
        assert_eq!(names(root, &rejected), ["V4__d.sql", "V5__e.sql", "real/root"]);
    }

    #[test]
    fn hidden_files_are_skipped_and_near_misses_listed() {
        let dir = tempfile::tempdir().unwrap();
        let files = [".V1__a.sql", "V2__b.SQL", "V2__b.undo.sql", "V3__c.sql~", "v4__d", "V5.txt"];
        for file in files {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let found = list(dir.path()).unwrap();
        assert_eq!(names(dir.path(), &found.scripts), ["V2__b.SQL"]);
        assert_eq!(names(dir.path(), &found.ignored), ["V3__c.sql~", "v4__d"]);
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("V1__x.sql");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(read(&socket), Err(Problem::NotAFile));
        let large = dir.path().join("V2__x.sql");
        fs::File::create(&large).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(read(&large), Err(Problem::TooLarge(MAX_FILE_BYTES + 1)));
    }
}
