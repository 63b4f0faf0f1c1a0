//! A file does not switch off the limits of a run, unless it asks for that.

use crate::support::pricesync::{Counts, Given, NONE};
use crate::support::sessions::Holder;

/// A run that waits 100 ms for a lock, and once.
const RUN: &str = "[run]\nlock_timeout = \"100ms\"\nlock_retries = 0\n";

const CREATE: [&str; 4] = ["create-tenant", "--name=N", "--slug=n", "--domain=n.test"];

/// Tenants with a table `t`, and a shared table `plans`.
fn given(slugs: &[&str]) -> Given {
    let given = Given::tenants(slugs);
    given.file("pricesync.toml", RUN);
    given.shared_file("V2__plans.sql", "CREATE TABLE plans (id int PRIMARY KEY);");
    given.tenant_file("V1__t.sql", "CREATE TABLE t (a int);");
    given.run(&["migrate-schemas"]).exits(0);
    given
}

/// The settings at the head of a file that `pg_dump` writes.
fn head_of_a_dump(given: &Given) -> String {
    let dump = given.dump(&["--schema-only"]);
    let head: String = dump.split_inclusive('\n').filter(|it| it.starts_with("SET ")).collect();
    assert!(head.contains("SET lock_timeout = 0;"), "{head}");
    head
}

/// A statement that fails unless a setting has this value.
fn expect(setting: &str, value: &str) -> String {
    format!("DO $$ BEGIN ASSERT current_setting('{setting}') = '{value}'; END $$;\n")
}

#[test]
fn behind_the_head_of_a_dump_the_run_still_ends() {
    let given = given(&["acme"]);
    let head = head_of_a_dump(&given);
    let holder = Holder::of(&given, "LOCK TABLE tenant_acme.t IN ACCESS SHARE MODE");
    let long = format!("SELECT 1{};\n", "+1".repeat(1_000));
    for (file, modes) in [
        (head.clone(), &["--jobs=1", "--dry-run=execute"][..]),
        // Too long for the parser, so it is wrapped in DO.
        (head.clone() + &long, &["--jobs=1", "--dry-run=execute"]),
        (format!("-- pricesync: no-transaction\n{head}"), &["--jobs=1"]),
    ] {
        given.tenant_file("V2__dump.sql", file + "ALTER TABLE t ADD b int;\n");
        for mode in modes {
            let told = given.run(&["migrate-schemas", mode]).exits(10);
            told.says("V2__dump failed").says("(55P03)");
        }
    }
    given.file("pricesync.toml", RUN.to_owned() + "atomic = \"migration\"\n");
    given.tenant_file("V2__dump.sql", head + "ALTER TABLE t ADD b int;\n");
    given.run(&["migrate-schemas"]).exits(10).says("(55P03)");
    holder.let_go(&given);
    given.run(&["migrate-schemas"]).exits(0);
    // What is recorded is the file as it is.
    given.run(&["migrate-schemas", "--check"]).exits(0);
}

#[test]
fn one_tenant_of_many_does_not_keep_a_run_waiting() {
    let slugs = ["a", "b", "c", "d"];
    let given = given(&slugs);
    let holder = Holder::of(&given, "LOCK TABLE tenant_c.t IN ACCESS SHARE MODE");
    given.tenant_file("V2__b.sql", "SET lock_timeout = 0;\nALTER TABLE t ADD b int;\n");
    given.run(&["migrate-schemas", "--jobs=1", "--on-failure=continue"]).exits(10).counts(Counts {
        migrated: 3,
        up_to_date: 1,
        failed: 1,
        ..NONE
    });
    drop(holder);
}

#[test]
fn a_new_tenant_does_not_wait_without_a_limit() {
    let given = given(&[]);
    let head = head_of_a_dump(&given);
    let key = "CREATE TABLE u (plan int REFERENCES public.plans);\n";
    given.tenant_file("V2__dump.sql", head + key);
    let holder = Holder::of(&given, "LOCK TABLE plans IN ROW EXCLUSIVE MODE");
    given.run(&CREATE).exits(6).says("(55P03)");
    given.database.execute("CREATE SCHEMA tenant_n");
    given.run(&[&CREATE[..], &["--adopt"]].concat()).exits(6).says("(55P03)");
    holder.let_go(&given);
    given.run(&[&CREATE[..], &["--adopt"]].concat()).exits(0);
}

#[test]
fn shared_files_keep_the_limit_of_the_run_too() {
    let given = given(&[]);
    let holder = Holder::of(&given, "LOCK TABLE plans IN ACCESS SHARE MODE");
    let change =
        "SELECT pg_catalog.set_config('lock_timeout', '0', false);\nALTER TABLE plans ADD b int;\n";
    given.shared_file("V3__b.sql", change);
    given.run(&["migrate-schemas"]).exits(10).says("(55P03)");
    drop(holder);
}

#[test]
fn a_limit_of_the_file_holds_until_it_is_switched_off() {
    let file = format!(
        "SET lock_timeout = '77s'; SET LOCAL statement_timeout = '10min';\n{}{}\
         SET LOCAL lock_timeout TO DEFAULT; SET statement_timeout = '0';\n{}{}",
        expect("lock_timeout", "77s"),
        expect("statement_timeout", "10min"),
        expect("lock_timeout", "100ms"),
        expect("statement_timeout", "1h"),
    );
    let no_transaction = format!(
        "-- pricesync: no-transaction\nSET lock_timeout = '77s';\n{}SET lock_timeout TO 0;\n{}",
        expect("lock_timeout", "77s"),
        expect("lock_timeout", "100ms"),
    );
    let given = given(&["acme"]);
    given.file("pricesync.toml", RUN.to_owned() + "statement_timeout = \"1h\"\n");
    given.tenant_file("V2__own.sql", file);
    given.run(&["migrate-schemas", "--dry-run=execute"]).exits(0);
    given.tenant_file("V3__own.sql", no_transaction);
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&CREATE).exits(0);
    given
        .run(&["create-tenant", "--name=O", "--slug=o", "--domain=o.test", "--no-migrate"])
        .exits(0);
    let sql = given.run(&["migrate-schemas", "--dry-run=sql"]).exits(0);
    sql.prints("SET LOCAL lock_timeout TO '100'; SET statement_timeout = '3600000';");
}

#[test]
fn a_file_that_allows_it_has_no_limit() {
    let allow = "-- pricesync: allow unbounded-lock\n";
    let off = "SET lock_timeout = 0;\n";
    let expected = expect("lock_timeout", "0");
    let given = given(&["acme"]);
    given.tenant_file("V2__header.sql", format!("{allow}\nSELECT 1; {off}{expected}"));
    given.tenant_file("V3__line.sql", format!("SELECT 1;\n{allow}{off}{expected}"));
    given.tenant_file(
        "V4__next.sql",
        format!("{allow}SELECT 1;\n{off}{}", expect("lock_timeout", "100ms")),
    );
    given.tenant_file(
        "V5__outside.sql",
        format!("-- pricesync: no-transaction\n{allow}\n{off}{expected}"),
    );
    let ran = given.run(&["migrate-schemas"]).exits(0);
    ran.says("V4__next.sql switches off lock_timeout")
        .never_says("V2__header.sql")
        .never_says("V3__line.sql");
    given.run(&["lint"]).exits(0).prints("V4__next.sql").never_says("V5__outside.sql");
    given.run(&CREATE).exits(0);
}

#[test]
fn a_run_warns_once_of_a_file_whose_limit_it_keeps() {
    let given = given(&["a", "b", "c"]);
    let head = head_of_a_dump(&given);
    given.tenant_file("V2__dump.sql", head.clone() + "SET statement_timeout = 0;\n");
    let warning = "WARNING: migrations/tenant/V2__dump.sql switches off \
                   idle_in_transaction_session_timeout, lock_timeout, but the run keeps its own limit";
    let told = given.run(&["migrate-schemas"]).exits(0).says(warning);
    assert_eq!(told.stderr.matches("switches off").count(), 1, "{}", told.stderr);
    given.run(&CREATE).exits(0).never_says("switches off");
    given.tenant_file("V3__default.sql", "SET lock_timeout TO DEFAULT;\n");
    given.run(&["migrate-schemas"]).exits(0).never_says("switches off");
    given.tenant_file("V4__again.sql", head);
    let told = given.run(&["migrate-schemas", "--progress=json"]).exits(0);
    assert_eq!(told.stderr.matches(r#""event":"notice","severity":"WARNING""#).count(), 1);
}

#[test]
fn an_error_behind_a_replaced_value_has_its_place_in_the_file() {
    let given = given(&["acme"]);
    let long = format!("SELECT 1{};\n", "+1".repeat(1_000));
    for before in ["", &long] {
        let file = format!(
            "{before}SET lock_timeout = 0; SELECT 'é', set_config('lock_timeout', '0', true), nonsense;\n"
        );
        given.tenant_file("V2__x.sql", file);
        let line = if before.is_empty() { 1 } else { 2 };
        let place = format!("V2__x.sql:{line}:74\n");
        given.run(&["migrate-schemas"]).exits(10).says(&place);
        given.run(&["migrate-schemas", "--dry-run=execute"]).exits(10).says(&place);
    }
}
