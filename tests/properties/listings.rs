//! Folders of files with names of all kinds.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt as _};
use std::path::{Path, PathBuf};

use pricesync::domain::script::Scope;
use pricesync::migrations::WarningKind;
use pricesync::migrations::{LoadErrors, MigrationSet, Script};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::holds;

fn file_name() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        6 => "[VU][1-9]{1,2}__[a-c]\\.sql",
        2 => "[VUvu.|]?[0-9.]{0,3}_{0,3}[a-cế -]{0,2}(\\.sql|\\.SQL|\\.Sql|\\.up\\.sql|\\.sql~|\\.txt|)",
        1 => "[^/\0]{1,6}(\\.sql)?",
    ];
    let raw = select(vec![b"V1__\xff.sql".as_slice(), b"\xff.sql", b"V2__\xff"]);
    prop_oneof![9 => text.prop_map(String::into_bytes), 1 => raw.prop_map(<[u8]>::to_vec)]
}

fn path() -> impl Strategy<Value = PathBuf> {
    let folder =
        select(["", "", "", "prices", "prices/deep", ".git", "shared", "V9__x.sql"].as_slice());
    (folder, file_name())
        .prop_map(|(folder, name)| Path::new(folder).join(std::ffi::OsString::from_vec(name)))
}

fn text() -> impl Strategy<Value = &'static [u8]> {
    select(vec![
        b"CREATE TABLE a (id int);\n".as_slice(),
        b"CREATE TABLE a (id int);\n",
        b"-- nothing yet",
        b"COMMIT",
        b"\xff",
        b"a\0b",
    ])
}

/// The files that are really there, without those that begin with a dot or lie below one.
fn seen(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_name().as_bytes().starts_with(b".") {
        } else if entry.file_type().expect("a type").is_dir() {
            seen(&entry.path(), into);
        } else {
            into.push(entry.path());
        }
    }
}

fn ends_in_sql(name: &OsStr) -> bool {
    name.as_bytes().to_ascii_lowercase().ends_with(b".sql")
}

/// Whether it begins as only migrations do: a letter, a version, two underscores.
fn begins_like_a_migration(name: &OsStr) -> bool {
    let [b'V' | b'v' | b'U' | b'u', rest @ ..] = name.as_bytes() else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest[digits..].starts_with(b"__")
}

#[test]
fn every_file_is_a_migration_refused_or_ignored() {
    let folders = vec((path(), text()), 0..9);
    holds("folders", [1_500, 100_000], &folders, |files| {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            // Two names may want to be a folder and a file; then the first has it.
            if fs::create_dir_all(path.parent().unwrap()).is_ok() {
                let _ = fs::write(&path, text);
            }
        }
        let mut files = Vec::new();
        seen(dir.path(), &mut files);
        let (sql, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|path| ends_in_sql(path.file_name().unwrap()));
        match MigrationSet::load(dir.path(), Scope::Tenant) {
            Ok(set) => {
                let mut loaded: Vec<_> =
                    set.scripts().iter().map(|script| script.path.clone()).collect();
                loaded.sort();
                let mut sql = sql;
                sql.sort();
                prop_assert_eq!(loaded, sql);
                let versions: Vec<_> = set.ids().iter().map(|id| id.version).collect();
                prop_assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
                let mut ignored: Vec<_> = set
                    .warnings()
                    .iter()
                    .filter(|warning| warning.kind == WarningKind::Ignored)
                    .map(|warning| warning.path.clone())
                    .collect();
                ignored.sort();
                let mut near: Vec<_> = others
                    .into_iter()
                    .filter(|path| begins_like_a_migration(path.file_name().unwrap()))
                    .collect();
                near.sort();
                prop_assert_eq!(ignored, near);
            }
            Err(LoadErrors(errors)) => {
                prop_assert!(!errors.is_empty());
                prop_assert!(errors.iter().all(|error| sql.contains(&error.path)));
                // Whatever is not refused has nothing wrong with it.
                for path in
                    sql.iter().filter(|path| errors.iter().all(|error| error.path != **path))
                {
                    let read = Script::read(path, fs::read(path).unwrap(), Scope::Tenant);
                    prop_assert!(read.is_ok(), "{}: passed over", path.display());
                }
            }
        }
        Ok(())
    });
}
