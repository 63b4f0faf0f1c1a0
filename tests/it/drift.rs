//! `drift`: tenants that are not made like the others.

use serde_json::Value;

use crate::support::pricesync::Given;

fn fleet() -> Given {
    let given = Given::tenants(&["a", "b", "c", "d"]);
    given.tenant_file(
        "V1__t.sql",
        "CREATE TABLE t (id int PRIMARY KEY, name text); CREATE INDEX t_name ON t (name);",
    );
    given.run(&["migrate-schemas"]).exits(0);
    given
}

#[test]
fn schemas_that_are_made_alike_are_no_drift_whatever_is_in_them() {
    let given = fleet();
    given.database.execute("INSERT INTO tenant_a.t VALUES (1, 'x'); DELETE FROM tenant_b.t");
    given.run(&["drift"]).exits(0).says("4 compared");
    given.run(&["drift", "-o", "names"]).exits(0).prints_nothing();
}

#[test]
fn an_index_may_call_a_function_that_needs_public() {
    let given = Given::tenants(&["a", "b"]);
    given.database.execute(
        "CREATE FUNCTION public.nothing() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 0'",
    );
    given.tenant_file(
        "V1__t.sql",
        "CREATE TABLE t (id int); CREATE FUNCTION used(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 <> nothing()';\
         CREATE INDEX ON t (id) WHERE used(id);",
    );
    // From version 17 on the server builds indexes with pg_catalog as the only path.
    if given.value("SELECT current_setting('server_version_num')::int >= 170000") == "t" {
        given.run(&["migrate-schemas"]).exits(10).says("function nothing() does not exist");
        return;
    }
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["drift"]).exits(0).says("2 compared");
    given.run(&["clone-tenant", "--from=a", "--slug=c"]).exits(0);
}

#[test]
fn extra_and_missing_objects_are_reported_by_version() {
    let given = fleet();
    given.database.execute(
        "DROP INDEX tenant_b.t_name; ALTER TABLE tenant_b.t ADD COLUMN tmp int; \
         ALTER TABLE tenant_d.t ALTER COLUMN name SET DEFAULT E'\\x1b[31m'",
    );
    given
        .run(&["drift"])
        .exits(11)
        .prints("- index t_name on t")
        .prints("+ column t 3 tmp integer")
        .never_says("\u{1b}[31m");
    let names = given.run(&["drift", "-o", "names"]).exits(11);
    assert_eq!(names.stdout, "b\nd\n");
    let json = given.run(&["drift", "-o", "json"]).exits(11);
    let shapes: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(shapes[0]["usual"], true);
    assert_eq!(shapes[0]["tenants"], serde_json::json!(["a", "c"]));
    assert_eq!(shapes[1]["tenants"], serde_json::json!(["b"]));
    assert_eq!(shapes[1]["more"].as_array().unwrap().len(), 1);
    given.run(&["drift", "--tenant", "b,d", "--exclude", "d"]).exits(0);
}

#[test]
fn another_version_is_not_drift_but_a_missing_schema_fails() {
    let given = fleet();
    given.tenant_file("V2__u.sql", "ALTER TABLE t ADD COLUMN u int");
    given.run(&["migrate-schemas", "--tenant", "a,b"]).exits(0);
    given.run(&["drift"]).exits(0);
    given.database.execute("DROP SCHEMA tenant_c CASCADE");
    given.run(&["drift"]).exits(10).says("tenant_c").says("doctor --fix missing");
    given.run(&["drift", "--tenant", "nobody"]).exits(4);
}

#[test]
fn functions_that_say_the_name_of_their_own_schema_are_alike() {
    let given = fleet();
    given.tenant_file(
        "V9__safe.sql",
        "CREATE FUNCTION safe() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS 'SELECT 1::bigint'",
    );
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["drift"]).exits(0);
    // The name of a schema may be that of something in all of them.
    given.database.execute(
        "DO $$ BEGIN FOR n IN 0..3 LOOP EXECUTE format('CREATE FUNCTION tenant_%s.tenant_a() RETURNS text LANGUAGE sql AS $f$SELECT ''tenant_a''$f$', \
         ('{a,b,c,d}'::text[])[n + 1]); END LOOP; END $$",
    );
    given.run(&["drift"]).exits(0);
    given.database.execute("ALTER FUNCTION tenant_b.safe() SET search_path TO tenant_a, public");
    given.run(&["drift"]).exits(11).prints("function safe").prints("tenant_a");
}
