//! `backup`, `backup verify`, `restore`, `clone-tenant`: a tenant out of its schema and back.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::drop_schema::shop;
use crate::support::pricesync::{Given, quoted};

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

/// What `pg_dump` says of a schema, with its rows.
fn dumped(given: &Given, schema: &str) -> String {
    given.dump(&["-n", &quoted(schema)])
}

/// What `pg_dump` says of everything else; rows that went and came back stand elsewhere.
fn beside(given: &Given, schema: &str) -> Vec<String> {
    let dump = given.dump(&["-N", &quoted(schema)]);
    let mut lines: Vec<String> = dump.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The same with another name for the schema.
fn renamed(dump: &str, from: &str, to: &str) -> String {
    dump.replace(from, to)
}

#[test]
fn a_schema_with_every_kind_of_object_comes_back_as_it_was() {
    let given = shop();
    everything(&given, "tenant_acme");
    let before = (dumped(&given, "tenant_acme"), beside(&given, "tenant_acme"));
    let file = back_up(&given, "acme");
    drop(&given, "acme");
    assert!(beside(&given, "tenant_acme") != before.1);
    given
        .run(&["restore", file.to_str().unwrap()])
        .exits(0)
        .prints("✓ Restored: acme (slug=acme, schema=tenant_acme, 1 host)");
    similar(&before.0, &dumped(&given, "tenant_acme"));
    assert!(before.1 == beside(&given, "tenant_acme"));
    given.run(&["status", "--verify"]).exits(0);
    // A backup of what was restored holds the same.
    let rows = |given: &Given| {
        let told = given.run(&["backup", "--tenant=acme", "--out=again", "-o", "csv"]);
        told.exits(0).stdout
    };
    assert!(rows(&given).contains("acme,18,"));
}

#[test]
fn restored_under_another_name_everything_points_to_itself() {
    let given = shop();
    everything(&given, "tenant_acme");
    let file = back_up(&given, "acme");
    given
        .run(&[
            "restore",
            file.to_str().unwrap(),
            "--as",
            "copy",
            "--domain",
            "copy.test",
        ])
        .exits(0)
        .prints("(slug=copy, schema=tenant_copy, 1 host)");
    similar(
        &renamed(&dumped(&given, "tenant_acme"), "tenant_acme", "tenant_copy"),
        &dumped(&given, "tenant_copy"),
    );
    assert_eq!(
        given.column("SELECT domain FROM tenants_domain ORDER BY 1"),
        ["acme.test", "copy.test", "globex.test"]
    );
    // Nothing in it needs the old one.
    given.database.execute("DROP SCHEMA tenant_copy CASCADE");
    given
        .run(&["restore", file.to_str().unwrap(), "--as", "other"])
        .exits(0)
        .prints("(slug=other, schema=tenant_other, 0 hosts)");
    let held = given.database.query("DROP SCHEMA tenant_acme CASCADE");
    assert!(held.is_empty());
    similar(
        &given.value("SELECT count(*) FROM tenant_other.people"),
        "2",
    );
}

#[test]
fn twenty_tenants_are_backed_up_and_one_comes_back_row_by_row() {
    let given = Given::shipped();
    given.run(&["migrate-schemas"]).exits(0);
    for number in 0..20 {
        let slug = format!("t{number}");
        let host = format!("{slug}.test");
        given
            .run(&[
                "create-tenant",
                "--name",
                "T",
                "--slug",
                &slug,
                "--domain",
                &host,
            ])
            .exits(0);
        given.database.execute(&format!(
            "INSERT INTO tenant_{slug}.users (username, email, password) SELECT 'u' || n, n || E'@{slug}\\t\\\\', '!' FROM generate_series(1, {number} * 50) n; \
             INSERT INTO tenant_{slug}.subscriptions (user_id, status) SELECT id, 'trial' FROM tenant_{slug}.users"
        ));
    }
    let told = given
        .run(&[
            "backup", "--all", "--out", "backups", "--jobs", "4", "-o", "json",
        ])
        .exits(0)
        .says("20 schemas: 20 backed up, 0 failed, 0 skipped, 0 not started")
        .says("20 files in backups, ");
    let listed: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 20);
    let entry = listed.iter().find(|one| one["tenant"] == "t7").unwrap();
    assert_eq!(entry["rows"], 350 * 2 + 8);
    let file = entry["file"].as_str().unwrap();
    let before = dumped(&given, "tenant_t7");
    let others = beside(&given, "tenant_t7");
    drop(&given, "t7");
    given.run(&["restore", file]).exits(0);
    similar(&before, &dumped(&given, "tenant_t7"));
    assert!(others == beside(&given, "tenant_t7"));
    given.run(&["restore", file, "--as", "again"]).exits(0);
    similar(
        &renamed(&before, "tenant_t7", "tenant_again"),
        &dumped(&given, "tenant_again"),
    );
    let all: Vec<&str> = listed
        .iter()
        .filter_map(|one| one["file"].as_str())
        .collect();
    given
        .run(&[&["backup", "verify"], &all[..]].concat())
        .exits(0);
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
        let diff = String::from_utf8_lossy(&diff.stdout).into_owned();
        let diff: Vec<&str> = diff.lines().take(60).collect();
        panic!("{}", diff.join("\n"));
    }
}
