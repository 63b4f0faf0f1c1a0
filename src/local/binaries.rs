//! The server programs of this machine.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::LocalError;

/// The variable that names the directory of the programs and ends the search.
const OVERRIDE: &str = "PRICESYNC_PG_BIN";

/// The directories of the usual packages: Debian, Red Hat, Homebrew (three), Postgres.app.
const PACKAGES: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// One installation: a directory with `initdb` and `postgres` of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    /// The directory of the programs.
    pub(super) dir: PathBuf,
    /// The major version.
    pub(super) major: u32,
}

/// Where to look, in order.
struct Search {
    only: Option<PathBuf>,
    path: Vec<PathBuf>,
    patterns: Vec<String>,
}

impl Binaries {
    /// Finds the programs: `PRICESYNC_PG_BIN`, else PATH, `pg_config --bindir`, then the highest
    /// version among the usual packages' directories. Existing data needs its own major version.
    pub(super) fn find(data: &Path, wanted: Option<u32>) -> Result<Self, LocalError> {
        Search::of_this_machine().run(data, wanted)
    }

    /// Returns the installation in a directory, or why it is not one.
    pub(super) fn at(dir: &Path) -> Result<Self, String> {
        for name in ["initdb", "postgres"] {
            if !is_program(&dir.join(name)) {
                return Err(format!("it has no program \"{name}\""));
            }
        }
        let output = Command::new(dir.join("postgres"))
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("its postgres does not run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let major = major(&text).ok_or_else(|| {
            format!("its postgres --version prints \"{}\"", text.trim().escape_debug())
        })?;
        Ok(Self { dir: dir.to_owned(), major })
    }
}

impl Search {
    fn of_this_machine() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        Self {
            only: env::var_os(OVERRIDE).filter(|value| !value.is_empty()).map(PathBuf::from),
            path: env::split_paths(&path).collect(),
            patterns: PACKAGES.map(str::to_owned).to_vec(),
        }
    }

    fn run(&self, data: &Path, wanted: Option<u32>) -> Result<Binaries, LocalError> {
        let found = match &self.only {
            Some(dir) => vec![
                Binaries::at(dir)
                    .map_err(|why| LocalError::NotBinaries { dir: dir.clone(), why })?,
            ],
            None => self.installed(),
        };
        if found.is_empty() {
            return Err(LocalError::NoBinaries(self.places()));
        }
        let mut majors: Vec<u32> = found.iter().map(|binaries| binaries.major).collect();
        majors.sort_unstable();
        majors.dedup();
        found
            .into_iter()
            .find(|binaries| wanted.is_none_or(|wanted| wanted == binaries.major))
            .ok_or(LocalError::OtherMajor {
                data: data.to_owned(),
                wanted: wanted.unwrap_or_default(),
                found: majors,
            })
    }

    /// Returns every installation, best first, each directory once.
    fn installed(&self) -> Vec<Binaries> {
        let near = self.path.iter().cloned().chain(self.bindir());
        let mut near: Vec<_> = near.filter_map(|dir| Binaries::at(&dir).ok()).collect();
        let mut far: Vec<_> = self
            .patterns
            .iter()
            .flat_map(|pattern| expand(pattern))
            .filter_map(|dir| Binaries::at(&dir).ok())
            .collect();
        far.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
        near.extend(far);
        let mut seen = Vec::new();
        near.retain(|binaries| {
            let is_new = !seen.contains(&binaries.dir);
            seen.push(binaries.dir.clone());
            is_new
        });
        near
    }

    fn bindir(&self) -> Option<PathBuf> {
        let program = self
            .path
            .iter()
            .map(|dir| dir.join("pg_config"))
            .find(|program| is_program(program))?;
        let output = Command::new(program).arg("--bindir").stdin(Stdio::null()).output().ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
    }

    fn places(&self) -> Vec<String> {
        ["PATH", "pg_config --bindir"]
            .into_iter()
            .map(str::to_owned)
            .chain(self.patterns.clone())
            .collect()
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Returns the directories that match a pattern with one `*` in one of its components.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let Ok(entries) = fs::read_dir(if parent.is_empty() { "/" } else { parent }) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| {
            let mut path = OsString::from(entry.path());
            path.push(after);
            PathBuf::from(path)
        })
        .collect()
}

/// Returns 15 for `postgres (PostgreSQL) 15.14 (Debian …)` and 18 for `… 18beta1`.
fn major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let digits = number.find(|c: char| !c.is_ascii_digit());
    number[..digits.unwrap_or(number.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Binaries, LocalError, Search, major};
    use std::path::Path;
    use std::process::Command;

    fn install(dir: &Path, version: &str) {
        // By a shell: a file that we write ourselves is "busy" while another test forks.
        let script = "mkdir -p \"$1\" && cd \"$1\" && for p in initdb postgres; do
            printf \"#!/bin/sh\\necho 'postgres (PostgreSQL) $2'\\n\" > $p && chmod 755 $p; done";
        let status =
            Command::new("sh").args(["-c", script, "sh"]).arg(dir).arg(version).status().unwrap();
        assert!(status.success());
    }

    fn search(root: &Path) -> Search {
        Search {
            only: None,
            path: vec![root.join("path")],
            patterns: vec![format!("{}/lib/pg-*/bin", root.display())],
        }
    }

    fn found(search: &Search, wanted: Option<u32>) -> Result<Binaries, LocalError> {
        search.run(Path::new("/p/data"), wanted)
    }

    #[test]
    fn the_version_is_read_from_packages_and_betas() {
        let debian = "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n";
        assert_eq!(major(debian), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("mysqld 8"), None);
    }

    #[test]
    fn a_machine_without_programs_is_told_where_we_looked() {
        let dir = tempfile::tempdir().unwrap();
        let text = found(&search(dir.path()), None).unwrap_err().to_string();
        assert!(text.contains("searched PATH, pg_config --bindir"), "{text}");
        assert!(text.contains("/lib/pg-*/bin"), "{text}");
        assert!(text.contains("apt-get install postgresql"), "{text}");
    }

    #[test]
    fn the_highest_packaged_version_wins_and_numbers_are_not_text() {
        let dir = tempfile::tempdir().unwrap();
        install(&dir.path().join("lib/pg-9/bin"), "9.6");
        install(&dir.path().join("lib/pg-16/bin"), "16.2");
        assert_eq!(found(&search(dir.path()), None).unwrap().major, 16);
    }

    #[test]
    fn path_comes_before_packages_if_its_version_fits_the_data() {
        let dir = tempfile::tempdir().unwrap();
        install(&dir.path().join("path"), "15.1");
        install(&dir.path().join("lib/pg-15/bin"), "15.1");
        install(&dir.path().join("lib/pg-16/bin"), "16.2");
        let search = search(dir.path());
        assert_eq!(found(&search, None).unwrap().major, 15);
        assert_eq!(found(&search, Some(16)).unwrap().major, 16);
        let text = found(&search, Some(14)).unwrap_err().to_string();
        assert!(text.contains("\"/p/data\" was written by PostgreSQL 14"), "{text}");
        assert!(text.contains("has 15, 16; install 14"), "{text}");
    }

    #[test]
    fn a_wrong_override_is_an_error_even_if_other_programs_exist() {
        let dir = tempfile::tempdir().unwrap();
        install(&dir.path().join("path"), "15.1");
        let mut search = search(dir.path());
        search.only = Some(dir.path().join("nothing-here"));
        let text = found(&search, None).unwrap_err().to_string();
        assert!(text.starts_with("PRICESYNC_PG_BIN is "), "{text}");
        assert!(text.contains("no program \"initdb\""), "{text}");
    }
}
