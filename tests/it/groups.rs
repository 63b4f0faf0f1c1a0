//! Schemas that share a transaction, and what prevents it.

use crate::support::pricesync::{Counts, Given, NONE, Ran, quoted};
use crate::support::sessions::{CLASS, Holder};

/// Takes no time, and nothing keeps it from sharing a transaction.
const QUICK: &str = "ALTER TABLE items ADD COLUMN weight integer;\nCREATE INDEX items_weight_idx ON items (weight);\n";

/// However slow the machine is.
const PATIENT: &str = "[run]\ngroup_time = \"1h\"\n";

/// So many tenants `t00`, `t01`, ... whose schemas have had the first file.
fn fleet(count: usize) -> Given {
    let slugs: Vec<String> = (0..count).map(|number| format!("t{number:02}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    let given = Given::tenants(&slugs);
    given.file("pricesync.toml", PATIENT);
    given.tenant_file("V1__items.sql", "CREATE TABLE items (id int);\n");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts {
        migrated: count,
        up_to_date: 1,
        ..NONE
    });
    given
}

/// Migrates one schema at a time, or several together.
fn migrate(given: &Given, args: &[&str]) -> Ran {
    let steady = ["migrate-schemas", "--jobs", "1", "--on-failure", "continue"];
    given.run(&[&steady[..], args].concat())
}

/// How many schemas there were in the transaction that had most of them.
fn most_together(given: &Given) -> usize {
    given
        .value("SELECT max(n) FROM (SELECT count(*) AS n FROM pricesync.schema_state GROUP BY written_by) w")
        .parse()
        .unwrap()
}

/// The slugs whose schemas have the column of [`QUICK`].
fn with_weight(given: &Given) -> usize {
    given
        .value("SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relname = 'items' AND a.attname = 'weight'")
        .parse()
        .unwrap()
}

#[test]
fn quick_schemas_share_transactions_and_end_as_if_they_had_not() {
    let hostile = ["Tenant \"Odd\"", "it's", "a.b", "quán ăn ế", &"n".repeat(63)];
    let dumps = [("16", 16), ("3", 3), ("1", 1)].map(|(most, expected)| {
        let given = Given::tenants(&[]);
        given.file("pricesync.toml", PATIENT);
        for number in 0..45 {
            given.tenant_in(&format!("t{number}"), &format!("tenant_t{number}"));
        }
        for (number, schema) in hostile.iter().enumerate() {
            given.tenant_in(&format!("odd{number}"), schema);
        }
        given.tenant_file("V1__items.sql", "CREATE TABLE items (id int);\n");
        migrate(&given, &[]).exits(0).counts(Counts { migrated: 50, up_to_date: 1, ..NONE });
        given.tenant_file("V2__quick.sql", QUICK);
        given.tenant_file("V3__more.sql", "CREATE TABLE more (id int); -- no end");
        migrate(&given, &["--group-size", most])
            .exits(0)
            .counts(Counts { migrated: 50, up_to_date: 1, ..NONE });
        assert_eq!(most_together(&given), expected);
        assert_eq!(with_weight(&given), 50);
        for schema in hostile {
            assert_eq!(given.history(schema), ["1", "2", "3"], "{schema}");
        }
        // The ledger is believed, and is right.
        given.run(&["status", "--verify"]).exits(0);
        migrate(&given, &[]).exits(0).counts(Counts { up_to_date: 51, ..NONE });
        let query = "SELECT string_agg(format('%s %s %s', version, name, checksum), ',' ORDER BY version) FROM ";
        hostile.map(|schema| {
            given.value(&format!("{query}{}.refinery_schema_history", quoted(schema)))
        })
    });
    assert_eq!(dumps[0], dumps[2]);
    assert_eq!(dumps[1], dumps[2]);
}

#[test]
fn one_that_fails_fails_alone_and_is_named() {
    let given = fleet(30);
    given.database.execute("ALTER TABLE tenant_t20.items ADD COLUMN weight text");
    given.tenant_file("V2__quick.sql", QUICK);
    migrate(&given, &[])
        .exits(10)
        .counts(Counts { migrated: 29, up_to_date: 1, failed: 1, ..NONE })
        .says("t20")
        .says("V2__quick.sql:1:1")
        .says("already exists (42701)");
    assert!(most_together(&given) > 2);
    assert_eq!(given.history("tenant_t20"), ["1"]);
    assert_eq!(given.relations("tenant_t20", 'i'), ["refinery_schema_history_pkey"]);
}

#[test]
fn no_more_fail_than_are_allowed_to() {
    let given = fleet(30);
    for number in 10..30 {
        given
            .database
            .execute(&format!("ALTER TABLE tenant_t{number}.items ADD COLUMN weight text"));
    }
    given.tenant_file("V2__quick.sql", QUICK);
    let args = ["migrate-schemas", "--jobs", "1", "--max-failures", "3"];
    given.run(&args).exits(10).counts(Counts {
        migrated: 10,
        up_to_date: 1,
        failed: 3,
        not_started: 17,
        ..NONE
    });
    assert!(most_together(&given) > 1);
}

#[test]
fn a_table_in_use_is_waited_for_by_its_own_schema_alone() {
    let given = fleet(30);
    given.tenant_file("V2__quick.sql", QUICK);
    given.file("pricesync.toml", format!("{PATIENT}lock_retries = 1\n"));
    let holder = Holder::of(&given, "LOCK TABLE tenant_t20.items IN ACCESS SHARE MODE");
    migrate(&given, &["--lock-timeout", "3s"])
        .exits(10)
        .counts(Counts { migrated: 29, up_to_date: 1, failed: 1, ..NONE })
        .says("55P03")
        .says("the-holder")
        .says("gave up after 2 attempts");
    assert!(most_together(&given) > 2);
    holder.let_go(&given);
    migrate(&given, &[]).exits(0).counts(Counts { migrated: 1, up_to_date: 30, ..NONE });
}

#[test]
fn a_schema_that_another_run_holds_is_waited_for_by_itself() {
    let given = fleet(30);
    given.tenant_file("V2__quick.sql", QUICK);
    let lock =
        format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_t20'::regnamespace::oid::int4)");
    let _holder = Holder::of(&given, &lock);
    migrate(&given, &["--lock-wait", "1s"])
        .exits(10)
        .counts(Counts { migrated: 29, up_to_date: 1, failed: 1, ..NONE })
        .says("the-holder");
    assert!(most_together(&given) > 2);
}

#[test]
fn histories_that_differ_are_brought_to_the_same_end() {
    let given = fleet(30);
    given.tenant_file("V2__quick.sql", QUICK);
    migrate(&given, &["--tenant", "t15,t16,t25"]).exits(0);
    given.tenant_file("V3__more.sql", "CREATE TABLE more (id int);\n");
    // A row that no file stands for, in one of them.
    given
        .database
        .execute("INSERT INTO tenant_t07.refinery_schema_history VALUES (9, 'gone', 'then', '1')");
    migrate(&given, &[])
        .exits(10)
        .counts(Counts { migrated: 29, up_to_date: 1, failed: 1, ..NONE })
        .says("V9__gone is applied, but its file is gone");
    assert_eq!(with_weight(&given), 29);
    assert_eq!(given.history("tenant_t07"), ["1", "9"]);
    assert_eq!(given.history("tenant_t15"), ["1", "2", "3"]);
}

#[test]
fn a_notice_is_reported_for_its_schema() {
    let given = fleet(30);
    given.database.execute("CREATE TABLE tenant_t20.more (id int)");
    given.tenant_file("V2__more.sql", "CREATE TABLE IF NOT EXISTS more (id int);\n");
    let told = migrate(&given, &["--progress", "json"])
        .exits(0)
        .says("relation \\\"more\\\" already exists, skipping");
    assert!(most_together(&given) > 2);
    let remarks: Vec<&str> =
        told.stderr.lines().filter(|line| line.contains("already exists")).collect();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].contains("tenant_t20"), "{remarks:?}");
}

#[test]
fn files_with_rows_and_new_schemas_run_outside_groups() {
    let given = fleet(30);
    given.tenant_file("V2__row.sql", "INSERT INTO items VALUES (1);\n");
    migrate(&given, &[]).exits(0).counts(Counts { migrated: 30, up_to_date: 1, ..NONE });
    assert_eq!(most_together(&given), 1);
    let given = Given::tenants(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    given.tenant_file("V1__items.sql", "CREATE TABLE items (id int);\n");
    migrate(&given, &["--no-template"]).exits(0).counts(Counts {
        migrated: 8,
        up_to_date: 1,
        ..NONE
    });
    assert_eq!(most_together(&given), 1);
    given.file("pricesync.toml", format!("{PATIENT}atomic = \"migration\"\n"));
    given.tenant_file("V2__quick.sql", QUICK);
    migrate(&given, &[]).exits(0).counts(Counts { migrated: 8, up_to_date: 1, ..NONE });
    assert_eq!(most_together(&given), 1);
}

#[test]
fn writes_to_another_tenants_rows_are_found() {
    let given = fleet(30);
    // From the one on that is the last of those that go together with t03.
    given.database.execute(
        "CREATE FUNCTION public.spread() RETURNS int LANGUAGE plpgsql AS \
         'BEGIN IF current_schema() > ''tenant_t05'' THEN INSERT INTO tenant_t03.other VALUES (1); END IF; RETURN 1; END'; \
         CREATE TABLE tenant_t03.other (id int)",
    );
    for number in 0..30 {
        let sql = format!("INSERT INTO tenant_t{number:02}.items VALUES (0)");
        given.database.execute(&sql);
    }
    given.tenant_file(
        "V2__spread.sql",
        "ALTER TABLE items ADD CONSTRAINT spread CHECK (public.spread() = 1);\n",
    );
    migrate(&given, &[])
        .exits(10)
        .counts(Counts { migrated: 6, up_to_date: 1, failed: 24, ..NONE })
        .says("tenant_t06: V2__spread reached outside its schema")
        .says("tenant_t03.other (rows changed)");
    assert_eq!(most_together(&given), 2);
    assert_eq!(given.value("SELECT count(*) FROM tenant_t03.other"), "0");
}

#[test]
fn a_commit_that_is_refused_is_one_schema_s_failure() {
    let given = fleet(30);
    given.database.execute(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''refused at the end''; END'; \
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON tenant_t20.refinery_schema_history \
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.refuse()",
    );
    given.tenant_file("V2__quick.sql", QUICK);
    migrate(&given, &[])
        .exits(10)
        .counts(Counts { migrated: 29, up_to_date: 1, failed: 1, ..NONE })
        .says("refused at the end");
    assert!(most_together(&given) > 2);
    assert_eq!(given.history("tenant_t20"), ["1"]);
}

#[test]
fn two_runs_at_once_do_everything_once() {
    let given = fleet(40);
    given.tenant_file("V2__quick.sql", QUICK);
    let runs: Vec<_> = (0..3).map(|_| given.spawn(&["migrate-schemas"])).collect();
    for run in runs {
        run.wait().exits(0).says("0 failed, 0 skipped, 0 not started");
    }
    assert_eq!(with_weight(&given), 40);
    given.run(&["status", "--verify"]).exits(0);
}
