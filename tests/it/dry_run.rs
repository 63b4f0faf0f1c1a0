//! `--dry-run=execute` runs every file and keeps nothing.

use serde_json::Value;

use crate::support::pricesync::Given;

const CHANGE: &str = "\
ALTER TABLE products ADD COLUMN weight integer;
-- one of them has two of a kind
CREATE UNIQUE INDEX products_name_key ON products (name);
ALTER TABLE products ALTER COLUMN price TYPE numeric(14, 4) USING price * 2;
DELETE FROM products WHERE name = 'b';
";

fn fleet() -> Given {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.tenant_file(
        "V1__products.sql",
        "CREATE TABLE products (id int GENERATED ALWAYS AS IDENTITY, name text, price numeric(12, 2))",
    );
    given.run(&["migrate-schemas"]).exits(0);
    for schema in ["tenant_acme", "tenant_globex", "tenant_initech"] {
        let rows = format!("INSERT INTO {schema}.products (name, price) VALUES ('a', 1), ('b', 2)");
        given.database.execute(&rows);
    }
    given
}

fn statements(document: &Value) -> &Vec<Value> {
    document["statements"].as_array().unwrap()
}

#[test]
fn every_statement_is_tried_in_every_tenant_and_nothing_stays() {
    let given = fleet();
    given.database.execute("INSERT INTO tenant_globex.products (name, price) VALUES ('a', 3)");
    given.tenant_file("V2__change.sql", CHANGE);
    let before = given.dump_all(&[]);
    let run =
        given.run(&["migrate-schemas", "--dry-run=execute", "--on-failure=continue", "-o", "json"]);
    let run = run.exits(10).says("tenant_globex").says("V2__change.sql:3");
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["command"], "migrate-schemas --dry-run=execute");
    assert_eq!(document["counts"]["migrated"], 2);
    assert_eq!(document["counts"]["failed"], 1);
    assert_eq!(document["run"], Value::Null);
    let tried = statements(&document);
    assert_eq!(tried.len(), 4, "{tried:?}");
    for (statement, (line, locks)) in tried.iter().zip([
        (1, Some("ACCESS EXCLUSIVE")),
        // Weaker than what the first one holds already.
        (3, None),
        (4, None),
        (5, None),
    ]) {
        assert_eq!(statement["line"], line);
        assert_eq!(statement["schemas"], 2);
        assert!(statement["median"].as_f64().unwrap() > 0.0, "{statement}");
        match locks {
            Some(mode) => {
                assert_eq!(statement["locks"][0]["table"], "products");
                assert_eq!(statement["locks"][0]["mode"], mode);
            }
            None => assert_eq!(statement["locks"], serde_json::json!([])),
        }
    }
    assert_eq!(tried[0]["rewritten"], serde_json::json!([]));
    assert_eq!(tried[2]["rewritten"], serde_json::json!(["products"]));
    assert!(given.dump_all(&[]) == before, "something stayed");
    given.run(&["migrate-schemas", "--check"]).exits(3);
    given.database.execute("DELETE FROM tenant_globex.products WHERE price = 3");
    given
        .run(&["migrate-schemas", "--dry-run=execute"])
        .exits(0)
        .says("3 tried")
        .says("all rolled back")
        .prints("products: ACCESS EXCLUSIVE");
    given.run(&["migrate-schemas"]).exits(0);
}

#[test]
fn a_dry_run_ends_before_a_file_without_a_transaction() {
    let given = fleet();
    let index = "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY i ON products (name);";
    given.tenant_file("V2__before.sql", "ALTER TABLE products ADD COLUMN a int");
    given.tenant_file("V3__index.sql", index);
    given
        .run(&["migrate-schemas", "--dry-run=execute", "--tenant", "acme"])
        .exits(0)
        .says("1 tried");
    given.run(&["migrate-schemas", "--to", "2", "--tenant", "globex"]).exits(0);
    given
        .run(&["migrate-schemas", "--dry-run=execute", "--tenant", "globex"])
        .exits(0)
        .says("1 skipped")
        .says("without a transaction");
    assert_eq!(given.history("tenant_acme"), ["1"]);
    assert_eq!(given.history("tenant_globex"), ["1", "2"]);
}

#[test]
fn what_would_be_found_at_the_end_is_found() {
    let given = fleet();
    let deferred = "ALTER TABLE products ADD CONSTRAINT one UNIQUE (name) DEFERRABLE INITIALLY DEFERRED;\
                    INSERT INTO products (name) VALUES ('a');";
    given.tenant_file("V2__deferred.sql", deferred);
    given.run(&["migrate-schemas", "--dry-run=execute"]).exits(10).says("23505");
    given.tenant_file("V2__deferred.sql", "DO $$ BEGIN EXECUTE 'CREATE TABLE public.x ()'; END $$");
    given.run(&["migrate-schemas", "--dry-run=execute"]).exits(10).says("outside");
    assert_eq!(given.value("SELECT to_regclass('public.x') IS NULL"), "t");
    given.run(&["migrate-schemas", "--dry-run=execute", "--fake"]).exits(2).says("--fake");
}

#[test]
fn public_is_tried_first_and_an_empty_database_stays_empty() {
    let given = Given::shipped();
    given
        .run(&["migrate-schemas", "--dry-run=execute"])
        .exits(0)
        .says("1 tried")
        .prints("V1__tenants");
    assert_eq!(
        given.value("SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'pricesync')"),
        "0"
    );
}
