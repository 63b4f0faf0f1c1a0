//! Writes outside a tenant's schema: the error names their cause, and `[guard] allow_writes` lets
//! through exactly those that it lists.

use crate::support::pricesync::{Counts, Given, NONE};

/// An audit of all DDL: an event trigger that writes to a table of `public`.
const AUDIT: &str = "CREATE TABLE ddl_log (id bigserial PRIMARY KEY, tag text);
CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
  AS $$BEGIN INSERT INTO public.ddl_log (tag) VALUES (tg_tag); END$$;
CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl();";

fn allow(given: &Given, entries: &str) {
    given.file("pricesync.toml", format!("[guard]\nallow_writes = [{entries}]\n"));
}

#[test]
fn an_event_trigger_is_named_and_can_be_allowed() {
    let given = Given::tenants(&["acme", "globex"]);
    given.database.execute(AUDIT);
    given.tenant_file("V1__a.sql", "CREATE TABLE t (a int);\n");
    let refused = "  caused by: public.ddl_log (rows changed) through event trigger log_ddl (function public.log_ddl)\n";
    let told = given.run(&["migrate-schemas"]).exits(10).says(refused);
    told.says(
        "let it write there, set allow_writes = [\"public.ddl_log\", \"public.ddl_log_id_seq\"]",
    )
    .never_says("move this statement");
    allow(&given, "\"public.other\"");
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .says(refused)
        .says("guard.allow_writes: public.other does not exist");
    assert!(given.relations("tenant_acme", 'r').is_empty());
    // The sequence belongs to the table.
    allow(&given, "\"public.ddl_log\"");
    given.run(&["migrate-schemas", "--dry-run=execute"]).exits(0).never_says("warning");
    assert_eq!(given.value("SELECT count(*) FROM ddl_log"), "0");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
    let create = ["create-tenant", "--name=New", "--slug=new", "--domain=new.test"];
    given.run(&create).exits(0);
    given.tenant_file(
        "V2__b.sql",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY t_a ON t (a);\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["exec", "--all", "--write", "-c", "CREATE TABLE u (a int)"]).exits(0);
    assert_eq!(given.value("SELECT count(DISTINCT tag) FROM ddl_log"), "3");
}

#[test]
fn a_sequence_of_public_can_be_allowed_in_every_path() {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.database.execute("CREATE SEQUENCE global_ids; CREATE SEQUENCE others");
    given.tenant_file(
        "V1__seed.sql",
        "CREATE TABLE t (id bigint DEFAULT nextval('public.global_ids'), a int);\nINSERT INTO t (a) VALUES (1);\n",
    );
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .says("public.global_ids (number drawn or set) through the default of t.id, named at ")
        .says("V1__seed.sql:1\n")
        .says("or, if tenants may write there, set allow_writes = [\"public.global_ids\"]");
    allow(&given, "\"public.others\"");
    given.run(&["migrate-schemas"]).exits(10).says("public.global_ids (number drawn or set)");
    allow(&given, "\"public.global_ids\"");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 3, up_to_date: 1, ..NONE });
    given.run(&["create-tenant", "--name=New", "--slug=new", "--domain=new.test"]).exits(0);
    given.database.execute("CREATE SCHEMA tenant_old");
    given
        .run(&["create-tenant", "--name=Old", "--slug=old", "--domain=old.test", "--adopt"])
        .exits(0);
    let all = "SELECT count(DISTINCT id) FROM (SELECT id FROM tenant_acme.t UNION ALL SELECT id FROM tenant_globex.t \
         UNION ALL SELECT id FROM tenant_initech.t UNION ALL SELECT id FROM tenant_new.t UNION ALL SELECT id FROM tenant_old.t) a";
    assert_eq!(given.value(all), "5");
    for sql in ["ALTER SEQUENCE global_ids RESTART WITH 1", "ALTER SEQUENCE global_ids INCREMENT 7"]
    {
        given.tenant_file("V2__set.sql", format!("{sql};\n"));
        given.run(&["migrate-schemas"]).exits(10).says("public.global_ids (structure changed)");
    }
}

#[test]
fn rows_of_a_listed_table_may_change_and_nothing_else() {
    let given = Given::tenants(&["acme"]);
    given.database.execute(
        "CREATE TABLE log (at date, note text) PARTITION BY RANGE (at);\
         CREATE TABLE log_all PARTITION OF log DEFAULT; CREATE INDEX ON log (note);\
         CREATE TABLE logs (note text); CREATE TABLE \"Log\" (note text)",
    );
    allow(&given, "\"public.log\"");
    given.tenant_file(
        "V1__rows.sql",
        "INSERT INTO log VALUES ('2026-01-01', 'a');\nUPDATE log SET note = 'b';\nDO $$BEGIN PERFORM FROM log FOR UPDATE; END$$;\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
    for (sql, touched) in [
        ("TRUNCATE log", "public.log (structure changed)"),
        ("ALTER TABLE log ADD COLUMN x int", "public.log (structure changed)"),
        (
            "CREATE TRIGGER x AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "public.log (structure changed)",
        ),
        ("GRANT SELECT ON log TO pg_monitor", "public.log (privileges changed)"),
        ("INSERT INTO logs VALUES ('a')", "public.logs (rows changed)"),
        ("INSERT INTO \"Log\" VALUES ('a')", "public.Log (rows changed)"),
    ] {
        given.tenant_file("V2__more.sql", format!("DO $do$BEGIN {sql}; END$do$;\n"));
        given.run(&["migrate-schemas"]).exits(10).says(touched);
        given
            .run(&["exec", "--all", "--write", "-c", &format!("DO $do$BEGIN {sql}; END$do$")])
            .exits(10)
            .says(touched);
    }
}

#[test]
fn a_change_names_the_trigger_view_or_rule_that_made_it() {
    let given = Given::tenants(&["acme"]);
    given.database.execute(
        "CREATE TABLE rates (id int PRIMARY KEY, rate numeric); INSERT INTO rates VALUES (1, 1)",
    );
    for (sql, through) in [
        (
            "CREATE TABLE t (a int);\nCREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS\n'BEGIN UPDATE public.rates SET rate = 2; RETURN NULL; END';\n\
             CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();\nINSERT INTO t VALUES (1);\n",
            "public.rates (rows changed) through trigger x on t (function f), named at ",
        ),
        (
            "CREATE VIEW v AS SELECT * FROM rates;\nUPDATE v SET rate = 2;\n",
            "public.rates (rows changed) through view v, named at ",
        ),
        (
            "CREATE TABLE t (a int);\nCREATE RULE r AS ON INSERT TO t DO ALSO UPDATE rates SET rate = 2;\nINSERT INTO t VALUES (1);\n",
            "public.rates (rows changed) through rule r on t, named at ",
        ),
        ("-- not rates\nUPDATE rates SET rate = 2;\n", "public.rates (rows changed), named at "),
    ] {
        given.tenant_file("V1__a.sql", sql);
        let told = given.run(&["migrate-schemas"]).exits(10).says(through);
        told.never_says("rates_pkey");
    }
    given.run(&["migrate-schemas"]).exits(10).says("V1__a.sql:2\n");
}

#[test]
fn entries_that_cannot_be_meant_are_refused_or_reported() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE t (a int);\n");
    for (entry, words) in [
        ("log", "expected schema-qualified names"),
        ("public.*", "expected schema-qualified names"),
        ("pricesync.schema_state", "expected no table of the schema pricesync"),
        ("pg_catalog.pg_class", "expected no table of the schema pg_catalog"),
    ] {
        allow(&given, &format!("\"{entry}\""));
        given.run(&["migrate-schemas"]).exits(2).says("pricesync.toml:2").says(words);
    }
    allow(&given, "\"tenant_globex.t\"");
    given.run(&["migrate-schemas"]).exits(2).says("tenant_globex.t lies in the schema of a tenant");
    assert!(given.relations("tenant_acme", 'r').is_empty());
    allow(&given, "\"public.gone\"");
    given
        .run(&["migrate-schemas"])
        .exits(0)
        .says("warning: guard.allow_writes: public.gone does not exist");
}

#[test]
fn schemas_share_a_transaction_that_writes_to_listed_tables() {
    let slugs = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let given = Given::tenants(&slugs);
    let steady = "[run]\ngroup_time = \"1h\"\njobs = 1\n";
    given.file(
        "pricesync.toml",
        format!("{steady}[guard]\nallow_writes = [\"public.ddl_log\", \"other.\u{e9}t\u{e9}\"]\n"),
    );
    given.database.execute(AUDIT);
    given.database.execute("CREATE SCHEMA other; CREATE TABLE other.\u{e9}t\u{e9} (a int)");
    let most_in_one = || {
        given.value("SELECT max(n) FROM (SELECT count(*) AS n FROM pricesync.schema_state GROUP BY written_by) w")
    };
    given.tenant_file("V1__a.sql", "CREATE TABLE t (a int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__b.sql", "ALTER TABLE t ADD COLUMN b int;\n");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 8, up_to_date: 1, ..NONE });
    assert!(most_in_one().parse::<u32>().unwrap() > 1);
    let logged = "SELECT count(*) FROM ddl_log WHERE tag = 'ALTER TABLE'";
    assert_eq!(given.value(logged), "8");
    // Triggers on the listed table that write to one that is not listed.
    given.database.execute(
        "CREATE TABLE copies (id int); CREATE FUNCTION copy() RETURNS trigger LANGUAGE plpgsql \
         AS $$BEGIN INSERT INTO public.copies VALUES (1); RETURN NEW; END$$",
    );
    given.tenant_file("V3__c.sql", "ALTER TABLE t ADD COLUMN c int;\n");
    let before = given.value(logged);
    for (kind, deferred) in
        [("TRIGGER", ""), ("CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED")]
    {
        given.database.execute(&format!(
            "CREATE {kind} copy AFTER INSERT ON ddl_log {deferred} FOR EACH ROW EXECUTE FUNCTION copy()"
        ));
        let told = given.run(&["migrate-schemas"]).exits(10);
        told.says("public.copies (rows changed) through trigger");
        assert_eq!(given.value(logged), before, "{kind}");
        given.database.execute("DROP TRIGGER copy ON ddl_log");
    }
    // The same in a group: the trigger acts in every fourth schema.
    given.database.execute(
        "CREATE CONSTRAINT TRIGGER copy AFTER INSERT ON ddl_log DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW WHEN (NEW.id % 4 = 3) EXECUTE FUNCTION copy()",
    );
    let copies = || given.value("SELECT count(*) FROM copies");
    let before = copies();
    given.run(&["migrate-schemas", "--on-failure", "continue"]).exits(10);
    assert_eq!(copies(), before);
}
