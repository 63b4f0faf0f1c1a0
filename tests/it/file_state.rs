//! Each file starts in the same state, whatever ran before it.

use crate::support::pricesync::Given;

/// What a file may leave behind, and a condition that holds only without it.
const LEFT_BEHIND: &[(&str, &str)] = &[
    ("SET timezone = 'Asia/Tokyo'", "current_setting('timezone') <> 'Asia/Tokyo'"),
    ("SET LOCAL datestyle = 'German'", "'2026-01-02'::date::text = '2026-01-02'"),
    ("SET check_function_bodies = off", "current_setting('check_function_bodies') = 'on'"),
    ("SET lock_timeout = '77s'", "current_setting('lock_timeout') <> '77s'"),
    (
        "SELECT set_config('my.variable', 'x', false)",
        "coalesce(current_setting('my.variable', true), '') = ''",
    ),
    ("DO $$ BEGIN SET bytea_output = escape; END $$", "current_setting('bytea_output') = 'hex'"),
    ("CREATE TEMPORARY TABLE leftover (a int)", "to_regclass('leftover') IS NULL"),
    ("PREPARE leftover AS SELECT 1", "NOT EXISTS (SELECT FROM pg_prepared_statements)"),
    (
        "DECLARE leftover CURSOR WITH HOLD FOR SELECT 1",
        "NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'leftover')",
    ),
    ("LISTEN leftover", "NOT EXISTS (SELECT FROM pg_listening_channels())"),
    (
        "SELECT pg_advisory_lock(4711)",
        "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND pid = pg_backend_pid())",
    ),
];

#[test]
fn a_file_does_not_see_what_an_earlier_one_left() {
    for (left, without_it) in LEFT_BEHIND {
        let given = Given::tenants(&["apart", "together"]);
        given.tenant_file("V1__leaves.sql", format!("CREATE TABLE a (id int);\n{left};\n"));
        given.tenant_file(
            "V2__asks.sql",
            format!("DO $ask$ BEGIN ASSERT {without_it}; END $ask$;\n"),
        );
        given.run(&["migrate-schemas", "--tenant=apart", "--to=1"]).exits(0);
        given.run(&["migrate-schemas", "--tenant=apart"]).exits(0);
        given.run(&["migrate-schemas", "--dry-run=execute"]).exits(0);
        given.run(&["migrate-schemas"]).exits(0);
        given.run(&["create-tenant", "--name=N", "--slug=n", "--domain=n.test"]).exits(0);
    }
}

#[test]
fn a_file_cannot_read_the_sequence_of_an_earlier_one() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__draws.sql", "CREATE SEQUENCE s; SELECT nextval('s');");
    given.tenant_file("V2__asks.sql", "SELECT currval('s');");
    given.run(&["migrate-schemas"]).exits(10).says("is not yet defined in this session");
}

#[test]
fn a_lock_that_a_file_leaves_blocks_no_other_tenant() {
    let given = Given::tenants(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    given.file("pricesync.toml", "[run]\njobs = 8\nlock_timeout = \"5min\"\nlock_retries = 0\n");
    given.tenant_file("V1__locks.sql", "CREATE TABLE a (id int); SELECT pg_advisory_lock(4711);");
    given.run(&["migrate-schemas"]).exits(0);
}

const DEFERRABLE: &str = "CREATE TABLE a (id int PRIMARY KEY); \
    CREATE TABLE b (a int CONSTRAINT of_a REFERENCES a DEFERRABLE INITIALLY DEFERRED, \
                    c int CONSTRAINT as_c REFERENCES a DEFERRABLE);";

#[test]
fn a_deferred_constraint_is_checked_at_the_end_of_its_file() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__tables.sql", DEFERRABLE);
    given.tenant_file("V2__early.sql", "INSERT INTO b VALUES (1);");
    given.tenant_file("V3__late.sql", "INSERT INTO a VALUES (1);");
    let ran = given.run(&["migrate-schemas"]).exits(10);
    ran.says("V2__early failed").says("violates foreign key constraint \"of_a\"");
    given.run(&["migrate-schemas", "--dry-run=execute"]).exits(10).says("V2__early failed");
}

#[test]
fn set_constraints_ends_with_its_file() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__tables.sql", DEFERRABLE);
    given.tenant_file("V2__sets.sql", "SET CONSTRAINTS ALL DEFERRED; INSERT INTO a VALUES (9);");
    given.tenant_file(
        "V3__late.sql",
        "INSERT INTO b (a) VALUES (1); INSERT INTO a VALUES (1); \
         INSERT INTO b (c) VALUES (9);",
    );
    given.run(&["migrate-schemas", "--dry-run=execute"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file(
        "V4__immediate.sql",
        "SET CONSTRAINTS ALL DEFERRED; INSERT INTO a VALUES (8);",
    );
    given.tenant_file("V5__refused.sql", "INSERT INTO b (c) VALUES (2); INSERT INTO a VALUES (2);");
    given.run(&["migrate-schemas"]).exits(10).says("V5__refused failed").says("as_c");
}

#[test]
fn a_constraint_created_later_is_deferred_as_it_says() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__code.sql", "CREATE TABLE z (a int);\nINSERT INTO z VALUES (1);\n");
    given.tenant_file("V2__tables.sql", DEFERRABLE);
    given.tenant_file("V3__late.sql", "INSERT INTO b (a) VALUES (1); INSERT INTO a VALUES (1);");
    let cycle = "CREATE TABLE x (id int PRIMARY KEY, y int);
        CREATE TABLE y (id int PRIMARY KEY, x int REFERENCES x DEFERRABLE INITIALLY DEFERRED);
        ALTER TABLE x ADD FOREIGN KEY (y) REFERENCES y DEFERRABLE INITIALLY DEFERRED;
        INSERT INTO x VALUES (1, 1); INSERT INTO y VALUES (1, 1);";
    given.tenant_file("V4__cycle.sql", cycle);
    given.run(&["migrate-schemas", "--dry-run=execute"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["create-tenant", "--name=N", "--slug=n", "--no-template"]).exits(0);
}
