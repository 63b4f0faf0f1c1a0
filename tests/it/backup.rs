//! `backup`, `backup verify`, `restore`, `clone-tenant`: a tenant out of its schema and back.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE, quoted};
use crate::support::sessions::{CLASS, Dialogue, Holder, wait_for_a_lock};

/// Everything that a schema can hold and a backup too; `{S}` is its name.
const EVERYTHING: &str = include_str!("backup/everything.sql");

/// Partitioned and inherited tables; each tree begins with `-- tree NAME`, and the least version of the
/// server in parentheses.
const TREES: &str = include_str!("backup/trees.sql");

fn back_up(given: &Given, slug: &str) -> PathBuf {
    given.run(&["backup", "--tenant", slug, "--out", "backups"]).exits(0);
    newest(given)
}

fn newest(given: &Given) -> PathBuf {
    let folder = given.dir.path().join("backups");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
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
    given.run(&["drop-schema", "--force", "--tenant", slug]).exits(0);
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
    let given = Given::shop();
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

/// A dump with acme's id in the row that refers to the tenant, where it must have its own.
fn as_acme(given: &Given, slug: &str, dump: &str) -> String {
    let id =
        |slug: &str| given.value(&format!("SELECT id FROM tenants_tenant WHERE slug = '{slug}'"));
    let end = |id: String| format!("\t\\N\t{id}\n");
    let own = end(id(slug));
    assert_eq!(dump.matches(&own).count(), 1, "{own:?}");
    dump.replace(&own, &end(id("acme")))
}

#[test]
fn restored_under_another_name_everything_points_to_itself() {
    let given = Given::shop();
    everything(&given, "tenant_acme");
    let file = back_up(&given, "acme");
    given
        .run(&["restore", file.to_str().unwrap(), "--as", "copy", "--domain", "copy.test"])
        .exits(0)
        .prints("(slug=copy, schema=tenant_copy, 1 host)");
    similar(
        &renamed(&dumped(&given, "tenant_acme"), "tenant_acme", "tenant_copy"),
        &as_acme(&given, "copy", &dumped(&given, "tenant_copy")),
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
    similar(&given.value("SELECT count(*) FROM tenant_other.people"), "2");
}

#[test]
fn twenty_tenants_are_backed_up_and_one_comes_back_row_by_row() {
    let given = Given::shipped();
    given.run(&["migrate-schemas"]).exits(0);
    for number in 0..20 {
        let slug = format!("t{number}");
        let host = format!("{slug}.test");
        given.run(&["create-tenant", "--name", "T", "--slug", &slug, "--domain", &host]).exits(0);
        given.database.execute(&format!(
            "INSERT INTO tenant_{slug}.users (username, email, password) SELECT 'u' || n, n || E'@{slug}\\t\\\\', '!' FROM generate_series(1, {number} * 50) n; \
             INSERT INTO tenant_{slug}.subscriptions (user_id, plan, status) SELECT id, 'p', 'trial' FROM tenant_{slug}.users"
        ));
    }
    let told = given
        .run(&["backup", "--all", "--out", "backups", "--jobs", "4", "-o", "json"])
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
    similar(&renamed(&before, "tenant_t7", "tenant_again"), &dumped(&given, "tenant_again"));
    let all: Vec<&str> = listed.iter().filter_map(|one| one["file"].as_str()).collect();
    given.run(&[&["backup", "verify"], &all[..]].concat()).exits(0);
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

#[test]
fn partitions_and_children_come_back_as_they_were() {
    let server: u32 = Given::nothing().value("SHOW server_version_num").parse().unwrap();
    let trees: Vec<(&str, &str)> = TREES
        .split("-- tree ")
        .skip(1)
        .map(|tree| tree.split_once('\n').unwrap())
        .filter_map(|(head, sql)| {
            let (name, least) = head.split_once(" (").unwrap_or((head, "0)"));
            let least: u32 = least.trim_end_matches(')').parse().unwrap();
            (server / 10_000 >= least).then_some((name, sql))
        })
        .collect();
    let given = Given::tenants(&trees.iter().map(|tree| tree.0).collect::<Vec<_>>());
    for (name, sql) in &trees {
        given.database.execute(&format!("SET search_path TO tenant_{name}; {sql}"));
    }
    given.run(&["backup", "--all", "--out", "backups"]).exits(0);
    for entry in fs::read_dir(given.dir.path().join("backups")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap();
        let copy = format!("{name}_2");
        given.run(&["restore", path.to_str().unwrap(), "--as", &copy]).exits(0);
        let (one, two) = (format!("tenant_{name}"), format!("tenant_{copy}"));
        similar(&dumped(&given, &one), &renamed(&dumped(&given, &two), &two, &one));
    }
}

#[test]
fn a_clone_has_the_rows_or_the_structure_alone() {
    let given = Given::shop();
    everything(&given, "tenant_acme");
    given
        .run(&["clone-tenant", "--from", "acme.test", "--slug", "acme-copy", "--domain", "copy.test"])
        .exits(0)
        .prints("✓ Tenant copied: acme (slug=acme-copy, schema=tenant_acme-copy) from acme: 18 tables, ");
    // Rows that hold names of relations hold them in quotes as well.
    let bare = |schema: &str| {
        let dump = dumped(&given, schema).replace(&quoted(schema), schema);
        renamed(&dump, schema, "X").replace("\"X\".people", "X.people")
    };
    similar(&bare("tenant_acme"), &as_acme(&given, "acme-copy", &bare("tenant_acme-copy")));
    given
        .run(&["clone-tenant", "--from=acme", "--slug=empty", "--name=Empty Ltd.", "--schema-only"])
        .exits(0)
        .prints("✓ Tenant copied: Empty Ltd. (slug=empty, schema=tenant_empty) from acme: 1 table, 8 rows");
    let structure = |schema: &str| {
        let dump = given.dump(&["-s", "-n", &quoted(schema)]);
        renamed(&dump, schema, "X")
    };
    similar(&structure("tenant_acme"), &structure("tenant_empty"));
    assert_eq!(given.value("SELECT count(*) FROM tenant_empty.people"), "0");
    given.run(&["migrate-schemas", "--check"]).exits(0);
    given.run(&["status", "--verify"]).exits(0);
    given.run(&["clone-tenant", "--from", "nobody", "--slug", "x"]).exits(4);
}

#[test]
fn texts_with_the_schema_name_prevent_a_copy_under_another() {
    let given = Given::shop();
    given.database.execute(
        "CREATE FUNCTION tenant_acme.own() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM tenant_acme.users); END'; \
         CREATE FUNCTION tenant_acme.set() RETURNS int LANGUAGE sql SET search_path TO tenant_acme AS 'SELECT 1'; \
         CREATE FUNCTION tenant_acme.other() RETURNS text LANGUAGE sql AS 'SELECT ''tenant_acme2''::text'; \
         CREATE FUNCTION tenant_acme.loud() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM Tenant_ACME.users); END'; \
         CREATE VIEW tenant_acme.said AS SELECT 'tenant_acme' AS s",
    );
    let file = back_up(&given, "acme");
    let before = given.dump(&[]);
    for args in [
        &["clone-tenant", "--from", "acme", "--slug", "b"][..],
        &["restore", file.to_str().unwrap(), "--as", "b"],
    ] {
        given
            .run(args)
            .exits(7)
            .says("function loud(), function own(), view said")
            .never_says("other()");
        assert_eq!(given.dump(&[]), before);
    }
    drop(&given, "acme");
    given.run(&["restore", file.to_str().unwrap()]).exits(0);
    assert_eq!(given.value("SELECT tenant_acme.own()"), "0");
}

#[test]
fn what_a_backup_cannot_hold_is_found_when_it_is_made() {
    let given = Given::shop();
    for (sql, why) in [
        (
            "CREATE OPERATOR tenant_acme.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
            "operator ===(integer,integer)",
        ),
        ("CREATE TYPE tenant_acme.shell", "unfinished type shell"),
        (
            "CREATE TEXT SEARCH CONFIGURATION tenant_acme.words (COPY = simple)",
            "text search configuration words",
        ),
        ("CREATE EXTENSION pg_trgm SCHEMA tenant_acme", "extension pg_trgm"),
        (
            "CREATE TABLE tenant_acme.t (a int); CREATE PUBLICATION p FOR TABLE tenant_acme.t",
            "table t, which is in publication p",
        ),
        (
            "CREATE TYPE tenant_acme.c AS (a int); CREATE TABLE tenant_acme.typed OF tenant_acme.c",
            "table typed of a composite type",
        ),
        (
            "CREATE TYPE tenant_acme.mood AS ENUM ('ok'); CREATE CAST (text AS tenant_acme.mood) WITH INOUT AS ASSIGNMENT",
            "cast from text to mood",
        ),
        // Only the round-trip check sees it.
        ("ALTER TABLE tenant_acme.users DISABLE TRIGGER ALL", "constraint "),
    ] {
        given.database.execute(&format!("BEGIN; {sql}; COMMIT"));
        let told = given.run(&["backup", "--all", "--out", "backups"]).exits(10);
        told.says("2 schemas: 1 backed up, 1 failed")
            .says(why)
            .says("pricesync backup --engine pg_dump");
        let left: Vec<_> = fs::read_dir(given.dir.path().join("backups"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].starts_with("globex."), "{left:?}");
        fs::remove_dir_all(given.dir.path().join("backups")).unwrap();
        given.database.execute("DROP PUBLICATION IF EXISTS p; DROP SCHEMA tenant_acme CASCADE; CREATE SCHEMA tenant_acme");
        given.run(&["migrate-schemas"]).exits(0);
    }
}

#[test]
fn a_value_that_spans_lines_stands_in_a_backup_that_can_be_read() {
    let given = Given::shop();
    given.database.execute(
        "ALTER TABLE tenants_tenant ADD settings json; \
         UPDATE tenants_tenant SET settings = E'{\\r\\n \"a\": \"x\\\\ny\"}' WHERE slug = 'acme'",
    );
    let file = back_up(&given, "acme");
    let file = file.to_str().unwrap();
    given.run(&["backup", "verify", file]).exits(0);
    drop(&given, "acme");
    given.run(&["restore", file]).exits(0);
    assert_eq!(
        given.value("SELECT settings ->> 'a' FROM tenants_tenant WHERE slug = 'acme'"),
        "x\ny"
    );
    given.database.execute("ALTER TABLE tenant_acme.users ADD \"two\nlines\" int");
    given
        .run(&["backup", "--tenant=acme", "--out=again"])
        .exits(10)
        .says("line break in the name of a table or column");
}

#[test]
fn a_damaged_file_restores_nothing_and_says_so() {
    let given = Given::shop();
    everything(&given, "tenant_acme");
    let file = back_up(&given, "acme");
    let path = file.to_str().unwrap();
    given.run(&["backup", "verify", path]).exits(0).prints("18 tables");
    drop(&given, "acme");
    let before = given.dump(&[]);
    let bytes = fs::read(&file).unwrap();
    let text = zstd::decode_all(&bytes[..]).unwrap();
    let pack = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
    let edited = |from: &str, to: &str| {
        let text = String::from_utf8(text.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        pack(text.replacen(from, to, 1).as_bytes())
    };
    for (damaged, why, exit) in [
        (bytes[..bytes.len() / 2].to_vec(), "it is damaged", 11),
        (bytes[..bytes.len() - 1].to_vec(), "it is damaged", 11),
        (pack(&text[..text.len() - 2]), "it is truncated", 11),
        (edited("it''s a schema", "it''s a scheme"), "another digest", 11),
        (edited("\\nback", "\\tback"), "table 'people' should have 2 rows", 11),
        (edited("-- table ", "-- tuble "), "something between its parts", 11),
        (
            edited("backup 1\n", "backup 9\n"),
            "its format 9 is newer than 1, the newest that this version reads",
            2,
        ),
        (b"PGDMP".to_vec(), "not a backup of pricesync", 11),
    ] {
        fs::write(&file, damaged).unwrap();
        given.run(&["backup", "verify", path]).exits(exit).says(why);
        given.run(&["restore", path]).exits(exit).says(why);
        assert!(given.dump(&[]) == before, "{why}");
    }
    for args in [&["backup", "verify", "none"][..], &["restore", "none"]] {
        given.run(args).exits(4).says("none");
    }
    fs::write(&file, bytes).unwrap();
    given.run(&["restore", path]).exits(0);
}

/// Writes a backup with other statements and the digests that go with them, as anybody can.
fn forged(text: &str) -> Vec<u8> {
    use std::fmt::Write as _;

    use sha2::{Digest as _, Sha256};
    let at = text.rfind("-- end ").unwrap();
    let mut end: serde_json::Value = serde_json::from_str(&text[at + 7..]).unwrap();
    let mut hex = String::new();
    let said = serde_json::to_string(&(&end["tables"], &end["sequences"])).unwrap();
    for byte in Sha256::digest(text[..at].to_owned() + &said) {
        write!(hex, "{byte:02x}").unwrap();
    }
    end["sha256"] = hex.into();
    let whole = format!("{}-- end {end}\n", &text[..at]);
    zstd::encode_all(whole.as_bytes(), 3).unwrap()
}

#[test]
fn an_edited_backup_with_valid_digests_is_still_compared() {
    let given = Given::shop();
    let file = back_up(&given, "acme");
    let path = file.to_str().unwrap();
    drop(&given, "acme");
    let before = given.dump(&[]);
    let text = zstd::decode_all(&fs::read(&file).unwrap()[..]).unwrap();
    let text = String::from_utf8(text).unwrap();
    let after = text.find("-- section after ").unwrap();
    let begin = after + text[after..].find('\n').unwrap() + 1;
    let length: usize = text[after + 17..begin - 1].parse().unwrap();
    let with = |sql: &str| {
        let body = format!("{}{sql};\n", &text[begin..begin + length]);
        format!(
            "{}-- section after {}\n{body}{}",
            &text[..after],
            body.len(),
            &text[begin + length..]
        )
    };
    fs::write(&file, forged(&with("SELECT 1"))).unwrap();
    given.run(&["backup", "verify", path]).exits(0);
    for (sql, why, exit) in [
        ("CREATE TABLE more (id int)", "additional: ", 11),
        ("SET LOCAL search_path TO public", "changed role or schema", 11),
        ("SELECT no_such()", "no_such()", 1),
    ] {
        fs::write(&file, forged(&with(sql))).unwrap();
        given.run(&["restore", path]).exits(exit).says(why).says("nothing was changed");
        assert!(given.dump(&[]) == before, "{sql}");
    }
}

#[test]
fn what_is_taken_is_refused_and_nothing_changes() {
    let given = Given::shop();
    let file = back_up(&given, "acme");
    let path = file.to_str().unwrap();
    let before = given.dump(&[]);
    for (args, why) in [
        (&["restore", path][..], "slug 'acme' is taken by tenant 'acme'"),
        (&["restore", path, "--as", "globex"], "slug 'globex' is taken"),
        (
            &["restore", path, "--as", "new", "--domain", "GLOBEX.test"],
            "host 'globex.test' is taken by tenant 'globex'",
        ),
        (&["restore", path, "--as", "Böse"], "slug 'Böse' may not hold"),
        (
            &["restore", path, "--as", "new", "--domain", "a.b", "--domain", "A.b:80"],
            "host 'a.b' is given twice",
        ),
        (&["clone-tenant", "--from=acme", "--slug=globex"], "slug 'globex' is taken"),
        (
            &["clone-tenant", "--from=acme", "--slug=new", "--domain=acme.test"],
            "host 'acme.test' is taken",
        ),
    ] {
        given.run(args).exits(7).says(why);
        assert!(given.dump(&[]) == before, "{args:?}");
    }
    given.database.execute("CREATE SCHEMA tenant_new");
    given
        .run(&["restore", path, "--as", "new"])
        .exits(7)
        .says("schema 'tenant_new' is taken by an existing schema");
}

#[test]
fn hostile_names_are_backed_up_and_come_back() {
    let given = Given::tenants(&[]);
    given.tenant_file("V1__t.sql", "CREATE TABLE \"T\"\"'; --\" (\"a\"\"b\" text, \"Ấ $1\" int DEFAULT 7, \"select\" int GENERATED ALWAYS AS (\"Ấ $1\" * 2) STORED)");
    let long = "x".repeat(63);
    let names = [
        ("../../../tmp/x", "a\"b'; {schema} $1 ế"),
        ("UP per", "Công ty"),
        ("long", &long),
        ("-- end {}", "-- end {}"),
    ];
    for (slug, schema) in names {
        given.tenant_in(&slug.replace('\'', "''"), schema);
    }
    given.run(&["migrate-schemas"]).exits(0);
    for (_, schema) in names {
        given.database.execute(&format!(
            "INSERT INTO {}.\"T\"\"'; --\" VALUES (E'\\\\.\\n\\t', 1), (NULL, NULL), ('', 2)",
            quoted(schema)
        ));
    }
    let before = given.dump(&[]);
    let told = given.run(&["backup", "--all", "--out", "backups", "-o", "json"]).exits(0);
    let listed: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(fs::read_dir(given.dir.path().join("backups")).unwrap().count(), 4);
    for entry in listed.as_array().unwrap() {
        let file = entry["file"].as_str().unwrap();
        let slug = entry["tenant"].as_str().unwrap();
        given.run(&["drop-schema", "--force", &format!("--tenant={slug}")]).exits(0);
        given.run(&["restore", file]).exits(0);
    }
    let sorted = |dump: &str| {
        let mut lines: Vec<String> = dump.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&before), sorted(&given.dump(&[])));
}

#[test]
fn psql_can_read_a_backup() {
    let given = Given::shop();
    everything(&given, "tenant_acme");
    let file = back_up(&given, "acme");
    let before = dumped(&given, "tenant_acme");
    drop(&given, "acme");
    // Something refers to the tenant's row, which psql does not bring back.
    given.database.execute("INSERT INTO tenants_tenant (id, schema_name, name, slug) OVERRIDING SYSTEM VALUE VALUES (1, 'tenant_acme', 'acme', 'acme')");
    let script = given.dir.path().join("script.sql");
    fs::write(&script, zstd::decode_all(&fs::read(&file).unwrap()[..]).unwrap()).unwrap();
    given.database.psql(&["-1", "-f", script.to_str().unwrap()]);
    similar(&before, &dumped(&given, "tenant_acme"));
}

#[test]
fn pg_dump_writes_archives_that_pg_restore_reads() {
    let version = |program: &str| {
        let said = Command::new(program).arg("--version").output().unwrap();
        String::from_utf8(said.stdout).unwrap().replace(program, "")
    };
    if version("pg_dump") != version("pg_restore") {
        // Tests of other servers bring a pg_dump along, and no pg_restore.
        return;
    }
    let given = Given::shop();
    given.run(&["backup", "--tenant=acme", "--out=d", "--engine=pg_dump"]).exits(0);
    // It prints some expressions in one way and reads them in another.
    let rows = || given.dump(&["-a", "-n", "tenant_acme"]);
    let before = rows();
    let folder = given.dir.path().join("d");
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    given.database.execute("DROP SCHEMA tenant_acme CASCADE");
    let restored = Command::new("pg_restore")
        .args(["-d", given.database.url(), "--exit-on-error"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(restored.success());
    similar(&before, &rows());
}

#[test]
fn a_backup_is_one_snapshot_while_the_tenant_is_in_use() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TABLE tenant_acme.a (id int); CREATE TABLE tenant_acme.z (id int); INSERT INTO tenant_acme.a SELECT generate_series(1, 20000); INSERT INTO tenant_acme.z SELECT generate_series(1, 20000)",
    );
    let url = given.database.url().to_owned();
    std::thread::scope(|scope| {
        // Dropped by a test that fails too.
        let (reading, read) = std::sync::mpsc::channel::<()>();
        let writing = scope.spawn(move || {
            let mut written = 0;
            while read.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                crate::support::database::run(&url, "BEGIN; INSERT INTO tenant_acme.z VALUES (0); INSERT INTO tenant_acme.a VALUES (0); COMMIT").unwrap();
                written += 1;
            }
            written
        });
        for number in 0..5 {
            let file = back_up(&given, "acme");
            let slug = format!("c{number}");
            given.run(&["restore", file.to_str().unwrap(), "--as", &slug]).exits(0);
            let counts = given.value(&format!(
                "SELECT (SELECT count(*) FROM tenant_{slug}.a) - (SELECT count(*) FROM tenant_{slug}.z)"
            ));
            assert_eq!(counts, "0");
            given.run(&["clone-tenant", "--from=acme", &format!("--slug=d{number}")]).exits(0);
            let counts = given.value(&format!(
                "SELECT (SELECT count(*) FROM tenant_d{number}.a) - (SELECT count(*) FROM tenant_d{number}.z)"
            ));
            assert_eq!(counts, "0");
            fs::remove_file(file).unwrap();
        }
        std::mem::drop(reading);
        assert!(writing.join().unwrap() > 5);
    });
}

#[test]
fn ids_that_this_database_never_issued_are_replaced() {
    let given = Given::shop();
    let file = back_up(&given, "globex");
    let other = Given::shipped();
    other.run(&["migrate-schemas"]).exits(0);
    other
        .run(&["restore", file.to_str().unwrap()])
        .exits(0)
        .prints("(slug=globex, schema=tenant_globex, 1 host)");
    other.run(&["create-tenant", "--name=B", "--slug=b", "--domain=b.test"]).exits(0);
    assert_eq!(
        other.column("SELECT concat_ws(' ', t.id, t.slug, d.domain, d.is_primary) FROM tenants_tenant t JOIN tenants_domain d ON d.tenant_id = t.id ORDER BY t.id"),
        ["1 globex globex.test t", "2 b b.test t"]
    );
    other.run(&["status", "--verify"]).exits(0);
}

#[test]
fn what_a_restore_needs_and_is_not_there_is_said() {
    let given = Given::shop();
    given.database.execute("CREATE FUNCTION public.tax(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'; CREATE VIEW tenant_acme.taxed AS SELECT public.tax(1) AS t");
    let file = back_up(&given, "acme");
    let other = Given::shipped();
    other.run(&["migrate-schemas"]).exits(0);
    let before = other.dump(&[]);
    other
        .run(&["restore", file.to_str().unwrap()])
        .exits(1)
        .says("creating tables: function public.tax(integer) does not exist (42883)")
        .says("nothing was changed");
    assert_eq!(other.dump(&[]), before);
}

#[test]
fn who_was_backed_up_before_a_migration_is_told_what_is_pending() {
    let given = Given::shop();
    let file = back_up(&given, "acme");
    drop(&given, "acme");
    given.tenant_file("V90__more.sql", "CREATE TABLE more (id int);");
    given
        .run(&["restore", file.to_str().unwrap()])
        .exits(0)
        .says("1 migration pending; next: pricesync migrate-schemas --tenant acme");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
}

#[test]
fn a_backup_waits_for_a_migration_and_no_longer_than_it_is_told() {
    let given = Given::shop();
    let holder = Holder::of(
        &given,
        &format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_acme'::regnamespace::oid::int4)"),
    );
    given
        .run(&["backup", "--tenant=acme", "--out=b", "--lock-wait=300ms"])
        .exits(6)
        .says("another session holds the schema's lock");
    given.run(&["clone-tenant", "--from=acme", "--slug=b", "--lock-wait=300ms"]).exits(6);
    holder.let_go(&given);
    given.run(&["backup", "--tenant=acme", "--out=b"]).exits(0);
}

#[test]
fn a_role_that_may_only_read_can_back_up() {
    let given = Given::shop();
    let role = format!("reader_{}", std::process::id());
    given.database.execute(&format!("CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role}"));
    let url = given.database.url().replace("user=postgres", &format!("user={role}"));
    given
        .run(&["backup", "--tenant=acme", "--out=b", "-d", &url])
        .exits(0)
        .says("the generated DDL was not verified: permission denied for database");
    given.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_table_rewritten_while_a_backup_starts_is_not_empty_in_it() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TABLE tenant_acme.t (a int); INSERT INTO tenant_acme.t SELECT generate_series(1, 7)",
    );
    let mut rewriter = Dialogue::with(&given, "the-rewriter");
    rewriter.say("BEGIN; ALTER TABLE tenant_acme.t ALTER a TYPE bigint;");
    eventually("the table is being rewritten", || {
        given.value("SELECT state FROM pg_stat_activity WHERE application_name = 'the-rewriter' AND datname = current_database()") == "idle in transaction"
    });
    let args = ["backup", "--tenant=acme", "--out=b", "-o=json", "--lock-timeout=0"];
    let run = given.spawn(&args);
    wait_for_a_lock(&given, 1);
    rewriter.say("COMMIT;");
    let listed: serde_json::Value = serde_json::from_str(&run.wait().exits(0).stdout).unwrap();
    assert_eq!(listed[0]["rows"], 8 + 7);
}

#[test]
fn interrupted_twice_there_is_no_file_and_no_session_waits() {
    let given = Given::shop();
    let holder = Holder::of(&given, "LOCK TABLE tenant_acme.users IN ACCESS EXCLUSIVE MODE");
    let mut run = given.spawn(&["backup", "--all", "--out=b", "--jobs=1", "--lock-timeout=0"]);
    wait_for_a_lock(&given, 1);
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130).says("2 schemas: 0 backed up, 1 failed, 0 skipped, 1 not started");
    let left = fs::read_dir(given.dir.path().join("b")).unwrap().count();
    assert_eq!(left, 0);
    holder.let_go(&given);
}

#[test]
fn an_interrupted_pg_dump_leaves_no_process_and_no_file() {
    let given = Given::shop();
    let holder = Holder::of(&given, "LOCK TABLE tenant_acme.users IN ACCESS EXCLUSIVE MODE");
    let mut run = given.spawn(&["backup", "--tenant=acme", "--out=b", "--engine=pg_dump"]);
    eventually("pg_dump waits", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE %IN ACCESS SHARE MODE' AND datname = current_database()") == "1"
    });
    let folder = given.dir.path().join("b");
    let runs = || {
        let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap();
        String::from_utf8_lossy(&processes.stdout).contains(folder.to_str().unwrap())
    };
    assert!(runs());
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130);
    eventually("pg_dump has gone", || !runs());
    holder.let_go(&given);
    let left = fs::read_dir(given.dir.path().join("b")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn of_two_restores_at_once_exactly_one_wins() {
    let given = Given::shop();
    let file = back_up(&given, "acme");
    let path = file.to_str().unwrap();
    drop(&given, "acme");
    let runs = [given.spawn(&["restore", path]), given.spawn(&["restore", path])];
    let mut codes: Vec<_> = runs.into_iter().map(|run| run.wait().code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(7)]);
    assert_eq!(given.value("SELECT count(*) FROM tenants_tenant"), "2");
    given.run(&["status", "--verify"]).exits(0);
}

#[test]
fn a_catalog_of_other_tables_is_backed_up_and_restored_too() {
    let given = Given::nothing();
    given.file(
        "pricesync.toml",
        "[catalog]\ntenant_table = \"public.Accounts\"\nid_column = \"Account Id\"\nschema_column = \"Database\"\n\
         slug_column = \"\"\nname_column = \"\"\ncreated_column = \"\"\ndomain_table = \"\"\nschema_prefix = \"\"\n",
    );
    given.tenant_file("V1__t.sql", "CREATE TABLE t (a int)");
    given.database.execute(
        "CREATE TABLE \"Accounts\" (\"Account Id\" serial PRIMARY KEY, \"Database\" text UNIQUE, plan text); \
         CREATE SCHEMA a1; INSERT INTO \"Accounts\" (\"Database\", plan) VALUES ('a1', 'gold')",
    );
    given.run(&["migrate-schemas"]).exits(0);
    given.database.execute("INSERT INTO a1.t VALUES (1)");
    let file = back_up(&given, "a1");
    let before = given.dump(&[]);
    drop(&given, "a1");
    given.run(&["restore", file.to_str().unwrap()]).exits(0);
    similar(&before, &given.dump(&[]));
    given.run(&["restore", file.to_str().unwrap(), "--as", "a2"]).exits(0);
    assert_eq!(
        given.column(
            "SELECT concat_ws(' ', \"Account Id\", \"Database\", plan) FROM \"Accounts\" ORDER BY 1"
        ),
        ["1 a1 gold", "2 a2 gold"]
    );
}

#[test]
fn a_writer_of_a_shared_table_is_waited_for_without_reloading() {
    let given = Given::shop();
    given.file("pricesync.toml", "[run]\nlock_timeout = \"50ms\"\nlock_retries = 1000\n");
    given
        .database
        .execute("CREATE TABLE tenant_acme.tied (tenant bigint REFERENCES tenants_tenant (id))");
    let file = back_up(&given, "acme");
    let holder = Holder::of(&given, "UPDATE tenants_tenant SET name = name WHERE slug = 'globex'");
    let waits = |query: &str| {
        given.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{query}%' AND datname = current_database()")) == "1"
    };
    let run = given.spawn(&["restore", file.to_str().unwrap(), "--as", "copy"]);
    eventually("the restore pauses", || waits("ROLLBACK TO SAVEPOINT pricesync_after"));
    holder.let_go(&given);
    run.wait().exits(0);
    fs::remove_dir_all(given.dir.path().join("backups")).unwrap();
    let holder = Holder::of(&given, "UPDATE tenants_tenant SET name = name WHERE slug = 'globex'");
    let run = given.spawn(&["backup", "--tenant=acme", "--out=backups"]);
    eventually("the dry run pauses", || waits("ROLLBACK"));
    holder.let_go(&given);
    run.wait().exits(0);
}

/// Rows that refer to tenants: the tenant's own row, another's, no tenant's.
const REFERRING: &str = "CREATE TABLE tenant_acme.\"Sé \"\"t\"\" % '\" (\"Tén \"\"a\" bigint REFERENCES tenants_tenant, what text); \
     INSERT INTO tenant_acme.\"Sé \"\"t\"\" % '\" VALUES (1, 'own'), (2, 'other'), (NULL, 'none'); \
     CREATE TABLE tenant_acme.logged (what text); \
     CREATE FUNCTION tenant_acme.log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO logged VALUES (''changed''); RETURN NULL; END'; \
     CREATE TRIGGER log AFTER UPDATE ON tenant_acme.\"Sé \"\"t\"\" % '\" EXECUTE FUNCTION tenant_acme.log()";

fn referring(given: &Given, schema: &str) -> Vec<String> {
    given.column(&format!(
        "SELECT concat_ws(' ', what, \"Tén \"\"a\") FROM {schema}.\"Sé \"\"t\"\" % '\" \
         UNION ALL SELECT what FROM {schema}.logged ORDER BY 1"
    ))
}

#[test]
fn rows_that_refer_to_the_tenant_itself_do_so_in_a_copy() {
    let given = Given::shop();
    given.database.execute(REFERRING);
    let file = back_up(&given, "acme");
    let file = file.to_str().unwrap();
    given.run(&["clone-tenant", "--from=acme", "--slug=clone"]).exits(0);
    given.run(&["restore", file, "--as=copy"]).exits(0);
    assert_eq!(referring(&given, "tenant_acme"), ["none", "other 2", "own 1"]);
    assert_eq!(referring(&given, "tenant_clone"), ["none", "other 2", "own 3"]);
    assert_eq!(referring(&given, "tenant_copy"), ["none", "other 2", "own 4"]);
    // So each can go without the others.
    drop(&given, "acme");
    drop(&given, "clone");
    // It comes back, and its id belongs to another tenant by now.
    given.database.execute(
        "INSERT INTO tenants_tenant (id, schema_name, name, slug) OVERRIDING SYSTEM VALUE VALUES (1, 'tenant_x', 'X', 'x')",
    );
    given.run(&["restore", file]).exits(0);
    let id = given.value("SELECT id FROM tenants_tenant WHERE slug = 'acme'");
    assert!(id != "1");
    let own = format!("own {id}");
    assert_eq!(referring(&given, "tenant_acme"), ["none", "other 2", &own]);
}

#[test]
fn rows_whose_id_may_not_be_changed_stay_and_are_named() {
    for sql in [
        "CREATE TABLE tenant_acme.tied (tenant bigint REFERENCES tenants_tenant CHECK (tenant = 1)); \
         INSERT INTO tenant_acme.tied VALUES (1)",
        // Only one of the two has the key.
        "CREATE TABLE tenant_acme.tied (tenant bigint PRIMARY KEY REFERENCES tenants_tenant); \
         CREATE TABLE tenant_acme.deep (tenant bigint REFERENCES tenant_acme.tied); \
         INSERT INTO tenant_acme.tied VALUES (1); INSERT INTO tenant_acme.deep VALUES (1)",
        "CREATE TABLE tenant_acme.root (tenant bigint REFERENCES tenants_tenant) PARTITION BY LIST (tenant); \
         CREATE TABLE tenant_acme.tied PARTITION OF tenant_acme.root FOR VALUES IN (1); \
         INSERT INTO tenant_acme.root VALUES (1)",
    ] {
        let given = Given::shop();
        given.database.execute(sql);
        given
            .run(&["clone-tenant", "--from=acme", "--slug=copy"])
            .exits(0)
            .says("warning: rows still reference the id of the original tenant")
            .says("tied.tenant");
        assert_eq!(given.value("SELECT tenant FROM tenant_copy.tied"), "1");
        given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(7).says("in tenant_copy.");
    }
}

#[test]
fn default_privileges_are_not_those_that_were_backed_up() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TYPE tenant_acme.mood AS ENUM ('ok'); CREATE SEQUENCE tenant_acme.numbers; \
         CREATE FUNCTION tenant_acme.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
         CREATE TABLE tenant_acme.granted (id int); GRANT SELECT ON tenant_acme.granted TO PUBLIC",
    );
    let before = dumped(&given, "tenant_acme");
    let reader = format!("reporting_{}", std::process::id());
    given.database.execute(&format!(
        "CREATE ROLE {reader}; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {reader}; \
         ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO {reader}; ALTER DEFAULT PRIVILEGES GRANT USAGE ON TYPES TO {reader}; \
         ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {reader}"
    ));
    let file = back_up(&given, "acme");
    drop(&given, "acme");
    given.run(&["restore", file.to_str().unwrap()]).exits(0);
    let after = dumped(&given, "tenant_acme");
    given.database.execute(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
    similar(&before, &after);
}
