//! Files and histories that disagree, and files and tables that are neither.

use crate::support::pricesync::{Counts, Given, NONE, Ran, literal, quoted};
use crate::support::sessions::Holder;

/// Two tenants at V2.
fn at_two() -> Given {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given
}

#[test]
fn an_edited_file_is_drift_and_nothing_is_touched() {
    let given = at_two();
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id bigint);\n");
    given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\n");
    let before = given.dump(&[]);
    given
        .run(&["migrate-schemas"])
        .exits(11)
        .says("V1__a")
        .says("files and history disagree, nothing was run");
    given.run(&["migrate-schemas", "--check"]).exits(11).says("V1__a");
    assert_eq!(given.dump(&[]), before);
}

#[test]
fn a_vanished_file_is_drift_and_nothing_is_touched() {
    let given = at_two();
    given.remove_tenant_file("V1__a.sql");
    let before = given.dump(&[]);
    given.run(&["migrate-schemas"]).exits(11).says("V1__a");
    assert_eq!(given.dump(&[]), before);
}

#[test]
fn a_renamed_file_is_drift() {
    let given = at_two();
    given.remove_tenant_file("V2__b.sql");
    given.tenant_file("V2__bee.sql", "CREATE TABLE b (id int);\n");
    given.run(&["migrate-schemas"]).exits(11).says("V2__b");
}

#[test]
fn an_older_file_is_drift_unless_its_prefix_is_u() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V5__e.sql", "CREATE TABLE e (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\n");
    given.run(&["migrate-schemas"]).exits(11).says("V3__c");
    given.remove_tenant_file("V3__c.sql");
    given.tenant_file("U3__c.sql", "CREATE TABLE c (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_acme"), ["3", "5"]);
}

#[test]
fn misnamed_and_duplicate_files_are_refused_before_a_connection() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1_a.sql", "CREATE TABLE a (id int);\n");
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    given.tenant_file("more/V2__c.sql", "CREATE TABLE c (id int);\n");
    given.tenant_file("v4__d.sql", "");
    // No server listens there, and none is asked.
    let nowhere = "postgresql://nobody@127.0.0.1:1/x";
    given
        .run(&["migrate-schemas", "-d", nowhere])
        .exits(2)
        .says("migrations/tenant/V1_a.sql: invalid file name")
        .says("migrations/tenant/more/V2__c.sql: version 2 is also used by migrations/tenant/V2__b.sql")
        .says("migrations/tenant/v4__d.sql");
}

#[test]
fn transaction_control_and_search_path_are_refused() {
    let given = Given::tenants(&["acme"]);
    let before = given.dump(&[]);
    for (sql, place) in [
        ("CREATE TABLE a (id int);\n  COMMIT;", "2:3"),
        ("BEGIN;\nCREATE TABLE a (id int);\nEND;", "1:1"),
        ("CREATE TABLE a (id int); ROLLBACK;", "1:26"),
        ("/* é */ SAVEPOINT x;", "1:9"),
        ("SET search_path TO public;", "1:1"),
        ("SET LOCAL search_path = public;", "1:1"),
        ("SET ROLE postgres;", "1:1"),
        ("RESET ALL;", "1:1"),
        ("DISCARD ALL;", "1:1"),
        ("PREPARE TRANSACTION 'x';", "1:1"),
        ("CREATE EXTENSION citext;", "1:1"),
        ("CREATE INDEX CONCURRENTLY i ON a (id);", "1:1"),
        ("VACUUM;", "1:1"),
    ] {
        given.tenant_file("V1__a.sql", sql);
        given
            .run(&["migrate-schemas"])
            .exits(2)
            .says(&format!("migrations/tenant/V1__a.sql:{place}: "));
        assert_eq!(given.dump(&[]), before, "{sql}");
    }
}

#[test]
fn what_a_do_block_does_to_the_transaction_is_refused_too() {
    let given = Given::tenants(&["acme"]);
    let before = given.dump(&[]);
    for sql in [
        "DO $$ BEGIN COMMIT; END $$",
        "DO $$ BEGIN EXECUTE 'CREATE TABLE a (id int)'; ROLLBACK; END $$",
        "SELECT set_config('search_path', 'public', false)",
        "SELECT set_config('role', 'pg_monitor', false)",
    ] {
        given.tenant_file("V1__a.sql", sql);
        let code = given.run(&["migrate-schemas"]).code();
        assert!(matches!(code, Some(2 | 10)), "{sql}: {code:?}");
        assert_eq!(given.dump(&[]), before, "{sql}");
    }
}

#[test]
fn a_damaged_row_fails_its_tenant_and_the_others_go_on() {
    for (damage, why) in [
        (
            "ALTER TABLE h ALTER checksum DROP NOT NULL; UPDATE h SET checksum = NULL WHERE version = 1",
            "the row of version 1 has no checksum",
        ),
        (
            "UPDATE h SET checksum = 'abc' WHERE version = 1",
            "has the checksum 'abc', which is not a number",
        ),
        (
            "ALTER TABLE h ALTER name DROP NOT NULL; UPDATE h SET name = NULL WHERE version = 2",
            "the row of version 2 has no name",
        ),
        (
            "ALTER TABLE h ALTER applied_on DROP NOT NULL; UPDATE h SET applied_on = NULL WHERE version = 2",
            "the row of version 2 has no time",
        ),
        ("UPDATE h SET version = -1 WHERE version = 2", "has an invalid version number"),
    ] {
        let given = at_two();
        let damage = damage
            .replace("TABLE h", "TABLE tenant_acme.refinery_schema_history")
            .replace("UPDATE h", "UPDATE tenant_acme.refinery_schema_history");
        given.database.execute(&damage);
        given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\n");
        given
            .run(&["migrate-schemas", "--on-failure", "continue"])
            .exits(10)
            .counts(Counts { migrated: 1, up_to_date: 1, failed: 1, ..NONE })
            .says("tenant_acme: ")
            .says("the migration history cannot be read, nothing was run")
            .says(why)
            .never_says("panicked");
        assert_eq!(given.history("tenant_globex"), ["1", "2", "3"]);
        assert_eq!(given.relations("tenant_acme", 'r'), ["a", "b", "refinery_schema_history"]);
    }
}

#[test]
fn an_odd_time_in_the_history_is_nobody_s_trouble() {
    let given = at_two();
    given.database.execute(
        "UPDATE tenant_acme.refinery_schema_history SET applied_on = 'yesterday' WHERE version = 1",
    );
    given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_acme"), ["1", "2", "3"]);
}

#[test]
fn the_history_is_refinery_s_own() {
    let given = at_two();
    let columns = given.column(
        "SELECT column_name || ' ' || data_type FROM information_schema.columns \
         WHERE table_schema = 'tenant_acme' AND table_name = 'refinery_schema_history' ORDER BY ordinal_position",
    );
    assert_eq!(
        columns,
        [
            "version bigint",
            "name character varying",
            "applied_on character varying",
            "checksum character varying"
        ]
    );
    let row = |column: &str| {
        given.value(&format!(
            "SELECT {column} FROM tenant_acme.refinery_schema_history WHERE version = 1"
        ))
    };
    assert_eq!(row("name"), "a");
    let migration = refinery::Migration::unapplied("V1__a", "CREATE TABLE a (id int);\n").unwrap();
    assert_eq!(row("checksum"), migration.checksum().to_string());
    // refinery's reader wants exactly this and panics otherwise.
    let time = row("applied_on");
    let rfc3339 = &time::format_description::well_known::Rfc3339;
    assert!(time::OffsetDateTime::parse(&time, rfc3339).is_ok(), "{time}");
}

#[test]
fn line_ends_and_a_byte_order_mark_are_never_drift() {
    let given = at_two();
    given.tenant_file("V1__a.sql", "\u{feff}CREATE TABLE a (id int);\r\n");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { up_to_date: 3, ..NONE });
}

#[test]
fn a_history_made_over_raw_bytes_by_another_tool_is_accepted() {
    let raw = "CREATE TABLE a (id int);\r\n";
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__a.sql", raw);
    given.run(&["migrate-schemas"]).exits(0);
    let checksum = refinery::Migration::unapplied("V1__a", raw).unwrap().checksum();
    given.database.execute(&format!(
        "UPDATE tenant_acme.refinery_schema_history SET checksum = '{checksum}'"
    ));
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 1, up_to_date: 1, ..NONE });
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
}

#[test]
fn the_history_of_a_tenant_is_in_its_schema_and_never_in_public() {
    let given = Given::tenants(&["acme"]);
    let before =
        given.value("SELECT string_agg(version::text, ',') FROM public.refinery_schema_history");
    given.tenant_file("V7__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(
        given.value("SELECT string_agg(version::text, ',') FROM public.refinery_schema_history"),
        before
    );
    assert_eq!(given.history("tenant_acme"), ["7"]);
}

#[test]
fn a_history_table_of_another_name_is_used() {
    let given = Given::tenants(&["acme"]);
    given.file("pricesync.toml", "[migrations]\nhistory_table = \"My History\"\n");
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas", "--tenant=acme"]).exits(0);
    assert_eq!(given.value("SELECT version FROM tenant_acme.\"My History\""), "1");
    given.run(&["migrate-schemas", "--tenant=acme", "--check"]).exits(0);
}

#[test]
fn schemas_of_any_name_are_migrated_and_only_those() {
    let longest = "x".repeat(63);
    let names = [
        "x\"; drop table public.victim; --",
        "x'; drop table public.victim; --",
        "Tenant_ACME",
        "select",
        "hà_nội",
        "a b\\c%s",
        "$$",
        &longest,
    ];
    let given = Given::tenants(&[]);
    given.database.execute("CREATE TABLE victim (id int)");
    for (number, name) in names.iter().enumerate() {
        given.tenant_in(&format!("t{number}"), name);
    }
    let schemas = "SELECT string_agg(nspname, '|' ORDER BY nspname) FROM pg_namespace WHERE nspname !~ '^pg_'";
    let before = given.value(schemas);
    given.tenant_file("V1__a.sql", "CREATE TABLE a AS SELECT current_schema()::text AS here;\n");
    given.tenant_file(
        "V2__b.sql",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY a_here ON a (here);\n",
    );
    given.run(&["migrate-schemas"]).exits(0).counts(Counts {
        migrated: names.len(),
        up_to_date: 1,
        ..NONE
    });
    for name in names {
        assert_eq!(given.value(&format!("SELECT here FROM {}.a", quoted(name))), name);
        assert_eq!(given.relations(name, 'i').len(), 2, "{name}");
        given
            .run(&[
                "migrate-schemas",
                "--check",
                "--tenant",
                &format!("t{}", names.iter().position(|n| *n == name).unwrap()),
            ])
            .exits(0);
    }
    assert_eq!(given.relations("public", 'r').iter().filter(|table| *table == "victim").count(), 1);
    assert_eq!(given.value(schemas), before);
}

#[test]
fn a_row_with_a_reserved_schema_is_refused_and_counted() {
    let given = Given::tenants(&["acme"]);
    for (slug, schema) in
        [("evil", "pg_evil"), ("info", "information_schema"), ("ours", "pricesync")]
    {
        given.database.execute(&format!(
            "INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ({}, 'x', '{slug}')",
            literal(schema)
        ));
    }
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .says("evil")
        .says("pg_evil")
        .says("1 migrated, 1 up to date");
    assert_eq!(given.history("tenant_acme"), ["1"]);
    assert_eq!(given.value("SELECT count(*) FROM pg_class WHERE relname = 'a'"), "1");
}

/// Two tenants with a history as refinery's own program makes it: a plain integer, times with
/// fractions.
fn made_by_refinery() -> Given {
    let given = Given::tenants(&["acme", "globex"]);
    let sql = "CREATE TABLE a (id int);\n";
    given.tenant_file("V1__a.sql", sql);
    let checksum = refinery::Migration::unapplied("V1__a", sql).unwrap().checksum();
    for schema in ["tenant_acme", "tenant_globex"] {
        given.database.execute(&format!(
            "CREATE TABLE {schema}.refinery_schema_history (version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255)); \
             CREATE TABLE {schema}.a (id int); \
             INSERT INTO {schema}.refinery_schema_history VALUES (1, 'a', '2024-05-01T10:11:12.123456789Z', '{checksum}')"
        ));
    }
    given
}

#[test]
fn a_history_of_plain_integers_is_continued() {
    let given = made_by_refinery();
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
    given.run(&["status", "--verify"]).exits(0);
    // refinery's program can go on from here.
    assert_eq!(
        given.value("SELECT data_type FROM information_schema.columns WHERE table_schema = 'tenant_acme' AND table_name = 'refinery_schema_history' AND column_name = 'version'"),
        "integer"
    );
}

#[test]
fn a_version_beyond_integer_fails_before_its_file_runs() {
    let given = made_by_refinery();
    given
        .database
        .execute("ALTER TABLE tenant_globex.refinery_schema_history ALTER version TYPE bigint");
    given.tenant_file("V20260101120000__b.sql", "CREATE TABLE b (id int);\n");
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 1, up_to_date: 1, failed: 1, ..NONE })
        .says("recording migrations in tenant_acme")
        .says("integer out of range (22003)")
        .says("ALTER TABLE \"tenant_acme\".\"refinery_schema_history\" ALTER COLUMN version TYPE bigint");
    assert_eq!(given.history("tenant_acme"), ["1"]);
    assert_eq!(given.history("tenant_globex"), ["1", "20260101120000"]);
    assert_eq!(given.relations("tenant_acme", 'r'), ["a", "refinery_schema_history"]);
}

#[test]
fn a_history_with_other_columns_is_continued_or_fails_alone() {
    for (change, continued) in [
        ("ALTER checksum TYPE numeric USING checksum::numeric", true),
        ("ALTER name TYPE text", true),
        ("ALTER version TYPE numeric", true),
        ("ADD COLUMN noted_by text DEFAULT current_user", true),
        ("ALTER applied_on TYPE timestamptz USING applied_on::timestamptz", false),
        ("ALTER version TYPE text", true),
        ("ALTER version TYPE uuid USING gen_random_uuid()", false),
        ("DROP COLUMN checksum", false),
        ("RENAME COLUMN name TO title", false),
        ("ADD COLUMN reviewed_by text NOT NULL DEFAULT 'x', ALTER reviewed_by DROP DEFAULT", false),
    ] {
        let given = at_two();
        for change in change.split(", ") {
            given
                .database
                .execute(&format!("ALTER TABLE tenant_acme.refinery_schema_history {change}"));
        }
        given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\n");
        let ran = given.run(&["migrate-schemas", "--on-failure", "continue"]);
        assert_eq!(ran.code(), Some(if continued { 0 } else { 10 }), "{change}");
        let told = ran.told().never_says("panicked");
        if !continued {
            told.says("3 schemas, 1 migrated, 1 up to date, 1 failed");
        }
        assert_eq!(given.history("tenant_globex"), ["1", "2", "3"], "{change}");
        let tables = given.relations("tenant_acme", 'r');
        assert_eq!(tables.contains(&"c".to_owned()), continued, "{change}");
    }
}

#[test]
fn an_emptied_history_fails_and_changes_nothing() {
    let given = at_two();
    given.database.execute(
        "TRUNCATE tenant_acme.refinery_schema_history; INSERT INTO tenant_acme.a VALUES (7)",
    );
    given.run(&["migrate-schemas", "--check"]).exits(3).says("1 with pending migrations");
    let before = given.dump(&["-n", "tenant_acme"]);
    given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\n");
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 1, up_to_date: 1, failed: 1, ..NONE })
        .says("V1__a failed at migrations/tenant/V1__a.sql:1")
        .says("42P07");
    assert_eq!(given.dump(&["-n", "tenant_acme"]), before);
    // --unchecked is for users who know that everything is there.
    given.run(&["migrate-schemas", "--tenant=acme", "--fake", "--to", "2"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_acme"), ["1", "2", "3"]);
}

#[test]
fn times_in_the_history_are_the_server_s_in_utc() {
    let given = Given::tenants(&["acme"]);
    let name = given.value("SELECT current_database()");
    given.database.execute(&format!("ALTER DATABASE {name} SET timezone TO 'Asia/Ho_Chi_Minh'"));
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    let before = given.value("SELECT clock_timestamp()");
    let mut command = given.command(&["migrate-schemas"]);
    command.env("TZ", "America/Lima").env("PGTZ", "Europe/Berlin");
    Ran::from(&["migrate-schemas"], command.output().unwrap()).exits(0);
    let history = "tenant_acme.refinery_schema_history";
    assert_eq!(
        given.value(&format!(
            "SELECT applied_on ~ 'Z$' AND applied_on::timestamptz BETWEEN '{before}' AND clock_timestamp() FROM {history}"
        )),
        "t"
    );
}

#[test]
fn a_locked_history_delays_no_other_tenant() {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    // So that all histories have to be read.
    given.database.execute("TRUNCATE pricesync.schema_state");
    let holder =
        Holder::of(&given, "ALTER TABLE tenant_globex.refinery_schema_history ADD note text");
    given.run(&["status"]).exits(0).prints("history locked").prints("the-holder");
    given.run(&["status", "--tenant", "globex"]).exits(6).says("its history is locked by pid");
    given.run(&["status", "--verify"]).exits(0).prints("history locked");
    given
        .run(&["migrate-schemas", "--check"])
        .exits(6)
        .says("tenant_globex: its history is locked by pid")
        .says("2 with pending migrations, 0 out of sync, 1 locked");
    given.run(&["doctor", "--fix", "ledger"]).exits(11).prints("the-holder");
    given.database.execute("TRUNCATE pricesync.schema_state");
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 2, up_to_date: 1, failed: 1, ..NONE })
        .says("its history is locked by pid")
        .says("the-holder");
    holder.let_go(&given);
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 1, up_to_date: 3, ..NONE });
    assert_eq!(given.history("tenant_globex"), ["1", "2"]);
}

#[test]
fn a_comment_left_open_is_refused_with_its_line() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE t (a text); /* oops\n");
    given
        .run(&["migrate-schemas"])
        .exits(2)
        .says("V1__a.sql:1:26: the comment that starts here is not closed");
}

#[test]
fn a_script_may_select_text_that_is_not_utf_8() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file(
        "V1__latin.sql",
        "CREATE TABLE a (id int);\nSET LOCAL client_encoding TO 'LATIN1';\nSELECT chr(228);\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
}
