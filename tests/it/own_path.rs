//! A function whose `search_path` names its schema keeps naming its own schema in every copy.

use std::fs;

use crate::support::pricesync::{Given, literal, quoted};

const FUNCTIONS: &str = "CREATE TABLE notes (id int);
CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
    AS 'SELECT count(*) FROM notes';
CREATE FUNCTION several(a text DEFAULT '%1$L') RETURNS bigint LANGUAGE sql
    SET work_mem TO '8MB' SET search_path FROM CURRENT SET \"my.setting\" TO '100%, it''s'
    AS 'SELECT count(*) FROM notes';
CREATE PROCEDURE did() LANGUAGE plpgsql SET search_path FROM CURRENT AS 'BEGIN PERFORM 1; END';
CREATE FUNCTION plain() RETURNS int LANGUAGE sql SET work_mem TO '4MB' AS 'SELECT 1';
";

/// Returns the settings of the functions of a schema, with a placeholder for its name.
fn settings(given: &Given, schema: &str) -> Vec<String> {
    given.column(&format!(
        "SELECT proname || ': ' || replace(array_to_string(proconfig, '; '), {}, '<own>') FROM pg_proc \
         WHERE pronamespace = {}::regnamespace ORDER BY 1",
        literal(&quoted_by_server(given, schema)),
        literal(&quoted(schema))
    ))
}

fn quoted_by_server(given: &Given, schema: &str) -> String {
    given.value(&format!("SELECT quote_ident({})", literal(schema)))
}

const EXPECTED: [&str; 4] = [
    "counted: search_path=<own>, public",
    "did: search_path=<own>, public",
    "plain: work_mem=4MB",
    "several: work_mem=8MB; search_path=<own>, public; my.setting=100%, it's",
];

fn shop() -> Given {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__functions.sql", FUNCTIONS);
    given.run(&["migrate-schemas"]).exits(0);
    given
}

fn backup(given: &Given, slug: &str) -> String {
    given.run(&["backup", "--tenant", slug, "--out", slug]).exits(0);
    let mut files = fs::read_dir(given.dir.path().join(slug)).unwrap();
    files.next().unwrap().unwrap().path().display().to_string()
}

#[test]
fn copies_and_new_tenants_name_their_own_schema() {
    let given = shop();
    let file = backup(&given, "acme");
    given.run(&["restore", &file, "--as", "second"]).exits(0);
    given.run(&["clone-tenant", "--from=acme", "--slug=third", "--name=Third"]).exits(0);
    given.run(&["rename-tenant", "--tenant=globex", "--slug=renamed"]).exits(0);
    given.run(&["create-tenant", "--name=F", "--slug=fourth"]).exits(0);
    given.run(&["create-tenant", "--name=F", "--slug=fifth"]).exits(0);
    assert_eq!(given.value("SELECT reason IS NULL FROM pricesync.template"), "t");
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(0);
    given.run(&["restore", &file]).exits(0);
    for tenant in ["acme", "second", "third", "renamed", "fourth", "fifth"] {
        let schema = format!("tenant_{tenant}");
        assert_eq!(settings(&given, &schema), EXPECTED, "{schema}");
        assert_eq!(given.value(&format!("SELECT {schema}.counted()")), "0");
    }
    given.run(&["drift"]).exits(0);
    given.run(&["doctor"]).exits(0);
}

#[test]
fn hostile_names_in_hand_written_paths_are_rewritten() {
    let given = shop();
    for (number, schema) in ["Công ty", "it's, \"so\"", "pg %1$L", "a, public"].iter().enumerate()
    {
        let (slug, other) = (format!("s{number}"), format!("{schema} 2"));
        let create = ["create-tenant", "--name=S", "--slug", &slug, "--schema", schema];
        given.run(&create).exits(0);
        let own = quoted(schema);
        given.database.execute(&format!(
            "CREATE FUNCTION {own}.by_hand() RETURNS text LANGUAGE sql \
             SET search_path TO pg_catalog, {own}, \"x, y\", pg_temp AS $$ SELECT current_setting('search_path') $$"
        ));
        let by_hand = "by_hand: search_path=pg_catalog, <own>, \"x, y\", pg_temp";
        let file = backup(&given, &slug);
        given.run(&["rename-tenant", "--tenant", &slug, "--schema", &other]).exits(0);
        given.run(&["restore", &file, "--as", &format!("{slug}copy")]).exits(0);
        for schema in [&*other, &format!("tenant_{slug}copy")] {
            assert_eq!(settings(&given, schema)[0], by_hand, "{schema}");
        }
    }
}

#[test]
fn a_body_that_names_the_schema_is_still_refused() {
    let given = shop();
    given.database.execute(
        "CREATE FUNCTION tenant_acme.named() RETURNS bigint LANGUAGE sql SET search_path TO tenant_acme \
         AS 'SELECT count(*) FROM tenant_acme.notes'",
    );
    given.run(&["rename-tenant", "--tenant=acme", "--slug=apex"]).exits(7).says("named()");
    let file = backup(&given, "acme");
    given.run(&["restore", &file, "--as", "copy"]).exits(7).says("named()");
}
