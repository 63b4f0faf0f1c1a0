//! `backup`, `backup verify`, `restore`, `clone-tenant`: a tenant out of its schema and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::drop_schema::shop;
use crate::support::pricesync::{Given, literal, quoted};

/// Everything that a schema can hold and a backup too; `{S}` is its name.
const EVERYTHING: &str = include_str!("backup/everything.sql");

fn back_up(given: &Given, slug: &str) -> PathBuf {
    given
        .run(&["backup", "--tenant", slug, "--out", "backups"])
        .exits(0);
    newest(given)
}

fn newest(given: &Given) -> PathBuf {
    let folder = given.dir.path().join("backups");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    files.pop().unwrap()
}

fn everything(given: &Given, schema: &str) {
    let sql = EVERYTHING.replace("{S}", &quoted(schema));
    let file = given.dir.path().join("everything.sql");
    fs::write(&file, sql).unwrap();
    given.database.psql(&["-1", "-f", file.to_str().unwrap()]);
}

fn drop(given: &Given, slug: &str) {
    given
        .run(&["drop-schema", "--force", "--tenant", slug])
        .exits(0);
}

/// What `pg_dump` says of a schema.
fn dumped(given: &Given, schema: &str) -> String {
    given.dump(&["-n", &quoted(schema)])
}

#[test]
fn a_schema_with_every_kind_of_object_comes_back_as_it_was() {
    let given = shop();
    everything(&given, "tenant_acme");
    let before = given.dump(&[]);
    let file = back_up(&given, "acme");
    drop(&given, "acme");
    assert!(given.dump(&[]) != before);
    let path = file.to_str().unwrap();
    given
        .run(&["restore", path])
        .exits(0)
        .prints("✓ Restored: acme (slug=acme, schema=tenant_acme, 1 host)");
    let after = given.dump(&[]);
    similar(&before, &after);
    given.run(&["status", "--verify"]).exits(0);
}

#[track_caller]
fn similar(before: &str, after: &str) {
    if before != after {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("before"), before).unwrap();
        fs::write(folder.path().join("after"), after).unwrap();
        let diff = Command::new("diff")
            .args(["-u", "before", "after"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        panic!("{}", String::from_utf8_lossy(&diff.stdout));
    }
}
