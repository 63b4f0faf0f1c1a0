//! A tenant that is made from nothing equals one that lived through every release.

use crate::support::contents::{contents, difference, everything_after};
use crate::support::pricesync::Given;

/// What `pricesync.toml` says about transactions.
const SETTINGS: [&str; 3] = [
    "[run]\ngroup_size = 1\ntemplate = \"off\"\n",
    "[run]\ngroup_size = 16\n",
    "[run]\natomic = \"migration\"\n",
];

/// Takes a set, of which each file is a release, to tenants in every way, and compares them.
fn are_equal(files: &[&str]) {
    for settings in SETTINGS {
        let given = Given::tenants(&["lived1", "lived2", "lived3", "late"]);
        given.file("pricesync.toml", settings);
        for (version, sql) in (1..).zip(files) {
            given.tenant_file(&format!("V{version}__release.sql"), sql);
            // One tenant misses all releases but the first.
            let exclude = if version == 1 { "none*" } else { "late" };
            given.run(&["migrate-schemas", "--jobs=1", "--exclude", exclude]).exits(0);
        }
        let create = |slug: &str, more: &[&str]| {
            let args = ["create-tenant", "--name", slug, "--slug", slug];
            given.run(&[&args[..], more].concat()).exits(0);
        };
        create("made", &[]);
        // The first one stores the template that the second one uses, if there is one.
        create("again", &[]);
        given.database.execute("CREATE SCHEMA bare");
        create("adopted", &["--schema", "bare", "--adopt"]);
        given.tenant_in("empty", "tenant_empty");
        given.run(&["migrate-schemas"]).exits(0);
        let expected = contents(&given, "tenant_lived1", &[]);
        let everything = everything_after(&given, "tenant_lived1", "");
        let schemas = given.column("SELECT schema_name FROM tenants_tenant ORDER BY 1");
        assert_eq!(schemas.len(), 8);
        for schema in schemas {
            let found = difference(&expected, &contents(&given, &schema, &[]));
            assert_eq!(found, None, "{schema}, with {settings}");
            let of_schema = everything_after(&given, &schema, "");
            let found = everything.first_difference(&of_schema);
            assert_eq!(found, None, "{schema}, with {settings}");
        }
        given.run(&["drift"]).exits(0);
        given.run(&["status", "--verify"]).exits(0);
        given.run(&["doctor"]).exits(0);
    }
}

const TYPE: &str = "CREATE TYPE st AS ENUM ('a'); CREATE TABLE t (id serial, s st);";

#[test]
fn tables_and_seeds_are_equal_in_every_way() {
    are_equal(&[
        "CREATE TABLE t (id serial PRIMARY KEY, name text); INSERT INTO t (name) VALUES ('a');",
        "ALTER TABLE t ADD length int DEFAULT 1; UPDATE t SET length = 2;",
        "CREATE TYPE st AS ENUM ('a'); ALTER TABLE t ADD s st DEFAULT 'a';",
        "DO $$ BEGIN INSERT INTO t (name) VALUES ('c'); END $$;",
    ]);
}

#[test]
fn files_without_a_transaction_are_equal_in_every_way() {
    are_equal(&[
        "CREATE TABLE t (id int);",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY t_id ON t (id);",
        "INSERT INTO t VALUES (1);",
        "-- pricesync: no-transaction\nDROP INDEX CONCURRENTLY t_id; CREATE INDEX CONCURRENTLY t_desc ON t (id DESC);",
    ]);
}

#[test]
fn added_enum_values_are_equal_in_every_way() {
    are_equal(&[
        TYPE,
        "ALTER TYPE st ADD VALUE 'b';",
        "INSERT INTO t (s) VALUES ('b');",
        "ALTER TYPE st ADD VALUE IF NOT EXISTS 'c' BEFORE 'b'; ALTER TYPE st RENAME VALUE 'a' TO 'z';",
        "CREATE TABLE u (s st DEFAULT 'c', CHECK (s <> 'z')); INSERT INTO u DEFAULT VALUES;",
    ]);
}

#[test]
fn enum_values_that_code_adds_are_equal_in_every_way() {
    are_equal(&[
        TYPE,
        "DO $$ BEGIN EXECUTE 'ALTER TYPE st ADD VALUE ''b'''; END $$;",
        "CREATE FUNCTION use_it() RETURNS void LANGUAGE sql AS $$ INSERT INTO t (s) VALUES ('b') $$;",
        "SELECT use_it();",
    ]);
}

#[test]
fn enum_values_and_no_transaction_files_are_equal_every_way() {
    are_equal(&[
        TYPE,
        "ALTER TYPE st ADD VALUE 'b';",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY t_s ON t (s) WHERE s = 'b';",
        "INSERT INTO t (s) VALUES ('b');",
        "ALTER TYPE st ADD VALUE 'c';",
        "INSERT INTO t (s) VALUES ('c');",
    ]);
}

#[test]
fn rows_and_sequences_belong_to_what_is_compared() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__t.sql", "CREATE TABLE t (t serial, \"%L\" text); CREATE TABLE u ();");
    given.run(&["migrate-schemas"]).exits(0);
    let after = |change: &str| everything_after(&given, "tenant_acme", change);
    let before = after("");
    for (change, line) in [
        ("ALTER TABLE t ADD c int", "column t 3 c "),
        ("INSERT INTO t VALUES (1, 'a')", "rows t 1 "),
        ("INSERT INTO u DEFAULT VALUES", "rows u 1 "),
        ("SELECT nextval('t_t_seq')", "at t_t_seq 1 t"),
    ] {
        let after = after(change);
        let found: Vec<_> =
            after.lines().iter().filter(|it| !before.lines().contains(it)).collect();
        assert!(found.iter().any(|it| it.starts_with(line)), "{change}: {found:?}");
    }
    let one = after("INSERT INTO t VALUES (1, 'a'), (2, NULL)");
    assert_eq!(one, after("INSERT INTO t VALUES (2, NULL); INSERT INTO t VALUES (1, 'a')"));
    assert_ne!(one, after("INSERT INTO t VALUES (2, NULL), (1, 'b')"));
}
