//! A new migration file: the next free version, and a header that says what it may do.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::macros::format_description;

use super::script::parse_name;
use super::source::MigrationSet;
use crate::domain::script::Scope;

/// A version above this is a date and time, such as `20261123101500`.
const FIRST_TIMESTAMP: i64 = 19_000_101_000_000;

/// Writes an empty migration and returns its path.
///
/// The version is one above the newest, or the time of day where the newest is a time.
///
/// # Errors
///
/// A name of which nothing is left once it is made of letters, digits and underscores;
/// a folder that cannot be written.
pub fn create(
    folder: &Path,
    subfolder: Option<&str>,
    name: &str,
    scope: Scope,
    set: &MigrationSet,
) -> io::Result<PathBuf> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let name = clean(name);
    let folder = subfolder.map_or_else(|| folder.to_path_buf(), |sub| folder.join(sub));
    fs::create_dir_all(&folder)?;
    let newest = set.ids().iter().map(|id| id.version).max().unwrap_or(0);
    let mut version = if newest >= FIRST_TIMESTAMP {
        now().max(newest + 1)
    } else {
        newest + 1
    };
    loop {
        let file_name = format!("V{version}__{name}.sql");
        parse_name(&file_name).map_err(invalid)?;
        // Another make-migration may have taken the version under another name just now.
        let taken = fs::read_dir(&folder)?.flatten().any(|entry| {
            let name = entry.file_name();
            parse_name(&name.to_string_lossy()).is_ok_and(|(_, taken, _)| taken == version)
        });
        let path = folder.join(&file_name);
        if !taken {
            match fs::File::create_new(&path) {
                Ok(mut file) => {
                    file.write_all(header(&name, scope).as_bytes())?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        version += 1;
    }
}

fn clean(name: &str) -> String {
    let mut clean = String::new();
    for c in name.trim().chars() {
        if c.is_alphanumeric() || c == '_' {
            clean.push(c);
        } else if !clean.ends_with('_') {
            clean.push('_');
        }
    }
    clean.trim_matches('_').to_owned()
}

fn now() -> i64 {
    OffsetDateTime::now_utc()
        .format(format_description!(
            "[year][month][day][hour][minute][second]"
        ))
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(FIRST_TIMESTAMP)
}

fn header(name: &str, scope: Scope) -> String {
    let mut header = String::new();
    let _ = writeln!(header, "-- {}", name.replace('_', " "));
    let lines: &[&str] = match scope {
        Scope::Shared => &["Runs once, in public, in a transaction."],
        Scope::Tenant => &[
            "Runs in every tenant's schema, in a transaction: write names without a schema.",
            "For CREATE INDEX CONCURRENTLY make '-- pricesync: no-transaction' the first line.",
        ],
    };
    for line in lines {
        let _ = writeln!(header, "-- {line}");
    }
    header.push('\n');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(existing: &[&str], name: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in existing {
            fs::write(folder.path().join(file), "").expect("writable");
        }
        let set = MigrationSet::load(folder.path(), Scope::Tenant).expect("a set");
        create(folder.path(), Some("products"), name, Scope::Tenant, &set)
            .map(|path| {
                path.strip_prefix(folder.path())
                    .expect("below")
                    .display()
                    .to_string()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_next_version_is_one_above_the_newest() {
        assert_eq!(made(&[], "init").as_deref(), Ok("products/V1__init.sql"));
        assert_eq!(
            made(&["V9__x.sql"], "Thêm giá - mới").as_deref(),
            Ok("products/V10__Thêm_giá_mới.sql")
        );
    }

    #[test]
    fn timestamps_are_followed_by_timestamps() {
        let path = made(&["V20261123101500__x.sql"], "next").expect("made");
        let (_, version, _) = parse_name(path.trim_start_matches("products/")).expect("a name");
        assert!(version > 20_261_123_101_500);
    }

    #[test]
    fn a_name_of_nothing_is_refused() {
        assert!(made(&[], " -- ").is_err());
    }

    #[test]
    fn two_at_once_get_versions_of_their_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let set = MigrationSet::load(folder.path(), Scope::Tenant).expect("a set");
        let one = create(folder.path(), None, "one", Scope::Tenant, &set).expect("made");
        let two = create(folder.path(), None, "two", Scope::Tenant, &set).expect("made");
        assert!(one.ends_with("V1__one.sql") && two.ends_with("V2__two.sql"));
    }
}
