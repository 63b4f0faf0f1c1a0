//! A tenant's migration changes its own schema and nothing else, however it tries.

use crate::support::database;
use crate::support::pricesync::{Counts, Given, NONE};

/// A table, an index, a sequence, a function and a view that only `public` has, and another tenant.
fn shop() -> Given {
    let given = Given::tenants(&["acme", "globex"]);
    given.database.execute(
        "CREATE TABLE plans (id int);\
         CREATE TABLE rates (id int PRIMARY KEY, rate numeric); INSERT INTO rates VALUES (1, 0.2), (2, 0.1);\
         CREATE SEQUENCE numbers; CREATE TYPE mood AS ENUM ('good');\
         CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';\
         CREATE VIEW cheap AS SELECT * FROM rates WHERE rate < 0.15;\
         CREATE TABLE tenant_globex.treasure (id int); INSERT INTO tenant_globex.treasure VALUES (1)",
    );
    given
}

/// Runs each statement as a migration of a tenant, in a database of its own where it got through;
/// returns those that were not refused for what they are, and why.
fn let_through(hostile: &[&str]) -> Vec<String> {
    let mut given = shop();
    let mut before = given.dump(&[]);
    let mut through = Vec::new();
    for sql in hostile {
        given.tenant_file("V1__hostile.sql", format!("CREATE TABLE own (id int);\n{sql};\n"));
        let ran = given.run(&["migrate-schemas", "--tenant=acme"]);
        let code = ran.code();
        let said = ran.told().stderr;
        if given.dump(&[]) != before {
            through.push(format!("{sql}: changed the database"));
            given = shop();
            before = given.dump(&[]);
        } else if !(code == Some(10) && said.contains("reached outside its schema")
            || code == Some(2) && said.contains("objects of a named schema"))
        {
            through.push(format!("{sql}: {code:?} {said}"));
        }
    }
    through
}

#[test]
fn nothing_that_only_public_has_can_be_changed() {
    let hostile = [
        "DROP TABLE plans",
        "DROP TABLE rates CASCADE",
        "ALTER TABLE rates ADD COLUMN x int",
        "ALTER TABLE rates RENAME TO rates2",
        "ALTER TABLE rates SET SCHEMA tenant_acme",
        "ALTER VIEW cheap SET SCHEMA tenant_acme",
        "ALTER SEQUENCE numbers SET SCHEMA tenant_acme",
        "CREATE OR REPLACE FUNCTION public.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 3 * n'",
        "DROP FUNCTION twice(int)",
        "ALTER TYPE mood RENAME TO temper",
        "ALTER TYPE mood ADD VALUE 'bad'",
        "DROP TYPE mood",
        "ALTER SEQUENCE numbers RESTART WITH 9",
        "INSERT INTO rates VALUES (3, 1)",
        "UPDATE rates SET rate = 0",
        "DELETE FROM rates",
        "TRUNCATE rates",
        "CREATE INDEX ON rates (rate)",
        "CREATE TRIGGER t BEFORE UPDATE ON rates FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TABLE rates ADD CHECK (rate < 1)",
        "ALTER TABLE rates ADD FOREIGN KEY (id) REFERENCES rates (id)",
        "LOCK TABLE rates IN ACCESS EXCLUSIVE MODE",
        "DROP VIEW cheap",
        "CREATE OR REPLACE VIEW public.cheap AS SELECT * FROM public.rates",
        "CREATE RULE r AS ON INSERT TO rates DO INSTEAD NOTHING",
    ];
    assert_eq!(let_through(&hostile), Vec::<String>::new());
}

#[test]
fn a_bare_name_of_the_shared_set_is_refused_before_a_run() {
    let given = Given::tenants(&["acme", "globex"]);
    given.shared_file(
        "V2__rates.sql",
        "CREATE TABLE rates (id int PRIMARY KEY, rate numeric);\nCREATE VIEW cheap AS SELECT * FROM rates;\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
    let before = given.dump(&[]);
    for (hostile, column) in [
        ("DROP TABLE rates CASCADE", 12),
        ("ALTER TABLE rates ADD COLUMN x int", 13),
        ("INSERT INTO rates VALUES (3, 1)", 13),
        ("UPDATE rates SET rate = 0", 8),
        ("DELETE FROM rates", 13),
        ("TRUNCATE own, rates", 15),
        ("CREATE INDEX ON rates (rate)", 17),
        (
            "CREATE TRIGGER t BEFORE UPDATE ON rates FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            35,
        ),
        ("CREATE RULE r AS ON INSERT TO rates DO INSTEAD NOTHING", 31),
        ("CREATE POLICY p ON rates USING (true)", 20),
        ("DROP VIEW cheap", 11),
        ("DELETE FROM tenants_tenant", 13),
    ] {
        given.tenant_file("V1__hostile.sql", format!("CREATE TABLE own (id int);\n{hostile};\n"));
        given
            .run(&["migrate-schemas", "--tenant=acme"])
            .exits(2)
            .says(&format!("migrations/tenant/V1__hostile.sql:2:{column}: '"))
            .says("of the shared set and by no file of the tenant set, so this would change public")
            .says("move it to the shared set");
        assert_eq!(given.dump(&[]), before, "{hostile}");
    }
    // Where public is not looked into, there is nothing to be found by accident.
    given.file("pricesync.toml", "[run]\nsearch_path = []\n");
    given
        .run(&["migrate-schemas", "--tenant=acme"])
        .exits(10)
        .says("42P01")
        .never_says("then public");
    assert_eq!(given.dump(&[]), before);
}

#[test]
fn a_bare_name_that_both_sets_make_is_the_tenant_s() {
    let given = Given::tenants(&["acme"]);
    given.shared_file("V2__rates.sql", "CREATE TABLE rates (id int);\n");
    given.tenant_file(
        "V1__own.sql",
        "CREATE TABLE IF NOT EXISTS rates (id int);\nINSERT INTO rates VALUES (7);\nCREATE INDEX ON rates (id);\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.value("SELECT id FROM tenant_acme.rates"), "7");
    assert_eq!(given.value("SELECT count(*) FROM public.rates"), "0");
}

#[test]
fn nothing_can_be_created_in_public() {
    let hostile = [
        "CREATE TABLE public.x (id int)",
        "CREATE TABLE public.x AS SELECT 1 AS a",
        "CREATE VIEW public.x AS SELECT 1 AS a",
        "CREATE SEQUENCE public.x",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE public.x AS ENUM ('a')",
        "CREATE DOMAIN public.x AS int",
        "CREATE OPERATOR public.!! (RIGHTARG = int, FUNCTION = twice)",
    ];
    assert_eq!(let_through(&hostile), Vec::<String>::new());
}

#[test]
fn a_key_of_its_own_to_a_shared_table_can_be_dropped_again() {
    let given = shop();
    given.tenant_file(
        "V1__keys.sql",
        "CREATE TABLE a (rate int CONSTRAINT a_rate REFERENCES rates (id));\
         CREATE TABLE b (rate int REFERENCES rates (id));",
    );
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__drop.sql", "ALTER TABLE a DROP CONSTRAINT a_rate; DROP TABLE b;");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
}

#[test]
fn a_dropped_shared_table_is_found_without_a_catalog_row() {
    let given = shop();
    given.database.execute(
        "CREATE TRIGGER watch BEFORE UPDATE ON rates FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();\
         CREATE RULE quiet AS ON DELETE TO plans DO INSTEAD NOTHING",
    );
    let before = given.dump(&[]);
    for sql in [
        "DROP TRIGGER watch ON rates",
        "DROP RULE quiet ON plans",
        "CREATE TABLE k (rate int REFERENCES rates (id)); DROP TABLE k; DROP TRIGGER watch ON rates",
    ] {
        given.tenant_file("V1__hostile.sql", sql);
        given
            .run(&["migrate-schemas", "--tenant=acme"])
            .exits(10)
            .says("reached outside its schema");
        assert_eq!(given.dump(&[]), before, "{sql}");
    }
}

#[test]
fn tenants_that_make_functions_at_once_are_told_apart() {
    let slugs: Vec<String> = (0..24).map(|number| format!("t{number}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    let given = Given::tenants(&slugs);
    given.tenant_file(
        "V1__own.sql",
        "CREATE TYPE mood AS ENUM ('good'); SELECT pg_sleep(0.02);\
         CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT pg_sleep(0.02);",
    );
    given.run(&["migrate-schemas", "--jobs", "8"]).exits(0);
}

#[test]
fn a_do_block_hides_nothing() {
    let hostile = [
        "DO $$ BEGIN DROP TABLE plans; END $$",
        "DO $$ BEGIN EXECUTE 'DROP ' || 'TABLE plans'; END $$",
        "DO $$ BEGIN EXECUTE format('UPDATE %I.rates SET rate = 0', 'pub' || 'lic'); END $$",
        "DO $$ BEGIN CREATE TABLE public.x (id int); DROP TABLE public.x; INSERT INTO rates VALUES (3, 1); END $$",
        "DO $$ BEGIN PERFORM set_config('search_path', 'public', true); CREATE TABLE x (id int); PERFORM set_config('search_path', 'tenant_acme, public', true); END $$",
        "CREATE FUNCTION own_f() RETURNS void LANGUAGE plpgsql AS 'BEGIN DELETE FROM rates; END'; SELECT own_f()",
    ];
    assert_eq!(let_through(&hostile), Vec::<String>::new());
}

#[test]
fn another_tenant_cannot_be_touched() {
    let hostile = [
        "DROP TABLE tenant_globex.treasure",
        "INSERT INTO tenant_globex.treasure VALUES (2)",
        "CREATE TABLE tenant_globex.x (id int)",
        "DO $$ BEGIN EXECUTE 'DROP SCHEMA tenant_globex CASCADE'; END $$",
    ];
    assert_eq!(let_through(&hostile), Vec::<String>::new());
}

#[test]
fn what_was_touched_is_named_together_with_the_way_out() {
    let given = shop();
    given.tenant_file("V1__hostile.sql", "DO $$ BEGIN DELETE FROM rates; END $$");
    given
        .run(&["migrate-schemas", "--tenant=acme"])
        .exits(10)
        .says("V1__hostile reached outside its schema")
        .says("public.rates (rows changed)")
        .says("move this statement to the shared set");
    given.tenant_file("V1__hostile.sql", "DROP TABLE plans");
    given.run(&["migrate-schemas", "--tenant=acme"]).exits(10).says("public.plans (dropped)");
}

#[test]
fn a_tenant_s_ordinary_work_is_let_through() {
    let given = shop();
    given.tenant_file(
        "V1__ordinary.sql",
        "CREATE TABLE prices (id serial PRIMARY KEY, rate_id int REFERENCES public.rates (id), mood mood);\n\
         INSERT INTO prices (rate_id) SELECT id FROM rates;\n\
         UPDATE prices SET rate_id = 2 WHERE rate_id = 1;\n\
         CREATE VIEW rated AS SELECT p.id, r.rate, twice(1) AS two FROM prices p JOIN public.rates r ON r.id = p.rate_id;\n\
         CREATE TEMPORARY TABLE scratch AS SELECT * FROM rates;\n\
         INSERT INTO scratch VALUES (9, 9);\n\
         DROP TABLE scratch;\n\
         CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT 1 AS a;\n\
         CREATE TABLE gone (id int PRIMARY KEY, big text);\n\
         CREATE FUNCTION tenant_acme_f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';\n\
         CREATE TRIGGER t BEFORE INSERT ON prices FOR EACH ROW EXECUTE FUNCTION tenant_acme_f();\n\
         DROP TABLE gone;\n",
    );
    given.tenant_file(
        "V2__later.sql",
        "DROP VIEW rated; ALTER TABLE prices ADD label text; CREATE INDEX ON prices (label);",
    );
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
    assert_eq!(given.value("SELECT string_agg(rate_id::text, ',') FROM tenant_acme.prices"), "2,2");
}

#[test]
fn a_new_tenant_is_held_to_the_same_rule() {
    let given = shop();
    let before = given.dump(&[]);
    given.tenant_file("V1__hostile.sql", "DO $$ BEGIN DELETE FROM rates; END $$");
    given
        .run(&["create-tenant", "--name", "New", "--slug", "new"])
        .exits(10)
        .says("public.rates (rows changed)");
    // An identity column's sequence does not go back.
    let without_counters = |dump: String| {
        dump.lines().filter(|line| !line.contains("setval")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_counters(given.dump(&[])), without_counters(before));
}

#[test]
fn the_shared_set_may_change_public() {
    let given = shop();
    given.shared_file("V2__rates.sql", "UPDATE rates SET rate = 0; DROP VIEW cheap;");
    given.run(&["migrate-schemas", "--shared"]).exits(0);
    assert_eq!(given.value("SELECT sum(rate) FROM rates"), "0");
}

#[test]
fn keys_may_point_to_declared_tables_only() {
    let given = shop();
    given.file("pricesync.toml", "[catalog]\nshared_references = [\"public.tenants_tenant\"]\n");
    given.tenant_file("V1__key.sql", "CREATE TABLE a (rate int REFERENCES rates (id))");
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .says("V1__key reached outside its schema")
        .says("public.rates (structure changed)");
    given.file(
        "pricesync.toml",
        "[catalog]\nshared_references = [\"public.tenants_tenant\", \"rates\"]\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
}

#[test]
fn a_first_key_to_a_table_does_not_change_its_privileges() {
    let given = shop();
    let role = format!("reads_and_no_more_{}", given.value("SELECT current_database()"));
    given.database.execute(&format!(
        "CREATE ROLE {role}; GRANT SELECT, REFERENCES ON rates TO {role}, pg_monitor, pg_read_all_stats"
    ));
    given.tenant_file("V1__key.sql", "CREATE TABLE a (rate int REFERENCES rates (id))");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__grant.sql", "GRANT DELETE ON rates TO pg_monitor");
    given.run(&["migrate-schemas"]).exits(10).says("public.rates (privileges changed)");
    given.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn keys_may_point_nowhere_where_no_table_is_declared() {
    let given = shop();
    given.file("pricesync.toml", "[catalog]\nshared_references = []\n");
    given.tenant_file("V1__key.sql", "CREATE TABLE a (rate int REFERENCES rates (id))");
    given.run(&["migrate-schemas"]).exits(10).says("public.rates (structure changed)");
    assert!(given.relations("tenant_acme", 'r').is_empty());
}

/// Makes in a tenant's schema a function beside every one of the server's that takes a text, a name, a
/// number or an oid, which takes something close to it; and the operators that compare them. All fail.
const TRAPS: &str = r"
DO $traps$
DECLARE
    one record;
    near text[][] := '{{text,varchar},{text,name},{name,text},{integer,bigint},{bigint,numeric},{oid,bigint},{regclass,text},{cstring,varchar},{timestamp with time zone,timestamp without time zone}}';
    pair text[];
    arguments text;
BEGIN
    FOR one IN
        SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments,
            (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a(t, n)) AS types
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.pronargs BETWEEN 1 AND 3 AND p.proretset = false
    LOOP
        FOREACH pair SLICE 1 IN ARRAY near LOOP
            arguments := regexp_replace(one.types, '\m' || pair[1] || '\M', pair[2], 'g');
            CONTINUE WHEN arguments = one.types OR one.types ~ 'internal|any|trigger|void|record';
            BEGIN
                EXECUTE format('CREATE FUNCTION tenant_acme.%I(%s) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE %L; END $$',
                    one.proname, arguments, 'trapped by ' || one.proname);
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
    END LOOP;
    FOR one IN SELECT * FROM unnest('{varchar,name,text,oid,bigint}'::text[]) l(l), unnest('{varchar,name,text,oid,bigint}'::text[]) r(r), unnest('{=,<>,~,<,>}'::text[]) o(o) LOOP
        EXECUTE format('CREATE OR REPLACE FUNCTION tenant_acme.compare(%s, %s) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE ''trapped by an operator''; END $$', one.l, one.r);
        BEGIN
            EXECUTE format('CREATE OPERATOR tenant_acme.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = tenant_acme.compare)', one.o, one.l, one.r);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
END $traps$";

#[test]
fn functions_of_a_tenant_are_not_called_by_our_statements() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int PRIMARY KEY, note varchar);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.database.execute(TRAPS);
    let traps = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'tenant_acme'::regnamespace";
    assert!(given.value(traps).parse::<usize>().unwrap() > 500);
    let caught = database::run(
        given.database.url(),
        "SET search_path TO tenant_acme; SELECT lower('X'::varchar)",
    );
    let caught = caught.unwrap_err();
    assert_eq!(caught.as_db_error().unwrap().message(), "trapped by lower");
    given.tenant_file(
        "V2__b.sql",
        "CREATE TABLE b (id int);\nCREATE INDEX ON a (note);\nDO $$ BEGIN CREATE TABLE c (id int); END $$;\n",
    );
    given.tenant_file(
        "V3__d.sql",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY a_id ON a (id);\n",
    );
    given.run(&["migrate-schemas", "--dry-run=execute"]).exits(0).never_says("trapped");
    given.run(&["migrate-schemas"]).exits(0).never_says("trapped");
    for args in [
        &["status", "--verify"][..],
        &["doctor"],
        &["list-tenants"],
        &["locks"],
        &["drop-schema", "--tenant=acme", "--force", "--trash"],
        &["undrop", "--tenant=acme"],
        &["drop-schema", "--tenant=acme", "--force"],
    ] {
        given.run(args).exits(0).never_says("trapped");
    }
}
