//! `migrate-schemas`: what runs where, and what a failure leaves behind.

use crate::support::pricesync::{Counts, Given, NONE};

const SHIPPED_SHARED: [&str; 4] = ["1", "2", "3", "4"];
const SHIPPED_TENANT: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];

/// The shipped migrations with `public` migrated and two tenants waiting.
fn two_shops() -> Given {
    let given = Given::shipped();
    given.run(&["migrate-schemas", "--shared"]).exits(0);
    given.tenant_in("acme", "tenant_acme");
    given.tenant_in("globex", "tenant_globex");
    given
}

#[test]
fn a_fresh_database_gets_public_and_then_every_tenant() {
    let given = Given::shipped();
    given
        .run(&["migrate-schemas"])
        .exits(0)
        .counts(Counts { migrated: 1, ..NONE })
        .prints_nothing();
    assert_eq!(given.history("public"), SHIPPED_SHARED);
    given.tenant_in("acme", "tenant_acme");
    given.tenant_in("globex", "tenant_globex");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
    for schema in ["tenant_acme", "tenant_globex"] {
        assert_eq!(given.history(schema), SHIPPED_TENANT);
        assert!(given.relations(schema, 'r').contains(&"products".to_owned()));
    }
    assert!(!given.relations("public", 'r').contains(&"products".to_owned()));
}

#[test]
fn a_second_run_has_nothing_to_do_and_changes_nothing() {
    let given = two_shops();
    given.run(&["migrate-schemas"]).exits(0);
    let before = given.dump(&[]);
    given
        .run(&["migrate-schemas"])
        .exits(0)
        .counts(Counts { up_to_date: 3, ..NONE })
        .prints_nothing();
    assert_eq!(given.dump(&[]), before);
}

#[test]
fn shared_and_tenant_migrate_only_what_they_name() {
    let given = two_shops();
    given.shared_file("V5__more.sql", "CREATE TABLE more (id int)");
    given.run(&["migrate-schemas", "--shared"]).exits(0).counts(Counts { migrated: 1, ..NONE });
    assert!(given.relations("tenant_acme", 'r').is_empty());
    given.shared_file("V6__even_more.sql", "CREATE TABLE even_more (id int)");
    given
        .run(&["migrate-schemas", "--tenant=acme"])
        .exits(0)
        .counts(Counts { migrated: 1, ..NONE });
    assert_eq!(given.history("tenant_acme"), SHIPPED_TENANT);
    assert!(given.relations("tenant_globex", 'r').is_empty());
    assert_eq!(given.history("public"), ["1", "2", "3", "4", "5"]);
}

#[test]
fn the_guide_s_spellings_do_the_same() {
    let given = two_shops();
    given.run(&["migrate", "--tenant=acme"]).exits(0).counts(Counts { migrated: 1, ..NONE });
    given
        .run(&["migrate_schemas", "--tenant=tenant_globex"])
        .exits(0)
        .counts(Counts { migrated: 1, ..NONE });
    given.run(&["migrate_schemas"]).exits(0).counts(Counts { up_to_date: 3, ..NONE });
}

#[test]
fn tenants_are_chosen_by_slug_schema_host_and_glob() {
    let given = Given::tenants(&["acme", "apex", "globex", "initech"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int)");
    given.database.execute(
        "INSERT INTO tenants_domain (domain, tenant_id) SELECT 'shop.globex.example', id FROM tenants_tenant WHERE slug = 'globex'",
    );
    let listed = |args: &[&str]| {
        let all = [&["migrate-schemas", "--dry-run"], args].concat();
        let told = given.run(&all).exits(0);
        ["acme", "apex", "globex", "initech"]
            .into_iter()
            .filter(|slug| told.stdout.contains(&format!("tenant_{slug}")))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(&["--tenant", "a*"]), ["acme", "apex"]);
    assert_eq!(listed(&["--tenant", "shop.globex.example"]), ["globex"]);
    assert_eq!(listed(&["--tenant", "acme,tenant_initech"]), ["acme", "initech"]);
    assert_eq!(listed(&["-t", "acme", "-t", "apex"]), ["acme", "apex"]);
    assert_eq!(listed(&["--exclude", "a*,globex"]), ["initech"]);
    assert_eq!(listed(&["--tenant", "a*", "--exclude", "tenant_apex"]), ["acme"]);
}

#[test]
fn an_unknown_tenant_is_an_error_and_nothing_runs() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int)");
    given
        .run(&["migrate-schemas", "--tenant=acme,acne"])
        .exits(4)
        .says("acne")
        .says("did you mean acme?");
    // A prefix or a number names no tenant.
    given.run(&["migrate-schemas", "--tenant=acm"]).exits(4);
    given.run(&["migrate-schemas", "--tenant=1"]).exits(4);
    assert!(given.relations("tenant_acme", 'r').is_empty());
}

#[test]
fn check_tells_whether_something_is_pending_and_touches_nothing() {
    let given = Given::shipped();
    given.run(&["migrate-schemas", "--check"]).exits(3).says("1 with pending");
    assert!(given.relations("public", 'r').is_empty());
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_in("acme", "tenant_acme");
    given.run(&["migrate-schemas", "--check"]).exits(3).says("2 schemas: 1 with pending");
    assert!(given.relations("tenant_acme", 'r').is_empty());
    given.run(&["migrate-schemas", "--check", "--shared"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["migrate-schemas", "--check"]).exits(0);
}

#[test]
fn a_dry_run_lists_what_would_run_where_and_touches_nothing() {
    let given = two_shops();
    let before = given.dump(&[]);
    let told = given
        .run(&["migrate-schemas", "--dry-run"])
        .exits(0)
        .prints("tenant_acme")
        .prints("tenant_globex")
        .prints("V1__users")
        .prints("migrations/tenant/users/V8__user_locale.sql");
    assert!(!told.stdout.contains("V1__tenants"));
    assert_eq!(given.dump(&[]), before);
}

#[test]
fn the_printed_sql_run_by_psql_makes_what_a_real_run_makes() {
    let (by_us, by_psql) = (two_shops(), two_shops());
    by_us.run(&["migrate-schemas"]).exits(0);
    let sql = by_psql.run(&["migrate-schemas", "--dry-run=sql"]).exits(0).stdout;
    by_psql.file("run.sql", sql);
    let path = by_psql.dir.path().join("run.sql");
    by_psql.database.psql(&["-f", path.to_str().unwrap()]);
    let schemas = ["-n", "tenant_acme", "-n", "tenant_globex", "-s"];
    assert_eq!(by_psql.dump(&schemas), by_us.dump(&schemas));
    assert_eq!(by_psql.history("tenant_globex"), SHIPPED_TENANT);
    by_psql.run(&["migrate-schemas", "--check"]).exits(0);
}

#[test]
fn to_goes_no_further_than_a_version() {
    let given = two_shops();
    given
        .run(&["migrate-schemas", "--tenant=acme", "--to=5"])
        .exits(0)
        .counts(Counts { migrated: 1, ..NONE });
    assert_eq!(given.history("tenant_acme"), ["1", "2", "3", "4", "5"]);
    given
        .run(&["migrate-schemas", "--tenant=acme", "--to", "99"])
        .exits(2)
        .says("99")
        .says("the newest version is 8");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_acme"), SHIPPED_TENANT);
}

#[test]
fn fake_writes_histories_and_runs_nothing() {
    let given = two_shops();
    given.run(&["migrate-schemas", "--fake", "--tenant=acme"]).exits(0);
    assert_eq!(given.history("tenant_acme"), SHIPPED_TENANT);
    assert_eq!(given.relations("tenant_acme", 'r'), ["refinery_schema_history"]);
    given
        .run(&["migrate-schemas", "--tenant=acme"])
        .exits(0)
        .counts(Counts { up_to_date: 1, ..NONE });
}

/// Three tenants, of which the second has data that V2 does not like.
fn one_bad_tenant() -> Given {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int)");
    given.run(&["migrate-schemas"]).exits(0);
    given.database.execute("INSERT INTO tenant_globex.a VALUES (7), (7)");
    given.tenant_file(
        "V2__b.sql",
        "CREATE TABLE b (id int);\n\n  CREATE UNIQUE INDEX a_id ON a (id);\n",
    );
    given
}

#[test]
fn with_continue_one_tenant_fails_alone_with_its_cause() {
    let given = one_bad_tenant();
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 2, up_to_date: 1, failed: 1, ..NONE })
        .says("migrations/tenant/V2__b.sql:3")
        .says("23505")
        .says("Key (id)=(7) is duplicated.")
        .says("rerun with --tenant=globex");
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
    assert_eq!(given.history("tenant_initech"), ["1", "2"]);
    assert_eq!(given.history("tenant_globex"), ["1"]);
    assert!(!given.relations("tenant_globex", 'r').contains(&"b".to_owned()));
    // Mended, the advice of the summary finishes the work.
    given.database.execute(
        "DELETE FROM tenant_globex.a WHERE ctid = (SELECT min(ctid) FROM tenant_globex.a)",
    );
    given
        .run(&["migrate-schemas", "--tenant=globex"])
        .exits(0)
        .counts(Counts { migrated: 1, ..NONE });
}

#[test]
fn with_stop_nothing_starts_after_the_failing_tenant() {
    let given = one_bad_tenant();
    given
        .run(&["migrate-schemas", "--jobs", "1", "--on-failure", "stop"])
        .exits(10)
        .counts(Counts { migrated: 1, up_to_date: 1, failed: 1, not_started: 1, ..NONE });
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
    assert_eq!(given.history("tenant_initech"), ["1"]);
}

#[test]
fn a_failing_public_ends_the_run_before_any_tenant() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int)");
    given.shared_file("V2__bad.sql", "SELECT 1/0");
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { failed: 1, not_started: 1, ..NONE })
        .says("22012");
    assert!(given.relations("tenant_acme", 'r').is_empty());
}

#[test]
fn an_error_is_shown_with_line_column_and_caret() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file(
        "V1__a.sql",
        "-- Äpfel\nCREATE TABLE a (id int);\nINSERT INTO á SELECT 'ồ', nowhere FROM b;\n",
    );
    given.run(&["migrate-schemas"]).exits(10).says(
        "V1__a failed at migrations/tenant/V1__a.sql:3:13\n  3 | INSERT INTO á SELECT 'ồ', nowhere FROM b;\n    |             ^\n",
    );
}

/// The server reports a line of the block and a position in the statement that failed.
#[test]
fn an_error_in_a_do_block_is_shown_at_its_line() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__t.sql", "CREATE TABLE t (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file(
        "V2__b.sql",
        "DO $$\nBEGIN\n  PERFORM 1;\n  INSERT INTO t SELECT no_such FROM t;\nEND $$;\n",
    );
    let place = "V2__b failed at migrations/tenant/V2__b.sql:4:24\n  \
                 4 |   INSERT INTO t SELECT no_such FROM t;\n    |                        ^\n";
    let create: &[&str] = &["create-tenant", "--name", "New", "--slug", "new"];
    for args in [&["migrate-schemas"][..], &["migrate-schemas", "--dry-run=execute"], create] {
        given.run(args).exits(10).says(place).never_says("context:");
    }
    let context = "PL/pgSQL function inline_code_block line 4 at SQL statement";
    let verbose: [&[&str]; 2] =
        [&["-v", "migrate-schemas"], &["-v", "migrate-schemas", "--dry-run=execute"]];
    for args in verbose {
        given.run(args).exits(10).says(place).says(&format!("  context: {context}\n"));
    }
    let told = given.run(&["migrate-schemas", "-o", "json"]).exits(10);
    let document: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(document["failures"][0]["error"]["error"]["context"], context);
    // A file that the parser does not confirm is wrapped in DO itself.
    let long = format!("SELECT 1{};\n", "+1".repeat(1_200));
    let block = "DO $$ BEGIN\n  PERFORM no_such FROM t;\nEND $$;\n";
    given.tenant_file("V2__b.sql", format!("{long}{block}"));
    let place = "V2__b.sql:3:11\n  3 |   PERFORM no_such FROM t;\n    |           ^\n";
    for args in [&["migrate-schemas"][..], &["migrate-schemas", "--dry-run=execute"]] {
        given.run(args).exits(10).says(place);
    }
    // A block that fails without a position, below other statements and without a transaction.
    given.tenant_file(
        "V2__b.sql",
        "-- pricesync: no-transaction\n\nSELECT 1;\nDO $$\nBEGIN\n  RAISE EXCEPTION 'stop';\nEND $$;\n",
    );
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .says("V2__b.sql:6:3\n  6 |   RAISE EXCEPTION 'stop';\n    |   ^\n");
}

/// An empty schema gets the files that only define in one message.
#[test]
fn of_several_files_the_one_that_failed_is_named() {
    for (third, place, cause) in [
        // Not to be read: the server refuses the message before any of it is run.
        ("CREATE TABLE c (\n  id int,,);", "V3__c.sql:2:10", "42601"),
        // A position.
        ("-- Äpfel\nCREATE TABLE c (id nowhere);", "V3__c.sql:2:20", "42704"),
        // None: the statement is found by how many were answered.
        ("CREATE TABLE c (id int);\n\nCREATE TABLE a (id int)", "V3__c.sql:3", "42P07"),
    ] {
        let given = Given::tenants(&["acme"]);
        given.tenant_file("V1__a.sql", "CREATE TABLE a (tên text DEFAULT 'ồ') -- no semicolon");
        given.tenant_file("V2__b.sql", "CREATE TABLE b (id int); CREATE INDEX ON b (id);");
        given.tenant_file("V3__c.sql", third);
        given.tenant_file("V4__d.sql", "CREATE TABLE d (id int)");
        given
            .run(&["migrate-schemas"])
            .exits(10)
            .says(&format!("V3__c failed at migrations/tenant/{place}"))
            .says(cause);
        assert!(given.relations("tenant_acme", 'r').is_empty());
        given.tenant_file("V3__c.sql", "CREATE TABLE c (id int); INSERT INTO c VALUES (1)");
        given.run(&["migrate-schemas"]).exits(0).counts(Counts {
            migrated: 1,
            up_to_date: 1,
            ..NONE
        });
        assert_eq!(given.history("tenant_acme"), ["1", "2", "3", "4"]);
    }
}

#[test]
fn equal_errors_are_grouped_in_the_summary() {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.tenant_file("V1__a.sql", "SELECT 1/0");
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { up_to_date: 1, failed: 3, ..NONE })
        .says("3 schemas: tenant_acme, tenant_globex, tenant_initech");
}

#[test]
fn a_missing_schema_is_that_tenant_s_failure_alone() {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int)");
    given.database.execute("DROP SCHEMA tenant_globex");
    // Whatever on_failure says: it was known before the run began.
    given
        .run(&["migrate-schemas", "--on-failure", "stop", "--jobs", "1"])
        .exits(10)
        .counts(Counts { migrated: 2, up_to_date: 1, failed: 1, ..NONE })
        .says("pricesync doctor --fix missing");
    assert_eq!(given.history("tenant_initech"), ["1"]);
    assert_eq!(
        given.column("SELECT nspname FROM pg_namespace WHERE nspname = 'tenant_globex'"),
        Vec::<String>::new()
    );
    assert!(!given.relations("public", 'r').contains(&"a".to_owned()));
}

#[test]
fn pending_files_share_a_transaction_unless_atomic_is_migration() {
    for (atomic, left) in [("schema", vec![]), ("migration", vec!["1"])] {
        let given = Given::tenants(&["acme"]);
        given.file("pricesync.toml", format!("[run]\natomic = \"{atomic}\"\n"));
        given.tenant_file("V1__a.sql", "CREATE TABLE a (id int)");
        given.tenant_file("V2__b.sql", "SELECT 1/0");
        given.run(&["migrate-schemas"]).exits(10);
        let there = given.relations("tenant_acme", 'r');
        let history = if there.is_empty() { Vec::new() } else { given.history("tenant_acme") };
        assert_eq!(history, left, "atomic = {atomic}");
    }
}

#[test]
fn an_empty_fleet_is_done() {
    let given = Given::tenants(&[]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int)");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { up_to_date: 1, ..NONE });
}

#[test]
fn a_64_bit_version_and_a_plain_one_follow_each_other() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V20261123101500__late.sql", "ALTER TABLE a ADD b int");
    given.tenant_file("V9__early.sql", "CREATE TABLE a (id int)");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_acme"), ["9", "20261123101500"]);
}

#[test]
fn rows_that_a_file_asks_for_are_nobody_s_whatever_their_shape() {
    let given = Given::tenants(&["acme"]);
    let rows = "SELECT; SELECT NULL; SELECT 1, 2, 3, 4, 5, 6, 7, true; VALUES ('pricesync-0');";
    given.tenant_file("V1__rows.sql", rows);
    given.tenant_file("V2__more.sql", "CREATE TABLE a (id int); SELECT FROM (VALUES (1), (2)) v");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
}

#[test]
fn exit_5_is_no_server_and_exit_2_no_database_url() {
    let given = Given::tenants(&[]);
    let unreachable = "postgresql://nobody@127.0.0.1:1/x?connect_timeout=2";
    given.run(&["migrate-schemas", "-d", unreachable]).exits(5).says("127.0.0.1");
    let output =
        given.command(&["migrate-schemas"]).env_remove("PRICESYNC_DATABASE_URL").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("DATABASE_URL"), "{said}");
}

#[test]
fn a_missing_relation_is_reported_with_its_defining_file() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V2__uses.sql", "INSERT INTO \"Giá\" VALUES (1);\n");
    given.tenant_file("V3__prices.sql", "CREATE TABLE \"Giá\" (id int);\n");
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .says("relation \"Giá\" does not exist (42P01)")
        .says(
            "hint: V3__prices, a later file, creates it; a file can use only what earlier files create",
        )
        .says(
            "names were looked up in tenant_acme, then in [run] search_path; nothing of this run",
        );

    given.tenant_file("V2__uses.sql", "CREATE VIEW one AS SELECT 1 AS id;\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.database.execute("DROP TABLE tenant_acme.\"Giá\"; DROP VIEW tenant_acme.one");
    given.tenant_file("V4__index.sql", "CREATE INDEX ON \"Giá\" (id);\n");
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .says("hint: V3__prices creates it and is recorded as applied, so it was dropped or renamed later");
    given.tenant_file("V4__index.sql", "SELECT * FROM one;\n");
    given.run(&["migrate-schemas"]).exits(10).says(
        "hint: V2__uses creates it and is recorded as applied, so it was dropped or renamed later",
    );

    given.tenant_file("V4__index.sql", "ALTER TABLE pricse ADD COLUMN a int;\n");
    given.run(&["migrate-schemas"]).exits(10).says(
        "hint: no CREATE TABLE or CREATE VIEW in the migration files creates it; check the name",
    );
}

#[test]
fn what_the_files_do_not_tell_of_a_missing_relation_is_not_said() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__prices.sql", "CREATE TABLE prices (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    for (file, why) in [
        ("CREATE TABLE t (id int); SELECT prices.id FROM t", "an alias"),
        ("DROP TABLE prices; SELECT * FROM prices", "the file itself dropped it"),
        ("SELECT * FROM was; CREATE TABLE a (id int); ALTER TABLE a RENAME TO was", "renamed"),
        (
            "DO $$ BEGIN IF false THEN EXECUTE 'CREATE TABLE x ()'; END IF; END $$; SELECT * FROM x",
            "code",
        ),
    ] {
        given.tenant_file("V2__fails.sql", format!("{file};\n"));
        let told = given.run(&["migrate-schemas"]).exits(10).says("(42P01)");
        assert!(!told.stderr.contains("makes it"), "{why}: {}", told.stderr);
    }
}
