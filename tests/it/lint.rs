//! `lint`, and what a run warns of before it begins.

use serde_json::{Value, json};
use snapbox::{IntoData, assert_data_eq, str};

use crate::support::pricesync::Given;

/// A project with a shared table, a tenant table, and a file that does something to both.
fn project(text: &str) -> Given {
    let given = Given::nothing();
    given.shared_file("V1__plans.sql", "CREATE TABLE plans (id int PRIMARY KEY);\n");
    given.tenant_file("V1__orders.sql", "CREATE TABLE orders (id int PRIMARY KEY, plan int);\n");
    given.tenant_file("V2__change.sql", text);
    given
}

#[test]
fn a_finding_shows_its_line_what_it_costs_and_the_safer_form() {
    let given =
        project("-- A plan for each order.\nALTER TABLE orders ALTER COLUMN plan SET NOT NULL;\n");
    let told = given.run(&["lint"]).exits(0);
    assert_data_eq!(
        told.stdout,
        str![[r#"
migrations/tenant/V2__change.sql:2:20: warning: SET NOT NULL reads every row of orders for plan [set-not-null]
  2 | ALTER TABLE orders ALTER COLUMN plan SET NOT NULL;
    |                    ^
  cost: the table cannot be read or written meanwhile
  safer: ADD CONSTRAINT ... CHECK (plan IS NOT NULL) NOT VALID, VALIDATE CONSTRAINT in a file that begins with '-- pricesync: no-transaction', then SET NOT NULL, which skips the scan

"#]]
        .raw()
    );
    assert_eq!(told.stderr, "1 finding: 0 errors, 1 warning, 0 hints\n");
}

#[test]
fn findings_are_exit_2_only_where_they_are_denied() {
    let given = project("ALTER TABLE orders DROP COLUMN plan;\n");
    for (options, code) in [
        (&["lint"][..], 0),
        (&["lint", "--deny", "error"], 0),
        (&["lint", "--deny", "warning"], 2),
        (&["lint", "--deny", "hint"], 2),
    ] {
        given.run(options).exits(code).prints("[breaks-running-code]");
    }
    given.tenant_file(
        "V2__change.sql",
        "-- pricesync: allow breaks-running-code\nALTER TABLE orders DROP COLUMN plan;\n",
    );
    given.run(&["lint", "--deny=hint"]).exits(0).prints_nothing().says("nothing found");
}

#[test]
fn it_needs_no_database() {
    let given = project("SELECT 1;\n");
    let output = given.command(&["lint"]).env_remove("PRICESYNC_DATABASE_URL").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_unknown_allowed_rule_stops_lint_but_no_run() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__a.sql", "-- pricesync: allow drop-table\nCREATE TABLE a (id int);\n");
    given
        .run(&["lint"])
        .exits(2)
        .says("migrations/tenant/V1__a.sql:1:1: unknown lint rule 'drop-table'");
    given.run(&["migrate-schemas"]).exits(0);
}

#[test]
fn only_the_files_that_were_named_are_judged() {
    let given = project("DROP TABLE orders;\n");
    given.tenant_file("deep/V3__more.sql", "TRUNCATE orders;\n");
    given
        .run(&["lint", "migrations/tenant/deep"])
        .exits(0)
        .prints("[truncate]")
        .never_says("breaks-running-code");
    given
        .run(&["lint", "migrations/tenant/V2__change.sql"])
        .exits(0)
        .prints("[breaks-running-code]")
        .never_says("truncate");
    given.run(&["lint", "README.md"]).exits(2).says("README.md is not a migration of either set");
}

#[test]
fn the_document_holds_every_finding_with_its_place() {
    let given = project("UPDATE plans SET id = 1;\n");
    let told = given.run(&["lint", "-o", "json"]).exits(0);
    let document: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(document["counts"], json!({"error": 1, "warning": 0, "hint": 0}));
    let finding = &document["findings"][0];
    assert_eq!(finding["file"], json!("migrations/tenant/V2__change.sql"));
    assert_eq!(finding["line"], json!(1));
    assert_eq!(finding["column"], json!(8));
    assert_eq!(finding["rule"], json!("outside-schema"));
    assert_eq!(finding["set"], json!("tenant"));
    assert_eq!(finding["severity"], json!("error"));
}

#[test]
fn the_rules_are_listed() {
    given_rules("table").prints("┆ warning").prints("fk-to-shared");
    let listed = given_rules("json").stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert!(listed.as_array().unwrap().len() > 12);
}

fn given_rules(format: &str) -> crate::support::pricesync::Told {
    Given::nothing().run(&["lint", "--rules", "-o", format]).exits(0)
}

#[test]
fn pending_files_that_share_a_transaction_are_judged_together() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__old.sql", "CREATE TABLE old (id int);\nDROP TABLE old;\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file(
        "V2__key.sql",
        "CREATE TABLE orders (tenant bigint REFERENCES public.tenants_tenant (id));\n",
    );
    given.tenant_file("V3__index.sql", "CREATE INDEX orders_idx ON orders (tenant);\n");
    let alone = given.run(&["lint"]).exits(0);
    alone
        .prints("V3__index.sql:1:1: warning")
        .prints("[index-without-concurrently]")
        .never_says("fk-to-shared");
    given
        .run(&["lint", "--pending"])
        .exits(0)
        .prints("V2__key.sql:1:")
        .prints("1 statement follows, including another file [fk-to-shared]")
        .never_says("index-without-concurrently");
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["lint", "--pending"]).exits(0).says("nothing found");
}

#[test]
fn the_cost_of_a_finding_is_measured_without_traces() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.tenant_file("V2__b.sql", "ALTER TABLE a ADD COLUMN b int DEFAULT 1;\n");
    given
        .run(&["lint", "--fleet"])
        .exits(0)
        .prints("forecast: measured here: ")
        .prints(" ms in each of 2 schemas, ")
        .prints("ADD COLUMN, then SET DEFAULT: ");
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pricesync_%'";
    assert_eq!(given.column(schemas), Vec::<String>::new());
}

#[test]
fn a_run_warns_once_of_what_grows_with_the_fleet() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file(
        "V1__orders.sql",
        "CREATE TABLE orders (tenant bigint REFERENCES tenants_tenant (id));\nCREATE INDEX ON orders (tenant);\n",
    );
    given.run(&["migrate-schemas", "--tenant=acme", "-q"]).exits(0).never_says("foreign key");
    given.run(&["migrate-schemas"]).exits(0).never_says("foreign key");
    given.database.execute("DROP SCHEMA tenant_acme CASCADE; CREATE SCHEMA tenant_acme; DROP SCHEMA tenant_globex CASCADE; CREATE SCHEMA tenant_globex");
    let told = given.run(&["migrate-schemas"]).exits(0).says(
        "warning: migrations/tenant/V1__orders.sql:1: the foreign key locks public.tenants_tenant against writes until COMMIT, and 1 statement follows [fk-to-shared]",
    );
    assert_eq!(told.stderr.matches("fk-to-shared").count(), 1);
    given.run(&["migrate-schemas"]).exits(0).never_says("fk-to-shared");
}

#[test]
fn the_safer_forms_run_and_nothing_is_found_in_them() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file(
        "V1__orders.sql",
        "CREATE TABLE orders (id int PRIMARY KEY, tenant bigint, note text);\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
    given
        .database
        .execute("INSERT INTO tenant_acme.orders SELECT 1, id, 'x' FROM tenants_tenant LIMIT 1");
    let apart = "-- pricesync: no-transaction\n";
    for (name, text) in [
        (
            "V2__days.sql",
            "ALTER TABLE orders ADD COLUMN days int;\nALTER TABLE orders ALTER COLUMN days SET DEFAULT 14;\n",
        ),
        (
            "V3__checks.sql",
            "ALTER TABLE orders ADD CONSTRAINT orders_note CHECK (note IS NOT NULL) NOT VALID;\nALTER TABLE orders ADD CONSTRAINT orders_tenant FOREIGN KEY (tenant) REFERENCES public.tenants_tenant NOT VALID;\n",
        ),
        (
            "V4__validate.sql",
            &format!(
                "{apart}ALTER TABLE orders VALIDATE CONSTRAINT orders_note;\nALTER TABLE orders VALIDATE CONSTRAINT orders_tenant;\n"
            ),
        ),
        ("V5__not_null.sql", "ALTER TABLE orders ALTER COLUMN note SET NOT NULL;\n"),
        (
            "V6__index.sql",
            &format!(
                "{apart}CREATE INDEX CONCURRENTLY orders_idx ON orders (tenant);\nCREATE UNIQUE INDEX CONCURRENTLY orders_key ON orders (note);\n"
            ),
        ),
        (
            "V7__unique.sql",
            "ALTER TABLE orders ADD CONSTRAINT orders_note_key UNIQUE USING INDEX orders_key;\n",
        ),
    ] {
        given.tenant_file(name, text);
    }
    given.run(&["lint", "--deny=warning"]).exits(0);
    given.run(&["lint", "--pending", "--deny=warning"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0).never_says("warning");
    assert_eq!(given.history("tenant_acme"), ["1", "2", "3", "4", "5", "6", "7"]);
}

#[test]
fn a_run_warns_of_a_default_in_a_large_fleet_only() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__b.sql", "ALTER TABLE a ADD COLUMN b int DEFAULT 1;\n");
    let warned = "column b is added to a together with its default";
    given.run(&["migrate-schemas"]).exits(0).never_says(warned);
    given.database.execute(
        "INSERT INTO tenants_tenant (name, slug, schema_name) \
         SELECT 't' || n, 't' || n, 'tenant_t' || n FROM generate_series(1, 100) n; \
         DO $$ BEGIN FOR n IN 1..100 LOOP EXECUTE 'CREATE SCHEMA tenant_t' || n; END LOOP; END $$",
    );
    given.run(&["migrate-schemas", "--progress=json"]).exits(0).never_says("warning:");
    given.tenant_file("V3__c.sql", "ALTER TABLE a ADD COLUMN c int DEFAULT 1;\n");
    given
        .run(&["migrate-schemas"])
        .exits(0)
        .says("warning: migrations/tenant/V3__c.sql:1: column c is added to a together with its default [add-column-default]");
}
