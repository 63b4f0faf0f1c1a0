//! Files that run without a transaction.

use std::process::Command;

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE, quoted};
use crate::support::sessions::{Holder, all_have_ended};

const UNIQUE: &str =
    "-- pricesync: no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id);\n";

/// These tenants with a table `a`.
fn with_a(slugs: &[&str]) -> Given {
    let given = Given::tenants(slugs);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given
}

/// The tenant schemas that have the index `a_id`, each with whether it is valid.
fn indexes(given: &Given) -> Vec<String> {
    given.column(
        "SELECT n.nspname || ' ' || i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'a_id' ORDER BY 1",
    )
}

#[test]
fn an_index_is_built_concurrently_in_every_tenant_at_once() {
    let slugs: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    let given = with_a(&slugs);
    given.tenant_file("V2__index.sql", UNIQUE);
    given.run(&["migrate-schemas", "--jobs", "8"]).exits(0).counts(Counts {
        migrated: 12,
        up_to_date: 1,
        ..NONE
    });
    let built = indexes(&given);
    assert_eq!(built.len(), 12);
    assert!(built.iter().all(|index| index.ends_with(" true")), "{built:?}");
    assert_eq!(given.history("tenant_t7"), ["1", "2"]);
    assert_eq!(given.value("SELECT count(*) FROM pricesync.unfinished_script"), "0");
}

#[test]
fn duplicates_fail_one_tenant_and_leave_no_invalid_index() {
    let given = with_a(&["acme", "globex", "initech"]);
    given.database.execute("INSERT INTO tenant_globex.a VALUES (7), (7)");
    given.tenant_file("V2__index.sql", UNIQUE);
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 2, up_to_date: 1, failed: 1, ..NONE })
        .says("V2__index failed at migrations/tenant/V2__index.sql:2")
        .says("23505")
        .says("Key (id)=(7) is duplicated.");
    assert_eq!(indexes(&given), ["tenant_acme true", "tenant_initech true"]);
    assert_eq!(given.history("tenant_globex"), ["1"]);
    given.database.execute("TRUNCATE tenant_globex.a");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 1, up_to_date: 3, ..NONE });
    assert_eq!(indexes(&given).len(), 3);
    assert_eq!(given.history("tenant_globex"), ["1", "2"]);
}

#[test]
fn a_leftover_invalid_index_is_rebuilt_and_never_accepted() {
    for sql in [UNIQUE, &UNIQUE.replace("CONCURRENTLY a_id", "CONCURRENTLY IF NOT EXISTS a_id")] {
        let given = with_a(&["acme"]);
        // As a killed build leaves it.
        given.database.execute("INSERT INTO tenant_acme.a VALUES (7), (7)");
        let built = crate::support::database::run(
            given.database.url(),
            "CREATE UNIQUE INDEX CONCURRENTLY a_id ON tenant_acme.a (id)",
        );
        assert!(built.is_err());
        assert_eq!(indexes(&given), ["tenant_acme false"]);
        given.database.execute("TRUNCATE tenant_acme.a");
        given.tenant_file("V2__index.sql", sql);
        given.run(&["migrate-schemas"]).exits(0);
        assert_eq!(indexes(&given), ["tenant_acme true"]);
    }
}

#[test]
fn a_valid_index_of_that_name_is_not_taken_for_ours() {
    let given = with_a(&["acme"]);
    given.database.execute("CREATE INDEX a_id ON tenant_acme.a (id)");
    given.tenant_file("V2__index.sql", UNIQUE);
    // Nor by a rerun, which finds that this statement was tried before.
    for _ in 0..2 {
        given.run(&["migrate-schemas"]).exits(10).says("already exists");
        assert_eq!(indexes(&given), ["tenant_acme true"]);
        assert_eq!(given.history("tenant_acme"), ["1"]);
    }
}

#[test]
fn an_index_killed_before_it_was_recorded_is_rebuilt() {
    let given = with_a(&["acme"]);
    given.tenant_file("V2__index.sql", UNIQUE);
    let holder = Holder::of(&given, "INSERT INTO tenant_acme.a VALUES (7)");
    let run = given.spawn(&["migrate-schemas"]);
    eventually("the build waits for the other transaction", || {
        indexes(&given) == ["tenant_acme false"]
    });
    run.signal(Signal::KILL);
    let _ = run.wait();
    all_have_ended(&given);
    holder.let_go(&given);
    // As a server that did not notice in time would have left it.
    given.database.execute("REINDEX INDEX CONCURRENTLY tenant_acme.a_id");
    let built = || given.value("SELECT 'tenant_acme.a_id'::regclass::oid");
    let before = built();
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(built(), before);
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
}

#[test]
fn an_invalid_index_that_a_reader_keeps_is_reported() {
    let given = with_a(&["acme"]);
    given.database.execute("INSERT INTO tenant_acme.a VALUES (7), (7)");
    given.tenant_file("V2__index.sql", UNIQUE);
    let holder = Holder::of(&given, "LOCK TABLE tenant_acme.a IN ACCESS SHARE MODE");
    given
        .run(&["migrate-schemas", "--lock-timeout", "300ms"])
        .exits(10)
        .says("23505")
        .says("index 'a_id' stays invalid until the next run drops it");
    assert_eq!(indexes(&given), ["tenant_acme false"]);
    given.database.execute("DELETE FROM tenant_acme.a");
    // The next run waits for the reader as a build does.
    given.file("pricesync.toml", "[run]\nlock_retries = 10000\n");
    let mut run = given.spawn(&["migrate-schemas", "--lock-timeout", "300ms"]);
    run.hears("tenant_acme: waiting for lock");
    holder.let_go(&given);
    run.wait().exits(0);
    assert_eq!(indexes(&given), ["tenant_acme true"]);
}

#[test]
fn the_second_interrupt_ends_a_build_and_leaves_its_index() {
    let given = with_a(&["acme"]);
    given.tenant_file("V2__index.sql", UNIQUE);
    let holder = Holder::of(&given, "INSERT INTO tenant_acme.a VALUES (7)");
    let mut run = given.spawn(&["migrate-schemas"]);
    eventually("the build waits for the other transaction", || {
        indexes(&given) == ["tenant_acme false"]
    });
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130);
    holder.let_go(&given);
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(indexes(&given), ["tenant_acme true"]);
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
}

#[test]
fn a_file_goes_on_behind_the_last_statement_that_was_done() {
    let given = with_a(&["acme"]);
    given
        .database
        .execute("CREATE TABLE marks (id int); INSERT INTO tenant_acme.a VALUES (7), (7)");
    given.tenant_file(
        "V2__three.sql",
        "-- pricesync: no-transaction\n\
         INSERT INTO marks VALUES (1);\n\
         CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id);\n\
         INSERT INTO marks VALUES (3);\n",
    );
    given.run(&["migrate-schemas"]).exits(10).says("V2__three.sql:3");
    assert_eq!(given.column("SELECT id FROM marks"), ["1"]);
    given.database.execute("TRUNCATE tenant_acme.a");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.column("SELECT id FROM marks ORDER BY id"), ["1", "3"]);
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { up_to_date: 2, ..NONE });
}

#[test]
fn what_a_file_sets_holds_behind_an_index_build_and_in_a_rerun() {
    let given = with_a(&["acme"]);
    given.database.execute("CREATE TABLE marks (it text); CREATE TABLE ready ()");
    given.tenant_file(
        "V2__set.sql",
        "-- pricesync: no-transaction\n\
         SET lock_timeout TO '7s';\n\
         SET work_mem = '9MB';\n\
         CREATE INDEX CONCURRENTLY a_id ON a (id);\n\
         INSERT INTO marks SELECT current_setting('lock_timeout');\n\
         SET work_mem = '8MB';\n\
         SELECT 1 / count(*) FROM ready;\n\
         INSERT INTO marks SELECT current_setting('lock_timeout') || ' ' || current_setting('work_mem');\n",
    );
    given.run(&["migrate-schemas"]).exits(10).says("22012");
    given.database.execute("INSERT INTO ready DEFAULT VALUES");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.column("SELECT it FROM marks ORDER BY it"), ["7s", "7s 8MB"]);
}

#[test]
fn sets_that_mix_both_kinds_run_in_the_order_of_versions() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.tenant_file("V2__index.sql", UNIQUE);
    given.tenant_file("V3__b.sql", "ALTER TABLE a ADD CONSTRAINT a_pk UNIQUE USING INDEX a_id;\n");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
    assert_eq!(given.history("tenant_acme"), ["1", "2", "3"]);
    // What was committed before a failure stays, and is said to stay.
    given.tenant_file("V4__c.sql", "CREATE TABLE c (id int);\n");
    given.tenant_file("V5__d.sql", "-- pricesync: no-transaction\nVACUUM a;\nVACUUM nowhere;\n");
    given
        .run(&["migrate-schemas", "--tenant=acme"])
        .exits(10)
        .says("V4__c of this run stays applied in tenant_acme");
    assert_eq!(given.history("tenant_acme"), ["1", "2", "3", "4"]);
}

#[test]
fn a_value_added_to_an_enum_can_be_used_by_the_next_file() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__mood.sql", "CREATE TYPE mood AS ENUM ('good');\n");
    given.tenant_file(
        "V2__bad.sql",
        "-- pricesync: no-transaction\nALTER TYPE mood ADD VALUE 'bad';\n",
    );
    given.tenant_file("V3__use.sql", "CREATE TABLE moods AS SELECT 'bad'::mood AS mood;\n");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.value("SELECT mood FROM tenant_acme.moods"), "bad");
}

#[test]
fn a_new_tenant_gets_what_runs_without_a_transaction_too() {
    let given = Given::tenants(&[]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.tenant_file("V2__index.sql", UNIQUE);
    given
        .run(&["create-tenant", "--name", "Acme", "--slug", "acme"])
        .exits(0)
        .prints("✓ 2 migrations, ");
    assert_eq!(indexes(&given), ["tenant_acme true"]);
}

#[test]
fn doctor_names_invalid_indexes_and_how_to_drop_them() {
    let given = with_a(&["acme", "globex"]);
    given.tenant_in("odd", "Tenant \"Odd\"");
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["doctor"]).exits(0);
    // Both wait for a transaction that has written to the table, and give up.
    for (schema, sql) in [
        ("tenant_globex", "CREATE INDEX CONCURRENTLY a_id ON"),
        ("Tenant \"Odd\"", "REINDEX TABLE CONCURRENTLY"),
    ] {
        let schema = quoted(schema);
        if sql.starts_with("REINDEX") {
            let index = format!("CREATE INDEX \"A id\" ON {schema}.a (id)");
            given.database.execute(&index);
        }
        let holder = Holder::of(&given, &format!("INSERT INTO {schema}.a VALUES (7)"));
        let columns = if sql.starts_with("CREATE") { "(id)" } else { "" };
        let output = Command::new("psql")
            .args(["-X", "-d", given.database.url(), "-c"])
            .arg(format!("{sql} {schema}.a {columns}"))
            .env("PGOPTIONS", "-c lock_timeout=300ms")
            .output()
            .unwrap();
        assert!(!output.status.success());
        holder.let_go(&given);
    }
    let told = given.run(&["doctor"]).exits(11);
    told.prints("tenant_globex")
        .prints(
            "index 'a_id' on 'a' is invalid after a failed CREATE INDEX CONCURRENTLY; \
             drop it: DROP INDEX CONCURRENTLY \"tenant_globex\".\"a_id\"",
        )
        .prints(
            "index 'A id_ccnew' on 'a' is invalid after a failed REINDEX CONCURRENTLY; \
             drop it: DROP INDEX CONCURRENTLY \"Tenant \"\"Odd\"\"\".\"A id_ccnew\"",
        );
    given.database.execute("DROP INDEX CONCURRENTLY \"Tenant \"\"Odd\"\"\".\"A id_ccnew\"");
    given.database.execute("REINDEX INDEX CONCURRENTLY \"tenant_globex\".\"a_id\"");
    given.run(&["doctor"]).exits(0);
}
